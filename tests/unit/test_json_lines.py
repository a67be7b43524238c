"""JSON made from columns equals JSON made row by row."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.json_text import json_lines, json_texts
from streamsvc.sinks.formats.json import JsonLines

MOMENT = dt.datetime(2026, 11, 24, 12, 30, 0, 250_000, dt.UTC)


def parsed(batch: pa.RecordBatch) -> list[Any]:
    text = json_lines(batch).to_pybytes()
    assert text.count(b"\n") == batch.num_rows
    return [orjson.loads(line) for line in text.splitlines()]


@given(st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8"))), min_size=1))
def test_any_text(texts: list[str | None]) -> None:
    column = pa.array(texts, pa.string())
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        assert [row["t"] for row in parsed(pa.record_batch({"t": column.cast(kind)}))] == texts
    assert [row["t"] for row in parsed(pa.record_batch({"t": column.dictionary_encode()}))] == texts


@given(st.lists(st.one_of(st.none(), st.floats(width=64)), min_size=1))
def test_any_float(numbers: list[float | None]) -> None:
    words = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    rows = parsed(pa.record_batch({"n": pa.array(numbers, pa.float64())}))
    for row, number in zip(rows, numbers, strict=True):
        read = words[row["n"]] if isinstance(row["n"], str) else row["n"]
        assert read == number or (read != read and number != number)


items = st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=3))
structs = st.one_of(st.none(), st.fixed_dictionaries({"a": items, "b": st.one_of(st.none(), st.text('ab"\\\n'))}))


@given(st.lists(structs, min_size=1), st.integers(0, 3), st.integers(0, 3))
def test_nested_values_also_in_slices(values: list[Any], start: int, length: int) -> None:
    kind = pa.list_(pa.struct([("a", pa.list_(pa.int8())), ("b", pa.string())]))
    lists = [None if value is None else [value, None] for value in values]
    batch = pa.record_batch({"v": pa.array(lists, kind)}).slice(start, length)
    assert [row["v"] for row in parsed(batch)] == lists[start : start + length]


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([MOMENT], pa.timestamp("us", "UTC")), ['"2026-11-24T12:30:00.250000Z"']),
        (pa.array([MOMENT], pa.timestamp("s", "UTC")), ['"2026-11-24T12:30:00Z"']),
        (pa.array([MOMENT], pa.timestamp("ns", "Europe/Berlin")), ['"2026-11-24T12:30:00.250000Z"']),
        (pa.array([MOMENT.replace(microsecond=0)], pa.timestamp("ms")), ['"2026-11-24T12:30:00"']),
        (pa.array([1_999, None], pa.timestamp("ns")), ['"1970-01-01T00:00:00.000001"', "null"]),
        (pa.array([MOMENT.date()]), ['"2026-11-24"']),
        (pa.array([dt.time(1, 2, 3)]), ['"01:02:03"']),
        (pa.array([1500], pa.duration("ms")), ["1500"]),
        (pa.array([Decimal("-1.50"), None]), ["-1.50", "null"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([True, False, None]), ["true", "false", "null"]),
        (pa.array([0.1], pa.float32()), ["0.1"]),
        (pa.array([0.5, None], pa.float16()), ["0.5", "null"]),
        (pa.array([b"\xff\x00", b"", None]), ['"/wA="', '""', "null"]),
        (pa.array([b"ab"], pa.binary(2)), ['"YWI="']),
        (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), ["[1,2]", "null"]),
        (
            pa.array([[("k", b"v"), ("k", None)], [], None], pa.map_(pa.string(), pa.binary())),
            ['[{"key":"k","value":"dg=="},{"key":"k","value":null}]', "[]", "null"],
        ),
        (pa.nulls(2), ["null", "null"]),
        (pa.array(["\x01", "\u2028"]), [r'"\u0001"', '"\u2028"']),
    ],
    ids=lambda case: str(case.type) if isinstance(case, pa.Array) else "",
)
def test_values_by_type(column: pa.Array, texts: list[str]) -> None:
    assert json_texts(column).to_pylist() == texts


def test_names_are_escaped_and_no_rows_are_no_text() -> None:
    batch = pa.record_batch({'a"\n': pa.array([1]), "b": pa.array([2])})
    assert parsed(batch) == [{'a"\n': 1, "b": 2}]
    assert json_lines(batch.slice(0, 0)).to_pybytes() == b""


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_pieces_are_one_object_to_a_reader(compression: str) -> None:
    table = pa.table({"n": pa.array(range(1000))})
    format_ = JsonLines(compression, None)
    writer = format_.open(table.schema)
    for start in range(0, 1000, 300):
        writer.write(table.slice(start, 300))
    body = b"".join(bytes(part) for part in writer.close())
    assert writer.nbytes == len(body)
    codec = None if compression == "none" else compression
    text = pa.input_stream(pa.py_buffer(body), compression=codec).readall()
    assert [orjson.loads(line)["n"] for line in text.splitlines()] == list(range(1000))
