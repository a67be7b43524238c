"""Who reads which shard: each worker decides alone, from the rows of the lease table and its own watch.

A worker *takes* a lease that nobody looks after, *asks* for one when another worker has two more than it, and *gives*
those that it is asked for, once what it has read of them is landed. So an assignment whose loads differ by at
most one never moves.

Two workers that decide at once may decide the same; the table lets one of them have it. And should two workers ever
read one shard, the segment log lets one of them land it: leases only divide the work.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from streamsvc.core.kinesis_positions import TRIM_HORIZON, KclCheckpoint
from streamsvc.core.kpl import HashRange
from streamsvc.core.shards import ShardId, ShardInfo, ancestors


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """failover_s:   a lease whose counter stands still for so long, by the watch of who looks, is taken
    handover_s:      how long an owner that was asked for a lease may take to land what it has read of it; at least
                     ``failover_s``, of which noticing takes a part
    max_leases:      a worker holds no more than so many, whatever an earlier life of it held; ``None``: its fair share,
                     however large
    initial:         what new rows of shards without parents say, for a KCL that might follow before we checkpoint:
                     ``TRIM_HORIZON``, ``LATEST`` or ``AT_TIMESTAMP``
    """

    failover_s: float = 10.0
    handover_s: float = 60.0
    max_leases: int | None = None
    initial: str = TRIM_HORIZON

    @property
    def renew_s(self) -> float:
        """How old a counter may get. Two renewals may fail before a third is too late."""
        return self.failover_s / 3

    @property
    def scan_s(self) -> float:
        """How often the table is read: so often that a dead worker's leases move soon after ``failover_s``."""
        return self.failover_s / 10

    @property
    def patience_s(self) -> float:
        """How long a lease without owner is left to those who have fewer, before anybody takes it."""
        return 3 * self.scan_s


@dataclass(frozen=True, slots=True)
class Lease:
    """A row of the table.

    owner:     who reads the shard
    counter:   raised by every write of the owner, which is what makes it look alive
    wanted_by: who asked the owner for it
    parents:   as the row names them
    stream_created_s: which stream of this name the shard is of; ``None``: a row that only a KCL has written
    """

    shard: ShardId
    owner: str | None
    counter: int
    checkpoint: KclCheckpoint
    wanted_by: str | None = None
    parents: frozenset[ShardId] = frozenset()
    children: frozenset[ShardId] = frozenset()
    hashes: HashRange | None = None
    stream_created_s: int | None = None

    @property
    def ended(self) -> bool:
        return self.checkpoint.ended


class Watch:
    """For how long rows have been as they are, by the clock of who looks. Clocks are never compared."""

    def __init__(self) -> None:
        self._rows: dict[ShardId, tuple[object, float]] = {}
        self._asks: dict[ShardId, tuple[object, float]] = {}

    def look(self, leases: Iterable[Lease], now_s: float) -> None:
        """leases: all of them, as they are now."""
        rows: dict[ShardId, tuple[object, float]] = {}
        asks: dict[ShardId, tuple[object, float]] = {}
        for lease in leases:
            for seen, before, state in (
                (rows, self._rows, (lease.owner, lease.counter)),
                (asks, self._asks, (lease.owner, lease.wanted_by)),
            ):
                last = before.get(lease.shard)
                seen[lease.shard] = last if last is not None and last[0] == state else (state, now_s)
        self._rows, self._asks = rows, asks

    def still_s(self, lease: Lease, now_s: float) -> float:
        """Since its counter was raised, or it was left by its owner."""
        return now_s - self._rows[lease.shard][1]

    def asked_s(self, lease: Lease, now_s: float) -> float:
        """Since this owner was asked for it, by whoever wants it now."""
        return now_s - self._asks[lease.shard][1]


@dataclass(frozen=True, slots=True)
class Decision:
    """take:  nobody looks after these, or not any more
    ask:      their owners have too many
    unread:   how many nobody looks after that we may not take either, for ``max_leases``
    """

    take: tuple[Lease, ...] = ()
    ask: tuple[Lease, ...] = ()
    unread: int = 0


def decide(
    worker: str, held: Set[ShardId], leases: Iterable[Lease], watch: Watch, now_s: float, policy: LeasePolicy
) -> Decision:
    """What this worker should do now.

    held:   what it reads; a row that names it as owner and is not among them was left by an earlier life of it
    leases: of shards that may be read and have not ended, as ``watch`` saw them last
    """
    view = _View(worker, watch, now_s, policy)
    known = sorted(leases, key=lambda lease: lease.shard)
    holds = len([lease for lease in known if lease.shard in held])
    due = [lease for lease in known if view.is_due(lease, held)]
    take = due[: max(0, view.most - holds)]
    loads = view.loads(known, take)
    share = -(-len(known) // len(loads))
    for lease in sorted(known, key=lambda lease: _rank(worker, lease.shard)):
        most = share if view.is_left_to_others(lease) else view.most
        if view.may_take(lease) and lease not in take and loads[worker] < min(most, view.most):
            loads[worker] += 1
            take.append(lease)
    unread = [lease for lease in known if lease not in take and view.is_unread(lease, held)]
    return Decision(tuple(take), tuple(view.asks(known, loads)), len(unread))


def _rank(worker: str, shard: ShardId) -> bytes:
    """Workers that start at the same time take leases in different orders, and so do not all want the same ones."""
    return hashlib.sha256(f"{worker}\0{shard}".encode()).digest()


@dataclass(frozen=True, slots=True)
class _View:
    """The table as one worker sees it at one moment."""

    worker: str
    watch: Watch
    now_s: float
    policy: LeasePolicy

    @property
    def most(self) -> int:
        return self.policy.max_leases if self.policy.max_leases is not None else 2**31

    def is_free(self, lease: Lease) -> bool:
        """Nobody looks after it; of our own leases we know better than the watch."""
        return lease.owner is None or (lease.owner != self.worker and self._free_s(lease) >= 0)

    def _free_s(self, lease: Lease) -> float:
        still_s = self.watch.still_s(lease, self.now_s)
        return still_s if lease.owner is None else still_s - self.policy.failover_s

    def is_left_to_others(self, lease: Lease) -> bool:
        return self._free_s(lease) < self.policy.patience_s

    def is_due(self, lease: Lease, held: Set[ShardId]) -> bool:
        """It is ours already, but for the writing."""
        if lease.owner == self.worker:
            return lease.shard not in held
        if lease.wanted_by != self.worker:
            return False
        return self.is_free(lease) or self.watch.asked_s(lease, self.now_s) >= self.policy.handover_s

    def may_take(self, lease: Lease) -> bool:
        return self.is_free(lease) and (lease.wanted_by is None or not self.is_left_to_others(lease))

    def is_unread(self, lease: Lease, held: Set[ShardId]) -> bool:
        """Nobody reads it, and nobody is about to."""
        if lease.owner == self.worker:
            return lease.shard not in held
        return self.may_take(lease) and not self.is_left_to_others(lease)

    def holder(self, lease: Lease) -> str | None:
        """Who has it, or will have it when what is under way is done."""
        if not self.is_free(lease):
            return lease.wanted_by or lease.owner
        return lease.wanted_by if self.is_left_to_others(lease) else None

    def loads(self, leases: Iterable[Lease], take: Iterable[Lease]) -> Counter[str]:
        """By worker, for all that are known to live. A worker that has no lease and asked for none is known to
        nobody but itself."""
        taken = {lease.shard for lease in take}
        loads = Counter({self.worker: len(taken)})
        for lease in leases:
            if lease.owner is not None and not self.is_free(lease):
                loads[lease.owner] += 0
            if lease.shard not in taken and (holder := self.holder(lease)) is not None:
                loads[holder] += 1
        return loads

    def asks(self, leases: Iterable[Lease], loads: Counter[str]) -> Iterator[Lease]:
        """From whoever has most, until nobody has two more than we."""
        askable: dict[str, list[Lease]] = {}
        for lease in leases:
            if lease.owner not in (None, self.worker) and lease.wanted_by is None and not self.is_free(lease):
                askable.setdefault(str(lease.owner), []).append(lease)
        while askable and loads[self.worker] < self.most:
            busiest = max(askable, key=lambda name: (loads[name], name))
            if loads[busiest] < loads[self.worker] + 2:
                return
            loads[busiest] -= 1
            loads[self.worker] += 1
            yield askable[busiest].pop(0)
            if not askable[busiest]:
                del askable[busiest]


def asked_for(worker: str, leases: Iterable[Lease]) -> frozenset[ShardId]:
    """Those of this worker's leases that another one waits for."""
    return frozenset(
        lease.shard
        for lease in leases
        if lease.owner == worker and lease.wanted_by is not None and lease.wanted_by != worker
    )


def ended_shards(leases: Mapping[ShardId, Lease], shards: Mapping[ShardId, ShardInfo]) -> frozenset[ShardId]:
    """Whose rows say so; and those that have no row but descendants that have one: a KCL deletes the row of a shard
    that it has read to the end once its children are being read (``LeaseCleanupManager``), and a KCL that was started
    at ``LATEST`` never had one."""
    told = {shard for shard, lease in leases.items() if lease.ended}
    return frozenset(told | ancestors(shards, leases) - leases.keys())
