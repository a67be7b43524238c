"""Sources by kind of configuration. What Kinesis needs is imported when one is read: a third of all imports."""

from __future__ import annotations

from streamsvc.config_sources import Source as Options
from streamsvc.contracts import Inspectable, Source
from streamsvc.core.kinesis_positions import BEGINNING
from streamsvc.core.offsets import position_of
from streamsvc.records import Position
from streamsvc.sources.kafka.source import KafkaSource
from streamsvc.sources.reader import Reader


def first_position(options: Options) -> Position:
    """``Source.first_position`` without a source."""
    return BEGINNING if options.kinesis is not None else position_of(0)


def member(options: Options, reader: Reader) -> Source:
    """A source that shares the splits with the other workers."""
    if options.kinesis is not None:
        from streamsvc.sources.kinesis import build as kinesis

        return kinesis.member(options.kinesis, reader)
    return _kafka(options, reader, joins=True)


def onlooker(options: Options, reader: Reader) -> Inspectable:
    """A source that is assigned nothing."""
    if options.kinesis is not None:
        from streamsvc.sources.kinesis import build as kinesis

        return kinesis.onlooker(options.kinesis, reader)
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
        from streamsvc.sources.kinesis.kcl.settings import find_runtime

        find_runtime()
