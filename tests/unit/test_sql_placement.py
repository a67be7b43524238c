"""The values of partition columns."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa

from streamsvc.records import ROW
from streamsvc.transforms.placement import Placement

TEXTS = pa.dictionary(pa.int32(), pa.string())


def instants(*days: str | None) -> pa.Array:
    return pa.array(
        [None if day is None else dt.datetime.fromisoformat(f"{day}T12:30+00:00") for day in days],
        pa.timestamp("us", "UTC"),
    )


def rows_of(**columns: pa.Array) -> pa.RecordBatch:
    batch = pa.RecordBatch.from_pydict(columns)
    return batch.append_column(ROW, pa.arange(0, batch.num_rows).cast(pa.int32()))


def placed(rows: pa.RecordBatch, **expressions: str) -> pa.RecordBatch:
    sifted = Placement(expressions, rows.drop_columns([ROW]).schema).apply(rows)
    assert sifted.rejects.num_rows == 0
    return sifted.rows


def test_columns_times_and_other_expressions_in_their_order() -> None:
    rows = rows_of(datetime=instants("2026-11-24", "1969-12-31", None), response=pa.array([200, None, 404], pa.int16()))
    made = placed(
        rows, date="strftime(datetime, '%Y-%m-%d')", response="response", family="response // 100", day="datetime::DATE"
    )
    assert made.schema == pa.schema(
        [
            ("_partition_date", TEXTS),
            ("_partition_response", pa.int16()),
            ("_partition_family", pa.int16()),
            ("_partition_day", pa.date32()),
            (ROW, pa.int32()),
        ]
    )
    assert made.to_pydict() == {
        "_partition_date": ["2026-11-24", "1969-12-31", None],
        "_partition_response": [200, None, 404],
        "_partition_family": [2, None, 4],
        "_partition_day": [dt.date(2026, 11, 24), dt.date(1969, 12, 31), None],
        ROW: [0, 1, 2],
    }


def test_a_record_whose_expression_fails_is_a_reject() -> None:
    rows = rows_of(host=pa.array(["1", "x", "3"]))
    sifted = Placement({"n": "host::INTEGER"}, rows.drop_columns([ROW]).schema).apply(rows)
    assert sifted.rows.to_pydict() == {"_partition_n": [1, 3], ROW: [0, 2]}
    assert sifted.rejects.to_pylist() == [
        {
            ROW: 1,
            "reason": "partition_expression",
            "error": "Could not convert string 'x' to INT32 when casting from source column host",
        }
    ]


def test_days_that_look_alike_are_one_value() -> None:
    made = placed(rows_of(t=instants("2026-11-24", "2026-12-24", "2026-11-25")), day="strftime('%d', t)")
    column = made.column("_partition_day")
    assert isinstance(column, pa.DictionaryArray)
    assert column.dictionary.to_pylist() == ["24", "25"]


def test_no_times_at_all_and_no_rows_at_all() -> None:
    for rows in (rows_of(t=instants(None, None)), rows_of(t=instants())):
        made = placed(rows, day="strftime(t, '%Y')")
        assert made.column("_partition_day").to_pylist() == [None] * rows.num_rows
        assert made.schema.field("_partition_day").type == TEXTS


def test_times_beyond_the_calendar_go_to_the_engine() -> None:
    never = pa.array([2**63 - 1, 0, -(2**63) + 1], pa.timestamp("us", "UTC"))
    made = placed(rows_of(t=never), day="strftime(t, '%Y')")
    assert made.column("_partition_day").to_pylist() == ["infinity", "1970", "-infinity"]


def test_more_periods_than_are_remembered() -> None:
    minutes = pa.arange(0, 25_000).cast(pa.int64())
    ticks = pa.array([minute * 60_000_000 for minute in minutes.to_pylist()], pa.timestamp("us", "UTC"))
    schema = pa.schema([("t", ticks.type)])
    placement = Placement({"m": "strftime(t, '%Y%m%dT%H%M')"}, schema)
    rows = rows_of(t=ticks)
    first = placement.apply(rows.slice(0, 15_000)).rows.column(0).to_pylist()
    both = placement.apply(rows).rows.column(0).to_pylist()
    assert both[:15_000] == first
    assert (both[0], both[1439], both[-1]) == ("19700101T0000", "19700101T2359", "19700118T0839")
