"""Where the rows of a pipeline go: into objects, as they are, or into windows. What a pipeline asks of either."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from streamsvc.contracts import Source
from streamsvc.core.log_keys import Cursor
from streamsvc.core.segments import Range
from streamsvc.core.windows.control import View
from streamsvc.errors import Retryable
from streamsvc.log.segment_log import SegmentLog
from streamsvc.log.window_log import WindowLog
from streamsvc.ops.health import WindowsStatus
from streamsvc.records import Split
from streamsvc.runtime.closing import Closer, Progress
from streamsvc.runtime.finishing import Finisher
from streamsvc.runtime.live_windows import LiveWindows
from streamsvc.runtime.observer import Observer
from streamsvc.runtime.segment import OpenSegment, Recipe
from streamsvc.runtime.splits import Splits
from streamsvc.runtime.windowing import Place, WindowedSegment, lift, take_over, with_watermarks

WAITS_TOLD_EVERY_S = 10.0
"""What keeps ``--close-windows`` from its end."""


@dataclass(frozen=True, slots=True)
class Closings:
    """When windows are closed.

    at_end:       close what is open once all splits are at their ends
    idle_after_s: do so as well when nothing has come for so long; ``None``: never
    poll_s:       how often a worker looks whether another's commit has made windows due; a fifth of the time from
                  one commit to the next is enough
    """

    at_end: bool = False
    idle_after_s: float | None = None
    poll_s: float = 1.0


class Destination(Protocol):
    """How segments are opened and planned, and what else there is to do."""

    @property
    def open_windows(self) -> WindowsStatus | None:
        """What is known of them, for people."""
        ...

    def progress(self) -> Progress | None:
        """The same in numbers, for charts; ``None``: there are no windows, or nothing is known yet."""
        ...

    async def begin(self, gone: Collection[Split]) -> None:
        """Once, before anything is read. ``gone``: splits that the source has no longer, and that were read to their
        ends."""
        ...

    async def run(self) -> None:
        """Beside reading and landing; ends when it likes, or is cancelled."""
        ...

    async def places(self, splits: list[Split]) -> Mapping[Split, Place]:
        """Where these splits go on, once nothing before is undecided."""
        ...

    def start(self, places: Mapping[Split, Place]) -> None:
        """These are read from there on."""
        ...

    def open(self) -> OpenSegment: ...

    def plan(self, segment: OpenSegment, splits: Splits) -> dict[Split, Range]:
        """What the segment wants, which may be more than it holds. The next one opened goes on behind it."""
        ...

    def is_due(self, splits: Splits, interval_s: float) -> bool:
        """A segment is to be cut, though nothing was taken in."""
        ...

    def committed(self) -> None:
        """A segment has landed."""
        ...

    async def is_complete(self) -> bool:
        """Nothing more is to come of what is committed, which is all there is."""
        ...


class ToObjects:
    """A ``Destination``."""

    open_windows: WindowsStatus | None = None

    def __init__(self, recipe: Recipe, log: SegmentLog, finisher: Finisher) -> None:
        self._recipe = recipe
        self._log = log
        self._finish = finisher

    def progress(self) -> Progress | None:
        return None

    async def begin(self, gone: Collection[Split]) -> None:
        return

    async def run(self) -> None:
        return

    async def places(self, splits: list[Split]) -> Mapping[Split, Place]:
        cursors: Mapping[Split, Cursor] = await self._log.recover_all(splits, self._finish)
        return {split: Place(cursor) for split, cursor in cursors.items()}

    def start(self, places: Mapping[Split, Place]) -> None:
        return

    def open(self) -> OpenSegment:
        return OpenSegment(self._recipe)

    def plan(self, segment: OpenSegment, splits: Splits) -> dict[Split, Range]:
        return splits.plan(segment.ranges, segment.first_records)

    def is_due(self, splits: Splits, interval_s: float) -> bool:
        return False

    def committed(self) -> None:
        return

    async def is_complete(self) -> bool:
        return True


class ToWindows:
    """A ``Destination``. Its segments also lift idle splits, once an interval.

    policy: when windows are closed that no watermark closes, and how often a worker looks
    """

    def __init__(
        self,
        recipe: Recipe,
        log: WindowLog,
        source: Source,
        finisher: Finisher,
        observer: Observer,
        policy: Closings,
    ) -> None:
        window = recipe.window
        assert window is not None
        assert window.results is not None, "a pipeline that runs knows where results go"
        self._recipe = recipe
        self._window = window
        self._log = log
        self._source = source
        self._finish = finisher
        self._closer = Closer(
            log,
            window.windows,
            window.lateness_us,
            window.results,
            landing_s=log.landing_s,
            on_result=observer.window_finished,
        )
        self._live = LiveWindows(log, window.windows, window.results)
        self._observer = observer
        self._watermarks: dict[Split, int] = {}
        self._planned_at = monotonic()
        self._policy = policy
        self._ending = False
        self._told_at = 0.0

    @property
    def open_windows(self) -> WindowsStatus | None:
        return self._live.status

    def progress(self) -> Progress | None:
        return self._closer.progress()

    async def begin(self, gone: Collection[Split]) -> None:
        view = await self._log.begin_windows(self._window.digest)
        parents = self._source.parents()
        if over := view.without_children(gone, parents):
            await self._log.end(over, "the source has it no longer", self._finish)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._closer.run(self._policy.poll_s, self._retrying))
                group.create_task(self._look_on())
                if self._policy.idle_after_s is not None:
                    group.create_task(self._close_when_silent(self._policy.idle_after_s))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def places(self, splits: list[Split]) -> Mapping[Split, Place]:
        return await take_over(self._log, self._source, splits, self._finish)

    def start(self, places: Mapping[Split, Place]) -> None:
        self._watermarks.update({split: place.watermark for split, place in places.items()})

    def open(self) -> OpenSegment:
        return WindowedSegment(self._recipe, self._window, self._watermarks)

    def plan(self, segment: OpenSegment, splits: Splits) -> dict[Split, Range]:
        assert isinstance(segment, WindowedSegment)
        self._planned_at = monotonic()
        ranges = with_watermarks(splits.plan(segment.ranges, segment.first_records), segment, self._watermarks)
        for split, to in self._lifts(splits).items():
            if split not in ranges:
                ranges[split] = lift(splits.cursors[split], self._watermarks[split], to)
        self._watermarks.update(
            {split: wanted.reached for split, wanted in ranges.items() if wanted.reached is not None}
        )
        return ranges

    def is_due(self, splits: Splits, interval_s: float) -> bool:
        waited_s = monotonic() - self._planned_at
        return (self._ending or waited_s >= interval_s) and bool(self._lifts(splits))

    def committed(self) -> None:
        self._closer.nudge()

    async def is_complete(self) -> bool:
        if self._policy.at_end and not self._ending:
            self._ending, self._told_at = True, monotonic()
        if self._ending:
            await self._closer.lift_all()
        view = await self._closer.look()
        if self._ending and view.open_windows:
            self._tell_what_holds(view)
        elif self._closer.is_done(view):
            return True
        self._closer.nudge()
        return False

    def _tell_what_holds(self, view: View) -> None:
        """Who owns a split lifts it. One that nobody has comes to somebody, or it is gone and has to be ended."""
        if monotonic() - self._told_at >= WAITS_TOLD_EVERY_S:
            self._told_at = monotonic()
            self._observer.windows_wait(view.held_by, len(view.open_windows))

    def _lifts(self, splits: Splits) -> dict[Split, int]:
        """Where to lift the splits that nothing comes of: not those with children, which end where they are."""
        view = self._closer.view
        if view is None:
            return {}
        waiting = {split: at for split, at in splits.reached.items() if at == splits.cursors[split].position}
        idle = self._source.at_end(waiting).difference(*self._source.parents().values())
        lifts = {split: view.lift_of(split) for split in idle}
        return {split: to for split, to in lifts.items() if to is not None and to >= self._watermarks[split]}

    async def _look_on(self) -> None:
        """For ever: keep what is known of windows up to date, for people and for lifts. The closer looks, unless it
        waits for where results go."""
        while True:
            await asyncio.sleep(self._policy.poll_s)
            try:
                view = await self._closer.look() if self._closer.is_writing else self._closer.view
                if view is not None:
                    await self._live.refresh(view)
            except Retryable as error:
                self._retrying(error)

    async def _close_when_silent(self, silence_s: float) -> None:
        """Nothing with rows was committed for so long, by anybody: then nothing will close the last windows."""
        seen, since = None, monotonic()
        while True:
            await asyncio.sleep(self._policy.poll_s)
            view = self._closer.view
            places = view and {split: (at.cursor.epoch, at.cursor.position) for split, at in view.standings.items()}
            if places != seen:
                seen, since = places, monotonic()
            elif monotonic() - since >= silence_s:
                try:
                    await self._closer.lift_all()
                except Retryable as error:
                    self._retrying(error)

    def _retrying(self, error: Retryable) -> None:
        self._observer.retrying("windows", error)


def destination_of(
    recipe: Recipe, log: SegmentLog, source: Source, finisher: Finisher, observer: Observer, closings: Closings
) -> Destination:
    """``log`` of a windowed pipeline is a ``WindowLog``, and its recipe knows where results go."""
    if recipe.window is None:
        return ToObjects(recipe, log, finisher)
    assert isinstance(log, WindowLog)
    return ToWindows(recipe, log, source, finisher, observer, closings)
