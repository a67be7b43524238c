"""JSON records, one object a value, to declared columns.

Blocks of records are read by Arrow's JSON reader with an explicit schema (0.8 us a record), and where it refuses a
block, smaller ones, in the end one record at a time (``json_exact``, 4 us). What becomes of a record does not depend
on its neighbours, so the reader's verdict is taken only where it is ``json_exact``'s too. Its sharp edges, all met
here: two documents in one value are two rows, which moves the rows after them; ``null`` alone ends the process; ``NaN``
is a number; a decimal may have more digits than its type, is another number where it does not fit in 38 digits with
its scale, and with an exponent may be another one or end the process (apache/arrow, ``Decimal128::Rescale`` looks up
powers of ten without looking whether there are so many); other documents than objects fail their whole block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json

from streamsvc.decoders.cutting import joined
from streamsvc.decoders.json_exact import EXTRA, STRING, ExactReader
from streamsvc.decoders.json_types import ColumnType, arrow_type, decimal_scales, is_plain, wire_type
from streamsvc.decoders.json_values import finish
from streamsvc.decoders.sifting import Fault, Records, combined, leave_out, screen, sift
from streamsvc.records import Sifted

TOO_DEEP = "too_deep"
"""Objects and arrays are nested deeper than ``DEEPEST``."""

DEEPEST = 500

_BLOCK_BYTES = 64 * 1024
_MOST_BYTES = 2**30
_WHITESPACE = " \t\r\n"
_SECOND_DOCUMENT = r"\}[ \t\r\n]*[^ \t\r\n,\]\}]"
_EXPONENT = r"[:,\[\s\"+-][0-9.]+[eE][+-]?[0-9]+[\",\]}\s]"
_ESCAPED_DIGIT = r"\\u00(?:3[0-9]|[46]5|2[bBdDeE])"
_NESTING = re.compile(STRING + rb"|[\[{]|[\]}]", re.DOTALL)

_Columns: TypeAlias = list[pa.Array]
_Faults: TypeAlias = dict[int, Fault]


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
        if (pc.sum(pc.binary_length(texts)).as_py() or 0) > _MOST_BYTES:
            return self._in_blocks(texts)
        if self._extra_only:
            plain, rows = self._arrow(texts, "error", _MOST_BYTES)
            if rows == len(texts):
                return [*plain, pa.nulls(rows, pa.string())], {}
        plain, rows = self._arrow(texts, "ignore", _MOST_BYTES)
        return self._with_loose(texts, plain) if rows == len(texts) else self._in_blocks(texts)

    def _in_blocks(self, texts: pa.Array) -> tuple[_Columns, _Faults]:
        """The records of a block that Arrow refuses are read one by one; after many such blocks, all the rest."""
        parts: list[_Columns] = []
        faults: _Faults = {}
        size = max(_BLOCK_BYTES, 1 + (pc.max(pc.binary_length(texts)).as_py() or 0))
        refusals = at = 0
        while at < len(texts):
            rest = texts.slice(at)
            plain, rows = self._arrow(rest, "ignore", size)
            if rows:
                columns, wrong = self._with_loose(rest.slice(0, rows), plain)
            else:
                refusals += 1
                many = refusals > len(texts) // 1024 + 4
                columns, wrong = self._one_by_one(rest if many else rest.slice(0, _rows_within(rest, size)))
            faults.update({at + row: fault for row, fault in wrong.items()})
            parts.append(columns)
            at += len(columns[0])
        return [pa.concat_arrays(part) for part in zip(*parts, strict=True)], faults

    def _arrow(
        self, texts: pa.Array, on_new_field: Literal["ignore", "error"], block_bytes: int
    ) -> tuple[_Columns, int]:
        """Plain columns of the records before the first block that is refused, and how many records these are."""
        if len(self._plain) == 0:
            return [], len(texts)
        lines = joined(texts)
        batches: list[pa.RecordBatch] = []
        try:
            reader = json.open_json(
                pa.BufferReader(lines),
                read_options=json.ReadOptions(use_threads=False, block_size=min(block_bytes, lines.size + 1)),
                parse_options=json.ParseOptions(explicit_schema=self._plain, unexpected_field_behavior=on_new_field),
            )
            batches.extend(reader)
        except pa.ArrowInvalid:
            pass
        table = pa.Table.from_batches(batches, schema=self._plain)
        return [column.combine_chunks() for column in table.columns], table.num_rows

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


def _rows_within(texts: pa.Array, size: int) -> int:
    """How many texts a block of so many bytes can hold, and one more."""
    ends = pc.cumulative_sum(pc.binary_length(texts.slice(0, size)).cast(pa.int64()))
    return int(pc.sum(pc.less_equal(ends, size)).as_py() or 0) + 1


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
