"""``streamsvc put``, as a user runs it: through its function, where a process of its own would show nothing more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from streamsvc.commands.put import Destination, put
from streamsvc.core.kpl import EVERYTHING, deaggregate
from streamsvc.errors import ConfigError, Fatal, SourceRefused
from tests.kinesis_emulators import KinesisProcess

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
BAD_LINES = [
    (None, b"x" * 1024 * 1024, "1048592 bytes with its key, and the stream takes 1048576"),
    ("2", b"alone", "it has no column 2"),
    ("2", b"a \xff", "column 2 is not UTF-8"),
    ("2", b"a " + b"k" * 257, "a partition key has 1 to 256 characters, not 257"),
    ("id", b"nonsense", "it is no JSON"),
    ("id", b'{"id": null}', "it has no text or number 'id'"),
]


class Stream:
    """A stream of one shard and what is in it."""

    def __init__(self, endpoint_url: str) -> None:
        self.name = f"stream-{uuid.uuid4().hex[:12]}"
        self.endpoint_url = endpoint_url
        self._kinesis: Any = boto3.client(
            "kinesis",
            region_name="us-east-1",
            endpoint_url=endpoint_url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self._kinesis.create_stream(StreamName=self.name, ShardCount=1)

    def destination(self, *, aggregate: bool = False) -> Destination:
        return Destination(self.name, None, self.endpoint_url, aggregate)

    def command(self, *arguments: str) -> list[str]:
        whereto = ["--stream", self.name, "--endpoint-url", self.endpoint_url]
        return [sys.executable, "-m", "streamsvc", "put", *whereto, *arguments]

    def records(self) -> list[tuple[str, bytes]]:
        """Keys and values; what is packed is unpacked."""
        found = self._kinesis.get_shard_iterator(
            StreamName=self.name, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
        )
        records = self._kinesis.get_records(ShardIterator=found["ShardIterator"])["Records"]
        keys, values = [record["PartitionKey"] for record in records], [record["Data"] for record in records]
        unpacked = deaggregate(keys, values, EVERYTHING)
        return list(zip(unpacked.keys, unpacked.values, strict=True))

    def values(self) -> list[bytes]:
        return [value for _, value in self.records()]

    def close(self) -> None:
        self._kinesis.close()


@pytest.fixture(scope="module")
def server() -> Iterator[KinesisProcess]:
    with KinesisProcess("--unthrottled", "--fault", "PutRecords.partial=0.3", "--seed", "5") as started:
        yield started


@pytest.fixture
def stream(server: KinesisProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    opened = Stream(server.endpoint_url)
    yield opened
    opened.close()


@pytest.mark.parametrize("aggregate", [False, True])
def test_every_line_of_a_file_is_a_record(
    stream: Stream, tmp_path: Path, capsys: pytest.CaptureFixture[str], aggregate: bool
) -> None:
    lines = [b"line %d" % number for number in range(3_000)] + [b"", b"\xff no newline at the end"]
    file = tmp_path / "lines"
    file.write_bytes(b"\n".join(lines))
    assert put(str(file), stream.destination(aggregate=aggregate), None, None) == 0
    assert sorted(stream.values()) == sorted(lines)
    told = capsys.readouterr().out
    assert told.startswith("3,002 records (")
    assert ("aggregates" in told) is aggregate


def test_lines_of_a_pipe_are_put_when_they_come(stream: Stream) -> None:
    with subprocess.Popen(stream.command("-", "--kpl"), stdin=subprocess.PIPE, env={**os.environ, **KEYS}) as process:
        assert process.stdin is not None
        process.stdin.write(b"one\ntw")
        process.stdin.flush()
        while not (found := stream.values()) and process.poll() is None:
            time.sleep(0.05)
        assert found == [b"one"]
        process.stdin.write(b"o\n")
        process.stdin.close()
        assert process.wait() == 0
    assert stream.values() == [b"one", b"two"]


def test_keys(stream: Stream, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    for key, column, line in (
        ("fixed", None, "a b"),
        (None, "2", "10.0.0.1  bob x"),
        (None, "user", '{"user": "é", "id": 7}'),
        (None, "id", '{"user": "x", "id": 7}'),
    ):
        file.write_text(line, encoding="utf-8")
        put(str(file), stream.destination(), key, column)
    assert [key for key, _ in stream.records()] == ["fixed", "bob", "é", "7"]


@pytest.mark.parametrize(("column", "line", "why"), BAD_LINES)
def test_a_line_that_cannot_be_a_record_is_named_and_those_before_it_are_put(
    stream: Stream, tmp_path: Path, column: str | None, line: bytes, why: str
) -> None:
    file = tmp_path / "lines"
    good = b'{"id": 1}' if column == "id" else b"1 one"
    file.write_bytes(b"\n".join([good, good, line, good]))
    with pytest.raises(Fatal) as caught:
        put(str(file), stream.destination(), None, column)
    assert f"{file}:3: this line cannot be a record: {why}" in str(caught.value)
    assert stream.values() == [good, good]


def test_a_line_without_end_is_refused_before_it_fills_the_memory(stream: Stream, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    with file.open("wb") as sparse:
        sparse.write(b"short\n")
        sparse.truncate(2**32)
    with pytest.raises(Fatal, match=r":2: this line cannot be a record"):
        put(str(file), stream.destination(), "k", None)
    assert stream.values() == [b"short"]


def test_what_cannot_be_begun_is_told(stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"line\n")
    for source, key, column, why in (
        (str(tmp_path / "no-such-file"), None, None, "No such file or directory"),
        (str(file), "", None, "--partition-key: a partition key has 1 to 256 characters, not 0"),
        (str(file), None, "0", "--key-column: columns are counted from 1"),
        (str(file), "a", "1", "one of them"),
    ):
        with pytest.raises(ConfigError, match=why):
            put(source, stream.destination(), key, column)
    with pytest.raises(SourceRefused, match="there is no such resource"):
        put(str(file), Destination("there-is-none", None, stream.endpoint_url, aggregate=False), None, None)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="--region"):
        put(str(file), stream.destination(), None, None)
    assert stream.values() == []


def test_the_command_line(stream: Stream) -> None:
    environment = {**os.environ, **KEYS}
    command = stream.command("-", "--key-column", "2", "--region", "us-east-1")
    done = subprocess.run(command, input=b"1 a\n2\n", capture_output=True, env=environment, check=False)
    assert done.returncode == 1
    assert b"standard input:2: this line cannot be a record: it has no column 2" in done.stderr
    assert b"Traceback" not in done.stderr
    assert stream.records() == [("a", b"1 a")]
