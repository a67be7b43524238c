"""Names of splits: ``stream@shard.<creation of the stream>``, so that a stream created anew has other splits."""

from __future__ import annotations

from typing import NamedTuple

from streamsvc.core.shards import ShardId
from streamsvc.records import Split


class SplitName(NamedTuple):
    """created_s: when the stream was created, whole seconds since the epoch"""

    stream: str
    shard: ShardId
    created_s: int

    @property
    def text(self) -> Split:
        return f"{self.stream}@{self.shard}.{self.created_s}"


def is_split_of(stream: str, split: Split) -> bool:
    """Of a stream of this name, whenever it was created."""
    name, _, created = split.rpartition(".")
    return name.startswith(f"{stream}@") and created.isdecimal()


def parse_split(split: Split) -> SplitName:
    """Raises ``ValueError`` for what is no split of a stream."""
    stream, _, rest = split.rpartition("@")
    shard, _, created = rest.rpartition(".")
    return SplitName(stream, shard, int(created))
