"""What loading a configuration finds, beyond what each value of it may be: every problem, each at its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamsvc import app
from streamsvc.errors import ConfigError

CONFIGURATION = """\
service: web-logs
state: memory://state
pipelines:
  access:
    source: {kafka: {brokers: "127.0.0.1:9092", topics: [access]}}
    decode: {apache: combined}
    sink:
      path: memory://lake/access
      partition_by: {date: datetim, n: count(*)}
      parquet: {sort_by: [zzz], statistics: [yyy]}
  events:
    source: {kafka: {brokers: "127.0.0.1:9092", topics: [events]}}
    decode:
      json:
        schema:
          a: intt
          b: strin
    sink: {path: memory://lake/events}
  errors:
    source: {kafka: {brokers: "127.0.0.1:9092", topics: [errors]}}
    decode: {apache: error}
    transform:
      - sql: SELECT *, now() AS seen, sum(pid) AS pids FROM input WHERE severty = 'warn'
    sink: {path: memory://lake}
"""


ODD_NAMES = """\
service: odd
state: memory://state
pipelines:
  a.b:
    source: {kafka: {brokers: "127.0.0.1:9092", topics: [access]}}
    decode: {apache: combined}
    sink:
      path: memory://lake/access
      partition_by:
        date: strftime(datetime, '%Y')
        "x.y": datetim
        "0": respons
        "p: q": hos
  json:
    source: {kafka: {brokers: "127.0.0.1:9092", topics: [access]}}
    decode:
      json:
        schema:
          good: int64
          "a.b: c": intt
    sink: {path: memory://lake/json}
  windows:
    source: {kafka: {brokers: "127.0.0.1:9092", topics: [access]}}
    decode: {apache: combined}
    window:
      time: datetime
      tumble: 1m
      aggregate:
        "n.m": sum(hos)
    sink: {path: memory://lake/windows}
"""


def test_names_may_hold_what_paths_are_written_with(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(ODD_NAMES)
    with pytest.raises(ConfigError) as refusal:
        app.load(file)
    found = [re.sub(r":\d+: ", " ", problem.removeprefix(f"{file}:"), count=1) for problem in refusal.value.problems]
    expected = [
        "11 pipelines.a.b.sink.partition_by.x.y: there is no column datetim; did you mean datetime?",
        "12 pipelines.a.b.sink.partition_by.0: there is no column respons; did you mean response?",
        "13 pipelines.a.b.sink.partition_by.p: q: there is no column hos; did you mean host?",
        "20 pipelines.json.decode.json.schema.a.b: c: column 'a.b: c'",
        "29 pipelines.windows.window.aggregate.n.m: there is no column hos; did you mean host?",
    ]
    assert [problem[: len(begin)] for problem, begin in zip(found, expected, strict=True)] == expected


def test_every_problem_of_every_pipeline(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(CONFIGURATION)
    with pytest.raises(ConfigError) as refusal:
        app.load(file)
    found = [re.sub(r":\d+: ", " ", problem.removeprefix(f"{file}:")) for problem in refusal.value.problems]
    expected = [
        "9 pipelines.access.sink.partition_by.date: there is no column datetim; did you mean datetime?",
        "9 pipelines.access.sink.partition_by.n: count(*) is an aggregate",
        "10 pipelines.access.sink.parquet.sort_by: there is no column zzz in the files",
        "10 pipelines.access.sink.parquet.statistics: there is no column yyy in the files",
        "16 pipelines.events.decode.json.schema.a: column 'a'",
        "17 pipelines.events.decode.json.schema.b: column 'b'",
        "23 pipelines.errors.transform.0.sql: now(...) does not depend on the record alone",
        "23 pipelines.errors.transform.0.sql: sum(...) is an aggregate",
        "23 pipelines.errors.transform.0.sql: there is no column severty; did you mean severity?",
        "24 pipelines.errors.sink.path: lies inside, around or at pipelines.access.sink.path",
        "24 pipelines.errors.sink.path: lies inside, around or at pipelines.events.sink.path",
    ]
    assert [problem[: len(begin)] for problem, begin in zip(found, expected, strict=True)] == expected
