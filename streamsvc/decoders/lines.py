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


@dataclass(slots=True)
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
    """The lines of each read. Holds one line that is not whole, and of one that is too long only the beginning."""
    held, skipped = b"", 0
    while chunk := stream.read1(_READ_BYTES):
        *whole, rest = chunk.split(b"\n")
        batch = _Batch(whole, {})
        if whole:
            batch.lines[0] = held + whole[0]
            batch.too_long = {0: skipped + len(batch.lines[0])} if skipped else {}
            held, skipped = b"", 0
        held += rest
        if skipped or len(held) > longest:
            kept = held[:_SHOWN_BYTES]
            skipped += len(held) - len(kept)
            held = kept
        for index, line in enumerate(batch.lines):
            if len(line) > longest:
                batch.too_long[index] = len(line)
        if batch.lines:
            yield batch
    if held:
        yield _Batch([held], {0: skipped + len(held)} if skipped else {})
