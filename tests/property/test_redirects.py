"""Pending segments whose destination becomes one that nobody can write to, under seeded schedules: by people who
redirect them, and crash, and disagree on where to. Then every row is once in what can be read, at either place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Any

import orjson
import pytest

from streamsvc.core.redirects import Redirect
from streamsvc.core.segments import Plan
from streamsvc.errors import StoreRefused
from streamsvc.log.segment_log import SegmentLog
from streamsvc.records import ObjectInfo
from streamsvc.testing.scripted_store import Operation, ScriptedStore
from tests.property.log_world import Violation, World
from tests.property.schedule import Actor

OLD, NEW, NEWER = "data/old", "data/new", "data/newer"


class Closable(ScriptedStore):
    """A store whose old destination may be closed: what is there can be read, and nothing created."""

    def __init__(self, actor: Actor, world: Moving) -> None:
        super().__init__(actor.script, world.objects)
        self._world = world

    async def create(self, key: str, body: Any) -> bool:
        created: bool | None = await self._script(Operation("create", key, partial(self._try, key, body)))
        if created is None:
            raise StoreRefused("closed")
        return created

    def _try(self, key: str, body: bytes) -> bool | None:
        return None if self._world.closed and key.startswith(OLD) else self._create(key, body)


class Moving(World):
    """``looks``: whether what is at the old destination is looked for; ``closes``: whether it is really closed."""

    closed = False
    looks = closes = True
    path = OLD

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.planned: dict[str, str] = {}

    def writer(self, actor: Actor, plan: Plan, redirect: Redirect | None = None) -> Callable[[], Awaitable[Any]]:
        """As planned, by the path of that time; or, redirected, what is not there yet to another one."""
        store = Closable(actor, self)
        former = self.planned.setdefault(plan.segment, self.path)
        to = redirect.to.get(former, former) if redirect else former
        rows = [
            (split, wanted.cursor.epoch, row)
            for split, wanted in sorted(plan.ranges.items())
            for row in range(int(wanted.cursor.position), int(wanted.to))
        ]

        async def write() -> list[ObjectInfo]:
            for partition in (0, 1):
                part = [row for row in rows if row[2] % 2 == partition]
                name = f"{plan.segment}/{partition}"
                if not part or (to != former and self.looks and await store.size(f"{former}/{name}") is not None):
                    continue
                key = f"{to}/{name}"
                while not await store.create(key, orjson.dumps(part)) and await store.size(key) is None:
                    pass
            return []

        return write

    def finisher(self, actor: Actor, log: SegmentLog | None = None) -> Callable[[Plan], Awaitable[list[ObjectInfo]]]:
        log = log or self.log(actor)

        async def finish(plan: Plan) -> list[ObjectInfo]:
            written: list[ObjectInfo] = await self.writer(actor, plan, await log.redirected(plan.segment))()
            return written

        return finish

    def redirector(self, to: str) -> Actor:
        """Finishes what is pending, and redirects what the old destination refuses."""

        async def run(actor: Actor) -> None:
            log = self.log(actor)
            await log.begin(self.first_positions)
            standings = await log.standings(self.splits)
            for plan in {at.pending.segment: at.pending for at in standings.values() if at.pending}.values():
                finish = self.finisher(actor, log)
                try:
                    if self.closes:
                        await log.finish(plan, finish)
                        continue
                except StoreRefused:
                    pass
                await log.redirect(plan, Redirect(plan.segment, {OLD: to}), finish)

        return self.scheduler.start(f"redirector {self.name()}", run)

    def close(self) -> None:
        self.closed, self.path = self.closes, NEW

    def step(self, actor: Actor) -> None:
        """A worker that is refused ends."""
        try:
            self.scheduler.step(actor)
        except StoreRefused:
            assert actor.done

    def finish_all(self) -> None:
        self.scheduler.faults = self.scheduler.late = 0.0
        for split in self.splits:
            for actor in (self.redirector(NEW), self.worker([split], Random(1), until_end=True)):
                if not self.scheduler.run_alone(actor, 5_000):
                    raise Violation(f"no progress on {split}")


def run_schedule(seed: int, make_log: type[SegmentLog] = SegmentLog, *, looks: bool = True, closes: bool = True) -> int:
    """Answers how many segments were redirected."""
    with Moving.drawn(seed, make_log) as world:
        assert isinstance(world, Moving)
        world.looks, world.closes = looks, closes
        dice = world.scheduler.random
        closing, end = dice.randint(5, 120), dice.randint(150, 400)
        actors: list[Actor] = []
        sleepers: list[Actor] = []
        for step in range(end):
            if step == closing:
                world.close()
            actors = [actor for actor in actors if not actor.done]
            if len(actors) < 4:
                actors.append(_fresh(world, dice))
            chosen = dice.choice(actors)
            if (chance := dice.random()) < 0.04:
                actors.remove(chosen)
                sleepers += [chosen] if chance < 0.02 else []
            else:
                world.step(chosen)
        world.close()
        while sleepers := [actor for actor in sleepers if not actor.done and not actor.name.startswith("folder")]:
            world.step(dice.choice(sleepers))
        world.finish_all()
        world.check()
        return sum(key.startswith("redirects/") for key, _ in world.objects.created)


def _fresh(world: Moving, dice: Random) -> Actor:
    if dice.random() < 0.1:
        return world.folder()
    if world.path == NEW and dice.random() < 0.5:
        return world.redirector(dice.choice([NEW, NEWER]))
    return world.worker(dice.sample(world.splits, dice.randint(1, len(world.splits))), Random(dice.random()))


def test_every_row_of_redirected_segments_is_once_where_it_can_be_read() -> None:
    redirected = 0
    for seed in range(300):
        try:
            redirected += run_schedule(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert redirected > 100


def test_a_decision_goes_with_its_segment() -> None:
    """Once a segment is folded, nothing of it is left, the decision to redirect it neither."""
    left = 0
    for seed in range(60):
        with Moving.drawn(seed, SegmentLog) as world:
            assert isinstance(world, Moving)
            world.scheduler.faults = world.scheduler.late = 0.0
            worker = world.worker(world.splits, Random(seed))
            while not worker.done and not any(key.startswith(OLD) for key in world.objects):
                world.step(worker)
            world.scheduler.crash(worker)
            world.close()
            world.finish_all()
            left += sum(key.startswith("redirects/") for key in world.objects)
            world.fold_once(world.folder())
            assert [key for key in world.objects if key.startswith("redirects/")] == []
    assert left > 10


class NotKept(SegmentLog):
    """Where to is not written down: each of those who redirect a segment follows their own idea."""

    _own: Redirect | None = None

    async def redirect(self, plan: Plan, redirect: Redirect, finish: Any) -> Any:
        self._own = redirect
        return await self._finish(plan, finish)

    async def redirected(self, segment: str) -> Redirect | None:
        return self._own


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"make_log": NotKept}, id="the decision is not kept"),
        pytest.param({"looks": False}, id="what is there already counts, and nobody looks"),
        pytest.param({"closes": False}, id="the old destination can still be written"),
    ],
)
def test_what_a_redirect_rests_on(broken: dict[str, Any]) -> None:
    with pytest.raises(Violation, match="doubled"):
        list(map(partial(run_schedule, **broken), range(1_000)))
