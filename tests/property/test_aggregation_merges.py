"""The same rows are the same result: in any order of splits, in any batches, in any segments, merged in any way."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import cache
from itertools import groupby
from typing import Any, TypeAlias

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from streamsvc.records import ROW, Partials
from streamsvc.transforms.aggregation.aggregation import AggregationRules, WindowAggregation
from tests.windowed_rows import MINUTE_US, minutes, windowed

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("number", pa.int64()),
        ("real", pa.float64()),
        ("single", pa.float32()),
        ("exact", pa.decimal128(38, 6)),
        ("flag", pa.bool_()),
        ("raw", pa.binary()),
        ("time", pa.timestamp("us", "UTC")),
    ]
)
Record: TypeAlias = tuple[Any, ...]
"""Split and event time, and the columns; once numbered: split, offset, event time, columns."""

WINDOWS = minutes(-MINUTE_US, 0, MINUTE_US)

reals = st.floats() | st.sampled_from([0.0, -0.0, 1e308, -1e308, 5e-324, 0.1, math.nan, math.inf, -math.inf])
values = st.fixed_dictionaries(
    {
        "text": st.none() | st.sampled_from(["", "a", "b", "é", "x" * 20, "x" * 21]),
        "number": st.none() | st.sampled_from([0, 1, -1, 2**62, -(2**62)]) | st.integers(-1000, 1000),
        "real": st.none() | reals,
        "single": st.none() | st.floats(width=32),
        "exact": st.none() | st.sampled_from([Decimal(0), Decimal("-0.000001"), Decimal(10**31), Decimal("1.5")]),
        "flag": st.none() | st.booleans(),
        "raw": st.none() | st.binary(max_size=3),
        "time": st.none() | st.integers(0, 3),
    }
)
records = st.tuples(st.sampled_from("abc"), st.integers(-MINUTE_US, 2 * MINUTE_US - 1) | st.just(5), values)

AGGREGATES = {
    "n": "count(*)",
    "some": "count(number)",
    "errors": "count(*) FILTER (WHERE number > 0)",
    "total": "sum(exact)",
    "mean": "avg(number)",
    "float_sum": "sum(real)",
    "float_mean": "avg(real) FILTER (WHERE flag)",
    "spread": "stddev(real)",
    "variance": "var_pop(single)",
    "least": "min(real)",
    "greatest": "max(single)",
    "first_text": "min(text)",
    "last_raw": "max(raw)",
    "any_flag": "max(flag)",
    "soonest": "min(time)",
    "median": "approx_quantile(real, 0.5)",
    "p99": "approx_quantile(number, 0.99)",
    "texts": "approx_count_distinct(text)",
    "reals": "approx_count_distinct(real)",
    "opening": "first(text)",
    "closing": "last(real)",
    "late_raw": "last(raw) FILTER (WHERE flag)",
    "ratio": "count(flag) / count(*)",
}


@cache
def aggregation(keys: tuple[str, ...], max_groups: int = 4) -> WindowAggregation:
    rules = AggregationRules({key: key for key in keys}, AGGREGATES, max_groups=max_groups)
    return WindowAggregation(rules, SCHEMA)


@cache
def float_sum() -> WindowAggregation:
    return WindowAggregation(AggregationRules({}, {"total": "sum(real)", "n": "count(*)"}), SCHEMA)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def folded(made: WindowAggregation, segments: list[list[list[Record]]]) -> tuple[list[Partials], set[Any]]:
    """Partials of each segment, and the places of the rejects."""
    parts, rejected = [], set()
    for segment in segments:
        opened = made.open()
        for batch in segment:
            places = [(split, offset) for split, offset, _, _ in batch]
            rejects = opened.add(windowed(table([row for *_, row in batch]), [time for _, _, time, _ in batch], places))
            refused = zip(rejects[ROW].to_pylist(), rejects["reason"].to_pylist(), strict=True)
            rejected |= {(places[row], reason) for row, reason in refused}
        parts.append(opened.partials())
    return parts, rejected


@st.composite
def interleavings(draw: st.DrawFn, numbered: list[Record]) -> list[list[Record]]:
    """The splits in another order, each in its own, cut into batches."""
    queues = {split: [record for record in numbered if record[0] == split] for split in "abc"}
    mixed = [queues[split].pop(0) for split in draw(st.permutations([record[0] for record in numbered]))]
    cuts = sorted(draw(st.lists(st.integers(0, len(mixed)), max_size=4)))
    return [mixed[a:b] for a, b in zip([0, *cuts], [*cuts, len(mixed)], strict=True)]


def result(made: WindowAggregation, parts: list[Partials]) -> tuple[bytes, list[str], tuple[str, ...]]:
    finished = made.finish(made.merge(parts), WINDOWS)
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, finished.rows.schema) as stream:
        stream.write_table(finished.rows)
    return sink.getvalue().to_pybytes(), finished.keys().to_pylist(), finished.faults


@pytest.mark.parametrize("keys", [(), ("text",), ("real", "flag"), ("raw", "exact", "time")])
@settings(max_examples=25, deadline=None)
@given(st.data(), st.lists(records, max_size=25))
def test_batches_do_not_matter(keys: tuple[str, ...], data: st.DataObject, given_records: list[Record]) -> None:
    made = aggregation(keys)
    numbered = [(split, offset, time, row) for offset, (split, time, row) in enumerate(given_records)]
    [once], refused = folded(made, [[numbered]])
    [again], refused_again = folded(made, [data.draw(interleavings(numbered))])
    assert refused == refused_again
    assert once.to_ipc().equals(again.to_ipc())
    assert result(made, [once]) == result(made, [again])
    assert Partials.from_ipc(once.to_ipc()).to_ipc().equals(once.to_ipc())


@pytest.mark.parametrize("keys", [(), ("text",), ("single",)])
@settings(max_examples=20, deadline=None)
@given(st.data(), st.lists(records, max_size=25))
def test_segments_do_not_matter(keys: tuple[str, ...], data: st.DataObject, given_records: list[Record]) -> None:
    """Here no split brings too many groups: that limit is one of each segment."""
    made = aggregation(keys, max_groups=1_000)
    numbered = [(split, offset, time, row) for offset, (split, time, row) in enumerate(given_records)]
    [once], _ = folded(made, [[numbered]])
    parts, _ = folded(made, [[batch] for batch in data.draw(interleavings(numbered))])
    parts = data.draw(st.permutations(parts))
    while len(parts) > 1 and data.draw(st.booleans()):
        count = data.draw(st.integers(1, len(parts)))
        parts = [*parts[count:], made.merge([Partials.from_ipc(part.to_ipc()) for part in parts[:count]])]
    assert result(made, parts) == result(made, [once])
    assert made.merge(parts).to_ipc().equals(once.to_ipc())


@settings(max_examples=20, deadline=None)
@given(st.lists(records, min_size=1, max_size=25), st.sets(st.sampled_from([w.start_us for w in WINDOWS])))
def test_windows_can_be_taken_apart(given_records: list[Record], some: set[int]) -> None:
    made = aggregation(("flag",))
    numbered = [(split, offset, time, row) for offset, (split, time, row) in enumerate(given_records)]
    [whole], _ = folded(made, [[numbered]])
    assert whole.starts == sorted({int(start) for start in whole.flat["window"].to_pylist()})
    inside, outside = whole.only(some), whole.without(some)
    assert set(inside.starts) <= some
    assert not some & set(outside.starts)
    assert made.merge([outside, inside]).to_ipc().equals(whole.to_ipc())
    assert result(made, [inside])[0] == result(made, [whole.only(some)])[0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=30))
def test_float_sums_are_those_of_exact_arithmetic(numbers: list[float | None]) -> None:
    made = float_sum()
    rows = [{"real": number} for number in [0.0, *numbers]]
    numbered = [("a", offset, offset, row) for offset, row in enumerate(rows)]
    parts, _ = folded(made, [[numbered[:7], numbered[7:]]])
    [found] = made.finish(made.merge(parts), WINDOWS).rows.to_pylist()
    present = [number for number in numbers if number is not None]
    try:
        assert found["total"] == math.fsum(present)
    except OverflowError:
        assert math.isinf(found["total"])


def test_groups_are_in_order() -> None:
    window = '"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z"'
    made = aggregation(("text",))
    rows = [("a", n, n, {"text": text}) for n, text in enumerate(["b", None, "a", ""])]
    [part], _ = folded(made, [[rows]])
    finished = made.finish(part, WINDOWS)
    assert finished.rows["text"].to_pylist() == ["", "a", "b", None]
    assert [key for key, _ in groupby(finished.keys().to_pylist())] == [
        f'{{{window},"text":""}}',
        f'{{{window},"text":"a"}}',
        f'{{{window},"text":"b"}}',
        f'{{{window},"text":null}}',
    ]
