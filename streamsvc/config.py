"""The whole configuration, as models. Field names are the YAML's; defaults are what most people should run."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from streamsvc.core.kafka_client import reason_to_refuse
from streamsvc.core.units import parse_bytes, parse_seconds

Seconds = Annotated[float, BeforeValidator(parse_seconds)]
"""A duration: ``300``, ``5m``, ``250ms``, ``1h30m``."""

ByteSize = Annotated[int, BeforeValidator(parse_bytes)]
"""A size: ``1048576``, ``128MiB``, ``1GB``."""

Include = Literal["_key", "_headers", "_timestamp", "_split", "_position"]


class Model(BaseModel):
    """Unknown keys are errors; nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False, hide_input_in_errors=True)


class Sasl(Model):
    """AWS_MSK_IAM takes its credentials from where AWS's tools do; the others need a name and a password."""

    mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "AWS_MSK_IAM"]
    username: str | None = None
    password: SecretStr | None = None
    region: str | None = None

    @model_validator(mode="after")
    def _names_who_logs_in(self) -> Self:
        if self.mechanism != "AWS_MSK_IAM" and (self.username is None or self.password is None):
            raise ValueError(f"{self.mechanism} needs `username` and `password`, for example ${{KAFKA_PASSWORD}}")
        return self


class Tls(Model):
    """Each of the first three is a path, or the PEM text itself."""

    ca: str | None = None
    certificate: str | None = None
    key: SecretStr | None = None
    key_password: SecretStr | None = None


KafkaTopic = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


def _start_text(value: object) -> object:
    """YAML makes times of what looks like one."""
    return value.isoformat() if isinstance(value, date) else value


class KafkaSource(Model):
    """``start`` is ``earliest``, ``latest``, ``committed`` (where the one whom we replace left ``group``) or a time.

    ``tls`` may be ``true`` (the system's CAs) or ``false``; left out, it is on where there is ``sasl``.
    """

    brokers: str = Field(min_length=1)
    topics: list[KafkaTopic] = Field(min_length=1)
    start: Annotated[str, BeforeValidator(_start_text)] = "earliest"
    group: str | None = None
    group_protocol: Literal["classic", "consumer"] = "classic"
    instance_id: str | None = None
    tls: Tls | bool | None = None
    sasl: Sasl | None = None
    client: dict[str, str | int | float | bool] = Field(default_factory=dict)

    @field_validator("start")
    @classmethod
    def _is_a_start(cls, start: str) -> str:
        if start not in ("earliest", "latest", "committed"):
            try:
                moment = datetime.fromisoformat(start)
            except ValueError:
                raise ValueError(f"{start!r} is none of earliest, latest, committed, and no time") from None
            if moment.tzinfo is None:
                raise ValueError(f"the time {start} has no zone; write for example 2026-01-31T06:00:00Z")
        return start

    @model_validator(mode="after")
    def _leaves_our_settings_alone(self) -> Self:
        for setting in self.client:
            reason = reason_to_refuse(setting, self.group_protocol)
            if reason is not None:
                raise ValueError(f"`client` may not set {setting}: {reason}")
        return self


class Source(Model):
    kafka: KafkaSource


class JsonDecode(Model):
    """``schema`` names columns and their types, or is ``infer``: taken once from a sample, then kept."""

    columns: Literal["infer"] | dict[str, str] = Field(default="infer", alias="schema")
    on_new_field: Literal["ignore", "keep"] = "ignore"


class RawDecode(Model):
    """The value as it came, in one column."""

    column: str = "value"
    type: Literal["binary", "string"] = "binary"


class Decode(Model):
    """One decoder: ``{apache: combined}``, ``{json: {schema: ...}}`` or ``{raw: {}}``."""

    apache: str | None = None
    json_: JsonDecode | None = Field(default=None, alias="json")
    raw: RawDecode | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Decode:
        if sum(decoder is not None for decoder in (self.apache, self.json_, self.raw)) != 1:
            raise ValueError("name exactly one decoder: apache, json or raw")
        return self


class SqlStep(Model):
    sql: str


class Buffer(Model):
    size: ByteSize = Field(default=128 * 1024 * 1024, ge=1, le=4 * 1024**3)  # one PUT takes 5 GiB
    interval: Seconds = 300.0


class ParquetOptions(Model):
    row_group_rows: int = Field(default=1_000_000, ge=1)
    row_group_size: ByteSize = 32 * 1024 * 1024
    sort_by: list[str] = Field(default_factory=list)
    dictionary: bool | list[str] = True
    statistics: bool | list[str] = True


class ObjectSink(Model):
    path: str
    format: Literal["parquet", "json"] = "parquet"
    compression: Literal["zstd", "snappy", "gzip", "none"] = "zstd"
    compression_level: int | None = None
    partition_by: dict[str, str] = Field(default_factory=dict)
    buffer: Buffer = Buffer()
    max_partitions: int = Field(default=500, ge=1)
    parquet: ParquetOptions = ParquetOptions()

    @model_validator(mode="after")
    def _codec_fits(self) -> Self:
        if self.format == "json" and self.compression == "snappy":
            raise ValueError("json is compressed with zstd or gzip, or not at all: snappy has no file format")
        levels = {"zstd": range(1, 23), "gzip": range(1, 10)}.get(self.compression, range(0))
        if self.compression_level is not None and self.compression_level not in levels:
            fits = f"takes levels {levels[0]} to {levels[-1]}" if levels else "takes no level"
            raise ValueError(f"compression {self.compression} {fits}")
        return self


class Rejects(Model):
    path: str


class Pipeline(Model):
    source: Source
    decode: Decode
    include: list[Include] = Field(default_factory=list)
    transform: list[SqlStep] = Field(default_factory=list)
    sink: ObjectSink
    rejects: Rejects | None = None


class Rules(Model):
    """The part of a pipeline that decides what records become and where they go: no endpoint, no secret, no buffer.

    The segment log keeps it, so that a segment can be finished as it was planned, whatever the file says by then.
    """

    decode: Decode
    include: list[Include]
    transform: list[SqlStep]
    sink: ObjectSink
    rejects: str

    @classmethod
    def of(cls, pipeline: Pipeline, rejects: str) -> Rules:
        """``rejects``: the address where they go."""
        return cls(
            decode=pipeline.decode,
            include=pipeline.include,
            transform=pipeline.transform,
            sink=pipeline.sink,
            rejects=rejects,
        )

    def document(self) -> dict[str, object]:
        """As plain data, and the same for the same rules; ``model_validate`` reads it."""
        return self.model_dump(mode="json", by_alias=True, exclude={"sink": {"buffer", "max_partitions"}})


class Aws(Model):
    region: str | None = None
    endpoint_url: str | None = None
    profile: str | None = None
    role_arn: str | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None


class Http(Model):
    listen: str = "127.0.0.1:8080"


class Service(Model):
    """One file: a service and its pipelines."""

    service: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,100}$")
    state: str
    memory: ByteSize = 1024 * 1024 * 1024
    workers: int | Literal["auto"] = 1
    drain: Seconds = 25.0
    http: Http | None = Http()
    aws: Aws = Aws()
    pipelines: dict[str, Pipeline] = Field(min_length=1)
