"""The models of sources: ``pipelines.<name>.source`` of a configuration."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from streamsvc.config_types import (
    KINESIS_NAME,
    STREAM_ARN,
    TABLE_NAME,
    TOPIC,
    Brokers,
    ByteSize,
    Model,
    Seconds,
    Secret,
    Whole,
)
from streamsvc.core import kcl_properties
from streamsvc.core.kafka_client import reason_to_refuse

KafkaTopic = Annotated[str, Field(pattern=TOPIC)]
KinesisName = Annotated[str, Field(pattern=KINESIS_NAME)]
TableName = Annotated[str, Field(pattern=TABLE_NAME)]


def _checked_start(start: str, *words: str) -> str:
    """One of the words, or a time with its zone."""
    if start in words:
        return start
    try:
        moment = datetime.fromisoformat(start)
    except ValueError:
        raise ValueError(f"{start!r} is none of {', '.join(words)}, and no time") from None
    if moment.tzinfo is None:
        raise ValueError(f"the time {start} has no zone; write for example 2026-01-31T06:00:00Z")
    return start


class Sasl(Model):
    """Logging in to Kafka. AWS_MSK_IAM takes its credentials from where AWS's tools do; the others need a name and a
    password."""

    mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "AWS_MSK_IAM"] = Field(description="How to log in.")
    username: str | None = Field(default=None, description="For SCRAM and PLAIN.")
    password: Secret | None = Field(default=None, description="For SCRAM and PLAIN.")
    region: str | None = Field(default=None, description="For AWS_MSK_IAM; found from the brokers' names if left out.")

    @model_validator(mode="after")
    def _names_who_logs_in(self) -> Self:
        if self.mechanism != "AWS_MSK_IAM" and (self.username is None or self.password is None):
            raise ValueError(f"{self.mechanism} needs `username` and `password`, for example ${{KAFKA_PASSWORD}}")
        return self


class Tls(Model):
    """Encryption to Kafka. Each of the first three is a path, or the PEM text itself."""

    ca: str | None = Field(
        default=None, description="Who signs the brokers' certificates; the system's CAs if left out."
    )
    certificate: str | None = Field(default=None, description="Our certificate, where the brokers ask for one.")
    key: Secret | None = Field(default=None, description="The private key of our certificate.")
    key_password: Secret | None = Field(default=None, description="What the private key is encrypted with.")


class KafkaSource(Model):
    """Records of Kafka topics, also of MSK and Redpanda."""

    brokers: Brokers = Field(description="Where to begin: host:port, several with commas between them.")
    topics: list[KafkaTopic] = Field(min_length=1, description="Read together, by their exact names.")
    start: str = Field(
        default="earliest",
        description="Where the first run ever begins: earliest, latest, committed (where `group` was left by whom we"
        " replace) or a time, 2026-01-31T06:00:00Z. Later runs go on from the segment log.",
    )
    group: str | None = Field(default=None, description="The consumer group; `<service>.<pipeline>` if left out.")
    group_protocol: Literal["classic", "consumer"] = Field(
        default="classic", description="consumer is KIP-848: the broker decides who reads what."
    )
    instance_id: str | None = Field(
        default=None, description="Name of this one worker in the group; from host and slot if left out."
    )
    tls: Tls | bool | None = Field(
        default=None, description="true takes the system's CAs; left out, it is on where there is `sasl`."
    )
    sasl: Sasl | None = Field(default=None, description="How to log in; not at all if left out.")
    client: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="More settings of librdkafka, by its names; those that are ours are refused."
    )

    @field_validator("start")
    @classmethod
    def _is_a_start(cls, start: str) -> str:
        return _checked_start(start, "earliest", "latest", "committed")

    @model_validator(mode="after")
    def _leaves_our_settings_alone(self) -> Self:
        for setting in self.client:
            reason = reason_to_refuse(setting, self.group_protocol)
            if reason is not None:
                raise ValueError(f"`client` may not set {setting}: {reason}")
        return self


class Kpl(Model):
    """Records that the Kinesis Producer Library has packed together."""

    deaggregate: bool = Field(default=True, description="false: what the KPL packed stays one record.")
    out_of_range: Literal["drop", "keep"] = Field(
        default="drop",
        description="An aggregate that holds a record of another shard is dropped whole, and counted, as the KCL does:"
        " the KPL sends all of it again. keep is for producers that do not.",
    )


class Kcl(Model):
    """The JVM of ``engine: kcl``, one for each worker and stream. Its memory is not part of ``memory``."""

    heap: ByteSize = Field(default=512 * 1024 * 1024, description="At most.")
    properties: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="More settings of the KCL, by its names; those that are ours are refused."
    )

    @model_validator(mode="after")
    def _leaves_our_properties_alone(self) -> Self:
        for name in self.properties:
            reason = kcl_properties.reason_to_refuse(name)
            if reason is not None:
                raise ValueError(f"`properties` may not set {name}: {reason}")
        return self


class KinesisSource(Model):
    """Records of a Kinesis data stream. Either `stream` or `stream_arn` names it."""

    stream: KinesisName | None = Field(default=None, description="Its name, in `aws.region`.")
    stream_arn: str | None = Field(
        default=None,
        pattern=STREAM_ARN,
        description="Its ARN; also of another account.",
    )
    application: TableName | None = Field(
        default=None, description="The name of the KCL application; `<service>.<pipeline>` if left out."
    )
    start: str = Field(
        default="trim_horizon",
        description="Where the first run ever begins: trim_horizon, latest, committed (where the KCL application was"
        " left that we replace) or a time, 2026-01-31T06:00:00Z. Later runs go on from the segment log.",
    )
    retrieval: Literal["polling", "fanout"] = Field(
        default="polling",
        description="polling shares 2 MiB/s a shard with other consumers; fanout (enhanced fan-out) has its own, for"
        " money, and is quicker.",
    )
    consumer_name: KinesisName | None = Field(
        default=None, description="For fanout: the registered consumer; as `application` if left out."
    )
    leases: Literal["dynamodb", "none"] = Field(
        default="dynamodb",
        description="How workers share the shards: a DynamoDB table as the KCL has it; none is for `workers: 1`.",
    )
    lease_table: TableName | None = Field(default=None, description="Its name; as `application` if left out.")
    failover: Seconds = Field(
        default=10.0, ge=2, le=3600, description="A worker that gave no sign for so long is taken for dead."
    )
    handover: Seconds = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="A shard that another worker asks for is given once what was read of it has landed, or after so"
        " long: then the other reads that again. Longer than it takes to land a segment, and at least `failover`, which"
        " is what it is where that is longer than this default.",
    )
    max_leases: Whole | None = Field(
        default=None,
        ge=1,
        description="A worker reads no more shards than this; that shards are left without a worker is told as a"
        " problem. If left out, the workers share all of them.",
    )
    kpl: Kpl = Field(default=Kpl(), description="What the Kinesis Producer Library has packed together.")
    engine: Literal["native", "kcl"] = Field(
        default="native", description="kcl reads through Amazon's KCL (Java 17, and `pip install streamsvc[kcl]`)."
    )
    kcl: Kcl = Field(default=Kcl(), description="For `engine: kcl`.")

    @property
    def name(self) -> str:
        """Of the stream."""
        return self.stream or str(self.stream_arn).rpartition("/")[2]

    @property
    def handover_s(self) -> float:
        return max(self.handover, self.failover)

    @field_validator("start")
    @classmethod
    def _is_a_start(cls, start: str) -> str:
        return _checked_start(start, "trim_horizon", "latest", "committed")

    @model_validator(mode="after")
    def _names_one_stream(self) -> Self:
        if (self.stream is None) == (self.stream_arn is None):
            raise ValueError("name the stream by exactly one of `stream` and `stream_arn`")
        if self.leases == "none":
            if self.engine == "kcl":
                raise ValueError("`engine: kcl` shares shards by its own leases: leave out `leases: none`")
            if self.start == "committed":
                raise ValueError("`start: committed` reads the lease table of a KCL: leave out `leases: none`")
            if {"handover", "max_leases"} & self.model_fields_set:
                raise ValueError(
                    "without leases the one worker reads every shard, and gives none: leave out `handover` and"
                    " `max_leases`, or `leases: none`"
                )
        return self

    @model_validator(mode="after")
    def _has_time_to_hand_over(self) -> Self:
        if "handover" in self.model_fields_set and self.handover < self.failover:
            raise ValueError(
                f"`handover` ({self.handover:g}s) is shorter than `failover` ({self.failover:g}s): the lease table is"
                " read every tenth of `failover`, and what was read would have no time to land: make it as long"
            )
        return self

    @model_validator(mode="after")
    def _suits_its_engine(self) -> Self:
        if self.engine == "native" and self.kcl != Kcl():
            raise ValueError("`kcl` is for `engine: kcl`")
        if self.engine == "kcl" and {"handover", "max_leases"} & self.model_fields_set:
            raise ValueError(
                "`engine: kcl` shares shards as the KCL does: leave out `handover` and `max_leases`; its own limit is"
                " `kcl: {properties: {maxLeasesForWorker: ...}}`"
            )
        if self.engine == "kcl" and self.kpl != Kpl():
            raise ValueError("`engine: kcl` always unpacks what the KPL packed, by the KCL's rules: leave out `kpl`")
        return self


def application_name(service: str, pipeline: str, source: KinesisSource) -> str:
    return source.application or f"{service}.{pipeline}"


def lease_table(service: str, pipeline: str, source: KinesisSource) -> str:
    return source.lease_table or application_name(service, pipeline, source)


class Source(Model):
    """Where records come from: one of these."""

    kafka: KafkaSource | None = Field(default=None, description="Kafka, MSK or Redpanda.")
    kinesis: KinesisSource | None = Field(default=None, description="Kinesis Data Streams.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.kafka is None) == (self.kinesis is None):
            raise ValueError("name exactly one source: kafka or kinesis")
        return self

    @property
    def address(self) -> str:
        """What is read, for people."""
        if self.kafka is not None:
            return ", ".join(self.kafka.topics)
        return f"kinesis {self.kinesis.name}" if self.kinesis is not None else ""
