"""Finished objects into the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streamsvc.contracts import ObjectStore
from streamsvc.records import DataObject, ObjectInfo

CONCURRENT_CREATES = 16
_LOOK_AGAIN_S = 0.1


async def publish(store: ObjectStore, objects: Sequence[DataObject], *, kind: str = "data") -> list[ObjectInfo]:
    """Create every object, some at a time; answers in the same order what is in the store.

    An object that exists was made from the same ranges, by us before or by who finishes the same segment: its size
    is what counts. Raises what the store raises, once the creates under way have been cancelled; cancelling does the
    same. Either way the same call may be made again.
    """
    turns = asyncio.Semaphore(CONCURRENT_CREATES)

    async def put(item: DataObject) -> ObjectInfo:
        async with turns:
            nbytes = await _created_size(store, item)
        return ObjectInfo(url=f"{store.url}/{item.key}", rows=item.rows, nbytes=nbytes, kind=kind)

    puts = [asyncio.create_task(put(item)) for item in objects]
    try:
        return await asyncio.gather(*puts)
    finally:
        for task in puts:
            task.cancel()
        await asyncio.gather(*puts, return_exceptions=True)


async def _created_size(store: ObjectStore, item: DataObject) -> int:
    while True:
        if await store.create(item.key, item.body):
            return item.nbytes
        found = await store.size(item.key)
        if found is not None:
            return found
        await asyncio.sleep(_LOOK_AGAIN_S)  # refused for another create that is under way
