"""The segment log's own code under seeded schedules; and that the oracle notices when one of its rules is dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count, product
from random import Random
from typing import TypeAlias

import pytest

from streamsvc.core.log_keys import (
    CHECKPOINTS,
    CLAIMS,
    PLANS,
    Cursor,
    checkpoint_key,
    checkpoint_number,
    outcome_key,
    parse_claim_key,
    segment_of,
)
from streamsvc.core.segments import Checkpoint, Claim, Outcome, Plan, Start, abort, commit, fold, is_below
from streamsvc.errors import LogCorrupt
from streamsvc.log.folder import GcReport
from streamsvc.log.segment_log import Finish, SegmentLog
from streamsvc.records import ObjectInfo, Position, Split
from tests.property.log_world import REJECTED, Violation, World, run_schedule
from tests.property.schedule import Actor, Scheduler

Write = Callable[[], Awaitable[list[ObjectInfo]]]


class NoReadBack(SegmentLog):
    """A create that fails means that another segment holds the key."""

    async def _claim(self, key: str, segment: str) -> str:
        body = Claim(segment).to_json()
        created = await self._store.until_known(lambda: self._store._store.create(key, body))
        return segment if created else "another"


class NoLook(SegmentLog):
    """Holding all claims is enough: no look at the newest checkpoint."""

    async def _overtaken(self, plan: Plan) -> str:
        return ""


class EarlyGc(SegmentLog):
    """A segment is deleted once one of its splits is folded."""

    async def _folded_segments(self, newest: Checkpoint) -> list[str]:
        folded = []
        for segment in [segment_of(key) for key in await self._store.keys(PLANS)]:
            plan = await self._plan(segment)
            if plan and any(is_below(split, wanted.cursor, newest) for split, wanted in plan.ranges.items()):
                folded.append(segment)
        return folded


class NoAttempts(SegmentLog):
    """A checkpoint keeps positions, and what is decided at them is deleted."""

    async def checkpoint(self) -> Checkpoint:
        newest = await self.newest()
        walk = await self._walk(await self._known_splits(newest), newest)
        following = fold(newest, {split: standing for split, standing in walk.items() if standing is not None})
        cursors = {split: Cursor(cursor.epoch, cursor.position) for split, cursor in following.cursors.items()}
        key = checkpoint_key(following.number)
        body = Checkpoint(following.number, cursors).to_json()
        return Checkpoint.from_json(await self._store.create(key, body), key=key)

    async def gc(self) -> GcReport:
        newest = await self.newest()
        for key in await self._store.keys(CLAIMS):
            split, cursor = parse_claim_key(key) or ("", Cursor(0, ""))
            holder = await self._holder((split, cursor))
            if (
                holder is not None
                and Cursor(cursor.epoch, cursor.position) <= newest.cursors.get(split, Cursor(0, ""))
                and await self._store.get(outcome_key(holder)) is not None
            ):
                await self._store.delete([key])
        return GcReport()


class GcBelowOwn(SegmentLog):
    """The bound of ``gc`` is the checkpoint that this worker made last."""

    async def checkpoint(self) -> Checkpoint:
        self.own = await super().checkpoint()
        return self.own

    async def gc(self) -> GcReport:
        for key in await self._store.keys(CLAIMS):
            claim = parse_claim_key(key)
            if claim is not None and is_below(*claim, self.own):
                await self._store.delete([key])
        for found in [checkpoint_number(key) or 0 for key in await self._store.keys(CHECKPOINTS)]:
            if found < self.own.number:
                await self._store.delete([checkpoint_key(found)])
        return GcReport()


class Hinted(SegmentLog):
    """A split goes on where the source was told."""

    async def _beginnings(self, splits: Iterable[Split], checkpoint: Checkpoint) -> dict[Split, Cursor]:
        beginnings = await super()._beginnings(splits, checkpoint)
        for split in beginnings:
            hint = await self._store.get(f"hints/{split}")
            if hint is not None:
                beginnings[split] = Cursor(0, hint.decode())
        return beginnings


class WriteFirst(SegmentLog):
    """Data objects are written before all claims are held."""

    async def _decide(self, plan: Plan, write: Write) -> Outcome:
        await self._store.until_known(write)
        return await super()._decide(plan, write)


class NoStart(SegmentLog):
    """Every worker asks the source where its splits begin."""

    async def begin(self, first_positions: Callable[[], Awaitable[Mapping[Split, Position]]]) -> None:
        positions = dict(await first_positions())
        await super().begin(first_positions)
        self._start = Start(positions)


class AbortHeld(SegmentLog):
    """A segment without an outcome is aborted by whoever finds it, though it may hold all its claims."""

    async def _finish(self, plan: Plan, finish: Finish) -> Outcome:
        return await self._end(abort(plan, "it took too long", self._worker))


class TrustListings(SegmentLog):
    """What is listed is believed at once, and only the newest checkpoint is kept."""

    async def newest(self) -> Checkpoint:
        numbers = [checkpoint_number(key) or 0 for key in await self._store.keys(CHECKPOINTS)]
        body = await self._store.get(checkpoint_key(max(numbers))) if numbers else None
        return Checkpoint.from_json(body) if body else Checkpoint()

    async def _delete_checkpoints_before(self, number: int) -> int:
        for found in [checkpoint_number(key) or 0 for key in await self._store.keys(CHECKPOINTS)]:
            if found < number:
                await self._store.delete([checkpoint_key(found)])
        return 0


class LossReadFirst(SegmentLog):
    """Whether a segment was given up is asked before its objects are written, not after."""

    async def _decide(self, plan: Plan, write: Write) -> Outcome:
        loss = await self._loss(plan.segment)
        obstacle = await self._claim_all(plan) or await self._overtaken(plan)
        if obstacle:
            return await self._end(abort(plan, obstacle, self._worker))
        return await self._end(commit(plan, await self._store.until_known(write), loss, self._worker))


RULES: list[type[SegmentLog]] = [
    NoReadBack,
    NoLook,
    EarlyGc,
    NoAttempts,
    GcBelowOwn,
    Hinted,
    WriteFirst,
    NoStart,
    AbortHeld,
    TrustListings,
]


def test_every_row_is_landed_once() -> None:
    for seed in range(3_000):
        with _named(seed):
            run_schedule(seed)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_every_row_is_landed_once_in_many_more_schedules() -> None:
    for seed in range(3_000, 100_000):
        with _named(seed):
            run_schedule(seed)


@contextmanager
def _named(seed: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"seed {seed}")
        raise


@pytest.mark.parametrize("broken", RULES, ids=lambda rule: rule.__name__)
def test_a_dropped_rule_is_noticed(broken: type[SegmentLog]) -> None:
    assert any(_is_violated(seed, broken) for seed in range(2_000))


def _is_violated(seed: int, broken: type[SegmentLog]) -> bool:
    try:
        run_schedule(seed, broken)
    except (Violation, LogCorrupt):
        return True
    return False


def test_a_seed_is_a_schedule() -> None:
    assert run_schedule(7).scheduler.trace == run_schedule(7).scheduler.trace


def test_schedules_hold_what_they_should() -> None:
    """Faults, finishing by others, overtaken segments, seeks and losses happen often enough to mean something."""
    happened: Counter[str] = Counter()
    for seed in range(100):
        world = run_schedule(seed)
        happened.update(fault or "none" for _, _, _, fault in world.scheduler.trace)
        plans = {}
        for key, body in world.objects.created:
            if key.startswith("plans/"):
                plans[segment_of(key)] = Plan.from_json(body)
            elif key.startswith("outcomes/"):
                outcome = Outcome.from_json(body)
                plan = plans[outcome.segment]
                happened[outcome.state] += 1
                happened[f"finished by another, {outcome.state}"] += outcome.worker != plan.worker
                happened["seek"] += plan.is_seek and outcome.committed
                happened["loss"] += bool(outcome.lost)
                happened["overtaken"] += outcome.reason.startswith("checkpoint")
    for what in ("before", "after", "conflict", "reply lost", "late", "committed", "aborted", "seek", "loss"):
        assert happened[what] > 10, what
    for what in ("overtaken", "finished by another, committed", "finished by another, aborted"):
        assert happened[what] > 10, what


# Replays of a reject object


class ForgetLanded(SegmentLog):
    """A checkpoint keeps where a reject object stands, not which of its records were landed."""

    async def newest(self) -> Checkpoint:
        return replace(await super().newest(), landed={})


def _run_replays(seed: int, make_log: type[SegmentLog] = SegmentLog) -> None:
    """Replays at once, under two configurations of which the later one mends more, while the log is folded."""
    early, late = {0, 1}, {0, 1, 2, 3}
    with Scheduler(seed, faults=0.08, late=0.1) as scheduler:
        world = World(scheduler, make_log, [], 0)
        dice = scheduler.random

        def fresh(slot: int) -> Actor:
            return world.folder() if slot == 3 else world.replayer(dice.choice([early, late]))

        actors = [fresh(slot) for slot in range(4)]
        for _ in range(dice.randint(20, 400)):
            slot = dice.randrange(4)
            if actors[slot].done:
                actors[slot] = fresh(slot)
            elif dice.random() < 0.02:
                scheduler.crash(actors[slot])
                actors[slot] = fresh(slot)
            else:
                scheduler.step(actors[slot])
        scheduler.faults = scheduler.late = 0.0
        for actor in [*actors[:3], world.replayer(late)]:
            assert scheduler.run_alone(actor, 3_000)
        if world.visible() != {(REJECTED, 0, record): 1 for record in late}:
            raise Violation(f"replayed {world.visible()}")


def test_every_record_is_replayed_once() -> None:
    for seed in range(150):
        with _named(seed):
            _run_replays(seed)


def test_forgotten_replays_are_noticed() -> None:
    with pytest.raises(Violation, match="replayed"):
        list(map(partial(_run_replays, make_log=ForgetLanded), range(300)))


# One landing, exhaustively

MakeActor: TypeAlias = Callable[[World], Actor]


@contextmanager
def _two_splits(make_log: type[SegmentLog] = SegmentLog, seed: int = 0) -> Iterator[World]:
    with Scheduler(seed, faults=0.0, late=0.0) as scheduler:
        yield World(scheduler, make_log, ["a", "b"], 3)


def _worker(world: World) -> Actor:
    return world.worker(["a", "b"], Random(5), until_end=True)


def _worker_of_b(world: World) -> Actor:
    return world.worker(["b"], Random(6), until_end=True)


def _quitter(world: World) -> Actor:
    return world.quitter(Random(1))


def test_a_crash_at_every_step_is_recovered_from() -> None:
    """After every number of steps, whatever was under way then having happened or not."""
    crashes = 0
    for seed, happened in product(range(3), product([False, True], repeat=2)):
        for steps in count():
            with _two_splits(seed=seed) as world:
                worker = _worker(world)
                ended = world.scheduler.run_alone(worker, steps)
                for pending, takes_effect in zip(worker.pending, happened, strict=False):
                    if takes_effect:
                        pending.apply()
                worker.pending.clear()
                world.scheduler.run_alone(_worker_of_b(world), 1_000)
                world.finish_all()
                world.check()
            if ended:
                break
            crashes += 1
    assert crashes > 300


def _duels(first: MakeActor, second: MakeActor, make_log: type[SegmentLog] = SegmentLog) -> int:
    """Two actors take turns: some steps of the first, of the second, of the first again; then each to its end.

    Answers how often they both had a turn before either had ended.
    """
    duels = 0
    for turns in product(range(40), range(1, 40), [4]):
        with _two_splits(make_log) as world:
            actors = first(world), second(world)
            for turn, steps in enumerate(turns):
                world.scheduler.run_alone(actors[turn % 2], steps)
            duels += not any(actor.done for actor in actors)
            for actor in reversed(actors):
                world.scheduler.run_alone(actor, 500)
            world.finish_all()
            world.check()
    return duels


def _finisher_of_a_crashed_segment(world: World) -> Actor:
    """It finds both claims of a segment, and nothing that came after them."""
    crashed = _worker(world)
    while sum(key.startswith(CLAIMS) for key in world.objects) < 2:
        world.scheduler.step(crashed)
    crashed.pending.clear()
    return world.worker(["a"], Random(6), until_end=True)


def test_two_finish_one_segment() -> None:
    assert _duels(_finisher_of_a_crashed_segment, _worker_of_b) > 500


def test_a_segment_is_given_up_while_its_worker_lands_it() -> None:
    assert _duels(_worker, _quitter) > 500


def test_giving_up_is_seen_by_a_worker_that_has_written() -> None:
    with pytest.raises(Violation, match="missing"):
        _duels(_worker, _quitter, LossReadFirst)
