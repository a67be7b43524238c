"""Who waits at a terminal hears why nothing comes; a worker waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from streamsvc.app import Stores
from streamsvc.config import Aws
from streamsvc.errors import StoreUnavailable
from streamsvc.ops.metrics import Metrics
from streamsvc.runtime.observer import Observer

NOWHERE = "file:///proc/nowhere"
"""Nothing can be made there; the file system says so in a way that may pass."""


async def test_a_command_gives_up_and_says_what_the_store_said() -> None:
    store = Stores(Aws(), Observer("p", Metrics("s")), patience_s=0.0)(NOWHERE, "state")
    with pytest.raises(StoreUnavailable, match="No such file or directory"):
        await store.create("key", b"body")


async def test_a_worker_does_not_give_up() -> None:
    observer = Observer("p", Metrics("s"))
    store = Stores(Aws(), observer)(NOWHERE, "state")
    creating = asyncio.create_task(store.create("key", b"body"))
    while not observer.problems:
        await asyncio.sleep(0)
    assert not creating.done()
    creating.cancel()
