"""The exact way to read a line: one RE2 pattern made from its format. Time is linear in the line, whatever it holds."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.decoders.fields import is_text, parts_of
from streamsvc.decoders.logformat import Element, Field
from streamsvc.decoders.sifting import excerpt

_UNQUOTED = r"(?:[^ \"\\]|\\.)+"
_UNQUOTED_SPACED = r"(?:[^\"\\]|\\.)+?"
_QUERY = r"(?:\?(?:[^\"\\]|\\.)*?)?"
_QUOTED = r"(?:[^\"\\]|\\.)*"
_USER = rf"\"\"|{_UNQUOTED_SPACED}"
"""httpd writes a user whose name is empty as two quotes."""
_CLOCK, _ZONE = rf"\[(?:{_UNQUOTED})?", rf"(?:{_UNQUOTED})?\]"


class LinePattern:
    """Lines of one format to the texts of their fields."""

    def __init__(self, elements: Sequence[Element]) -> None:
        self._fields = [element for element in elements if isinstance(element, Field)]
        self._units = _units(elements)
        self._pattern = f"(?s)^{''.join(pattern for pattern, _ in self._units)}$"
        self._as_far_as_possible = _as_far_as_possible(self._units)

    def read(self, lines: pa.Array) -> list[pa.Array]:
        """Texts of every field, ``parts_of`` each, unescaped; null where a line does not match."""
        found = pc.extract_regex(lines, self._pattern)
        texts = found.flatten()
        parts: list[pa.Array] = []
        for field in self._fields:
            for _ in range(parts_of(field)):
                text = texts[len(parts)]
                parts.append(_unescaped(text, field) if is_text(field) else text)
        return parts

    def read_matching(self, lines: pa.Array) -> tuple[list[pa.Array], pa.Array | None]:
        """``read``, without the lines that do not match; the mask (bool) says which do, ``None`` that all do."""
        texts = self.read(lines)
        if texts[0].null_count == 0:
            return texts, None
        found = texts[0].is_valid()
        return [text.filter(found) for text in texts], found

    def explain(self, lines: pa.Array) -> list[str]:
        """Of lines that do not match: where reading them ends, and what should be there."""
        read = pc.extract_regex(lines, self._as_far_as_possible).to_pylist()
        return [self._explain(line, parts) for line, parts in zip(lines.to_pylist(), read, strict=True)]

    def _explain(self, line: str, parts: dict[str, str]) -> str:
        done = [part for part in parts.values() if part]
        rest = line[sum(map(len, done)) :]
        expected = self._units[len(done)][1] if len(done) < len(self._units) else "the end of the line"
        byte = len(line.encode()) - len(rest.encode())
        return f"expected {expected} at byte {byte}, found {excerpt(rest) if rest else 'the end'}"


def _as_far_as_possible(units: Sequence[tuple[str, str]]) -> str:
    """A pattern that matches any line, with a group for each unit that can be read."""
    pattern = ""
    for number, (unit, _) in reversed(list(enumerate(units))):
        pattern = f"(?:(?P<unit{number}>{_without_groups(unit)}){pattern})?"
    return f"(?s)^{pattern}"


def _units(elements: Sequence[Element]) -> list[tuple[str, str]]:
    """Patterns that follow one another, each of a field and the literal after it, and what they stand for."""
    units: list[tuple[str, str]] = []
    number = 0
    for index, element in enumerate(elements):
        if isinstance(element, str):
            if index == 0:
                units.append((re.escape(element), repr(element)))
            continue
        after = elements[index + 1] if index + 1 < len(elements) else ""
        literal = after if isinstance(after, str) else ""
        quoted = index > 0 and _ends_in_quote(elements[index - 1]) and literal.startswith('"')
        groups = []
        for pattern in _patterns(element, quoted):
            groups.append(f"(?P<p{number}>{pattern})")
            number += 1
        units.append((" ".join(groups) + re.escape(literal), _expected(element, literal)))
    return units


def _ends_in_quote(element: Element) -> bool:
    return isinstance(element, str) and element.endswith('"')


def _patterns(field: Field, quoted: bool) -> tuple[str, ...]:
    if field.kind == "clf":
        return (_CLOCK, _ZONE)
    if field.is_query:
        return (_QUERY,)
    if quoted:
        return (_QUOTED,)
    if field.directive.endswith("u") and field.name.startswith("authuser"):
        return (_USER,)
    return (_UNQUOTED_SPACED if field.spaced else _UNQUOTED,)


def _expected(field: Field, literal: str) -> str:
    return f"column {field.name} ({field.directive})" + (f" and then {literal!r}" if literal else "")


def _without_groups(pattern: str) -> str:
    return re.sub(r"\(\?P<p\d+>", "(?:", pattern)


def _unescaped(text: pa.Array, field: Field) -> pa.Array:
    if field.kind == "text":
        text = pc.if_else(pc.equal(text, '""'), "", text)
    return pc.replace_substring_regex(text, r'\\(["\\])', r"\1")
