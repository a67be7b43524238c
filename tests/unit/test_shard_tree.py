"""How ``status`` shows the shards of a stream."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from streamsvc.commands.shard_tree import Shard, children_of, is_shard, shard_tree, state_of
from streamsvc.core.kinesis_positions import BEGINNING, END, position_after
from streamsvc.core.offsets import position_of

AT = position_after("4" * 55 + "7")


def name(number: int) -> str:
    return f"s@shardId-{number:012}.1764300000"


def shard(committed: str, *parents: int, end: str | None = AT, owner: str | None = "one-0") -> Shard:
    return Shard(committed, end, 1500, owner, None, [name(parent) for parent in parents])


SHARDS = {
    name(0): shard(END, end=END, owner=None),
    name(1): shard(AT, end=END),
    name(2): shard(BEGINNING, 0, end=AT, owner="two-0"),
    name(3): shard(AT, 0),
    name(4): shard(BEGINNING, 1, 3, owner=None, end=None),
    name(5): shard(AT, 17),
}


def test_states() -> None:
    assert [state_of(split, SHARDS) for split in sorted(SHARDS)] == [
        "landed",
        "closed",
        "open",
        "open",
        "waiting",
        "open",
    ]


def test_children() -> None:
    assert children_of(name(0), SHARDS) == [name(2), name(3)]
    assert children_of(name(3), SHARDS) == children_of(name(1), SHARDS) == [name(4)]


def test_every_shard_is_shown_once_below_a_parent() -> None:
    shown = StringIO()
    Console(width=500, file=shown).print(shard_tree(SHARDS))
    lines = [line.rstrip() for line in shown.getvalue().splitlines()]
    short = "…44444447.00000001"
    assert lines == [
        f"{name(0)}  landed",
        f"├── {name(2)}  open · two-0 · at 0010.00000000 of {short} · 1.5 s behind",
        f"└── {name(3)}  open · one-0 · at {short} of {short} · 1.5 s behind",
        f"{name(1)}  closed · one-0 · at {short} of END · 1.5 s behind",
        f"└── {name(4)}  waiting · merged with shardId-000000000003 · no owner · at 0010.00000000 of ? · 1.5 s behind",
        f"{name(5)}  open · one-0 · at {short} of {short} · 1.5 s behind",
    ]


def test_partitions_of_kafka_are_no_shards() -> None:
    assert is_shard(name(0), BEGINNING)
    assert is_shard(name(0), END)
    assert not is_shard("access@0.abcdefghijklmnopqrstuv", position_of(0))
