"""A sink of results that is waited for: whatever may pass by waiting is tried again for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from streamsvc.contracts import ResultSink
from streamsvc.errors import Retryable
from streamsvc.records import Finished, ObjectInfo, Window

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 10.0


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
                longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(tries, 20))
                tries += 1
                await self._sleep(longest * (0.5 + self._jitter() / 2))
            else:
                if tries:
                    self._on_state(None)
                return written
