"""The shards of a stream as ``status`` shows them: which came from which, and how far each has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text
from rich.tree import Tree

from streamsvc.core.kinesis_positions import END, parse_position
from streamsvc.records import Position, Split

TAIL = 17
"""So much of a position tells it from its neighbours: eight digits of the sequence number, and the sub-sequence."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A split, as ``status`` knows it. ``end``: ``None`` if the source does not answer."""

    committed: Position
    end: Position | None
    lag_milliseconds: int | None
    owner: str | None
    pending: str | None
    parents: Sequence[Split]


def is_shard(split: Split, committed: Position) -> bool:
    """And not a partition of Kafka."""
    try:
        parse_position(committed)
    except ValueError:
        return False
    return "@" in split


def state_of(split: Split, shards: Mapping[Split, Shard]) -> str:
    """``landed``: to its end. ``waiting``: for a parent that has not landed. ``closed``: it takes no more records. Else
    ``open``."""
    shard = shards[split]
    if shard.committed == END:
        return "landed"
    if any(parent in shards and shards[parent].committed != END for parent in shard.parents):
        return "waiting"
    return "closed" if shard.end == END else "open"


def children_of(split: Split, shards: Mapping[Split, Shard]) -> list[Split]:
    return sorted(name for name, shard in shards.items() if split in shard.parents)


def shard_tree(shards: Mapping[Split, Shard]) -> Tree:
    """Children below their parents; one that was merged below the first of them."""
    tree = Tree(Text("shards"), hide_root=True)
    for split in sorted(shards):
        if not _known_parents(split, shards):
            _grow(tree, split, shards)
    return tree


def _grow(tree: Tree, split: Split, shards: Mapping[Split, Shard]) -> None:
    branch = tree.add(_line(split, shards))
    for child in children_of(split, shards):
        if _known_parents(child, shards)[0] == split:
            _grow(branch, child, shards)


def _known_parents(split: Split, shards: Mapping[Split, Shard]) -> list[Split]:
    return sorted(parent for parent in shards[split].parents if parent in shards)


def _line(split: Split, shards: Mapping[Split, Shard]) -> Text:
    shard = shards[split]
    parts = [state_of(split, shards)]
    others = _known_parents(split, shards)[1:]
    if others:
        parts.append(f"merged with {', '.join(_short_name(other) for other in others)}")
    if shard.committed != END:
        parts.append(shard.owner or "no owner")
        parts.append(f"at {_tail(shard.committed)} of {_tail(shard.end) if shard.end else '?'}")
        if shard.lag_milliseconds is not None:
            parts.append(f"{shard.lag_milliseconds / 1000:,.1f} s behind")
    if shard.pending is not None:
        parts.append(f"pending: {shard.pending}")
    return Text(f"{split}  {' · '.join(parts)}")


def _short_name(split: Split) -> str:
    return split.rpartition("@")[2].partition(".")[0]


def _tail(position: Position) -> str:
    return position if len(position) <= TAIL else f"…{position[-TAIL:]}"
