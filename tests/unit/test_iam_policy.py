"""The policy of a configuration: what is in it, where, and what is told beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamsvc.commands.iam_policy import iam_policy
from streamsvc.core import iam

LOCAL = "file:///srv"


class Asked:
    """What the command says of a file with one pipeline, ``p`` of the service ``s``."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capsys = capsys

    def __call__(
        self,
        source: str,
        *,
        aws: str = "region: eu-west-1",
        state: str = LOCAL,
        more: str = "",
        sink: str | None = None,
    ) -> None:
        file = self._folder / "pipeline.yaml"
        file.write_text(f"""\
service: s
state: {state}/state
aws: {{{aws}}}
pipelines:
  p:
    source: {{{source}}}
    decode: {{raw: {{}}}}
    sink: {sink or f"{{path: {state}/lake}}"}
{more}""")
        assert iam_policy(file, None) == 0
        out, self.notes = self._capsys.readouterr()
        self.policy: dict[str, Any] = json.loads(out)
        self.statements = {statement["Sid"]: statement for statement in self.policy["Statement"]}

    def actions(self, service: str) -> set[str]:
        found = {action for statement in self.policy["Statement"] for action in statement["Action"]}
        return {action.partition(":")[2] for action in found if action.startswith(f"{service}:")}


@pytest.fixture
def asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Asked:
    return Asked(tmp_path, capsys)


READS = {"DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards"}
FAN_OUT = {"DescribeStreamConsumer", "RegisterStreamConsumer", "SubscribeToShard"}
LEASES = {"CreateTable", "DeleteItem", "DescribeTable", "PutItem", "Scan", "UpdateItem"}


@pytest.mark.parametrize(
    ("options", "kinesis", "dynamodb"),
    [
        ("leases: none", READS, set()),
        ("retrieval: polling", READS, LEASES),
        ("retrieval: fanout", READS | FAN_OUT, LEASES),
        ("engine: kcl", READS, LEASES | {"GetItem", "Query", "UpdateTable"}),
        ("engine: kcl, retrieval: fanout", READS | FAN_OUT, LEASES | {"GetItem", "Query", "UpdateTable"}),
    ],
)
def test_kinesis_by_engine_and_retrieval(asked: Asked, options: str, kinesis: set[str], dynamodb: set[str]) -> None:
    asked(f"kinesis: {{stream: access, {options}}}")
    assert asked.actions("kinesis") == kinesis
    assert asked.actions("dynamodb") == dynamodb
    assert asked.actions("s3") | asked.actions("cloudwatch") | asked.actions("sts") == set()


def test_resources_are_named_as_far_as_the_file_does(asked: Asked) -> None:
    asked("kinesis: {stream: access, retrieval: fanout, consumer_name: lake}")
    stream = "arn:aws:kinesis:eu-west-1:*:stream/access"
    assert asked.statements["ReadStreams"]["Resource"] == [stream]
    assert asked.statements["FindConsumers"]["Resource"] == [f"{stream}/consumer/lake", f"{stream}/consumer/lake:*"]
    assert asked.statements["SubscribeToShards"]["Resource"] == [f"{stream}/consumer/lake:*"]
    assert asked.statements["Leases"]["Resource"] == ["arn:aws:dynamodb:eu-west-1:*:table/s.p"]
    assert "account is not in the file" in asked.notes
    assert "region is not in the file" not in asked.notes
    asked("kinesis: {stream: access}", aws="")
    assert asked.statements["ReadStreams"]["Resource"] == ["arn:aws:kinesis:*:*:stream/access"]
    assert "region is not in the file" in asked.notes


def test_a_role_says_whose_account_it_is(asked: Asked) -> None:
    role = "arn:aws-cn:iam::123456789012:role/reader"
    asked("kinesis: {stream: access}", aws=f'region: cn-north-1, role_arn: "{role}"', state="s3://b/x")
    assert asked.statements["AssumeRole"]["Resource"] == [role]
    assert asked.statements["ReadStreams"]["Resource"] == ["arn:aws-cn:kinesis:cn-north-1:123456789012:stream/access"]
    assert asked.statements["State"]["Resource"] == ["arn:aws-cn:s3:::b/x/state/p/*"]
    assert "account is not in the file" not in asked.notes
    assert "AssumeRole is for whoever starts" in asked.notes


def test_a_stream_of_another_account_and_region(asked: Asked) -> None:
    arn = "arn:aws-us-gov:kinesis:us-gov-west-1:210987654321:stream/access"
    asked(f'kinesis: {{stream_arn: "{arn}", lease_table: leases}}')
    assert asked.statements["ReadStreams"]["Resource"] == [arn]
    assert asked.statements["Leases"]["Resource"] == ["arn:aws-us-gov:dynamodb:us-gov-west-1:*:table/leases"]
    assert "the policy of that stream" in asked.notes


def test_the_tables_and_metrics_of_a_kcl(asked: Asked) -> None:
    asked("kinesis: {stream: access, engine: kcl, application: app, lease_table: leases}")
    table = "arn:aws:dynamodb:eu-west-1:*:table"
    assert asked.statements["KclLeases"]["Resource"] == [f"{table}/leases"]
    assert asked.statements["KclLeasesOfWorkers"]["Resource"] == [f"{table}/leases/index/LeaseOwnerToLeaseKeyIndex"]
    assert asked.statements["KclCoordination"]["Resource"] == [f"{table}/app-CoordinatorState"]
    assert asked.statements["KclWorkers"]["Resource"] == [f"{table}/app-WorkerMetricStats"]
    assert asked.actions("cloudwatch") == set()
    properties = "{MetricsLevel: SUMMARY, leaseTablePitrEnabled: true}"
    asked(f"kinesis: {{stream: access, engine: kcl, application: app, kcl: {{properties: {properties}}}}}")
    assert asked.statements["KclMetrics"] == {
        "Sid": "KclMetrics",
        "Effect": "Allow",
        "Action": ["cloudwatch:PutMetricData"],
        "Resource": ["*"],
        "Condition": {"StringEquals": {"cloudwatch:namespace": ["app"]}},
    }
    assert "properties of the KCL may need more" in asked.notes


def test_buckets_are_open_below_the_prefixes_only(asked: Asked) -> None:
    window = """\
    rejects: {path: s3://other}
"""
    asked("kinesis: {stream: access, leases: none}", state="s3://b/x", more=window)
    assert asked.statements["State"]["Action"] == ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
    assert asked.statements["State"]["Resource"] == ["arn:aws:s3:::b/x/state/p/*"]
    assert asked.statements["Data"]["Action"] == ["s3:GetObject", "s3:PutObject"]
    assert asked.statements["Data"]["Resource"] == ["arn:aws:s3:::b/x/lake/*", "arn:aws:s3:::other/*"]
    assert asked.statements["ListBelow1"]["Condition"] == {"StringLike": {"s3:prefix": ["x/lake/*", "x/state/p/*"]}}
    assert asked.statements["ListBelow2"]["Resource"] == ["arn:aws:s3:::other"]
    assert "Condition" not in asked.statements["ListBelow2"]
    assert "a bucket needs kms:Decrypt and kms:GenerateDataKey" in asked.notes


def test_late_rows_have_their_place(asked: Asked) -> None:
    window = """\
    window: {tumble: 1m, time: arrival, aggregate: {n: count(*)}}
"""
    asked("kinesis: {stream: access, leases: none}", state="s3://b", more=window)
    assert asked.statements["Data"]["Resource"] == [
        "arn:aws:s3:::b/lake/*",
        "arn:aws:s3:::b/state/late/p/*",
        "arn:aws:s3:::b/state/rejects/p/*",
    ]


def test_msk_with_iam(asked: Asked) -> None:
    brokers = "b-1.clicks.x.c2.kafka.eu-central-1.amazonaws.com:9098"
    asked(f'kafka: {{brokers: "{brokers}", topics: [b, a], sasl: {{mechanism: AWS_MSK_IAM}}}}', aws="")
    home = "arn:aws:kafka:eu-central-1:*"
    assert asked.statements["ConnectToCluster"]["Resource"] == [f"{home}:cluster/{iam.CLUSTER}"]
    assert asked.statements["ReadTopics"]["Resource"] == [f"{home}:topic/{iam.CLUSTER}/{topic}" for topic in "ab"]
    assert asked.statements["JoinGroups"]["Resource"] == [f"{home}:group/{iam.CLUSTER}/s.p"]
    assert asked.actions("kafka-cluster") == {"AlterGroup", "Connect", "DescribeGroup", "DescribeTopic", "ReadData"}
    assert f"replace {iam.CLUSTER}" in asked.notes


def test_nothing_of_aws(asked: Asked) -> None:
    asked('kafka: {brokers: "127.0.0.1:9092", topics: [a]}', aws='role_arn: "arn:aws:iam::123456789012:role/reader"')
    assert asked.policy["Statement"] == []
    assert "nothing that this file names is in AWS" in asked.notes


def test_wildcards_of_people_are_none_of_iam() -> None:
    (objects, listing) = iam.objects("Data", iam.Home(), "s3://b/a*?$")
    assert objects.resource == "arn:aws:s3:::b/a${*}${?}${$}/*"
    assert listing.condition == ("StringLike", "s3:prefix", "a${*}${?}${$}/*")


def test_order_and_repetition_do_not_matter() -> None:
    home = iam.Home("eu-west-1", "1")
    parts = [
        *iam.objects("Data", home, "s3://b/x"),
        *iam.objects("Data", home, "s3://a/y"),
        *iam.objects("Data", home, "s3://b/w"),
        *iam.read_stream("arn:aws:kinesis:eu-west-1:1:stream/s"),
    ]
    made = iam.document(parts)
    assert json.dumps(made) == json.dumps(iam.document([*reversed(parts), *parts]))
    names = [statement["Sid"] for statement in made["Statement"]]
    assert names == ["Data", "ListBelow1", "ListBelow2", "ReadStreams"]
    assert made["Statement"][2]["Condition"] == {"StringLike": {"s3:prefix": ["w/*", "x/*"]}}
    whole = iam.document([*parts, *iam.objects("Data", home, "s3://b")])
    assert [statement.get("Condition") for statement in whole["Statement"] if statement["Sid"] == "ListBelow2"] == [
        None
    ]


def test_results_of_windows_are_written(asked: Asked) -> None:
    window = "    window: {tumble: 5m, time: arrival, aggregate: {n: count(*)}}\n"
    reads = "kafka: {brokers: b, topics: [t]}"
    asked(reads, more=window, sink="{kinesis: {stream: results}}")
    stream = "arn:aws:kinesis:eu-west-1:*:stream/results"
    assert asked.statements["WriteStreams"]["Resource"] == [stream]
    assert asked.actions("kinesis") == {"DescribeStreamSummary", "PutRecords"}
    sasl = "brokers: 'b.kafka.us-east-1.amazonaws.com', sasl: {mechanism: AWS_MSK_IAM}"
    asked(reads, more=window, aws="", sink=f"{{kafka: {{topic: results, {sasl}}}}}")
    topic = f"arn:aws:kafka:us-east-1:*:topic/{iam.CLUSTER}/results"
    assert asked.statements["WriteTopics"]["Resource"] == [topic]
    assert asked.actions("kafka-cluster") == {"Connect", "DescribeTopic", "WriteData", "WriteDataIdempotently"}
    asked(reads, more=window, sink="{kafka: {topic: results, brokers: b}}")
    assert asked.policy["Statement"] == []
