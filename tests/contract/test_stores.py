"""One suite for every ObjectStore; then what each kind has of its own."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from shutil import rmtree

import duckdb
import pyarrow as pa
import pytest
from pydantic import SecretStr

from streamsvc.config import Aws
from streamsvc.contracts import Entry, ObjectStore
from streamsvc.errors import StoreRefused, StoreUnavailable, StreamsvcError
from streamsvc.stores.local import STAGING, LocalStore
from streamsvc.stores.objects import open_store
from streamsvc.stores.probe import CREATES, probe
from streamsvc.stores.retrying import BACKOFF, RetryingStore, StoreHealth
from streamsvc.testing.faulty_store import Fault, FaultyStore, random_faults
from tests.s3_server import S3Server

KINDS = ["memory", "file", "s3", "retrying"]
HOSTILE = [
    "date=2026-11-24/response=200/x.parquet",
    "a=%2Fb%3Dc/x",
    "a=100%/x",
    "a=%/x",
    "p=/x",
    "p=../x",
    "tilde~hash#question?amp&plus+/x",
    "space in the middle/ and around /x",
    "quote'\"back\\slash/x",
    "colon:star*pipe|<>[]{}^`$!@,;()/x",
    "grün/日本/😀/x",
    "e\u0301 is not é/x",
    "\u2028\u202e/x",
    ".hidden/x",
    "n" * 255 + "/x",
]
numbers = count()


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server.start() as server:
        server.make_bucket("lake")
        yield server


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    number = next(numbers)
    match request.param:
        case "memory":
            return open_store(f"memory://suite{number}/some/prefix", Aws())
        case "file":
            return open_store(f"{tmp_path.as_uri()}/not/yet/there", Aws())
        case "s3":
            return open_store(f"s3://lake/suite{number}/", request.getfixturevalue("s3").aws)
        case _:
            faults = random_faults(number, before=0.2, after=0.2)
            return RetryingStore(FaultyStore(open_store(f"memory://suite{number}", Aws()), faults), sleep=no_sleep)


async def keys(store: ObjectStore, prefix: str = "", after: str = "") -> list[str]:
    return [entry.key async for entry in store.list(prefix, after=after)]


async def put(store: ObjectStore, key: str, body: bytes = b"x") -> None:
    """Created, or found to be its own: the answer of a create may have been lost."""
    assert await store.create(key, body) or await store.get(key) == body


class TestEveryStore:
    async def test_what_was_created_is_read_back(self, store: ObjectStore) -> None:
        await put(store, "some/key", b"body")
        assert await store.get("some/key") == b"body"
        assert await store.size("some/key") == 4

    async def test_absent_is_none(self, store: ObjectStore) -> None:
        assert await store.get("some/key") is None
        assert await store.size("some/key") is None
        assert await keys(store) == []
        await store.delete(["some/key"])

    async def test_a_second_create_changes_nothing(self, store: ObjectStore) -> None:
        await put(store, "key", b"first")
        assert await store.create("key", b"second") is False
        assert await store.get("key") == b"first"

    async def test_parts_are_put_one_after_another(self, store: ObjectStore) -> None:
        numbers = pa.array([1, 2, 3], pa.int64()).buffers()[1]
        assert numbers is not None
        body: list[pa.Buffer | bytes] = [pa.py_buffer(b"arrow "), b"", b"bytes ", numbers]
        await store.create("parts", body)
        assert await store.get("parts") == b"arrow bytes " + numbers.to_pybytes()
        await store.create("empty", [])
        assert await store.get("empty") == b""

    async def test_one_of_many_creates_wins(self, store: ObjectStore) -> None:
        won = await asyncio.gather(*(store.create("key", str(number).encode()) for number in range(32)))
        body = await store.get("key")
        assert body is not None
        if sum(won):
            assert [str(number).encode() for number, win in enumerate(won) if win] == [body]

    async def test_lists_in_text_order_after_a_key(self, store: ObjectStore) -> None:
        made = ["a", "a-b", "a/b", "a/b-c", "a/b/c", "a/ü", "a/Z", "a0", "b/x"]
        for key in made if store.url.startswith("memory") else [key for key in made if key not in {"a", "a/b"}]:
            await put(store, key, b"12")
        listed = await keys(store)
        assert listed == sorted(listed)
        assert {"a-b", "a/b-c", "a/b/c", "a/ü", "a/Z", "a0", "b/x"} <= set(listed)
        assert await keys(store, "a/") == [key for key in listed if key.startswith("a/")]
        assert await keys(store, "a/", after="a/b-c") == [key for key in listed if "a/b-c" < key < "a0"]
        assert await keys(store, "nothing/") == []
        assert [entry async for entry in store.list("b/")] == [Entry("b/x", 2)]

    async def test_lists_more_than_a_page(self, store: ObjectStore) -> None:
        made = [f"many/{number:04}" for number in range(1100)]
        await asyncio.gather(*(put(store, key) for key in made))
        assert await keys(store, "many/") == made
        await store.delete(made[1:])
        assert await keys(store) == made[:1]

    @pytest.mark.parametrize("key", HOSTILE)
    async def test_keys_survive_exactly(self, store: ObjectStore, key: str) -> None:
        await put(store, key, key.encode())
        assert await store.get(key) == key.encode()
        assert await keys(store) == [key]
        await store.delete([key])
        assert await store.get(key) is None

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\0b", "a\nb", "a\x7f", "\ufffe", "n" * 1025]
    )
    async def test_keys_that_no_store_can_hold_are_faults(self, store: ObjectStore, key: str) -> None:
        with pytest.raises(ValueError, match="an object key"):
            await store.create(key, b"x")
        with pytest.raises(ValueError, match="an object key"):
            await store.get(key)

    async def test_passes_the_probe_and_leaves_nothing(self, store: ObjectStore) -> None:
        await probe(store)
        assert await keys(store) == []


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        ["", "lake", "s3:/x", "s3://", "file://host/dir", "file:///", "gs://lake", "file:///a/../b", "s3://lake/a//b"],
    )
    def test_others_are_refused(self, url: str) -> None:
        with pytest.raises(StoreRefused, match="not the address of an object store"):
            open_store(url, Aws())

    @pytest.mark.parametrize("url", ["s3://lake/a/b", "file:///a/b", "memory://lake/a"])
    def test_the_url_names_the_prefix(self, url: str) -> None:
        assert open_store(url, Aws()).url == url
        assert open_store(f"{url}/", Aws()).url == url

    def test_half_a_pair_of_keys_is_refused(self) -> None:
        with pytest.raises(StoreRefused, match="half a pair"):
            open_store("s3://lake", Aws(access_key_id=SecretStr("AKIA")))


class TestS3:
    async def test_no_such_bucket(self, s3: S3Server) -> None:
        store = open_store("s3://nowhere/prefix", s3.aws)
        with pytest.raises(StoreRefused, match="404"):
            await store.create("key", b"x")
        with pytest.raises(StoreRefused, match="404"):
            await store.get("key")
        with pytest.raises(StoreRefused, match="404"):
            await keys(store)

    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (301, "", StoreRefused),
            (400, "<Error><Code>ExpiredToken</Code></Error>", StoreUnavailable),
            (400, "<Error><Code>AuthorizationHeaderMalformed</Code></Error>", StoreRefused),
            (400, "<Error><Code>EntityTooLarge</Code></Error>", StoreRefused),
            (401, "", StoreRefused),
            (
                403,
                "<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIAWHO</AWSAccessKeyId></Error>",
                StoreRefused,
            ),
            (501, "<Error><Code>NotImplemented</Code></Error>", StoreRefused),
            (500, "", StoreUnavailable),
            (503, "<Error><Code>SlowDown</Code></Error>", StoreUnavailable),
        ],
    )
    async def test_faults_are_mapped_and_quote_nothing(
        self, status: int, body: str, kind: type[StoreRefused | StoreUnavailable]
    ) -> None:
        async with answering(status, body) as aws:
            store = open_store("s3://lake/prefix", aws)
            for call in (store.create("key", b"x"), store.get("key"), keys(store), store.delete(["key"])):
                with pytest.raises(kind) as caught:
                    await call
                assert caught.value.where["status"] == status
                assert "AKIAWHO" not in str(caught.value)
                assert caught.value.__suppress_context__

    async def test_nobody_listens(self, s3: S3Server) -> None:
        async with answering(200, "") as aws:
            gone = aws
        with pytest.raises(StoreUnavailable, match="connection refused"):
            await open_store("s3://lake/prefix", gone).get("key")

    async def test_a_lost_answer_is_not_a_second_object(self) -> None:
        with S3Server.start(fail_after=0.3, fail_before=0.3, seed=7) as server:
            server.make_bucket("lake")
            store = RetryingStore(open_store("s3://lake/prefix", server.aws), sleep=no_sleep)
            await asyncio.gather(*(put(store, f"{number:02}", b"own") for number in range(40)))
            assert len(await keys(store)) == 40
            fired = server.faults()
            assert min(fired["before"], fired["after"]) >= 10

    async def test_the_chain_of_providers(self, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        profiles = tmp_path / "credentials"
        profiles.write_text("[lake]\naws_access_key_id = test\naws_secret_access_key = test\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profiles))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3.endpoint_url)
        role = "arn:aws:iam::123456789012:role/lake"
        for aws in (
            Aws(endpoint_url=s3.endpoint_url, region="us-east-1", profile="lake"),
            Aws(endpoint_url=s3.endpoint_url, region="us-east-1", profile="lake", role_arn=role),
        ):
            await put(open_store("s3://lake/chain", aws), str(next(numbers)))
        with pytest.raises(StoreRefused, match="ProfileNotFound"):
            await open_store("s3://lake/chain", Aws(endpoint_url=s3.endpoint_url, profile="none")).get("key")

    async def test_another_engine_sees_the_same_names(self, s3: S3Server) -> None:
        import boto3

        store = open_store("s3://lake/engine", s3.aws)
        made = [key for key in HOSTILE if key != HOSTILE[-1]]
        for key in made:
            await put(store, key)
        client = boto3.client(
            "s3", endpoint_url=s3.endpoint_url, region_name="x", aws_access_key_id="x", aws_secret_access_key="x"
        )
        listed = client.list_objects_v2(Bucket="lake", Prefix="engine/")["Contents"]
        assert {entry["Key"].removeprefix("engine/") for entry in listed} == set(made)


@asynccontextmanager
async def answering(status: int, body: str) -> AsyncIterator[Aws]:
    """An HTTP server that has one answer to everything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await reader.readexactly(int(line.partition(b":")[2]))
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        key = SecretStr("AKIAWHO")
        yield Aws(endpoint_url=f"http://127.0.0.1:{port}", access_key_id=key, secret_access_key=key)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


STAGING_WRITER = """
import sys
from pathlib import Path
from streamsvc.stores.local import LocalStore

with LocalStore(Path(sys.argv[1]))._staged([memoryview(bytes(1 << 20))]):
    print("staged", flush=True)
    sys.stdin.read()
"""


@contextmanager
def staging_writer(root: Path) -> Iterator[None]:
    """A process in the middle of a create, just before its object gets a name; it is killed at the end."""
    command = [sys.executable, "-c", STAGING_WRITER, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"staged\n"
        yield
        writer.kill()


class TestLocal:
    async def test_another_engine_globs_the_same_names(self, tmp_path: Path) -> None:
        store = open_store(tmp_path.as_uri(), Aws())
        await put(store, "p=a%2Fb/grün/x.csv", b"n\n1\n")
        found = duckdb.execute(f"SELECT file FROM glob('{tmp_path}/**/*.csv')").fetchall()
        assert found == [(str(tmp_path / "p=a%2Fb/grün/x.csv"),)]

    async def test_a_writer_that_dies_leaves_nothing_to_see(self, tmp_path: Path) -> None:
        staging = tmp_path / STAGING
        await put(open_store(tmp_path.as_uri(), Aws()), "first")
        with staging_writer(tmp_path):
            staged = entries(staging)
            assert [path.stat().st_size for path in staged] == [1 << 20]
            await put(open_store(tmp_path.as_uri(), Aws()), "second")
            assert entries(staging) == staged, "the file of a writer that lives is left alone"
        assert await keys(open_store(tmp_path.as_uri(), Aws())) == ["first", "second"]
        assert entries(tmp_path) == [staging, tmp_path / "first", tmp_path / "second"]
        await put(open_store(tmp_path.as_uri(), Aws()), "third")
        assert entries(staging) == []

    async def test_folders_removed_by_hand_are_made_again(self, tmp_path: Path) -> None:
        store = RetryingStore(open_store(f"{tmp_path.as_uri()}/lake", Aws()), sleep=no_sleep)
        await put(store, "a/b/1")
        rmtree(tmp_path / "lake")
        await put(store, "a/b/2")
        assert await keys(store) == ["a/b/2"]

    async def test_what_will_not_pass_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        store = open_store(f"{tmp_path.as_uri()}/file/below", Aws())
        with pytest.raises(StoreRefused, match="File exists"):
            await store.create("key", b"x")
        with pytest.raises(StoreRefused, match="File name too long"):
            await open_store(tmp_path.as_uri(), Aws()).create("n" * 256, b"x")
        store = open_store(tmp_path.as_uri(), Aws())
        await put(store, "folder/x")
        with pytest.raises(StoreRefused, match="File exists"):
            await store.create("folder", b"x")

    @pytest.mark.parametrize("folder", ["/proc/nowhere", "/proc/nowhere/below"])
    async def test_a_place_in_which_nothing_can_be_made_is_refused(self, folder: str) -> None:
        with pytest.raises(StoreRefused, match="not permitted") as refused:
            await open_store(f"file://{folder}", Aws()).create("key", b"x")
        assert folder in refused.value.hint
        assert "correct the path" in refused.value.hint

    @pytest.mark.parametrize(
        ("number", "kind"),
        [
            *((number, StoreRefused) for number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)),
            *((number, StoreUnavailable) for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)),
        ],
    )
    def test_only_what_may_pass_is_waited_for(self, number: int, kind: type[StreamsvcError], tmp_path: Path) -> None:
        store = LocalStore(tmp_path)
        with pytest.raises(kind, match=os.strerror(number)) as failed, store._mapped(tmp_path / "key"):
            raise OSError(number, os.strerror(number))
        assert str(tmp_path) in failed.value.hint


class TestRetrying:
    async def test_waits_longer_and_longer_and_says_so(self) -> None:
        waits: list[float] = []
        heard: list[StoreHealth] = []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        faulty = FaultyStore(open_store(f"memory://suite{next(numbers)}", Aws()), [Fault.BEFORE] * 9)
        store = RetryingStore(faulty, heard.append, sleep=sleep, jitter=lambda: 1.0)
        assert await store.create("key", b"x") is True
        assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, BACKOFF.longest_s, BACKOFF.longest_s])
        assert [health.healthy for health in heard] == [False] * 9 + [True]
        assert [health.failures for health in heard] == [*range(1, 10), 9]
        assert isinstance(heard[0].error, StoreUnavailable)
        assert heard[-1].error is None

    async def test_is_healthy_only_when_nothing_waits(self) -> None:
        gate = asyncio.Event()

        async def sleep(_: float) -> None:
            await gate.wait()

        store = RetryingStore(
            FaultyStore(open_store(f"memory://suite{next(numbers)}", Aws()), [Fault.BEFORE]), sleep=sleep
        )
        waiting = asyncio.create_task(store.get("key"))
        await asyncio.sleep(0)
        await store.get("other")
        assert not store.health.healthy
        gate.set()
        await waiting
        assert store.health.healthy

    async def test_cancelling_ends_a_hanging_call(self) -> None:
        faulty = FaultyStore(open_store(f"memory://suite{next(numbers)}", Aws()), [Fault.HANG])
        call = asyncio.create_task(RetryingStore(faulty).create("key", b"x"))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await faulty.get("key") is None
        assert faulty.fired == {Fault.HANG: 1}

    async def test_refusals_pass(self) -> None:
        async with answering(403, "") as aws:
            store = RetryingStore(open_store("s3://lake/prefix", aws), sleep=no_sleep)
            with pytest.raises(StoreRefused):
                await store.get("key")


class Overwriting(FaultyStore):
    """A store whose creates are not exclusive: it takes every one of them."""

    async def create(self, key: str, body: object) -> bool:
        assert isinstance(body, bytes)
        await self._inner.delete([key])
        return await self._inner.create(key, body)


class TestProbe:
    async def test_refuses_a_store_that_overwrites(self) -> None:
        store = Overwriting(open_store(f"memory://suite{next(numbers)}", Aws()), [])
        with pytest.raises(StoreRefused, match=f"{CREATES} of {CREATES} concurrent creates"):
            await probe(store)

    async def test_tries_again_when_the_winner_never_heard(self) -> None:
        inner = open_store(f"memory://suite{next(numbers)}", Aws())
        await probe(RetryingStore(FaultyStore(inner, [Fault.AFTER] * 3), sleep=no_sleep))
        assert await keys(inner) == []
