"""One shard, as one child of the daemon brings it: what came of it, what is handed on, what may be checkpointed.

The segment log says where reading goes on, and the KCL begins at its own checkpoint. What it brings from before our
place is skipped. Where it begins behind our place, or has brought what was dropped since (a claim was lost), the
records in between are read from the stream itself: the KCL cannot be moved, and brings nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import cast

import structlog

from streamsvc.contracts import Revoked
from streamsvc.core.kinesis_positions import (
    BEGINNING,
    END,
    FromRecord,
    FromTime,
    KclCheckpoint,
    kcl_checkpoint,
    parse_position,
    position_of_checkpoint,
)
from streamsvc.errors import SourceUnavailable
from streamsvc.records import Batch, Position, Split
from streamsvc.sources.kinesis.kcl.bridge import Bridge
from streamsvc.sources.kinesis.kcl.columns import after, batch_of, before, records_from
from streamsvc.sources.kinesis.kcl.connection import Connection
from streamsvc.sources.kinesis.kcl.protocol import (
    CHECKPOINT_AT_END,
    LEASE_IS_GONE,
    Checkpoint,
    Initialize,
    LeaseLost,
    Message,
    ProcessRecords,
    Record,
    ShardEnded,
    ShutdownRequested,
    checkpoint_at,
    status_of,
)

log = structlog.get_logger(__name__)

RETRY_S = 1.0


class Shard:
    """``converse`` deals with the daemon's messages one by one. The pipeline's calls only note what it wants."""

    def __init__(self, split: Split, start: Initialize, connection: Connection, bridge: Bridge) -> None:
        self.split = split
        self.at: Position | None = None
        self._behind_ms: int | None = None
        self.is_over = False
        """The daemon has nothing more to say; that it hangs up is no accident."""
        self._start = start
        self._connection = connection
        self._bridge = bridge
        self._is_fenced = False
        self._is_leaving = False
        self._is_released = False
        self._moves = 0
        self._has_joined = False
        self._came_to = _begins_at(start)
        self._permitted: Position | None = None
        self._checkpointed = self._came_to or BEGINNING
        self._can_checkpoint = True

    # What the pipeline wants

    def start_at(self, position: Position) -> None:
        self._move(position)

    def stop_reading(self) -> None:
        self._move(None)

    def release(self) -> None:
        """What was read of a leaving shard has landed, or there is no more time."""
        self._is_released = self._is_leaving
        self._bridge.changes.tell()

    def fence(self) -> None:
        """Another connection has this shard now: this one is answered, and not heard."""
        self._leave(0.0)
        self._is_fenced = True
        self._move(None)

    @property
    def behind_ms(self) -> int | None:
        """The age of the last record that the KCL brought; ``None`` while nothing is read of the shard."""
        return self._behind_ms if self._has_joined else None

    def is_at_end(self, position: Position) -> bool:
        """When the KCL looked last, the shard had nothing behind this."""
        return self._behind_ms == 0 and self._came_to is not None and position >= self._came_to

    def _move(self, position: Position | None) -> None:
        self.at = position
        self._moves += 1
        self._has_joined = False
        self._bridge.inbox.drop(self.split)
        self._bridge.changes.tell()

    # What the daemon says

    async def converse(self) -> None:
        """Until the daemon hangs up. Raises what the stream raises, and ``SourceUnavailable`` for nonsense."""
        try:
            self._connection.send(status_of(self._start))
            while await self._connection.begins():
                async with self._turn():
                    message = await self._connection.message()
                    if message is None:
                        break
                    await self._deal_with(message)
                    self._connection.send(status_of(message))
        finally:
            self._leave(0.0)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Many records are let in one message at a time, once there is room for them and somebody wants them."""
        if not self._connection.is_long:
            yield
            return
        await self._until(lambda: self.at is not None and self._bridge.inbox.has_room(1), may_checkpoint=False)
        async with self._bridge.long_message:
            yield

    async def _deal_with(self, message: Message) -> None:
        self._can_checkpoint = True
        match message:
            case ProcessRecords():
                self._behind_ms = message.millis_behind_latest
                if self._behind_ms is not None and not self._is_fenced:
                    self._bridge.on_behind(self.split, self._behind_ms)
                await self._take(message.records)
            case ShardEnded():
                await self._end()
            case ShutdownRequested():
                await self._hand_over()
            case LeaseLost():
                self.is_over = True
                self._leave(0.0)
            case Initialize() | Checkpoint():
                raise SourceUnavailable("the KCL's daemon said something out of turn", split=self.split)

    async def _until(self, condition: Callable[[], bool], *, may_checkpoint: bool = True) -> bool:
        """Wait, and checkpoint what lands meanwhile. False: nobody wants to know any more."""
        while True:
            if may_checkpoint:
                await self._checkpoint()
            if self._is_fenced or self.is_over or self._bridge.closing:
                return False
            if condition():
                return True
            await self._bridge.changes.wait()

    # Records

    async def _take(self, records: Sequence[Record]) -> None:
        """Hand on what is behind our place. Returns once it is queued: not answering is the back-pressure."""
        if records:
            self._permitted = after(records[-1])
        elif self.at is None:
            await self._checkpoint()
            return
        while await self._until(lambda: self.at is not None):
            moves = self._moves
            if not await self._join(records) or self.at is None:
                continue
            rest = records_from(self.at, records)
            self._notice_trimming(rest[0] if rest and len(rest) == len(records) else None)
            if not rest or await self._put(batch_of(self.split, self.at, rest), moves):
                break
        self._came_to = self._permitted or self._came_to

    async def _end(self) -> None:
        """Hand on the end, and say so to the KCL when it has landed. Its children are begun then, and not before.

        The KCL also says this of a shard that is gone, with its stream or by retention (``KinesisDataFetcher`` makes an
        end of ResourceNotFoundException). So the way from our place to the end is read from the stream, which knows."""
        self._came_to, self._has_joined = END, False
        while await self._until(lambda: self._has_landed_end() or self.at not in (None, END)):
            if self._has_landed_end():
                break
            await self._join(())
        while self._has_landed_end() and not self._is_fenced:
            error = await self._ask(CHECKPOINT_AT_END)
            if error is None or error in LEASE_IS_GONE or self._bridge.closing:
                break
            log.warning("the KCL did not take the end of a shard", split=self.split, java=error)
            await asyncio.sleep(RETRY_S)
        self.is_over = True

    async def _join(self, records: Sequence[Record]) -> bool:
        """Read ourselves what lies between our place and where the KCL goes on. False: look at everything again."""
        moves = self._moves
        if not self._has_joined and self.at is not None:
            try:
                to = await self._goes_on_at(self.at, records)
                if moves == self._moves and self.at < to and not await self._fill(to, moves):
                    return False
            except SourceUnavailable as error:
                self._bridge.problem = error.what
                log.warning("cannot read what the KCL will not bring again", split=self.split, error=error)
                await asyncio.sleep(RETRY_S)
                return False
            self._bridge.problem = None
            self._has_joined = moves == self._moves
        return moves == self._moves

    async def _goes_on_at(self, at: Position, records: Sequence[Record]) -> Position:
        """A boundary from which on the KCL brings everything; not behind ``at``, where it brings that too.

        It may not say where it began: then it is where its first record is, and without one, any end that the shard
        has after the KCL's first look at it."""
        place = parse_position(at)
        if self._came_to == END or not isinstance(place, FromTime):
            if self._came_to is not None:
                return self._came_to
        elif self._came_to == BEGINNING or (records and (records[0].approximate_arrival_timestamp or 0) < place.ms):
            return BEGINNING
        if records:
            return before(records[0])
        return (await self._bridge.stream.ends()).get(self.split, END)

    async def _fill(self, to: Position, moves: int) -> bool:
        """False: what was read is not wanted any more."""
        at = cast("Position", self.at)
        log.info("reads what the KCL will not bring again", split=self.split, position=at, to=to)
        ranges = self._bridge.stream.read_range({self.split: (at, to)})
        async with aclosing(cast("AsyncGenerator[Batch, None]", ranges)) as batches:
            async for batch in batches:
                if not await self._put(batch, moves):
                    return False
        return True

    async def _put(self, batch: Batch, moves: int) -> bool:
        """moves: of the place that the batch goes on from. False: meanwhile the pipeline moved the shard, or nobody
        wants it any more."""
        inbox = self._bridge.inbox
        wanted = await self._until(lambda: moves != self._moves or inbox.has_room(batch.nbytes))
        if not wanted or moves != self._moves:
            return False
        inbox.put(batch)
        self.at = batch.spans[-1].to
        self._bridge.changes.tell()
        return True

    def _notice_trimming(self, first: Record | None) -> None:
        """first: nothing that the KCL has brought lies before it. The record before our place should."""
        place = parse_position(cast("Position", self.at))
        if first is None or self._came_to != BEGINNING or not isinstance(place, FromRecord):
            return
        if place.sub > 0 and first.sequence_number != place.sequence:
            self._bridge.on_trimmed()
            log.error(
                "the last record that was read is gone by retention; others behind it may be, too",
                split=self.split,
                position=self.at,
                first=before(first),
            )

    # Checkpoints

    def _has_landed_end(self) -> bool:
        return self._bridge.landed.get(self.split) == END

    async def _checkpoint(self) -> None:
        """Tell the KCL what has landed, if that is more than it knows. It takes no boundary that is behind what it
        has brought itself, and none in front of the record that was checkpointed last."""
        landed = self._bridge.landed.get(self.split)
        if landed is None or self._permitted is None or self._is_fenced or not self._can_checkpoint:
            return
        position = min(landed, self._permitted)
        checkpoint = kcl_checkpoint(position)
        if checkpoint is None or position <= self._checkpointed:
            return
        error = await self._ask(checkpoint_at(checkpoint.sequence, checkpoint.sub))
        if error is None:
            self._checkpointed = position
        else:
            self._can_checkpoint = False
            log.warning("the KCL did not take a checkpoint", split=self.split, position=position, java=error)

    async def _ask(self, line: bytes) -> str | None:
        """The daemon's answer to a checkpoint: the name of an error, or none."""
        self._connection.send(line)
        if not await self._connection.begins():
            return "ShutdownException"
        answer = await self._connection.message()
        if answer is None:
            return "ShutdownException"
        if not isinstance(answer, Checkpoint):
            raise SourceUnavailable("the KCL's daemon said something out of turn", split=self.split)
        return answer.error

    # Going

    async def _hand_over(self) -> None:
        """Give the pipeline time to land what it has, then let the KCL give the shard away."""
        deadline = asyncio.get_running_loop().call_later(self._bridge.hold_s, self.release)
        try:
            self._leave(self._bridge.hold_s)
            await self._until(lambda: self._is_released)
            await self._checkpoint()
            self.is_over = True
        finally:
            deadline.cancel()
        self.stop_reading()

    def _leave(self, deadline_s: float) -> None:
        if self._is_leaving or self._is_fenced or self._bridge.closing:
            return
        self._is_leaving = True
        self._bridge.events.put_nowait(Revoked((self.split,), deadline_s))
        if not deadline_s:
            self.stop_reading()


def _begins_at(start: Initialize) -> Position | None:
    """Where the first record lies that a KCL brings which begins at this checkpoint; ``None``: it does not say."""
    if start.sequence_number is None:
        return None
    return position_of_checkpoint(KclCheckpoint(start.sequence_number, start.sub_sequence_number or 0))
