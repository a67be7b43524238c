"""The types that columns have after a step: few, without surprises, the same in every file format.

timestamps are ``timestamp[us, UTC]`` (one without a zone is taken as UTC), dictionaries and enums are what they stand
for, large and view variants are plain; a UUID or JSON is ``string``.
"""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from duckdb import sqltypes
from pyarrow import types

_DAY_US = 86_400_000_000
_FIRST_DAY, _LAST_DAY = (date(1, 1, 1) - date(1970, 1, 1)).days, (date(9999, 12, 31) - date(1970, 1, 1)).days


class _Bounds(NamedTuple):
    counted: pa.DataType
    first: int
    last: int
    error: str


_BOUNDS = {
    pa.timestamp("us", "UTC"): _Bounds(
        pa.int64(), _FIRST_DAY * _DAY_US, (_LAST_DAY + 1) * _DAY_US - 1, "a timestamp is outside of the years 1 to 9999"
    ),
    pa.date32(): _Bounds(pa.int32(), _FIRST_DAY, _LAST_DAY, "a date is outside of the years 1 to 9999"),
    pa.time64("us"): _Bounds(pa.int64(), 0, _DAY_US - 1, "a time is not between 00:00:00 and 23:59:59.999999"),
}

_KEPT = {
    "boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint", "float",
    "double", "decimal", "varchar", "blob", "uuid", "enum", "date", "time", "timestamp", "timestamp_s", "timestamp_ms",
    "timestamp with time zone", "list", "array", "struct", "map",
}  # fmt: skip

_ADVICE = {
    "null": "say which: CAST(NULL AS VARCHAR)",
    "hugeint": "cast it to BIGINT or DECIMAL(38, 0)",
    "uhugeint": "cast it to UBIGINT or DECIMAL(38, 0)",
    "interval": "write it as a number: epoch(column), epoch_ms(column)",
    "timestamp_ns": "columns are in microseconds: cast it to TIMESTAMP",
    "timestamptz_ns": "columns are in microseconds: cast it to TIMESTAMPTZ",
    "time_ns": "columns are in microseconds: cast it to TIME",
    "time with time zone": "cast it to TIME",
    "variant": "cast it to JSON",
}


def check_names(schema: pa.Schema) -> None:
    """Raises ``ValueError`` for columns that SQL cannot tell apart."""
    seen: dict[str, str] = {}
    for name in schema.names:
        if name.lower() in seen:
            raise ValueError(f"SQL cannot tell the columns {seen[name.lower()]} and {name} apart: rename one of them")
        seen[name.lower()] = name


def check_sql_type(name: str, kind: sqltypes.DuckDBPyType) -> None:
    """Raises ``ValueError`` for a type that Arrow and Parquet have no equal of."""
    if kind.id not in _KEPT:
        raise ValueError(f"{name} is of type {kind.id.upper()}: {_ADVICE.get(kind.id, 'cast it to VARCHAR')}")
    if kind.id in {"list", "array", "struct", "map"}:
        for _, child in kind.children:
            if isinstance(child, sqltypes.DuckDBPyType):
                check_sql_type(name, child)


def plain_type(name: str, kind: pa.DataType) -> pa.DataType:
    """What a column of an Arrow type becomes. Raises ``ValueError`` for what would lose precision or has no equal."""
    if isinstance(kind, pa.DictionaryType):
        return plain_type(name, kind.value_type)
    if isinstance(kind, pa.TimestampType | pa.Time64Type) and kind.unit == "ns":
        cast = f"CAST({name} AS {'TIME' if isinstance(kind, pa.Time64Type) else 'TIMESTAMPTZ'})"
        raise ValueError(f"{name} is in nanoseconds, and columns are in microseconds: write {cast} AS {name}")
    if isinstance(kind, pa.TimestampType):
        return pa.timestamp("us", "UTC")
    if types.is_time(kind):
        return pa.time64("us")
    if types.is_date(kind):
        return pa.date32()
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        return pa.list_(plain_type(name, kind.value_type))
    if isinstance(kind, pa.StructType) and len(kind):
        return pa.struct([(field.name, plain_type(name, field.type)) for field in kind])
    if isinstance(kind, pa.MapType):
        return pa.map_(plain_type(name, kind.key_type), plain_type(name, kind.item_type))
    if _is_plain(kind):
        return kind
    raise ValueError(f"{name} is of type {kind}, which no file format has: cast it, for example to VARCHAR")


def plain(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """The column as of ``kind``, which ``plain_type`` answered. Raises ``ArrowInvalid``: a value is out of range."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = whole if whole.type == kind else whole.cast(kind)
    if _holds_times(kind):
        _check_times(values)
    return values


def _holds_times(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.StructType):
        return any(_holds_times(field.type) for field in kind)
    if isinstance(kind, pa.MapType):
        return _holds_times(kind.key_type) or _holds_times(kind.item_type)
    return _holds_times(kind.value_type) if isinstance(kind, pa.ListType) else kind in _BOUNDS


def _check_times(values: pa.Array) -> None:
    """Times are of the years 1 to 9999 and of one day's 24 hours: others have no ISO 8601 text, and most readers refuse
    them (``infinity``, milliseconds that were taken for seconds). Raises ``ArrowInvalid``."""
    if isinstance(values, pa.StructArray):
        for part in values.flatten():
            _check_times(part)
    elif isinstance(values, pa.MapArray):  # its parts are those of the whole, however it was sliced
        for part in (values.keys, values.items):
            _check_times(pa.ListArray.from_arrays(values.offsets, part))
    elif isinstance(values, pa.ListArray):
        _check_times(values.flatten())
    bounds = _BOUNDS.get(values.type)
    if bounds is None:
        return
    whole = values.view(bounds.counted)
    least, most = pc.min_max(whole).values()
    if least.is_valid and not (bounds.first <= least.as_py() and most.as_py() <= bounds.last):
        raise pa.ArrowInvalid(bounds.error)


def sample(kind: pa.DataType) -> object:
    """Any value of a type, from which Arrow can make it."""
    if isinstance(kind, pa.DictionaryType):
        return sample(kind.value_type)
    if isinstance(kind, pa.StructType):
        return {field.name: sample(field.type) for field in kind}
    if isinstance(kind, pa.ListType | pa.LargeListType):
        return [sample(kind.value_type)]
    if isinstance(kind, pa.FixedSizeListType):
        return [sample(kind.value_type)] * kind.list_size
    if isinstance(kind, pa.MapType):
        return [(sample(kind.key_type), sample(kind.item_type))]
    if types.is_null(kind):
        return None
    if types.is_boolean(kind):
        return False
    if types.is_fixed_size_binary(kind):
        return b"0" * kind.byte_width
    return "0" if plain_type("", kind) in {pa.string(), pa.binary()} else 0


def _is_plain(kind: pa.DataType) -> bool:
    return (
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_binary(kind)
        or types.is_fixed_size_binary(kind)
    )
