"""The whole configuration, as models. Field names are the YAML's; defaults are what most people should run."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from streamsvc.config_sinks import KeyedSink, kind_of_sink
from streamsvc.config_sources import Kpl, Source
from streamsvc.config_types import LISTEN, NAME, URL, Address, ByteSize, Model, Seconds, Secret, SqlStep, Whole
from streamsvc.config_window import Window

MIN_WORKER_MEMORY = 64 * 1024 * 1024

Name = Annotated[str, Field(pattern=NAME)]
Url = Annotated[str, Field(pattern=URL)]
Include = Literal["_key", "_headers", "_timestamp", "_split", "_position"]


class JsonDecode(Model):
    """A JSON object a record."""

    columns: Literal["infer"] | dict[str, str] = Field(
        default="infer",
        alias="schema",
        description="Columns and their types; infer takes them once from a sample, and keeps them in the state.",
    )
    on_new_field: Literal["ignore", "keep"] = Field(
        default="ignore", description="keep puts fields that are no column into one JSON text column."
    )


class RawDecode(Model):
    """The value as it came, in one column."""

    column: str = Field(default="value", min_length=1, description="Its name.")
    type: Literal["binary", "string"] = Field(
        default="binary", description="With string, a value that is not UTF-8 is a reject."
    )


class Decode(Model):
    """One decoder: ``{apache: combined}``, ``{json: {schema: ...}}`` or ``{raw: {}}``."""

    apache: str | None = Field(
        default=None,
        description="Lines of an Apache log: common, combined, vhost_combined, error, or a LogFormat string.",
    )
    json_: JsonDecode | None = Field(default=None, alias="json", description="JSON objects.")
    raw: RawDecode | None = Field(default=None, description="Anything.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Decode:
        if sum(decoder is not None for decoder in (self.apache, self.json_, self.raw)) != 1:
            raise ValueError("name exactly one decoder: apache, json or raw")
        return self


class Buffer(Model):
    """When a segment is closed and landed: by size or by time, whichever comes first."""

    size: ByteSize = Field(
        default=128 * 1024 * 1024, le=4 * 1024**3, description="Of the largest object, as it is in the store."
    )  # one PUT takes 5 GiB
    interval: Seconds = Field(default=300.0, gt=0, description="Since its first record. At least 50 ms for each split.")


class ParquetOptions(Model):
    """How Parquet files are laid out."""

    row_group_rows: Whole = Field(default=1_000_000, description="Rows in a row group, at most.")
    row_group_size: ByteSize = Field(default=32 * 1024 * 1024, description="Size of a row group in memory, about.")
    sort_by: list[str] = Field(default_factory=list, description="Columns that order the rows of a row group.")
    dictionary: bool | list[str] = Field(default=True, description="Dictionary encoding, or for which columns.")
    statistics: bool | list[str] = Field(default=True, description="Least and greatest values, or for which columns.")


class ObjectSink(Model):
    """Objects in a store: one for each segment and partition."""

    path: Address = Field(description="The prefix of all objects; nothing else may be written below it.")
    format: Literal["parquet", "json"] = Field(default="parquet", description="json is an object a line.")
    compression: Literal["zstd", "snappy", "gzip", "none"] = Field(
        default="zstd", description="snappy is for Parquet only."
    )
    compression_level: int | None = Field(default=None, description="zstd: 1 to 22; gzip: 1 to 9.")
    partition_by: dict[str, str] = Field(
        default_factory=dict,
        description="name: SQL expression over the columns. Makes prefixes as Hive does, name=value/, in this order; a"
        " column of the same name is in the path, and not in the files.",
    )
    buffer: Buffer = Field(default=Buffer(), description="When objects are closed.")
    max_partitions: Whole = Field(default=500, description="Of one segment; one more closes it early.")
    parquet: ParquetOptions = Field(default=ParquetOptions(), description="For Parquet.")

    @property
    def address(self) -> str:
        """Where rows go, for people."""
        return self.path

    @model_validator(mode="after")
    def _codec_fits(self) -> Self:
        if self.format == "json" and self.compression == "snappy":
            raise ValueError("json is compressed with zstd or gzip, or not at all: snappy has no file format")
        levels = {"zstd": range(1, 23), "gzip": range(1, 10)}.get(self.compression, range(0))
        if self.compression_level is not None and self.compression_level not in levels:
            fits = f"takes levels {levels[0]} to {levels[-1]}" if levels else "takes no level"
            raise ValueError(f"compression {self.compression} {fits}")
        return self


Sink = Annotated[
    Annotated[ObjectSink, Tag("objects")] | Annotated[KeyedSink, Tag("keyed")], Discriminator(kind_of_sink)
]


class Rejects(Model):
    """Records that could not be decoded, transformed or placed, with their bytes and the reason."""

    path: Address = Field(description="The prefix of the reject objects; apart from every other prefix.")


class Pipeline(Model):
    """One source to one sink."""

    source: Source = Field(description="Where records come from.")
    decode: Decode = Field(description="What makes columns of them.")
    include: list[Include] = Field(
        default_factory=list, description="What the source knows of a record, as columns beside the decoded ones."
    )
    transform: list[SqlStep] = Field(default_factory=list, description="Steps, one after another: `- sql: SELECT ...`.")
    window: Window | None = Field(default=None, description="Aggregate rows in windows; their results go to the sink.")
    sink: Sink = Field(description="Where rows go; of a windowed pipeline, results.")
    rejects: Rejects | None = Field(
        default=None, description="Where rejects go; `<state>/rejects/<pipeline>` if left out."
    )

    @property
    def commit_interval(self) -> float:
        """Seconds from the first record of a segment until it is landed."""
        return self.buffer.interval if self.window is None else self.window.interval

    @property
    def buffer(self) -> Buffer:
        """When objects are closed."""
        return self.sink.buffer if isinstance(self.sink, ObjectSink) else Buffer()


_LATER = {"kpl", "window", "late", "sink", "topic", "stream"}
"""Keys of rules that are left out where there are none, so that stored rules are as they always were."""


class Rules(Model):
    """The part of a pipeline that decides what records become and where they go: no endpoint, no secret, no buffer.

    The segment log keeps it, so that a segment can be finished as it was planned, whatever the file says by then.
    ``sink``, or ``topic`` or ``stream``: where rows go, or results.
    """

    decode: Decode
    include: list[Include]
    transform: list[SqlStep]
    sink: ObjectSink | None = None
    topic: str | None = None
    stream: str | None = None
    rejects: str
    kpl: Kpl | None = None
    window: Window | None = None
    late: str | None = None

    @classmethod
    def of(cls, pipeline: Pipeline, rejects: str, late: str | None = None) -> Rules:
        """``rejects``, ``late``: the addresses where they go."""
        objects, keyed = (pipeline.sink, None) if isinstance(pipeline.sink, ObjectSink) else (None, pipeline.sink)
        return cls(
            decode=pipeline.decode,
            include=pipeline.include,
            transform=pipeline.transform,
            sink=objects,
            topic=keyed.kafka.topic if keyed and keyed.kafka else None,
            stream=keyed.kinesis.stream if keyed and keyed.kinesis else None,
            rejects=rejects,
            kpl=pipeline.source.kinesis.kpl if pipeline.source.kinesis else None,
            window=pipeline.window,
            late=late if pipeline.window else None,
        )

    def document(self) -> dict[str, object]:
        """As plain data, and the same for the same rules; ``model_validate`` reads it."""
        document = self.model_dump(
            mode="json",
            by_alias=True,
            exclude={"sink": {"buffer", "max_partitions"}, "window": {"interval", "close_idle_after", "late"}},
        )
        return {key: value for key, value in document.items() if key not in _LATER or value is not None}


class Endpoints(Model):
    """Where services of AWS are, if not where AWS has them: emulators, VPC endpoints."""

    kinesis: Url | None = Field(default=None, description="For example http://127.0.0.1:4567.")
    dynamodb: Url | None = Field(default=None, description="For lease tables.")
    s3: Url | None = Field(default=None, description="The same as `aws.endpoint_url`.")
    sts: Url | None = Field(default=None, description="For `role_arn`.")


class Aws(Model):
    """For S3, Kinesis, DynamoDB and MSK. With nothing here, what AWS's tools would find: environment, profile, role of
    the machine."""

    region: str | None = Field(default=None, description="Of buckets, streams and brokers.")
    endpoint_url: str | None = Field(default=None, description="Another store that speaks S3: http://127.0.0.1:9000.")
    endpoints: Endpoints = Field(default=Endpoints(), description="Of single services.")
    profile: str | None = Field(default=None, description="A profile of the AWS configuration files.")
    role_arn: str | None = Field(default=None, description="A role to assume.")
    access_key_id: Secret | None = Field(default=None, description="With secret_access_key: fixed credentials.")
    secret_access_key: Secret | None = Field(default=None, description="See access_key_id.")
    session_token: Secret | None = Field(default=None, description="Where fixed credentials are temporary.")


class Http(Model):
    """Health, metrics and status, for programs and for people; without authentication."""

    listen: str = Field(
        default="127.0.0.1:8080",
        pattern=LISTEN,
        description="host:port, [IPv6]:port, or :port for every address of this machine.",
    )


class Service(Model):
    """One file: a service and its pipelines."""

    service: Name = Field(description="Its name: in consumer groups and metrics.")
    state: Address = Field(description="The prefix of the segment logs; needs conditional writes. Not below a sink.")
    memory: ByteSize = Field(
        default=1024 * 1024 * 1024,
        ge=MIN_WORKER_MEMORY,
        description="For everything buffered, all pipelines and workers together. Over it the source waits.",
    )
    workers: Whole | Literal["auto"] = Field(
        default=1, description="Processes that share the splits; auto: one a core."
    )
    drain: Seconds = Field(default=25.0, description="How long landing may take after SIGTERM.")
    http: Http | None = Field(default=Http(), description="null: no server.")
    aws: Aws = Field(default=Aws(), description="Credentials and endpoints.")
    pipelines: dict[Name, Pipeline] = Field(min_length=1, description="By name; each has its own segment log.")
