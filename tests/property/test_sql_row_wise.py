"""A step over batches is the same SQL over all rows at once, however they are batched; and so is a partition value."""

from __future__ import annotations

import datetime as dt
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.records import ROW
from streamsvc.transforms.column_types import plain
from streamsvc.transforms.placement import Placement
from streamsvc.transforms.sql import SqlTransform

SCHEMA = pa.schema(
    [
        ("host", pa.string()),
        ("Bytes", pa.int64()),
        ("response", pa.int16()),
        ("datetime", pa.timestamp("us", "UTC")),
        ("tags", pa.list_(pa.string())),
        ("req", pa.struct([("path", pa.string()), ("n", pa.int32())])),
        ("_timestamp", pa.timestamp("ms", "UTC")),
        ("kind", pa.dictionary(pa.int8(), pa.string())),
        ("input", pa.int32()),
        ("raw", pa.binary()),
    ]
)

STATEMENTS = [
    "SELECT * FROM input",
    "FROM input",
    "SELECT *, bytes / 1024 AS kib FROM input WHERE response >= 200",
    "SELECT host, BYTES FROM input WHERE response = 200 AND bytes > 0 OR host IS NULL",
    "SELECT * EXCLUDE (host, tags) REPLACE (bytes + 1 AS bytes, host AS kind) RENAME (datetime AS at_) FROM input",
    "SELECT i.* EXCLUDE (i.host), i.req.path AS p, i.input AS input_ FROM input AS i WHERE i.input IS NOT NULL",
    "SELECT upper(host) AS h, h || '!' AS shout, length(shout) AS n FROM input WHERE n > 1",
    "SELECT req.path, req.n + 1 AS n FROM input WHERE req.path LIKE '%a%'",
    "SELECT list_transform(tags, lambda t: upper(t)) AS t, [x || host FOR x IN tags IF x <> 'a'] AS u FROM input",
    "SELECT list_transform(tags, lambda host, i: host || i::VARCHAR) AS shadowed, host FROM input",
    "SELECT list_aggregate(tags, 'string_agg', '-') AS t, list_sort(tags) AS s, len(tags) AS n FROM input",
    "SELECT CASE WHEN response BETWEEN 200 AND 299 THEN 'ok' WHEN response IN (404, 410) THEN 'x' END AS c FROM input",
    "SELECT coalesce(host, '-') AS h, nullif(response, 200) AS r, if(bytes > 1, 'x', 'y') AS i FROM input",
    "SELECT strftime(datetime, '%Y-%m-%d') AS d, datetime::DATE AS e, date_trunc('hour', datetime) AS h FROM input",
    "SELECT datetime - INTERVAL 1 DAY AS y, extract(hour FROM datetime) AS h FROM input WHERE datetime > '1970-01-01'",
    "SELECT datetime AT TIME ZONE 'Asia/Tokyo' AS t FROM input",
    "SELECT TRY_CAST(host AS INTEGER) AS n, TRY(host::DOUBLE) AS d, md5_number_lower(host) % 16 AS b FROM input",
    "SELECT bytes::DECIMAL(20, 2) AS d, bytes::DOUBLE / 3 AS x, 1.5 AS c, 'a' AS k, kind || 'z' AS z FROM input",
    "SELECT {'a': host, 'b': [bytes]} AS s, map {'h': host} AS m, struct_extract(req, 'n') AS n FROM input",
    "SELECT regexp_extract(host, '([a-z]+)', 1) AS w, split_part(host, 'a', 1) AS p, host[1:2] AS h FROM input",
    "SELECT NOT (host = 'a' AND bytes > 0) AS b, host IS DISTINCT FROM kind AS d FROM input WHERE NOT -bytes < 0",
    "SELECT raw, octet_length(raw) AS n, to_base64(raw) AS b, _timestamp, epoch_ms(_timestamp) AS ms FROM input",
    "SELECT host COLLATE NOCASE = 'A' AS a, host SIMILAR TO 'a.*' AS s, host GLOB 'a*' AS g FROM input",
    "SELECT '{\"a\": 1}'->>'a' AS t, ('[1]'::JSON)->0 AS j, md5(host)::UUID AS u FROM input",
    "SELECT response::VARCHAR::ENUM('200', '404') AS e FROM input WHERE response IN (200, 404)",
    "SELECT kind, host kind2, n: bytes + 1, _timestamp AS at_ FROM input WHERE true",
    "SELECT x'00ff' AS b, -5 AS n, 1e300 AS d, E'a\\n' AS s, DATE '2020-01-01' + 1 AS t, 1.50 AS e FROM input",
    "SELECT host LIKE '1!%' ESCAPE '!' AS l, host NOT ILIKE 'A%' AS m, bytes ** 2 AS p, bytes & 3 | 4 AS o FROM input",
    "SELECT bytes NOT BETWEEN 1 AND 2 AS b, bytes NOT IN (1, 2) AS i, -(-bytes) AS n, bytes - (2 - 1) AS s FROM input",
    "SELECT trim(BOTH 'a' FROM host) AS t, position('a' IN host) AS p, substring(host FROM 2 FOR 1) AS s FROM input",
    'SELECT 1 AS one, \'it\'\'s\' AS quoted, "Bytes" AS "odd ""name" FROM input WHERE false OR input > 0',
]

times = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30), timezones=st.just(dt.UTC))
row = st.fixed_dictionaries(
    {
        "host": st.none() | st.sampled_from(["", "a", "A", "aa", "12", "1e3", "é", "a-b", "\U0001f600"]),
        "Bytes": st.none() | st.integers(-(10**6), 10**6),
        "response": st.none() | st.sampled_from([200, 201, 404, 410, 500]),
        "datetime": st.none() | times,
        "tags": st.none() | st.lists(st.none() | st.sampled_from(["a", "b", ""]), max_size=3),
        "req": st.none()
        | st.fixed_dictionaries(
            {"path": st.none() | st.sampled_from(["/a", "/b"]), "n": st.none() | st.integers(0, 9)}
        ),
        "_timestamp": st.none() | times.map(lambda time: time.replace(microsecond=0)),
        "kind": st.none() | st.sampled_from(["a", "b"]),
        "input": st.none() | st.integers(-1, 1),
        "raw": st.none() | st.binary(max_size=3),
    }
)
batches = st.lists(st.lists(row, max_size=6), min_size=1, max_size=4)


def record_batch(rows: list[dict[str, Any]], first: int = 0) -> pa.RecordBatch:
    batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
    return batch.append_column(ROW, pa.arange(first, first + len(rows)).cast(pa.int32()))


def numbered(batches_of_rows: list[list[dict[str, Any]]]) -> list[pa.RecordBatch]:
    """Batches whose ``_row`` counts through, so that rows can be told apart."""
    made, first = [], 0
    for rows in batches_of_rows:
        made.append(record_batch(rows, first))
        first += len(rows)
    return made


@cache
def step_of(sql: str) -> SqlTransform:
    return SqlTransform(sql, SCHEMA)


@pytest.mark.parametrize("sql", STATEMENTS)
@settings(max_examples=15, deadline=None)
@given(batches=batches)
def test_a_step_is_the_statement_over_all_rows(sql: str, batches: list[list[dict[str, Any]]]) -> None:
    step = step_of(sql)
    parts = [step.apply(batch) for batch in numbered(batches)]
    assert all(part.rejects.num_rows == 0 for part in parts)
    made = pa.Table.from_batches([part.rows for part in parts])
    assert made.schema == step.schema.append(pa.field(ROW, pa.int32()))
    everything = pa.Table.from_batches(numbered(batches)).drop_columns([ROW])
    assert made.drop_columns([ROW]).to_pylist() == reference(sql, everything, step.schema)


def reference(sql: str, rows: pa.Table, schema: pa.Schema) -> list[dict[str, Any]]:
    """What DuckDB makes of all rows, as the user wrote it, with its optimiser, in the types of a step."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("input", rows)
        answer = connection.sql(sql).to_arrow_table()
    columns = [plain(column, kind) for column, kind in zip(answer.columns, schema.types, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema).to_pylist()


FAILING = [
    "SELECT host::INTEGER AS n FROM input",
    "SELECT *, Bytes * 9223372036854 AS big FROM input WHERE host <> ''",
    "SELECT bytes // input AS q FROM input WHERE host::DOUBLE > 0 OR bytes > 0",
    "SELECT host FROM input WHERE host <> 'a' AND host <> 'A' AND host::INTEGER > 0",
    "SELECT CASE WHEN bytes < 0 THEN error('below zero: ' || bytes) ELSE bytes END AS b FROM input",
    "SELECT strptime(host, '%d') AS d, response::UTINYINT AS r FROM input",
    "SELECT _timestamp FROM input",
]


@pytest.mark.parametrize("sql", FAILING)
@settings(max_examples=10, deadline=None)
@given(batches=batches)
def test_a_row_that_fails_never_takes_its_neighbours_along(sql: str, batches: list[list[dict[str, Any]]]) -> None:
    step = step_of(sql)
    whole = record_batch([row for rows in batches for row in rows])
    alone = [step.apply(whole.slice(index, 1)) for index in range(whole.num_rows)]
    for parts in ([whole], numbered(batches)):
        sifted = [step.apply(part) for part in parts]
        assert rows_of(sifted) == rows_of(alone)
        assert sorted(rejects_of(sifted)) == rejects_of(alone)


def rows_of(sifted: list[Any]) -> list[dict[str, Any]]:
    return [row for part in sifted for row in part.rows.to_pylist()]


def rejects_of(sifted: list[Any]) -> list[tuple[Any, ...]]:
    return [tuple(reject.values()) for part in sifted for reject in part.rejects.to_pylist()]


formats = st.lists(
    st.sampled_from(["%Y", "%m", "%d", "%H", "%M", "-", "/", "T", " ", "é"]), min_size=1, max_size=6
).map("".join)
instants = (
    st.none()
    | times.filter(lambda time: time.year > 1000)
    | times
    | st.sampled_from(
        [
            dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC),
            dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
            dt.datetime(1582, 10, 10, tzinfo=dt.UTC),
            dt.datetime(2026, 3, 29, 1, 30, tzinfo=dt.UTC),
            dt.datetime(1, 1, 1, tzinfo=dt.UTC),
            dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC),
        ]
    )
)


kinds = [pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.timestamp("ms", "UTC"), pa.timestamp("s", "UTC")]


@settings(max_examples=60, deadline=None)
@given(pattern=formats, column=st.lists(instants, max_size=20), kind=st.sampled_from(kinds))
def test_the_text_of_a_time_is_what_the_engine_says(
    pattern: str, column: list[dt.datetime | None], kind: pa.TimestampType
) -> None:
    times_ = pa.array(column, pa.timestamp("us", "UTC")).cast(kind, safe=False)
    rows = pa.RecordBatch.from_arrays([times_, pa.arange(0, len(column)).cast(pa.int32())], names=["t", ROW])
    placement = Placement({"p": f"strftime(t, '{pattern}')"}, pa.schema([("t", kind)]))
    placed = placement.apply(rows).rows.column(0)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("rows_", rows)
        direct = connection.sql(f"SELECT strftime(t, '{pattern}') FROM rows_").to_arrow_table().column(0)
    assert placed.to_pylist() == direct.to_pylist()
