"""Writing to Kinesis: the part of the composition root that is imported when somebody does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

from streamsvc.config import Aws
from streamsvc.errors import StreamsvcError
from streamsvc.sinks.kinesis.aggregating import AggregatingWriter
from streamsvc.sinks.kinesis.results import KinesisResults
from streamsvc.sinks.kinesis.writer import KinesisWriter
from streamsvc.sources.kinesis import failures
from streamsvc.sources.kinesis.clients import Clients

RecordWriter: TypeAlias = KinesisWriter | AggregatingWriter


def results(aws: Aws, stream: str) -> KinesisResults:
    """A sink for results of windows. Connects when the first come."""
    return KinesisResults(partial(open_writer, aws, stream), stream)


@asynccontextmanager
async def open_record_writer(aws: Aws, stream: str, *, aggregate: bool) -> AsyncIterator[RecordWriter]:
    """As ``open_writer``; ``aggregate``: records are packed as the KPL does."""
    async with open_writer(aws, stream) as writer:
        yield AggregatingWriter(writer) if aggregate else writer


@asynccontextmanager
async def open_writer(aws: Aws, stream: str) -> AsyncIterator[KinesisWriter]:
    """Into a Kinesis stream. Raises ``SourceRefused`` for a stream that is not there or may not be looked at, and
    ``SourceUnavailable`` for one that does not answer."""
    async with Clients(aws) as clients:
        client = await clients.get("kinesis")

        def explain(error: BaseException, action: str) -> StreamsvcError:
            return failures.mapped(error, action, stream=stream, region=client.meta.region_name)

        async with KinesisWriter(client, stream, explain) as writer:
            yield writer
