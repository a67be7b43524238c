"""The control sequence of a windowed pipeline: which splits count, and which windows are closed. Pure.

``control/<n>.json`` are numbered, and created once. So there is one order in which splits join and windows close,
and each decision is made knowing all that were made before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from streamsvc.core.log_keys import CONTROL, RESULTS, Cursor
from streamsvc.core.segments import FOREVER, NEVER, Checkpoint, Closing, Control, Outcome, Standing, Stored, Watermark
from streamsvc.core.windows.assignment import Windows, window_name
from streamsvc.records import ObjectInfo, Split, Window


@dataclass(frozen=True, slots=True)
class Entry(Stored):
    """One decision.

    begin: ``config``, and ``joins`` of all splits of the start
    join:  splits begin to count, with a watermark; ``ended``: their parents do not count any more
    close: these ``windows``; each split had been committed up to ``cursors``; ``passed`` is the watermark that did it
    lift:  idle splits may be lifted to ``lift`` without regard to others
    end:   ``ended`` count no more: nothing is to come of them, and what comes is late
    """

    kind: Literal["begin", "join", "close", "lift", "end"]
    worker: str
    config: str = ""
    joins: dict[Split, int] = field(default_factory=dict)
    ended: list[Split] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    cursors: dict[Split, Cursor] = field(default_factory=dict)
    passed: int = NEVER
    lift: int = NEVER


@dataclass(frozen=True, slots=True)
class Result(Stored):
    """The results of a window are all there. ``rows`` may be 0: nothing passed ``having``."""

    window: Window
    rows: int
    objects: list[ObjectInfo] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def control_key(number: int) -> str:
    return f"{CONTROL}{number:012d}.json"


def control_number(key: str) -> int | None:
    """``None``: it is no entry of ours."""
    digits = key.removeprefix(CONTROL).removesuffix(".json")
    return int(digits) if digits.isdecimal() and key == control_key(int(digits)) else None


def result_key(window: Window) -> str:
    return f"{RESULTS}{window_name(window.start_us)}.json"


def follow(control: Control, entry: Entry) -> Control:
    """The sequence with its next entry. A split joins once; what a later entry says of it counts for nothing."""
    owed = [*control.owed, Closing(entry.windows, entry.cursors)] if entry.windows else control.owed
    return Control(
        number=control.number + 1,
        config=entry.config if entry.kind == "begin" else control.config,
        joined={**entry.joins, **control.joined},
        ended=sorted({*control.ended, *entry.ended}),
        closed=max([control.closed, *(window.start_us for window in entry.windows)]),
        passed=max(control.passed, entry.passed),
        owed=owed,
        lift=max(control.lift, entry.lift),
    )


def without_results(control: Control, done: Collection[Window]) -> Control:
    """Nothing is owed of these windows any more."""
    owed = [
        replace(closing, windows=left)
        for closing in control.owed
        if (left := [window for window in closing.windows if window not in done])
    ]
    return replace(control, owed=owed)


@dataclass(frozen=True, slots=True)
class View:
    """What a worker has read of the log, at one time: the newest checkpoint, and all that has come after it.

    standings: of all splits that have joined
    met:       committed segments with partials that are not in the checkpoint, by name
    """

    base: Checkpoint
    control: Control
    standings: Mapping[Split, Standing]
    met: Mapping[str, Outcome]

    def watermark(self, split: Split) -> Watermark:
        """Of a split that has joined, as far as it is committed."""
        standing = self.standings.get(split)
        known = standing.watermark if standing else None
        return known or Watermark(self.control.joined.get(split, NEVER))

    @property
    def counting(self) -> list[Split]:
        """Splits without whose watermark no window closes."""
        return sorted(self.control.joined.keys() - set(self.control.ended))

    @property
    def pipeline_watermark(self) -> int:
        """Once all splits have ended nothing is to come any more."""
        none_left = FOREVER if self.control.joined else NEVER
        return min((self.watermark(split).us for split in self.counting), default=none_left)

    @property
    def held_by(self) -> Split | None:
        """The split that holds the pipeline's watermark where it is."""
        return min(self.counting, key=lambda split: self.watermark(split).us, default=None)

    @property
    def open_windows(self) -> list[int]:
        """Starts of the windows that hold committed rows and are not closed."""
        starts = set(self.base.folded.windows).union(*(outcome.windows for outcome in self.met.values()))
        return sorted(start for start in starts if start > self.control.closed)

    @property
    def wanted_windows(self) -> set[int]:
        """Whose partials are still needed: they are open, or closed without results."""
        return {*self.open_windows, *(window.start_us for closing in self.control.owed for window in closing.windows)}

    def due(self, windows: Windows, lateness_us: int) -> list[Window]:
        """What can be closed now, in order. All of what is open and earlier is in it, so windows close in order."""
        reached = self.pipeline_watermark
        found = []
        for start in self.open_windows:
            window = windows.window(start)
            if window.end_us + lateness_us > reached:
                break
            found.append(window)
        return found

    def covers(self, closing: Closing) -> bool:
        """All that belongs into its results was read."""
        return all(
            split in self.standings and self.standings[split].cursor >= cursor
            for split, cursor in closing.cursors.items()
        )

    def without_children(self, gone: Collection[Split], parents: Mapping[Split, Collection[Split]]) -> list[Split]:
        """Those that count and are gone for good: none is left to join of those that came from them."""
        known = {*self.control.joined, *gone}
        return [split for split in self.counting if split in gone and _children(split, parents) <= known]

    def lift_of(self, split: Split) -> int | None:
        """Where the split is lifted to if nothing comes of it; ``None``: nowhere.

        To the least of those whose watermark is of rows: if it were the least of all, two idle splits would hold each
        other back. Nobody else has rows: to the furthest. Two that stand at one place with rows of their own would do
        so too; therefore the first lift may lead to where the split is. It says that it is idle. One that is being
        ended says nothing of others.
        """
        if split not in self.control.joined or split in self.control.ended:
            return None
        others = [self.watermark(other) for other in self.counting if other != split]
        others = [watermark for watermark in others if watermark.us < FOREVER]
        rows = [watermark.us for watermark in others if not watermark.is_lift]
        to = min(rows) if rows else max((watermark.us for watermark in others), default=NEVER)
        to, own = max(to, self.control.lift), self.watermark(split)
        if not others and self.control.lift == NEVER:
            return None
        return to if to > own.us or (to == own.us and not own.is_lift) else None


def join(view: View, wanted: Split, live: Iterable[Split], parents: Mapping[Split, Collection[Split]]) -> Entry | None:
    """Let the split join, and with it all that are live and have no parents; ``None``: it has joined.

    A split begins where the last window was closed. The children of a split join together, at the least watermark
    that their parents have reached: those have landed to their ends, and from now on do not count. What a parent was
    lifted to by hand says nothing of them.
    """
    control = view.control
    if wanted in control.joined:
        return None
    joins = {split: control.passed for split in {*live, wanted} if split == wanted or not parents.get(split)}
    family = parents.get(wanted, ())
    if family:
        reached = min(view.watermark(parent).us for parent in family)
        begin = max(control.passed, NEVER if reached == FOREVER else reached)
        joins |= {child: begin for child, of in parents.items() if set(of) & set(family)}
    joins = {split: begin for split, begin in sorted(joins.items()) if split not in control.joined}
    known = {*control.joined, *joins}
    ended = [parent for parent in sorted(family) if _children(parent, parents) <= known]
    return Entry("join", "", joins=joins, ended=ended)


def _children(parent: Split, parents: Mapping[Split, Collection[Split]]) -> set[Split]:
    return {child for child, of in parents.items() if parent in of}
