"""Who waits at a terminal hears why nothing comes; a worker waits for ever, and says for what."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from streamsvc.app import Stores
from streamsvc.config import Aws
from streamsvc.errors import Fatal
from streamsvc.log.segment_log import SegmentLog
from streamsvc.ops.metrics import Metrics
from streamsvc.runtime.observer import Observer

NOWHERE = "s3://lake/state"


@pytest.fixture
def aws() -> Iterator[Aws]:
    """Where nobody listens."""

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        keys = {"access_key_id": "a", "secret_access_key": "b"}
        yield Aws.model_validate({"endpoint_url": address, "region": "us-east-1", **keys})


async def test_a_command_gives_up_and_says_what_the_store_said(aws: Aws) -> None:
    store = Stores(aws, Observer("p", Metrics("s")), patience_s=0.0)(NOWHERE, "state")
    with pytest.raises(Fatal, match="gave up after 0 s: the store does not answer") as failed:
        await store.create("key", b"body")
    assert failed.value.where["url"] == NOWHERE


async def test_a_command_gives_up_on_the_log_too(aws: Aws) -> None:
    """The log waits out a store that does not answer; that is not for whoever waits at a terminal."""
    store = Stores(aws, Observer("p", Metrics("s")), patience_s=0.0)(NOWHERE, "state")
    with pytest.raises(Fatal, match="gave up"):
        await SegmentLog(store, "command", "0", landing_s=0.0).standings(["a"])


async def test_a_worker_does_not_give_up_and_says_which_store_fails(aws: Aws) -> None:
    observer = Observer("p", Metrics("s"))
    store = Stores(aws, observer)(NOWHERE, "sink")
    creating = asyncio.create_task(store.create("key", b"body"))
    while not observer.problems:
        await asyncio.sleep(0)
    assert observer.problems["sink"].startswith(f"{NOWHERE}: the store does not answer")
    assert not creating.done()
    creating.cancel()
