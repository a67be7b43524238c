"""Reads shards, a task for each, into one queue that is bounded by bytes across all of them.

A task takes room before it asks, so what is on its way is counted too. Splits that are moved or stopped lose their task
and what is queued of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from streamsvc.config_sources import Kpl
from streamsvc.core.kinesis_positions import END, FromRecord, FromTime, parse_position
from streamsvc.core.kpl import HashRange
from streamsvc.core.shards import ShardId
from streamsvc.errors import PositionLost, SourceUnavailable
from streamsvc.records import Batch, Position, Split
from streamsvc.sources.kinesis.columns import Piece, Wanted, joined, moved, piece_of
from streamsvc.sources.kinesis.failures import SEEK_HINT
from streamsvc.sources.kinesis.retrieval import Answered, Reading, Retrieval
from streamsvc.sources.kinesis.room import Reservation, Room
from streamsvc.sources.kinesis.splits import parse_split

BATCH_RECORDS = 50_000
BATCH_BYTES = 32 * 1024 * 1024
"""A batch is cut above either; it may be smaller, and is not waited for."""

TIPS_TO_DESPAIR = 5
"""So many answers in a row say that there is no more, before a range is given up whose end should have come."""

_LOG = logging.getLogger("streamsvc.kinesis")


@dataclass(frozen=True, slots=True)
class Start:
    """Read from this position; up to ``end``, if there is one, which is then the last position handed out."""

    position: Position
    end: Position | None = None


@dataclass(frozen=True, slots=True)
class Tip:
    """Where a split was when the source last answered, and how far behind its newest record."""

    position: Position
    milliseconds: int


class Listener(Protocol):
    """What a reader tells. Called on the event loop."""

    def ended(self, split: Split, children: list[dict[str, Any]] | None) -> None:
        """The shard is closed and read to its end. children: as the last answer has them, if it has"""
        ...

    def met(self, counts: Counter[str]) -> None:
        """Of aggregates, by name."""
        ...

    def behind(self, split: Split, milliseconds: int | None) -> None:
        """How far, by the last answer; ``None``: it is read no longer."""
        ...

    def trimmed(self, split: Split) -> None:
        """The record to go on behind is gone: retention has passed it."""
        ...

    async def newest_before(self, split: Split, ms: int) -> Position | None:
        """Behind the newest record of a shard, if that arrived before this time."""
        ...


@dataclass(slots=True)
class _Cursor:
    """A split that is read, and up to where it has been.

    asked: the position when an answer was last asked for that begins there
    """

    split: Split
    hashes: HashRange
    position: Position
    end: Position | None
    tips: int = 0
    asked: Position | None = None

    def ask(self) -> Position:
        self.asked = self.position
        return self.position

    def is_first(self, answered: Answered) -> bool:
        """Whether the record at the position should be the first of this answer."""
        return answered.fresh and self.asked == self.position


class Reader:
    """All calls come from the event loop. hashes: the hash range of a shard."""

    def __init__(
        self,
        retrieval: Retrieval,
        kpl: Kpl,
        hashes: Callable[[ShardId], HashRange],
        queue_bytes: int,
        listener: Listener,
    ) -> None:
        self._retrieval = retrieval
        self._kpl = kpl
        self._hashes = hashes
        self._listener = listener
        self._room = Room(queue_bytes)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="kinesis-columns")
        self._queue: deque[Batch] = deque()
        self._ready = asyncio.Event()
        self._failure: BaseException | None = None
        self._tasks: dict[Split, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._tips: dict[Split, Tip] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(list(self._tasks))
        if self._ending:
            await asyncio.wait(self._ending)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def held_bytes(self) -> int:
        """Queued or on its way."""
        return self._room.held_bytes

    def tip(self, split: Split) -> Tip | None:
        """``None``: it is not being read, or has not answered yet."""
        return self._tips.get(split)

    def start(self, starts: Mapping[Split, Start]) -> None:
        """Read these from there on; nothing that was read of them before is handed out after this call."""
        self.stop(starts)
        for split, start in starts.items():
            cursor = _Cursor(split, self._hashes(parse_split(split).shard), start.position, start.end)
            task = asyncio.create_task(self._follow(cursor), name=split)
            self._tasks[split] = task
            task.add_done_callback(self._on_done)

    def stop(self, splits: Iterable[Split]) -> None:
        """Hand out nothing more of these."""
        leaving = set(splits)
        for split in leaving:
            if self._tips.pop(split, None) is not None:
                self._listener.behind(split, None)
            task = self._tasks.pop(split, None)
            if task is not None and not task.done():
                task.cancel()
                self._ending.add(task)
        if leaving and self._queue:
            dropped = [batch for batch in self._queue if batch.spans[0].split in leaving]
            self._queue = deque(batch for batch in self._queue if batch.spans[0].split not in leaving)
            self._room.give(sum(batch.nbytes for batch in dropped))

    def fail(self, failure: BaseException) -> None:
        """Let ``read`` raise this from now on."""
        self._failure = self._failure or failure
        self._ready.set()

    async def read(self) -> Batch:
        """What is there, as soon as there is something. Cancelling loses nothing."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._queue:
                return self._take()
            self._ready.clear()
            await self._ready.wait()

    def _take(self) -> Batch:
        taken: list[Batch] = []
        rows = nbytes = 0
        while self._queue and rows < BATCH_RECORDS and nbytes < BATCH_BYTES:
            batch = self._queue.popleft()
            taken.append(batch)
            rows += len(batch)
            nbytes += batch.nbytes
        self._room.give(nbytes)
        return joined(taken)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        """No shard stands still unheard: who stops reading was stopped by us, has come to the end, or fails."""
        if task.cancelled():
            if task not in self._ending:
                self.fail(_stopped(task.get_name()))
        elif (failure := task.exception()) is not None:
            self.fail(failure)
        self._ending.discard(task)

    # One shard

    async def _follow(self, cursor: _Cursor) -> None:
        if cursor.position in (END, cursor.end):
            return
        with Reservation(self._room) as reservation:
            reading = Reading(cursor.split, cursor.ask, reservation)
            async with aclosing(self._retrieval.answers(reading)) as answers:
                async for answered in answers:
                    if await self._digest(cursor, answered):
                        return
                    reservation.give_back()
            raise _stopped(cursor.split)

    async def _digest(self, cursor: _Cursor, answered: Answered) -> bool:
        """Queue what an answer holds. True: there is nothing more to be read."""
        answer = answered.answer
        if answer.records:
            wanted = Wanted(cursor.split, cursor.hashes, cursor.position, cursor.is_first(answered), cursor.end)
            piece = await asyncio.get_running_loop().run_in_executor(
                self._threads, piece_of, answer.records, wanted, self._kpl
            )
            self._check(cursor, piece)
            self._listener.met(piece.met)
            self._hand_out(cursor, piece.batch)
            cursor.tips = 0
        elif answer.ended and cursor.is_first(answered):
            self._check_first(cursor, END)
        elif answer.at_tip and not answer.ended:
            await self._at_tip(cursor)
        if answer.ended and cursor.end is not None and cursor.position < cursor.end < END:
            self._end_range(cursor)
        if cursor.position == cursor.end:
            return True
        if answer.ended:
            self._hand_out(cursor, moved(cursor.split, cursor.position, END))
            self._see(cursor.split, Tip(END, 0))
            self._listener.ended(cursor.split, answer.child_shards)
            return True
        self._see(cursor.split, Tip(cursor.position, answer.millis_behind_latest or 0))
        return False

    def _see(self, split: Split, tip: Tip) -> None:
        self._tips[split] = tip
        self._listener.behind(split, tip.milliseconds)

    def _hand_out(self, cursor: _Cursor, batch: Batch) -> None:
        to = batch.spans[0].to
        if to <= cursor.position:
            return
        cursor.position = to
        self._room.hold(batch.nbytes)
        self._queue.append(batch)
        self._ready.set()

    def _check(self, cursor: _Cursor, piece: Piece) -> None:
        """Nothing that must be read may be gone."""
        if piece.missing:
            self._check_first(cursor, piece.earliest)
        end = None if cursor.end in (None, END) else parse_position(str(cursor.end))
        begins_at_time = isinstance(parse_position(cursor.position), FromTime)
        must_have_last = isinstance(end, FromRecord) and end.sub > 0 and not begins_at_time
        if piece.is_whole and must_have_last and not piece.has_last:
            raise _lost("the records to be read again are no longer there", cursor, piece.earliest)

    def _check_first(self, cursor: _Cursor, earliest: Position) -> None:
        """The record at the position was asked for, and what came begins later. One that was read already may be gone:
        its neighbours need not be. earliest: what came"""
        place = parse_position(cursor.position)
        if not isinstance(place, FromRecord):
            return
        if place.sub == 0:
            raise _lost("the record to read next is no longer there", cursor, earliest)
        self._listener.trimmed(cursor.split)
        _LOG.error(
            "%s: the record behind which to read on is gone: retention has passed it. Records behind it may be "
            "gone too; the next one that is there is read. position=%s earliest=%s",
            cursor.split,
            cursor.position,
            earliest,
        )

    async def _at_tip(self, cursor: _Cursor) -> None:
        """The source has nothing more for now."""
        cursor.tips += 1
        if cursor.end is not None:
            if cursor.tips >= TIPS_TO_DESPAIR and cursor.end != END:
                self._end_range(cursor)
            return
        start = parse_position(cursor.position)
        if isinstance(start, FromTime) and cursor.tips == 1:
            # Behind a time lies no record yet. The newest one before it makes the place exact, as ``ends`` has it.
            newest = await self._listener.newest_before(cursor.split, start.ms)
            if newest is not None:
                self._hand_out(cursor, moved(cursor.split, cursor.position, newest))

    def _end_range(self, cursor: _Cursor) -> None:
        """There is no more, and the end of the range has not come. One that begins at a time may end before it."""
        assert cursor.end is not None
        if not isinstance(parse_position(cursor.position), FromTime):
            raise PositionLost(
                "the shard ends before the range that must be read",
                hint=SEEK_HINT,
                split=cursor.split,
                position=cursor.end,
                end=cursor.position,
            )
        self._hand_out(cursor, moved(cursor.split, cursor.position, cursor.end))


def _lost(what: str, cursor: _Cursor, earliest: Position) -> PositionLost:
    return PositionLost(what, hint=SEEK_HINT, split=cursor.split, position=cursor.position, earliest=earliest)


def _stopped(split: Split) -> SourceUnavailable:
    return SourceUnavailable("a shard has not ended, and is read no longer", split=split)
