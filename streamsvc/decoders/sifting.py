"""What is common to decoders around their own work: tombstones, values that are not text, rows in record order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.records import NO_REJECTS, REJECTED, ROW, Sifted

ENCODING = "encoding"
"""The value must be text and is not UTF-8."""

MALFORMED = "malformed"
"""The value has not the form that was declared."""
TOO_LONG = "too_long"
"""Longer than any log line: ``LONGEST_LINE_BYTES``."""

LONGEST_LINE_BYTES = 1024 * 1024

_EXCERPT_CHARACTERS = 60
_FEW = 64


class Fault(NamedTuple):
    """Why one record is a reject. ``reason`` is one of a decoder's constants; ``error`` is for people."""

    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class Records:
    """Which records of a batch are still on their way to be rows.

    rows:       int32, their indices in the batch
    tombstones: int32, the indices of the nulls, which become rows of nulls
    faults:     index in the batch -> why that record is a reject
    """

    rows: pa.Array
    tombstones: pa.Array
    faults: Mapping[int, Fault]

    def only(self, indices: Sequence[int]) -> Records:
        """These, and neither tombstones nor faults. ``indices``: in ``rows``, in order."""
        return Records(self.rows.take(pa.array(indices, pa.int64())), self.tombstones.slice(0, 0), {})

    def leave(self, indices: Sequence[int]) -> Records:
        """All but these."""
        return Records(leave_out([self.rows], indices)[0], self.tombstones, self.faults)

    def without(self, faults: Mapping[int, Fault]) -> Records:
        """Go on with the others. ``faults``: index in ``rows`` -> why that record is a reject."""
        in_batch = {self.rows[index].as_py(): fault for index, fault in faults.items()}
        return Records(leave_out([self.rows], sorted(faults))[0], self.tombstones, {**self.faults, **in_batch})


def screen(values: pa.Array) -> tuple[pa.Array, Records]:
    """Tell tombstones and values that are not UTF-8 from texts.

    values: binary. Answers the texts (string, no nulls) and their records.
    """
    records = Records(row_numbers(len(values)), row_numbers(0), {})
    if values.null_count:
        present = values.is_valid()
        records = Records(records.rows.filter(present), records.rows.filter(pc.invert(present)), {})
        values = values.filter(present)
    try:
        return values.cast(pa.string()), records
    except pa.ArrowInvalid:
        faults = _encoding_faults(values)
    (texts,) = leave_out([values], sorted(faults))
    return texts.view(pa.string()), records.without(faults)


def screen_lines(values: pa.Array) -> tuple[pa.Array, Records]:
    """``screen``, without the line breaks at the end of a value, and without values too long to be a line."""
    lines, records = screen(values)
    if pc.any(pc.or_(pc.ends_with(lines, "\n"), pc.ends_with(lines, "\r"))).as_py():
        lines = pc.ascii_rtrim(lines, "\r\n")
    lengths = pc.binary_length(lines)
    if (pc.max(lengths).as_py() or 0) <= LONGEST_LINE_BYTES:
        return lines, records
    long = pc.indices_nonzero(pc.greater(lengths, LONGEST_LINE_BYTES))
    faults = {
        row: Fault(TOO_LONG, f"{length} bytes; a line may have {LONGEST_LINE_BYTES}")
        for row, length in zip(long.to_pylist(), lengths.take(long).to_pylist(), strict=True)
    }
    return leave_out([lines], list(faults))[0], records.without(faults)


def sift(
    schema: pa.Schema, records: Records, columns: Sequence[pa.Array], faults: Mapping[int, Fault] | None = None
) -> Sifted:
    """Rows and rejects of a batch, in record order.

    columns: of ``schema``, one value for each of ``records.rows``
    faults:  index in ``records.rows`` -> why that record is a reject; what its row holds does not matter
    """
    if faults:
        records, columns = records.without(faults), leave_out(columns, sorted(faults))
    rows = records.rows
    if len(records.tombstones):
        columns = [pa.concat_arrays([c, pa.nulls(len(records.tombstones), c.type)]) for c in columns]
        rows = pa.concat_arrays([rows, records.tombstones])
        order = pc.sort_indices(rows)
        rows, columns = rows.take(order), [column.take(order) for column in columns]
    batch = pa.RecordBatch.from_arrays([*columns, rows], schema=with_row(schema))
    return Sifted(batch, rejects(records.faults))


def combined(one: Sifted, other: Sifted) -> Sifted:
    """Two parts of a batch as one, in record order."""
    return Sifted(_merged(one.rows, other.rows), _merged(one.rejects, other.rejects))


def _merged(one: pa.RecordBatch, other: pa.RecordBatch) -> pa.RecordBatch:
    if not len(one) or not len(other):
        return one if len(one) else other
    columns = [pa.concat_arrays(pair) for pair in zip(one.columns, other.columns, strict=True)]
    both = pa.RecordBatch.from_arrays(columns, schema=one.schema)
    return both.take(pc.sort_indices(both[ROW]))


def rejects(faults: Mapping[int, Fault]) -> pa.RecordBatch:
    """Schema ``REJECTED``, in record order."""
    if not faults:
        return NO_REJECTS
    rows = sorted(faults)
    return pa.RecordBatch.from_pylist(
        [{ROW: row, "reason": faults[row].reason, "error": faults[row].error} for row in rows], schema=REJECTED
    )


def with_row(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field(ROW, pa.int32()))


def row_numbers(count: int) -> pa.Array:
    """int32, 0 to ``count - 1``."""
    return pa.array(np.arange(count, dtype=np.int32))


def leave_out(columns: Sequence[pa.Array], rows: Sequence[int]) -> list[pa.Array]:
    """Columns without some rows, given in order. Few of them: by copying the runs between, which is cheapest."""
    if not columns or not rows:
        return list(columns)
    count = len(columns[0])
    if len(rows) > count // _FEW:
        kept = pc.invert(marked(count, rows))
        return [column.filter(kept) for column in columns]
    starts, ends = [0, *(row + 1 for row in rows)], [*rows, count]
    runs = [(start, end - start) for start, end in zip(starts, ends, strict=True)]
    return [pa.concat_arrays([column.slice(start, length) for start, length in runs]) for column in columns]


def marked(count: int, indices: Sequence[int] | npt.NDArray[np.int64]) -> pa.Array:
    """bool, true at ``indices``."""
    mask = np.zeros(count, np.bool_)
    mask[np.asarray(indices, np.int64)] = True
    return pa.array(mask)


def bytes_of(texts: pa.Array) -> tuple[pa.Buffer, npt.NDArray[np.int32]]:
    """All the bytes of texts (string or binary, no nulls), without a copy, and where each begins and the last ends,
    as offsets into the buffer that they stand in."""
    _, offsets, data = texts.buffers()
    if not len(texts) or offsets is None or data is None:
        return pa.py_buffer(b""), np.zeros(len(texts) + 1, np.int32)
    bounds = np.frombuffer(memoryview(offsets), np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return data.slice(int(bounds[0]), int(bounds[-1] - bounds[0])), bounds


def rows_of(places: npt.NDArray[np.int64], bounds: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Which texts hold these bytes, once each. ``places`` in ``bytes_of``, rising; ``bounds`` as it answers them."""
    rows = np.searchsorted(bounds[1:] - bounds[0], places, side="right")
    return rows[np.diff(rows, prepend=-1) > 0]


def excerpt(text: str | bytes) -> str:
    """The beginning of a text or of bytes, quoted, for an error."""
    cut = text[:_EXCERPT_CHARACTERS]
    shown = repr(cut) if isinstance(cut, str) else repr(cut)[1:]
    return shown if len(cut) == len(text) else f"{shown}..."


def _encoding_faults(values: pa.Array) -> dict[int, Fault]:
    """values: binary, no nulls. Only those are decoded that have a byte beyond ASCII, which few have."""
    data, bounds = bytes_of(values)
    rows = rows_of(np.flatnonzero(np.frombuffer(memoryview(data), np.int8) < 0), bounds).tolist()
    found = zip(rows, map(_encoding_fault, values.take(pa.array(rows, pa.int64())).to_pylist()), strict=True)
    return {row: fault for row, fault in found if fault is not None}


def _encoding_fault(value: bytes) -> Fault | None:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        at = error.start
        return Fault(ENCODING, f"byte {at} is not UTF-8: {excerpt(value[max(0, at - 20) : at + 20])}")
    return None
