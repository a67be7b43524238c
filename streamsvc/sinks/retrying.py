"""A sink of results that is waited for: whatever may pass by waiting is tried again for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from streamsvc.contracts import ResultSink
from streamsvc.core.backoff import Backoff
from streamsvc.errors import Retryable
from streamsvc.records import Finished, ObjectInfo, Window

BACKOFF = Backoff()


class RetryingResults:
    """A ``ResultSink`` that never raises ``Retryable``: it waits, exponentially longer, and publishes again.

    on_state: hears of every failure, and, with ``None``, of the first success after one

    Cancelling stops the waiting.
    """

    def __init__(
        self,
        inner: ResultSink,
        on_state: Callable[[Retryable | None], None],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._inner = inner
        self._on_state = on_state
        self._sleep = sleep
        self._jitter = jitter

    async def publish(self, window: Window, results: Finished) -> list[ObjectInfo]:
        tries = 0
        while True:
            try:
                written = await self._inner.publish(window, results)
            except Retryable as error:
                self._on_state(error)
                await self._sleep(BACKOFF.wait_s(tries, self._jitter()))
                tries += 1
            else:
                if tries:
                    self._on_state(None)
                return written
