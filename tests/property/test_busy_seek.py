"""A seek while workers land segment after segment. Time is drawn: a call takes about one, a landing time 30."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from streamsvc.core.segments import Outcome, Range, advance
from streamsvc.log.segment_log import LOOKS, Finish, SegmentLog, write_nothing
from streamsvc.records import Position, Split
from tests.property.log_world import World, at
from tests.property.schedule import Actor, Scheduler

LANDING_TIME = 30.0
LIMIT = 10 * LANDING_TIME


class SeekBehind(SegmentLog):
    """A seek waits for what is landing, and claims what comes then."""

    async def seek(self, moves: Mapping[Split, Position], reason: str, finish: Finish | None = None) -> Outcome:
        assert finish is not None
        while True:
            cursors = await self.recover_all(moves, finish)
            ranges = {split: Range(cursors[split], cursors[split].position, seek=to) for split, to in moves.items()}
            outcome = await self.land(self._by_hand(ranges, reason), write_nothing)
            if outcome.committed:
                return outcome


def _busy_worker(world: World, splits: list[Split], dice: Random) -> Actor:
    """Of each split a row or none, again and again; and once more when it has lost a claim."""

    async def run(actor: Actor) -> None:
        log = world.log(actor)
        await log.begin(world.first_positions)
        cursors = await log.recover_all(splits, world.finisher(actor))
        while True:
            to = {split: min(world.length, int(cursors[split].position) + dice.randint(0, 1)) for split in splits}
            ranges = {split: Range(cursors[split], at(to[split])) for split in splits}
            plan = await log.plan(world.name(), ranges, config="", decode_version=1)
            outcome = await log.land(plan, world.writer(actor, plan))
            cursors = {split: advance(cursors[split], ranges[split], outcome) for split in splits}
            if not outcome.committed:
                cursors = await log.recover_all(splits, world.finisher(actor))

    return world.scheduler.start(f"worker {world.name()}", run)


def _seeker(world: World, splits: list[Split]) -> Actor:
    async def run(actor: Actor) -> None:
        log = world.log(actor)
        await log.begin(world.first_positions)
        await log.seek(dict.fromkeys(splits, at(0)), "once more", world.finisher(actor))

    return world.scheduler.start("seeker", run)


def _seeks_in_time(seed: int, make_log: type[SegmentLog] = SegmentLog) -> bool:
    with Scheduler(seed, faults=0.0, late=0.0) as scheduler:
        world = World(scheduler, make_log, ["a", "b", "c"], 99)
        dice = scheduler.random
        workers = [_busy_worker(world, splits, Random(seed)) for splits in (["a", "b"], ["c"])]
        due = dict.fromkeys(workers, 0.0)
        seeker, now = None, 0.0
        while now < LIMIT and not (seeker and seeker.done):
            if seeker is None and now > LANDING_TIME:
                seeker = _seeker(world, ["a", "c"])
                due[seeker] = now
            actor = min(due, key=due.__getitem__)
            now = due[actor]
            for _ in list(actor.pending):
                scheduler.step(actor)
            waits = not actor.done and all(pending.operation is None for pending in actor.pending)
            due[actor] = now + (LANDING_TIME / LOOKS if waits else dice.uniform(0.5, 1.5))
        done = seeker is not None and seeker.done
        world.finish_all()
        world.check()
        return done


def test_a_seek_is_done_while_workers_land_back_to_back() -> None:
    assert all(map(_seeks_in_time, range(100)))


def test_without_a_fence_it_starves() -> None:
    assert sum(_seeks_in_time(seed, SeekBehind) for seed in range(20)) < 10
