"""The policy of a configuration beside the calls that its commands make: every call is allowed, and nothing else is.

S3, DynamoDB and STS are moto's, in a thread of this process, with a door in front that notes each request as IAM would
see it. Kinesis is our own server, which counts operations.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import parse_qs
from xml.etree import ElementTree

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from streamsvc.commands.iam_policy import iam_policy
from streamsvc.testing.kinesis_server import KinesisServer
from streamsvc.testing.kinesis_server.account import ACCOUNT
from tests.kinesis_sources import UNTHROTTLED

ROLE = f"arn:aws:iam::{ACCOUNT}:role/reader"
STREAM = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/access"

CONFIGURATION = """\
service: iam
state: s3://{bucket}/state
memory: 256MiB
http: null
aws:
  region: us-east-1
  access_key_id: test
  secret_access_key: test
  role_arn: {role}
  endpoint_url: "{aws}"
  endpoints: {{kinesis: "{kinesis}", dynamodb: "{aws}", sts: "{aws}"}}
pipelines:
  p:
    source: {{kinesis: {{stream: access, failover: 2s, {options}}}}}
    decode: {{json: {{schema: {{n: int64}}}}}}
    sink: {{path: "s3://{bucket}/rows", buffer: {{interval: 300ms}}}}
"""


class Call(NamedTuple):
    """An action on a resource, as IAM is asked. prefix: of a listing."""

    action: str
    resource: str
    prefix: str | None = None


class Door:
    """WSGI middleware: ``calls`` has what came. The answer to the first object below ``rows/`` is lost, so it is
    created again, found, and looked at."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._turn = threading.Lock()
        self._to_lose = 1
        self.calls: set[Call] = set()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        stream: IO[bytes] = environ["wsgi.input"]
        body = stream.read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        with self._turn:
            said: list[tuple[Any, ...]] = []
            answer = list(self._app(environ, lambda *head: said.append(head)))
            self.calls.update(_calls(environ, body, missing=said[-1][0].startswith("404")))
            if environ["REQUEST_METHOD"] == "PUT" and "/rows/" in environ["PATH_INFO"] and self._to_lose:
                self._to_lose -= 1
                start_response("503 Service Unavailable", [("Content-Length", "0")])
                return []
        start_response(*said[-1])
        return answer


def _calls(environ: dict[str, Any], body: bytes, *, missing: bool) -> Iterator[Call]:
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        table = json.loads(body)["TableName"]
        yield Call(f"dynamodb:{target.partition('.')[2]}", f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/{table}")
    elif b"Action=AssumeRole" in body:
        yield Call("sts:AssumeRole", parse_qs(body.decode())["RoleArn"][0])
    else:
        yield from _calls_of_s3(environ, body, missing=missing)


def _calls_of_s3(environ: dict[str, Any], body: bytes, *, missing: bool) -> Iterator[Call]:
    method, query = environ["REQUEST_METHOD"], parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    bucket, _, key = environ["PATH_INFO"].strip("/").partition("/")
    arn = f"arn:aws:s3:::{bucket}"
    if "delete" in query:
        keys = [found.text for found in ElementTree.fromstring(body).iter() if found.tag.endswith("Key")]
        yield from (Call("s3:DeleteObject", f"{arn}/{key}") for key in keys)
    elif not key:
        yield Call(
            "s3:ListBucket" if method == "GET" else f"s3: {method} of a bucket", arn, query.get("prefix", [""])[0]
        )
    elif "uploads" in query or "uploadId" in query:
        yield Call("s3: a multipart upload", f"{arn}/{key}")
    else:
        verbs = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
        yield Call(f"s3:{verbs[method]}", f"{arn}/{key}")
        if missing and method != "PUT":
            yield Call("s3:ListBucket", arn, key)


class Amazon(NamedTuple):
    """``bucket``: moto's are there as long as this process."""

    endpoint_url: str
    bucket: str
    door: Door


@pytest.fixture
def amazon() -> Iterator[Amazon]:
    door = Door(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, door, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url, bucket = f"http://127.0.0.1:{server.server_port}", f"lake-{uuid.uuid4().hex[:8]}"
    boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    ).create_bucket(Bucket=bucket)
    door.calls.clear()
    yield Amazon(url, bucket, door)
    server.shutdown()
    thread.join()
    server.server_close()


class _Quiet(MotoRequestHandler):
    def log_request(self, *_: Any) -> None: ...


class Clock:
    """The server's."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class Stage:
    def __init__(self, amazon: Amazon, server: KinesisServer, clock: Clock, folder: Path) -> None:
        self.amazon = amazon
        self.server = server
        self.clock = clock
        self.file = folder / "pipeline.yaml"

    def configure(self, options: str) -> None:
        self.file.write_text(
            CONFIGURATION.format(
                role=ROLE,
                bucket=self.amazon.bucket,
                aws=self.amazon.endpoint_url,
                kinesis=self.server.endpoint_url,
                options=options,
            )
        )

    def put(self, *values: bytes) -> None:
        stream = self.server.account.streams["access"]
        for number, value in enumerate(values):
            shards = stream.open_shards()
            shards[number % len(shards)].put(value, "k", self.clock())

    async def command(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streamsvc", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"AWS_EC2_METADATA_DISABLED": "true"},
        )
        out, error = await asyncio.wait_for(process.communicate(), 90)
        assert process.returncode == 0, f"{arguments}:\n{out.decode()}\n{error.decode()}"
        return out.decode()

    def calls(self) -> set[Call]:
        consumers = {consumer.arn for consumer in self.server.account.consumers.values()}
        found = set(self.amazon.door.calls)
        for operation in self.server.faults.calls:
            resources = {STREAM}
            if operation == "SubscribeToShard":
                resources = consumers
            elif operation == "DescribeStreamConsumer":
                resources = consumers | {arn.rpartition(":")[0] for arn in consumers}
            found |= {Call(f"kinesis:{operation}", resource) for resource in resources}
        return found


@pytest.fixture
async def stage(amazon: Amazon, tmp_path: Path) -> AsyncIterator[Stage]:
    clock = Clock()
    async with KinesisServer(limits=UNTHROTTLED, clock=clock) as server:
        server.account.create_stream("access", 2)
        yield Stage(amazon, server, clock, tmp_path)


def policy(file: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    iam_policy(file, None)
    statements: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["Statement"]
    return statements


def matches(pattern: str, text: str) -> bool:
    """As IAM has wildcards."""
    wild = {"*": ".*", "?": "."}
    parts = re.split(r"([*?])", pattern)
    return re.fullmatch("".join(wild.get(part) or re.escape(part) for part in parts), text) is not None


def allows(statement: dict[str, Any], call: Call) -> bool:
    limits = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix")
    return (
        call.action in statement["Action"]
        and any(matches(pattern, call.resource) for pattern in statement["Resource"])
        and (limits is None or any(matches(limit, call.prefix or "") for limit in limits))
    )


def check(statements: list[dict[str, Any]], calls: set[Call]) -> None:
    """Both ways."""
    refused = sorted(call for call in calls if not any(allows(statement, call) for statement in statements))
    assert not refused
    for statement in statements:
        used = {call for call in calls if allows(statement, call)}
        assert set(statement["Action"]) == {call.action for call in used}, statement["Sid"]
        for pattern in statement["Resource"]:
            assert any(matches(pattern, call.resource) for call in used), pattern
        for limit in statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix", []):
            assert any(matches(limit, call.prefix or "") for call in used), limit


async def test_polling_with_leases(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.configure("retrieval: polling")
    file = str(stage.file)
    await stage.command("validate", "--online", file)
    stage.put(b'{"n": 1}', b'{"n": 2}', b"no JSON", b"none either")
    await stage.command("run", file, "--until-end")
    await stage.command("rejects", file, "--replay")
    await stage.command("status", file)
    # Shards are split and read to their ends; when retention has taken them, their leases are deleted.
    stream = stage.server.account.streams["access"]
    for shard in stream.open_shards():
        stream.split(shard.id, str((shard.first_hash_key + shard.last_hash_key) // 2), stage.clock())
    await stage.command("run", file, "--until-end")
    stage.clock.ahead_s = 2 * 24 * 3600.0
    stage.put(b'{"n": 3}')
    await stage.command("run", file, "--until-end")
    await stage.command("gc", file)
    check(policy(stage.file, capsys), stage.calls())


async def test_fan_out_without_leases(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.configure("retrieval: fanout, leases: none")
    stage.put(b'{"n": 1}', b"no JSON")
    await stage.command("validate", "--online", str(stage.file))
    await stage.command("run", str(stage.file), "--until-end")
    await stage.command("rejects", str(stage.file), "--replay")
    check(policy(stage.file, capsys), stage.calls())


def test_what_is_not_allowed_and_what_is_not_used_are_told() -> None:
    limit = {"StringLike": {"s3:prefix": ["x/*"]}}
    statement = {"Sid": "S", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::b"], "Condition": limit}
    inside, outside = (Call("s3:ListBucket", "arn:aws:s3:::b", prefix) for prefix in ("x/y", "y"))
    check([statement], {inside})
    with pytest.raises(AssertionError):
        check([statement], {inside, outside})
    with pytest.raises(AssertionError, match="S"):
        check([statement | {"Action": ["s3:ListBucket", "s3:More"]}], {inside})
