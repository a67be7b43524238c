"""Whatever the order of splits, the batches, the segments, who folds them and who folds them again after a crash: the
windows are those of a reference of a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from zoneinfo import ZoneInfo

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.core.offsets import position_of, positions_of
from streamsvc.core.segments import NEVER
from streamsvc.core.windows.assignment import DAY, FIRST_TIME, LAST_TIME, SECOND, DayWindows, FixedWindows, Windows
from streamsvc.records import Batch, Partials, Span
from streamsvc.runtime.segment import Encoded, Recipe
from streamsvc.runtime.windowing import WindowedSegment
from streamsvc.stores.memory import MemoryStore
from streamsvc.testing.line_sink import LineRejects, OpenLineRejects
from tests.property.windowed_lines import Pair, aggregation, counts_of, recipe_of, reference

BERLIN = ZoneInfo("Europe/Berlin")
SHORT_DAY = 1_774_738_800 * SECOND
"""2026-03-29 in Berlin has 23 hours; 2026-10-25 has 25."""
LONG_DAY = 1_792_879_200 * SECOND

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

SHAPES: dict[str, tuple[Windows, int, int, int]] = {
    "tumbling": (FixedWindows(5 * MINUTE, 5 * MINUTE), 0, 10 * MINUTE, 10 * SECOND),
    "hopping": (FixedWindows(5 * MINUTE, MINUTE, 7 * SECOND), 0, 10 * MINUTE, 10 * SECOND),
    "a day of 23 hours": (DayWindows(1, 1, 0, BERLIN), SHORT_DAY - DAY, 3 * DAY, HOUR),
    "a day of 25 hours": (DayWindows(1, 1, 0, BERLIN), LONG_DAY - DAY, 3 * DAY, HOUR),
    "hopping days": (DayWindows(3, 1, 0, BERLIN), LONG_DAY - 2 * DAY, 4 * DAY, HOUR),
    "all times": (FixedWindows(7 * DAY, 7 * DAY), FIRST_TIME, LAST_TIME - FIRST_TIME, DAY),
}

AGGREGATION = aggregation()

Splits = Mapping[str, Sequence[tuple[str, int]]]


def batch_of(splits: Splits, spans: Sequence[tuple[str, int, int]], arrivals: Sequence[int | None] = ()) -> Batch:
    rows = [(split, number) for split, first, to in spans for number in range(first, to)]
    values = [f"{line} {at}".encode() for line, at in (splits[split][number] for split, number in rows)]
    return Batch(
        spans=tuple(Span(split, to - first, position_of(first), position_of(to)) for split, first, to in spans),
        values=pa.array(values, pa.binary()),
        offsets=pa.array([number for _, number in rows], pa.int64()),
        position_text=positions_of,
        arrivals=lambda: pa.array(arrivals or [None] * len(rows), pa.timestamp("ms", "UTC")),
        keys=lambda: pa.nulls(len(rows), pa.binary()),
        headers=lambda: pa.nulls(len(rows), pa.map_(pa.string(), pa.binary())),
        nbytes=1,
    )


def fold(
    recipe: Recipe, splits: Splits, ranges: Mapping[str, tuple[int, int]], began: Mapping[str, int], draw: st.DataObject
) -> tuple[Encoded, WindowedSegment]:
    """A segment of these ranges, in batches that are drawn."""
    assert recipe.window is not None
    segment = WindowedSegment(recipe, recipe.window, began)
    reached = {split: first for split, (first, _) in ranges.items()}
    while open_splits := sorted(split for split, (_, to) in ranges.items() if reached[split] < to):
        spans = []
        for split in draw.draw(st.permutations(open_splits)):
            to = min(ranges[split][1], reached[split] + draw.draw(st.integers(1, 7)))
            spans.append((split, reached[split], to))
            reached[split] = to
        assert segment.add(batch_of(splits, spans)) is None
    return segment.close("segment"), segment


@pytest.mark.parametrize("shape", SHAPES)
@settings(deadline=None, max_examples=25)
@given(draw=st.data())
def test_windows_are_those_of_the_reference(shape: str, draw: st.DataObject) -> None:
    windows, begin, length, disorder = SHAPES[shape]
    lateness = draw.draw(st.sampled_from([0, disorder, length // 10]))
    times = st.integers(begin, begin + length - 1) | st.sampled_from([begin, begin + length - 1])
    splits = {
        split: [(f"{split}{number}", at) for number, at in enumerate(draw.draw(st.lists(times, max_size=12)))]
        for split in "abc"
    }
    lake = MemoryStore("lake", "lake")
    recipe = recipe_of(lake, windows, disorder=disorder, lateness=lateness, aggregate=lambda: AGGREGATION)
    watermarks = dict.fromkeys(splits, NEVER)
    reached = dict.fromkeys(splits, 0)
    parts: list[Partials] = []
    late: Counter[Pair] = Counter()
    while any(reached[split] < len(rows) for split, rows in splits.items()):
        ranges = {
            split: (first, min(len(splits[split]), first + draw.draw(st.integers(1, 12))))
            for split, first in reached.items()
        }
        encoded, segment = fold(recipe, splits, ranges, dict(watermarks), draw)
        again, _ = fold(recipe, splits, ranges, dict(watermarks), draw)
        assert encoded == again, "who finishes a segment makes other objects"
        assert encoded.partials is not None
        parts.append(Partials.from_ipc(encoded.partials))
        assert parts[-1].starts == segment.windows
        late.update((line, start) for item in encoded.objects for line, start in orjson.loads(b"".join(item.body)))
        watermarks = {split: segment.watermark(split) for split in splits}
        reached = {split: to for split, (_, to) in ranges.items()}
    merged = AGGREGATION.merge(draw.draw(st.permutations(parts)))
    results = AGGREGATION.finish(merged, [windows.window(start) for start in merged.starts])
    found = Counter({(line, start): lines for line, start, lines in counts_of(results)})
    assert (found, late) == reference(splits, windows, disorder, lateness)
    for split, rows in splits.items():
        assert watermarks[split] == max([NEVER, *(at - disorder for _, at in rows)])


def segment_of(
    recipe: Recipe, rows: Sequence[tuple[str, int]], arrivals: Sequence[int | None] = ()
) -> tuple[Encoded, WindowedSegment]:
    assert recipe.window is not None
    segment = WindowedSegment(recipe, recipe.window, {"a": NEVER})
    assert segment.add(batch_of({"a": rows}, [("a", 0, len(rows))], arrivals)) is None
    return segment.close("segment"), segment


def test_a_row_that_is_too_far_ahead_is_a_reject_and_moves_nothing() -> None:
    """Its window would stay open until its time comes. Without an arrival nobody can tell."""
    lake = MemoryStore("lake", "lake")
    recipe = recipe_of(lake, FixedWindows(MINUTE, MINUTE), disorder=0, lateness=0, max_ahead=HOUR)
    now = 1_764_000_000 * SECOND
    rows = [("one", now), ("ahead", now + HOUR + 1), ("two", now), ("just", now + HOUR)]
    encoded, segment = segment_of(recipe, rows, [now // 1_000] * 4)
    assert (segment.watermark("a"), segment.tally.rejects, segment.tally.late) == (
        now + HOUR,
        {"ahead_of_time": 1},
        0,
    )
    assert segment.windows == [now, now + HOUR]
    [rejects] = encoded.rejects
    assert rejects.body == [f"ahead {now + HOUR + 1}".encode()]
    rows[1] = ("ahead", LAST_TIME)
    _, segment = segment_of(recipe, rows, [now // 1_000, None, now // 1_000, now // 1_000])
    assert (segment.watermark("a"), segment.tally.rejects, segment.tally.late) == (LAST_TIME, {}, 2)


def test_1970_is_late_and_9999_is_a_window() -> None:
    recipe = recipe_of(MemoryStore("lake", "lake"), FixedWindows(MINUTE, MINUTE), disorder=0, lateness=0)
    encoded, segment = segment_of(recipe, [("now", 1_764_000_000 * SECOND), ("old", 0), ("last", LAST_TIME)])
    assert segment.windows == [1_764_000_000 * SECOND, LAST_TIME // MINUTE * MINUTE]
    assert [orjson.loads(b"".join(item.body)) for item in encoded.objects] == [[["old", 0]]]


def test_rows_without_a_time_are_rejects() -> None:
    recipe = recipe_of(MemoryStore("lake", "lake"), FixedWindows(MINUTE, MINUTE), disorder=0, lateness=0)
    assert recipe.window is not None
    segment = WindowedSegment(recipe, recipe.window, {})
    batch = batch_of({"a": [("one", 5), ("two", LAST_TIME + 1), ("three", FIRST_TIME - 1)]}, [("a", 0, 3)])
    values = pa.array([*batch.values.to_pylist(), b"four -", b"bad 5"])
    segment.add(_with_values(batch, values))
    assert segment.tally.rejects == {"no_event_time": 3, "bad": 1}
    assert segment.windows == [0]


class Told(OpenLineRejects):
    """Rejects with why."""

    def add(self, batch: Batch, rejects: pa.RecordBatch) -> None:
        self._lines += [error.encode() for error in rejects["error"].to_pylist()]


def test_a_unit_that_is_wrong_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LineRejects, "open", lambda _: Told())
    recipe = recipe_of(MemoryStore("lake", "lake"), FixedWindows(MINUTE, MINUTE), disorder=0, lateness=0)
    encoded, _ = segment_of(recipe, [("one", LAST_TIME + 1)])
    told = f"us is {LAST_TIME + 1} us, which is not in the years 1 to 9999; is `time.unit` right?"
    assert [item.body for item in encoded.rejects] == [[told.encode()]]


def _with_values(batch: Batch, values: pa.Array) -> Batch:
    count = len(values)
    return Batch(
        spans=(Span("a", count, position_of(0), position_of(count)),),
        values=values,
        offsets=pa.array(range(count), pa.int64()),
        position_text=positions_of,
        arrivals=lambda: pa.nulls(count, pa.timestamp("ms", "UTC")),
        keys=batch.keys,
        headers=batch.headers,
        nbytes=1,
    )


def test_partials_count_as_memory() -> None:
    recipe = recipe_of(MemoryStore("lake", "lake"), FixedWindows(MINUTE, MINUTE), disorder=0, lateness=0)
    _, few = segment_of(recipe, [("same", 5)] * 100)
    _, many = segment_of(recipe, [(f"line {number}".replace(" ", "-"), 5) for number in range(100)])
    assert 0 < few.memory_bytes < many.memory_bytes == many.largest_bytes
