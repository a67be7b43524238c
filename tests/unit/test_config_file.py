"""Files that are wrong, and what whoever wrote them is told; files that are right, and what they say."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamsvc.config import ObjectSink, Rules, Service
from streamsvc.config_file import Loaded, load
from streamsvc.config_sources import KafkaSource, lease_table
from streamsvc.config_types import IN_WORDS
from streamsvc.errors import ConfigError

GOOD = """\
service: web-logs
state: s3://lake/_streamsvc
pipelines:
  access:
    source:
      kafka:
        brokers: 127.0.0.1:9092
        topics: [access]
    decode: {apache: combined}
    sink:
      path: s3://lake/access/
"""

SORT = " (Columns that order the rows of a row group.)"
DICTIONARY = " (Dictionary encoding, or for which columns.)"
PARTITIONS = " (Of one segment; one more closes it early.)"
TLS = " (Encryption to Kafka. Each of the first three is a path, or the PEM text itself.)"

DESIGNED = """\
# yaml-language-server: $schema=./streamsvc.schema.json
service: web-logs                      # consumer group, KCL application, metric label
state: s3://lake/_streamsvc            # or file:///var/lib/streamsvc
memory: 1GiB                           # everything buffered, all pipelines, all workers
workers: 1                             # processes; auto = one a core
http: {listen: "127.0.0.1:8080"}

aws: {region: us-east-1}               # endpoint_url, profile, role_arn ...

pipelines:
  access:
    source:
      kafka:
        brokers: ${KAFKA_BROKERS:-127.0.0.1:9092}
        topics: [access]
        start: earliest                # earliest | latest | timestamp
        client: {}                     # passed to librdkafka
    decode: {apache: combined}         # common | combined | vhost_combined | error | "<LogFormat string>"
    transform:
      - sql: SELECT *, bytes / 1024 AS kib FROM input WHERE response >= 200
    sink:
      path: s3://lake/access/
      format: parquet                  # parquet | json | csv | avro | orc
      compression: zstd
      partition_by:                    # Hive style, in this order; SQL expressions over the columns
        date: strftime(datetime, '%Y-%m-%d')
        response: response
      buffer: {size: 128MiB, interval: 5m}
    rejects: {path: s3://lake/_rejects/access/}
"""


class Folder:
    """Writes one file and reads it."""

    def __init__(self, path: Path) -> None:
        self.file = path / "web-logs.yaml"

    def load(self, text: str | bytes, **environment: str) -> Loaded:
        self.file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(self.file, environment)

    def problems(self, text: str | bytes, **environment: str) -> list[str]:
        """Without the file's name."""
        with pytest.raises(ConfigError) as refused:
            self.load(text, **environment)
        assert all(problem.startswith(f"{self.file}:") for problem in refused.value.problems)
        return [problem.removeprefix(f"{self.file}:") for problem in refused.value.problems]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def with_sink(lines: str) -> str:
    return GOOD + "".join(f"      {line}\n" for line in lines.splitlines())


def with_kafka(lines: str) -> str:
    added = "".join(f"        {line}\n" for line in lines.splitlines())
    return GOOD.replace("        topics: [access]\n", f"        topics: [access]\n{added}")


def with_kinesis(options: str) -> str:
    source = GOOD[GOOD.index("      kafka:") : GOOD.index("    decode:")]
    return GOOD.replace(source, f"      kinesis: {options}\n")


def kafka_of(service: Service) -> KafkaSource:
    kafka = service.pipelines["access"].source.kafka
    assert kafka is not None
    return kafka


def test_the_file_of_the_design(folder: Folder) -> None:
    service = folder.load(DESIGNED).service
    access = service.pipelines["access"]
    assert (service.memory, service.workers, service.aws.region) == (1024**3, 1, "us-east-1")
    assert kafka_of(service).brokers == "127.0.0.1:9092"
    assert access.transform[0].sql == "SELECT *, bytes / 1024 AS kib FROM input WHERE response >= 200"
    assert isinstance(access.sink, ObjectSink)
    assert list(access.sink.partition_by.items()) == [
        ("date", "strftime(datetime, '%Y-%m-%d')"),
        ("response", "response"),
    ]
    assert (access.sink.buffer.size, access.sink.buffer.interval) == (128 * 1024**2, 300.0)


def test_every_problem_at_once_in_the_order_of_the_file(folder: Folder) -> None:
    text = """\
service: web logs
sate: s3://lake/_streamsvc
state: s3://lake/_streamsvc
workers: atuo
pipelines:
  access:
    source: {kafka: {brokers: x, topics: access}}
    decode: {apache: combined}
    transform:
      - sql: SELECT * FROM input
      - sqll: SELECT * FROM input
    sink:
      path: s3://lake/access/
      formt: parquet
      compression: Zstd
      buffer: {size: 12 MB, interval: 5 minutes}
      parquet: {sort_by: host, dictionary: 5}
  other:
    source: {}
    sink: {path: s3://lake/other/}
"""
    assert folder.problems(text) == [
        "1:1: service: must be letters, digits, `.`, `_` and `-`, the first a letter or digit, at most 101",
        "2:1: sate: unknown key; did you mean `state`?",
        "4:1: workers: must be a whole number or `auto` (Processes that share the splits; auto: one a core.)",
        "7:34: pipelines.access.source.kafka.topics: must be a list ([a, b]) (Read together, by their exact names.)",
        "11:9: pipelines.access.transform.1: `sql` is missing",
        "11:9: pipelines.access.transform.1.sqll: unknown key; did you mean `sql`?",
        "14:7: pipelines.access.sink.formt: unknown key; did you mean `format`?",
        "15:7: pipelines.access.sink.compression: must be one of zstd, snappy, gzip, none; did you mean `zstd`?",
        "16:29: pipelines.access.sink.buffer.interval: not a duration: '5 minutes'; write for example 30s, 5m or 1h30m",
        f"17:17: pipelines.access.sink.parquet.sort_by: must be a list ([a, b]){SORT}",
        f"17:32: pipelines.access.sink.parquet.dictionary: must be true or false or a list ([a, b]){DICTIONARY}",
        "18:3: pipelines.other: `decode` is missing",
        "19:5: pipelines.other.source: name exactly one source: kafka or kinesis",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1:1: the file is empty; start with `service: NAME`"),
        ("# only a comment\n", "1:1: the file is empty; start with `service: NAME`"),
        ("- a\n", "1:1: the file must hold keys with values; start with `service: NAME`"),
        ("just text\n", "1:1: the file must hold keys with values; start with `service: NAME`"),
        ("service:\n\tname: x\n", "2:1: a tab; YAML is indented with spaces"),
        ("a: b: c\n", "1:5: `: ` inside a value that has no quotes, or a line indented too far"),
        ("a: {b: ${C}}\n", "1:9: ${...} needs quotes inside { } and [ ]"),
        ("a: [1\n", "1:4: a [ that is not closed"),
        ("a: 'x\n", "1:4: a quote that is not closed"),
        ("a: *b\n", "1:4: found undefined alias 'b'"),
        ("a: 1\n---\nb: 2\n", "2:1: a second document; write one"),
        ('a: 1\nb: "x\nc: 2\n', "2:4: a quote that is not closed"),
        ("a: {b: [1, 2\n", "1:8: a [ that is not closed"),
        ("a: {b: strftime(t, '%Y')}\n", "1:24: inside { } a text with a comma, or with a quote in it, needs quotes"),
        ("a:\n  - b\n c: d\n", "3:2: indented neither like the lines above nor below them"),
        ("a: \x07\n", "1:4: a character that no YAML may hold: 0x7"),
        (b"\xef\xbb\xbf\xc3\xa9\xc3\xa9\xff", "1:3: not UTF-8 from here on; save the file as UTF-8"),
        (b"a: 1\nb: \xff\n", "2:4: not UTF-8 from here on; save the file as UTF-8"),
        ("service: x\n".encode("utf-16"), "1:1: not UTF-8 from here on; save the file as UTF-8"),
        ("[" * 5_000, "1:1: nested too deeply"),
        ("a" * (1024 * 1024 + 1), "1:1: larger than 1 MiB: not a configuration"),
    ],
)
def test_what_is_no_configuration_at_all(folder: Folder, text: str | bytes, problem: str) -> None:
    assert folder.problems(text) == [problem]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "Is a directory"), (Path(__file__) / "x.yaml", "Not a directory")):
        with pytest.raises(ConfigError) as refused:
            load(path)
        assert refused.value.problems == [f"{path}:1:1: cannot be read: {why}"]


def test_a_file_that_is_not_there_can_be_begun(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match=f"No such file or directory; `streamsvc init {path}` writes a first one"):
        load(path)


def test_a_byte_order_mark_is_no_matter(folder: Folder) -> None:
    assert folder.load(b"\xef\xbb\xbf" + GOOD.encode()).service.service == "web-logs"


def test_aliases_and_merges_are_followed_and_bounded(folder: Folder) -> None:
    shared = GOOD.replace("pipelines:", "x: &x {format: json, compression: gzip}\npipelines:").replace(
        "    sink:\n", "    sink:\n      <<: *x\n      compression: none\n"
    )
    assert folder.problems(shared) == [
        "3:1: x: unknown key; there are: aws, drain, http, memory, pipelines, service, state, workers"
    ]
    merged = GOOD.replace("    decode:", "    rejects: &r {path: s3://lake/r}\n    decode:").replace(
        "    sink:\n      path: s3://lake/access/", "    sink: {<<: *r, path: s3://lake/a}"
    )
    assert folder.load(merged).service.pipelines["access"].sink.address == "s3://lake/a"
    laughs = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9))
    assert folder.problems(laughs)[0].endswith(
        "more than 50000 values once aliases are followed, or nested more than 40 deep"
    )
    assert "1:10: service.0: an alias of what it stands in" in folder.problems("service: &a [*a]\n")
    endless = folder.problems("service: &a {<<: *a}\n")
    assert "1:10: service: << merges keys and values of another place, by its alias" in endless
    deep = f"service: {'[' * 60}{']' * 60}\n"
    assert "nested more than 40 deep" in folder.problems(deep)[0]


def test_keys_that_are_there_twice_or_are_no_text(folder: Folder) -> None:
    assert folder.problems(GOOD + "state: s3://other\n") == ["12:1: state: this key is here twice"]
    twice = with_sink("format: json\nformat: parquet\ncompression: gzip\ncompression: none")
    assert folder.problems(twice) == [
        "13:7: pipelines.access.sink.format: this key is here twice",
        "15:7: pipelines.access.sink.compression: this key is here twice",
    ]
    assert folder.problems(GOOD + "? [a, b]\n: c\n") == ["12:3: a key must be text"]


def test_tags_do_nothing(folder: Folder) -> None:
    problems = folder.problems(GOOD.replace("web-logs", "!!python/object/apply:os.system [x]"))
    assert problems[0] == "1:10: service: the tag python/object/apply:os.system is not understood: leave it out"


def test_times_need_no_quotes(folder: Folder) -> None:
    loaded = folder.load(with_kafka("start: 2026-01-31T06:00:00Z"))
    assert kafka_of(loaded.service).start == "2026-01-31T06:00:00Z"
    (problem,) = folder.problems(with_kafka("start: 2026-01-31"))
    assert problem.startswith("9:9: pipelines.access.source.kafka.start: the time 2026-01-31 has no zone")


def test_nothing_is_coerced(folder: Folder) -> None:
    problems = folder.problems(
        with_sink("max_partitions: true\npartition_by: {a: 5, b: , c: 2026-01-01}") + "workers: 1.0\n"
    )
    assert problems == [
        f"12:7: pipelines.access.sink.max_partitions: must be a whole number{PARTITIONS}",
        "13:22: pipelines.access.sink.partition_by.a: must be text, which may need quotes",
        "13:28: pipelines.access.sink.partition_by.b: must be text, which may need quotes",
        "14:1: workers: must be a whole number or `auto` (Processes that share the splits; auto: one a core.)",
    ]
    assert folder.problems(with_kafka("tls: 5")) == [
        f"9:9: pipelines.access.source.kafka.tls: must be keys with values or true or false{TLS}"
    ]
    assert folder.problems(with_kafka("tls: {cca: x}")) == [
        "9:15: pipelines.access.source.kafka.tls.cca: unknown key; did you mean `ca`?"
    ]


def test_variables_of_the_environment(folder: Folder) -> None:
    text = GOOD.replace("127.0.0.1:9092", "${HOST}:${PORT:-9092}") + "memory: ${MEMORY}\nworkers: ${WORKERS:-2}\n"
    service = folder.load(text, HOST="kafka", PORT="", MEMORY="268435456").service
    assert kafka_of(service).brokers == "kafka:9092"
    assert (service.memory, service.workers) == (268_435_456, 2)
    escaped = folder.load(GOOD.replace("combined", "'$${x} ${A}'"), A="$${b}").service
    assert escaped.pipelines["access"].decode.apache == "${x} $${b}"


def test_variables_that_are_not_there(folder: Folder) -> None:
    text = GOOD.replace("127.0.0.1:9092", "${HOST}:${1PORT}").replace("[access]", "['${A-b}', '${']")
    kafka = "pipelines.access.source.kafka"
    assert folder.problems(text) == [
        f"7:18: {kafka}.brokers: the environment variable HOST is not set; a default: ${{HOST:-...}}",
        f"7:18: {kafka}.brokers: ${{1PORT}} names no variable; write $${{ for the characters ${{",
        f"8:18: {kafka}.topics.0: ${{A-b}} names no variable; write $${{ for the characters ${{",
        f"8:28: {kafka}.topics.1: ${{ names no variable; write $${{ for the characters ${{",
    ]


SASL = "sasl: {mechanism: PLAIN, username: u, password: %s}"


def password_of(loaded: Loaded) -> str:
    sasl = kafka_of(loaded.service).sasl
    assert sasl is not None
    assert sasl.password is not None
    return sasl.password.get_secret_value()


def test_secrets_from_the_environment_and_from_files(folder: Folder, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2 \n")
    from_file = folder.load(with_kafka(SASL % f"{{file: '{secret}'}}"))
    from_environment = folder.load(with_kafka(SASL % "'${PASSWORD}'"), PASSWORD="hunter2 ")
    assert password_of(from_file) == password_of(from_environment) == "hunter2 "
    for loaded in (from_file, from_environment):
        assert "hunter2" not in f"{loaded.service!r}{loaded!r}{loaded.service.model_dump_json()}"


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("{file: none}", "the file cannot be read: No such file or directory"),
        ("{file: .}", "the file cannot be read: Is a directory"),
        ("{flie: x}", "write the text, ${VARIABLE}, or {file: PATH}"),
        ("{file: x, more: y}", "write the text, ${VARIABLE}, or {file: PATH}"),
        ("{file: /dev/zero}", "the file is larger than 65536 bytes: not a secret"),
        ("12345678", "must be text, which may need quotes (For SCRAM and PLAIN.)"),
        ("[hunter2]", "must be text, which may need quotes (For SCRAM and PLAIN.)"),
    ],
)
def test_secrets_that_are_none(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder.problems(with_kafka(SASL % password)) == [
        f"9:47: pipelines.access.source.kafka.sasl.password: {problem}"
    ]


def test_no_secret_is_in_a_message(folder: Folder) -> None:
    text = GOOD.replace("web-logs", "${TOKEN}").replace("apache: combined", "raw: {type: '${TOKEN}'}")
    text += "drain: ${TOKEN}\nmemory: hunter2-${TOKEN}\n" + "aws: {access_key_id: '${TOKEN}', profil: '${TOKEN}'}\n"
    text = text.replace(
        "topics", "start: ${TOKEN}\n        sasl: {mechanism: '${TOKEN}', password: ['${TOKEN}']}\n        topics"
    )
    problems = folder.problems(text, TOKEN="swordfish!")
    assert len(problems) == 8
    assert "swordfish" not in "".join(problems)
    assert any("not a duration: '${TOKEN}'" in problem for problem in problems)
    loaded = folder.load(GOOD.replace("access/", "${TOKEN}/"), TOKEN="swordfish!")
    problem = loaded.problem(("pipelines", "access", "sink", "path"), "s3://lake/swordfish!/ is no place")
    assert problem.endswith(":11:7: pipelines.access.sink.path: s3://lake/${TOKEN}/ is no place")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD + "memory: 1MiB\n", "12:1: memory: must be at least 64MiB"),
        (GOOD + "workers: 64\n", "12:1: workers: `memory` gives each worker less than 64MiB"),
        (GOOD + "workers: 0\n", "12:1: workers: must be at least 1"),
        (GOOD + "drain: .nan\n", "12:1: drain: not a duration: '.nan'; write for example 30s, 5m or 1h30m"),
        (GOOD + "drain: -1\n", "12:1: drain: must be at least 0"),
        (GOOD + "http: {listen: 8080}\n", "12:8: http.listen: must be text, which may need quotes"),
        (GOOD + "http: {listen: localhost}\n", "12:8: http.listen: must be host:port"),
        (GOOD + "aws: {access_key_id: x}\n", "12:1: aws: set both `access_key_id` and `secret_access_key`, or neither"),
        (GOOD.replace("  access:", "  rejects:"), "4:3: pipelines.rejects: no pipeline can be called rejects"),
        (GOOD.replace("  access:", "  a/b:"), "4:3: pipelines.a/b: must be letters, digits"),
        (GOOD.replace("s3://lake/access/", "s3:/lake"), "11:7: pipelines.access.sink.path: must be s3://bucket/prefix"),
        (GOOD.replace("s3://lake/access/", "s3://key:word@lake/a"), "11:7: pipelines.access.sink.path: must be s3://"),
        (GOOD.replace("s3://lake/access/", "file:///a/../b"), "11:7: pipelines.access.sink.path: must be s3://"),
        (GOOD.replace("s3://lake/_streamsvc", "gs://lake"), "2:1: state: must be s3://bucket/prefix"),
        (with_kafka("instance_id: me") + "workers: 2\n", "9:9: pipelines.access.source.kafka.instance_id: several"),
        (with_kafka("client: {group.id: x}"), "6:7: pipelines.access.source.kafka: `client` may not set group.id"),
        (with_sink("format: json\ncompression: snappy"), "10:5: pipelines.access.sink: json is compressed with zstd"),
        (with_sink("buffer: {size: 0}"), "12:16: pipelines.access.sink.buffer.size: must be at least 1"),
        (with_sink("buffer: {size: 5GiB}"), "12:16: pipelines.access.sink.buffer.size: must be at most 4096MiB"),
        (with_sink("buffer: {interval: 0}"), "12:16: pipelines.access.sink.buffer.interval: must be more than 0"),
        (GOOD.replace("{apache: combined}", "{}"), "9:5: pipelines.access.decode: name exactly one decoder"),
        (GOOD.replace("[access]", "[]"), "8:9: pipelines.access.source.kafka.topics: must not be empty"),
        (GOOD.replace("[access]", "[a/b]"), "8:18: pipelines.access.source.kafka.topics.0: must be letters, digits"),
        (with_kinesis("{}"), "6:7: pipelines.access.source.kinesis: name the stream by exactly one of"),
        (with_kinesis("{stream: a/b}"), "6:17: pipelines.access.source.kinesis.stream: must be letters, digits"),
        (
            with_kinesis("{stream_arn: 'arn:aws:s3:::a'}"),
            "6:17: pipelines.access.source.kinesis.stream_arn: must be like arn:aws:kinesis:",
        ),
        (
            with_kinesis("{stream: a, retrieval: pull}"),
            "6:28: pipelines.access.source.kinesis.retrieval: must be one of polling, fanout",
        ),
        (
            with_kinesis("{stream: a, start: earliest}"),
            "6:28: pipelines.access.source.kinesis.start: 'earliest' is none of trim_horizon, latest, committed, and",
        ),
        (
            with_kinesis("{stream: a, failover: 1s}"),
            "6:28: pipelines.access.source.kinesis.failover: must be at least 2",
        ),
        (
            with_kinesis("{stream: a, leases: none}") + "workers: 2\n",
            "6:28: pipelines.access.source.kinesis.leases: without leases every worker would read all shards",
        ),
        (
            with_kinesis("{stream: a, leases: none, engine: kcl}"),
            "6:7: pipelines.access.source.kinesis: `engine: kcl` shares shards by its own leases",
        ),
        (
            with_kinesis("{stream: a, leases: none, start: committed}"),
            "6:7: pipelines.access.source.kinesis: `start: committed` reads the lease table",
        ),
        (
            with_kinesis("{stream: a, leases: none, max_leases: 1}"),
            "6:7: pipelines.access.source.kinesis: without leases the one worker reads every shard",
        ),
        (
            with_kinesis("{stream: a, leases: none, handover: 60s}"),
            "6:7: pipelines.access.source.kinesis: without leases the one worker reads every shard",
        ),
        (
            with_kinesis("{stream: a, failover: 60s, handover: 10s}"),
            "6:7: pipelines.access.source.kinesis: `handover` (10s) is shorter than `failover` (60s)",
        ),
        (
            with_kinesis("{stream: a}\n      kafka: {brokers: b, topics: [t]}"),
            "5:5: pipelines.access.source: name exactly one source: kafka or kinesis",
        ),
        (
            GOOD + "aws: {endpoint_url: 'http://a', endpoints: {s3: 'http://a'}}\n",
            "12:7: aws.endpoint_url: is the same as `endpoints.s3`",
        ),
        (GOOD + "aws: {endpoints: {kinesis: ':4567'}}\n", "12:19: aws.endpoints.kinesis: must be like https://host"),
        (GOOD.partition("pipelines")[0], "1:1: `pipelines` is missing"),
        (GOOD.partition("  access")[0] + "  {}\n", "3:1: pipelines: must not be empty"),
        (GOOD.partition("  access")[0], "3:1: pipelines: must be keys with values"),
    ],
)
def test_values_that_cannot_be(folder: Folder, text: str, problem: str) -> None:
    problems = folder.problems(text)
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_rules_are_the_same_after_a_stay_in_the_log(folder: Folder) -> None:
    text = with_sink("partition_by: {z: response, a: method}\nbuffer: {size: 1MiB}\nmax_partitions: 3") + (
        "    include: [_key]\n    transform: [{sql: SELECT * FROM input}]\n"
    )
    pipeline = folder.load(text.replace("{apache: combined}", "{json: {schema: {response: int64}}}")).service.pipelines[
        "access"
    ]
    document = Rules.of(pipeline, "s3://lake/rejects").document()
    again = Rules.model_validate(document)
    assert again.document() == document
    assert again.sink is not None
    assert list(again.sink.partition_by) == ["z", "a"]
    assert "brokers" not in str(document)
    assert "buffer" not in str(document)


def test_the_environment_is_the_process_own_by_default(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "STREAMSVC_TEST_NAME", "from-outside")
    folder.file.write_text(GOOD.replace("web-logs", "${STREAMSVC_TEST_NAME}"))
    assert load(folder.file).service.service == "from-outside"


SCRAPS = [
    "&a ",
    "*a",
    "<<: *a",
    "${A}",
    "${",
    "}",
    "[",
    ": ",
    "- ",
    "\n",
    "'",
    '"\\ud800"',
    "!!x ",
    "~",
    "? ",
    "|\n",
    "---\n",
]
SCRAPS += [
    "0x1F",
    "1e999",
    "999999999999999999999999",
    "\x85",
    "%YAML 1.1\n",
    "\U0001f600",
    "2026-01-01",
    "@",
    "\t",
    ".nan",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 20), st.sampled_from(SCRAPS)), max_size=4))
def test_any_file_is_good_or_has_problems_with_places(folder: Folder, edits: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for at, removed, scrap in edits:
        text = text[:at] + scrap + text[at + removed :]
    folder.file.write_text(text)
    problems: list[str] | None = None
    try:
        load(folder.file, {"A": "x{y: z"})
    except ConfigError as error:
        problems = error.problems
    place = re.compile(rf"{re.escape(str(folder.file))}:\d+:\d+: .")
    assert problems is None or (problems and all(place.match(problem) for problem in problems))


def test_a_kinesis_source(folder: Folder) -> None:
    arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/access"
    service = folder.load(with_kinesis(f"{{stream_arn: '{arn}', retrieval: fanout, failover: 30s}}")).service
    source = service.pipelines["access"].source
    assert source.address == "kinesis access"
    kinesis = source.kinesis
    assert kinesis is not None
    assert (kinesis.name, kinesis.start, kinesis.failover) == ("access", "trim_horizon", 30.0)
    assert lease_table("web-logs", "access", kinesis) == "web-logs.access"
    named = (
        folder.load(with_kinesis("{stream: access, application: my-app}")).service.pipelines["access"].source.kinesis
    )
    assert named is not None
    assert lease_table("web-logs", "access", named) == "my-app"


@pytest.mark.parametrize(("failover", "handover_s"), [("10s", 60.0), ("5m", 300.0)])
def test_a_handover_that_nobody_wrote_is_as_long_as_failover(folder: Folder, failover: str, handover_s: float) -> None:
    service = folder.load(with_kinesis(f"{{stream: a, failover: {failover}}}")).service
    kinesis = service.pipelines["access"].source.kinesis
    assert kinesis is not None
    assert kinesis.handover_s == handover_s


def test_two_pipelines_do_not_share_a_lease_table(folder: Folder) -> None:
    text = with_kinesis("{stream: a, application: app}")
    second = text[text.index("  access:") :].replace("  access:", "  other:").replace("lake/access/", "lake/other/")
    (problem,) = folder.problems(text + second)
    assert problem.startswith("12:7: pipelines.other.source.kinesis: has the lease table app of pipeline access")
    assert len(folder.load(text + second.replace("application: app", "leases: none")).service.pipelines) == 2


def test_how_aggregates_are_read_is_among_the_rules(folder: Folder) -> None:
    pipeline = folder.load(with_kinesis("{stream: a, kpl: {out_of_range: keep}}")).service.pipelines["access"]
    rules = Rules.of(pipeline, "s3://lake/_rejects/")
    assert rules.document()["kpl"] == {"deaggregate": True, "out_of_range": "keep"}
    assert Rules.model_validate(rules.document()) == rules
    assert "kpl" not in Rules.of(folder.load(GOOD).service.pipelines["access"], "s3://lake/_rejects/").document()


def test_what_is_named_twice(folder: Folder) -> None:
    """A file with two columns of one name is one that most readers refuse."""
    twice = GOOD.replace("topics: [access]", "topics: [access, access]") + "    include: [_key, _split, _key]\n"
    found = folder.problems(twice)
    assert [problem.split(": ", 1)[1] for problem in found] == [
        "pipelines.access.source.kafka.topics.1: access is here twice",
        "pipelines.access.include.2: _key is here twice",
    ]


@pytest.mark.parametrize("brokers", ["b", "b:9092", "a.b-c_d:9092, [::1]:9092", "SASL_SSL://b:9096,10.0.0.1"])
def test_brokers_as_librdkafka_reads_them(folder: Folder, brokers: str) -> None:
    service = folder.load(GOOD.replace("brokers: 127.0.0.1:9092", f"brokers: '{brokers}'")).service
    assert kafka_of(service).brokers == brokers


@pytest.mark.parametrize("brokers", ["b:1,", ",b:1", "b:1, ", ",,b:1, ,"])
def test_what_is_empty_between_brokers_is_passed_over(folder: Folder, brokers: str) -> None:
    service = folder.load(GOOD.replace("brokers: 127.0.0.1:9092", f"brokers: '{brokers}'")).service
    assert kafka_of(service).brokers == "b:1"


@pytest.mark.parametrize(
    ("brokers", "problem"),
    [
        ("$KAFKA_BROKERS", "an environment variable is written ${NAME}, with braces"),
        ("a b", "must be host:port, several with commas between them"),
        ("b:9092;c:9092", "must be host:port, several with commas between them"),
        (" , ,", "must be host:port, several with commas between them"),
    ],
)
def test_brokers_that_are_none(folder: Folder, brokers: str, problem: str) -> None:
    assert folder.problems(GOOD.replace("brokers: 127.0.0.1:9092", f"brokers: '{brokers}'")) == [
        f"7:9: pipelines.access.source.kafka.brokers: {problem}"
    ]


def test_every_pattern_is_described_in_words() -> None:
    patterns = set(re.findall(r'"pattern": "(.*?)",?\n', json.dumps(Service.model_json_schema(), indent=1)))
    described = {json.dumps(pattern)[1:-1] for pattern in IN_WORDS}
    assert patterns - described == {"^(s3|file|memory)://"}, "which its own check describes"
