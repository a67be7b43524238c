"""The exact way to read JSON: one record at a time. It says what is wrong with a record, and where.

Strict: a value is of the declared type or the record is a reject; nothing is made to fit. An integer column takes
``1`` and not ``1.0``, a float column takes both; text is no number and a number is no text. A key that is declared
must not come twice. A number that nobody asked for is no reason to reject a record, be it ``NaN`` or ``Infinity``,
which are no JSON, or too large for a double (``1e400``). Where fields are kept as text, a large number is kept as it
was written, and ``NaN`` is a reject, for JSON has no text for it; in a column of numbers either is a reject.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal, InvalidOperation
from typing import Any, TypeAlias

import orjson

from streamsvc.decoders.json_types import (
    ColumnType,
    DecimalType,
    ListType,
    MapType,
    Scalar,
    StructType,
    holds_decimal,
    type_text,
)
from streamsvc.decoders.sifting import MALFORMED, Fault, excerpt

TYPE = "type"
"""A value is not of the type that is declared for it."""
DUPLICATE = "duplicate_key"
"""An object has a key twice, so it is not known which is meant."""

EXTRA = "_extra"
"""The column of the fields that are not declared."""

STRING = rb'"(?:[^"\\]++|\\.)*+"?'
"""A pattern for a JSON string. It matches at every quote and never looks back, so time is linear in hostile text."""

_Read: TypeAlias = Callable[[Any], Any]

_BITS = {"int16": 16, "int32": 32, "int64": 64, "timestamp(s)": 64, "timestamp(ms)": 64, "timestamp(us)": 64}
_KEY = re.compile(rb'"[ \t\r\n]*:')
_NON_FINITE = re.compile(STRING + rb"|-?(?:NaN|Inf(?:inity)?)", re.DOTALL)
_LARGE = re.compile(STRING + rb"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LONGEST_INTEGER, _LONGEST_SHOWN = 20, 60
_WIDE = Context(prec=80)
_NOTHING = object()


class _Mismatch(Exception):
    """A value cannot be read; ``path`` grows from the inside out."""

    def __init__(self, error: str, reason: str = TYPE) -> None:
        super().__init__(error)
        self.error = error
        self.reason = reason
        self.path: list[str] = []

    def below(self, name: str) -> _Mismatch:
        self.path.insert(0, name)
        return self


class _Written:
    """A number that not even ``Decimal`` holds, as it was written. It is of no type, but may be kept as text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class _AsWritten(Exception):
    """There are numbers that must be kept as they were written."""


class _Members(dict[str, Any]):
    """An object that knows which of its keys came more than once."""

    twice: frozenset[str] = frozenset()


class ExactReader:
    """Records to values of some columns, in wire types (``json_types.wire_type``).

    names: the columns to read, all of ``declared`` or some of them; with ``extra`` also ``_extra``
    """

    def __init__(self, declared: Mapping[str, ColumnType], names: Sequence[str], *, extra: bool) -> None:
        self._left_over = _left_over_of_struct({name: _left_over_reader(item) for name, item in declared.items()})
        self._readers = {name: _reader(declared[name]) for name in names}
        self._names = frozenset(names)
        self._extra = extra
        self._decimals = any(holds_decimal(column) for column in declared.values())

    def read(self, records: Sequence[bytes]) -> tuple[dict[str, list[Any]], dict[int, Fault]]:
        """Columns of Python values; a record that is a reject has only nulls."""
        columns: dict[str, list[Any]] = {name: [] for name in self._readers}
        if self._extra:
            columns[EXTRA] = []
        faults = {}
        for index, record in enumerate(records):
            try:
                values = self._record(record)
            except _Mismatch as mismatch:
                where = f"{_path(mismatch.path)}: " if mismatch.path else ""
                faults[index] = Fault(mismatch.reason, where + mismatch.error)
                values = {}
            for name, column in columns.items():
                column.append(values.get(name))
        return columns, faults

    def _record(self, record: bytes) -> dict[str, Any]:
        try:
            return self._values(self._parse(record))
        except _AsWritten:
            return self._values(_parse_as_written(record))

    def _values(self, members: Any) -> dict[str, Any]:
        if not isinstance(members, dict):
            raise _Mismatch(f"{_shown(members)} is not an object", MALFORMED)
        if type(members) is _Members and members.twice:
            _refuse_twice(members, members.twice if self._extra else members.twice & self._names)
        values = {}
        for name, read in self._readers.items():
            value = members.get(name)
            if value is not None:
                try:
                    values[name] = read(value)
                except _Mismatch as mismatch:
                    raise mismatch.below(name) from None
        if self._extra:
            left = self._left_over(members)
            values[EXTRA] = None if left is _NOTHING else _text(left)
        return values

    def _parse(self, record: bytes) -> Any:
        try:
            members = orjson.loads(record)
        except orjson.JSONDecodeError as error:
            return _parse_other_numbers(record, error)
        if self._decimals or _keys(members) != len(_KEY.findall(record)):
            return _parse_as_written(record)
        return members


def _parse_as_written(record: bytes) -> Any:
    """Numbers without loss, and which keys came twice."""
    return json.loads(record, parse_float=_fraction, parse_int=_integer, object_pairs_hook=_members)


def _parse_other_numbers(record: bytes, error: orjson.JSONDecodeError) -> Any:
    """A record that is JSON but for ``NaN`` and ``Infinity``, or that has numbers beyond a double."""
    near = error.doc[max(0, error.pos - 1) : error.pos + 3]
    if "NaN" in near or "Inf" in near or "infinity" in str(error):
        plain = _NON_FINITE.sub(lambda found: found[0] if found[0].startswith(b'"') else b"null", record)
        try:
            orjson.loads(_LARGE.sub(_without_size, plain))
        except orjson.JSONDecodeError:
            pass
        else:
            return _parse_as_written(_NON_FINITE.sub(_python_constant, record))
    raise _Mismatch(str(error), MALFORMED)


def _without_size(found: re.Match[bytes]) -> bytes:
    """A number beyond a double as a zero to which nothing can be added, so that what was no JSON stays none."""
    token = found[0]
    if token.startswith(b'"') or math.isfinite(float(token)):
        return token
    return b"-0.0e0" if token.startswith(b"-") else b"0.0e0"


def _python_constant(found: re.Match[bytes]) -> bytes:
    token = found[0]
    if token.startswith(b'"'):
        return token
    if token.endswith(b"NaN"):
        return b"NaN"
    return b"-Infinity" if token.startswith(b"-") else b"Infinity"


def _fraction(text: str) -> Decimal | _Written:
    try:
        return Decimal(text)
    except InvalidOperation:
        return _Written(text)


def _integer(text: str) -> int | Decimal:
    """Integers beyond 64 bits are no integers to anybody here, but decimals; Python reads no very long ones."""
    number = int(text) if len(text) <= _LONGEST_INTEGER else 2**64
    return number if -(2**63) <= number < 2**64 else Decimal(text)


def _members(pairs: list[tuple[str, Any]]) -> _Members:
    members = _Members(pairs)
    if len(members) != len(pairs):
        members.twice = frozenset(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    return members


def _keys(value: Any) -> int:
    """How many keys all objects in a value have."""
    count = 0
    pending = [value]
    while pending:
        item = pending.pop()
        if type(item) is dict:
            count += len(item)
            pending.extend(member for member in item.values() if type(member) is dict or type(member) is list)
        elif type(item) is list:
            pending.extend(member for member in item if type(member) is dict or type(member) is list)
    return count


def _refuse_twice(members: _Members, names: frozenset[str]) -> None:
    if names:
        raise _Mismatch(f"the key {min(names)!r} comes twice", DUPLICATE)


def _below(name: str, read: _Read, value: Any) -> Any:
    try:
        return read(value)
    except _Mismatch as mismatch:
        raise mismatch.below(name) from None


def _reader(column: ColumnType) -> _Read:
    """A function from a JSON value that is not null to a wire value. Raises ``_Mismatch``."""
    match column:
        case ListType(item):
            return _list_reader(column, _reader(item))
        case MapType(item):
            return _map_reader(column, _reader(item))
        case StructType(fields):
            return _struct_reader(column, {name: _reader(item) for name, item in fields})
        case DecimalType():
            return _decimal_reader(column)
        case Scalar("json"):
            return _text
        case Scalar("bool"):
            return _of_type(column, bool)
        case Scalar("float32" | "float64"):
            return _float_reader(column)
        case Scalar(name) if name in _BITS:
            return _integer_reader(column, _BITS[name])
    return _of_type(column, str)


def _of_type(column: ColumnType, wanted: type) -> _Read:
    def read(value: Any) -> Any:
        if type(value) is not wanted:
            raise _wrong(value, column)
        return value

    return read


def _integer_reader(column: ColumnType, bits: int) -> _Read:
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise _wrong(value, column)
        return value

    return read


def _float_reader(column: ColumnType) -> _Read:
    def read(value: Any) -> float:
        if type(value) is float:
            return value
        if type(value) is not int and type(value) is not Decimal:
            raise _wrong(value, column)
        return float(value)

    return read


def _decimal_reader(column: DecimalType) -> _Read:
    """A number, or a number as text; digits that the scale cannot hold must be zeros. Precision comes later."""
    least = Decimal(1).scaleb(-column.scale)
    limit = Decimal(10) ** (38 - column.scale)

    def read(value: Any) -> Decimal:
        if type(value) not in {int, str, Decimal} or (type(value) is str and not _NUMBER.fullmatch(value)):
            raise _wrong(value, column)
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise _wrong(value, column) from None
        _, digits, exponent = number.as_tuple()
        excess = -column.scale - int(exponent)
        if not -limit < number < limit or (excess > 0 and any(digits[-excess:])):
            raise _wrong(value, column)
        return _WIDE.quantize(number, least)

    return read


def _list_reader(column: ColumnType, read_item: _Read) -> _Read:
    def read(value: Any) -> list[Any]:
        if type(value) is not list:
            raise _wrong(value, column)
        return [None if item is None else _below(f"[{at}]", read_item, item) for at, item in enumerate(value)]

    return read


def _map_reader(column: ColumnType, read_item: _Read) -> _Read:
    def read(value: Any) -> list[tuple[str, Any]]:
        if not isinstance(value, dict):
            raise _wrong(value, column)
        if type(value) is _Members:
            _refuse_twice(value, value.twice)
        return [(key, None if item is None else _below(key, read_item, item)) for key, item in value.items()]

    return read


def _struct_reader(column: ColumnType, readers: dict[str, _Read]) -> _Read:
    names = frozenset(readers)

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(value, column)
        if type(value) is _Members:
            _refuse_twice(value, value.twice & names)
        return {
            name: None if (item := value.get(name)) is None else _below(name, read_item, item)
            for name, read_item in readers.items()
        }

    return read


def _text(value: Any) -> str:
    """A value as compact JSON. Raises ``_AsWritten`` if it holds numbers that are no integers any more."""
    if not isinstance(value, str):
        _check_text(value)
    try:
        return orjson.dumps(value, default=_as_written).decode()
    except orjson.JSONEncodeError:
        raise _Mismatch("nested too deep to be kept as text", MALFORMED) from None


def _as_written(value: object) -> orjson.Fragment:
    if isinstance(value, Decimal | _Written):
        return orjson.Fragment(str(value))
    raise TypeError


def _check_text(value: Any) -> None:
    """What JSON text would lose: a key that comes twice, digits of numbers, ``NaN`` and ``Infinity``."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if type(item) is _Members:
                _refuse_twice(item, item.twice)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, float):
            if math.isfinite(item):
                raise _AsWritten
            raise _Mismatch(f"{_shown(item)} is no JSON", MALFORMED)


def _left_over_reader(column: ColumnType) -> _Read | None:
    """A function to what of a value nobody declared, in the places where it was, ``_NOTHING`` if it is all declared.
    ``None``: there are no names to be declared in it."""
    match column:
        case StructType(fields):
            return _left_over_of_struct({name: _left_over_reader(item) for name, item in fields})
        case ListType(item):
            inner = _left_over_reader(item)
            return None if inner is None else _left_over_of_list(inner)
        case MapType(item):
            inner = _left_over_reader(item)
            return None if inner is None else _left_over_of_map(inner)
    return None


def _left_over_of_struct(known: dict[str, _Read | None]) -> _Read:
    nested = {name: read for name, read in known.items() if read is not None}

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            return _NOTHING
        left = {} if value.keys() <= known.keys() else {name: value[name] for name in value if name not in known}
        for name, read_item in nested.items():
            item = read_item(value.get(name))
            if item is not _NOTHING:
                left[name] = item
        return left or _NOTHING

    return read


def _left_over_of_list(read_item: _Read) -> _Read:
    def read(value: Any) -> Any:
        items = [read_item(item) for item in value] if isinstance(value, list) else []
        return [_or_null(item) for item in items] if any(item is not _NOTHING for item in items) else _NOTHING

    return read


def _left_over_of_map(read_item: _Read) -> _Read:
    def read(value: Any) -> Any:
        items = {key: read_item(item) for key, item in value.items()} if isinstance(value, dict) else {}
        return {key: item for key, item in items.items() if item is not _NOTHING} or _NOTHING

    return read


def _or_null(item: Any) -> Any:
    return None if item is _NOTHING else item


def _wrong(value: Any, column: ColumnType) -> _Mismatch:
    return _Mismatch(f"{_shown(value)} is not {type_text(column)}")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"text {excerpt(value)}"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    text = str(value)
    return f"number {text if len(text) <= _LONGEST_SHOWN else excerpt(text)}"


def _path(path: list[str]) -> str:
    return "".join(part if part.startswith("[") else f".{part}" for part in path).removeprefix(".")
