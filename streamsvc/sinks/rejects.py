"""Reject objects: gzip JSON lines of records that could not be decoded or placed, with their bytes."""

from __future__ import annotations

import gzip
import re
import zlib
from base64 import b64decode
from collections.abc import Iterator, Sequence
from datetime import datetime
from io import BytesIO
from typing import Any

import orjson
import pyarrow as pa

from streamsvc.contracts import ObjectStore
from streamsvc.errors import LogCorrupt
from streamsvc.records import ROW, Batch, DataObject, ObjectInfo
from streamsvc.sinks.formats.json import JsonLines
from streamsvc.sinks.open_object import OpenObject
from streamsvc.sinks.publishing import publish

_COORDINATES = [
    ("split", pa.string()),
    ("position", pa.string()),
    ("arrival", pa.timestamp("ms", "UTC")),
    ("reason", pa.string()),
    ("error", pa.string()),
]
_HEADERS = pa.map_(pa.string(), pa.binary())

REJECT_LINES = pa.schema(
    [*_COORDINATES, ("key_base64", pa.binary()), ("headers", _HEADERS), ("raw_base64", pa.binary())]
)
"""A line of a reject object. Headers are a list of ``{"key": ..., "value": base64}``."""

REJECTS_READ = pa.schema([*_COORDINATES, ("key", pa.binary()), ("headers", _HEADERS), ("value", pa.binary())])
"""What ``read_rejects`` makes of it; ``value`` is what came from the source, null for a tombstone."""

MAX_LINE_BYTES = 256 * 1024 * 1024
_NO_DATETIME = re.compile(r"<value|0000-|-|[0-9]{5,}-")
"""How Arrow writes what is outside of the years 1 to 9999."""

_GZIP_LEVEL = 6
_ROWS_A_BATCH = 1000
_BATCH_BYTES = 4 * 1024 * 1024


class RejectObjects:
    """``<path>/date=YYYY-MM-DD/<segment>.json.gz``; the date is that of the segment's id."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def open(self) -> Rejects:
        return Rejects()

    @property
    def url(self) -> str:
        return self._store.url

    async def publish(self, objects: Sequence[DataObject]) -> list[ObjectInfo]:
        return await publish(self._store, objects, kind="rejects")


class Rejects:
    """The rejects of one segment while it fills."""

    def __init__(self) -> None:
        self._object = OpenObject("", JsonLines("gzip", _GZIP_LEVEL), REJECT_LINES)

    @property
    def memory_bytes(self) -> int:
        return self._object.waiting_bytes + self._object.writer_bytes

    @property
    def rows(self) -> int:
        return self._object.rows

    def add(self, batch: Batch, rejects: pa.RecordBatch) -> None:
        """rejects: schema ``REJECTED``; coordinates and bytes are taken from the batch."""
        if not rejects.num_rows:
            return
        rows = rejects[ROW]
        columns = [
            batch.split_names().take(rows).cast(pa.string()),
            batch.position_text(batch.offsets.take(rows)),
            batch.arrivals().take(rows),
            rejects["reason"],
            rejects["error"],
            batch.keys().take(rows),
            batch.headers().take(rows),
            batch.values.take(rows),
        ]
        self._object.add(pa.RecordBatch.from_arrays(columns, schema=REJECT_LINES))
        if self._object.is_due:
            self._object.encode()

    def close(self, segment: str) -> list[DataObject]:
        """segment: an id that begins with its day, ``YYYYMMDDT``"""
        if not self._object.rows:
            return []
        day = re.match(r"(\d{4})(\d\d)(\d\d)T", segment)
        if day is None:
            raise ValueError(f"a segment's id begins with its time: {segment!r}")
        return [self._object.close(f"date={day[1]}-{day[2]}-{day[3]}/{segment}")]


def read_rejects(body: bytes, *, key: str = "") -> Iterator[pa.RecordBatch]:
    """The rejects of an object, in the order of its lines, some at a time: schema ``REJECTS_READ``.

    Whatever the object holds, it is unpacked only as far as it is read. ``key``, where the body was found, is for the
    error. Raises ``LogCorrupt``.
    """
    read = 0
    try:
        with gzip.open(BytesIO(body)) as lines:
            while rows := _some_rows(lines):
                yield pa.RecordBatch.from_pylist(rows, schema=REJECTS_READ)
                read += len(rows)
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LogCorrupt(
            "a reject object cannot be read",
            hint="Restore the object from a copy.",
            key=key,
            rows_read=read,
            problem=type(error).__name__,
        ) from error


def _some_rows(lines: gzip.GzipFile) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    nbytes = 0
    while len(rows) < _ROWS_A_BATCH and nbytes < _BATCH_BYTES and (line := lines.readline(MAX_LINE_BYTES)):
        rows.append(_row(orjson.loads(line)))
        nbytes += len(line)
    return rows


def _row(line: dict[str, Any]) -> dict[str, Any]:
    headers = line["headers"]
    return {
        "split": line["split"],
        "position": line["position"],
        "arrival": _moment(line["arrival"]),
        "reason": line["reason"],
        "error": line["error"],
        "key": _bytes(line["key_base64"]),
        "headers": None if headers is None else [(each["key"], _bytes(each["value"])) for each in headers],
        "value": _bytes(line["raw_base64"]),
    }


def _moment(text: str | None) -> datetime | None:
    """A producer may give its records any time, also one that no calendar has: the record is read all the same."""
    return None if text is None or _NO_DATETIME.match(text) else datetime.fromisoformat(text)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text, validate=True)
