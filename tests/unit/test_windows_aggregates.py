"""What aggregates come to, beside DuckDB's over the same rows, and where they say no."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from streamsvc.core.windows import exact, hashing, sketches
from streamsvc.records import Partials, Window
from streamsvc.transforms.aggregation.aggregation import AggregationRules, WindowAggregation
from streamsvc.transforms.engine import SqlProblems
from tests.windowed_rows import MINUTE_US, aggregation, minutes, results, windowed

UTC = pa.timestamp("us", "UTC")
NAN = math.nan
MINUTE = '"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z"'


def lines(count: int, seed: int = 1) -> pa.Table:
    """Like an access log, with nulls."""
    chance = random.Random(seed)
    rows = [
        {
            "response": chance.choice([200, 200, 200, 301, 304, 404, 500, None]),
            "bytes": chance.choice([None, chance.randrange(10**6)]),
            "host": f"10.0.0.{chance.randrange(50)}",
            "seconds": chance.choice([None, chance.lognormvariate(0, 3)]),
            "price": chance.choice([None, Decimal(chance.randrange(-(10**8), 10**8)).scaleb(-2)]),
            "ok": chance.choice([None, True, False]),
            "moment": chance.randrange(10**15),
        }
        for _ in range(count)
    ]
    fields = [
        ("response", pa.int16()),
        ("bytes", pa.int64()),
        ("host", pa.string()),
        ("seconds", pa.float64()),
        ("price", pa.decimal128(10, 2)),
        ("ok", pa.bool_()),
        ("moment", UTC),
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


SAME_AS_DUCKDB = {
    "n": "count(*)",
    "some": "count(bytes)",
    "bytes": "sum(bytes)",
    "least": "min(bytes)",
    "greatest": "max(seconds)",
    "hosts": "min(host)",
    "paid": "sum(price)",
    "cheapest": "min(price)",
    "any_ok": "max(ok)",
    "all_ok": "min(ok)",
    "agreed": "sum(ok)",
    "latest": "max(moment)",
    "errors": "count(*) FILTER (WHERE response >= 500)",
    "error_bytes": "sum(bytes) FILTER (WHERE response >= 500)",
    "per_request": "sum(bytes) / count(*)",
    "kib": "sum(bytes // 1024)",
    "guarded": "sum(1000 // bytes) FILTER (WHERE bytes > 0)",
    "label": "upper(min(host)) || '-' || count(*)",
}


def duckdbs(rows: pa.Table, group_by: str, **aggregate: str) -> list[dict[str, Any]]:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("input", rows)
    selected = ", ".join(f"{sql} AS {name}" for name, sql in aggregate.items())
    key = f"{group_by}, " if group_by else ""
    order = f"GROUP BY {group_by} ORDER BY {group_by} NULLS LAST" if group_by else ""
    answer: list[dict[str, Any]] = (
        connection.sql(f"SELECT {key}{selected} FROM input {order}").to_arrow_table().to_pylist()
    )
    return answer


@pytest.mark.parametrize("group_by", ["", "response", "host", "ok"])
def test_counts_sums_and_bounds_are_duckdbs(group_by: str) -> None:
    rows = lines(3_000)
    found = results(aggregation(rows.schema, [group_by] if group_by else [], **SAME_AS_DUCKDB), rows)
    assert found == duckdbs(rows, group_by, **SAME_AS_DUCKDB)


@pytest.mark.parametrize("function", ["avg", "stddev", "stddev_samp", "stddev_pop", "variance", "var_samp", "var_pop"])
@pytest.mark.parametrize("column", ["bytes", "seconds", "price"])
def test_means_and_variances_are_exact_and_near_duckdbs(function: str, column: str) -> None:
    rows = lines(2_000).set_column(0, "response", pa.array([1] + [2] * 1_999))
    found = results(aggregation(rows.schema, ["response"], value=f"{function}({column})"), rows)
    theirs = duckdbs(rows, "response", value=f"{function}({column})")
    for ours, other in zip(found, theirs, strict=True):
        assert (ours["value"] is None) == (other["value"] is None)
        assert ours["value"] is None or math.isclose(ours["value"], other["value"], rel_tol=1e-9)
    numbers = [Fraction(value) for value in rows[column].to_pylist()[1:] if value is not None]
    mean = sum(numbers, Fraction(0)) / len(numbers)
    expected = {
        "avg": mean,
        "var_pop": sum(((number - mean) ** 2 for number in numbers), Fraction(0)) / len(numbers),
        "var_samp": sum(((number - mean) ** 2 for number in numbers), Fraction(0)) / (len(numbers) - 1),
    }
    if function in expected and column != "price":
        assert found[1]["value"] == expected[function].numerator / expected[function].denominator


@pytest.mark.parametrize(
    ("values", "aggregate", "expected"),
    [
        ([0.1] * 10, "sum(x)", 1.0),
        ([1e308, 1e308, -1e308], "sum(x)", 1e308),
        ([1e308, 1e308], "sum(x)", math.inf),
        ([1e16, 1.0, -1e16], "sum(x)", 1.0),
        ([5e-324, 5e-324], "avg(x)", 5e-324),
        ([NAN, 1.0], "sum(x)", NAN),
        ([math.inf, -math.inf], "avg(x)", NAN),
        ([math.inf, 1.0], "sum(x)", math.inf),
        ([-math.inf, 1.0], "avg(x)", -math.inf),
        ([math.inf, 1.0], "stddev(x)", NAN),
        ([1.0], "stddev(x)", None),
        ([1.0], "stddev_pop(x)", 0.0),
        ([1e200, -1e200], "var_pop(x)", math.inf),
        ([NAN, 1.0], "min(x)", 1.0),
        ([NAN, 1.0], "max(x)", NAN),
        ([NAN, 1.0, math.inf, 3.0], "approx_quantile(x, 1)", 3.0),
        ([NAN], "approx_quantile(x, 1)", None),
        ([None], "sum(x)", None),
        ([None], "avg(x)", None),
        ([None], "min(x)", None),
        ([None], "count(x)", 0),
        ([None], "approx_count_distinct(x)", 0),
        ([NAN, NAN, 0.0, -0.0, None], "approx_count_distinct(x)", 2),
        ([2.0, 1.0], "first(x)", 2.0),
        ([2.0, 1.0], "last(x)", 1.0),
        ([None, 1.0], "first(x)", None),
        ([None, 1.0], "first(x) FILTER (WHERE x IS NOT NULL)", 1.0),
        ([1.0, 2.0], "first(x) FILTER (WHERE x > 5)", None),
    ],
)
def test_odd_values(values: list[float | None], aggregate: str, expected: float | None) -> None:
    rows = pa.table({"x": pa.array(values, pa.float64())})
    [row] = results(aggregation(rows.schema, value=aggregate), rows)
    assert row["value"] == expected or (expected is not None and math.isnan(expected) and math.isnan(row["value"]))


def test_zeros_and_nans_are_one_group_each() -> None:
    rows = pa.table(
        {
            "x": pa.array([0.0, -0.0, NAN, None, -NAN, None, 1.0]),
            "s": pa.array([0.0, -0.0, 1, 1, 1, 1, 1], pa.float32()),
        }
    )
    found = results(aggregation(rows.schema, ["x"], n="count(*)"), rows)
    assert str([tuple(row.values()) for row in found]) == "[(0.0, 2), (1.0, 1), (nan, 2), (None, 2)]"
    assert len(results(aggregation(rows.schema, ["s"], n="count(*)"), rows)) == 2


@pytest.mark.parametrize(
    "values",
    [
        pa.array([True, None, False]),
        pa.array([Decimal("1.10"), None, Decimal("-3.00")], pa.decimal128(30, 2)),
        pa.array([1, None, -5], UTC),
        pa.array([1, None, 5], pa.date32()),
        pa.array([1, None, 5], pa.time64("us")),
        pa.array([b"\xff", None, b""]),
        pa.array(["é", None, ""]),
        pa.array([2**64 - 1, None, 0], pa.uint64()),
        pa.array([1.5, None, -2.5], pa.float32()),
        pa.array(["b", None, "a"]).dictionary_encode(),
    ],
    ids=lambda values: str(values.type),
)
def test_types_as_groups_and_as_values(values: pa.Array) -> None:
    rows = pa.table({"v": values, "w": values})
    wanted = {
        "n": "count(*)",
        "least": "min(w)",
        "greatest": "max(w)",
        "one": "first(w)",
        "d": "approx_count_distinct(w)",
    }
    found = results(aggregation(rows.schema, ["v"], **wanted), rows)
    smallest, largest = sorted(value for value in values.to_pylist() if value is not None)
    assert [row["v"] for row in found] == [smallest, largest, None]
    assert [row["n"] for row in found] == [1, 1, 1]
    assert [row["d"] for row in found] == [1, 1, 0]
    for row in found:
        assert row["least"] == row["greatest"] == row["one"] == row["v"]
    [whole] = results(aggregation(rows.schema, **wanted), rows)
    assert (whole["least"], whole["greatest"]) == (smallest, largest)


def test_result_types() -> None:
    schema = pa.schema(
        [("i", pa.int16()), ("u", pa.uint64()), ("d", pa.decimal128(10, 2)), ("f", pa.float32()), ("s", pa.string())]
    )
    kinds = {
        "count(*)": pa.int64(),
        "sum(i)": pa.int64(),
        "sum(u)": pa.uint64(),
        "sum(d)": pa.decimal128(38, 2),
        "sum(f)": pa.float64(),
        "avg(d)": pa.float64(),
        "min(f)": pa.float32(),
        "first(s)": pa.string(),
        "stddev(i)": pa.float64(),
        "approx_quantile(i, 0.5)": pa.int16(),
        "approx_quantile(d, 0.5)": pa.decimal128(10, 2),
        "approx_quantile(f, 0.5)": pa.float64(),
        "approx_count_distinct(s)": pa.int64(),
        "sum(i) / count(*)": pa.float64(),
    }
    made = aggregation(schema, ["s"], **{f"a{n}": sql for n, sql in enumerate(kinds)})
    assert made.schema.types == [UTC, UTC, pa.string(), *kinds.values()]
    assert made.columns == {"i", "u", "d", "f", "s"}


@pytest.mark.parametrize(
    ("values", "aggregate", "fault"),
    [
        (pa.array([2**63 - 1, 1]), "sum(x)", "sum(x): the sum does not fit into int64"),
        (pa.array([-(2**63), -1]), "sum(x)", "the sum does not fit into int64"),
        (pa.array([2**64 - 1, 1], pa.uint64()), "sum(x)", "the sum does not fit into uint64"),
        (
            pa.array([2**63 - 1, 1]),
            "count(*) + sum(x) FILTER (WHERE x > 0)",
            "sum(x) FILTER (WHERE (x > 0)): the sum does not fit into int64",
        ),
        (pa.array([300]), "sum(x)::TINYINT", "when casting from source column sum(x)"),
        (
            pa.array([Decimal(10**37)] * 10, pa.decimal128(38, 0)),
            "sum(x)",
            "the sum does not fit into decimal128(38, 0)",
        ),
        (pa.array([10**15]), "sum(x) * sum(x)", "Overflow in multiplication"),
    ],
)
def test_a_result_that_does_not_fit_is_told_with_its_group(values: pa.Array, aggregate: str, fault: str) -> None:
    keys = ["bad"] * len(values) + ["good"]
    rows = pa.table({"k": pa.array(keys), "x": pa.concat_arrays([values, pa.array([1]).cast(values.type)])})
    made = WindowAggregation(AggregationRules({"k": "k"}, {"total": aggregate}), rows.schema)
    opened = made.open()
    opened.add(windowed(rows, [0] * len(keys), [("s", n) for n in range(len(keys))]))
    finished = made.finish(opened.partials(), minutes(0))
    assert finished.rows["k"].to_pylist() == ["good"]
    assert finished.keys().to_pylist() == [f'{{{MINUTE},"k":"good"}}']
    [told] = finished.faults
    assert fault in told
    assert '"k":"bad"' in told
    assert "_aggregate_" not in told


@pytest.mark.parametrize("value", ["/x_aggregate_99", "_aggregate_99", "my_aggregate_0"])
def test_a_value_like_one_of_our_columns_is_told_as_it_is(value: str) -> None:
    rules = AggregationRules({"path": "path"}, {"n": "count(*)"}, then=["SELECT path::INTEGER AS path, n FROM input"])
    rows = pa.table({"path": [value]})
    made = WindowAggregation(rules, rows.schema)
    opened = made.open()
    opened.add(windowed(rows, [0], [("s", 0)]))
    [told] = made.finish(opened.partials(), minutes(0)).faults
    assert told.count(value) == 2


def test_sums_beyond_64_bits_that_come_back() -> None:
    rows = pa.table(
        {
            "x": pa.array([2**63 - 1] * 5 + [-(2**63) + 1] * 5),
            "y": pa.array([Decimal(9 * 10**37)] * 5 + [Decimal(-9 * 10**37)] * 5),
        }
    )
    assert results(aggregation(rows.schema, x="sum(x)", y="sum(y)", m="avg(x)"), rows) == [{"x": 0, "y": 0, "m": 0.0}]


@pytest.mark.parametrize("name", ["lognormal", "normal", "integers", "constant", "decimals"])
def test_quantiles_are_within_a_hundredth(name: str) -> None:
    chance = np.random.default_rng(3)
    values = {
        "lognormal": pa.array(chance.lognormal(0, 5, 5_000)),
        "normal": pa.array(chance.normal(0, 1, 5_000)),
        "integers": pa.array(chance.integers(-(10**9), 10**9, 5_000)),
        "constant": pa.array([999] * 5_000),
        "decimals": pa.array(chance.integers(0, 10**8, 5_000)).cast(pa.decimal128(19, 0)),
    }[name]
    rows = pa.table({"x": values})
    wanted = (0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1)
    [row] = results(aggregation(rows.schema, **{f"q{q}": f"approx_quantile(x, {q})" for q in wanted}), rows)
    ascending = sorted(values.to_pylist())
    for q in wanted:
        exactly = float(ascending[math.floor(q * (len(values) - 1))])
        assert abs(float(row[f"q{q}"]) - exactly) <= abs(exactly) / 128
    assert name != "constant" or set(row.values()) == {999}


def test_small_whole_numbers_have_exact_quantiles() -> None:
    rows = pa.table({"x": [*range(-128, 129)]})
    wanted = (0.0, 0.3, 0.5, 0.77, 1.0)
    [row] = results(aggregation(rows.schema, **{f"q{q}": f"approx_quantile(x, {q})" for q in wanted}), rows)
    assert row == {f"q{q}": math.floor(q * 256) - 128 for q in wanted}


@pytest.mark.parametrize("count", [1, 10, 1_000, 5_000, 20_000, 200_000])
@pytest.mark.parametrize("kind", ["number", "text"])
def test_distinct_counts_are_within_five_standard_errors(count: int, kind: str) -> None:
    values = pa.array(range(count)) if kind == "number" else pa.array([f"user-{n}" for n in range(count)])
    register, rank = sketches.registers(hashing.hashes(values))
    most = np.zeros(sketches.REGISTERS, np.int64)
    np.maximum.at(most, register, rank)
    assert abs(sketches.distinct(most[most > 0].tolist()) - count) <= max(1, 5 * 0.0163 * count)


FIXED_HASHES = [
    0xE220A8397B1DCDAF,
    0xE4D971771B652C20,
    0x2545F4914F6CDD1D,
    0xE220A8397B1DCDAF,
    0xDA392E041ECC1ABE,
    0xCDAEA4583CA7B14E,
    0xE220A8397B1DCDAF,
    0x88747B63583E67C7,
    0x8709D8D19B4C0AC2,
    0x48218226FF3CD4BF,
    0x9E2A8E838E119023,
    0x2545F4914F6CDD1D,
]


def test_hashes_are_fixed() -> None:
    """They are kept in partials: another hash would count what was met before twice."""
    found = [
        hashing.hashes(pa.array([0, 1, None])),
        hashing.hashes(pa.array(["", "a", "0123456789abcdef-"])),
        hashing.hashes(pa.array([0.0, 1.5, NAN])),
        hashing.hashes(pa.array([Decimal("0.00"), Decimal("1.50"), None])),
    ]
    assert [int(value) for array in found for value in array] == FIXED_HASHES


def test_a_hash_does_not_depend_on_where_a_column_begins() -> None:
    column = pa.array(["x" * n for n in range(40)] + [None])
    assert (hashing.hashes(column)[7:] == hashing.hashes(column.slice(7))).all()
    prices = pa.array([Decimal(n) for n in range(40)], pa.decimal128(38, 0))
    assert (hashing.hashes(prices)[7:] == hashing.hashes(prices.slice(7))).all()


def test_numbers_in_digits_are_exact() -> None:
    chance = np.random.default_rng(0)
    spread = chance.normal(size=500) * 10.0 ** chance.integers(-300, 300, 500)
    numbers = np.concatenate([spread, [0.0, -0.0, 5e-324, 1.7e308, -5e-324]])
    sign, magnitude, power = exact.taken_apart(numbers)
    for pairs, unit, expected in (
        (exact.digits(sign, magnitude, power), exact.UNIT, sum(map(Fraction, numbers.tolist()))),
        (exact.square_digits(magnitude, power), 2 * exact.UNIT, sum(Fraction(x) ** 2 for x in numbers.tolist())),
    ):
        columns: dict[int, int] = {}
        for places, digits in pairs:
            assert np.abs(digits).max() < 1 << 25
            for place, digit in zip(places.tolist(), digits.tolist(), strict=True):
                columns[place] = columns.get(place, 0) + digit
        assert Fraction(exact.total(columns), 1 << unit) == expected


def test_first_and_last_go_by_time_then_split_then_position() -> None:
    rows = pa.table({"x": ["late", "b7", "a9", "a10", "soon"]})
    made = aggregation(rows.schema, one="first(x)", other="last(x)")
    times, places = [50, 10, 10, 10, 5], [("a", 1), ("b", 7), ("a", 9), ("a", 10), ("b", 8)]
    for order in ([0, 1, 2, 3, 4], [1, 4, 0, 2, 3]):
        parts = []
        for row in order:
            opened = made.open()
            opened.add(windowed(rows.slice(row, 1), [times[row]], [places[row]]))
            parts.append(opened.partials())
        [found] = made.finish(made.merge(parts[:4]), minutes(0)).rows.to_pylist()
        if order[4] == 4:
            assert (found["one"], found["other"]) == ("a9", "late")
        [found] = made.finish(made.merge(parts), minutes(0)).rows.to_pylist()
        assert (found["one"], found["other"]) == ("soon", "late")


def test_a_row_may_be_in_several_windows() -> None:
    rows = pa.table({"x": [1, 10, 100]})
    made = aggregation(rows.schema, total="sum(x)", one="first(x)")
    opened = made.open()
    opened.add(windowed(rows, [1, 2, 3], [("a", n) for n in range(3)], [[-60, 0], [], [0, 60]]))
    windows = [Window(start, start + 100) for start in (60, 0, -60)]
    found = made.finish(opened.partials(), windows).rows.to_pylist()
    assert [(row["total"], row["one"]) for row in found] == [(1, 1), (101, 1), (100, 100)]
    assert [row["window_end"].microsecond for row in found] == [40, 100, 160]


def test_rows_of_very_many_windows_are_folded_in_parts() -> None:
    rows = pa.table({"x": pa.array(["1", "x", "3", "4"])})
    made = aggregation(rows.schema, n="count(*)", total="sum(x::INTEGER)")
    opened = made.open()
    starts = [[*range(100_000)], [*range(200_000)], [*range(300_000)], [7]]
    rejects = opened.add(windowed(rows, [0] * 4, [("s", n) for n in range(4)], starts))
    assert rejects["reason"].to_pylist() == ["aggregate", "too_many_groups"]
    [first, other] = made.finish(opened.partials(), [Window(7, 8), Window(99_999, 100_000)]).rows.to_pylist()
    assert (first["n"], first["total"], other["n"], other["total"]) == (2, 5, 1, 1)


def test_a_row_that_fails_is_a_reject_and_its_neighbours_are_not() -> None:
    rows = pa.table({"text": pa.array(["1", "x", "3", None]), "k": pa.array(["a", "a", "a", "b"])})
    made = aggregation(rows.schema, ["k"], total="sum(text::INTEGER)", n="count(*)")
    opened = made.open()
    rejects = opened.add(windowed(rows, [0] * 4, [("s", n) for n in range(4)], [[0], [0], [0, 60], [0]]))
    assert rejects["_row"].to_pylist() == [1]
    assert rejects["reason"].to_pylist() == ["aggregate"]
    assert "x" in rejects["error"][0].as_py()
    found = made.finish(opened.partials(), [Window(0, 60), Window(60, 120)]).rows.to_pylist()
    assert [(row["k"], row["total"], row["n"]) for row in found] == [("a", 4, 2), ("b", None, 1), ("a", 3, 1)]


def test_a_row_in_no_window_is_not_looked_at() -> None:
    rows = pa.table({"text": ["1", "x"]})
    opened = aggregation(rows.schema, total="sum(text::INTEGER)").open()
    assert opened.add(windowed(rows, [0, 0], [("s", 0), ("s", 1)], [[0], []])).num_rows == 0


def test_more_groups_than_a_split_may_bring() -> None:
    rows = pa.table({"k": ["a", "b", "a", "c", "b", "d", "c"]})
    made = WindowAggregation(AggregationRules({"k": "k"}, {"n": "count(*)"}, max_groups=2), rows.schema)
    places = [("s", 0), ("s", 1), ("s", 2), ("s", 3), ("t", 0), ("t", 1), ("t", 2)]
    for batches in (
        [slice(0, 7)],
        [slice(0, 2), slice(2, 4), slice(4, 7)],
        [slice(n, n + 1) for n in (4, 0, 5, 1, 2, 6, 3)],
    ):
        opened = made.open()
        refused = []
        for batch in batches:
            part = rows.slice(batch.start, batch.stop - batch.start)
            rejects = opened.add(windowed(part, [0] * part.num_rows, places[batch]))
            refused += [places[batch][row] for row in rejects["_row"].to_pylist()]
            assert set(rejects["reason"].to_pylist()) <= {"too_many_groups"}
        assert sorted(refused) == [("s", 3), ("t", 2)]
        found = made.finish(opened.partials(), minutes(0)).rows
        assert [tuple(row.values())[2:] for row in found.to_pylist()] == [("a", 2), ("b", 2), ("d", 1)]


def test_a_row_is_refused_with_all_its_windows() -> None:
    rows = pa.table({"x": [1, 2, 3]})
    made = WindowAggregation(AggregationRules({}, {"n": "count(*)"}, max_groups=2), rows.schema)
    opened = made.open()
    rejects = opened.add(windowed(rows, [0] * 3, [("s", n) for n in range(3)], [[0], [0, 60, 120], [60]]))
    assert rejects["_row"].to_pylist() == [1]
    assert opened.partials().starts == [0, 60]


def test_having_and_the_steps_after_it() -> None:
    rows = lines(2_000)
    rules = AggregationRules(
        {"status": "response", "private": "host LIKE '10.%'"},
        {"requests": "count(*)", "bytes": "sum(bytes)"},
        having="requests > 10 AND status < 500 AND max(bytes) > 0",
        then=[
            "SELECT * EXCLUDE (private), bytes / requests AS m FROM input",
            "SELECT *, m > 1 AS big FROM input",
        ],
    )
    made = WindowAggregation(rules, rows.schema)
    opened = made.open()
    opened.add(windowed(rows, [0] * 2_000, [("s", n) for n in range(2_000)]))
    finished = made.finish(opened.partials(), minutes(0))
    assert finished.rows.schema == made.schema
    assert made.schema.names == ["window_start", "window_end", "status", "requests", "bytes", "m", "big"]
    assert finished.rows["status"].to_pylist() == [200, 301, 304, 404]
    assert finished.keys().to_pylist()[0] == f'{{{MINUTE},"status":200,"private":true}}'


def test_a_step_that_fails_for_a_result_tells_all_of_it() -> None:
    rows = pa.table({"k": ["1", "x"]})
    rules = AggregationRules({"k": "k"}, {"n": "count(*)"}, then=["SELECT k::INTEGER AS k, n FROM input"])
    made = WindowAggregation(rules, rows.schema)
    opened = made.open()
    opened.add(windowed(rows, [0, 0], [("s", 0), ("s", 1)]))
    finished = made.finish(opened.partials(), minutes(0))
    assert finished.rows.to_pylist() == [{"k": 1, "n": 1}]
    [fault] = finished.faults
    assert '"k":"x"' in fault


def test_no_rows_are_no_windows() -> None:
    made = aggregation(pa.schema([("x", pa.int64())]), total="sum(x)")
    opened = made.open()
    nothing = pa.schema([("x", pa.int64())]).empty_table()
    assert opened.add(windowed(nothing, [], [])).num_rows == 0
    assert made.finish(opened.partials(), minutes(0)).rows.num_rows == 0
    assert made.finish(made.merge([]), []).rows.schema == made.schema


def test_partials_of_another_aggregation() -> None:
    schema = pa.schema([("x", pa.int64())])
    one, other = aggregation(schema, total="sum(x)"), aggregation(schema, ["x"], total="sum(x)")
    with pytest.raises(ValueError, match="another aggregation"):
        one.merge([other.open().partials()])
    with pytest.raises(ValueError, match="no partials of windows"):
        Partials.from_ipc(b"not Arrow")
    with pytest.raises(ValueError, match="no partials of windows"):
        Partials.from_ipc(one.open().partials().to_ipc().to_pybytes()[:-200])


def test_years_1_to_9999() -> None:
    rows = pa.table({"x": [1, 2]})
    made = aggregation(rows.schema, total="sum(x)")
    opened = made.open()
    first, last = -62_135_596_800_000_000, 253_402_300_800_000_000 - MINUTE_US
    opened.add(windowed(rows, [first, last], [("s", 0), ("s", 1)]))
    found = made.finish(opened.partials(), [Window(first, first + MINUTE_US), Window(last, last + MINUTE_US - 1)]).rows
    assert [text[:19] for text in found["window_start"].cast(pa.string()).to_pylist()] == [
        "0001-01-01 00:00:00",
        "9999-12-31 23:59:00",
    ]


@pytest.mark.parametrize("start", [-62_135_942_400_000_000, 253_402_128_000_000_000])
def test_a_group_that_fails_is_told_though_its_window_ends_behind_all_dates(start: int) -> None:
    """Weeks that begin before the year 1, or end behind the year 9999, for which Python has no dates."""
    rows = pa.table({"x": [1]})
    rules = AggregationRules(
        {},
        {"n": "count(*)"},
        then=["SELECT window_start - INTERVAL 1 DAY AS b, window_end + INTERVAL 1 DAY AS e FROM input"],
    )
    made = WindowAggregation(rules, rows.schema)
    opened = made.open()
    opened.add(windowed(rows, [start], [("s", 0)], [[start]]))
    finished = made.finish(opened.partials(), [Window(start, start + 7 * 1_440 * MINUTE_US)])
    assert finished.rows.num_rows == 0
    [fault] = finished.faults
    assert "outside of the years 1 to 9999" in fault
    assert finished.keys().to_pylist() == []


REFUSED = {
    "sum(bytes) + x": "x is neither a group nor inside an aggregate: group by it, or write for example max(x)",
    "count(DISTINCT host)": "write approx_count_distinct(x), within 1.6 %",
    "sum(DISTINCT bytes)": "leave DISTINCT out",
    "median(x)": "write approx_quantile(x, 0.5)",
    "quantile_cont(x, 0.5)": "write approx_quantile(x, q)",
    "string_agg(host, ',')": "would keep every value of the window",
    "any_value(x)": "any value would be chance",
    "arg_max(x, bytes)": "write first(x) or last(x), by event time",
    "corr(x, bytes)": "corr(...) is not known here; there are approx_count_distinct, approx_quantile, avg, count",
    "first(host ORDER BY x)": "first and last go by event time",
    "approx_quantile(x, 2)": "write q as a number from 0 to 1",
    "approx_quantile(x, [0.5, 0.9])": "write q as a number from 0 to 1; for several, one call each",
    "approx_quantile(x)": "write q as a number from 0 to 1",
    "sum(sum(bytes))": "an aggregate inside sum(...)",
    "sum(bytes) FILTER (WHERE count(*) > 1)": "an aggregate inside sum(...)",
    "sum(bytes, x)": "sum(...) takes one argument",
    "sum(host)": "sum(...) is of numbers, and this is string: cast it",
    "avg(datetime)": "for example epoch(column)",
    "min([x])": "there is no order among such values",
    "approx_count_distinct([x])": "cast it to VARCHAR",
    "count(*) OVER ()": "a window function (OVER)",
    "sum((SELECT 1))": "a subquery",
    "sum(random())": "does not depend on the record alone",
    "now() - max(datetime)": "does not depend on the record alone",
    "foo(bytes)": "there is no function foo",
    "sum(nope)": "there is no column nope",
    "bytes": "bytes is neither a group nor inside an aggregate",
    "sum(bytes) AS b": "write one expression, without a name",
    "sum(bytes), 1": "write one expression",
    "sum(bytes": "not an expression",
    "main.sum(bytes)": "write it as sum(main, ...)",
    "sum(bytes::HUGEINT)": "cast it to BIGINT or DECIMAL(38, 0)",
}
COLUMNS = pa.schema(
    [("response", pa.int16()), ("bytes", pa.int64()), ("datetime", UTC), ("host", pa.string()), ("x", pa.float64())]
)


@pytest.mark.parametrize("sql", REFUSED)
def test_what_is_refused_says_why_and_what_instead(sql: str) -> None:
    with pytest.raises(SqlProblems) as refused:
        WindowAggregation(AggregationRules({"response": "response"}, {"a": sql}), COLUMNS)
    [problem] = refused.value.problems
    assert problem.startswith("aggregate.a: ")
    assert REFUSED[sql] in problem


@pytest.mark.parametrize(
    ("rules", "problems"),
    [
        (AggregationRules({"k": "[x]"}, {"n": "count(*)"}), ["group_by.k: k is of type list"]),
        (
            AggregationRules({}, {"n": "count(host)", "s": "sum(host)"}),
            ["aggregate.s: sum(...) is of numbers, and this is string"],
        ),
        (AggregationRules({"k": "count(*)"}, {"n": "count(*)"}), ["group_by.k: count(*) is an aggregate"]),
        (AggregationRules({"k": "nope"}, {"n": "sum(nop)"}), ["group_by.k: there is no", "aggregate.n: there is no"]),
        (AggregationRules({"k": "x"}, {"K": "count(*)"}), ["aggregate.K: there is a column of this name already"]),
        (
            AggregationRules({}, {"window_start": "count(*)"}),
            ["aggregate.window_start: there is a column"],
        ),
        (
            AggregationRules({}, {"n": "count(*)"}, having="_aggregate_0 > 1"),
            ["having: there is no column _aggregate_0: names that begin with _ are private"],
        ),
        (AggregationRules({}, {"_n": "count(*)"}), ["aggregate._n: names that begin with _ are private"]),
        (
            AggregationRules({}, {"n": "count(*)"}, having="m > 1"),
            ["having: there is no column m; there are"],
        ),
        (AggregationRules({}, {"n": "count(*)"}, having="n"), ["having: it is of type int64: write a comparison"]),
        (AggregationRules({}, {"n": "count(*)"}, then=["SELECT m FROM input"]), ["then.0.sql: there is no column m"]),
        (AggregationRules({}, {"n": "count(*)"}, then=["SELECT sum(n) AS m FROM input"]), ["then.0.sql: sum(...) is"]),
    ],
)
def test_problems_have_their_places(rules: AggregationRules, problems: list[str]) -> None:
    with pytest.raises(SqlProblems) as refused:
        WindowAggregation(rules, COLUMNS)
    assert len(refused.value.problems) == len(problems)
    for found, expected in zip(refused.value.problems, problems, strict=True):
        assert found.startswith(expected)
