"""What AWS must allow, as statements of an IAM policy: the actions that this program calls, on what it calls them.

Facts are from the Service Authorization Reference (actions and shapes of ARNs), the Kinesis developer guide ("IAM
permissions required for KCL consumer applications") and the MSK developer guide ("Semantics of IAM authorization policy
actions and resources").
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

ANY: Final = "*"
"""In the place of a region or an account that is not known."""

CLUSTER: Final = "${MSK_CLUSTER_NAME}/${MSK_CLUSTER_UUID}"
"""For a person to fill in: the names of brokers do not say it. No policy variable is called so: it matches nothing."""

_READ_STREAM = ("DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards")
_LEASES = ("CreateTable", "DeleteItem", "DescribeTable", "PutItem", "Scan", "UpdateItem")
_KCL_LEASES = (*_LEASES, "GetItem", "UpdateTable")
_KCL_COORDINATION = (*_LEASES, "GetItem")
_KCL_WORKERS = ("CreateTable", "DeleteItem", "DescribeTable", "Scan", "UpdateItem")


@dataclass(frozen=True, slots=True)
class Home:
    """Where resources are that are known by a name only."""

    region: str = ANY
    account: str = ANY
    partition: str = "aws"

    @classmethod
    def of(cls, arn: str) -> Home:
        _, partition, _, region, account, _ = arn.split(":", 5)
        return cls(region or ANY, account or ANY, partition)

    def in_region(self, region: str | None) -> Home:
        """Some regions are partitions of their own ("Amazon Resource Names")."""
        if region is None:
            return self
        partitions = {"cn": "aws-cn", "us-gov": "aws-us-gov"}
        found = next((name for start, name in partitions.items() if region.startswith(f"{start}-")), self.partition)
        return replace(self, region=region, partition=found)

    def arn(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"


Condition: TypeAlias = tuple[str, str, str]
"""Operator, key and value: ``("StringLike", "s3:prefix", "lake/*")``."""


class Statement(NamedTuple):
    """Allows actions on one resource.

    sid:       what for; in the policy, statements that say the same of several resources are one
    condition: one of several that a resource may have holds
    """

    sid: str
    actions: tuple[str, ...]
    resource: str
    condition: Condition | None = None


def _allow(sid: str, service: str, actions: Iterable[str], *resources: str) -> list[Statement]:
    named = tuple(sorted(f"{service}:{action}" for action in actions))
    return [Statement(sid, named, resource) for resource in resources]


def read_stream(stream_arn: str) -> list[Statement]:
    """Also for a consumer of fan-out: ranges are read again, and ends are looked for, by polling."""
    return _allow("ReadStreams", "kinesis", _READ_STREAM, stream_arn)


def write_stream(stream_arn: str) -> list[Statement]:
    return _allow("WriteStreams", "kinesis", ["DescribeStreamSummary", "PutRecords"], stream_arn)


def fan_out(stream_arn: str, consumer: str) -> list[Statement]:
    """A consumer's ARN ends with the time of its creation. AWS does not say whether one that is asked for by its name
    has that for IAM: its own example allows ``consumer/*``, which is either."""
    named = f"{stream_arn}/consumer/{consumer}"
    return [
        *_allow("RegisterConsumers", "kinesis", ["RegisterStreamConsumer"], stream_arn),
        *_allow("FindConsumers", "kinesis", ["DescribeStreamConsumer"], named, f"{named}:*"),
        *_allow("SubscribeToShards", "kinesis", ["SubscribeToShard"], f"{named}:*"),
    ]


def lease_table(home: Home, table: str) -> list[Statement]:
    return _allow("Leases", "dynamodb", _LEASES, home.arn("dynamodb", f"table/{table}"))


def kcl_tables(home: Home, application: str, table: str) -> list[Statement]:
    """Of a KCL 3: its leases, their index, and two tables that bear the name of the application."""
    leases = home.arn("dynamodb", f"table/{table}")
    named = home.arn("dynamodb", f"table/{application}")
    return [
        *_allow("KclLeases", "dynamodb", _KCL_LEASES, leases),
        *_allow("KclLeasesOfWorkers", "dynamodb", ["Query"], f"{leases}/index/LeaseOwnerToLeaseKeyIndex"),
        *_allow("KclCoordination", "dynamodb", _KCL_COORDINATION, f"{named}-CoordinatorState"),
        *_allow("KclWorkers", "dynamodb", _KCL_WORKERS, f"{named}-WorkerMetricStats"),
    ]


def kcl_metrics(application: str) -> list[Statement]:
    """CloudWatch knows no resources; its namespace is the name of the application."""
    namespace = ("StringEquals", "cloudwatch:namespace", application)
    return [Statement("KclMetrics", ("cloudwatch:PutMetricData",), "*", namespace)]


def read_topics(home: Home, topics: Iterable[str], group: str) -> list[Statement]:
    """Of an MSK cluster with IAM."""
    named = [home.arn("kafka", f"topic/{CLUSTER}/{topic}") for topic in topics]
    return [
        *_allow("ConnectToCluster", "kafka-cluster", ["Connect"], home.arn("kafka", f"cluster/{CLUSTER}")),
        *_allow("ReadTopics", "kafka-cluster", ["DescribeTopic", "ReadData"], *named),
        *_allow(
            "JoinGroups",
            "kafka-cluster",
            ["AlterGroup", "DescribeGroup"],
            home.arn("kafka", f"group/{CLUSTER}/{literal(group)}"),
        ),
    ]


def write_topic(home: Home, topic: str) -> list[Statement]:
    """Of an MSK cluster with IAM; idempotence is a right on the cluster."""
    cluster, named = home.arn("kafka", f"cluster/{CLUSTER}"), home.arn("kafka", f"topic/{CLUSTER}/{topic}")
    return [
        *_allow("ConnectToCluster", "kafka-cluster", ["Connect"], cluster),
        *_allow("WriteOnce", "kafka-cluster", ["WriteDataIdempotently"], cluster),
        *_allow("WriteTopics", "kafka-cluster", ["DescribeTopic", "WriteData"], named),
    ]


def assume(role_arn: str) -> list[Statement]:
    return _allow("AssumeRole", "sts", ["AssumeRole"], role_arn)


def objects(sid: str, home: Home, url: str, *, deletes: bool = False) -> list[Statement]:
    """Below a prefix, ``s3://bucket/prefix``. Objects are created and read; to ask for one that is not there is to
    list, to S3: without ``ListBucket`` it would be refused (API Reference, GetObject)."""
    bucket, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
    below = f"{literal(prefix)}/*" if prefix else "*"
    arn = f"arn:{home.partition}:s3:::{bucket}"
    actions = ["GetObject", "PutObject", *(["DeleteObject"] if deletes else [])]
    listing = Statement("ListBelow", ("s3:ListBucket",), arn, ("StringLike", "s3:prefix", below) if prefix else None)
    return [*_allow(sid, "s3", actions, f"{arn}/{below}"), listing]


def literal(text: str) -> str:
    """Text in which nothing is a wildcard or a variable (IAM user guide, "IAM policy elements: Variables")."""
    return re.sub(r"[*?$]", lambda found: f"${{{found[0]}}}", text)


def document(statements: Iterable[Statement]) -> dict[str, Any]:
    """The policy: the same for the same statements in any order, and no statement twice."""
    conditions: defaultdict[tuple[str, tuple[str, ...], str], set[Condition | None]] = defaultdict(set)
    for sid, actions, resource, condition in statements:
        conditions[sid, actions, resource].add(condition)
    resources: defaultdict[tuple[str, tuple[str, ...], tuple[Condition, ...]], list[str]] = defaultdict(list)
    for (sid, actions, resource), found in sorted(conditions.items(), key=itemgetter(0)):
        limits = tuple(sorted(limit for limit in found if limit is not None and None not in found))
        resources[sid, actions, limits].append(resource)
    names = Counter(sid for sid, _, _ in resources)
    numbers: Counter[str] = Counter()
    written = []
    for (sid, actions, limits), named in resources.items():
        numbers[sid] += 1
        written.append(
            {
                # A policy may have each name only once.
                "Sid": sid if names[sid] == 1 else f"{sid}{numbers[sid]}",
                "Effect": "Allow",
                "Action": list(actions),
                "Resource": named,
                **({"Condition": _condition(limits)} if limits else {}),
            }
        )
    return {"Version": "2012-10-17", "Statement": written}


def _condition(limits: Iterable[Condition]) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for operator, key, value in limits:
        found.setdefault(operator, {}).setdefault(key, []).append(value)
    return found
