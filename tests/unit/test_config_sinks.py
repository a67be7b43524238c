"""``sink:`` of a windowed pipeline that is no object store: what it may say, and what the log keeps of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsvc import app
from streamsvc.config import ObjectSink, Pipeline, Rules
from streamsvc.config_sinks import KeyedSink
from streamsvc.errors import ConfigError

FILE = """\
service: web-logs
state: memory://lake/_streamsvc
pipelines:
  p:
    source: {kafka: {brokers: "127.0.0.1:9092", topics: [access]}}
    decode: {apache: combined}
"""
WINDOW = "    window: {tumble: 5m, time: datetime, group_by: [response], aggregate: {requests: count(*)}}\n"
KAFKA = "{kafka: {brokers: 'b:9092', topic: results}}"
KINESIS = "{kinesis: {stream: results}}"


def load(folder: Path, sink: str, window: str = WINDOW) -> Pipeline:
    file = folder / "config.yaml"
    file.write_text(f"{FILE}{window}    sink: {sink}\n")
    return app.load(file).pipelines["p"]


def problems(folder: Path, sink: str, window: str = WINDOW) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(folder, sink, window)
    return [problem.rpartition("config.yaml:")[2] for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("sink", "address"),
    [(KAFKA, "kafka results"), (KINESIS, "kinesis results"), ("{path: 'memory://lake/p'}", "memory://lake/p")],
)
def test_a_sink_is_one_of_three(tmp_path: Path, sink: str, address: str) -> None:
    assert load(tmp_path, sink).sink.address == address


@pytest.mark.parametrize(
    ("sink", "problem"),
    [
        ("{kafka: {brokers: b}}", "8:12: pipelines.p.sink.kafka: `topic` is missing"),
        ("{kafka: {brokers: b, topic: 'a b'}}", "8:32: pipelines.p.sink.kafka.topic: must be letters, digits"),
        ("{kafka: {brokers: b, topics: [a]}}", "pipelines.p.sink.kafka.topics: unknown key; did you mean `topic`?"),
        ("{kinesis: {}}", "8:12: pipelines.p.sink.kinesis: `stream` is missing"),
        ("{format: json}", "8:5: pipelines.p.sink: `path` is missing"),
        ("{pth: x}", "did you mean `path`?"),
        ("{path: 'memory://a/b', kafka: {brokers: b, topic: a}}", "8:5: pipelines.p.sink: is one sink: `kafka`"),
        ("{kafka: {brokers: b, topic: a}, kinesis: {stream: a}}", "8:5: pipelines.p.sink: is one sink: `kafka`"),
        ("{kafka: {brokers: b, topic: a, client: {acks: 1}}}", "`client` may not set acks: a result counts as there"),
        ("{kafka: {brokers: b, topic: a, client: {sasl.mechanism: PLAIN}}}", "set it under `sasl`"),
    ],
)
def test_a_sink_that_is_wrong(tmp_path: Path, sink: str, problem: str) -> None:
    found = problems(tmp_path, sink)
    assert any(problem in told for told in found), found


@pytest.mark.parametrize(("sink", "kind"), [(KAFKA, "kafka"), (KINESIS, "kinesis")])
def test_rows_have_no_key(tmp_path: Path, sink: str, kind: str) -> None:
    [problem] = problems(tmp_path, sink, window="")
    assert problem == (
        f"7:12: pipelines.p.sink.{kind}: takes results of windows: give the pipeline a `window`, or its sink a `path`"
    )


def test_the_log_keeps_where_results_go_and_neither_endpoint_nor_secret(tmp_path: Path) -> None:
    sasl = "tls: {ca: /ca}, sasl: {mechanism: PLAIN, username: me, password: swordfish}, client: {linger.ms: 1}"
    pipeline = load(tmp_path, KAFKA.replace("topic: results", f"topic: results, {sasl}"))
    assert isinstance(pipeline.sink, KeyedSink)
    document = Rules.of(pipeline, "memory://lake/r", "memory://lake/l").document()
    assert document["topic"] == "results"
    assert not {"sink", "stream"} & document.keys()
    assert not [word for word in ("b:9092", "swordfish", "linger", "/ca") if word in str(document)]
    assert Rules.model_validate(document).document() == document
    kinesis = Rules.of(load(tmp_path, KINESIS), "memory://lake/r", "memory://lake/l").document()
    assert kinesis["stream"] == "results"


def test_rules_of_objects_are_as_they_were(tmp_path: Path) -> None:
    pipeline = load(tmp_path, "{path: 'memory://lake/p'}", window="")
    assert isinstance(pipeline.sink, ObjectSink)
    assert list(Rules.of(pipeline, "memory://lake/r").document()) == [
        "decode",
        "include",
        "transform",
        "sink",
        "rejects",
    ]
