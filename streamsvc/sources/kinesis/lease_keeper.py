"""Which shards this worker reads: leases that it renews, takes, asks for and gives, in a task of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from streamsvc.core.kinesis_positions import KclCheckpoint
from streamsvc.core.leases import LeasePolicy
from streamsvc.core.shards import ShardId, ShardInfo
from streamsvc.sources.kinesis.lease_table import LeaseTable


@dataclass(frozen=True, slots=True)
class Gained:
    """Ours from now on. Their parents are landed, as far as the table knows, or gone from the stream."""

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


class Leases(Protocol):
    """What a source asks of ``LeaseKeeper`` and of ``AllShards``. All calls come from the event loop."""

    @property
    def problem(self) -> str | None:
        """Why leases may be standing still, in words."""
        ...

    def offer(self, shards: Mapping[ShardId, ShardInfo]) -> None:
        """The whole graph as it is known now (``ShardGraph.shards``). A shard gets a row, and is gained by somebody,
        when all its parents have ended by their rows or are not in the graph."""
        ...

    def events(self) -> AsyncIterator[LeaseEvent]:
        """Endless; for one consumer. Raises ``SourceRefused``."""
        ...

    def give(self, shards: Iterable[ShardId]) -> None:
        """What was read of these has landed: let the next worker have them at once. No event follows."""
        ...

    def checkpoint(self, places: Mapping[ShardId, KclCheckpoint]) -> None:
        """Landed up to here; only for shards that are held, and written soon. ``SHARD_END`` ends the lease: the shard is
        no longer held, no event follows, and its children get rows."""
        ...

    def landed(self) -> frozenset[ShardId]:
        """Shards that have ended by the table, or by a checkpoint given here."""
        ...

    def owners(self) -> Mapping[ShardId, str | None]:
        """Of every shard that has a row and has not ended, when the table was last read."""
        ...

    async def starting_checkpoints(self) -> Mapping[ShardId, KclCheckpoint]:
        """All rows as they are: where a KCL that we follow has left off. Raises ``SourceRefused``."""
        ...


class LeaseKeeper(AbstractAsyncContextManager["LeaseKeeper"]):
    """Shares the shards of a stream with the other workers of the application; see ``Leases``.

    Entering makes the table if it is missing. Exit, however it comes, gives all leases back (for at most 5 s).
    worker: unique among live workers. A worker that starts again under its old name has its old leases at once."""

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

    async def __aexit__(self, *_: object) -> None: ...

    @property
    def problem(self) -> str | None:
        raise NotImplementedError

    def offer(self, shards: Mapping[ShardId, ShardInfo]) -> None:
        raise NotImplementedError

    def events(self) -> AsyncIterator[LeaseEvent]:
        raise NotImplementedError

    def give(self, shards: Iterable[ShardId]) -> None:
        raise NotImplementedError

    def checkpoint(self, places: Mapping[ShardId, KclCheckpoint]) -> None:
        raise NotImplementedError

    def landed(self) -> frozenset[ShardId]:
        raise NotImplementedError

    def owners(self) -> Mapping[ShardId, str | None]:
        raise NotImplementedError

    async def starting_checkpoints(self) -> Mapping[ShardId, KclCheckpoint]:
        raise NotImplementedError


class AllShards(AbstractAsyncContextManager["AllShards"]):
    """``leases: none``: every shard is ours, and nobody else's; nothing is kept but in memory. See ``Leases``."""

    async def __aexit__(self, *_: object) -> None: ...
