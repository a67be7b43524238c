"""Folding the log into checkpoints, and deleting what a checkpoint has made needless."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streamsvc.core.log_keys import (
    CHECKPOINTS,
    CLAIMS,
    CONTROL,
    LOSSES,
    OPEN_WINDOWS,
    OUTCOMES,
    PARTIALS,
    PLANS,
    checkpoint_key,
    checkpoint_number,
    loss_key,
    outcome_key,
    parse_claim_key,
    partials_key,
    plan_key,
    segment_of,
)
from streamsvc.core.redirects import REDIRECTS, redirect_key
from streamsvc.core.segments import Checkpoint, Outcome, fold, is_below, is_folded
from streamsvc.core.windows.control import control_number
from streamsvc.log.patience import concurrently
from streamsvc.log.reader import LogReader
from streamsvc.records import Split

KEPT_CHECKPOINTS = 3
"""A listing that runs while a checkpoint is made and the one before it deleted may name neither."""


@dataclass(frozen=True, slots=True)
class GcReport:
    """How many objects of each kind were deleted."""

    claims: int = 0
    segments: int = 0
    checkpoints: int = 0


class LogFolder(LogReader):
    """May run anywhere, at any time, as many at once as there are; a worker does it now and then, so does ``gc``."""

    async def checkpoint(self) -> Checkpoint:
        """Fold what has an outcome, of every split that has a claim, a checkpoint or a start.

        Answers the checkpoint that stands, which may be somebody else's, or the old one if nothing has happened.
        """
        newest = await self.newest()
        met: dict[str, Outcome] = {}
        walk = await self._walk(await self._known_splits(newest), newest, met)
        following = fold(newest, {split: standing for split, standing in walk.items() if standing is not None})
        if following.cursors == newest.cursors:
            return newest
        whole = await self._fold_windows(newest, following, met)
        if whole is None:
            return newest
        following = whole
        key = checkpoint_key(following.number)
        return Checkpoint.from_json(await self._store.create(key, following.to_json()), key=key)

    async def _fold_windows(
        self, newest: Checkpoint, following: Checkpoint, met: dict[str, Outcome]
    ) -> Checkpoint | None:
        """``following`` with what the segments met on the way hold of windows; ``None``: not now.

        Partials can be folded by whoever knows how they merge. This log does not.
        """
        windowed = newest.control.number or any(outcome.watermarks for outcome in met.values())
        return None if windowed else following

    async def gc(self) -> GcReport:
        """Delete what lies below the newest checkpoint: its claims, and each segment all of whose claims do.

        Never the newest checkpoint, a stored configuration, or anything under a sink's path. The bound is what is
        newest in the store, never a checkpoint just made: its number may be one that was deleted long ago.
        """
        newest = await self.newest()
        if newest.number == 0:
            return GcReport()
        claims = [key for key in await self._store.keys(CLAIMS) if _is_claim_below(key, newest)]
        await self._store.delete(claims)
        segments = await self._folded_segments(newest)
        await self._store.delete([outcome_key(segment) for segment in segments])
        await self._store.delete([loss_key(segment) for segment in segments])
        await self._store.delete([redirect_key(segment) for segment in segments])
        await self._store.delete([partials_key(segment) for segment in segments])
        await self._store.delete([plan_key(segment) for segment in segments])
        checkpoints = await self._delete_checkpoints_before(newest.number)
        await self._delete_control(newest)
        return GcReport(len(claims), len(segments), checkpoints)

    async def known_splits(self) -> list[Split]:
        """All splits of which the log says anything, reject objects among them. Lists every claim."""
        return sorted(await self._known_splits(await self.newest()))

    async def _known_splits(self, checkpoint: Checkpoint) -> Iterable[Split]:
        start = await self._started()
        if start is None:
            return ()
        claims = (parse_claim_key(key) for key in await self._store.keys(CLAIMS))
        claimed = (claim[0] for claim in claims if claim is not None)
        return dict.fromkeys([*checkpoint.cursors, *start.positions, *claimed])

    async def _folded_segments(self, newest: Checkpoint) -> list[str]:
        """Segments whose plans are below the checkpoint, and those without a plan.

        A plan is older than its outcome and is deleted after it; so an outcome whose plan has gone was made by a
        zombie after the segment was folded.
        """
        kinds = (OUTCOMES, LOSSES, REDIRECTS, PARTIALS, PLANS)
        segments = sorted({segment_of(key) for kind in kinds for key in await self._store.keys(kind)})
        plans = zip(segments, await concurrently(self._plan, segments), strict=True)
        return [segment for segment, plan in plans if plan is None or is_folded(plan, newest)]

    async def _delete_checkpoints_before(self, number: int) -> int:
        """One after another, lowest first: whoever finds one of them may conclude that no newer one was deleted."""
        numbers = [checkpoint_number(key) for key in await self._store.keys(CHECKPOINTS)]
        older = sorted(found for found in numbers if found is not None and found < number)
        needless = older[: max(0, len(older) - (KEPT_CHECKPOINTS - 1))]
        for found in needless:
            await self._store.delete([checkpoint_key(found)])
        return len(needless)

    async def _delete_control(self, newest: Checkpoint) -> None:
        """Entries that are folded, and the open windows of checkpoints that are gone.

        Who creates an entry again that was deleted finds that the newest checkpoint has gone past it.
        """
        entries = [(control_number(key), key) for key in await self._store.keys(CONTROL)]
        await self._store.delete([key for at, key in entries if at is not None and at < newest.control.number])
        oldest = open_windows_key(newest.number - KEPT_CHECKPOINTS + 1, "")
        await self._store.delete([key for key in await self._store.keys(OPEN_WINDOWS) if key < oldest])


def open_windows_key(number: int, digest: str) -> str:
    """What a checkpoint holds of open windows. Named from its content: folders that race do not make the same."""
    return f"{OPEN_WINDOWS}{max(number, 0):012d}-{digest}.arrow"


def _is_claim_below(key: str, checkpoint: Checkpoint) -> bool:
    claim = parse_claim_key(key)
    return claim is not None and is_below(*claim, checkpoint)
