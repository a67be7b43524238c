"""What polling and fan-out have in common: the answers of one shard, from a position on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

from streamsvc.records import Position, Split
from streamsvc.sources.kinesis.answers import Answer
from streamsvc.sources.kinesis.room import Reservation


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
