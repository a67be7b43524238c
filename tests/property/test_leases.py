"""Workers that decide alone share the leases evenly, soon, and then leave them where they are."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.core.kinesis_positions import TRIM_HORIZON, KclCheckpoint
from streamsvc.core.leases import Decision, Lease, LeasePolicy, Watch, asked_for, decide

SETTLED_S = 200.0
POLICY = LeasePolicy(failover_s=10.0, handover_s=25.0)


class Table:
    """Rows, when they last changed hands, and the longest that one was given and not yet taken. Writes are
    conditional as those of ``LeaseTable``."""

    def __init__(self, shards: int) -> None:
        self.now_s = 0.0
        self.moved_s = 0.0
        self.rows: dict[str, Lease] = {}
        self.given_s: dict[str, float] = {}
        self.longest_gap_s = 0.0
        self.grow(shards)

    def grow(self, shards: int) -> None:
        for number in range(len(self.rows), len(self.rows) + shards):
            name = f"shard-{number:03}"
            self.rows[name] = Lease(name, None, 0, KclCheckpoint(TRIM_HORIZON))

    def take(self, seen: Lease, worker: str) -> bool:
        row = self.rows[seen.shard]
        if (row.owner, row.counter) != (seen.owner, seen.counter):
            return False
        self.rows[seen.shard] = replace(row, owner=worker, counter=row.counter + 1, wanted_by=None)
        self.moved_s = self.now_s
        self.longest_gap_s = max(self.longest_gap_s, self.now_s - self.given_s.pop(seen.shard, self.now_s))
        return True

    def ask(self, seen: Lease, worker: str) -> None:
        row = self.rows[seen.shard]
        if row.owner == seen.owner and row.wanted_by is None:
            self.rows[seen.shard] = replace(row, wanted_by=worker)
            self.moved_s = self.now_s

    def renew(self, shard: str, worker: str) -> bool:
        row = self.rows[shard]
        if row.owner == worker:
            self.rows[shard] = replace(row, counter=row.counter + 1)
        return row.owner == worker

    def give(self, shard: str, worker: str) -> None:
        row = self.rows[shard]
        if row.owner == worker:
            self.rows[shard] = replace(row, owner=None, counter=row.counter + 1)
            self.moved_s = self.given_s[shard] = self.now_s


class World:
    """Workers with clocks, delays and landing times of their own, on one table."""

    def __init__(self, seed: int, shards: int) -> None:
        self.dice = random.Random(seed)
        self.table = Table(shards)
        self.alive: dict[str, Worker] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.table.now_s + delay_s, self._count, call))

    def start(self, name: str, *, stubborn: bool = False, max_leases: int | None = None) -> None:
        self.alive[name] = Worker(self, name, stubborn, replace(POLICY, max_leases=max_leases))

    def run(self, seconds: float) -> None:
        until = self.table.now_s + seconds
        while self._events and self._events[0][0] <= until:
            self.table.now_s, _, call = heapq.heappop(self._events)
            call()
        self.table.now_s = until

    def loads(self) -> Counter[str | None]:
        return Counter(dict.fromkeys(self.alive, 0)) + Counter(row.owner for row in self.table.rows.values())

    def assert_settles(self) -> None:
        """Everything has a live owner, evenly; and then nothing moves any more."""
        self.run(SETTLED_S)
        changed_s = self.table.moved_s
        self.run(SETTLED_S)
        assert self.table.moved_s == changed_s
        loads = dict.fromkeys(self.alive, 0) | dict(self.loads())
        assert set(loads) == set(self.alive)
        assert max(loads.values()) - min(loads.values()) <= 1


class Worker:
    """Scans, and acts on what it saw a moment later. ``stubborn``: never gives what it is asked for."""

    def __init__(self, world: World, name: str, stubborn: bool, policy: LeasePolicy) -> None:
        self._world = world
        self._table = world.table
        self._name = name
        self._stubborn = stubborn
        self._policy = policy
        self._watch = Watch()
        self._offset_s = world.dice.uniform(-1000, 1000)
        self._landing: set[str] = set()
        self.held: set[str] = set()
        world.after(world.dice.uniform(0, policy.scan_s), self._scan)
        world.after(world.dice.uniform(0, policy.renew_s), self._renew)

    @property
    def _lives(self) -> bool:
        return self._world.alive.get(self._name) is self

    def _scan(self) -> None:
        if not self._lives:
            return
        seen = list(self._table.rows.values())
        now_s = self._table.now_s + self._offset_s
        self._watch.look(seen, now_s)
        self.held &= {lease.shard for lease in seen if lease.owner == self._name}
        decision = decide(self._name, self.held, seen, self._watch, now_s, self._policy)
        for lease in decision.take:
            self._later(0.4, partial(self._take, lease))
        for lease in decision.ask:
            self._later(0.4, partial(self._table.ask, lease, self._name))
        for shard in sorted(asked_for(self._name, seen) - self._landing):
            if not self._stubborn:
                self._landing.add(shard)
                self._later(20.0, partial(self._give, shard))
        self._later(0, self._scan, at_least_s=self._policy.scan_s * self._world.dice.uniform(0.9, 1.3))

    def _later(self, at_most_s: float, call: Callable[[], None], *, at_least_s: float = 0.0) -> None:
        self._world.after(at_least_s + self._world.dice.uniform(0, at_most_s), lambda: call() if self._lives else None)

    def _take(self, lease: Lease) -> None:
        if self._table.take(lease, self._name):
            self.held.add(lease.shard)

    def _give(self, shard: str) -> None:
        self._landing.discard(shard)
        self.held.discard(shard)
        self._table.give(shard, self._name)

    def _renew(self) -> None:
        if self._lives:
            self.held = {shard for shard in self.held if self._table.renew(shard, self._name)}
            self._later(0, self._renew, at_least_s=self._policy.renew_s)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 24), st.integers(1, 6))
def test_stable_workers_settle_and_nothing_moves_after(seed: int, shards: int, workers: int) -> None:
    world = World(seed, shards)
    for number in range(workers):
        world.start(f"worker-{number}", stubborn=world.dice.random() < 0.2)
        world.run(world.dice.choice([0.0, 0.0, 3.0, 60.0]))
    world.assert_settles()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20))
def test_whatever_happens_it_settles_again(seed: int, shards: int) -> None:
    world = World(seed, shards)
    world.start("worker-0")
    for step in range(1, 8):
        world.run(world.dice.choice([0.5, 2.0, 15.0, 40.0]))
        match world.dice.choice(["start", "start", "kill", "restart", "split"]):
            case "start":
                world.start(f"worker-{step}")
            case "kill" if len(world.alive) > 1:
                del world.alive[world.dice.choice(sorted(world.alive))]
            case "restart":
                world.start(world.dice.choice(sorted(world.alive)))
            case _:
                world.table.grow(world.dice.randrange(1, 4))
    world.assert_settles()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 16), st.integers(2, 5))
def test_a_dead_workers_leases_are_taken_within_fifteen_seconds(seed: int, shards: int, workers: int) -> None:
    world = World(seed, shards)
    for number in range(workers):
        world.start(f"worker-{number}")
    world.run(SETTLED_S + world.dice.uniform(0, 20))
    dead = world.dice.choice(sorted(world.alive))
    del world.alive[dead]
    world.run(15.0)
    assert dead not in {row.owner for row in world.table.rows.values()}
    world.assert_settles()
    assert not world.table.given_s
    assert world.table.longest_gap_s <= 2 * POLICY.scan_s


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32))
def test_leases_that_one_may_not_have_go_to_another(seed: int) -> None:
    world = World(seed, 9)
    world.start("large")
    world.start("small", max_leases=2)
    world.run(SETTLED_S)
    changed_s = world.table.moved_s
    world.run(SETTLED_S)
    assert world.loads() == {"large": 7, "small": 2}
    assert world.table.moved_s == changed_s


@pytest.mark.parametrize("max_leases", [1, 3])
def test_no_more_than_allowed(max_leases: int) -> None:
    world = World(1, 5)
    world.start("only", max_leases=max_leases)
    world.run(SETTLED_S)
    assert world.loads() == {"only": max_leases, None: 5 - max_leases}


def test_new_leases_are_taken_at_once() -> None:
    world = World(1, 4)
    world.start("a")
    world.start("b")
    world.run(SETTLED_S)
    world.table.grow(4)
    world.run(2 * POLICY.scan_s)
    assert world.loads() == {"a": 4, "b": 4}


def test_a_worker_that_starts_again_has_its_leases_at_once() -> None:
    world = World(1, 4)
    world.start("a")
    world.run(20.0)
    world.start("a")
    world.run(2 * POLICY.scan_s)
    assert world.alive["a"].held == set(world.table.rows)


def test_a_worker_that_starts_again_and_may_have_fewer_leaves_the_others() -> None:
    world = World(1, 4)
    world.start("a")
    world.run(20.0)
    world.start("a", max_leases=1)
    world.run(SETTLED_S)
    assert len(world.alive["a"].held) == 1
    leases = list(world.table.rows.values())
    watch = Watch()
    watch.look(leases, 0.0)
    assert decide("a", world.alive["a"].held, leases, watch, 0.0, replace(POLICY, max_leases=1)) == Decision(unread=3)
    world.start("b")
    world.run(SETTLED_S)
    assert world.loads() == {"a": 1, "b": 3}


def test_a_stopped_kcl_leaves_its_name_on_every_row_and_is_waited_for() -> None:
    world = World(1, 4)
    world.table.rows = {name: replace(row, owner="kcl") for name, row in world.table.rows.items()}
    world.start("a")
    world.run(POLICY.failover_s - 1)
    assert world.loads() == {"kcl": 4}
    world.run(3.0)
    assert world.loads() == {"a": 4}
