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


class ShardGraph:
    """What is known of a stream's shards. Nothing is forgotten but by a listing that no longer has it."""

    def __init__(self, shards: Iterable[ShardInfo] = ()) -> None:
        self._listed: dict[ShardId, ShardInfo] = {}
        self._met: dict[ShardId, ShardInfo] = {}
        self.list_all(shards)

    @property
    def shards(self) -> Mapping[ShardId, ShardInfo]:
        return self._listed | self._met

    @property
    def must_list(self) -> bool:
        """A child names a parent that is not known: only a listing says whether it is new, or gone."""
        known = self.shards
        return any(parent not in known for child in self._met.values() for parent in child.parents)

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
        """The shards that may be read: not landed themselves, and every parent is landed or trimmed.

        A parent that is not known is trimmed if the child is listed: a listing has all parents that the stream still
        has. Of a child that was only met, it may as well be too new to be known."""
        known = self.shards
        return frozenset(
            shard.shard
            for shard in known.values()
            if shard.shard not in landed
            and all(
                parent in landed or (parent not in known and shard.shard in self._listed) for parent in shard.parents
            )
        )

    def parents(self) -> Mapping[ShardId, frozenset[ShardId]]:
        """For every known shard, those of its parents that are known."""
        known = self.shards
        return {name: shard.parents & known.keys() for name, shard in known.items()}

    def children(self, parent: ShardId) -> frozenset[ShardId]:
        return frozenset(name for name, shard in self.shards.items() if parent in shard.parents)
