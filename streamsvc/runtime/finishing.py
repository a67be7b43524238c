"""Finishing a segment that another worker planned and did not decide: its ranges, read and written again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from streamsvc.contracts import Source
from streamsvc.core.redirects import Redirect
from streamsvc.core.segments import Losses, Plan
from streamsvc.errors import ConfigError, ForeignVersion, LogCorrupt, PositionLost, StoreRefused
from streamsvc.log.segment_log import SegmentLog
from streamsvc.records import ObjectInfo, Position, Ranges, Split
from streamsvc.runtime.observer import Observer
from streamsvc.runtime.segment import OpenSegment, Recipe, publish
from streamsvc.runtime.windowing import check_windows, open_segment

Build: TypeAlias = Callable[[dict[str, Any]], Recipe]
"""A stored configuration to its recipe, without a limit on partitions: what was planned was cut to it."""


_FORMER_VERSION = "Run the version of streamsvc that planned it until it is committed, then this one."

RedirectRecipe: TypeAlias = Callable[[Recipe, Redirect], Recipe]
"""The same recipe, which publishes to other places."""


async def recipe_of(plan: Plan, log: SegmentLog, build: Build) -> Recipe:
    """The recipe that the plan was made under. Raises ``ForeignVersion``."""
    document = await log.config(plan.config)
    try:
        recipe = build(document)
    except ConfigError as refused:
        raise ForeignVersion(
            "a pending segment was planned under a configuration that this version refuses",
            hint=_FORMER_VERSION,
            segment=plan.segment,
            problems=refused.problems,
        ) from refused
    if recipe.version != plan.decode_version:
        raise ForeignVersion(
            "a pending segment was decoded by another version",
            hint=_FORMER_VERSION,
            segment=plan.segment,
            planned_version=plan.decode_version,
            our_version=recipe.version,
        )
    return recipe


class Finisher:
    """``hold`` is told how many bytes the segments take that are being finished."""

    hold: Callable[[int], None] = staticmethod(lambda _: None)

    def __init__(
        self,
        source: Source,
        log: SegmentLog,
        build: Build,
        observer: Observer,
        redirect: RedirectRecipe = lambda recipe, _: recipe,
    ) -> None:
        self._redirect = redirect
        self._source = source
        self._log = log
        self._build = build
        self._observer = observer
        self._held: dict[str, int] = {}

    async def __call__(self, plan: Plan) -> list[ObjectInfo]:
        """Read every range of the plan again, decode it as the plan's configuration says, and publish.

        Raises ``ForeignVersion`` and ``PositionLost``. Cancelling leaves the segment to the next who recovers.
        """
        try:
            return await self._finish(plan)
        finally:
            self._holds(plan.segment, 0)

    def _holds(self, segment: str, nbytes: int) -> None:
        self._held[segment] = nbytes
        self.hold(sum(self._held.values()))
        if not nbytes:
            del self._held[segment]

    async def _finish(self, plan: Plan) -> list[ObjectInfo]:
        recipe = await self.recipe(plan)
        redirect = await self._log.redirected(plan.segment)
        if redirect is not None:
            recipe = self._redirect(recipe, redirect)
        self._observer.finishing(plan)
        watermarks = {split: range_.watermark for split, range_ in plan.ranges.items()}
        segment = open_segment(recipe, {split: us for split, us in watermarks.items() if us is not None})
        ranges = {
            split: (range_.cursor.position, range_.to)
            for split, range_ in plan.ranges.items()
            if range_.to > range_.cursor.position
        }
        async for batch in self._source.read_range(ranges):
            if await asyncio.to_thread(segment.add, batch) is not None:
                raise LogCorrupt("a planned segment does not fit its configuration", segment=plan.segment)
            self._holds(plan.segment, segment.memory_bytes)
        self._check(plan, segment, ranges)
        check_windows(plan, segment)
        encoded = await asyncio.to_thread(segment.close, plan.segment)
        if encoded.partials is not None and plan.windows:
            await self._log.save_partials(plan.segment, encoded.partials)
        try:
            return await publish(recipe, encoded)
        except StoreRefused as refusal:
            raise _refused_there(plan, refusal) from refusal

    async def recipe(self, plan: Plan) -> Recipe:
        """What the plan was made under. Raises ``ForeignVersion``."""
        return await recipe_of(plan, self._log, self._build)

    async def losses(self, plan: Plan) -> Losses:
        """What the source has lost of the plan's ranges. Reads their beginnings, writes nothing."""
        lost: Losses = {}
        for split, planned in plan.ranges.items():
            first, to = planned.cursor.position, planned.to
            seen = await self._first_available(split, first, to)
            if seen is None or seen > (planned.first_record or first):
                lost[split] = (first, to if plan.is_windowed else min(seen or to, to))
        return {split: (first, to) for split, (first, to) in lost.items() if first < to}

    async def _first_available(self, split: Split, first: Position, to: Position) -> Position | None:
        """The first record that is still there; ``to``: none was lost; ``None``: all are gone."""
        try:
            async for batch in self._source.read_range({split: (first, to)}):
                if len(batch):
                    return batch.position(0)
        except PositionLost as gone:
            earliest = gone.where.get("earliest")
            return str(earliest) if earliest is not None else None
        return to

    @staticmethod
    def _check(plan: Plan, segment: OpenSegment, ranges: Ranges) -> None:
        """The first record that the planner saw must have been seen again: what is gone is never skipped."""
        for split, planned in plan.ranges.items():
            seen: Split | None = segment.first_records.get(split)
            if planned.first_record is not None and seen != planned.first_record:
                raise PositionLost(
                    "a range that must be read again is gone from the source",
                    hint="See which records are lost, then move on with: streamsvc seek",
                    split=split,
                    first=ranges[split][0],
                    to=ranges[split][1],
                    first_record=planned.first_record,
                    first_seen=seen,
                    segment=plan.segment,
                )


def _refused_there(plan: Plan, refusal: StoreRefused) -> StoreRefused:
    return StoreRefused(
        f"a pending segment cannot be written to where it was to go when it was planned: {refusal.what}",
        hint="Let it be written there once more; or, if that is over for good, correct the path in the configuration"
        " and write it there: streamsvc redirect FILE -p PIPELINE",
        **{**refusal.where, "segment": plan.segment},
    )
