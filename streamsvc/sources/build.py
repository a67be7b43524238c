"""Sources by kind of configuration."""

from __future__ import annotations

from dataclasses import dataclass

from streamsvc.config import Aws
from streamsvc.config_sources import KinesisSource as KinesisOptions
from streamsvc.config_sources import Source as Options
from streamsvc.config_sources import application_name, lease_table
from streamsvc.contracts import Inspectable, Source
from streamsvc.core.kinesis_positions import BEGINNING
from streamsvc.core.offsets import position_of
from streamsvc.ops.metrics import Metrics
from streamsvc.records import Position
from streamsvc.sources.kafka.source import KafkaSource
from streamsvc.sources.kinesis.counts import Counts
from streamsvc.sources.kinesis.kcl.settings import command_line, find_runtime, settings_for
from streamsvc.sources.kinesis.kcl.source import KclSource
from streamsvc.sources.kinesis.source import KinesisSource


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads, for whom.

    service, pipeline: name the consumer group or application, unless the configuration does
    instance:          names this worker among the others, the same after a restart
    queue_bytes:       what may be read ahead
    """

    service: str
    pipeline: str
    instance: str
    queue_bytes: int
    aws: Aws
    metrics: Metrics


def first_position(options: Options) -> Position:
    """``Source.first_position`` without a source."""
    return BEGINNING if options.kinesis is not None else position_of(0)


def member(options: Options, reader: Reader) -> Source:
    """A source that shares the splits with the other workers."""
    return _kinesis(options.kinesis, reader) if options.kinesis is not None else _kafka(options, reader, joins=True)


def onlooker(options: Options, reader: Reader) -> Inspectable:
    """A source that is assigned nothing."""
    if options.kinesis is not None:
        return _native(options.kinesis, reader, joins=False)
    return _kafka(options, reader, joins=False)


def _kafka(options: Options, reader: Reader, *, joins: bool) -> KafkaSource:
    assert options.kafka is not None
    return KafkaSource(
        options.kafka,
        service=reader.service,
        pipeline=reader.pipeline,
        instance=reader.instance if joins else None,
        queue_bytes=reader.queue_bytes,
        aws=reader.aws,
        joins=joins,
    )


def check_installed(options: Options) -> None:
    """Raises ``ConfigError``: the engine of the source is not on this machine."""
    if options.kinesis is not None and options.kinesis.engine == "kcl":
        find_runtime()


def _kinesis(options: KinesisOptions, reader: Reader) -> Source:
    if options.engine == "native":
        return _native(options, reader, joins=True)
    table = lease_table(reader.service, reader.pipeline, options)
    application = application_name(reader.service, reader.pipeline, options)
    settings = settings_for(options, reader.aws, application, table, reader.instance)
    stream = _native(options, reader, joins=False)
    return KclSource(stream, settings, command_line(find_runtime(), settings), queue_bytes=reader.queue_bytes)


def _native(options: KinesisOptions, reader: Reader, *, joins: bool) -> KinesisSource:
    return KinesisSource(
        options,
        application=application_name(reader.service, reader.pipeline, options),
        worker=reader.instance,
        queue_bytes=reader.queue_bytes,
        aws=reader.aws,
        counts=Counts(reader.metrics, reader.pipeline),
        joins=joins,
    )
