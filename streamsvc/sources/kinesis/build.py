"""Sources of Kinesis by engine."""

from __future__ import annotations

from streamsvc.config_sources import KinesisSource as KinesisOptions
from streamsvc.config_sources import application_name, lease_table
from streamsvc.contracts import Source
from streamsvc.sources.kinesis.counts import Counts
from streamsvc.sources.kinesis.kcl.settings import command_line, find_runtime, settings_for
from streamsvc.sources.kinesis.kcl.source import KclSource
from streamsvc.sources.kinesis.source import KinesisSource
from streamsvc.sources.reader import Reader


def member(options: KinesisOptions, reader: Reader) -> Source:
    """A source that shares the shards with the other workers."""
    if options.engine == "native":
        return _native(options, reader, joins=True)
    table = lease_table(reader.service, reader.pipeline, options)
    application = application_name(reader.service, reader.pipeline, options)
    settings = settings_for(options, reader.aws, application, table, reader.instance)
    stream = _native(options, reader, joins=False)
    counts = Counts(reader.metrics, reader.pipeline)
    return KclSource(
        stream,
        settings,
        command_line(find_runtime(), settings),
        queue_bytes=reader.queue_bytes,
        on_behind=counts.behind,
        on_trimmed=counts.trimmed,
    )


def onlooker(options: KinesisOptions, reader: Reader) -> KinesisSource:
    """A source that is assigned nothing."""
    return _native(options, reader, joins=False)


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
