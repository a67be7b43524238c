"""Shards are read when their parents are landed, however they split and merge, and whoever hears of them first."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.core.kinesis_positions import KclCheckpoint
from streamsvc.core.kpl import LAST_HASH_KEY, HashRange
from streamsvc.core.leases import Lease, ended_shards
from streamsvc.core.shards import ShardGraph, ShardInfo, ancestors, shard_from_listing, shard_from_parent


def shard(name: str, *parents: str, closed: bool = False) -> ShardInfo:
    return ShardInfo(name, frozenset(parents), HashRange(0, LAST_HASH_KEY), closed)


def row(name: str, *parents: str, closed: bool = False) -> dict[str, Any]:
    names = dict(zip(("ParentShardId", "AdjacentParentShardId"), parents, strict=False))
    numbers = {"StartingSequenceNumber": "1"} | ({"EndingSequenceNumber": "9"} if closed else {})
    hashes = {"StartingHashKey": "0", "EndingHashKey": str(LAST_HASH_KEY)}
    return {"ShardId": name, **names, "HashKeyRange": hashes, "SequenceNumberRange": numbers}


def test_a_shard_as_it_is_listed() -> None:
    assert shard_from_listing(row("c", "a", "b", closed=True)) == shard("c", "a", "b", closed=True)
    assert shard_from_listing(row("a")) == shard("a")


def test_a_shard_as_its_parent_tells_it() -> None:
    hashes = {"StartingHashKey": "5", "EndingHashKey": "7"}
    told = shard_from_parent({"ShardId": "c", "ParentShards": ["a", "b"], "HashKeyRange": hashes})
    assert told == ShardInfo("c", frozenset("ab"), HashRange(5, 7), closed=False)


def test_children_wait_for_their_parents() -> None:
    graph = ShardGraph([shard("a", closed=True), shard("b", "a"), shard("c", "a")])
    assert graph.ready(set()) == {"a"}
    assert graph.ready({"a"}) == {"b", "c"}
    assert graph.parents() == {"a": frozenset(), "b": {"a"}, "c": {"a"}}
    assert graph.children("a") == {"b", "c"}


def test_a_merge_waits_for_both() -> None:
    graph = ShardGraph([shard("a", closed=True), shard("b", closed=True), shard("c", "a", "b")])
    assert graph.ready({"a"}) == {"b"}
    assert graph.ready({"a", "b"}) == {"c"}


def test_a_parent_that_is_gone_is_not_waited_for() -> None:
    graph = ShardGraph([shard("a", closed=True), shard("b", "a")])
    graph.list_all([shard("b", "a")])
    assert graph.ready(set()) == {"b"}
    assert graph.parents() == {"b": frozenset()}


def test_a_child_is_met_before_it_is_listed() -> None:
    graph = ShardGraph([shard("a")])
    graph.meet([shard("b", "a"), shard("c", "a")])
    assert graph.shards["a"].closed
    assert not graph.must_list
    assert graph.ready(set()) == {"a"}
    assert graph.ready({"a"}) == {"b", "c"}
    graph.list_all([shard("a", closed=True)])
    assert graph.ready({"a"}) == {"b", "c"}


def test_a_parent_that_nobody_told_of_is_looked_up() -> None:
    graph = ShardGraph([shard("a")])
    graph.meet([shard("c", "a", "b")])
    assert graph.must_list
    assert graph.ready({"a"}) == set()
    graph.list_all([shard("a", closed=True), shard("b", closed=True), shard("c", "a", "b")])
    assert not graph.must_list
    assert graph.ready({"a"}) == {"b"}


def test_a_child_of_a_child_that_is_not_sure_is_not_sure() -> None:
    graph = ShardGraph([shard("a"), shard("b")])
    graph.meet([shard("c", "a", "unknown"), shard("d", "b", "c")])
    assert graph.must_list
    assert set(graph.shards) == {"a", "b"}
    assert graph.ready({"a", "b"}) == set()


def test_a_parent_that_is_not_listed_with_its_child_is_gone() -> None:
    graph = ShardGraph([shard("a")])
    graph.meet([shard("c", "a", "b")])
    graph.list_all([shard("a", closed=True), shard("c", "a", "b")])
    assert graph.ready({"a"}) == {"c"}


class Stream:
    """A stream that is resharded at random. ``order``: shards in the order in which they were made."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.order = [shard("s0"), shard("s1"), shard("s2")]
        self.trimmed: set[str] = set()

    @property
    def open(self) -> list[ShardInfo]:
        return [each for each in self.order if not each.closed]

    def reshard(self) -> None:
        parents = self.dice.sample(self.open, min(len(self.open), self.dice.choice([1, 1, 2])))
        names = {parent.shard for parent in parents}
        self.order = [
            shard(each.shard, *each.parents, closed=each.closed or each.shard in names) for each in self.order
        ]
        for _ in range(2 if len(parents) == 1 else 1):
            self.order.append(shard(f"s{len(self.order)}", *names))

    def listing(self) -> list[ShardInfo]:
        return [each for each in self.order if each.shard not in self.trimmed]

    def children(self, parent: str) -> list[ShardInfo]:
        return [shard(each.shard, *each.parents) for each in self.order if parent in each.parents]


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_parents_are_always_before_children_and_all_are_read(seed: int) -> None:
    dice = random.Random(seed)
    stream = Stream(dice)
    graph = ShardGraph(stream.listing())
    landed: set[str] = set()
    reading: set[str] = set()
    for step in range(200):
        if step < 60 and dice.random() < 0.2:
            stream.reshard()
        if dice.random() < 0.1 or graph.must_list:
            graph.list_all(stream.listing())
        if step < 60 and dice.random() < 0.05:
            stream.trimmed.update(each.shard for each in stream.order[: dice.randrange(3)] if each.closed)
        for name in graph.ready(landed) - reading:
            (found,) = (each for each in stream.order if each.shard == name)
            assert found.parents <= landed | stream.trimmed
            reading.add(name)
        done = [each.shard for each in stream.order if each.closed and each.shard in reading - landed]
        for name in dice.sample(done, min(len(done), 1)):
            landed.add(name)
            graph.meet(stream.children(name))
    assert {each.shard for each in stream.order} <= reading | stream.trimmed
    assert graph.ready(landed) == {each.shard for each in stream.open}


@pytest.mark.parametrize("name", ["a", "b"])
def test_what_is_landed_is_not_ready(name: str) -> None:
    graph = ShardGraph([shard("a", closed=True), shard("b", "a")])
    assert name not in graph.ready({"a", "b"})


def test_ancestors_are_found_over_generations() -> None:
    shards = ShardGraph([shard("a"), shard("b", "a", "x"), shard("c", "b"), shard("d", "c"), shard("e")]).shards
    assert ancestors(shards, ["c", "e"]) == {"a", "b"}
    assert ancestors(shards, ["unknown"]) == set()


def test_what_the_kcl_deleted_has_ended() -> None:
    shards = ShardGraph([shard("a"), shard("b", "a"), shard("c", "a"), shard("d", "b"), shard("e")]).shards

    def lease(name: str, checkpoint: str) -> Lease:
        return Lease(name, None, 0, KclCheckpoint(checkpoint))

    rows = {"b": lease("b", "SHARD_END"), "c": lease("c", "123"), "d": lease("d", "TRIM_HORIZON")}
    assert ended_shards(rows, shards) == {"a", "b"}
    assert ended_shards({}, shards) == set()
