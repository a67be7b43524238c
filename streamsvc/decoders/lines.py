"""Any decoder as a Unix filter: lines in, one JSON object a line out."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import orjson
import pyarrow as pa

from streamsvc.contracts import Decoder
from streamsvc.decoders.sifting import TOO_LONG
from streamsvc.records import ROW

LONGEST_LINE_BYTES = 16 * 1024 * 1024

_READ_BYTES = 1024 * 1024
_SHOWN_BYTES = 1024


class Readable(Protocol):
    """``sys.stdin.buffer``, a file opened in binary mode, ``io.BytesIO``."""

    def read1(self, size: int = -1, /) -> bytes:
        """What there is, at most ``size`` bytes; waits only if there is nothing. Empty: the end."""
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    rows: int
    rejects: int


def decode_lines(
    decoder: Decoder,
    stream: Readable,
    out: BinaryIO,
    rejects: BinaryIO | None,
    *,
    longest_line_bytes: int = LONGEST_LINE_BYTES,
) -> Counts:
    """Decode until the stream ends, or until nobody reads ``out`` or ``rejects`` any more (``BrokenPipeError``).

    What has arrived is decoded at once and flushed, so a line that ``tail -f`` passes on is printed when it comes, and
    a file goes through in large batches. Lines end with ``\\n``; the last one need not. Rows are the decoder's columns
    in their order: times in ISO 8601 with ``Z``, decimals as text, bytes as text where they are UTF-8, else as
    ``{"base64": ...}``. Rejects are objects of ``line`` (from 1), ``reason``, ``error``, ``raw_base64``. A line longer
    than ``longest_line_bytes`` is a reject (``too_long``) of which only the beginning is shown.
    """
    rows = refused = 0
    number = 1
    for batch in _batches(stream, longest_line_bytes):
        try:
            decoded = _decode(decoder, batch, number)
            out.write(decoded.rows)
            out.flush()
            if rejects is not None:
                rejects.write(decoded.rejects)
                rejects.flush()
        except BrokenPipeError:
            break
        rows += decoded.row_count
        refused += len(batch.lines) - decoded.row_count
        number += len(batch.lines)
    return Counts(rows, refused)


@dataclass(frozen=True, slots=True)
class _Batch:
    """lines: without their ends; of a line that is too long, its beginning. too_long: index -> its whole length."""

    lines: list[bytes]
    too_long: dict[int, int]


@dataclass(frozen=True, slots=True)
class _Decoded:
    rows: bytes
    rejects: bytes
    row_count: int


def _batches(stream: Readable, longest: int) -> Iterator[_Batch]:
    """The lines of each read. Holds one line that is not whole yet, and of one that is too long only the beginning."""
    held, length = b"", 0
    while chunk := stream.read1(_READ_BYTES):
        *whole, rest = chunk.split(b"\n")
        if whole:
            yield _batch([held + whole[0], *whole[1:]], [length + len(whole[0]), *map(len, whole[1:])], longest)
            held, length = b"", 0
        length += len(rest)
        held = held + rest if length <= longest else (held + rest)[:_SHOWN_BYTES]
    if length:
        yield _batch([held], [length], longest)


def _batch(lines: list[bytes], lengths: list[int], longest: int) -> _Batch:
    return _Batch(lines, {index: length for index, length in enumerate(lengths) if length > longest})


def _decode(decoder: Decoder, batch: _Batch, first_number: int) -> _Decoded:
    fit = [index for index in range(len(batch.lines)) if index not in batch.too_long]
    sifted = decoder.decode(pa.array([batch.lines[index] for index in fit], pa.binary()))
    faults = {fit[reject[ROW]]: (reject["reason"], reject["error"]) for reject in sifted.rejects.to_pylist()} | {
        index: (TOO_LONG, f"{length} bytes") for index, length in batch.too_long.items()
    }
    rejects = [
        _json(
            {
                "line": first_number + index,
                "reason": reason,
                "error": error,
                "raw_base64": base64.b64encode(
                    batch.lines[index][:_SHOWN_BYTES] if index in batch.too_long else batch.lines[index]
                ),
            }
        )
        for index, (reason, error) in sorted(faults.items())
    ]
    return _Decoded(_json_lines(sifted.rows), b"".join(rejects), len(sifted.rows))


def _json_lines(rows: pa.RecordBatch) -> bytes:
    fields = [field for field in rows.schema if field.name != ROW]
    columns = [rows.column(field.name).cast(_without_zone(field.type)) for field in fields]
    plain = pa.RecordBatch.from_arrays(columns, names=[field.name for field in fields])
    return b"".join(map(_json, plain.to_pylist(maps_as_pydicts="strict")))


def _json(members: dict[str, Any]) -> bytes:
    options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
    return orjson.dumps(members, default=_as_json, option=options)


def _as_json(value: object) -> Any:
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _without_zone(kind: pa.DataType) -> pa.DataType:
    """Python's own time zones need a database that a small machine may lack; all our times are UTC."""
    if isinstance(kind, pa.TimestampType):
        return pa.timestamp(kind.unit)
    if isinstance(kind, pa.ListType):
        return pa.list_(_without_zone(kind.value_type))
    if isinstance(kind, pa.MapType):
        return pa.map_(kind.key_type, _without_zone(kind.item_type))
    if isinstance(kind, pa.StructType):
        return pa.struct([(field.name, _without_zone(field.type)) for field in kind])
    return kind
