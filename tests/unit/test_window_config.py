"""``window:`` of a configuration: what it may say, and where each problem of it is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from streamsvc import app
from streamsvc.config import Pipeline, Rules
from streamsvc.config_window import Window
from streamsvc.errors import ConfigError
from streamsvc.transforms.aggregation.build import build_window
from streamsvc.transforms.engine import SqlProblems

UTC = pa.timestamp("us", "UTC")
COLUMNS = pa.schema(
    [("response", pa.int16()), ("bytes", pa.int64()), ("datetime", UTC), ("host", pa.string()), ("x", pa.float64())]
)

FILE = """\
service: web-logs
state: memory://lake/_streamsvc
pipelines:
  p:
    source: {kafka: {brokers: "127.0.0.1:9092", topics: [access]}}
    decode: {apache: combined}
    sink: {path: "memory://lake/status/"}
    window:
"""

DESIGNED = """
tumble: 5m
hop: 1m
offset: 30s
timezone: UTC
time: datetime
disorder: 10s
lateness: 30s
max_ahead: 1h
group_by: [response]
aggregate:
  requests: count(*)
  bytes: sum(bytes)
  p99: "approx_quantile(bytes, 0.99)"
  errors: "count(*) FILTER (WHERE response >= 500)"
having: requests > 10
then: [{sql: "SELECT *, bytes / requests AS mean FROM input"}]
interval: 5s
max_groups: 100000
close_idle_after: null
late: {path: "memory://lake/late/"}
"""

SMALL = "tumble: 5m\ntime: datetime\naggregate: {n: count(*)}\n"


def load(folder: Path, window: str, above: str = FILE) -> Pipeline:
    file = folder / "config.yaml"
    file.write_text(above + "".join(f"      {line}\n" for line in window.strip().splitlines()))
    return app.load(file).pipelines["p"]


def problems_of(folder: Path, window: str, above: str = FILE) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(folder, window, above)
    return [problem.partition("config.yaml:")[2] for problem in refused.value.problems]


def test_the_window_of_the_design(tmp_path: Path) -> None:
    window = load(tmp_path, DESIGNED).window
    assert window is not None
    assert (window.size_us, window.hop_us, window.offset, window.interval) == (300_000_000, 60_000_000, 30.0, 5.0)
    assert window.groups == {"response": '"response"'}


def test_what_is_left_out(tmp_path: Path) -> None:
    pipeline = load(tmp_path, SMALL)
    assert pipeline.window is not None
    assert (pipeline.window.disorder, pipeline.window.lateness, pipeline.window.max_ahead) == (10, 30, 3600)
    assert (pipeline.window.hop_us, pipeline.window.timezone) == (300_000_000, "UTC")
    assert pipeline.commit_interval == 5.0


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("tumble: 5m", "8:5: pipelines.p.window: `time` and `aggregate` missing; or write all of it as `sql`"),
        ("time: datetime\naggregate: {n: count(*)}", "8:5: pipelines.p.window: `tumble` missing"),
        (SMALL.replace("5m", "500ms"), "9:7: pipelines.p.window.tumble: must be from 1s to 7d"),
        (SMALL.replace("5m", "8d"), "9:7: pipelines.p.window.tumble: must be from 1s to 7d"),
        (SMALL.replace("5m", "1.0005"), "9:7: pipelines.p.window.tumble: must be whole milliseconds"),
        (SMALL + "hop: 2m", "12:7: pipelines.p.window.hop: `tumble` must be a multiple of it"),
        (SMALL + "hop: 0", "12:7: pipelines.p.window.hop: `tumble` must be a multiple of it"),
        (SMALL + "hop: 10ms", "12:7: pipelines.p.window.hop: every row would be in more than 100 windows"),
        (SMALL + "offset: 5m", "12:7: pipelines.p.window.offset: must be less than the length of a window"),
        (SMALL + "timezone: Europe/Berlin", "9:7: pipelines.p.window.tumble: with a `timezone` windows are of whole"),
        (
            SMALL.replace("5m", "1d") + "timezone: Mars/Base",
            "12:7: pipelines.p.window.timezone: is no zone of",
        ),
        (SMALL.replace("5m", "1d") + "timezone: ../etc", "12:7: pipelines.p.window.timezone: is no zone of"),
        (SMALL + "disorder: 99999999999d", "12:7: pipelines.p.window.disorder: must be at most 3650d"),
        (SMALL + "lateness: 3651d", "12:7: pipelines.p.window.lateness: must be at most 3650d"),
        (SMALL + "max_ahead: 9999999999d", "12:7: pipelines.p.window.max_ahead: must be at most 3650d"),
        (SMALL + "max_groups: 0", "12:7: pipelines.p.window.max_groups: must be at least 1"),
        (SMALL + "interval: 0", "12:7: pipelines.p.window.interval: must be more than 0"),
        (SMALL + "late: {path: lake}", "12:14: pipelines.p.window.late.path: must be s3://bucket/prefix"),
        (SMALL + "late: {path: memory://lake/status/late}", "12:14: pipelines.p.window.late.path: lies inside"),
        (SMALL + "tumbel: 5m", "12:7: pipelines.p.window.tumbel: unknown key; did you mean `tumble`?"),
        (SMALL.replace("datetime", "when"), "10:7: pipelines.p.window.time: there is no column when"),
        (SMALL.replace("datetime", "host"), "10:7: pipelines.p.window.time: host is string, not a timestamp"),
        (SMALL.replace("datetime", "bytes"), "10:7: pipelines.p.window.time: bytes is int64, not a timestamp"),
        (
            SMALL.replace("datetime", "{column: datetime, unit: s}"),
            "10:7: pipelines.p.window.time: datetime is timestamp[us, tz=UTC], which has no unit",
        ),
        (SMALL.replace("count(*)", "median(bytes)"), "11:19: pipelines.p.window.aggregate.n: median(...) cannot be"),
        (SMALL + "group_by: [nope]", "12:7: pipelines.p.window.group_by: there is no column nope"),
        (SMALL + "group_by: {k: nope}", "12:18: pipelines.p.window.group_by.k: there is no column nope"),
        (SMALL + "having: m > 1", "12:7: pipelines.p.window.having: there is no column m"),
        (SMALL + "then: [{sql: SELECT m FROM input}]", "12:15: pipelines.p.window.then.0.sql: there is no column m"),
        (SMALL + "sql: SELECT 1", "9:7: pipelines.p.window.tumble: the statement in `sql` says this already"),
        ("sql: SELECT 1 FROM input", "9:7: pipelines.p.window.sql: FROM must be TUMBLE(input, time, INTERVAL"),
    ],
)
def test_problems_are_where_they_are_written(tmp_path: Path, window: str, expected: str) -> None:
    assert problems_of(tmp_path, window)[0].startswith(expected)


def test_the_sink_is_of_the_results(tmp_path: Path) -> None:
    above = FILE.replace('"memory://lake/status/"', '"memory://lake/status/", partition_by: {host: host}')
    [problem] = problems_of(tmp_path, SMALL, above)
    assert "sink.partition_by.host: there is no column host; there are window_start, window_end, n" in problem


@pytest.mark.parametrize("name", ["window_start", "Window_End"])
def test_rows_have_no_column_like_the_bounds_of_windows(tmp_path: Path, name: str) -> None:
    """Readers of late rows that do not tell capitals apart would find two."""
    step = f'    transform: [{{sql: "SELECT *, 1 AS {name} FROM input"}}]\n'
    above = FILE.replace("    window:\n", f"{step}    window:\n")
    [problem] = problems_of(tmp_path, SMALL, above)
    assert f"window: the rows have a column {name}, and results and late rows another: rename it" in problem


def test_a_windowed_pipeline_commits_every_interval(tmp_path: Path) -> None:
    above = FILE.replace('"memory://lake/status/"', '"memory://lake/status/", buffer: {interval: 1m}')
    [problem] = problems_of(tmp_path, SMALL, above)
    assert "sink.buffer.interval: a windowed pipeline commits every `window.interval`" in problem


def test_no_pipeline_lies_among_late_rows(tmp_path: Path) -> None:
    [problem] = problems_of(tmp_path, SMALL, FILE.replace("  p:", "  late:"))
    assert "pipelines.late: no pipeline can be called late" in problem


def test_rules_carry_what_decides_results(tmp_path: Path) -> None:
    pipeline = load(tmp_path, DESIGNED)
    document = Rules.of(pipeline, "memory://r/r", "memory://lake/late/").document()
    assert Rules.model_validate(document).document() == document
    stored = document["window"]
    assert isinstance(stored, dict)
    assert not {"interval", "close_idle_after", "late"} & set(stored)
    assert (stored["max_groups"], document["late"]) == (100_000, "memory://lake/late/")
    other = load(tmp_path, DESIGNED.replace("interval: 5s", "interval: 9s"))
    assert Rules.of(other, "memory://r/r", "memory://lake/late/").document() == document
    without = Rules.of(pipeline.model_copy(update={"window": None}), "memory://r/r", "memory://lake/late/").document()
    assert not {"window", "late"} & set(without)


STATEMENT = """
    SELECT window_start, response, count(*) AS requests FROM TUMBLE(input, datetime, INTERVAL 5 MINUTE)
    GROUP BY window_start, response HAVING requests > 10
"""


def test_a_statement_is_the_same_as_its_keys() -> None:
    built = build_window(Window(sql=STATEMENT, lateness=7.0), COLUMNS)
    window = built.window
    assert (window.size_us, window.hop, window.time, window.lateness) == (300_000_000, None, "datetime", 7.0)
    assert (window.group_by, window.having) == ({"response": "response"}, "(requests > 10)")
    assert built.aggregation.schema == pa.schema(
        [("window_start", UTC), ("response", pa.int16()), ("requests", pa.int64())]
    )
    assert built.steps == ()


def test_all_that_a_statement_may_say() -> None:
    sql = """
        SELECT response // 100 AS class, sum(bytes) / count(*) AS mean, class * 100 AS from_, window_end AS "to",
               count(*) FILTER (WHERE h.bytes > 9) AS large, mean * large AS product
        FROM HOP(input, datetime, INTERVAL '1 hour', to_minutes(5)) AS h
        WHERE bytes > 3 AND h.host <> 'x' GROUP BY ALL HAVING count(*) > 1 AND response // 100 < 5
    """
    built = build_window(Window(sql=sql), COLUMNS)
    assert (built.window.size_us, built.window.hop_us) == (3_600_000_000, 300_000_000)
    assert built.aggregation.schema.names == ["class", "mean", "from_", "to", "large", "product"]
    rows = pa.RecordBatch.from_pylist([{"bytes": n, "host": "y"} for n in (3, 4)], schema=COLUMNS)
    numbered = rows.append_column("_row", pa.array([0, 1], pa.int32()))
    assert built.steps[0].apply(numbered).rows["_row"].to_pylist() == [1]


def test_groups_by_number_and_by_alias() -> None:
    sql = """
        SELECT window_start AS w, upper(host) AS u, date_trunc('hour', datetime) AS hour, count(*) AS n
        FROM TUMBLE(input, datetime, INTERVAL 1 DAY) GROUP BY w, 3, u
    """
    built = build_window(Window(sql=sql, timezone="Europe/Berlin"), COLUMNS)
    assert built.window.group_by == {"hour": "date_trunc('hour', datetime)", "u": "upper(host)"}
    assert built.aggregation.schema.names == ["w", "u", "hour", "n"]


def test_parameters_of_lambdas_are_not_aliases() -> None:
    sql = """
        SELECT upper(host) AS t, list_max(list_transform([first(bytes)], lambda t: t + 1)) AS n
        FROM TUMBLE(input, datetime, INTERVAL 1 DAY) GROUP BY window_start, t
    """
    assert build_window(Window(sql=sql), COLUMNS).aggregation.schema.types == [pa.string(), pa.int64()]


TUMBLE = "FROM TUMBLE(input, datetime, INTERVAL 5 MINUTE)"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            f"SELECT median(x) AS m, count(DISTINCT x) AS c {TUMBLE} GROUP BY window_start",
            ["m: median(", "c: count("],
        ),
        (f"SELECT count(*) {TUMBLE} GROUP BY window_start", ["a column has no name: write count(*) AS name"]),
        (f"SELECT * {TUMBLE} GROUP BY window_start", ["*: write the columns"]),
        (f"SELECT count(*) AS c {TUMBLE}", ["GROUP BY must name window_start"]),
        (f"SELECT count(*) AS c {TUMBLE} GROUP BY 7, window_start", ["GROUP BY 7: there are 1 columns"]),
        (f"SELECT count(*) AS c {TUMBLE} GROUP BY ROLLUP (window_start)", ["GROUPING SETS, ROLLUP and CUBE"]),
        (f"SELECT host, count(*) AS c {TUMBLE} GROUP BY window_start", ["a column has no name"]),
        (f"SELECT host AS h, count(*) AS c {TUMBLE} GROUP BY window_start", ["h: host is neither a group nor inside"]),
        (f"SELECT count(*) AS c {TUMBLE} GROUP BY window_start ORDER BY c LIMIT 1", ["ORDER BY: results", "LIMIT and"]),
        (f"SELECT DISTINCT count(*) AS c {TUMBLE} GROUP BY window_start", ["DISTINCT: groups are distinct already"]),
        (f"SELECT sum(bytes) OVER () AS c {TUMBLE} GROUP BY window_start", ["c: a window function (OVER)"]),
        (f"SELECT (SELECT 1) AS c {TUMBLE} GROUP BY window_start", ["c: a subquery"]),
        (f"SELECT count(*) AS c {TUMBLE} WHERE random() > 1 GROUP BY window_start", ["random(...) does not depend"]),
        (f"SELECT count(*) AS c {TUMBLE} JOIN b USING (x) GROUP BY window_start", ["FROM must be TUMBLE"]),
        (f"WITH a AS (SELECT 1) SELECT count(*) AS c {TUMBLE} GROUP BY window_start", ["WITH: write steps before it"]),
        ("SELECT count(*) AS c FROM input GROUP BY window_start", ["FROM must be TUMBLE"]),
        ("SELECT count(*) AS c FROM TUMBLE(other, datetime, INTERVAL 1 DAY) GROUP BY 1", ["FROM must be TUMBLE"]),
        ("SELECT count(*) AS c FROM HOP(input, datetime, INTERVAL 1 DAY) GROUP BY 1", ["FROM must be TUMBLE"]),
        (
            "SELECT count(*) AS c FROM TUMBLE(input, datetime, INTERVAL 1 MONTH) GROUP BY window_start",
            ["months and"],
        ),
        (
            "SELECT count(*) AS c FROM TUMBLE(input, datetime, '5m') GROUP BY window_start",
            ["the length of a"],
        ),
        (
            "SELECT count(*) AS c FROM TUMBLE(input, datetime, 5 + 1) GROUP BY window_start",
            ["the length of a"],
        ),
        (
            "SELECT count(*) AS c FROM TUMBLE(input, datetime, bytes) GROUP BY window_start",
            ["there is no column"],
        ),
        (
            "SELECT count(*) AS c FROM TUMBLE(input, datetime, INTERVAL 9 DAY) GROUP BY window_start",
            ["tumble: must be"],
        ),
        (
            "SELECT count(*) AS c FROM TUMBLE(input, x + 1, INTERVAL 9 DAY) GROUP BY window_start",
            ["the time of a"],
        ),
        ("SELECT count(*) AS c FROM TUMBLE(input, x, INTERVAL 1 DAY) GROUP BY window_start", ["time: x is double"]),
        ("SELECT 1 UNION SELECT 2", ["UNION, INTERSECT"]),
        ("SELECT 1; SELECT 2", ["write one SELECT statement"]),
        ("SELEC", ['syntax error at or near "SELEC"']),
        ("DROP TABLE input", ["a step is one SELECT"]),
    ],
)
def test_what_a_statement_may_not_say(sql: str, expected: list[str]) -> None:
    with pytest.raises(SqlProblems) as refused:
        build_window(Window(sql=sql), COLUMNS)
    assert len(refused.value.problems) == len(expected)
    for problem, beginning in zip(refused.value.problems, expected, strict=True):
        assert problem.startswith(f"sql: {beginning}")
