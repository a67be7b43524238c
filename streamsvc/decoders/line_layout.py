"""The fast way to read a line: cut it at its quotes, and what is not quoted at its spaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.decoders.cutting import cut, holds, within
from streamsvc.decoders.fields import is_text, parts_of
from streamsvc.decoders.line_pattern import LinePattern
from streamsvc.decoders.logformat import Element, Field
from streamsvc.decoders.sifting import bytes_of, leave_out, marked, rows_of

_BACKSLASH, _QUOTE = "\x01", "\x02"

_Token: TypeAlias = str | Field | LinePattern
"""A literal, a field, or several of them side by side."""
_Piece: TypeAlias = _Token | tuple[_Token, ...]
"""What stands between two quotes: quoted, or unquoted tokens with single spaces between them."""


@dataclass(frozen=True, slots=True)
class LineLayout:
    """A format in which every field is quoted, or stands between single spaces."""

    pieces: tuple[_Piece, ...]
    free_text: tuple[bool, ...]
    """Of each text that is read: whether escapes in it are resolved."""

    @staticmethod
    def of(elements: Sequence[Element]) -> LineLayout | None:
        """None: the format is not so regular."""
        if any("\\" in element for element in elements if isinstance(element, str)):
            return None
        between_quotes = _split(elements, '"')
        pieces = [_piece(part, quoted=bool(index % 2)) for index, part in enumerate(between_quotes)]
        if len(pieces) % 2 == 0 or any(piece is None for piece in pieces):
            return None
        fields = [element for element in elements if isinstance(element, Field)]
        free_text = tuple(is_text(field) for field in fields for _ in range(parts_of(field)))
        return LineLayout(tuple(piece for piece in pieces if piece is not None), free_text)

    def read(self, lines: pa.Array) -> tuple[list[pa.Array], pa.Array | None]:
        """Texts of the fields, as ``LinePattern.read`` gives them, of the lines that are regular, and only those.
        The mask (bool, one for each line) says which, ``None`` that all are."""
        lines, escaped = _hide_escapes(lines)
        parts, regular = self._cut(lines)
        if escaped is not None:
            escaped = escaped if regular is None else escaped.filter(regular)
            rows = pc.indices_nonzero(escaped)
            parts = [_show_escapes(part, escaped, rows, free) for part, free in zip(parts, self.free_text, strict=True)]
        return parts, regular

    def _cut(self, lines: pa.Array) -> tuple[list[pa.Array], pa.Array | None]:
        if len(self.pieces) > 1:
            columns, regular = cut(lines, '"', len(self.pieces))
            refuse = ""
        else:
            columns, regular = [lines], None
            refuse = '"'
        parts: list[pa.Array] = []
        conditions: list[pa.Array] = []
        for index, piece in enumerate(self.pieces):
            if isinstance(piece, tuple):
                tokens, fit = cut(columns[index], " ", sum(map(_width, piece)), without=refuse)
                if fit is not None:
                    regular = within(regular, fit)
                    columns, parts, conditions = (_where(fit, each) for each in (columns, parts, conditions))
                for token in piece:
                    parts += _texts(token, tokens[: _width(token)], conditions)
                    tokens = tokens[_width(token) :]
            else:
                parts += _texts(piece, [columns[index]], [] if _is_quoted_text(piece) else conditions)
        failed = [condition for condition in conditions if condition.null_count or pc.all(condition).as_py() is False]
        if not failed:
            return parts, regular
        true = reduce(pc.and_, failed).fill_null(False)
        return _where(true, parts), within(regular, true)


def _hide_escapes(lines: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    r"""Control characters in place of ``\\`` and ``\"``. The mask says which lines have escapes, ``None`` that none
    has. Empty in place of a line of which this cannot be said: it has such control characters, or escapes that httpd
    does not write."""
    data, bounds = bytes_of(lines)
    places = np.flatnonzero(np.frombuffer(memoryview(data), np.uint8) == ord("\\"))
    if not len(places):
        return lines, None
    rows = rows_of(places, bounds)
    odd = lines.take(pa.array(rows))
    for mark in (_BACKSLASH, _QUOTE):
        if holds(odd, mark):
            odd = pc.if_else(pc.match_substring(odd, mark), "", odd)
    odd = pc.replace_substring(pc.replace_substring(odd, r"\\", _BACKSLASH), r"\"", _QUOTE)
    if holds(odd, "\\"):
        odd = pc.if_else(pc.match_substring_regex(odd, r"\\([^bnrtvx]|$)"), "", odd)
    escaped = marked(len(lines), rows)
    return pc.replace_with_mask(lines, escaped, odd), escaped


def _show_escapes(text: pa.Array, escaped: pa.Array, rows: pa.Array, free_text: bool) -> pa.Array:
    """Resolved in free text, else as they were. ``rows``: where ``escaped`` is true."""
    odd = text.take(rows)
    if not holds(odd, _BACKSLASH) and not holds(odd, _QUOTE):
        return text
    odd = pc.replace_substring(odd, _BACKSLASH, "\\" if free_text else r"\\")
    return pc.replace_with_mask(text, escaped, pc.replace_substring(odd, _QUOTE, '"' if free_text else r"\""))


def _texts(token: _Token, columns: list[pa.Array], conditions: list[pa.Array]) -> list[pa.Array]:
    """The texts of one token. What must be true for them to be right is added to ``conditions``."""
    if isinstance(token, str):
        conditions.append(pc.equal(columns[0], token))
        return []
    if isinstance(token, LinePattern):
        texts = token.read(columns[0])
        conditions.append(texts[0].is_valid())
        return texts
    if token.kind == "clf":
        conditions += [pc.starts_with(columns[0], "["), pc.ends_with(columns[1], "]")]
    elif token.is_query:
        conditions.append(pc.or_(pc.starts_with(columns[0], "?"), pc.equal(columns[0], "")))
    else:
        conditions.append(pc.greater(pc.binary_length(columns[0]), 0))
    return columns


def _is_quoted_text(piece: _Token) -> bool:
    """Which may be anything, also empty."""
    return isinstance(piece, Field) and not piece.is_query


def _where(true: pa.Array, columns: list[pa.Array]) -> list[pa.Array]:
    return leave_out(columns, pc.indices_nonzero(pc.invert(true)).to_pylist())


def _split(elements: Sequence[Element], separator: str) -> list[list[Element]]:
    parts: list[list[Element]] = [[]]
    for element in elements:
        if isinstance(element, Field):
            parts[-1].append(element)
            continue
        first, *others = element.split(separator)
        if first:
            parts[-1].append(first)
        parts += [[other] if other else [] for other in others]
    return parts


def _piece(elements: list[Element], *, quoted: bool) -> _Piece | None:
    if quoted and any(isinstance(element, Field) and element.kind == "clf" for element in elements):
        return LinePattern(elements)
    if quoted or all(isinstance(element, str) for element in elements):
        return _token(elements)
    if any(isinstance(e, Field) and (e.kind == "request" or " " in e.time_format) for e in elements):
        return None
    tokens = [_token(token) for token in _split(elements, " ")]
    return tuple(tokens) if len(tokens) > 1 else None


def _token(elements: list[Element]) -> _Token:
    if not elements:
        return ""
    if len(elements) > 1:
        return LinePattern(elements)
    return elements[0]


def _width(token: _Token) -> int:
    return parts_of(token) if isinstance(token, Field) else 1
