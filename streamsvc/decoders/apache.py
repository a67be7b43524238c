r"""httpd's access logs: every LogFormat.

A line is read by one pattern made from the format (``LinePattern``, the exact way). Lines of a regular format are
first cut at their quotes and spaces (``LineLayout``), which costs a fraction of that; a line that does not fit there
goes the exact way, and both ways give the same rows.

``-`` is null. ``\"`` and ``\\`` are unescaped; ``\xHH`` and httpd's other escapes stay text. Raw bytes that are not
UTF-8, which httpd never writes, make a reject (``encoding``). Line breaks at the end of a value are dropped.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.contracts import Decoder
from streamsvc.decoders.apache_error import ErrorLogDecoder
from streamsvc.decoders.cutting import interleave
from streamsvc.decoders.fields import parts_of, schema_of, typed
from streamsvc.decoders.line_layout import LineLayout
from streamsvc.decoders.line_pattern import LinePattern
from streamsvc.decoders.logformat import NAMED_FORMATS, Element, Field, parse_log_format
from streamsvc.decoders.sifting import MALFORMED, Fault, screen_lines, sift
from streamsvc.records import Sifted

_Read: TypeAlias = tuple[list[pa.Array], pa.Array | None]
_Reader: TypeAlias = Callable[[pa.Array], _Read]
"""Lines to the texts of all fields, of those lines that it can read and only those; the mask (bool, one for each
line) says which, ``None`` that all."""


def apache_decoder(name_or_format: str) -> Decoder:
    """``common``, ``combined``, ``vhost_combined``, ``error``, or a LogFormat string (it has a ``%``).

    Raises ValueError, with a suggestion.
    """
    if name_or_format == "error":
        return ErrorLogDecoder()
    if name_or_format in NAMED_FORMATS:
        return AccessLogDecoder(NAMED_FORMATS[name_or_format])
    if "%" in name_or_format:
        return AccessLogDecoder(parse_log_format(name_or_format))
    names = [*NAMED_FORMATS, "error"]
    close = difflib.get_close_matches(name_or_format, names, n=1)
    advice = f"did you mean {close[0]}?" if close else f"write {', '.join(names)} or a LogFormat string"
    raise ValueError(f"no Apache log format is called {name_or_format!r}; {advice}")


class AccessLogDecoder:
    """Lines of one LogFormat. Rejects: ``encoding``, ``malformed``, ``number``, ``timestamp``, ``too_long``."""

    version = 1

    def __init__(self, elements: Sequence[Element]) -> None:
        self._fields = [element for element in elements if isinstance(element, Field)]
        self._schema = schema_of(self._fields)
        self._pattern = LinePattern(elements)
        layout = LineLayout.of(elements)
        self._readers: list[_Reader] = [layout.read] if layout else []
        self._readers.append(self._pattern.read_matching)

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def decode(self, values: pa.Array) -> Sifted:
        lines, records = screen_lines(values)
        texts, matched = _read_by(self._readers, lines)
        if matched is not None:
            records = records.without(self._unmatched(lines, matched))
        columns: list[pa.Array] = []
        wrong: dict[int, Fault] = {}
        at = 0
        for field in self._fields:
            field_columns, field_faults = typed(field, texts[at : at + parts_of(field)])
            columns += field_columns
            wrong = field_faults | wrong
            at += parts_of(field)
        return sift(self._schema, records, columns, wrong)

    def _unmatched(self, lines: pa.Array, matched: pa.Array) -> dict[int, Fault]:
        rows = pc.indices_nonzero(pc.invert(matched))
        errors = self._pattern.explain(lines.take(rows))
        return {row: Fault(MALFORMED, error) for row, error in zip(rows.to_pylist(), errors, strict=True)}


def _read_by(readers: Sequence[_Reader], lines: pa.Array) -> _Read:
    """What the first reader leaves goes to the next one."""
    texts, read = readers[0](lines)
    if read is None or len(readers) == 1:
        return texts, read
    others, found = _read_by(readers[1:], lines.filter(pc.invert(read)))
    if len(others[0]) == 0:
        return texts, read
    if found is None:
        return interleave(read, texts, others), None
    both = pc.replace_with_mask(read, pc.invert(read), found)
    return interleave(read.filter(both), texts, others), both
