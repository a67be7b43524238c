"""A store that is waited for: whatever may pass by waiting is tried again for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from streamsvc.contracts import Entry, ObjectStore
from streamsvc.core.backoff import Backoff
from streamsvc.errors import StoreUnavailable

BACKOFF = Backoff()

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """``failures`` counts the calls that failed since the store was opened; ``error`` is the last, while unhealthy."""

    url: str
    healthy: bool
    failures: int
    error: StoreUnavailable | None


class RetryingStore:
    """An ``ObjectStore`` that never raises ``StoreUnavailable``: it waits (exponentially longer, with jitter, at most
    ten seconds) and makes the same call again. ``on_state`` hears of every failure, and of the first success after.

    Cancelling a call stops its waiting; the effect of its last try is then unknown.
    """

    def __init__(
        self,
        inner: ObjectStore,
        on_state: Callable[[StoreHealth], None] = lambda _: None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._inner = inner
        self._on_state = on_state
        self._sleep = sleep
        self._jitter = jitter
        self._waiting = 0
        self.health = StoreHealth(inner.url, healthy=True, failures=0, error=None)

    @property
    def url(self) -> str:
        return self._inner.url

    async def create(self, key: str, body: bytes | Sequence[pa.Buffer | bytes]) -> bool:
        return await self._until_answered(lambda: self._inner.create(key, body))

    async def get(self, key: str) -> bytes | None:
        return await self._until_answered(lambda: self._inner.get(key))

    async def size(self, key: str) -> int | None:
        return await self._until_answered(lambda: self._inner.size(key))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Entry]:
        tries = 0
        while True:
            try:
                async for entry in self._inner.list(prefix, after=after):
                    after = entry.key
                    tries = 0
                    yield entry
            except StoreUnavailable as error:
                await self._wait(tries, error)
                tries += 1
            else:
                self._succeeded()
                return

    async def delete(self, keys: Sequence[str]) -> None:
        await self._until_answered(lambda: self._inner.delete(keys))

    async def _until_answered(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        tries = 0
        while True:
            try:
                answer = await call()
            except StoreUnavailable as error:
                await self._wait(tries, error)
                tries += 1
            else:
                self._succeeded()
                return answer

    async def _wait(self, tries: int, error: StoreUnavailable) -> None:
        self._tell(StoreHealth(self.url, healthy=False, failures=self.health.failures + 1, error=error))
        self._waiting += 1
        try:
            await self._sleep(BACKOFF.wait_s(tries, self._jitter()))
        finally:
            self._waiting -= 1

    def _succeeded(self) -> None:
        if not self.health.healthy and self._waiting == 0:
            self._tell(StoreHealth(self.url, healthy=True, failures=self.health.failures, error=None))

    def _tell(self, health: StoreHealth) -> None:
        self.health = health
        self._on_state(health)
