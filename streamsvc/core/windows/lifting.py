"""Rows to states: what a value is as the state of a group that has no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from streamsvc.core.windows import exact, sketches
from streamsvc.core.windows.aggregates import Kind, State, is_wide
from streamsvc.core.windows.exact import Floats, Ints
from streamsvc.core.windows.hashing import decimal_words, hashes, plain_zero
from streamsvc.core.windows.states import ROWS, Bucketed, Grouped, Layout, Order, bucketed_table, grouped, pick
from streamsvc.records import Partials

_SAFE = 1 << 62
_WHOLE = pa.decimal128(38, 0)


def key_column(column: pa.Array) -> pa.Array:
    """A group's column, in which equal values have equal bits."""
    if not types.is_floating(column.type):
        return column
    values = plain_zero(column.cast(pa.float64()).fill_null(0.0).to_numpy())
    return pa.array(values, mask=_nulls(column)).cast(column.type)


def flat_column(state: State, column: pa.Array) -> pa.Array:
    """What is merged by ``state.merges_by``, a value a row. May be narrower than the state's column."""
    match state.kind:
        case Kind.COUNT:
            return column.is_valid().cast(pa.int8())
        case Kind.TOTAL | Kind.TOTAL_HIGH:
            return _summand(state, column)
        case _ if not types.is_floating(column.type):
            return column
    values = column.cast(pa.float64()).fill_null(0.0).to_numpy()
    nulls = _nulls(column)
    if state.kind in {Kind.LEAST_FINITE, Kind.GREATEST_FINITE}:
        nulls = nulls | ~np.isfinite(values)
    return pa.array(sketches.ordered(values), mask=nulls)


def _summand(state: State, column: pa.Array) -> pa.Array:
    """Of a type in which the rows of a batch cannot overflow."""
    kind = column.type
    if is_wide(kind):
        high = state.kind is Kind.TOTAL_HIGH
        half = decimal_words(column)[:, int(high)]
        return pa.array(half if high else half.view(np.uint64), mask=_nulls(column)).cast(_WHOLE)
    if types.is_decimal(kind):
        return column.cast(pa.decimal128(38, kind.scale))
    if types.is_boolean(kind):
        return column.cast(pa.int8())
    if kind.bit_width == 64 and len(column):
        bounds = pc.min_max(column)
        most = max(abs(bounds["min"].as_py() or 0), abs(bounds["max"].as_py() or 0))
        return column.cast(_WHOLE) if most * len(column) >= _SAFE else column
    return column


def lifted(layout: Layout, columns: Sequence[pa.Array], groups: Ints) -> list[Bucketed]:
    """The bucketed states of rows. ``columns``: by number of the source; ``groups``: of each row."""
    return [_bucketed(layout, number, columns[state.source], groups) for number, state in enumerate(layout.bucketed)]


def _bucketed(layout: Layout, number: int, column: pa.Array, groups: Ints) -> Bucketed:
    if column.null_count:
        groups = groups[column.is_valid().to_numpy(zero_copy_only=False)]
        column = column.drop_null()
    kind = layout.bucketed[number].kind
    if kind is Kind.REGISTERS:
        buckets, weights = sketches.registers(hashes(column))
        return Bucketed.of(layout, number, groups, buckets, weights)
    values = column.cast(pa.float64(), safe=False).to_numpy()
    finite = np.isfinite(values)
    inside, members = (values, groups) if finite.all() else (values[finite], groups[finite])
    if kind is Kind.QUANTILES:
        return Bucketed.of(layout, number, members, sketches.quantile_buckets(inside), np.ones(len(inside), np.int64))
    pairs = _digits(kind, inside)
    places = [place for place, _ in pairs]
    weights_of = [digit for _, digit in pairs]
    owners = [members] * len(pairs)
    if kind is Kind.DIGITS and len(inside) != len(values):
        places.append(_special(values[~finite]))
        weights_of.append(np.ones(len(places[-1]), np.int64))
        owners.append(groups[~finite])
    return Bucketed.of(layout, number, np.concatenate(owners), np.concatenate(places), np.concatenate(weights_of))


def _digits(kind: Kind, values: Floats) -> list[tuple[Ints, Ints]]:
    sign, magnitude, power = exact.taken_apart(values)
    return exact.square_digits(magnitude, power) if kind is Kind.SQUARES else exact.digits(sign, magnitude, power)


def _special(values: Floats) -> Ints:
    infinite = np.where(values > 0, exact.POSITIVE_INFINITY, exact.NEGATIVE_INFINITY)
    return np.where(np.isnan(values), exact.NAN, infinite)


def _nulls(column: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False))


@dataclass(frozen=True, slots=True)
class Rows:
    """Pairs of row and window, ready to be folded.

    starts:      int64, the window of each
    keys:        the group's columns, as ``key_column`` makes them
    sources:     the columns of the layout's sources
    masks:       by number of a source, which rows count for what is picked of it; all, if it is not there
    times:       event time of each
    order:       see ``states.Order``
    coordinates: split and position of some rows, as text
    """

    starts: pa.Array
    keys: Sequence[pa.Array]
    sources: Sequence[pa.Array]
    masks: Mapping[int, pa.Array]
    times: Ints
    order: Order
    coordinates: Callable[[Ints], tuple[pa.Array, pa.Array]]


def fold(layout: Layout, rows: Rows) -> tuple[Partials, Ints]:
    """The partials of these rows, in no particular order, and in which of their groups each row is."""
    ones = pa.array(np.ones(len(rows.starts), np.int8))
    columns = dict(zip(layout.key_names, [rows.starts, *rows.keys], strict=True))
    columns[ROWS] = ones
    columns |= {state.name: flat_column(state, rows.sources[state.source]) for state in layout.merged_flat}
    merges = [(ROWS, "sum"), *((state.name, state.merges_by) for state in layout.merged_flat)]
    found = grouped(pa.table(columns), layout.key_names, merges)
    states = dict(found.columns)
    for state in layout.picked:
        states |= _picked(state, rows, found)
    flat = pa.table([states[field.name].cast(field.type) for field in layout.schema], schema=layout.schema)
    return Partials(flat, bucketed_table(lifted(layout, rows.sources, found.codes))), found.codes


def _picked(state: State, rows: Rows, found: Grouped) -> dict[str, pa.Array]:
    mask = rows.masks.get(state.source)
    counting = np.arange(len(rows.times))
    if mask is not None:
        counting = np.flatnonzero(mask.fill_null(False).to_numpy(zero_copy_only=False))
    last = state.kind is Kind.LAST
    winners = pick(found.codes, found.groups, counting, rows.times, rows.order, last=last)
    chosen = np.flatnonzero(winners >= 0)
    some = winners[chosen]
    splits, positions = rows.coordinates(some)
    columns = [rows.sources[state.source].take(pa.array(some)), pa.array(rows.times[some]), splits, positions]
    places = np.zeros(found.groups, np.int64)
    places[chosen] = np.arange(len(chosen))
    spread = pa.array(places, mask=winners < 0)
    return {field.name: column.take(spread) for field, column in zip(state.fields, columns, strict=True)}
