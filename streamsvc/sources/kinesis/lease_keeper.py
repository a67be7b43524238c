"""Which shards this worker reads: leases that it renews, takes, asks for and gives, in a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias

import structlog

from streamsvc.core.kinesis_positions import SHARD_END, TRIM_HORIZON, KclCheckpoint
from streamsvc.core.kpl import EVERYTHING
from streamsvc.core.leases import Lease, LeasePolicy, Watch, asked_for, decide, ended_shards
from streamsvc.core.shards import ShardId, ShardInfo, ready
from streamsvc.errors import Fatal, SourceUnavailable
from streamsvc.log.patience import concurrently
from streamsvc.sources.kinesis.lease_table import LeaseTable

LEAVING_S = 5.0
"""How long leaving may take. What is not given back by then is taken after ``failover_s``."""

_ONE_STREAM = re.compile(r"[a-zA-Z0-9_.-]+")
"""Shard ids, and not the keys ``account:stream:time:shard`` of a KCL that reads several streams."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Gained:
    """Ours from now on. Their parents have ended, by the table, or are gone from the stream. They may be new to who
    hears of them: another worker told the table first."""

    shards: frozenset[ShardId]


@dataclass(frozen=True, slots=True)
class Lost:
    """Another worker has them already; or they are gone from the table."""

    shards: frozenset[ShardId]


@dataclass(frozen=True, slots=True)
class Asked:
    """Another worker waits for these: land what was read of them, checkpoint, ``give``. After ``deadline_s`` seconds it
    takes them, and ``Lost`` follows."""

    shards: frozenset[ShardId]
    deadline_s: float


LeaseEvent: TypeAlias = Gained | Lost | Asked


@dataclass(slots=True)
class _Holding:
    """A lease that is ours. ``place``: to be written; ``leaving``: to be given back after that."""

    lease: Lease
    renewed_s: float
    place: KclCheckpoint | None = None
    leaving: bool = False


class Leases(Protocol):
    """What a source asks of ``LeaseKeeper`` and of ``AllShards``. All calls come from the event loop."""

    @property
    def problem(self) -> str | None:
        """Why leases may be standing still, in words."""
        ...

    def offer(self, shards: Mapping[ShardId, ShardInfo], stream_created_s: int | None = None) -> None:
        """The whole graph as it is known now (``ShardGraph.shards``). Before the first, nothing is gained. A shard gets
        a row, and is gained by somebody, when all its parents have ended or are not in the graph.

        stream_created_s: rows of an older stream of this name are known by it, and replaced"""
        ...

    def events(self) -> AsyncIterator[LeaseEvent]:
        """Endless; for one consumer. Raises ``SourceRefused``."""
        ...

    def give(self, shards: Iterable[ShardId]) -> None:
        """What was read of these has landed: let the next worker have them at once. No event follows."""
        ...

    def checkpoint(self, places: Mapping[ShardId, KclCheckpoint]) -> None:
        """Landed up to here; only for shards that are held, and written soon. ``SHARD_END`` ends the lease: the shard
        is no longer held, no event follows, and its children get rows."""
        ...

    def landed(self) -> frozenset[ShardId]:
        """Shards that have ended by the table, or by a checkpoint given here."""
        ...

    def owners(self) -> Mapping[ShardId, str | None]:
        """Of every shard that has a row and has not ended, when the table was last read."""
        ...

    async def starting_checkpoints(self) -> Mapping[ShardId, KclCheckpoint]:
        """Where a KCL that we follow has left off: all rows as they are now, and ``SHARD_END`` for shards of the graph
        that it read to the end and deleted. Raises ``SourceRefused``."""
        ...


class LeaseKeeper(AbstractAsyncContextManager["LeaseKeeper"]):
    """Shares the shards of a stream with the other workers of the application; see ``Leases``.

    Entering makes the table if it is missing. Exit, however it comes, gives all leases back. While DynamoDB does not
    answer, leases are kept and ``problem`` says so: that two workers may read a shard then is nothing that the segment
    log could not settle.

    worker:    unique among live workers. One that starts again under its old name has its old leases at once
    monotonic: seconds; what ``failover_s`` and ``handover_s`` are measured by
    """

    def __init__(
        self,
        table: LeaseTable,
        worker: str,
        policy: LeasePolicy,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._worker = worker
        self._policy = policy
        self._monotonic = monotonic
        self._offered: dict[ShardId, ShardInfo] = {}
        self._created_s: int | None = None
        self._trimmed: set[ShardId] = set()
        self._of_older_stream: dict[ShardId, Lease] = {}
        self._overtaken = False
        self._rows: dict[ShardId, Lease] = {}
        self._ended: set[ShardId] = set()
        self._held: dict[ShardId, _Holding] = {}
        self._given: dict[ShardId, tuple[int, float]] = {}
        self._asked: frozenset[tuple[ShardId, str | None]] = frozenset()
        self._unread = 0
        self._watch = Watch()
        self._events: asyncio.Queue[LeaseEvent | BaseException] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_leaving = False

    async def __aenter__(self) -> Self:
        await self._table.open()
        self._task = asyncio.create_task(self._run(), name=f"leases of {self._table.name}")
        self._task.add_done_callback(self._tell_failure)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._is_leaving = True
        self._task.cancel()
        await asyncio.wait([self._task])
        try:
            async with asyncio.timeout(LEAVING_S):
                await self._leave()
        except (TimeoutError, Fatal) as error:
            log.warning("leases are not given back", table=self._table.name, worker=self._worker, error=str(error))

    @property
    def problem(self) -> str | None:
        if self._unread:
            return f"{self._unread} shards of {self._table.name} have no worker: raise `max_leases`, or start more"
        if self._overtaken:
            return f"the stream was deleted and created anew: other workers of {self._table.name} read the new one"
        return self._table.problem

    def offer(self, shards: Mapping[ShardId, ShardInfo], stream_created_s: int | None = None) -> None:
        self._created_s = stream_created_s
        if shards.keys() != self._offered.keys():
            self._trimmed = (self._trimmed | self._offered.keys()) - shards.keys()
            self._wake.set()
        self._offered = dict(shards)

    async def events(self) -> AsyncIterator[LeaseEvent]:
        while True:
            event = await self._events.get()
            if isinstance(event, BaseException):
                raise event
            yield event

    def give(self, shards: Iterable[ShardId]) -> None:
        for shard in self._held.keys() & set(shards):
            self._held[shard].leaving = True
            self._wake.set()

    def checkpoint(self, places: Mapping[ShardId, KclCheckpoint]) -> None:
        for shard in places.keys() & self._held.keys():
            holding, place = self._held[shard], places[shard]
            holding.place = place
            if place.ended:
                holding.leaving = True
                self._ended.add(shard)
                self._wake.set()

    def landed(self) -> frozenset[ShardId]:
        return ended_shards(self._rows, self._shards) | self._ended

    def owners(self) -> Mapping[ShardId, str | None]:
        return {shard: lease.owner for shard, lease in self._rows.items() if not lease.ended}

    async def starting_checkpoints(self) -> Mapping[ShardId, KclCheckpoint]:
        if not await self._table.exists():
            return {}
        rows = {lease.shard: lease for lease in await self._table.scan() if self._age(lease) == 0}
        told = {shard: lease.checkpoint for shard, lease in rows.items()}
        return dict.fromkeys(ended_shards(rows, self._offered), KclCheckpoint(SHARD_END)) | told

    def _age(self, lease: Lease) -> int:
        """Positive: its stream was deleted, and ours created under its name. Negative: it was ours that was deleted."""
        if lease.stream_created_s is None or self._created_s is None:
            return 0
        return self._created_s - lease.stream_created_s

    @property
    def _shards(self) -> dict[ShardId, ShardInfo]:
        """What was offered, and what only other workers know yet, from their rows."""
        told = {
            shard: ShardInfo(shard, lease.parents, lease.hashes or EVERYTHING)
            for shard, lease in self._rows.items()
            if _ONE_STREAM.fullmatch(shard)
        }
        return told | self._offered

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self._round()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._policy.scan_s):
                    await self._wake.wait()

    def _tell_failure(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._is_leaving:
                self._events.put_nowait(SourceUnavailable("leases are kept no longer", table=self._table.name))
        elif (error := task.exception()) is not None:
            self._events.put_nowait(error)

    async def _round(self) -> None:
        """What is ours to write first, so that nothing that is read then comes as a surprise."""
        await self._write_held()
        self._look(await self._table.scan())
        if self._offered and not self._overtaken:
            await self._make_rows()
            await self._take_and_ask()
            await self._drop_trimmed()

    async def _write_held(self) -> None:
        now_s = self._monotonic()
        due = [
            shard
            for shard, holding in self._held.items()
            if holding.leaving or holding.place or now_s - holding.renewed_s >= self._policy.renew_s
        ]
        await concurrently(lambda shard: self._write(shard, self._held[shard], now_s), due)

    async def _write(self, shard: ShardId, holding: _Holding, now_s: float) -> None:
        """Its place, and then, if it leaves us, that it does. Either may be asked for while the other is written."""
        lease: Lease | None = holding.lease
        if holding.place is None and not holding.leaving:
            lease = await self._table.renew(holding.lease)
        while lease is not None and (place := holding.place) is not None:
            holding.place = None
            lease = await self._table.checkpoint(lease, place, self._children(shard) if place.ended else ())
        if lease is not None and lease.owner is not None and holding.leaving:
            lease = await self._table.give(lease)
        if holding.leaving:
            del self._held[shard]
            if lease is not None:
                self._given[shard] = (lease.counter, now_s)
        elif lease is None:
            self._lose([shard])
        else:
            holding.lease, holding.renewed_s = lease, now_s

    def _children(self, shard: ShardId) -> list[ShardId]:
        return [name for name, info in self._shards.items() if shard in info.parents]

    def _look(self, leases: Iterable[Lease]) -> None:
        """The table as it is now."""
        known = list(leases)
        self._rows = {lease.shard: lease for lease in known if self._age(lease) == 0}
        self._of_older_stream = {lease.shard: lease for lease in known if self._age(lease) > 0}
        self._overtaken = any(self._age(lease) < 0 for lease in known)
        ours = {shard: lease for shard, lease in self._rows.items() if lease.owner == self._worker}
        self._lose(self._held.keys() - ours.keys())
        for shard, holding in self._held.items():
            holding.lease = ours[shard]
        asked = frozenset((shard, self._rows[shard].wanted_by) for shard in asked_for(self._worker, self._held_rows()))
        if new := frozenset(shard for shard, _ in asked - self._asked):
            self._events.put_nowait(Asked(new, self._policy.handover_s - 2 * self._policy.scan_s))
        self._asked = asked

    def _held_rows(self) -> list[Lease]:
        return [holding.lease for holding in self._held.values() if not holding.leaving]

    def _lose(self, shards: Iterable[ShardId]) -> None:
        if lost := frozenset(shard for shard in shards if not self._held.pop(shard).leaving):
            log.info("leases lost", table=self._table.name, shards=sorted(lost))
            self._events.put_nowait(Lost(lost))

    async def _make_rows(self) -> None:
        """For shards that may be read and have none; one that descends from a shard that we know begins at its first
        record whatever the configuration says."""
        shards = self._shards
        new = [
            Lease(
                shard,
                None,
                0,
                KclCheckpoint(TRIM_HORIZON if shards[shard].parents & shards.keys() else self._policy.initial),
                parents=shards[shard].parents,
                hashes=shards[shard].hashes,
                stream_created_s=self._created_s,
            )
            for shard in ready(shards, ended_shards(self._rows, shards)) - self._rows.keys()
        ]
        older = self._of_older_stream
        await concurrently(lambda lease: self._table.create(lease, older.get(lease.shard)), new)
        self._rows |= {lease.shard: lease for lease in new}

    async def _take_and_ask(self) -> None:
        now_s = self._monotonic()
        self._watch.look(self._rows.values(), now_s)
        shards = self._shards
        may_be_read = ready(shards, ended_shards(self._rows, shards))
        leases = [lease for shard, lease in self._rows.items() if shard in may_be_read]
        decision = decide(self._worker, self._held.keys(), leases, self._watch, now_s, self._policy)
        self._unread = decision.unread
        wanted = [lease for lease in decision.take if not self._was_just_given(lease, now_s)]
        taken = await concurrently(lambda lease: self._table.take(lease, self._worker, self._created_s), wanted)
        gained = {lease.shard: lease for lease in taken if lease is not None}
        self._rows |= gained
        self._held |= {shard: _Holding(lease, now_s) for shard, lease in gained.items()}
        if gained:
            log.info("leases gained", table=self._table.name, shards=sorted(gained))
            self._events.put_nowait(Gained(frozenset(gained)))
        await concurrently(lambda lease: self._table.ask(lease, self._worker), decision.ask)

    def _was_just_given(self, lease: Lease, now_s: float) -> bool:
        """By us, and nobody had it since. Whoever it was given for may need a moment."""
        counter, given_s = self._given.get(lease.shard, (None, 0.0))
        return lease.counter == counter and now_s - given_s < self._policy.failover_s

    async def _drop_trimmed(self) -> None:
        """Rows of shards that are read to the end, and gone from the stream: those that we saw go, and those that are
        older than any that is left. And what is left of an older stream of this name."""
        oldest = min(self._offered)
        gone = [
            lease
            for shard, lease in self._rows.items()
            if lease.ended and _ONE_STREAM.fullmatch(shard) and (shard in self._trimmed or shard < oldest)
        ]
        gone += self._of_older_stream.values()
        await concurrently(self._table.delete, [lease for lease in gone if lease.shard not in self._offered])

    async def _leave(self) -> None:
        """Whatever a cancelled write did, the table knows which leases are ours."""
        for holding in self._held.values():
            holding.leaving = True
        await self._write_held()
        left = [lease for lease in await self._table.scan() if lease.owner == self._worker]
        await concurrently(self._table.give, left)


class AllShards(AbstractAsyncContextManager["AllShards"]):
    """``leases: none``: every shard is ours, and nobody else's, as soon as its parents have ended. Nothing is kept but
    in memory. See ``Leases``; nothing is ever lost or asked for."""

    problem: str | None = None

    def __init__(self, worker: str = "this worker") -> None:
        self._worker = worker
        self._shards: dict[ShardId, ShardInfo] = {}
        self._gained: set[ShardId] = set()
        self._ended: set[ShardId] = set()
        self._events: asyncio.Queue[LeaseEvent] = asyncio.Queue()

    async def __aexit__(self, *_: object) -> None: ...

    def offer(self, shards: Mapping[ShardId, ShardInfo], stream_created_s: int | None = None) -> None:
        self._shards = dict(shards)
        self._gain()

    async def events(self) -> AsyncIterator[LeaseEvent]:
        while True:
            yield await self._events.get()

    def give(self, shards: Iterable[ShardId]) -> None:
        """There is nobody to take them."""

    def checkpoint(self, places: Mapping[ShardId, KclCheckpoint]) -> None:
        self._ended.update(shard for shard, place in places.items() if place.ended)
        self._gain()

    def landed(self) -> frozenset[ShardId]:
        return frozenset(self._ended)

    def owners(self) -> Mapping[ShardId, str | None]:
        return dict.fromkeys(sorted(self._gained - self._ended), self._worker)

    async def starting_checkpoints(self) -> Mapping[ShardId, KclCheckpoint]:
        return {}

    def _gain(self) -> None:
        if gained := ready(self._shards, self._ended) - self._gained:
            self._gained |= gained
            self._events.put_nowait(Gained(gained))
