"""What partition values look like, by type; and when a segment is cut."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from streamsvc.core.partitioning import NULL, can_partition_by, escape, keyed, prefix_of

NOON = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)
HALF_PAST = NOON.replace(minute=30, microsecond=250_000)


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([True, False, None]), ["true", "false", NULL]),
        (pa.array([200, -1], pa.int16()), ["200", "-1"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([0.0, -0.0, 1.5, float("nan"), 1e300]), ["0", "-0", "1.5", "nan", "1e%2B300"]),
        (pa.array([Decimal("1.50")]), ["1.50"]),
        (pa.array(["a/b", ""]), ["a%2Fb", ""]),
        (pa.array(["a"], pa.large_string()), ["a"]),
        (pa.array(["a"], pa.string_view()), ["a"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b"]),
        (pa.array([dt.date(2026, 11, 24)]), ["2026-11-24"]),
        (pa.array([dt.time(1, 2, 3)]), ["01%3A02%3A03"]),
        (pa.array([HALF_PAST], pa.timestamp("us", "UTC")), ["2026-11-24%2012%3A30%3A00.25"]),
        (pa.array([NOON], pa.timestamp("ns", "Europe/Berlin")), ["2026-11-24%2012%3A00%3A00"]),
        (pa.nulls(2), [NULL]),
    ],
    ids=lambda case: str(case.type) if isinstance(case, pa.Array) else "",
)  # fmt: skip
def test_values_as_text(column: pa.Array, texts: list[str]) -> None:
    assert can_partition_by(column.type)
    assert [escape(value) for (value,) in keyed([column]).keys] == texts


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.int8()), pa.struct({"a": pa.int8()}), pa.map_(pa.string(), pa.int8()), pa.binary(), pa.binary(2)],
)
def test_what_has_no_text(kind: pa.DataType) -> None:
    assert not can_partition_by(kind)


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        (None, NULL),
        (NULL, "%5F_HIVE_DEFAULT_PARTITION__"),
        ("null", "%6Eull"),
        ("", ""),
        ("..", ".."),
        ("a b+c", "a%20b%2Bc"),
        ("grün 日本", "grün%20日本"),
        ("\u2028", "%E2%80%A8"),
    ],
)
def test_escapes(value: str | None, escaped: str) -> None:
    assert escape(value) == escaped


def test_prefixes_keep_the_order_of_the_names() -> None:
    assert prefix_of(["date", "response"], ("2026-11-24", "200"), 500) == "date=2026-11-24/response=200"


def test_too_long_for_a_path() -> None:
    assert prefix_of(["n"], ("x" * 253,), 500) == "n=" + "x" * 253
    assert prefix_of(["n"], ("x" * 254,), 500) is None
    assert prefix_of(["n"], ("ü" * 127,), 500) is None, "bytes count, not letters"
    assert prefix_of(["n"], ("/" * 85,), 500) is None, "escapes count"
    assert prefix_of(["a", "b"], ("x" * 10, "y" * 10), 25) == f"a={'x' * 10}/b={'y' * 10}"
    assert prefix_of(["a", "b"], ("x" * 10, "y" * 11), 25) is None
