"""The shards of a Kinesis stream as a graph: a split or a merge closes parents and makes children.

A child holds what was put after everything in its parents, for the same keys. So it is read when they are landed, and
never before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from streamsvc.core.kpl import HashRange

ShardId: TypeAlias = str


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """A shard as ListShards or the last answer from its parent tells it.

    parents:      as the row names them; they may be gone from the stream
    hashes:       the MD5 hash keys that it takes
    closed:       it takes no more records
    """

    shard: ShardId
    parents: frozenset[ShardId]
    hashes: HashRange
    closed: bool = False


def shard_from_listing(row: Mapping[str, Any]) -> ShardInfo:
    """row: one of ``Shards`` in a ListShards answer (AWS API reference, ``Shard``)."""
    parents = (row.get("ParentShardId"), row.get("AdjacentParentShardId"))
    return ShardInfo(
        shard=row["ShardId"],
        parents=frozenset(parent for parent in parents if parent),
        hashes=_hashes(row),
        closed=row["SequenceNumberRange"].get("EndingSequenceNumber") is not None,
    )


def shard_from_parent(row: Mapping[str, Any]) -> ShardInfo:
    """row: one of ``ChildShards`` in the last answer of GetRecords or SubscribeToShard (AWS API reference,
    ``ChildShard``). It may be closed already; that is not said there."""
    return ShardInfo(row["ShardId"], frozenset(row["ParentShards"]), _hashes(row))


def _hashes(row: Mapping[str, Any]) -> HashRange:
    hashes = row["HashKeyRange"]
    return HashRange(int(hashes["StartingHashKey"]), int(hashes["EndingHashKey"]))


def ready(shards: Mapping[ShardId, ShardInfo], landed: Set[ShardId]) -> frozenset[ShardId]:
    """Those that have not landed, and of whose parents none is left among ``shards`` that has not."""
    return frozenset(
        name
        for name, shard in shards.items()
        if name not in landed and all(parent in landed or parent not in shards for parent in shard.parents)
    )


def ancestors(shards: Mapping[ShardId, ShardInfo], of: Iterable[ShardId]) -> frozenset[ShardId]:
    """Parents, their parents, and so on, as far as they are among ``shards``."""
    found: set[ShardId] = set()
    left = list(of)
    while left:
        known = shards.get(left.pop())
        above = known.parents & shards.keys() - found if known is not None else frozenset()
        found.update(above)
        left.extend(above)
    return frozenset(found)


class ShardGraph:
    """What is known of a stream's shards. Nothing is forgotten but by a listing that no longer has it."""

    def __init__(self, shards: Iterable[ShardInfo] = ()) -> None:
        self._listed: dict[ShardId, ShardInfo] = {}
        self._met: dict[ShardId, ShardInfo] = {}
        self.list_all(shards)

    @property
    def shards(self) -> Mapping[ShardId, ShardInfo]:
        """All that are known, but for those that were met and have a parent that is not among them: only a listing
        says whether that is trimmed, or too new to be known."""
        sure = dict(self._listed)
        while more := {
            name: shard for name, shard in self._met.items() if name not in sure and shard.parents <= sure.keys()
        }:
            sure |= more
        return sure

    @property
    def must_list(self) -> bool:
        """There are such."""
        return len(self.shards) < len(self._listed.keys() | self._met.keys())

    def list_all(self, shards: Iterable[ShardInfo]) -> None:
        """A complete answer of ListShards, without a filter, whose first page was asked for after everything
        that was met. What it had before and has no longer was trimmed by retention."""
        self._listed = {shard.shard: shard for shard in shards}
        self._met = {name: shard for name, shard in self._met.items() if name not in self._listed}

    def meet(self, children: Iterable[ShardInfo]) -> None:
        """Children that the end of a shard told about, perhaps before they are listed. It also says that their
        parents are closed."""
        for child in children:
            if child.shard not in self._listed:
                self._met[child.shard] = child
            for known in (self._listed, self._met):
                known.update({parent: replace(known[parent], closed=True) for parent in child.parents & known.keys()})

    def ready(self, landed: Set[ShardId]) -> frozenset[ShardId]:
        """The shards that may be read: not landed themselves, and every parent is landed or trimmed."""
        return ready(self.shards, landed)

    def parents(self) -> Mapping[ShardId, frozenset[ShardId]]:
        """For every known shard, those of its parents that are known."""
        known = self.shards
        return {name: shard.parents & known.keys() for name, shard in known.items()}

    def children(self, parent: ShardId) -> frozenset[ShardId]:
        return frozenset(name for name, shard in self.shards.items() if parent in shard.parents)
