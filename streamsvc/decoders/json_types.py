"""The types of JSON columns, as people write them: ``int64``, ``decimal(10,2)``, ``list<struct<a: int64>>`` ..."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa

from streamsvc.decoders.timestamps import UTC


@dataclass(frozen=True, slots=True)
class Scalar:
    """``name`` is the type's whole text, for example ``timestamp(ms)``."""

    name: str


@dataclass(frozen=True, slots=True)
class DecimalType:
    precision: int
    scale: int


@dataclass(frozen=True, slots=True)
class ListType:
    item: ColumnType


@dataclass(frozen=True, slots=True)
class StructType:
    fields: tuple[tuple[str, ColumnType], ...]


@dataclass(frozen=True, slots=True)
class MapType:
    item: ColumnType


ColumnType: TypeAlias = Scalar | DecimalType | ListType | StructType | MapType

JSON_TEXT = Scalar("json")
"""The value as JSON text, whatever it is."""

_SCALARS = {
    "string": pa.string(),
    "json": pa.string(),
    "bool": pa.bool_(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "timestamp": UTC,
    "timestamp(s)": UTC,
    "timestamp(ms)": UTC,
    "timestamp(us)": UTC,
    "date": pa.date32(),
}
_SYNONYMS = {"double": "float64"}
_MEANT = {
    "str": "string", "text": "string", "varchar": "string", "char": "string", "utf8": "string",
    "int": "int64", "integer": "int64", "long": "int64", "bigint": "int64", "smallint": "int16", "short": "int16",
    "float": "float64", "real": "float32", "number": "float64", "boolean": "bool", "datetime": "timestamp",
    "numeric": "decimal(p,s)", "array": "list<...>", "object": "struct<...>", "record": "struct<...>",
    "dict": "map<string, ...>", "variant": "json", "any": "json", "binary": "string",
}  # fmt: skip
_NAMES = [*_SCALARS, *_SYNONYMS, "decimal(p,s)", "list<...>", "struct<...>", "map<string, ...>"]

_DEEPEST = 32
_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[A-Za-z_][A-Za-z0-9_]*|[0-9]+|\S)')
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_type(text: str) -> ColumnType:
    """Raises ValueError: what is wrong, at which column of the text, and what may have been meant."""
    parser = _Parser(text)
    parsed = parser.type()
    parser.end()
    return parsed


def type_text(column: ColumnType) -> str:
    """What ``parse_type`` reads as the same type."""
    match column:
        case Scalar(name):
            return name
        case DecimalType(precision, scale):
            return f"decimal({precision},{scale})"
        case ListType(item):
            return f"list<{type_text(item)}>"
        case MapType(item):
            return f"map<string, {type_text(item)}>"
        case StructType(fields):
            return f"struct<{', '.join(f'{_field_name(name)}: {type_text(item)}' for name, item in fields)}>"


def arrow_type(column: ColumnType) -> pa.DataType:
    match column:
        case Scalar(name):
            return _SCALARS[name]
        case DecimalType(precision, scale):
            return pa.decimal128(precision, scale)
        case ListType(item):
            return pa.list_(arrow_type(item))
        case MapType(item):
            return pa.map_(pa.string(), arrow_type(item))
        case StructType(fields):
            return pa.struct([(name, arrow_type(item)) for name, item in fields])


def wire_type(column: ColumnType) -> pa.DataType:
    """What a value is read as, before texts become times and the range of numbers is looked at."""
    match column:
        case Scalar("timestamp" | "date"):
            return pa.string()
        case Scalar("timestamp(s)" | "timestamp(ms)" | "timestamp(us)"):
            return pa.int64()
        case Scalar("float32"):
            return pa.float64()
        case DecimalType(_, scale):
            return pa.decimal128(38, scale)
        case ListType(item):
            return pa.list_(wire_type(item))
        case MapType(item):
            return pa.map_(pa.string(), wire_type(item))
        case StructType(fields):
            return pa.struct([(name, wire_type(item)) for name, item in fields])
    return arrow_type(column)


def is_plain(column: ColumnType) -> bool:
    """Whether Arrow's JSON reader can read it: anything but raw JSON text and maps."""
    match column:
        case ListType(item):
            return is_plain(item)
        case StructType(fields):
            return all(is_plain(item) for _, item in fields)
        case MapType():
            return False
    return column != JSON_TEXT


def decimal_scales(column: ColumnType) -> Iterator[int]:
    """Of all decimals in it."""
    match column:
        case ListType(item) | MapType(item):
            yield from decimal_scales(item)
        case StructType(fields):
            for _, item in fields:
                yield from decimal_scales(item)
        case DecimalType(_, scale):
            yield scale


def holds_decimal(column: ColumnType) -> bool:
    return any(True for _ in decimal_scales(column))


def _field_name(name: str) -> str:
    if _PLAIN_NAME.fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def type(self) -> ColumnType:
        start = self._at
        name = self._next("a type")
        if name == "list":
            return self._in_angles(lambda: ListType(self.type()))
        if name == "struct":
            return self._in_angles(self._fields)
        if name == "map":
            return self._in_angles(self._map)
        if name == "decimal":
            return self._decimal()
        if name == "timestamp" and self._peek() == "(":
            self._expect("(")
            name = f"timestamp({self._next('s, ms or us')})"
            self._expect(")")
        name = _SYNONYMS.get(name, name)
        if name not in _SCALARS:
            raise self._wrong(start, f"{name!r} is no type; {_meant(name)}")
        return Scalar(name)

    def end(self) -> None:
        if self._peek():
            raise self._wrong(self._at, f"{self._text[self._at :].strip()!r} is left over")

    def _in_angles(self, inside: Callable[[], ColumnType]) -> ColumnType:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._wrong(self._at, f"nested deeper than {_DEEPEST}")
        self._expect("<")
        found = inside()
        self._expect(">")
        self._depth -= 1
        return found

    def _map(self) -> MapType:
        start = self._at
        if self._next("string") != "string":
            raise self._wrong(start, "the keys of a map are strings: write map<string, ...>")
        self._expect(",")
        return MapType(self.type())

    def _fields(self) -> StructType:
        fields: dict[str, ColumnType] = {}
        while True:
            start = self._at
            name = self._next("a field's name")
            if name.startswith('"'):
                name = re.sub(r"\\(.)", r"\1", name[1:-1])
            if name in fields:
                raise self._wrong(start, f"the field {name!r} comes twice")
            self._expect(":")
            fields[name] = self.type()
            if self._peek() != ",":
                return StructType(tuple(fields.items()))
            self._expect(",")

    def _decimal(self) -> DecimalType:
        start = self._at
        self._expect("(")
        precision = self._number()
        self._expect(",")
        scale = self._number()
        self._expect(")")
        if not (1 <= precision <= 38 and scale <= precision):
            raise self._wrong(start, "decimal(p,s) needs 1 <= p <= 38 and 0 <= s <= p")
        return DecimalType(precision, scale)

    def _number(self) -> int:
        start = self._at
        number = self._next("a number")
        if not number.isdecimal():
            raise self._wrong(start, f"expected a number, found {number!r}")
        return int(number)

    def _expect(self, token: str) -> None:
        start = self._at
        found = self._next(repr(token))
        if found != token:
            raise self._wrong(start, f"expected {token!r}, found {found!r}")

    def _peek(self) -> str:
        found = _TOKEN.match(self._text, self._at)
        return found[1] if found else ""

    def _next(self, wanted: str) -> str:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            raise self._wrong(len(self._text), f"expected {wanted}, found the end")
        self._at = found.end()
        return found[1]

    def _wrong(self, at: int, what: str) -> ValueError:
        column = at + 1 + len(self._text[at:]) - len(self._text[at:].lstrip())
        return ValueError(f"type {self._text!r}, column {column}: {what}")


def _meant(name: str) -> str:
    close = _MEANT.get(name.lower()) or next(iter(difflib.get_close_matches(name.lower(), _NAMES, n=1)), None)
    return f"did you mean {close}?" if close else f"known are {', '.join(_NAMES)}"
