"""The log of a windowed pipeline: the control sequence, partials of open windows, and which results are complete."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from streamsvc.contracts import ObjectStore
from streamsvc.core.log_keys import partials_key
from streamsvc.core.segments import FOREVER, NEVER, Checkpoint, Closing, Control, Folded, Outcome, Range, Standing
from streamsvc.core.windows.control import (
    Entry,
    Result,
    View,
    control_key,
    follow,
    join,
    result_key,
    without_results,
)
from streamsvc.errors import LogCorrupt, WindowsChanged
from streamsvc.log.folder import open_windows_key
from streamsvc.log.patience import Sleep, concurrently
from streamsvc.log.reader import digest_of
from streamsvc.log.segment_log import Finish, SegmentLog, new_segment_name, write_nothing
from streamsvc.records import Partials, Position, Split, Window

READ_AT_ONCE = 20
"""Objects of partials, which are in memory together until they are merged. Each may be as large as a segment."""

Merge: TypeAlias = Callable[[Sequence[Partials]], Awaitable[Partials]]


class WindowLog(SegmentLog):
    """As ``SegmentLog``, with windows. ``begin_windows`` comes after ``begin``.

    What is read is kept in a ``View``, which the caller hands in again to read on from there. Nobody needs to have
    the newest: what is decided on an old one is refused where it would matter.

    merge: partials of one aggregation to one; all of them may be empty
    """

    def __init__(
        self,
        store: ObjectStore,
        worker: str,
        first_position: Position,
        *,
        landing_s: float,
        merge: Merge,
        sleep: Sleep = asyncio.sleep,
        name_segment: Callable[[], str] = new_segment_name,
    ) -> None:
        super().__init__(store, worker, first_position, landing_s=landing_s, sleep=sleep, name_segment=name_segment)
        self._merge = merge

    async def begin_windows(self, config: str) -> View:
        """Fix what windows mean, by the digest of it. Raises ``WindowsChanged`` if they mean something else."""
        view = await self.view()
        while view.control.number == 0:
            start = await self._started()
            joins = dict.fromkeys(start.positions if start else {}, NEVER)
            await self.decide(view, Entry("begin", self._worker, config=config, joins=joins))
            view = await self.view(view)
        self.check(view, config)
        return view

    @staticmethod
    def check(view: View, config: str) -> None:
        """Raises ``WindowsChanged``: the pipeline has begun with windows of another digest."""
        if view.control.config != config:
            raise WindowsChanged(
                "the windows of this pipeline are not those that it began with",
                hint="Put them back as they were, or give the pipeline a new name: it then begins anew.",
                began_with=view.control.config,
                configured=config,
            )

    # Reading

    async def view(self, last: View | None = None) -> View:
        """All that is known of windows now; read on from ``last``, or else from the newest checkpoint."""
        while True:
            if last is None:
                base = await self.newest()
                last = View(base, base.control, {}, {})
            view = await self._read_on(last)
            # An entry or a claim that was read may be one that had been deleted and was made again by somebody who
            # had slept. Not so if none of them is below what is now the newest checkpoint.
            if view is not None and (await self.newest()).number == view.base.number:
                return view
            last = None

    async def _read_on(self, last: View) -> View | None:
        """``None``: something was missing that ``gc`` was deleting."""
        control = await self._read_control(last.control)
        still = [split for split in control.joined if split not in last.control.ended or split not in last.standings]
        walks = {split: replace(last.standings[split], pending=None) for split in still if split in last.standings}
        met: dict[str, Outcome] = {}
        fresh = [split for split in still if split not in walks]
        standings: dict[Split, Standing] = dict(last.standings)
        for walk in (await self._go_on(walks, met), await self._walk(fresh, last.base, met)):
            for split, standing in walk.items():
                if standing is None:
                    return None
                standings[split] = standing
        return View(last.base, control, standings, {**last.met, **_with_partials(met, last.base)})

    async def _read_control(self, control: Control) -> Control:
        while (body := await self._store.get(key := control_key(control.number))) is not None:
            control = follow(control, Entry.from_json(body, key=key))
        return control

    # Deciding

    async def decide(self, view: View, entry: Entry) -> bool:
        """Make this the next entry. ``False``: another was faster; read on and decide again.

        Also if a checkpoint has gone past it: then the number had been another's, and ours was made in its place.
        """
        key = control_key(view.control.number)
        standing = Entry.from_json(await self._store.create(key, entry.to_json()), key=key)
        return standing == entry and (await self.newest()).control.number <= view.control.number

    async def join(
        self, splits: Collection[Split], live: Iterable[Split], parents: Mapping[Split, Collection[Split]]
    ) -> View:
        """Let these splits count, before anything is claimed of them. Answers the view in which they do."""
        view = await self.view()
        while missing := [split for split in splits if split not in view.control.joined]:
            entry = join(view, missing[0], live, parents)
            assert entry is not None, "the split has not joined"
            await self.decide(view, replace(entry, worker=self._worker))
            view = await self.view(view)
        return view

    async def close(self, view: View, windows: Sequence[Window], passed: int) -> View | None:
        """Decide that these windows are complete: everything in this view belongs into their results.

        Answers the view in which they are closed, the last that is owed; ``None``: another was faster.
        """
        cursors = {split: standing.cursor for split, standing in view.standings.items()}
        entry = Entry("close", self._worker, windows=list(windows), cursors=cursors, passed=passed)
        return replace(view, control=follow(view.control, entry)) if await self.decide(view, entry) else None

    async def end(self, splits: Collection[Split], reason: str, finish: Finish) -> View:
        """Let these splits hold no window back any more. Should anything still come of them, it is late.

        First they are lifted beyond all times, so that who still reads one finds all windows passed: a row that is in
        time behind a closing would be in no result. Raises what ``finish`` raises, of a segment that is not finished.
        """
        await self._lift_beyond(splits, reason, finish)
        view = await self.view()
        while missing := sorted(set(splits) - set(view.control.ended)):
            await self.decide(view, Entry("end", self._worker, ended=missing))
            view = await self.view(view)
        return view

    async def _lift_beyond(self, splits: Collection[Split], reason: str, finish: Finish) -> None:
        while True:
            standings = await self.recover_standings(splits, finish)
            watermarks = {split: at.watermark.us if at.watermark else NEVER for split, at in standings.items()}
            ranges = {
                split: Range(at.cursor, at.cursor.position, watermark=watermarks[split], reached=FOREVER, is_lift=True)
                for split, at in standings.items()
                if watermarks[split] < FOREVER
            }
            if not ranges:
                return
            await self.land(self._by_hand(ranges, reason), write_nothing)

    # Results

    async def owed(self, view: View) -> View:
        """The view without those closed windows that have results."""
        windows = [window for closing in view.control.owed for window in closing.windows]
        bodies = await concurrently(self._store.get, [result_key(window) for window in windows])
        done = {window for window, body in zip(windows, bodies, strict=True) if body is not None}
        return replace(view, control=without_results(view.control, done)) if done else view

    async def gather(self, view: View, closing: Closing) -> Partials | None:
        """All that belongs into the results of these windows; ``None``: the view is too old to say.

        That is whatever was committed: what lies behind the closing's cursors has found these windows passed.
        """
        if not view.covers(closing):
            return None
        return await self._partials(view.base, view.met, {window.start_us for window in closing.windows})

    async def open_partials(self, view: View, since: View | None = None) -> Partials | None:
        """What is committed of windows that are open; only what is new since another view of the same checkpoint.
        ``None``: the view is too old to say."""
        if since is None:
            return await self._partials(view.base, view.met, view.open_windows)
        fresh = {name: outcome for name, outcome in view.met.items() if name not in since.met}
        return await self._partials(replace(view.base, folded=Folded()), fresh, view.open_windows)

    async def save_result(self, result: Result) -> None:
        """To be called once every object of the window is there."""
        await self._store.create(result_key(result.window), result.to_json())

    async def _partials(
        self, base: Checkpoint, met: Mapping[str, Outcome], windows: Collection[int]
    ) -> Partials | None:
        """``None``: an object is gone, since a newer checkpoint has it. Raises ``LogCorrupt`` if there is none."""
        keys = [partials_key(name) for name, outcome in met.items() if not set(outcome.windows).isdisjoint(windows)]
        if not set(base.folded.windows).isdisjoint(windows):
            keys.append(base.folded.key)
        merged: list[Partials] = []
        for first in range(0, len(keys), READ_AT_ONCE):
            parts = await self._read_partials(base, keys[first : first + READ_AT_ONCE], windows)
            if parts is None:
                return None
            merged = [await self._merge([*merged, *parts])]
        return merged[0] if merged else await self._merge([])

    async def _read_partials(
        self, base: Checkpoint, keys: Sequence[str], windows: Collection[int]
    ) -> list[Partials] | None:
        bodies = await concurrently(self._store.get, keys)
        if None in bodies:
            if (await self.newest()).number == base.number:
                raise LogCorrupt(
                    "partials of windows that have no result are missing",
                    hint="Restore the objects of the state: without them the results would lack rows.",
                    keys=[key for key, body in zip(keys, bodies, strict=True) if body is None],
                )
            return None
        return [_read(key, body).only(windows) for key, body in zip(keys, bodies, strict=True) if body is not None]

    # Folding

    async def _fold_windows(
        self, newest: Checkpoint, following: Checkpoint, met: dict[str, Outcome]
    ) -> Checkpoint | None:
        control = await self._read_control(newest.control)
        fresh = _with_partials(met, newest)
        view = await self.owed(View(newest, control, {}, fresh))
        wanted = sorted(view.wanted_windows)
        folded = Folded(straddle=_straddling(newest, following, met))
        if wanted:
            partials = await self._partials(newest, fresh, wanted)
            if partials is None:
                return None
            body = bytes(partials.to_ipc())
            key = open_windows_key(following.number, digest_of(body))
            await self._store.create(key, body)
            folded = replace(folded, windows=wanted, key=key)
        if (await self.newest()).number != newest.number:
            return None
        return replace(following, control=view.control, folded=folded)


def _with_partials(met: Mapping[str, Outcome], base: Checkpoint) -> dict[str, Outcome]:
    """Segments that have partials, without those whose partials are in the checkpoint already."""
    return {name: outcome for name, outcome in met.items() if outcome.windows and name not in base.folded.straddle}


def _straddling(newest: Checkpoint, following: Checkpoint, met: Mapping[str, Outcome]) -> list[str]:
    """Segments whose partials are folded and which a walk from the checkpoint meets again, at another split."""
    still = {name for name in newest.folded.straddle if name not in met}
    return sorted(still | {name for name, outcome in met.items() if outcome.windows and _is_above(outcome, following)})


def _is_above(outcome: Outcome, checkpoint: Checkpoint) -> bool:
    cursors = checkpoint.cursors
    return any(split not in cursors or cursors[split] < after for split, after in outcome.next.items())


def _read(key: str, body: bytes) -> Partials:
    try:
        return Partials.from_ipc(body)
    except ValueError as damaged:
        raise LogCorrupt(str(damaged), hint="Restore the object.", key=key) from damaged
