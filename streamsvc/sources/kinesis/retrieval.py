"""What polling and fan-out have in common: the answers of one shard, from a position on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

from streamsvc.records import Position, Split
from streamsvc.sources.kinesis.answers import Answer
from streamsvc.sources.kinesis.room import Reservation

RETRY_S = 0.25
MAX_RETRY_S = 10.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Who reads a shard. ``place`` says where it has got to, for whenever it must be found again."""

    split: Split
    place: Callable[[], Position]
    reservation: Reservation


@dataclass(frozen=True, slots=True)
class Answered:
    """fresh: the first answer with records since the place was asked for; its records may begin before the place"""

    answer: Answer
    fresh: bool


class Retrieval(Protocol):
    def answers(self, reading: Reading) -> AsyncGenerator[Answered, None]:
        """Of one shard, until it has ended. ``place`` must have moved behind an answer when the next one is asked for.

        Failures that waiting may mend are waited out, and told. Raises ``SourceRefused`` and ``PositionLost``. While an
        answer is handed out, room for it is reserved."""
        ...


class Backoff:
    """Longer with every failure in a row. Shards that fail together do not come back together: their names differ."""

    def __init__(self, split: Split) -> None:
        self._spread = 1.0 + (sum(split.encode()) % 16) / 32
        self._wait_s = RETRY_S

    @property
    def is_long(self) -> bool:
        return self._wait_s >= MAX_RETRY_S

    def reset(self) -> None:
        self._wait_s = RETRY_S

    async def wait(self) -> None:
        await asyncio.sleep(self._wait_s * self._spread)
        self._wait_s = min(MAX_RETRY_S, 2 * self._wait_s)
