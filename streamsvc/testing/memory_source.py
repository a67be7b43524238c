"""A source in memory: scripted records, a group whose splits move between members, faults as data.

    topic = MemoryTopic(splits=2)
    topic.append("memory@0", Record(b"one"), Record(b"two", key=b"k"))
    async with MemorySource(topic) as first, MemorySource(topic) as second: ...

Sources with the same ``group`` share the topic's splits as Kafka's cooperative assignor does: a member that has too
many is asked for some (``Revoked``), and whoever is to have them gets them when it has let go. All calls come from
one event loop, whose clock (virtual, in a simulation) measures the deadline of a revocation.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self, TypeAlias

import pyarrow as pa

from streamsvc.contracts import Assigned, Lag, Revoked, SplitEvent
from streamsvc.core.offsets import offset_of, position_of, positions_of
from streamsvc.errors import PositionLost, SourceRefused, StreamsvcError
from streamsvc.records import METADATA, Batch, Position, Ranges, Span, Split

Operation: TypeAlias = Literal["read", "read_range", "splits", "first_positions", "ends"]


@dataclass(frozen=True, slots=True)
class Record:
    """``value=None`` is a tombstone; ``timestamp_ms=None`` is a broker that gives no time."""

    value: bytes | None
    key: bytes | None = None
    timestamp_ms: int | None = 0
    headers: Sequence[tuple[str, bytes | None]] | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """The ``nth`` call (from 1) of an operation raises ``error``; ``None``: it never comes back."""

    operation: Operation
    nth: int
    error: StreamsvcError | None


@dataclass(slots=True)
class _Log:
    """One split: records by offset. Offsets without a record are gaps, as compaction leaves them."""

    start: int = 0
    end: int = 0
    records: dict[int, Record] = field(default_factory=dict)
    parents: frozenset[Split] = frozenset()

    def between(self, first: int, to: int) -> list[tuple[int, Record]]:
        return [(offset, self.records[offset]) for offset in range(first, to) if offset in self.records]


class MemoryTopic:
    """Splits with their records, and the groups that read them."""

    def __init__(self, splits: int | Sequence[Split] = 1, *, revoke_deadline_s: float = 10.0) -> None:
        names = [f"memory@{number}" for number in range(splits)] if isinstance(splits, int) else splits
        self.revoke_deadline_s = revoke_deadline_s
        self.committed: dict[str, dict[Split, Position]] = {}
        self.removed: dict[Split, Position] = {}
        self._logs: dict[Split, _Log] = {name: _Log() for name in names}
        self._groups: dict[str, _Group] = {}
        self._changed = asyncio.Event()

    @property
    def splits(self) -> list[Split]:
        return list(self._logs)

    def append(self, split: Split, *records: Record) -> None:
        log = self._logs[split]
        for record in records:
            log.records[log.end] = record
            log.end += 1
        self._wake()

    def skip(self, split: Split, offsets: int = 1) -> None:
        """Offsets that hold no record: control records, an aborted transaction."""
        self._logs[split].end += offsets
        self._wake()

    def compact(self, split: Split, *offsets: int) -> None:
        """Records that are gone; the offsets around them stay readable."""
        for offset in offsets:
            self._logs[split].records.pop(offset, None)

    def expire(self, split: Split, before: int) -> None:
        """Retention: what lies before this offset is gone, and reading there is out of range."""
        log = self._logs[split]
        log.start = max(log.start, before)
        log.records = {offset: record for offset, record in log.records.items() if offset >= before}
        self._wake()

    def add_split(self, split: Split, parents: Iterable[Split] = ()) -> None:
        self._logs[split] = _Log(parents=frozenset(parents))
        for group in self._groups.values():
            group.balance()

    def remove_split(self, split: Split) -> None:
        """The split ends to exist, as a shard that expires: its owner finds it already gone."""
        self.removed[split] = position_of(self._logs.pop(split).end)
        for group in self._groups.values():
            group.forget(split)

    def group(self, name: str) -> _Group:
        return self._groups.setdefault(name, _Group(self))

    def log(self, split: Split) -> _Log:
        if split not in self._logs:
            raise SourceRefused("there is no such split", split=split)
        return self._logs[split]

    @property
    def changed(self) -> asyncio.Event:
        """Set with the next change."""
        return self._changed

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _Group:
    """Who has which split. A split that moves is first given back, then handed on."""

    def __init__(self, topic: MemoryTopic) -> None:
        self._topic = topic
        self._members: list[MemorySource] = []
        self._owner: dict[Split, MemorySource] = {}
        self._leaving: set[Split] = set()

    def owned_by(self, member: MemorySource) -> list[Split]:
        return sorted(split for split, owner in self._owner.items() if owner is member)

    def join(self, member: MemorySource) -> None:
        self._members.append(member)
        self.balance()

    def leave(self, member: MemorySource) -> None:
        """The member is gone, with or without its knowledge; its splits go to the others at once."""
        if member not in self._members:
            return
        self._members.remove(member)
        for split in self.owned_by(member):
            del self._owner[split]
            self._leaving.discard(split)
        self.balance()

    def forget(self, split: Split) -> None:
        owner = self._owner.pop(split, None)
        self._leaving.discard(split)
        if owner is not None:
            owner.stop_reading((split,))
            owner.tell(Revoked((split,), 0.0))

    def balance(self) -> None:
        """Free splits go to the members with the fewest; those with too many are asked for some, until it is even."""
        if not self._members:
            return
        load = {member: len(set(self.owned_by(member)) - self._leaving) for member in self._members}
        given: dict[MemorySource, list[Split]] = {}
        for split in self._topic.splits:
            if split not in self._owner:
                least = self._owner[split] = min(load, key=load.__getitem__)
                load[least] += 1
                given.setdefault(least, []).append(split)
        for member, splits in given.items():
            member.tell(Assigned(tuple(splits)))
        for _ in self._leaving:
            load[min(load, key=load.__getitem__)] += 1
        while max(load.values()) - min(load.values()) > 1:
            most, least = max(load, key=load.__getitem__), min(load, key=load.__getitem__)
            self.revoke(next(split for split in reversed(self.owned_by(most)) if split not in self._leaving))
            load[most] -= 1
            load[least] += 1

    def revoke(self, split: Split) -> None:
        """Ask the owner for the split; past the deadline it is taken."""
        owner = self._owner[split]
        self._leaving.add(split)
        deadline_s = self._topic.revoke_deadline_s
        owner.tell(Revoked((split,), deadline_s))
        asyncio.get_running_loop().call_later(deadline_s, self.release, owner, (split,))

    def release(self, member: MemorySource, splits: Iterable[Split]) -> None:
        for split in splits:
            if split in self._leaving and self._owner.get(split) is member:
                member.stop_reading((split,))
                self._leaving.discard(split)
                del self._owner[split]
        self.balance()


class MemorySource:
    """A member of a group of the topic. Implements ``contracts.Source``.

    ``batch_rows`` caps a batch; a callable is asked for each, so that a seeded test can vary batch boundaries.
    """

    def __init__(
        self,
        topic: MemoryTopic,
        *,
        group: str = "group",
        start: Literal["earliest", "latest", "committed"] = "earliest",
        faults: Iterable[Fault] = (),
        batch_rows: int | Callable[[], int] = 1000,
    ) -> None:
        self._topic = topic
        self._group_name = group
        self._group = topic.group(group)
        self._start = start
        self._faults = {(fault.operation, fault.nth): fault for fault in faults}
        self._calls: dict[Operation, int] = {}
        self._batch_rows = batch_rows
        self._events: deque[SplitEvent] = deque()
        self._told = asyncio.Event()
        self._reached: dict[Split, int] = {}
        self._moved = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._group.join(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reached.clear()
        self._group.leave(self)

    def lose_session(self) -> None:
        """The group takes this member for dead: others get its splits, while it reads on and knows nothing."""
        self._group.leave(self)

    def rejoin(self) -> None:
        """It comes back, finds that its splits are gone, and is a member again."""
        if self._reached:
            self.tell(Revoked(tuple(sorted(self._reached)), 0.0))
            self._reached.clear()
        self._group.join(self)

    def give_up(self, split: Split) -> None:
        """Scripted revocation: the group asks this member for the split."""
        self._group.revoke(split)

    def tell(self, event: SplitEvent) -> None:
        self._events.append(event)
        self._told.set()

    @property
    def group(self) -> str:
        return self._group_name

    def reads(self, split: Split) -> bool:
        return split in self._topic.splits or split in self._topic.removed

    @property
    def problem(self) -> str | None:
        return None

    async def assignments(self) -> AsyncIterator[SplitEvent]:
        while True:
            while self._events:
                yield self._events.popleft()
            self._told.clear()
            await self._told.wait()

    def start_at(self, positions: Mapping[Split, Position]) -> None:
        self._reached.update((split, offset_of(position)) for split, position in positions.items())
        self._moved.set()

    def stop_reading(self, splits: Sequence[Split]) -> None:
        for split in splits:
            self._reached.pop(split, None)

    def release(self, splits: Sequence[Split]) -> None:
        self._group.release(self, splits)

    async def read(self) -> Batch:
        await self._fail_if_scripted("read")
        while True:
            taken = self._take(self._rows_wanted())
            if taken:
                self._reached.update((split, to) for split, _, to, _ in taken)
                return _batch(taken)
            await self._wait()

    async def read_range(self, ranges: Ranges) -> AsyncIterator[Batch]:
        await self._fail_if_scripted("read_range")
        for split, (first, to) in sorted(ranges.items()):
            reached, end = offset_of(first), offset_of(to)
            while reached < end:
                part = self._next_of(split, reached, end, self._rows_wanted())
                if part is None:
                    await self._topic.changed.wait()
                    continue
                reached = part[2]
                yield _batch([part])

    async def splits(self) -> Sequence[Split]:
        await self._fail_if_scripted("splits")
        return self._topic.splits

    async def first_positions(self) -> Mapping[Split, Position]:
        await self._fail_if_scripted("first_positions")
        committed = self._topic.committed.get(self._group_name, {}) if self._start == "committed" else {}
        return {split: committed.get(split, self._edge(split)) for split in self._topic.splits}

    @property
    def first_position(self) -> Position:
        return position_of(0)

    async def ends(self) -> Mapping[Split, Position]:
        await self._fail_if_scripted("ends")
        return {split: position_of(self._topic.log(split).end) for split in self._topic.splits}

    async def lag(self, places: Mapping[Split, Position]) -> Mapping[Split, Lag]:
        ends = await self.ends()
        return {
            split: Lag(records=max(0, offset_of(ends[split]) - offset_of(place)))
            for split, place in places.items()
            if split in ends
        }

    def at_end(self, places: Mapping[Split, Position]) -> frozenset[Split]:
        live = set(self._topic.splits)
        return frozenset(
            split for split, place in places.items() if split in live and offset_of(place) >= self._topic.log(split).end
        )

    def parents(self) -> Mapping[Split, frozenset[Split]]:
        logs = ((split, self._topic.log(split)) for split in self._topic.splits)
        return {split: log.parents for split, log in logs if log.parents}

    async def expired(self, places: Mapping[Split, Position]) -> frozenset[Split]:
        ends = self._topic.removed
        return frozenset(split for split, place in places.items() if split in ends and place < ends[split])

    def acknowledge(self, positions: Mapping[Split, Position]) -> None:
        self._topic.committed.setdefault(self._group_name, {}).update(positions)

    def _edge(self, split: Split) -> Position:
        log = self._topic.log(split)
        return position_of(log.end if self._start == "latest" else log.start)

    def _rows_wanted(self) -> int:
        return self._batch_rows if isinstance(self._batch_rows, int) else self._batch_rows()

    def _take(self, rows: int) -> list[_Part]:
        taken: list[_Part] = []
        for split, reached in self._reached.items():
            if rows <= 0:
                break
            part = self._next_of(split, reached, self._topic.log(split).end, rows)
            if part is not None:
                taken.append(part)
                rows -= len(part[3])
        # Who was read first is read last next time, so that no split starves behind a full one.
        for split, *_ in taken:
            self._reached[split] = self._reached.pop(split)
        return taken

    def _next_of(self, split: Split, reached: int, to: int, rows: int) -> _Part | None:
        log = self._topic.log(split)
        if reached < log.start:
            raise PositionLost(
                "the source no longer has the record to read next",
                hint="`streamsvc seek` moves the pipeline to a position that exists",
                split=split,
                position=position_of(reached),
                earliest=position_of(log.start),
            )
        to = min(to, log.end)
        records = log.between(reached, to)
        if len(records) > rows:
            records = records[:rows]
            to = records[-1][0] + 1
        return (split, reached, to, records) if to > reached else None

    async def _wait(self) -> None:
        self._moved.clear()
        waits = [asyncio.ensure_future(self._moved.wait()), asyncio.ensure_future(self._topic.changed.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _fail_if_scripted(self, operation: Operation) -> None:
        self._calls[operation] = self._calls.get(operation, 0) + 1
        fault = self._faults.get((operation, self._calls[operation]))
        if fault is not None and fault.error is None:
            await asyncio.Event().wait()
        elif fault is not None and fault.error is not None:
            raise fault.error


_Part: TypeAlias = tuple[Split, int, int, list[tuple[int, Record]]]
"""A run of a split: from, to, and the records in between with their offsets."""


def _batch(parts: list[_Part]) -> Batch:
    pairs = [pair for _, _, _, records in parts for pair in records]
    records = [record for _, record in pairs]
    values = pa.array([record.value for record in records], pa.binary())
    return Batch(
        spans=tuple(Span(split, len(own), position_of(first), position_of(to)) for split, first, to, own in parts),
        values=values,
        offsets=pa.array([offset for offset, _ in pairs], pa.int64()),
        position_text=positions_of,
        arrivals=lambda: pa.array([record.timestamp_ms for record in records], METADATA["_timestamp"]),
        keys=lambda: pa.array([record.key for record in records], METADATA["_key"]),
        headers=lambda: pa.array([record.headers for record in records], METADATA["_headers"]),
        nbytes=values.nbytes,
    )
