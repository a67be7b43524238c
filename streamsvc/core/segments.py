"""The segment state machine: what the objects of the log say, and where each split goes on. Pure.

A split's claims form one chain, ordered by cursor. A claim names a segment; the segment's outcome says where the next
claim of the split goes: after its range if it is committed, to the same position's next attempt if it is aborted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter, ValidationError

from streamsvc.core.log_keys import Cursor, claim_key
from streamsvc.errors import LogCorrupt
from streamsvc.records import ObjectInfo, Position, Split, Window

NEVER = -(2**62)
"""The watermark of a split that nothing was seen of: before every time, and far from where int64 ends."""
FOREVER = 2**62
"""The watermark of a split of which nothing is in time any more."""


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object of the log. A reader leaves alone the fields that it does not know."""

    format: Literal[1] = 1

    def to_json(self) -> bytes:
        return _adapter(type(self)).dump_json(self)

    @classmethod
    def from_json(cls, body: bytes, *, key: str = "") -> Self:
        """``key``, where the body was found, is for the error. Raises ``LogCorrupt``."""
        try:
            stored: Self = _adapter(cls).validate_json(body, strict=True)
        except ValidationError as invalid:
            first = invalid.errors(include_url=False, include_input=False)[0]
            raise LogCorrupt(
                "an object of the segment log cannot be read",
                hint="A newer streamsvc may have written it: run that. Otherwise restore the object; do not delete it.",
                key=key,
                field=".".join(map(str, first["loc"])),
                problem=first["msg"],
            ) from invalid
        return stored


@dataclass(frozen=True, slots=True)
class Range:
    """What a segment wants of one split: the records from ``cursor.position`` up to ``to``, which may be none.

    first_record: position of the first record that the planner saw in the range; a finisher must see it too
    seek:         in a seek, the position where the split goes on, in the next epoch
    watermark:    of a windowed pipeline, the split's watermark before the range
    reached:      its watermark after the range
    is_lift:      the range is empty, and ``reached`` is where its idle split is lifted to
    """

    cursor: Cursor
    to: Position
    first_record: Position | None = None
    seek: Position | None = None
    watermark: int | None = None
    reached: int | None = None
    is_lift: bool = False

    @property
    def next(self) -> Cursor:
        """Where the split goes on once the segment is committed."""
        if self.seek is not None:
            return Cursor(self.cursor.epoch + 1, self.seek)
        if self.to > self.cursor.position:
            return Cursor(self.cursor.epoch, self.to)
        return self.cursor.retried


def _from_runs(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    try:
        return frozenset(number for first, end in value for number in range(first, end))
    except TypeError as unfit:
        raise ValueError("runs are pairs of whole numbers") from unfit


def _to_runs(numbers: Iterable[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number:
            runs[-1][1] += 1
        else:
            runs.append([number, number + 1])
    return runs


RecordNumbers = Annotated[frozenset[int], BeforeValidator(_from_runs), PlainSerializer(_to_runs)]
"""Numbers of records inside a reject object; stored as half-open runs."""

Losses: TypeAlias = dict[Split, tuple[Position, Position]]
"""Half-open ranges that may be missing from what was landed."""


@dataclass(frozen=True, slots=True)
class Plan(Stored):
    """All that is needed to finish a segment, by whoever finds it. Stored before anything is claimed.

    config, decode_version: digest of the stored configuration and version of the decoder that make its rows
    landed:                 in a replay, the records of each reject object that it lands
    reason:                 of a seek, for people
    windows:                starts of all windows that it has partials of, ascending
    """

    segment: str
    ranges: dict[Split, Range]
    config: str
    decode_version: int
    worker: str
    landed: dict[Split, RecordNumbers] = field(default_factory=dict)
    reason: str = ""
    windows: list[int] = field(default_factory=list)

    @property
    def is_seek(self) -> bool:
        return any(wanted.seek is not None for wanted in self.ranges.values())

    def claim_keys(self) -> list[str]:
        return [claim_key(split, wanted.cursor) for split, wanted in self.ranges.items()]

    @property
    def has_rows(self) -> bool:
        """What it makes is to be written. Not so of a seek, of a fence, or where idle splits are lifted alone."""
        moves = any(wanted.to > wanted.cursor.position for wanted in self.ranges.values())
        return not self.is_seek and bool(moves or self.landed or self.windows)

    @property
    def is_windowed(self) -> bool:
        return any(wanted.watermark is not None for wanted in self.ranges.values())

    def without(self, lost: Losses) -> Plan:
        """The plan with what can still be read. A loss is the beginning, the end or all of a range.

        Of a windowed pipeline it is all: whether a row is late hangs on those before it in its range.
        """
        ranges = dict(self.ranges)
        for split, (first, end) in lost.items():
            wanted = ranges.pop(split)
            begin, to = wanted.cursor.position, wanted.to
            if not begin <= first < end <= to or (begin < first and end < to):
                raise ValueError(f"{first}..{end} is not one end of {split} {begin}..{to}")
            if wanted.watermark is not None and (first, end) != (begin, to):
                raise ValueError(f"{first}..{end} is not all of {split} {begin}..{to}, which goes into windows")
            if end < to:
                ranges[split] = replace(wanted, cursor=replace(wanted.cursor, position=end), first_record=None)
            elif begin < first:
                ranges[split] = replace(wanted, to=first)
        return replace(self, ranges=ranges)


@dataclass(frozen=True, slots=True)
class Watermark:
    """Of a split: all rows that come have this time or more, but for late ones. Microseconds since the epoch.

    is_lift: it is not of rows of the split, but was lifted because nothing came
    since:   the segment that brought it so far; empty: none did, or it is not known
    """

    us: int
    is_lift: bool = False
    since: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Outcome(Stored):
    """How a segment ended. It is created once, and says the same to everybody.

    next:       of a committed segment, where each of its splits goes on
    lost:       ranges that could not be read again when the segment was given up
    reason:     why it was aborted or given up, or what a seek is for
    watermarks: of its splits, after their ranges
    windows:    starts of the windows that its partials are of
    """

    segment: str
    state: Literal["committed", "aborted"]
    worker: str = ""
    next: dict[Split, Cursor] = field(default_factory=dict)
    objects: list[ObjectInfo] = field(default_factory=list)
    lost: Losses = field(default_factory=dict)
    landed: dict[Split, RecordNumbers] = field(default_factory=dict)
    reason: str = ""
    watermarks: dict[Split, Watermark] = field(default_factory=dict)
    windows: list[int] = field(default_factory=list)

    @property
    def committed(self) -> bool:
        return self.state == "committed"


@dataclass(frozen=True, slots=True)
class Closing:
    """Windows that were closed together, and where each split stood: what lies below belongs into their results."""

    windows: list[Window]
    cursors: dict[Split, Cursor]


@dataclass(frozen=True, slots=True)
class Control:
    """The control sequence of a windowed pipeline, folded.

    number: of the next entry
    config: digest of what windows mean in this pipeline
    joined: the watermark that each split began with
    ended:  splits that count no more: all their children have joined, or somebody has said so
    closed: start of the last window that was closed
    passed: the watermark that closed it: where a split begins that joins now
    owed:   what was closed and has no results yet
    lift:   what idle splits may be lifted to without regard to others
    """

    number: int = 0
    config: str = ""
    joined: dict[Split, int] = field(default_factory=dict)
    ended: list[Split] = field(default_factory=list)
    closed: int = NEVER
    passed: int = NEVER
    owed: list[Closing] = field(default_factory=list)
    lift: int = NEVER


@dataclass(frozen=True, slots=True)
class Folded:
    """What segments that were folded hold of windows that have no result.

    windows:  their starts, ascending
    key:      of the object that holds the partials; empty if there are none
    straddle: segments that are in it, though a range of theirs is not below the checkpoint
    """

    windows: list[int] = field(default_factory=list)
    key: str = ""
    straddle: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Checkpoint(Stored):
    """The log folded: where every split goes on, and which records of reject objects were landed by replays.

    Number 0 is never stored: it stands for no checkpoint at all. ``watermarks``, ``control`` and ``folded`` are of
    windowed pipelines.
    """

    number: int = 0
    cursors: dict[Split, Cursor] = field(default_factory=dict)
    landed: dict[Split, RecordNumbers] = field(default_factory=dict)
    watermarks: dict[Split, Watermark] = field(default_factory=dict)
    control: Control = field(default_factory=Control)
    folded: Folded = field(default_factory=Folded)


@dataclass(frozen=True, slots=True)
class Claim(Stored):
    """The segment that holds a key of the log."""

    segment: str


@dataclass(frozen=True, slots=True)
class Owner(Stored):
    """Whose log it is: the consumer group or application by which its workers share the splits."""

    group: str


@dataclass(frozen=True, slots=True)
class Start(Stored):
    """Where every split begins that existed at the very first start."""

    positions: dict[Split, Position]


@dataclass(frozen=True, slots=True)
class Loss(Stored):
    """The decision to finish a segment without what cannot be read any more."""

    segment: str
    lost: Losses
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a split stands: its next claim goes to ``cursor``, unless ``pending`` holds that key without an outcome.

    landed:    of a reject object, the records that replays have landed
    watermark: of a split of a windowed pipeline, once a segment of it was committed
    """

    cursor: Cursor
    pending: Plan | None = None
    landed: frozenset[int] = frozenset()
    watermark: Watermark | None = None


def advance(cursor: Cursor, wanted: Range, outcome: Outcome) -> Cursor:
    """Where a split goes on after the segment that claimed ``wanted`` at ``cursor`` has ended."""
    return wanted.next if outcome.committed else cursor.retried


def commit(plan: Plan, objects: Sequence[ObjectInfo], loss: Loss | None, worker: str) -> Outcome:
    return Outcome(
        plan.segment,
        "committed",
        worker,
        next={split: wanted.next for split, wanted in plan.ranges.items()},
        objects=list(objects),
        lost=loss.lost if loss else {},
        landed=plan.landed,
        reason=loss.reason if loss else plan.reason,
        watermarks={
            split: Watermark(wanted.reached, wanted.is_lift)
            for split, wanted in plan.ranges.items()
            if wanted.reached is not None
        },
        windows=plan.windows,
    )


def abort(plan: Plan, reason: str, worker: str) -> Outcome:
    return Outcome(plan.segment, "aborted", worker, reason=reason)


def is_below(split: Split, cursor: Cursor, checkpoint: Checkpoint) -> bool:
    """A claim at this key counts for nothing any more: the checkpoint has gone past it."""
    folded = checkpoint.cursors.get(split)
    return folded is not None and cursor < folded


def is_overtaken(plan: Plan, checkpoint: Checkpoint) -> bool:
    """A key of the plan is below the checkpoint, so its claim may be one that was deleted and made again."""
    return any(is_below(split, wanted.cursor, checkpoint) for split, wanted in plan.ranges.items())


def is_folded(plan: Plan, checkpoint: Checkpoint) -> bool:
    """All keys of the plan are below the checkpoint: nobody needs to know how the segment ended."""
    return all(is_below(split, wanted.cursor, checkpoint) for split, wanted in plan.ranges.items())


def fold(checkpoint: Checkpoint, standings: Mapping[Split, Standing]) -> Checkpoint:
    """The checkpoint that follows, once its splits, and perhaps others, were walked from it."""
    return replace(
        checkpoint,
        number=checkpoint.number + 1,
        cursors={**checkpoint.cursors, **{split: standing.cursor for split, standing in standings.items()}},
        landed={
            **checkpoint.landed,
            **{split: standing.landed for split, standing in standings.items() if standing.landed},
        },
        watermarks={
            **checkpoint.watermarks,
            **{split: at.watermark for split, at in standings.items() if at.watermark is not None},
        },
    )
