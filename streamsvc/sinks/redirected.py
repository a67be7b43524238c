"""Objects of a segment whose destination cannot be written any more, to another place."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streamsvc.contracts import ObjectStore, OpenObjects, OpenRejects, RejectSink, Sink
from streamsvc.records import DataObject, ObjectInfo
from streamsvc.sinks.publishing import CONCURRENT_CREATES, publish


class RedirectedSink:
    """A ``Sink``. Objects are made as ``inner`` makes them, so each is the same in either place, and is in one of them:
    what ``former`` holds stays there, the rest is created in ``to``. ``former=None``: what it holds counts for nothing.

    That no object is in both rests on nobody being able to write to ``former`` any more.
    """

    def __init__(self, inner: Sink, former: ObjectStore | None, to: ObjectStore) -> None:
        self._inner = inner
        self._places = _Places(former, to, "data")

    def open(self) -> OpenObjects:
        return self._inner.open()

    async def publish(self, objects: Sequence[DataObject]) -> list[ObjectInfo]:
        return await self._places.publish(objects)


class RedirectedRejects:
    """A ``RejectSink``, as ``RedirectedSink``."""

    def __init__(self, inner: RejectSink, former: ObjectStore | None, to: ObjectStore) -> None:
        self._inner = inner
        self._places = _Places(former, to, "rejects")

    def open(self) -> OpenRejects:
        return self._inner.open()

    async def publish(self, objects: Sequence[DataObject]) -> list[ObjectInfo]:
        return await self._places.publish(objects)


class _Places:
    def __init__(self, former: ObjectStore | None, to: ObjectStore, kind: str) -> None:
        self._former = former
        self._to = to
        self._kind = kind

    async def publish(self, objects: Sequence[DataObject]) -> list[ObjectInfo]:
        kept = await self._kept(objects) if self._former is not None else [None] * len(objects)
        rest = [item for item, info in zip(objects, kept, strict=True) if info is None]
        created = await publish(self._to, rest, kind=self._kind)
        return [info for info in kept if info is not None] + created

    async def _kept(self, objects: Sequence[DataObject]) -> list[ObjectInfo | None]:
        turns = asyncio.Semaphore(CONCURRENT_CREATES)
        former = self._former
        assert former is not None

        async def look(item: DataObject) -> ObjectInfo | None:
            async with turns:
                nbytes = await former.size(item.key)
            if nbytes is None:
                return None
            return ObjectInfo(url=f"{former.url}/{item.key}", rows=item.rows, nbytes=nbytes, kind=self._kind)

        return await asyncio.gather(*map(look, objects))
