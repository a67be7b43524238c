"""``streamsvc iam-policy``: what AWS must allow for this file, and no more."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import orjson

from streamsvc.app import load, selected, state_url
from streamsvc.app_recipes import late_url, rejects_url
from streamsvc.config import ObjectSink, Pipeline, Service
from streamsvc.config_sinks import KeyedSink
from streamsvc.config_sources import KafkaSource, KinesisSource, Sasl, application_name, lease_table
from streamsvc.core import iam
from streamsvc.core.iam import Home, Statement
from streamsvc.core.kafka_client import msk_region

NO_METRICS = "NONE"


def iam_policy(file: Path, pipeline: str | None) -> int:
    """The policy goes to standard output, as JSON; what the file does not say, to standard error. Answers the exit
    code. Raises ``ConfigError``."""
    service = load(file)
    names = selected(service, pipeline)
    statements = [statement for name in names for statement in _of_pipeline(service, name)]
    if statements and service.aws.role_arn is not None:
        statements += iam.assume(service.aws.role_arn)
    print(orjson.dumps(iam.document(statements), option=orjson.OPT_INDENT_2).decode())
    for note in _notes(service, [service.pipelines[name] for name in names], statements):
        print(f"note: {note}", file=sys.stderr)
    return 0


def _of_pipeline(service: Service, name: str) -> list[Statement]:
    pipeline = service.pipelines[name]
    home = _home(service)
    found = _of_store("State", home, state_url(service, name), deletes=True)
    for url in _data_urls(service, name, pipeline):
        found += _of_store("Data", home, url)
    if pipeline.source.kafka is not None:
        found += _of_kafka(service, name, pipeline.source.kafka)
    if pipeline.source.kinesis is not None:
        found += _of_kinesis(service, name, pipeline.source.kinesis)
    if isinstance(pipeline.sink, KeyedSink):
        found += _of_results(service, pipeline.sink)
    return found


def _home(service: Service) -> Home:
    """Of what is named without its ARN: in the account of the role, if there is one."""
    role = service.aws.role_arn
    return (Home.of(role) if role is not None else Home()).in_region(service.aws.region)


def _data_urls(service: Service, name: str, pipeline: Pipeline) -> list[str]:
    urls = [rejects_url(service, name, pipeline)]
    if isinstance(pipeline.sink, ObjectSink):
        urls.insert(0, pipeline.sink.path)
    return urls if pipeline.window is None else [*urls, late_url(service, name, pipeline)]


def _of_store(sid: str, home: Home, url: str, *, deletes: bool = False) -> list[Statement]:
    return iam.objects(sid, home, url, deletes=deletes) if url.startswith("s3://") else []


def _of_kafka(service: Service, name: str, source: KafkaSource) -> list[Statement]:
    if source.sasl is None or source.sasl.mechanism != "AWS_MSK_IAM":
        return []
    home = _home_of_brokers(service, source.sasl, source.brokers)
    return iam.read_topics(home, source.topics, source.group or f"{service.service}.{name}")


def _of_results(service: Service, sink: KeyedSink) -> list[Statement]:
    if sink.kinesis is not None:
        return iam.write_stream(_home(service).arn("kinesis", f"stream/{sink.kinesis.stream}"))
    kafka = sink.kafka
    if kafka is None or kafka.sasl is None or kafka.sasl.mechanism != "AWS_MSK_IAM":
        return []
    return iam.write_topic(_home_of_brokers(service, kafka.sasl, kafka.brokers), kafka.topic)


def _home_of_brokers(service: Service, sasl: Sasl, brokers: str) -> Home:
    return _home(service).in_region(sasl.region or service.aws.region or msk_region(brokers))


def _of_kinesis(service: Service, name: str, source: KinesisSource) -> list[Statement]:
    """Tables are ours, in the region of the stream; a stream may be another account's."""
    home = _home(service)
    stream = home.arn("kinesis", f"stream/{source.stream}")
    if source.stream_arn is not None:
        stream = source.stream_arn
        home = home.in_region(Home.of(stream).region)
    application = application_name(service.service, name, source)
    table = lease_table(service.service, name, source)
    found = iam.read_stream(stream)
    if source.retrieval == "fanout":
        found += iam.fan_out(stream, source.consumer_name or application)
    if source.engine == "kcl":
        found += iam.kcl_tables(home, application, table)
        found += iam.kcl_metrics(application) if _has_metrics(source) else []
    elif source.leases == "dynamodb":
        found += iam.lease_table(home, table)
    return found


def _has_metrics(source: KinesisSource) -> bool:
    """They are off unless the configuration turns them on."""
    levels = [value for name, value in source.kcl.properties.items() if name.lower() == "metricslevel"]
    return any(str(level).upper() != NO_METRICS for level in levels)


def _notes(service: Service, pipelines: Iterable[Pipeline], statements: list[Statement]) -> list[str]:
    """What cannot be known from the file, in the order of what a reader looks at first."""
    if not statements:
        return ["nothing that this file names is in AWS"]
    fields = [statement.resource.split(":", 5) for statement in statements if statement.resource != "*"]
    own = [arn for arn in fields if arn[2] in ("kinesis", "dynamodb", "kafka")]
    services = {arn[2] for arn in fields}
    sources = [pipeline.source for pipeline in pipelines]
    kinesis = [source.kinesis for source in sources if source.kinesis is not None]
    told = {
        "the account is not in the file: `*` stands for it in ARNs": any(arn[4] == iam.ANY for arn in own),
        "the region is not in the file: `*` stands for it in ARNs; set `aws.region`": any(
            arn[3] == iam.ANY for arn in own
        ),
        f"replace {iam.CLUSTER}: the file does not say the cluster's ARN": "kafka" in services,
        "AssumeRole is for whoever starts the service, all else for the role that it assumes": "iam" in services,
        "`aws.endpoint_url` may be a store that is not S3, and has permissions of its own": "s3" in services
        and (service.aws.endpoint_url or service.aws.endpoints.s3) is not None,
        "of a stream of another account, the policy of that stream must allow the same": any(
            source.stream_arn is not None for source in kinesis
        ),
        "dynamodb:CreateTable is for the first start only": "dynamodb" in services,
        "properties of the KCL may need more: tags, point-in-time recovery, other tables": any(
            set(map(str.lower, source.kcl.properties)) - {"metricslevel"} for source in kinesis
        ),
        _kms_note(services): bool(services & _KMS.keys()),
    }
    return [note for note, holds in told.items() if holds]


_KMS = {
    "kinesis": "a stream needs kms:Decrypt, and kms:GenerateDataKey where it is written to",
    "s3": "a bucket needs kms:Decrypt and kms:GenerateDataKey",
    "dynamodb": "a table needs what DynamoDB's guide lists (one that is made here needs nothing)",
}


def _kms_note(services: set[str]) -> str:
    """What is encrypted with AWS's own keys needs nothing."""
    needs = "; ".join(need for service, need in _KMS.items() if service in services)
    return f"whether a key of yours encrypts is not in the file; on that key, {needs}"
