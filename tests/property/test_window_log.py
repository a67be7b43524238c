"""The log of windowed pipelines and who closes windows, under seeded schedules; and that dropped rules are noticed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice, product

import pytest

from streamsvc.core.segments import (
    Checkpoint,
    Closing,
    Folded,
    Outcome,
    Plan,
    Range,
)
from streamsvc.core.windows.control import Entry, View, control_key
from streamsvc.errors import LogCorrupt, WindowsChanged
from streamsvc.log.segment_log import Finish
from streamsvc.log.window_log import WindowLog
from streamsvc.records import Partials, Split, Window
from tests.property.log_world import Violation
from tests.property.window_world import Rules, run_duel, run_schedule, still_world


class JoinAtTheEnd(WindowLog):
    """A split begins at the end of the last window closed, not at its end and the lateness."""

    async def close(self, view: View, windows: Sequence[Window], passed: int) -> View | None:
        return await super().close(view, windows, windows[-1].end_us)


class MergeWhole(WindowLog):
    """A closing takes what lies below its cursors with all of its splits."""

    async def gather(self, view: View, closing: Closing) -> Partials | None:
        met = {
            name: outcome
            for name, outcome in view.met.items()
            if all(
                split in closing.cursors and closing.cursors[split] >= after for split, after in outcome.next.items()
            )
        }
        return await super().gather(replace(view, met=met), closing)


class ForgetClosed(WindowLog):
    """A checkpoint keeps the partials of open windows alone, not of closed ones without results."""

    async def _partials(
        self, base: Checkpoint, met: Mapping[str, Outcome], windows: Collection[int]
    ) -> Partials | None:
        found = await super()._partials(base, met, windows)
        closing = isinstance(windows, set)
        return found if closing or found is None else found.without(self.closed)

    async def owed(self, view: View) -> View:
        known = await super().owed(view)
        self.closed = {window.start_us for closing in known.control.owed for window in closing.windows}
        return known


class NoLook(WindowLog):
    """An entry counts once it is made: no look whether a checkpoint has gone past it."""

    async def decide(self, view: View, entry: Entry) -> bool:
        key = control_key(view.control.number)
        return Entry.from_json(await self._store.create(key, entry.to_json()), key=key) == entry

    async def view(self, last: View | None = None) -> View:
        while True:
            base = await self.newest() if last is None else last.base
            read = await self._read_on(last or View(base, base.control, {}, {}))
            if read is not None:
                return read
            last = None


class RecomputeLift(WindowLog):
    """Who finishes a segment lifts its idle splits to where they would go now."""

    async def _finish(self, plan: Plan, finish: Finish) -> Outcome:
        view = await self.view()
        ranges: dict[Split, Range] = {}
        for split, wanted in plan.ranges.items():
            to = view.lift_of(split) if wanted.is_lift else None
            ranges[split] = wanted if to is None else replace(wanted, reached=to)
        return await super()._finish(replace(plan, ranges=ranges), finish)


class Insist(WindowLog):
    """What was decided is appended wherever there is a number."""

    async def decide(self, view: View, entry: Entry) -> bool:
        while not await super().decide(view, entry):
            newer = await self._read_on(view)
            if newer is None or newer.control.number == view.control.number:
                return False
            view = newer
        return True


class InsistOnClosing(Insist):
    """Likewise, but for joins."""

    async def decide(self, view: View, entry: Entry) -> bool:
        return await (super().decide(view, entry) if entry.kind == "close" else WindowLog.decide(self, view, entry))


class ForgetStraddling(WindowLog):
    """A checkpoint does not say which of the segments that it holds will be met again."""

    async def _fold_windows(
        self, newest: Checkpoint, following: Checkpoint, met: dict[str, Outcome]
    ) -> Checkpoint | None:
        whole = await super()._fold_windows(newest, following, met)
        return whole and replace(whole, folded=replace(whole.folded, straddle=[]))


class ForgetFolded(WindowLog):
    """A checkpoint holds the partials that have come since the one before it."""

    async def _fold_windows(
        self, newest: Checkpoint, following: Checkpoint, met: dict[str, Outcome]
    ) -> Checkpoint | None:
        return await super()._fold_windows(replace(newest, folded=Folded()), following, met)


class NotCovered(WindowLog):
    """Results are made of what was read, though the closing saw more."""

    async def gather(self, view: View, closing: Closing) -> Partials | None:
        return await self._partials(view.base, view.met, {window.start_us for window in closing.windows})

    async def view(self, last: View | None = None) -> View:
        """Every other time, of control alone."""
        self.times = getattr(self, "times", 0) + 1
        if last is None or self.times % 2:
            return await super().view(last)
        return replace(last, control=await self._read_control(last.control))


class JoinLate(WindowLog):
    """A split joins once something of it has landed."""

    async def join(
        self, splits: Collection[Split], live: Iterable[Split], parents: Mapping[Split, Collection[Split]]
    ) -> View:
        view = await self.view()
        unseen = {split: view.control.passed for split in splits if split not in view.control.joined}
        standings = await self.standings(unseen)
        if all(standing.watermark for standing in standings.values()):
            return await super().join(splits, live, parents)
        return replace(view, control=replace(view.control, joined={**unseen, **view.control.joined}))


class JoinFromTheStart(WindowLog):
    """A split that joins begins before every time, whatever is closed."""

    async def join(
        self, splits: Collection[Split], live: Iterable[Split], parents: Mapping[Split, Collection[Split]]
    ) -> View:
        view = await self.view()
        while missing := [split for split in splits if split not in view.control.joined]:
            await self.decide(view, Entry("join", self.worker, joins=dict.fromkeys(missing, -(2**62))))
            view = await self.view(view)
        return view


class EndAtOnce(WindowLog):
    """A split that is gone counts no more, and who still reads it does not notice."""

    async def _lift_beyond(self, splits: Collection[Split], reason: str, finish: Finish) -> None:
        return


RULES = {
    "a split that is ended is lifted first": Rules(EndAtOnce),
    "a split joins at the end plus the lateness of what is closed": Rules(JoinAtTheEnd),
    "a split joins at what is closed": Rules(JoinFromTheStart),
    "a split joins before its first claim": Rules(JoinLate),
    "partials are kept until there are results": Rules(ForgetClosed),
    "an entry below a checkpoint is void": Rules(NoLook),
    "who loses the number decides again": Rules(Insist),
    "who loses the number closes again": Rules(InsistOnClosing),
    "a checkpoint names what straddles it": Rules(ForgetStraddling),
    "a checkpoint keeps what the one before it held": Rules(ForgetFolded),
    "who writes results has read what was closed": Rules(NotCovered),
    "passed is at the end plus the lateness": Rules(late_is_beyond=True),
    "all workers have one lateness": Rules(second_lateness=True),
}


@contextmanager
def _named(seed: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"seed {seed}")
        raise


def test_every_row_is_in_its_window_or_late() -> None:
    for seed in range(120):
        with _named(seed):
            run_schedule(seed)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_every_row_is_in_its_window_or_late_in_many_more_schedules() -> None:
    for seed in range(120, 20_000):
        with _named(seed):
            run_schedule(seed)


def test_two_workers_take_turns_while_a_split_appears() -> None:
    for run in islice(_duels(Rules()), 0, None, 3):
        run()


@pytest.mark.parametrize("rule", RULES)
def test_a_dropped_rule_is_noticed(rule: str) -> None:
    assert any(_is_violated(runs) for runs in _runs(RULES[rule]))


def _runs(rules: Rules) -> Iterator[Callable[[], object]]:
    """Duels and schedules by turns: which of them notices is not the same for all rules."""
    duels = _duels(rules)
    for seed in range(1_000):
        yield partial(run_schedule, seed, rules)
        yield from islice(duels, 3)


def _duels(rules: Rules) -> Iterator[Callable[[], object]]:
    for steps in product(range(5, 100, 2), [50, 100, 400]):
        for joins_first, folds in product([False, True], repeat=2):
            yield partial(run_duel, rules, steps, joins_first=joins_first, folds=folds)


def _is_violated(run: Callable[[], object]) -> bool:
    try:
        run()
    except (Violation, LogCorrupt, WindowsChanged):
        return True
    return False


# Two that are rare


def _close_in_the_middle_of_a_segment(rules: Rules, steps: int, seed: int) -> None:
    """A closing sees a segment at one of its splits, and not yet at the other."""
    with still_world(rules, {"a": [1, 2, 5, 40], "b": [30, 31]}, seed) as world:
        assert world.scheduler.run_alone(world.lander({"a": 1, "b": 1}, {"a": 2}), 200)
        closing = world.bystander()
        world.scheduler.run_alone(closing, steps)
        assert world.scheduler.run_alone(world.lander({"a": 4, "b": 2}), 300)
        world.scheduler.run_alone(closing, 300)
        world.finish_all()
        world.check()


def test_a_closing_takes_in_whole_segments() -> None:
    for steps, seed in product(range(8, 30), range(3)):
        _close_in_the_middle_of_a_segment(Rules(), steps, seed)


def test_a_segment_that_is_cut_in_two_is_noticed() -> None:
    cuts = product(range(8, 30), range(5))
    broken = Rules(MergeWhole)
    assert any(_is_violated(partial(_close_in_the_middle_of_a_segment, broken, steps, seed)) for steps, seed in cuts)


def _finish_a_lift(rules: Rules) -> None:
    """A worker sleeps while another finishes its segment, and goes on by its plan."""
    with still_world(rules, {"a": [20, 50], "b": [25]}) as world:
        assert world.scheduler.run_alone(world.lander({"a": 1}), 200)
        sleeper = world.lander({"b": 0}, {"b": 1}, lift=20)
        while sum(key.startswith("log/") for key in world.objects) < 2:
            world.scheduler.step(sleeper)
        assert world.scheduler.run_alone(world.lander({"a": 2}), 300)
        assert world.scheduler.run_alone(world.bystander("b"), 300)
        assert world.scheduler.run_alone(sleeper, 300)
        world.finish_all()
        world.check()


def test_a_lift_is_what_its_plan_says() -> None:
    _finish_a_lift(Rules())
    with pytest.raises(Violation, match="missing"):
        _finish_a_lift(Rules(RecomputeLift))
