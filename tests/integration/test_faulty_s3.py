"""The proxy passes calls through untouched, and fails a share of them before or after they were applied."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.audit import read_faults
from loadtest.faulty_s3 import FAULTS
from loadtest.lake import Folder
from loadtest.processes import running
from streamsvc.config import Aws
from streamsvc.stores.objects import open_store
from streamsvc.stores.retrying import RetryingStore
from tests.s3_server import S3Server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server.start() as server:
        yield server


def proxy(s3: S3Server, log: Path, share: float) -> list[str]:
    options = ["--upstream", s3.endpoint_url, "--log", str(log), "--share", str(share), "--silence-s", "0.1"]
    return [sys.executable, "-m", "loadtest.faulty_s3", *options]


def through(s3: S3Server, address: str) -> Aws:
    return s3.aws.model_copy(update={"endpoint_url": address})


async def test_without_faults_everything_passes_through_untouched(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.make_bucket("untouched")
    log = tmp_path / "faults.json"
    with running(proxy(s3, log, 0.0), tmp_path / "proxy.log") as child:
        store = open_store(f"{bucket}/rows", through(s3, child.first_line()))
        body = bytes(range(256)) * 8_000
        assert await store.create("a=1/strange name+%", body)
        assert not await store.create("a=1/strange name+%", b"other")
        assert await store.get("a=1/strange name+%") == body
        assert await store.get("missing") is None
        assert await store.size("a=1/strange name+%") == len(body)
        assert [entry.key async for entry in store.list("")] == ["a=1/strange name+%"]
        await store.delete(["a=1/strange name+%"])
        assert await store.get("a=1/strange name+%") is None
    assert sum(read_faults(log).values()) == 0


async def test_failed_calls_may_or_may_not_have_been_applied(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket = s3.make_bucket("faulty")
    log = tmp_path / "faults.json"
    with running(proxy(s3, log, 0.5), tmp_path / "proxy.log") as child:
        store = RetryingStore(open_store(bucket, through(s3, child.first_line())), jitter=lambda: 0.0)
        for number in range(40):
            await store.create(f"{number:02}", b"%d" % number)
    found = [(stored.key, stored.body) for stored in Folder(bucket, s3.endpoint_url).objects()]
    assert found == [(f"{number:02}", b"%d" % number) for number in range(40)]
    faults = read_faults(log)
    assert set(faults) == set(FAULTS)
    assert all(faults.values()), "every kind of fault has occurred"
