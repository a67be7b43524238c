"""What a SQL step makes of rows: types, order, rejects, bounds."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from streamsvc.records import REJECTED, ROW
from streamsvc.transforms.placement import Placement
from streamsvc.transforms.sql import SqlTransform

UTC = pa.timestamp("us", "UTC")


def rows_of(numbers: list[int] | None = None, **columns: Any) -> pa.RecordBatch:
    batch = pa.RecordBatch.from_pydict(columns)
    made = pa.array(numbers, pa.int32()) if numbers else pa.arange(0, batch.num_rows).cast(pa.int32())
    return batch.append_column(ROW, made)


def step(sql: str, rows: pa.RecordBatch) -> SqlTransform:
    return SqlTransform(sql, rows.drop_columns([ROW]).schema)


def test_rows_keep_their_order_and_their_records() -> None:
    rows = rows_of([7, 3, 3, 9], bytes=[1, None, 3, 4])
    made = step("SELECT bytes * 2 AS twice, bytes FROM input WHERE bytes <> 1", rows).apply(rows).rows
    assert made.to_pydict() == {"twice": [6, 8], "bytes": [3, 4], ROW: [3, 9]}
    assert made.schema.field(ROW).type == pa.int32()


def test_the_schema_is_known_before_any_row() -> None:
    rows = rows_of(bytes=pa.array([], pa.int64()), host=pa.array([], pa.string()))
    transform = step("SELECT *, bytes / 1024 AS kib, host || '!' AS shout FROM input WHERE bytes > 0", rows)
    assert transform.schema == pa.schema(
        [("bytes", pa.int64()), ("host", pa.string()), ("kib", pa.float64()), ("shout", pa.string())]
    )
    assert transform.apply(rows).rows.schema == transform.schema.append(pa.field(ROW, pa.int32()))


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([0], pa.timestamp("s")), UTC),
        (pa.array([0], pa.timestamp("ms", "UTC")), UTC),
        (pa.array([0], pa.timestamp("us", "Europe/Berlin")), UTC),
        (pa.array(["a"]).dictionary_encode(), pa.string()),
        (pa.array(["a"], pa.large_string()), pa.string()),
        (pa.array(["a"], pa.string_view()), pa.string()),
        (pa.array([b"a"], pa.large_binary()), pa.binary()),
        (pa.array([0], pa.date64()), pa.date32()),
        (pa.array([0], pa.time32("s")), pa.time64("us")),
        (pa.array([Decimal("1.5")]), pa.decimal128(2, 1)),
        (pa.array([[0]], pa.list_(pa.timestamp("s"), 1)), pa.list_(UTC)),
        (pa.array([{"a": "x"}], pa.struct([("a", pa.large_string())])), pa.struct([("a", pa.string())])),
        (pa.array([[("k", 0)]], pa.map_(pa.string(), pa.timestamp("s"))), pa.map_(pa.string(), UTC)),
    ],
)
def test_types_are_few_and_the_same_passed_on_or_computed(column: pa.Array, kind: pa.DataType) -> None:
    rows = rows_of(c=column)
    transform = step("SELECT c, CASE WHEN true THEN c END AS computed FROM input", rows)
    assert transform.schema.types == [kind, kind]
    made = transform.apply(rows).rows
    assert made.column("c").to_pylist() == made.column("computed").to_pylist()


def test_only_the_row_that_fails_is_a_reject() -> None:
    rows = rows_of(host=["1", "x", "3", "y", None], bytes=[1, 2, 3, 4, 5])
    sifted = step("SELECT bytes, host::INTEGER AS n FROM input", rows).apply(rows)
    assert sifted.rows.to_pydict() == {"bytes": [1, 3, 5], "n": [1, 3, None], ROW: [0, 2, 4]}
    assert sifted.rejects.schema == REJECTED
    assert sifted.rejects.to_pylist() == [
        {
            ROW: 1,
            "reason": "sql",
            "error": "Could not convert string 'x' to INT32 when casting from source column host",
        },
        {
            ROW: 3,
            "reason": "sql",
            "error": "Could not convert string 'y' to INT32 when casting from source column host",
        },
    ]


def test_a_condition_that_fails_is_a_reject_and_guards_work_from_left_to_right() -> None:
    rows = rows_of(host=["1", "", "x"])
    sifted = step("SELECT host FROM input WHERE host <> '' AND host::INTEGER > 0", rows).apply(rows)
    assert sifted.rows.to_pydict() == {"host": ["1"], ROW: [0]}
    assert sifted.rejects.column(ROW).to_pylist() == [2]


def test_rejecting_on_purpose() -> None:
    rows = rows_of(bytes=[1, -1, -2])
    sifted = step("SELECT CASE WHEN bytes < 0 THEN error('below zero') ELSE bytes END AS b FROM input", rows).apply(
        rows
    )
    assert sifted.rows.to_pydict() == {"b": [1], ROW: [0]}
    assert sifted.rejects.column("error").to_pylist() == ["below zero", "below zero"]


@pytest.mark.parametrize(
    ("expression", "made"),
    [
        ("repeat('ab', 2)", "abab"),
        ("range(3)", [0, 1, 2]),
        ("range(1000000000, 1000000002)", [1_000_000_000, 1_000_000_001]),
        ("generate_series(0, 1000000000, 500000000)", [0, 500_000_000, 1_000_000_000]),
        ("range(bytes)", [0]),
        ("range(3, 0, 0)", []),
    ],
)
def test_series_that_are_small_are_made(expression: str, made: object) -> None:
    sifted = step(f"SELECT {expression} AS x FROM input", rows_of(bytes=[1])).apply(rows_of(bytes=[1]))
    assert sifted.rows.column("x").to_pylist() == [made]


def test_a_row_that_needs_too_much_memory_is_a_reject() -> None:
    rows = rows_of(bytes=[3, 1_000_000_000, 2] * 50)
    sifted = step("SELECT repeat('x', bytes) AS x FROM input", rows).apply(rows)
    assert sifted.rows.column("x").to_pylist() == ["xxx", "xx"] * 50
    assert set(sifted.rejects.column("error").to_pylist()) == {"it needs more than 256 MB of memory"}
    assert sifted.rejects.num_rows == 50


def test_rows_that_need_too_much_memory_together_all_pass() -> None:
    rows = rows_of(bytes=[2_000_000] * 150)
    sifted = step("SELECT repeat('x', bytes) AS x FROM input", rows).apply(rows)
    assert sifted.rejects.num_rows == 0
    assert [len(x) for x in sifted.rows.column("x").to_pylist()] == [2_000_000] * 150


def test_a_time_out_of_range_is_a_reject_wherever_it_is() -> None:
    rows = rows_of(t=pa.array([0, 2**62], pa.timestamp("ms", "UTC")), bytes=[1, 2])
    for sql in ("SELECT t FROM input", "SELECT t, bytes + 1 AS b FROM input", "SELECT epoch_ms(t) AS t FROM input"):
        sifted = step(sql, rows).apply(rows)
        assert sifted.rows.column(ROW).to_pylist() == [0]
        assert sifted.rejects.column(ROW).to_pylist() == [1]


def test_an_empty_batch() -> None:
    rows = rows_of(bytes=pa.array([], pa.int64()))
    sifted = step("SELECT bytes + 1 AS b FROM input WHERE bytes > 0", rows).apply(rows)
    assert (sifted.rows.num_rows, sifted.rejects.num_rows) == (0, 0)


def test_slices_and_other_columns_do_not_matter() -> None:
    rows = rows_of(bytes=list(range(10)), host=[str(n) for n in range(10)])
    transform = step("SELECT bytes + 1 AS b, host FROM input WHERE bytes % 2 = 0", rows)
    assert transform.apply(rows.slice(3, 4)).rows.to_pydict() == {"b": [5, 7], "host": ["4", "6"], ROW: [4, 6]}


def test_calls_may_come_from_any_thread() -> None:
    rows = rows_of(bytes=[1, 2])
    transform = step("SELECT bytes + 1 AS b FROM input", rows)
    for _ in range(3):
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(transform.apply, rows).result().rows.column("b").to_pylist() == [2, 3]


def test_what_was_last_seen_is_not_held() -> None:
    rows = rows_of(bytes=[1] * 100_000)
    transform = step("SELECT bytes + 1 AS b FROM input", rows)
    held = pa.total_allocated_bytes()
    rows = rows_of(bytes=[1] * 100_000)
    transform.apply(rows)
    del rows
    assert pa.total_allocated_bytes() <= held + 100_000


def test_times_are_in_utc_whatever_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    rows = rows_of(t=pa.array([dt.datetime(2026, 1, 1, 23, tzinfo=dt.UTC)], UTC))
    made = step("SELECT strftime(t, '%d %H') AS s, '2026-01-01 23:00'::TIMESTAMPTZ = t AS e FROM input", rows).apply(
        rows
    )
    assert made.rows.to_pydict() == {"s": ["01 23"], "e": [True], ROW: [0]}


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("to_timestamp(n)", "a timestamp is outside of the years 1 to 9999"),
        ("CASE WHEN n > 5 THEN 'infinity'::TIMESTAMP END", "a timestamp is outside of the years 1 to 9999"),
        ("[{'t': to_timestamp(n)}]", "a timestamp is outside of the years 1 to 9999"),
        ("map(['t'], [to_timestamp(n)])", "a timestamp is outside of the years 1 to 9999"),
        ("CASE WHEN n > 5 THEN '-infinity'::DATE ELSE '9999-12-31' END", "a date is outside of the years 1 to 9999"),
        ("CASE WHEN n > 5 THEN '24:00:00'::TIME ELSE '23:59:59.999999' END", "a time is not between 00:00:00 and"),
    ],
)
def test_a_time_that_has_no_text_is_a_reject(sql: str, error: str) -> None:
    """Here milliseconds taken for seconds, among good ones."""
    rows = pa.RecordBatch.from_pydict({"n": [1, None, 1_700_000_000_000, 2], ROW: pa.array([0, 1, 2, 3], pa.int32())})
    sifted = SqlTransform(f"SELECT {sql} AS x FROM input", pa.schema([("n", pa.int64())])).apply(rows)
    assert sifted.rows[ROW].to_pylist() == [0, 1, 3]
    assert sifted.rejects[ROW].to_pylist() == [2]
    assert sifted.rejects["error"][0].as_py().startswith(error)


def test_partitions_are_held_to_the_same() -> None:
    rows = pa.RecordBatch.from_pydict({"n": [1, 1_700_000_000_000], ROW: pa.array([0, 1], pa.int32())})
    sifted = Placement({"day": "to_timestamp(n)::DATE"}, pa.schema([("n", pa.int64())])).apply(rows)
    assert sifted.rejects["error"].to_pylist() == ["a date is outside of the years 1 to 9999"]
