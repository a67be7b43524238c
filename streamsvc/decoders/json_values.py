"""The values of a JSON column as they were read, to the declared type: times, and numbers that must be in range."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.decoders import timestamps
from streamsvc.decoders.json_exact import TYPE
from streamsvc.decoders.json_types import (
    ColumnType,
    DecimalType,
    ListType,
    MapType,
    Scalar,
    StructType,
    arrow_type,
    type_text,
)
from streamsvc.decoders.sifting import Fault, excerpt, marked

_PER_SECOND = {"timestamp(s)": 1, "timestamp(ms)": 1_000, "timestamp(us)": 1_000_000}


def finish(name: str, column: ColumnType, values: pa.Array) -> tuple[pa.Array, dict[int, Fault]]:
    """values: of ``wire_type``. Answers the column in ``arrow_type``, and by row what has no such value."""
    if values.type == arrow_type(column) and not _has_range(column):
        return values, {}
    final, wrong = _finished(column, values)
    if wrong is None or not pc.any(wrong).as_py():
        return final, {}
    rows = pc.indices_nonzero(wrong)
    found = zip(rows.to_pylist(), values.take(rows).to_pylist(), strict=True)
    return final, {row: Fault(TYPE, f"{name}: {_shown(value)} is not {type_text(column)}") for row, value in found}


def _shown(value: object) -> str:
    return excerpt(value if isinstance(value, str) else str(_without_sign_of_zero(value)))


def _without_sign_of_zero(value: object) -> object:
    match value:
        case float():
            return value + 0.0
        case dict():
            return {key: _without_sign_of_zero(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_sign_of_zero(item) for item in value]
    return value


def _has_range(column: ColumnType) -> bool:
    match column:
        case ListType(item) | MapType(item):
            return _has_range(item)
        case StructType(fields):
            return any(_has_range(item) for _, item in fields)
    return isinstance(column, DecimalType) or column in {Scalar("float32"), Scalar("float64")}


def _finished(column: ColumnType, values: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """The final column, and which rows (bool) have no value in it although they should; ``None``: surely none."""
    match column:
        case ListType(item):
            return _finished_list(item, values)
        case MapType(item):
            return _finished_map(item, values)
        case StructType(fields):
            return _finished_struct(fields, values)
        case DecimalType(precision, scale):
            most = pa.scalar(Decimal((0, (9,) * precision, -scale)), values.type)
            wrong = pc.greater(pc.abs(values), most)
            return pc.if_else(wrong, None, values).cast(pa.decimal128(precision, scale)), wrong
        case Scalar("float64"):
            return _finite(values)
        case Scalar("float32"):
            return _finite(pc.cast(values, pa.float32(), safe=False))
        case Scalar("timestamp"):
            return _parsed(values, timestamps.from_iso)
        case Scalar("date"):
            return _parsed(values, timestamps.dates_from_iso)
        case Scalar(name) if name in _PER_SECOND:
            return _parsed(values, lambda numbers: timestamps.from_epoch(numbers, _PER_SECOND[name]))
    return values, None


def _finite(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Zero has no sign: whether ``-0`` keeps it depends on who reads it."""
    return pc.add(values, pa.scalar(0.0, values.type)), pc.invert(pc.is_finite(values))


def _parsed(values: pa.Array, parse: Callable[[pa.Array], pa.Array]) -> tuple[pa.Array, pa.Array | None]:
    final = parse(values)
    return final, pc.and_(final.is_null(), values.is_valid()) if final.null_count > values.null_count else None


def _finished_struct(fields: tuple[tuple[str, ColumnType], ...], values: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    assert isinstance(values, pa.StructArray)
    children = [_finished(column, values.field(at)) for at, (_, column) in enumerate(fields)]
    final = pa.StructArray.from_arrays(
        [child for child, _ in children], names=[name for name, _ in fields], mask=values.is_null()
    )
    wrong = None
    for _, child_wrong in children:
        if child_wrong is not None:
            found = pc.and_(child_wrong.fill_null(False), values.is_valid())
            wrong = found if wrong is None else pc.or_(wrong, found)
    return final, wrong


def _finished_list(item: ColumnType, values: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    assert isinstance(values, pa.ListArray)
    items, wrong = _finished(item, values.flatten())
    return pa.ListArray.from_arrays(values.offsets, items, mask=values.is_null()), _parents(values, wrong)


def _finished_map(item: ColumnType, values: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    assert isinstance(values, pa.MapArray)
    items, wrong = _finished(item, values.items)
    final = pa.MapArray.from_arrays(values.offsets, values.keys, items, mask=values.is_null())
    return final, _parents(values, wrong)


def _parents(values: pa.ListArray | pa.MapArray, wrong: pa.Array | None) -> pa.Array | None:
    if wrong is None:
        return None
    # Of a map's own, Arrow asks for the parents as if it were a list, and ends the process.
    items = pa.ListArray.from_arrays(values.offsets, wrong.fill_null(False))
    rows = pc.list_parent_indices(items).filter(items.values)
    return marked(len(values), rows.unique().to_pylist())
