"""Results of windows as records of a stream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from hashlib import sha256
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from streamsvc.core.json_text import json_objects
from streamsvc.core.kpl import Put
from streamsvc.errors import SourceRefused
from streamsvc.records import Finished, ObjectInfo, Window
from streamsvc.sinks.kinesis.writer import nbytes_of

MAX_KEY_CHARACTERS = 256
"""Of a partition key (API Reference, PutRecordsRequestEntry)."""


class Writer(Protocol):
    """``KinesisWriter`` is one."""

    max_record_bytes: int

    async def put(self, records: list[Put]) -> list[str]: ...


OpenWriter: TypeAlias = Callable[[], AbstractAsyncContextManager[Writer]]


class KinesisResults:
    """A ``ResultSink``, and an async context manager around its use. The stream is looked at when the first results
    come; a writer that fails is not used again.

    A record of the stream is a result as a JSON object; its partition key is made of window and group.
    """

    def __init__(self, open_writer: OpenWriter, stream: str) -> None:
        self._open_writer = open_writer
        self._stream = stream
        self._stack = AsyncExitStack()
        self._writer: Writer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._let_go()

    async def publish(self, window: Window, results: Finished) -> list[ObjectInfo]:
        records = _records(results)
        if not records:
            return []
        try:
            writer = self._writer or await self._opened()
            self._check(records, writer.max_record_bytes, window)
            await writer.put(records)
        except BaseException:
            await self._let_go()
            raise
        return []

    async def _opened(self) -> Writer:
        self._writer = await self._stack.enter_async_context(self._open_writer())
        return self._writer

    async def _let_go(self) -> None:
        self._writer = None
        await self._stack.aclose()

    def _check(self, records: list[Put], most: int, window: Window) -> None:
        largest = max(records, key=nbytes_of)
        if nbytes_of(largest) > most:
            raise SourceRefused(
                f"a result has {nbytes_of(largest)} bytes with its key, and the stream takes {most}",
                hint="Group by shorter texts, raise the stream's MaxRecordSizeInKiB, or let results go into objects.",
                stream=self._stream,
                window=window.start_us,
            )


def partition_key(key: str) -> str:
    """The key of a result. Of one that is too long, its beginning and a hash of all of it."""
    if len(key) <= MAX_KEY_CHARACTERS:
        return key
    digest = sha256(key.encode()).hexdigest()
    return f"{key[: MAX_KEY_CHARACTERS - len(digest)]}{digest}"


def _records(results: Finished) -> list[Put]:
    keys = results.keys().to_pylist()
    values = [text for batch in results.rows.to_batches() for text in json_objects(batch).to_pylist()]
    return [Put(partition_key(key), None, value.encode()) for key, value in zip(keys, values, strict=True)]
