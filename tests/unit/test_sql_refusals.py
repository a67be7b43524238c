"""Statements that are not row-wise, or reach for more than the record, and how they are refused."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from streamsvc.records import ROW
from streamsvc.transforms.engine import SqlProblems
from streamsvc.transforms.placement import Placement
from streamsvc.transforms.sql import SqlTransform

SCHEMA = pa.schema(
    [
        ("host", pa.string()),
        ("bytes", pa.int64()),
        ("response", pa.int16()),
        ("datetime", pa.timestamp("us", "UTC")),
        ("tags", pa.list_(pa.string())),
        ("req", pa.struct([("path", pa.string()), ("n", pa.int64())])),
        ("ns", pa.timestamp("ns", "UTC")),
    ]
)

ONE_SELECT = "one SELECT"
ONLY_INPUT = "FROM must be input"
BATCHED = "depend on how records were batched"
NOT_OF_THE_RECORD = "does not depend on the record alone"
PRIVATE = "private"

REFUSED = {
    ONE_SELECT: [
        "",
        ";",
        "-- nothing",
        "/* SELECT * FROM input */",
        "SELECT * FROM input; SELECT 1",
        "SELECT * FROM input; DROP TABLE input",
        "SELECT host FROM input UNION SELECT host FROM input",
        "SELECT host FROM input UNION ALL BY NAME SELECT host FROM input",
        "SELECT host FROM input EXCEPT SELECT 'a'",
        "SELECT host FROM input INTERSECT SELECT 'a'",
        "EXPLAIN SELECT host FROM input",
        "PIVOT input ON host USING sum(bytes)",
        "PRAGMA version",
        "SET threads = 4",
        "RESET threads",
        "ATTACH 'x.db'",
        "COPY input TO 'x.csv'",
        "COPY (SELECT host FROM input) TO 'x.csv'",
        "EXPORT DATABASE 'x'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CREATE TABLE x AS SELECT * FROM input",
        "CREATE MACRO f(x) AS random()",
        "INSERT INTO input SELECT * FROM input",
        "DELETE FROM input",
        "UPDATE input SET host = ''",
        "CALL pragma_version()",
        "PREPARE p AS SELECT host FROM input",
        "EXECUTE p",
        "BEGIN",
    ],
    ONLY_INPUT: [
        "SELECT 1 AS one",
        "VALUES (1)",
        "TABLE other",
        "DESCRIBE input",
        "SUMMARIZE input",
        "SHOW TABLES",
        "SELECT host FROM (SELECT * FROM input)",
        "SELECT a.host FROM input a, input b",
        "SELECT a.host FROM input a JOIN input b USING (host)",
        "SELECT a.host FROM input a POSITIONAL JOIN input b",
        "SELECT a.host FROM input a ASOF JOIN input b USING (bytes)",
        "SELECT x FROM input, LATERAL (SELECT bytes + 1 AS x)",
        "SELECT x FROM input, unnest(tags) AS u(x)",
        "FROM input UNPIVOT (v FOR n IN (bytes, response))",
        "SELECT * FROM 'x.parquet'",
        'SELECT * FROM "/etc/passwd"',
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM range(3)",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM main.input",
        "SELECT * FROM memory.main.input",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM json_execute_serialized_sql('{}')",
        "SELECT host FROM input AT (VERSION => 1)",
    ],
    "filter with WHERE": [
        "SELECT host FROM input LIMIT 1",
        "SELECT host FROM input LIMIT 10%",
        "SELECT host FROM input OFFSET 1",
        "SELECT host FROM input HAVING true",
        "SELECT host FROM input QUALIFY row_number() OVER () = 1",
        "SELECT host FROM input TABLESAMPLE 10%",
        "SELECT host FROM input USING SAMPLE 1",
    ],
    "ORDER BY": ["SELECT host FROM input ORDER BY host"],
    "DISTINCT": ["SELECT DISTINCT host FROM input", "SELECT DISTINCT ON (host) host, bytes FROM input"],
    "GROUP BY": [
        "SELECT host FROM input GROUP BY host",
        "SELECT host FROM input GROUP BY ALL",
        "SELECT host FROM input GROUP BY ROLLUP (host)",
    ],
    "WITH": [
        "WITH x AS (SELECT 1) SELECT host FROM input",
        "WITH input AS (SELECT random() AS host) SELECT host FROM input",
        "WITH RECURSIVE x AS (SELECT 1 UNION ALL SELECT 1 FROM x) SELECT host FROM input",
    ],
    "subquery": [
        "SELECT (SELECT max(bytes) FROM input) AS m FROM input",
        "SELECT host FROM input WHERE bytes = (SELECT 1)",
        "SELECT host FROM input i WHERE EXISTS (SELECT 1 FROM input j WHERE j.host = i.host)",
        "SELECT host FROM input WHERE host IN (SELECT host FROM input)",
        "SELECT host FROM input WHERE bytes > ALL (SELECT 1)",
        "SELECT ARRAY(SELECT 1) AS a FROM input",
    ],
    "parameter": [
        "SELECT host FROM input WHERE bytes > $1",
        "SELECT host FROM input WHERE bytes > ?",
        "SELECT host FROM input WHERE bytes > $least",
    ],
    BATCHED: [
        "SELECT count(*) AS n FROM input",
        "SELECT count() AS n FROM input",
        "SELECT sum(bytes) AS n FROM input",
        "SELECT sum(bytes) FILTER (WHERE response = 200) AS n FROM input",
        "SELECT count(DISTINCT host) AS n FROM input",
        "SELECT host FROM input WHERE sum(bytes) > 1",
        "SELECT list(host ORDER BY bytes) AS n FROM input",
        "SELECT string_agg(host, ',') AS n FROM input",
        "SELECT any_value(host) AS n FROM input",
        "SELECT bytes + max(bytes) AS n FROM input",
        "SELECT list_transform(tags, lambda x: max(x)) AS n FROM input",
        "SELECT geomean(bytes) AS n FROM input",
        "SELECT wavg(bytes, bytes) AS n FROM input",
        "SELECT row_number() OVER () AS n FROM input",
        "SELECT lag(bytes) OVER (ORDER BY bytes) AS n FROM input",
        "SELECT sum(bytes) OVER w AS n FROM input WINDOW w AS ()",
        "SELECT row_number() AS n FROM input",
    ],
    "several rows": ["SELECT unnest(tags) AS t FROM input", "SELECT unnest(req) FROM input"],
    "names": [
        "SELECT req.* FROM input",
        "SELECT COLUMNS(*) FROM input",
        "SELECT COLUMNS('h.*') FROM input",
        "SELECT COLUMNS(lambda c: c LIKE 'h%') FROM input",
        "SELECT COLUMNS(*)::VARCHAR FROM input",
        "SELECT * LIKE 'h%' FROM input",
        "SELECT coalesce(*COLUMNS(['host', 'agent'])) AS c FROM input",
        "SELECT x FROM input AS t(x)",
    ],
    "by its number": ["SELECT #1 FROM input"],
    NOT_OF_THE_RECORD: [
        "SELECT random() AS n FROM input",
        'SELECT "RaNdOm"() AS n FROM input',
        "SELECT host FROM input WHERE random() < 0.5",
        "SELECT * REPLACE (random() AS host) FROM input",
        "SELECT CASE WHEN true THEN random() END AS n FROM input",
        "SELECT TRY(random()) AS n FROM input",
        "SELECT [random() FOR x IN tags] AS n FROM input",
        "SELECT uuid() AS n FROM input",
        "SELECT gen_random_uuid() AS n FROM input",
        "SELECT uuidv7() AS n FROM input",
        "SELECT now() AS n FROM input",
        "SELECT replace(host, 'a', now()::VARCHAR) AS n FROM input",
        "SELECT today() AS n FROM input",
        "SELECT current_date AS n FROM input",
        "SELECT CURRENT_TIMESTAMP AS n FROM input",
        "SELECT localtimestamp AS n FROM input",
        "SELECT get_current_timestamp() AS n FROM input",
        "SELECT transaction_timestamp() AS n FROM input",
        "SELECT ago(INTERVAL 1 DAY) AS n FROM input",
        "SELECT nextval('s') AS n FROM input",
        "SELECT currval('s') AS n FROM input",
        "SELECT setseed(0.5) AS n FROM input",
        "SELECT txid_current() AS n FROM input",
        "SELECT current_setting('threads') AS n FROM input",
        "SELECT getvariable('x') AS n FROM input",
        "SELECT current_query() AS n FROM input",
        "SELECT user AS n FROM input",
        "SELECT stats(bytes) AS n FROM input",
        "SELECT vector_type(bytes) AS n FROM input",
        "SELECT write_log('x') AS n FROM input",
        "SELECT sleep_ms(1000) AS n FROM input",
    ],
    "counts from today": ["SELECT age(datetime) AS n FROM input"],
    "plain names": [
        "SELECT main.random() AS n FROM input",
        "SELECT system.main.random() AS n FROM input",
        "SELECT datetime.age() AS n FROM input",
        "SELECT host.upper() AS n FROM input",
    ],
    "SQL engine": [
        "SELECT version() AS n FROM input",
        "SELECT format_type(1, 1) AS n FROM input",
        "SELECT get_block_size('memory') AS n FROM input",
        "SELECT json_serialize_plan('SELECT 1') AS n FROM input",
    ],
    "as a literal": [
        "SELECT list_aggregate(tags, 'reservoir_quantile', 0.5) AS n FROM input",
        "SELECT list_aggregate(tags, host) AS n FROM input",
        "SELECT list_aggregate(tags, 'reservoir' || '_quantile') AS n FROM input",
        "SELECT printf('%*d', bytes, 1) AS n FROM input",
        "SELECT printf('%2000000000d', 1) AS n FROM input",
        "SELECT printf(host, 1) AS n FROM input",
        "SELECT format('{:>{}}', 'a', bytes) AS n FROM input",
        "SELECT format('{:>2000000000}', 'a') AS n FROM input",
        "SELECT replace(host, 'a', tags[1]) AS n FROM input",
        "SELECT regexp_replace(host, 'a', repeat('b', 1000), 'g') AS n FROM input",
        f"SELECT replace(host, 'a', '{'b' * 101}') AS n FROM input",
        "SELECT replace(host, 'a', repeat('b', 101)) AS n FROM input",
        "SELECT replace(host, 'a', 'b'::INTEGER::VARCHAR) AS n FROM input",
        "SELECT replace(host, 'a', lower(host)) AS n FROM input",
    ],
    "as a whole number": [
        "SELECT generate_series(datetime, datetime + INTERVAL 1 YEAR, INTERVAL 1 SECOND) AS n FROM input",
        "SELECT range(DATE '2000-01-01', DATE '9000-01-01', INTERVAL 1 SECOND) AS n FROM input",
        "SELECT range(datetime, datetime, '1') AS n FROM input",
        "SELECT range(0, bytes, response) AS n FROM input",
    ],
    "version of the SQL engine": ["SELECT hash(host) % 16 AS n FROM input"],
    "width": [
        "SELECT lpad(host, bytes, 'x') AS n FROM input",
        "SELECT rpad(host, 2000000000, 'x') AS n FROM input",
    ],
    "for every record": [
        "SELECT repeat(host, 100000000) AS n FROM input",
        "SELECT list_transform(range(10000000), lambda x: x + 1) AS n FROM input",
        "SELECT generate_series(-100000000, 0, 7) AS n FROM input",
        "SELECT range(0, 1000 * 1000, 2::BIGINT) AS n FROM input",
        "SELECT repeat(host, 100000000::BIGINT) AS n FROM input",
        "SELECT repeat(host, '100000000') AS n FROM input",
    ],
    "makes a table": ["SELECT read_text('/etc/passwd') AS n FROM input"],
    PRIVATE: [
        "SELECT _row FROM input",
        "SELECT _ROW + 1 AS x FROM input",
        "SELECT input._row AS x FROM input",
        "SELECT t._row AS x FROM input AS t",
        "SELECT * EXCLUDE (_row) FROM input",
        "SELECT * REPLACE (1 AS _row) FROM input",
        "SELECT * RENAME (_row AS x) FROM input",
        "SELECT * RENAME (host AS _Row) FROM input",
        "SELECT host AS _row FROM input",
        "SELECT host AS _partition_date FROM input",
        "SELECT host FROM input WHERE _row = 0",
    ],
    "there is no column": [
        "SELECT input FROM input",
        "SELECT rowid FROM input",
        "SELECT filename FROM input",
        "SELECT host FROM input WHERE agent = ''",
        "SELECT * EXCLUDE (agent) FROM input",
        "SELECT * REPLACE (1 AS agent) FROM input",
        "SELECT * RENAME (agent AS x) FROM input",
        "SELECT list_transform(tags, x -> x) AS n FROM input",
        "SELECT list_transform(tags, lambda x: y) AS n FROM input",
    ],
    "did you mean host?": ["SELECT hosst FROM input"],
    "did you mean upper?": ["SELECT uper(host) AS x FROM input"],
    "there is a column": [
        "SELECT bytes, bytes FROM input",
        "SELECT *, bytes FROM input",
        "SELECT *, * FROM input",
        "SELECT bytes AS a, host AS A FROM input",
    ],
    "AS name": ["SELECT bytes + 1 FROM input", "SELECT upper(host) FROM input", "SELECT 1 FROM input"],
    "no column is left": ["SELECT * EXCLUDE (host, bytes, response, datetime, tags, req, ns) FROM input"],
    "another name": ["SELECT list_transform(tags, lambda input: input) AS n FROM input"],
    "is of type": [
        "SELECT NULL AS x FROM input",
        "SELECT [NULL] AS x FROM input",
        "SELECT bytes::HUGEINT AS x FROM input",
        "SELECT INTERVAL 1 DAY AS x FROM input",
        "SELECT datetime::TIMESTAMP_NS AS x FROM input",
        "SELECT union_value(a := 1) AS x FROM input",
        "SELECT struct_pack(*) AS x FROM input",
    ],
    "nanoseconds": ["SELECT ns FROM input", "SELECT * FROM input"],
    "(line 2, column 6 of the statement)": ["SELECT host\nFROM WHERE"],
    "nested too deeply": [
        f"SELECT {'abs(' * 300}bytes{')' * 300} AS x FROM input",
        f"SELECT {'[' * 900}1{']' * 900} AS x FROM input",
    ],
    "too large": [f"SELECT bytes AS x0, {', '.join(f'x{n} + x{n} AS x{n + 1}' for n in range(40))} FROM input"],
    "longer than": [f"SELECT '{'x' * 100_000}' AS x FROM input"],
    "no text": ["SELECT '\0' AS x FROM input", "SELECT '\ud800' AS x FROM input"],
    "by way of another type": ["SELECT datetime::TIME AS t FROM input", "SELECT bytes::ENUM('1') AS t FROM input"],
    "write a comparison": ["SELECT host FROM input WHERE bytes", "SELECT host FROM input WHERE NULL"],
    "missing )": ["SELECT regexp_matches(host, '(') AS x FROM input"],
    "Type with name": ["SELECT CAST(host AS nosuch) AS x FROM input", "SELECT CAST(host AS inet) AS x FROM input"],
}


@pytest.mark.parametrize(("why", "sql"), [(why, sql) for why, statements in REFUSED.items() for sql in statements])
def test_refused_with_the_reason(why: str, sql: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as refusal:
        SqlTransform(sql, SCHEMA)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("replace(host, '-', chr(32))", "a b"),
        ("replace(host, '-', 'b' || 'c')", "abcb"),
        ("replace(host, '-', '+'::VARCHAR)", "a+b"),
        ("replace(host, '-', NULL)", None),
        ("regexp_replace(host, '[-]', lower('X'), 'g')", "axb"),
        ("range(1, 5, 2::BIGINT)", [1, 3]),
        ("range(1, bytes, 1 + 1)", [1, 3]),
        ("generate_series(1, bytes, response::BIGINT)", [1, 4]),
    ],
)
def test_a_constant_is_as_good_as_a_literal(expression: str, value: object) -> None:
    rows = pa.record_batch({"host": ["a-b"], "bytes": [5], "response": [3], ROW: pa.array([0], pa.int32())})
    made = SqlTransform(f"SELECT {expression} AS made FROM input", rows.schema.remove(3)).apply(rows)
    assert made.rows["made"].to_pylist() == [value]


def test_the_sample_that_a_hint_names_works_for_numbers() -> None:
    with pytest.raises(ValueError, match=r"md5_number_lower\(column::VARCHAR\) % 10") as refusal:
        SqlTransform("SELECT host FROM input TABLESAMPLE 10%", SCHEMA)
    sample = str(refusal.value).rpartition(" on ")[2].replace("column", "bytes")
    SqlTransform(f"SELECT host FROM input WHERE {sample} = 0", SCHEMA)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SqlProblems) as refusal:
        SqlTransform(
            "SELECT *, count(*) AS n, n + 1 AS m, upper(n) AS o, now() AS t, * EXCLUDE (nope)"
            " FROM input WHERE hosst = ''",
            SCHEMA,
        )
    beginnings = ["count(*) is an aggregate", "now(...) ", "there is no column nope", "there is no column hosst"]
    assert [
        problem[: len(begin)] for problem, begin in zip(refusal.value.problems, beginnings, strict=True)
    ] == beginnings


def test_every_clause_that_is_refused_is_said_at_once() -> None:
    with pytest.raises(SqlProblems) as refusal:
        SqlTransform("SELECT host, count(*) FROM input GROUP BY host HAVING count(*) > 1 ORDER BY 1 LIMIT 5", SCHEMA)
    assert [problem.split(":")[0] for problem in refusal.value.problems] == [
        "ORDER BY",
        "LIMIT and OFFSET",
        "GROUP BY",
        "HAVING",
    ]


def test_what_the_engine_refuses_is_said_of_each_expression() -> None:
    with pytest.raises(SqlProblems) as refusal:
        SqlTransform("SELECT upper(bytes) AS a, host, INTERVAL 1 DAY AS b FROM input WHERE bytes", SCHEMA)
    no_function = "No function matches the given name and argument types 'upper(BIGINT)'."
    assert refusal.value.problems == (
        f"{no_function} You might need to add explicit type casts.",
        "b is of type INTERVAL: write it as a number: epoch(column), epoch_ms(column)",
        "WHERE is of type BIGINT: write a comparison",
    )


def test_every_partition_expression_that_is_wrong_is_said() -> None:
    with pytest.raises(SqlProblems) as refusal:
        Placement({"a": "hosst", "b": "host", "c": "count(*)"}, SCHEMA)
    assert [problem[:20] for problem in refusal.value.problems] == ["a: there is no colum", "c: count(*) is an ag"]


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("host, bytes", "one expression"),
        ("host AS x", "one expression"),
        ("host FROM input WHERE bytes > 1 --", "not an expression"),
        ("host FROM input; SELECT host", "one SELECT statement"),
        ("host WHERE bytes > 1 --", "not an expression"),
        ("host FROM other; SELECT host --", "one SELECT statement"),
        ("1; DROP TABLE input --", "not an expression"),
        ("*", "* inside an expression"),
        ("count(*)", BATCHED),
        ("now()", NOT_OF_THE_RECORD),
        ("_row", PRIVATE),
        ("(SELECT 1)", "subquery"),
        ("unnest(tags)", "several rows"),
        ("", "not an expression"),
        ("-- x", "not an expression"),
        ("hosst", "did you mean host?"),
        ("host + 1 - datetime", "No function matches"),
    ],
)
def test_partition_expressions_are_held_to_the_same(expression: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"^day: ") as refusal:
        Placement({"response": "response", "day": expression}, SCHEMA)
    assert why in str(refusal.value)


def test_columns_that_sql_cannot_tell_apart() -> None:
    schema = pa.schema([("id", pa.int64()), ("ID", pa.int64())])
    with pytest.raises(ValueError, match="cannot tell the columns id and ID apart"):
        SqlTransform("SELECT 1 AS one FROM input", schema)
    with pytest.raises(ValueError, match="cannot tell"):
        Placement({"id": "id"}, schema)
