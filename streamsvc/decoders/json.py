"""JSON records, one object a value, to declared columns.

Records are read by Arrow's JSON reader with an explicit schema (0.8 us a record), and those that it refuses, and what
it may read otherwise than it should, one at a time (``json_exact``, 4 us). What becomes of a record does not depend
on its neighbours, so the reader's verdict is taken only where it is ``json_exact``'s too. Its sharp edges, all met
here: two documents in one value are two rows, which moves the rows after them; ``null`` alone ends the process; ``NaN``
is a number; a decimal may have more digits than its type, is another number where it does not fit in 38 digits with
its scale, and with an exponent may be another one or end the process (apache/arrow, ``Decimal128::Rescale`` looks up
powers of ten without looking whether there are so many); other documents than objects fail their whole block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json

from streamsvc.decoders.cutting import joined, whole
from streamsvc.decoders.json_exact import EXTRA, STRING, ExactReader
from streamsvc.decoders.json_types import ColumnType, arrow_type, decimal_scales, is_plain, wire_type
from streamsvc.decoders.json_values import finish
from streamsvc.decoders.sifting import Fault, Records, bytes_of, combined, leave_out, screen, sift
from streamsvc.records import Sifted

TOO_DEEP = "too_deep"
"""Objects and arrays are nested deeper than ``DEEPEST``."""

DEEPEST = 500

_BLOCK_BYTES = 512 * 1024
_FEW = 64
_REFUSED_ROW = re.compile(r" in row ([0-9]+)$")
_WHITESPACE = " \t\r\n"
_SECOND_DOCUMENT = r"\}[ \t\r\n]*[^ \t\r\n,\]\}]"
_EXPONENT = r"[:,\[\s\"+-][0-9.]+[eE][+-]?[0-9]+[\",\]}\s]"
_ESCAPED_DIGIT = r"\\u00(?:3[0-9]|[46]5|2[bBdDeE])"
_NESTING = re.compile(STRING + rb"|[\[{]|[\]}]", re.DOTALL)

_Columns: TypeAlias = list[pa.Array]
_Faults: TypeAlias = dict[int, Fault]


class _ArrowRead(NamedTuple):
    """Columns of the first ``rows`` records. ``refused``: which of the next block is to blame, if Arrow says so."""

    columns: _Columns
    rows: int
    refused: int | None


@dataclass(frozen=True, slots=True)
class _Lines:
    """Texts with line breaks between them, and where each begins, int64, and one more would."""

    joined: pa.Buffer
    starts: npt.NDArray[np.int64]
    block_bytes: int

    @classmethod
    def of(cls, texts: pa.Array) -> Self:
        """texts: string, no nulls, no line breaks."""
        _, bounds = bytes_of(texts)
        starts = bounds.astype(np.int64) - bounds[0] + np.arange(len(bounds))
        longest = int(np.diff(starts).max(initial=0))
        return cls(joined(texts), starts, max(_BLOCK_BYTES, longest + 1))

    def between(self, start: int, end: int) -> pa.Buffer:
        """Those texts; ``end`` is after ``start``."""
        return self.joined.slice(int(self.starts[start]), int(self.starts[end] - 1 - self.starts[start]))

    def rows_of_half_a_block(self, start: int, end: int) -> int:
        """How many texts from ``start``, with more than this before ``end``."""
        rows = int(np.searchsorted(self.starts, self.starts[start] + self.block_bytes // 2)) - start
        return min(rows, (end - start) // 2)


class JsonDecoder:
    """Rejects: ``encoding``, ``malformed``, ``type``, ``duplicate_key``, ``too_deep``.

    schema:       column -> type, see ``json_types``
    on_new_field: ``keep`` puts fields that are not declared, nested ones too, in the column ``_extra``, as the text of
                  one JSON object, null if there are none; ``ignore`` drops them

    A field that is missing is null, like one that is ``null``. What a field holds that is neither declared nor kept
    does not matter, be it ``NaN`` or a number too large for anything (see ``json_exact``). Times are text in ISO 8601,
    without a zone UTC, or numbers for ``timestamp(s|ms|us)``. More than six decimals of a second are a reject: they
    would be lost.
    """

    version = 3

    def __init__(self, schema: Mapping[str, ColumnType], on_new_field: Literal["ignore", "keep"] = "ignore") -> None:
        self._types = dict(schema)
        self._keeps = on_new_field == "keep"
        loose = [name for name, column in schema.items() if not is_plain(column)]
        self._plain = pa.schema([(name, wire_type(column)) for name, column in schema.items() if name not in loose])
        self._all_exact = ExactReader(schema, list(schema), extra=self._keeps)
        self._loose_exact = ExactReader(schema, loose, extra=self._keeps) if loose or self._keeps else None
        self._extra_only = self._keeps and not loose
        self._risky_numbers = _risky_numbers([column for name, column in schema.items() if name not in loose])
        extra = [(EXTRA, pa.string())] if self._keeps else []
        self._wire = pa.schema([*((name, wire_type(column)) for name, column in schema.items()), *extra])
        self._schema = pa.schema([*((name, arrow_type(column)) for name, column in schema.items()), *extra])

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def decode(self, values: pa.Array) -> Sifted:
        texts, records = screen(values)
        deep = _too_deep(texts)
        texts, records = leave_out([texts], list(deep))[0], records.without(deep)
        texts = _trimmed(texts)
        odd = pc.indices_nonzero(pc.invert(self._is_for_arrow(texts))).to_pylist()
        odd_texts, odd_records = texts.take(pa.array(odd, pa.int64())), records.only(odd)
        sifted = self._sift(records.leave(odd), *self._read(leave_out([texts], odd)[0]))
        return combined(sifted, self._sift(odd_records, *self._one_by_one(odd_texts))) if odd else sifted

    def _is_for_arrow(self, texts: pa.Array) -> pa.Array:
        if self._risky_numbers is None:
            return _is_one_object(texts)
        return pc.and_not(_is_one_object(texts), pc.match_substring_regex(texts, self._risky_numbers))

    def _sift(self, records: Records, columns: _Columns, faults: _Faults) -> Sifted:
        finished = []
        for field, column in zip(self._schema, columns, strict=True):
            if field.name in self._types:
                final, wrong = finish(field.name, self._types[field.name], column)
                finished.append(final)
                faults = wrong | faults
            else:
                finished.append(column)
        return sift(self._schema, records, finished, faults)

    def _read(self, texts: pa.Array) -> tuple[_Columns, _Faults]:
        """Columns of ``_wire``, with nulls where there is a fault. Each text begins and ends as one object does."""
        if not len(self._plain) or not len(texts):
            return self._one_by_one(texts)
        lines = _Lines.of(texts)
        if self._extra_only:
            whole = self._arrow(lines, 0, len(texts), "error")
            if whole.rows == len(texts):
                return [*whole.columns, pa.nulls(len(texts), pa.string())], {}
        return self._around_refused(texts, lines)

    def _around_refused(self, texts: pa.Array, lines: _Lines) -> tuple[_Columns, _Faults]:
        """A record that Arrow refuses is read by itself, and then what stands before and behind it in its block. Where
        Arrow does not say which it is, halves of the block are read; after too much in vain, all the rest one by one.
        """
        parts: list[_Columns] = []
        faults: _Faults = {}
        patience = 2 * len(texts)
        todo = [(0, len(texts))]
        while todo:
            start, end = todo.pop()
            if end - start < _FEW or patience < 0:
                columns, wrong = self._one_by_one(texts.slice(start, end - start))
            else:
                read = self._arrow(lines, start, end, "ignore")
                columns, wrong = self._with_loose(texts.slice(start, read.rows), read.columns)
                at = start + read.rows
                if at < end:
                    refused = at + (read.refused if read.refused is not None else lines.rows_of_half_a_block(at, end))
                    patience -= refused - at + _FEW
                    todo += [(refused + 1, end), (refused, refused + 1), (at, refused)]
            parts.append(columns)
            faults.update({start + row: fault for row, fault in wrong.items()})
        return [pa.concat_arrays(part) for part in zip(*parts, strict=True)], faults

    def _arrow(self, lines: _Lines, start: int, end: int, on_new_field: Literal["ignore", "error"]) -> _ArrowRead:
        """Plain columns of the records before the first block that is refused."""
        batches: list[pa.RecordBatch] = []
        refused = None
        try:
            reader = json.open_json(
                pa.BufferReader(lines.between(start, end)),
                read_options=json.ReadOptions(use_threads=False, block_size=lines.block_bytes),
                parse_options=json.ParseOptions(explicit_schema=self._plain, unexpected_field_behavior=on_new_field),
            )
            batches.extend(reader)
        except pa.ArrowInvalid as error:
            named = _REFUSED_ROW.search(str(error))
            refused = int(named[1]) if named else None
        table = pa.Table.from_batches(batches, schema=self._plain)
        return _ArrowRead([whole(column) for column in table.columns], table.num_rows, refused)

    def _with_loose(self, texts: pa.Array, plain: _Columns) -> tuple[_Columns, _Faults]:
        if self._loose_exact is None:
            return plain, {}
        loose, faults = self._loose_exact.read(texts.cast(pa.binary()).to_pylist())
        columns = dict(zip(self._plain.names, plain, strict=True))
        return [
            columns[field.name] if field.name in columns else pa.array(loose[field.name], field.type)
            for field in self._wire
        ], faults

    def _one_by_one(self, texts: pa.Array) -> tuple[_Columns, _Faults]:
        columns, faults = self._all_exact.read(texts.cast(pa.binary()).to_pylist())
        return [pa.array(columns[field.name], field.type) for field in self._wire], faults


def _risky_numbers(columns: Sequence[ColumnType]) -> str | None:
    """A pattern for what may be a number, also one in a text, of which Arrow might make another decimal."""
    scales = [scale for column in columns for scale in decimal_scales(column)]
    return f"{_EXPONENT}|{_ESCAPED_DIGIT}|[0-9]{{{39 - max(scales)}}}" if scales else None


def _too_deep(texts: pa.Array) -> _Faults:
    """Where they are deeper, Python's and orjson's parsers give up, and Arrow's does not."""
    faults: _Faults = {}
    long = pc.indices_nonzero(pc.greater(pc.binary_length(texts), 2 * DEEPEST))
    for row, text in zip(long.to_pylist(), texts.take(long).cast(pa.binary()).to_pylist(), strict=True):
        if text.count(b"[") + text.count(b"{") > DEEPEST and _is_deep(text):
            faults[row] = Fault(TOO_DEEP, f"nested deeper than {DEEPEST}")
    return faults


def _is_deep(text: bytes) -> bool:
    level = 0
    for token in _NESTING.finditer(text):
        first = text[token.start()]
        level += (first in b"[{") - (first in b"]}")
        if level > DEEPEST:
            return True
    return False


def _trimmed(texts: pa.Array) -> pa.Array:
    if pc.all(pc.and_(pc.starts_with(texts, "{"), pc.ends_with(texts, "}"))).as_py() is False:
        return pc.ascii_trim(texts, _WHITESPACE)
    return texts


def _is_one_object(texts: pa.Array) -> pa.Array:
    """False where a text may be anything else than one object, or a broken one: then no text runs on in the next one,
    because no JSON goes on with ``{`` after ``}``, nor with a line break inside of a string."""
    enclosed = pc.and_(pc.starts_with(texts, "{"), pc.ends_with(texts, "}"))
    return pc.and_not(enclosed, pc.match_substring_regex(texts, _SECOND_DOCUMENT))
