"""Who reads which shard, decided by each worker alone from the rows of a lease table. Pure: rows and a clock in."""

from __future__ import annotations

from dataclasses import dataclass

from streamsvc.core.kinesis_positions import TRIM_HORIZON, KclCheckpoint
from streamsvc.core.kpl import HashRange
from streamsvc.core.shards import ShardId


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """failover_s:   a lease whose counter stands still for so long, by the watch of who looks, is taken
    handover_s:      how long an owner that was asked for a lease may take to land what it has read of it
    max_leases:      a worker holds no more than so many; ``None``: its fair share, however large
    initial:         what new rows of shards without parents say, for a KCL that might follow before we checkpoint:
                     ``TRIM_HORIZON``, ``LATEST`` or ``AT_TIMESTAMP``
    """

    failover_s: float = 10.0
    handover_s: float = 60.0
    max_leases: int | None = None
    initial: str = TRIM_HORIZON

    @property
    def renew_s(self) -> float:
        return self.failover_s / 3

    @property
    def scan_s(self) -> float:
        """Often, so that a dead worker's leases are taken soon after ``failover_s``."""
        return self.failover_s / 10


@dataclass(frozen=True, slots=True)
class Lease:
    """A row of the table.

    owner:     who reads the shard
    counter:   raised with every write of the owner; what makes it look alive
    wanted_by: who asked the owner for it
    """

    shard: ShardId
    owner: str | None
    counter: int
    checkpoint: KclCheckpoint
    wanted_by: str | None = None
    parents: frozenset[ShardId] = frozenset()
    children: frozenset[ShardId] = frozenset()
    hashes: HashRange | None = None

    @property
    def ended(self) -> bool:
        return self.checkpoint.ended
