"""The world of the segment log, with windows: splits with event times, some idle, some with children, some that appear
late; workers that join, land, lift and close; and the oracle: every pair of a row and its window is once in the result
of the window or once among what is late, and a result has one content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from random import Random
from typing import TypeAlias

import numpy as np
import orjson
import pyarrow as pa

from streamsvc.core.segments import NEVER, Outcome, Plan, Range
from streamsvc.core.windows.assignment import FixedWindows
from streamsvc.core.windows.control import Result
from streamsvc.core.windows.lateness import sort_out
from streamsvc.core.windows.watermarks import Run, Watermarks
from streamsvc.errors import StoreUnavailable
from streamsvc.log.window_log import WindowLog
from streamsvc.records import ObjectInfo, Partials, Position, Split, Window
from streamsvc.runtime.closing import Closer
from streamsvc.runtime.windowing import Place, take_over
from streamsvc.testing.scripted_store import ScriptedStore
from tests.property.log_world import FIRST, Setting, Violation, at
from tests.property.schedule import Actor, Scheduler

Pair: TypeAlias = tuple[Split, int, int]
"""A split, the number of a row in it, and the start of one of the row's windows."""

SIZE = 10
FLAT = pa.schema([("window", pa.int64()), ("split", pa.string()), ("row", pa.int64())])
BUCKETED = pa.schema([("group", pa.int32())])


def partials_of(pairs: Sequence[Pair]) -> Partials:
    rows = [{"window": start, "split": split, "row": row} for split, row, start in sorted(pairs)]
    return Partials(pa.Table.from_pylist(rows, FLAT), BUCKETED.empty_table())


def pairs_of(partials: Partials) -> list[Pair]:
    columns = [partials.flat[name].to_pylist() for name in ("split", "row", "window")]
    return sorted(zip(*columns, strict=True))


async def merge(parts: Sequence[Partials]) -> Partials:
    """Nothing is forgotten: a row that comes twice is there twice."""
    return partials_of([pair for part in parts for pair in pairs_of(part)])


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be broken about workers."""

    make_log: type[WindowLog] = WindowLog
    late_is_beyond: bool = False
    second_lateness: bool = False
    children_of: Callable[[Mapping[Split, frozenset[Split]]], Mapping[Split, frozenset[Split]]] = dict


class Streams:
    """Splits with the event times of their rows. Answers what a source is asked for."""

    def __init__(self, dice: Random, disorder: int) -> None:
        self.dice = dice
        self.disorder = disorder
        self.times = {split: self._draw(0) for split in "abc"[: dice.randint(1, 3)]}
        self.family: dict[Split, frozenset[Split]] = {}
        self.unborn: set[Split] = set()
        self.closed: set[Split] = set()
        first = sorted(self.times)
        if dice.random() < 0.6:
            if len(first) > 1 and dice.random() < 0.4:
                self.family = {"m": frozenset(first[:2])}
            else:
                self.family = {"x": frozenset(first[:1]), "y": frozenset(first[:1])}
            for child, of in self.family.items():
                self.times[child] = self._draw(max([0, *(time for parent in of for time in self.times[parent])]))
        if dice.random() < 0.3:
            self.times["n"] = self._draw(dice.randint(0, 30))
            self.unborn = {"n"}
        self.first = first
        self.visible = dict.fromkeys(self.times, 0)

    def _draw(self, begin: int) -> list[int]:
        times, now, dice = [], begin, self.dice
        for _ in range(dice.randint(0, 8)):
            now += dice.choice([0, 1, 3, 12])
            late = 25 if dice.random() < 0.1 else 0
            times.append(max(0, now - dice.choice([0, 0, 1, self.disorder, self.disorder, late])))
        return times

    def has_children(self, split: Split) -> bool:
        return any(split in of for of in self.family.values())

    def end(self, split: Split) -> int:
        """The end of a split with children lies behind its last row, and is reached by a move."""
        return len(self.times[split]) + self.has_children(split)

    def grow(self) -> None:
        split = self.dice.choice(sorted(self.times))
        if self.dice.random() < 0.05:
            self.unborn.discard(split)
        if split in self.unborn:
            return
        if self.visible[split] < len(self.times[split]):
            self.visible[split] += 1
        elif self.has_children(split):
            self.closed.add(split)

    def grow_all(self) -> None:
        self.unborn.clear()
        self.visible = {split: len(times) for split, times in self.times.items()}
        self.closed = {split for split in self.times if self.has_children(split)}

    def reached(self, split: Split) -> int:
        return self.end(split) if split in self.closed else self.visible[split]

    def parents(self) -> Mapping[Split, frozenset[Split]]:
        return {child: of for child, of in self.family.items() if of <= self.closed}

    async def splits(self) -> list[Split]:
        return [
            split for split in self.times if split not in self.unborn and self.family.get(split, set()) <= self.closed
        ]


class WindowWorld(Setting):
    """What the actors of one schedule share."""

    def __init__(self, scheduler: Scheduler, rules: Rules) -> None:
        super().__init__(scheduler)
        dice = scheduler.random
        self.rules = rules
        self.lateness = dice.choice([0, 3, 10])
        self.disorder = dice.choice([0, 2, 5])
        self.windows = FixedWindows(SIZE, dice.choice([SIZE, SIZE, SIZE // 2]), dice.choice([0, 0, 3]))
        self.streams = Streams(dice, self.disorder)

    @classmethod
    @contextmanager
    def drawn(cls, seed: int, rules: Rules) -> Iterator[WindowWorld]:
        with Scheduler(seed, faults=0.04, late=0.06) as scheduler:
            yield cls(scheduler, rules)

    def log(self, actor: Actor) -> WindowLog:
        return self.rules.make_log(
            ScriptedStore(actor.script, self.objects),
            actor.name,
            FIRST,
            landing_s=1.0,
            merge=merge,
            sleep=actor.sleep,
            name_segment=self.name,
        )

    async def first_positions(self) -> Mapping[Split, Position]:
        return dict.fromkeys(self.streams.first, FIRST)

    # Rows

    def fold(self, split: Split, wanted: Range, lateness: int) -> tuple[list[Pair], list[Pair], int]:
        """Pairs in time, pairs that are late, and the watermark after the range: a function of the range."""
        times = self.streams.times[split]
        first, to = int(wanted.cursor.position), min(int(wanted.to), len(times))
        watermarks = Watermarks(self.disorder, {split: NEVER if wanted.watermark is None else wanted.watermark})
        part = np.array(times[first:to], np.int64)
        if self.rules.late_is_beyond:
            lateness += 1
        found = sort_out(self.windows, lateness, watermarks, part, [Run(split, 0, len(part))])
        members = np.arange(len(part)) if found.members is None else found.members
        pairs: tuple[list[Pair], list[Pair]] = ([], [])
        for row, start, late in zip(members.tolist(), found.starts.tolist(), found.late.tolist(), strict=True):
            pairs[late].append((split, first + row, start))
        return *pairs, watermarks.of(split)

    def plan_range(self, place: Place, to: int, lift: int | None) -> Range:
        return Range(place.cursor, at(to), watermark=place.watermark, reached=lift, is_lift=lift is not None)

    def writer(self, actor: Actor, log: WindowLog, plan: Plan) -> Callable[[], Awaitable[list[ObjectInfo]]]:
        async def write() -> list[ObjectInfo]:
            in_time: list[Pair] = []
            late: list[Pair] = []
            for split, wanted in sorted(plan.ranges.items()):
                some, others, _ = self.fold(split, wanted, plan.decode_version)
                in_time += some
                late += others
            if plan.windows:
                await log.save_partials(plan.segment, bytes(partials_of(in_time).to_ipc()))
            if late:
                await self.put(actor, f"data/late/{plan.segment}", sorted(late))
            return []

        return write

    async def put(self, actor: Actor, key: str, pairs: list[Pair]) -> None:
        """As a sink does. What others have put there must be the same."""
        store, body = ScriptedStore(actor.script, self.objects), orjson.dumps(pairs)
        while True:
            if await store.create(key, body):
                return
            found = await store.get(key)
            if found is not None:
                break
        if found != body and key.startswith("data/results"):
            raise Violation(f"{key}: a second content {body.decode()}, first {found.decode()}")

    def finisher(self, actor: Actor, log: WindowLog) -> Callable[[Plan], Awaitable[list[ObjectInfo]]]:
        async def finish(plan: Plan) -> list[ObjectInfo]:
            return await self.writer(actor, log, plan)()

        return finish

    # Actors

    def closer(self, actor: Actor, log: WindowLog, lateness: int, *, helps: bool) -> Closer:
        world = self

        class Writer:
            def holding(self, _: int) -> AbstractContextManager[None]:
                return nullcontext()

            async def write(self, partials: Partials, window: Window) -> Result:
                pairs = pairs_of(partials.only([window.start_us]))
                await world.put(actor, f"data/results/{window.start_us:03d}", pairs)
                return Result(window, len(pairs))

        return Closer(log, self.windows, lateness, Writer(), landing_s=0.0 if helps else 1.0, clock=lambda: 0.0)

    def worker(self, mine: list[Split], dice: Random, *, until_end: bool = False) -> Actor:
        """Reads, lands, lifts and closes; at the end, if it is to come to one, closes what is open."""
        lateness = self.lateness + (10 if self.rules.second_lateness and "n" in mine else 0)

        async def run(actor: Actor) -> None:
            log = self.log(actor)
            finish = self.finisher(actor, log)
            await log.begin(self.first_positions)
            await log.begin_windows("windows")
            closer = self.closer(actor, log, lateness, helps=until_end or dice.random() < 0.3)
            places: dict[Split, Place] = {}
            while True:
                ready = [split for split in mine if split not in places and await self._is_ready(log, split)]
                if ready:
                    places |= await take_over(log, self, ready, finish)
                worked = await self._land(actor, log, closer, places, (dice, lateness))
                if await self._close(closer) or worked or ready or not until_end:
                    await actor.sleep(0.0)
                elif not await closer.lift_all():
                    view = await closer.look()
                    if not view.open_windows and not view.control.owed:
                        return

        return self.scheduler.start(f"worker {self.name()}", run)

    async def _close(self, closer: Closer) -> bool:
        try:
            return await closer.step()
        except StoreUnavailable:
            return True

    async def splits(self) -> list[Split]:
        return await self.streams.splits()

    def parents(self) -> Mapping[Split, frozenset[Split]]:
        return self.rules.children_of(self.streams.parents())

    async def _is_ready(self, log: WindowLog, split: Split) -> bool:
        """As a source does: a child is given out once its parents have landed to their ends."""
        if split not in await self.streams.splits():
            return False
        for parent in self.streams.family.get(split, ()):
            if (await log.standing(parent)).cursor.position != at(self.streams.end(parent)):
                return False
        return True

    async def _land(
        self, actor: Actor, log: WindowLog, closer: Closer, places: dict[Split, Place], how: tuple[Random, int]
    ) -> bool:
        dice, lateness = how
        ranges: dict[Split, Range] = {}
        windows: set[int] = set()
        for split, place in places.items():
            first = int(place.cursor.position)
            to = min(self.streams.reached(split), first + dice.randint(0, 3))
            lift = closer.view.lift_of(split) if closer.view and dice.random() < 0.4 else None
            if to > first:
                wanted = self.plan_range(place, to, None)
                in_time, _, reached = self.fold(split, wanted, lateness)
                ranges[split] = replace(wanted, reached=reached)
                windows.update(start for _, _, start in in_time)
            elif lift is not None and first == self.streams.reached(split) and not self.streams.has_children(split):
                ranges[split] = self.plan_range(place, first, lift)
        if not ranges:
            return any(int(place.cursor.position) < self.streams.reached(split) for split, place in places.items())
        plan = await log.plan(self.name(), ranges, config="", decode_version=lateness, windows=sorted(windows))
        outcome = await log.land(plan, self.writer(actor, log, plan))
        if outcome.committed:
            places |= _behind(plan)
        else:
            places |= await take_over(log, self, sorted(places), self.finisher(actor, log))
        return True

    def lander(self, *segments: Mapping[Split, int], lift: int | None = None) -> Actor:
        """Lands these segments, from where each split stands to such a row; where that is no move, it is lifted."""

        async def run(actor: Actor) -> None:
            log = self.log(actor)
            await log.begin(self.first_positions)
            await log.begin_windows("windows")
            splits = sorted({split for segment in segments for split in segment})
            places = await take_over(log, self, splits, self.finisher(actor, log))
            for segment in segments:
                ranges: dict[Split, Range] = {}
                windows: set[int] = set()
                for split, to in segment.items():
                    moves = at(to) > places[split].cursor.position
                    wanted = self.plan_range(places[split], to, None if moves else lift)
                    in_time, _, reached = self.fold(split, wanted, self.lateness)
                    ranges[split] = replace(wanted, reached=reached if moves else lift)
                    windows.update(start for _, _, start in in_time)
                plan = await log.plan(
                    self.name(), ranges, config="", decode_version=self.lateness, windows=sorted(windows)
                )
                outcome = await log.land(plan, self.writer(actor, log, plan))
                if not outcome.committed:
                    return
                places |= _behind(plan)

        return self.scheduler.start(f"lander {self.name()}", run)

    def bystander(self, *splits: Split) -> Actor:
        """Owns nothing: finishes what is undecided of these splits, and closes windows."""

        async def run(actor: Actor) -> None:
            log = self.log(actor)
            closer = self.closer(actor, log, self.lateness, helps=True)
            await log.recover_all(splits, self.finisher(actor, log))
            while await self._close(closer):
                pass

        return self.scheduler.start(f"bystander {self.name()}", run)

    def ender(self, dice: Random) -> Actor:
        """Says of a split that it is gone, though it may be read just now."""

        async def run(actor: Actor) -> None:
            log = self.log(actor)
            await log.begin(self.first_positions)
            view = await log.begin_windows("windows")
            if view.counting:
                await log.end([dice.choice(view.counting)], "it is gone", self.finisher(actor, log))

        return self.scheduler.start(f"ender {self.name()}", run)

    def quitter(self, dice: Random) -> Actor:
        """Gives up some splits of a segment that has no outcome."""

        async def run(actor: Actor) -> None:
            log = self.log(actor)
            while True:
                await actor.sleep(1.0)
                plan = self.undecided(dice)
                if plan is None:
                    continue
                lost = {
                    split: (wanted.cursor.position, wanted.to)
                    for split, wanted in plan.ranges.items()
                    if wanted.to > wanted.cursor.position and dice.random() < 0.7
                }
                if lost:
                    await log.give_up(plan, lost, self.finisher(actor, log))
                    return

        return self.scheduler.start(f"quitter {self.name()}", run)

    # The end

    def finish_all(self) -> None:
        """Without faults, a fresh worker reads all there is, and closes all windows."""
        self.scheduler.faults = self.scheduler.late = 0.0
        self.streams.grow_all()
        if not self.scheduler.run_alone(self.worker(sorted(self.streams.times), Random(1), until_end=True), 20_000):
            raise Violation("no progress")

    def check(self) -> None:
        seen: Counter[Pair] = Counter()
        for key, body in self.objects.items():
            if key.startswith("data/"):
                seen.update((split, row, start) for split, row, start in orjson.loads(body))
        expected = {
            (split, row, start)
            for split, times in self.streams.times.items()
            for row, time in enumerate(times)
            for start in self.windows.assign(np.array([time], np.int64)).starts.tolist()
        }
        lost = self._lost()
        doubled = sorted(pair for pair, times in seen.items() if times > 1)
        missing = sorted(pair for pair in expected - seen.keys() if pair[:2] not in lost)
        surplus = sorted(seen.keys() - expected)
        if doubled or missing or surplus:
            raise Violation(f"doubled {doubled} missing {missing} surplus {surplus}")

    def _lost(self) -> set[tuple[Split, int]]:
        outcomes = [Outcome.from_json(body) for key, body in self.objects.created if key.startswith("outcomes/")]
        return {
            (split, row)
            for outcome in outcomes
            for split, (first, to) in outcome.lost.items()
            for row in range(int(first), int(to))
        }


def _behind(plan: Plan) -> dict[Split, Place]:
    """Where its worker goes on once the plan is committed: by the plan, as a pipeline does."""
    return {
        split: Place(wanted.next, NEVER if wanted.reached is None else wanted.reached)
        for split, wanted in plan.ranges.items()
    }


@contextmanager
def still_world(rules: Rules, times: Mapping[Split, Sequence[int]], seed: int = 0) -> Iterator[WindowWorld]:
    """Without faults, lateness or disorder; windows of ten."""
    with Scheduler(seed, faults=0.0, late=0.0) as scheduler:
        world = WindowWorld(scheduler, rules)
        world.lateness, world.disorder, world.windows = 0, 0, FixedWindows(SIZE, SIZE)
        streams = world.streams = Streams(Random(0), 0)
        streams.times = {split: list(own) for split, own in times.items()}
        streams.family, streams.first, streams.unborn = {}, sorted(times), set()
        streams.visible = dict.fromkeys(times, 0)
        yield world


def run_duel(rules: Rules, steps: tuple[int, int], *, joins_first: bool, folds: bool) -> WindowWorld:
    """Two workers take turns while a split appears: one reads what was there from the start and closes windows, the
    other what is new. One does so many steps, then the other, perhaps a folder too; then the first goes on."""
    times = {"a": [1, 12, 30, 55], "b": [3, 35, 13, 31, 57], "n": [5, 4, 14, 36, 15]}
    with still_world(rules, times, sum(steps)) as world:
        scheduler, streams = world.scheduler, world.streams
        world.lateness = 10
        streams.first, streams.unborn = ["a", "b"], {"n"}
        streams.visible = {split: len(own) for split, own in times.items()}
        dice = Random(sum(steps))
        old = world.worker(["a", "b"], dice)
        while not any(key.startswith("log/") for key in world.objects):
            scheduler.step(old)
        new = world.worker(["n"], dice)
        first, second = (new, old) if joins_first else (old, new)
        if joins_first:
            streams.unborn = set()
        scheduler.run_alone(first, steps[0])
        streams.unborn = set()
        scheduler.run_alone(second, steps[1])
        if folds:
            scheduler.run_alone(world.folder(), 100)
        for actor in (first, second):
            scheduler.run_alone(actor, 150)
        world.finish_all()
        world.check()
        return world


def run_schedule(seed: int, rules: Rules | None = None) -> WindowWorld:
    """Three workers, a folder, now and then somebody who gives up or ends a split; crashes, zombies, faults; then the
    end."""
    with WindowWorld.drawn(seed, rules or Rules()) as world:
        zombies = _live(world)
        world.finish_all()
        for zombie in zombies:
            world.scheduler.run_alone(zombie, 60)
        world.finish_all()
        world.check()
        return world


def _live(world: WindowWorld) -> list[Actor]:
    scheduler, dice = world.scheduler, world.scheduler.random
    slots = [0, 0, 1, 1, 2, 2, 3, *dice.choice([[], [], [], [4], [5]])]
    actors = {slot: _fresh(world, slot) for slot in dict.fromkeys(slots)}
    zombies: list[Actor] = []
    slot, burst = 0, dice.choice([0.0, 0.5, 0.9, 0.97])
    for _ in range(dice.randint(200, 1_500)):
        slot = slot if dice.random() < burst else dice.choice(slots)
        if dice.random() < 0.06:
            world.streams.grow()
        chance = dice.random()
        if actors[slot].done:
            if slot < 4 or chance < 0.1:
                actors[slot] = _fresh(world, slot)
        elif chance < 0.99:
            scheduler.step(actors[slot])
        elif chance < 0.994 and zombies:
            zombies.append(actors[slot])
            actors[slot] = zombies.pop(0)
        else:
            if chance < 0.997:
                scheduler.crash(actors[slot])
            else:
                zombies.append(actors[slot])
            actors[slot] = _fresh(world, slot)
    return [*zombies, *actors.values()]


def _fresh(world: WindowWorld, slot: int) -> Actor:
    own_dice = Random(world.scheduler.random.random())
    names = sorted(world.streams.times)
    if slot < 3:
        return world.worker(own_dice.sample(names, own_dice.randint(1, len(names))), own_dice)
    if slot == 5:
        return world.ender(own_dice)
    return world.folder() if slot == 3 else world.quitter(own_dice)
