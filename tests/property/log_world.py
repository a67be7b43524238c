"""A small world around the segment log: splits that grow, workers, folders, people who seek and give up; and the
oracle that counts every row among the data objects, whatever the log says of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Self, TypeAlias

import orjson

from streamsvc.core.log_keys import Cursor
from streamsvc.core.segments import Outcome, Plan, Range, advance
from streamsvc.errors import Fenced
from streamsvc.log.segment_log import SegmentLog
from streamsvc.records import ObjectInfo, Position, Split
from streamsvc.testing.scripted_store import ScriptedStore
from tests.property.schedule import Actor, Remembering, Scheduler

FIRST = "00"
REJECTED = "reject@2026-11-24/00/part.json"

Row: TypeAlias = tuple[Split, int, int]
"""A row is its split, epoch and number: what a seek has read again is another row."""


def at(number: int) -> Position:
    return f"{number:02d}"


class Violation(AssertionError):
    """Rows were lost or doubled, or nothing goes on any more."""


class Setting(ABC):
    """A scheduler, the objects of a log, and who looks after it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.objects = Remembering()
        self._names = 0

    @abstractmethod
    def log(self, actor: Actor) -> SegmentLog: ...

    def name(self) -> str:
        self._names += 1
        return f"{self._names:06d}"

    def folder(self) -> Actor:
        """Folds and deletes, rests, and does it again."""

        async def run(actor: Actor) -> None:
            log = self.log(actor)
            while True:
                await log.checkpoint()
                await log.gc()
                await actor.sleep(1.0)

        return self.scheduler.start(f"folder {self.name()}", run)

    def undecided(self, dice: Random) -> Plan | None:
        """A segment that has no outcome."""
        planned = [key for key in self.objects if key.startswith("plans/")]
        undecided = [key for key in planned if key.replace("plans/", "outcomes/") not in self.objects]
        return Plan.from_json(self.objects[dice.choice(undecided)]) if undecided else None


class World(Setting):
    """What the actors of one schedule share. ``make_log`` is the class of the log under test.

    Objects under ``hints/`` are what the source was told: they lag behind, and are nothing to go by.
    """

    def __init__(self, scheduler: Scheduler, make_log: type[SegmentLog], splits: list[Split], length: int) -> None:
        super().__init__(scheduler)
        self.make_log = make_log
        self.splits = splits
        self.length = length
        self.ends = dict.fromkeys(splits, 0)

    @classmethod
    @contextmanager
    def drawn(cls, seed: int, make_log: type[SegmentLog]) -> Iterator[Self]:
        """One to three splits of some rows, at the end of which there are already some at the start."""
        with Scheduler(seed, faults=0.08, late=0.1) as scheduler:
            dice = scheduler.random
            world = cls(scheduler, make_log, ["a", "b", "c"][: dice.randint(1, 3)], dice.randint(3, 12))
            world.ends = {split: dice.randint(0, world.length) for split in world.splits}
            if dice.random() < 0.3:
                del world.ends[dice.choice(world.splits)]
            yield world

    def grow(self) -> None:
        """A split gets a row. One that was not there at the start begins at its first row."""
        split = self.scheduler.random.choice(self.splits)
        if split in self.ends:
            self.ends[split] = min(self.length, self.ends[split] + 1)

    def log(self, actor: Actor) -> SegmentLog:
        store = ScriptedStore(actor.script, self.objects)
        return self.make_log(store, actor.name, FIRST, landing_s=1.0, sleep=actor.sleep, name_segment=self.name)

    async def first_positions(self) -> Mapping[Split, Position]:
        return {split: at(end) for split, end in self.ends.items()}

    def writer(self, actor: Actor, plan: Plan) -> Callable[[], Awaitable[list[ObjectInfo]]]:
        """Writes the plan's rows, or the records that it replays, as two data objects: the even and the odd ones."""
        store = ScriptedStore(actor.script, self.objects)
        rows = [
            (split, wanted.cursor.epoch, row)
            for split, wanted in sorted(plan.ranges.items())
            for row in sorted({*range(int(wanted.cursor.position), int(wanted.to)), *plan.landed.get(split, ())})
        ]

        async def write() -> list[ObjectInfo]:
            written = []
            for partition in (0, 1):
                part = [row for row in rows if row[2] % 2 == partition]
                if part:
                    key = f"data/{plan.segment}/{partition}"
                    while not await store.create(key, orjson.dumps(part)) and await store.size(key) is None:
                        pass
                    written.append(ObjectInfo(key, len(part), 0))
            return written

        return write

    def finisher(self, actor: Actor) -> Callable[[Plan], Awaitable[list[ObjectInfo]]]:
        async def finish(plan: Plan) -> list[ObjectInfo]:
            return await self.writer(actor, plan)()

        return finish

    # Actors

    def worker(self, splits: list[Split], dice: Random, *, until_end: bool = False) -> Actor:
        """Lands segments of these splits until it sees all of them at their end."""

        async def run(actor: Actor) -> None:
            log = self.log(actor)
            await log.begin(self.first_positions)
            cursors = await log.recover_all(splits, self.finisher(actor))
            while ranges := self._next_ranges(cursors, dice, until_end=until_end):
                plan = await log.plan(self.name(), ranges, config="", decode_version=1)
                outcome = await log.land(plan, self.writer(actor, plan))
                if outcome.committed:
                    self._advance(cursors, ranges, outcome, dice)
                else:
                    cursors |= await log.recover_all(splits, self.finisher(actor))

        return self.scheduler.start(f"worker {self.name()}", run)

    def _next_ranges(self, cursors: Mapping[Split, Cursor], dice: Random, *, until_end: bool) -> dict[Split, Range]:
        while any(int(cursor.position) < self.length for cursor in cursors.values()):
            ranges = {}
            for split, cursor in cursors.items():
                to = min(self.length, int(cursor.position) + dice.randint(0, 3))
                if to > int(cursor.position) or (dice.random() < 0.15 and not until_end):
                    ranges[split] = Range(cursor, at(to))
            if ranges:
                return ranges
        return {}

    def _advance(
        self, cursors: dict[Split, Cursor], ranges: Mapping[Split, Range], outcome: Outcome, dice: Random
    ) -> None:
        for split, wanted in ranges.items():
            cursors[split] = advance(cursors[split], wanted, outcome)
            if dice.random() < 0.7:
                self.objects[f"hints/{split}"] = cursors[split].position.encode()

    def seeker(self, dice: Random) -> Actor:
        """Moves some splits to anywhere."""
        splits = dice.sample(self.splits, dice.randint(1, len(self.splits)))
        moves = {split: at(dice.randint(0, self.length)) for split in splits}
        patient = dice.random() < 0.7

        async def run(actor: Actor) -> None:
            log = self.log(actor)
            await log.begin(self.first_positions)
            try:
                await log.seek(moves, "why not", self.finisher(actor) if patient else None)
            except Fenced:
                return

        return self.scheduler.start(f"seeker {self.name()}", run)

    def quitter(self, dice: Random) -> Actor:
        """Gives up a part of a segment that has no outcome, as if it could not be read again."""

        async def run(actor: Actor) -> None:
            log = self.log(actor)
            while True:
                await actor.sleep(1.0)
                plan = self.undecided(dice)
                if plan is not None and (lost := _some_loss(plan, dice)):
                    await log.give_up(plan, lost, self.finisher(actor))
                    return

        return self.scheduler.start(f"quitter {self.name()}", run)

    def replayer(self, passing: set[int]) -> Actor:
        """Replays a reject object, some of whose records pass now, and lands those that were not landed before."""

        async def run(actor: Actor) -> None:
            log = self.log(actor)
            await log.begin(self.first_positions)
            while True:
                await log.recover(REJECTED, self.finisher(actor))
                standing = await log.replayed(REJECTED)
                ranges = {REJECTED: Range(standing.cursor, standing.cursor.position)}
                landed = {REJECTED: passing - standing.landed}
                plan = await log.plan(self.name(), ranges, config="", decode_version=1, landed=landed)
                if (await log.land(plan, self.writer(actor, plan))).committed:
                    return

        return self.scheduler.start(f"replayer {self.name()}", run)

    # The end

    def finish_all(self) -> None:
        """Without faults, fresh workers must reach the end of every split."""
        self.scheduler.faults = self.scheduler.late = 0.0
        for split in self.splits:
            worker = self.worker([split], Random(1), until_end=True)
            if not self.scheduler.run_alone(worker, 5_000):
                raise Violation(f"no progress on {split}")

    def fold_once(self, folder: Actor) -> None:
        """Up to its next rest."""
        for _ in range(3_000):
            if folder.pending[0].operation is None:
                return
            self.scheduler.step(folder)
        raise Violation("no progress of a folder")

    def visible(self) -> Counter[Row]:
        """What a reader finds who only lists the data objects."""
        seen: Counter[Row] = Counter()
        for key, body in self.objects.items():
            if key.startswith("data/"):
                seen.update((split, epoch, row) for split, epoch, row in orjson.loads(body))
        return seen

    def check(self) -> None:
        """Every row is in one data object, or is one that an outcome has named as lost."""
        seen = self.visible()
        expected, lost = self._expected()
        doubled = {row for row, times in seen.items() if times > 1}
        wrong = {"doubled": doubled, "missing": expected - seen.keys() - lost, "surplus": seen.keys() - expected}
        for what, rows in wrong.items():
            if rows:
                raise Violation(f"{what} {sorted(rows)}")

    def _expected(self) -> tuple[set[Row], set[Row]]:
        """All rows from the beginning to the end of every epoch; and those that were named as lost."""
        start = orjson.loads(self.objects["start.json"])["positions"]
        begins = {(split, 0): int(start.get(split, FIRST)) for split in self.splits}
        ends: dict[tuple[Split, int], int] = {}
        lost: set[Row] = set()
        plans: dict[str, Plan] = {}
        for key, body in self.objects.created:
            if key.startswith("plans/"):
                plan = Plan.from_json(body)
                plans[plan.segment] = plan
            elif key.startswith("outcomes/") and (outcome := Outcome.from_json(body)).committed:
                for split, wanted in plans[outcome.segment].ranges.items():
                    epoch = wanted.cursor.epoch
                    if wanted.seek is not None:
                        ends[split, epoch] = int(wanted.cursor.position)
                        begins[split, epoch + 1] = int(wanted.seek)
                    first, to = outcome.lost.get(split, (FIRST, FIRST))
                    lost |= {(split, epoch, row) for row in range(int(first), int(to))}
        return {
            (split, epoch, row)
            for (split, epoch), first in begins.items()
            for row in range(first, ends.get((split, epoch), self.length))
        }, lost


def _some_loss(plan: Plan, dice: Random) -> dict[Split, tuple[Position, Position]]:
    lost = {}
    for split, wanted in plan.ranges.items():
        first, to = int(wanted.cursor.position), int(wanted.to)
        if wanted.seek is None and to > first and dice.random() < 0.7:
            cut = dice.randint(first + 1, to)
            lost[split] = (at(first), at(cut)) if dice.random() < 0.7 else (at(cut - 1), at(to))
    return lost


def run_schedule(seed: int, make_log: type[SegmentLog] = SegmentLog) -> World:
    """Three workers, two folders, now and then a person; crashes, zombies, faults; then the end, and the oracle."""
    with World.drawn(seed, make_log) as world:
        zombies = _live(world)
        world.finish_all()
        world.fold_once(world.folder())
        for zombie in zombies:
            if zombie.name.startswith("folder"):
                world.fold_once(zombie)
            else:
                world.scheduler.run_alone(zombie, 300)
        world.finish_all()
        world.check()
        return world


def _live(world: World) -> list[Actor]:
    """The random part. Answers who is left hanging somewhere."""
    scheduler, dice = world.scheduler, world.scheduler.random
    slots = [0, 0, 1, 1, 2, 2, 3, 4, *dice.choice([[], [], [5], [6], [5, 6]])]
    actors = {slot: _fresh(world, slot) for slot in dict.fromkeys(slots)}
    zombies: list[Actor] = []
    slot, burst = 0, dice.choice([0.0, 0.5, 0.8, 0.9])
    for _ in range(dice.randint(40, 500)):
        slot = slot if dice.random() < burst else dice.choice(slots)
        if dice.random() < 0.04:
            world.grow()
        if not actors[slot].done:
            actors[slot] = _go_on(world, slot, actors[slot], zombies)
        elif slot < 5 or dice.random() < 0.1:
            actors[slot] = _fresh(world, slot)
    if dice.random() < 0.5:
        scheduler.faults = 0.0
        for actor in actors.values():
            if actor.name.startswith("folder"):
                world.fold_once(actor)
    return [*zombies, *actors.values()]


def _fresh(world: World, slot: int) -> Actor:
    dice = world.scheduler.random
    own_dice = Random(dice.random())
    if slot < 3:
        return world.worker(dice.sample(world.splits, dice.randint(1, len(world.splits))), own_dice)
    if slot < 5:
        return world.folder()
    return world.seeker(own_dice) if slot == 5 else world.quitter(own_dice)


def _go_on(world: World, slot: int, actor: Actor, zombies: list[Actor]) -> Actor:
    """One step; or the actor hangs, crashes, is cancelled, or gives way to one that hung. Answers who is there now."""
    chance = world.scheduler.random.random()
    if chance < 0.94 or (chance < 0.96 and not zombies):
        world.scheduler.step(actor)
        return actor
    if chance < 0.96:
        zombies.append(actor)
        return zombies.pop(0)
    if chance < 0.97:
        world.scheduler.cancel(actor)
    elif chance < 0.985:
        world.scheduler.crash(actor)
    else:
        zombies.append(actor)
    return _fresh(world, slot)
