"""A store that fails on purpose. The faults are data: a script, or drawn by a seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import TypeVar

import pyarrow as pa

from streamsvc.contracts import Entry, ObjectStore
from streamsvc.errors import StoreUnavailable

Answer = TypeVar("Answer")


class Fault(Enum):
    BEFORE = "before"
    """The call is not applied, and fails."""
    AFTER = "after"
    """The call is applied, its answer is lost."""
    HANG = "hang"
    """The call is not applied and never answers; it ends by being cancelled."""


def random_faults(seed: int, *, before: float = 0.0, after: float = 0.0, hang: float = 0.0) -> Iterator[Fault | None]:
    """One fault, or none, a call, endlessly, with these probabilities."""
    dice = random.Random(seed)  # noqa: S311 - repeatable on purpose
    faults = [Fault.BEFORE, Fault.AFTER, Fault.HANG, None]
    weights = [before, after, hang, 1.0 - before - after - hang]
    while True:
        yield dice.choices(faults, weights)[0]


class FaultyStore:
    """An ``ObjectStore`` around another. The n-th call meets the n-th fault; after the last there are none.

    ``fired`` counts the faults that happened, by kind.
    """

    def __init__(self, inner: ObjectStore, faults: Iterable[Fault | None]) -> None:
        self._inner = inner
        self._faults = iter(faults)
        self.fired: Counter[Fault] = Counter()

    @property
    def url(self) -> str:
        return self._inner.url

    async def create(self, key: str, body: bytes | Sequence[pa.Buffer | bytes]) -> bool:
        return await self._call(lambda: self._inner.create(key, body), key)

    async def get(self, key: str) -> bytes | None:
        return await self._call(lambda: self._inner.get(key), key)

    async def size(self, key: str) -> int | None:
        return await self._call(lambda: self._inner.size(key), key)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Entry]:
        fault = await self._before(prefix)
        async for entry in self._inner.list(prefix, after=after):
            yield entry
        self._after(fault, prefix)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._call(lambda: self._inner.delete(keys), ",".join(keys))

    async def _call(self, call: Callable[[], Awaitable[Answer]], key: str) -> Answer:
        fault = await self._before(key)
        answer = await call()
        self._after(fault, key)
        return answer

    async def _before(self, key: str) -> Fault | None:
        fault = next(self._faults, None)
        if fault is not None:
            self.fired[fault] += 1
        if fault is Fault.BEFORE:
            raise StoreUnavailable("the call was not applied, on purpose", url=self.url, key=key)
        if fault is Fault.HANG:
            await asyncio.Event().wait()
        return fault

    def _after(self, fault: Fault | None, key: str) -> None:
        if fault is Fault.AFTER:
            raise StoreUnavailable("the answer was lost, on purpose", url=self.url, key=key)
