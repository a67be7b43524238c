"""Rows to Hive-style prefixes (``date=2026-11-24/response=200``) by the values of their partition columns. Pure.

A value's text is what engines read back: Hive's escapes (``%XX``) for everything in ASCII but letters, digits and
``-_.``; other letters stay. Null is ``__HIVE_DEFAULT_PARTITION__``; that word, and ``null``, as values are
escaped, so two different rows of values never share a prefix. The empty text is an empty value (``name=``), which
DuckDB and Arrow read back as such; Spark's discovery of partitions refuses it (write ``nullif(name, '')``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

Value: TypeAlias = str | None
"""A partition value as text."""

Key: TypeAlias = tuple[Value, ...]
"""One value for each partition column."""

NULL = "__HIVE_DEFAULT_PARTITION__"
MAX_SEGMENT_BYTES = 255
"""``name=value``, escaped: the longest file name of a local file system."""

_READ_AS_NULL = {NULL.lower(), "null"}
# C1 controls and line separators are invisible; U+FFFE and U+FFFF cannot stand in the XML of a listing.
_UNSAFE_TEXT = re.compile("[^A-Za-z0-9._\u00a0-\U0010ffff-]|[\u2028\u2029\ufffe\uffff]")


def escape(value: Value) -> str:
    """The value as it stands in a prefix. Injective."""
    if value is None:
        return NULL
    text = _UNSAFE_TEXT.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), value)
    return f"%{ord(text[0]):02X}{text[1:]}" if text.lower() in _READ_AS_NULL else text


def prefix_of(names: Sequence[str], key: Key, max_bytes: int) -> str | None:
    """``name=value/...`` in the order of the names; ``None`` if a part or the whole is too long for a path."""
    parts = [f"{escape(name)}={escape(value)}" for name, value in zip(names, key, strict=True)]
    prefix = "/".join(parts)
    too_long = len(prefix.encode()) > max_bytes or any(len(part.encode()) > MAX_SEGMENT_BYTES for part in parts)
    return None if too_long else prefix


def can_partition_by(kind: pa.DataType) -> bool:
    """Lists, structs, maps and calendar intervals have no text that every engine reads back; nor have bytes: DuckDB and
    Arrow read nothing more of a lake in which a path holds escapes that are not UTF-8."""
    return not (types.is_nested(kind) or types.is_interval(kind) or _is_binary(kind))


@dataclass(frozen=True, slots=True)
class Keyed:
    """``keys``: the distinct keys, in the order of their first rows. ``codes``: int32, each row's index in them.

    Two keys may be equal when their values differ in nothing that has a text.
    """

    keys: list[Key]
    codes: pa.Array

    def first_row(self, code: int) -> int:
        """Where a key comes first."""
        return int(pc.index(self.codes, pa.scalar(code, self.codes.type)).as_py())


def keyed(columns: Sequence[pa.Array]) -> Keyed:
    """The keys of rows, by columns of equal length and any type that ``can_partition_by`` allows."""
    codes, values = _distinct(columns[0])
    keys: list[Key] = [(value,) for value in values]
    for column in columns[1:]:
        more, values = _distinct(column)
        width = len(values)
        pairs = pc.add(pc.multiply(codes.cast(pa.int64()), width), more.cast(pa.int64())).dictionary_encode()
        codes = pairs.indices
        keys = [(*keys[pair // width], values[pair % width]) for pair in pairs.dictionary.to_pylist()]
    return Keyed(keys, codes)


def grouped(codes: pa.Array) -> Iterator[tuple[int, pa.Array]]:
    """Each code that occurs, ascending, with the indices of its rows in their order."""
    order = pc.sort_indices(codes)
    counts = pc.value_counts(codes)
    start = 0
    for code, count in sorted(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)):
        yield code, order.slice(start, count)
        start += count


def _distinct(column: pa.Array) -> tuple[pa.Array, list[Value]]:
    """int32 codes, and the distinct values in the order of their first rows."""
    if isinstance(column.type, pa.DictionaryType):
        column = column.cast(column.type.value_type)
    if types.is_floating(column.type):
        column = column.cast(pa.string())  # 0.0 and -0.0 are equal and have two texts
    encoded = column.dictionary_encode(null_encoding="encode")
    return encoded.indices, _texts(encoded.dictionary)


def _texts(values: pa.Array) -> list[Value]:
    """Numbers in decimal, dates and times in ISO 8601 with a space for the T, in UTC, without empty fractions."""
    kind = values.type
    if isinstance(kind, pa.TimestampType):
        values = values.cast(pa.timestamp(kind.unit))
    texts: list[Value] = values.cast(pa.string()).to_pylist()
    if types.is_timestamp(kind) or types.is_time(kind):
        return [text.rstrip("0").removesuffix(".") if text and "." in text else text for text in texts]
    return texts


def _is_binary(kind: pa.DataType) -> bool:
    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )
