"""A schema from a sample of JSON records. The same sample gives the same schema on every machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
import pyarrow as pa

from streamsvc.decoders.json_exact import EXTRA
from streamsvc.decoders.json_types import JSON_TEXT, ColumnType, ListType, Scalar, StructType, type_text
from streamsvc.decoders.timestamps import ISO_DATE, ISO_TIMESTAMP, dates_from_iso, from_iso
from streamsvc.records import METADATA, ROW

_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_DEEPEST = 8
_MOST_FIELDS = 64
_EXACT_IN_FLOAT64 = 2**53
_RESERVED = frozenset({ROW, EXTRA, *METADATA})


def infer_schema(sample: pa.Array) -> dict[str, str]:
    """Column -> type, as a configuration declares them, in the order in which fields are first met.

    sample: binary, nulls allowed; records that are no JSON objects are passed over

    Integers are ``int64``, with decimals among them ``float64``; text is ``timestamp`` or ``date`` if all of it is,
    else ``string``. What is of several kinds, an integer beyond 64 bits, null or empty throughout, nested too deep or
    of too many fields (more likely a map) is ``json``, which takes anything. Fields with names that are used inside, or
    that differ only in case from one before, are left to ``on_new_field``. Raises ValueError: no record is an object.
    """
    objects = [record for record in map(_record, sample.to_pylist()) if record is not None]
    if not objects:
        raise ValueError(f"none of {len(sample)} sampled records is a JSON object, so there is no schema to infer")
    columns: dict[str, str] = {}
    folded = set(_RESERVED)
    for name, values in _by_name(objects).items():
        if name and name.casefold() not in folded:
            folded.add(name.casefold())
            columns[name] = type_text(_type_of(values, 1))
    if not columns:
        raise ValueError("the sampled records have no fields, so there is no schema to infer")
    return columns


def _record(value: bytes | None) -> dict[str, Any] | None:
    try:
        record = orjson.loads(value) if value is not None else None
        if value is not None and _LONG_NUMBER.search(value):
            record = json.loads(value, parse_int=_integer)
    except (orjson.JSONDecodeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _integer(text: str) -> int | _TooLarge:
    """orjson answers a float for what is beyond 64 bits, and its last digits are lost."""
    number = int(text)
    return number if -(2**63) <= number < 2**64 else _TooLarge()


class _TooLarge:
    """An integer that no column type holds."""


def _by_name(objects: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    fields: dict[str, list[Any]] = {}
    for members in objects:
        for name, value in members.items():
            fields.setdefault(name, []).append(value)
    return fields


def _type_of(values: Iterable[Any], depth: int) -> ColumnType:
    """One type for all values."""
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if kinds == {int, float} and all(abs(value) <= _EXACT_IN_FLOAT64 for value in present if type(value) is int):
        return Scalar("float64")
    if len(kinds) != 1 or depth > _DEEPEST or _TooLarge in kinds:
        return JSON_TEXT
    kind = kinds.pop()
    if kind is int:
        return Scalar("int64") if all(-(2**63) <= value < 2**63 for value in present) else JSON_TEXT
    if kind is str:
        return _of_text(present)
    if kind is list:
        return ListType(_type_of((item for items in present for item in items), depth + 1))
    if kind is dict:
        fields = _by_name(present)
        if not 0 < len(fields) <= _MOST_FIELDS:
            return JSON_TEXT
        return StructType(tuple((name, _type_of(items, depth + 1)) for name, items in fields.items()))
    return Scalar("bool" if kind is bool else "float64")


def _of_text(present: list[str]) -> ColumnType:
    for name, pattern, parse in (("timestamp", ISO_TIMESTAMP, from_iso), ("date", ISO_DATE, dates_from_iso)):
        if all(re.fullmatch(pattern, text) for text in present) and not parse(pa.array(present)).null_count:
            return Scalar(name)
    return Scalar("string")
