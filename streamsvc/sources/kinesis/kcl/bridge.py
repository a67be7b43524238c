"""What the shards of one daemon share: the queue to the pipeline, and what the pipeline has said."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from streamsvc.contracts import Source, SplitEvent
from streamsvc.records import Batch, Position, Split


class Changes:
    """Wakes everybody who waits for anything, with every change. What it was, they see for themselves."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        await self._event.wait()


class Inbox:
    """Batches for the pipeline, in the order they came, bounded by bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._batches: deque[Batch] = deque()
        self._nbytes = 0

    def has_room(self, nbytes: int) -> bool:
        """A batch larger than all the room there is passes alone."""
        return not self._batches or self._nbytes + nbytes <= self._limit_bytes

    def put(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._nbytes += batch.nbytes

    def take(self) -> Batch | None:
        if not self._batches:
            return None
        batch = self._batches.popleft()
        self._nbytes -= batch.nbytes
        return batch

    def drop(self, split: Split) -> None:
        """Every batch here is of one split."""
        self._batches = deque(batch for batch in self._batches if batch.spans[0].split != split)
        self._nbytes = sum(batch.nbytes for batch in self._batches)


@dataclass(slots=True)
class Bridge:
    """stream:       the same stream as read without the KCL: what the KCL does not bring again is read there
    landed:       where each split was last acknowledged
    on_behind:    told how far the reading of a split is behind, in milliseconds; ``None``: it is read no longer
    on_trimmed:   told when what was read last is gone by retention
    hold_s:       how long the KCL is kept from giving a shard away while its segment lands
    long_message: of lines that are longer than a socket's buffer one is taken in at a time
    """

    stream: Source
    inbox: Inbox
    hold_s: float
    on_behind: Callable[[Split, int | None], None]
    on_trimmed: Callable[[], None]
    changes: Changes = field(default_factory=Changes)
    landed: dict[Split, Position] = field(default_factory=dict)
    events: asyncio.Queue[SplitEvent | BaseException] = field(default_factory=asyncio.Queue)
    long_message: asyncio.Lock = field(default_factory=asyncio.Lock)
    closing: bool = False
    problem: str | None = None
