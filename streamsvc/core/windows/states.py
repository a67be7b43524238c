"""The states of groups as columns: made of rows, and merged. Both are one thing: group, then add, or keep the least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.core.windows.aggregates import BUCKETED, PICKED, Kind, State
from streamsvc.core.windows.exact import Ints
from streamsvc.records import WINDOW, Partials

ROWS = "rows"
_MEMBER = "_member"
_DENSE = 4
"""So many places a value are less work to add up in place than to sort the values."""

BUCKETED_SCHEMA = pa.schema(
    [("group", pa.int32()), ("aggregate", pa.int16()), ("bucket", pa.int32()), ("weight", pa.int64())]
)


@dataclass(frozen=True)
class Layout:
    """The columns of the partials of one aggregation. ``keys``: types of the group's columns."""

    keys: tuple[pa.DataType, ...]
    states: tuple[State, ...]

    @cached_property
    def key_names(self) -> list[str]:
        return [WINDOW, *(f"group_{number}" for number in range(len(self.keys)))]

    @cached_property
    def flat(self) -> list[State]:
        return [state for state in self.states if state.kind not in BUCKETED]

    @cached_property
    def merged_flat(self) -> list[State]:
        return [state for state in self.flat if state.kind not in PICKED]

    @cached_property
    def picked(self) -> list[State]:
        return [state for state in self.flat if state.kind in PICKED]

    @cached_property
    def bucketed(self) -> list[State]:
        """A state's place here is its ``aggregate`` in the bucketed table."""
        return [state for state in self.states if state.kind in BUCKETED]

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the flat table."""
        keys = zip(self.key_names, [pa.int64(), *self.keys], strict=True)
        states = [field for state in [*self.merged_flat, *self.picked] for field in state.fields]
        return pa.schema([*(pa.field(name, kind) for name, kind in keys), pa.field(ROWS, pa.int64()), *states])

    @cached_property
    def nothing(self) -> Partials:
        return Partials(self.schema.empty_table(), BUCKETED_SCHEMA.empty_table())


@dataclass(frozen=True, slots=True)
class Grouped:
    """``columns``: one row a group, by name. ``codes``: the group of each row."""

    columns: dict[str, pa.Array]
    codes: Ints
    groups: int

    @property
    def first_rows(self) -> Ints:
        """Any row of each group."""
        found = np.zeros(self.groups, np.int64)
        found[self.codes] = np.arange(len(self.codes))
        return found


def grouped(table: pa.Table, keys: Sequence[str], merges: Sequence[tuple[str, str]]) -> Grouped:
    """``merges``: column, and Arrow's name of the aggregate. Key columns must be free of -0.0 and of odd NaN."""
    numbered = table.append_column(_MEMBER, pa.array(np.arange(table.num_rows, dtype=np.int32)))
    found = numbered.group_by(list(keys), use_threads=False).aggregate([(_MEMBER, "list"), *merges])
    members = found[f"{_MEMBER}_list"].combine_chunks()
    assert isinstance(members, pa.ListArray)
    offsets = members.offsets.to_numpy()
    codes = np.empty(table.num_rows, np.int64)
    codes[members.values.to_numpy()] = np.repeat(np.arange(len(members)), np.diff(offsets))
    names = {**{name: name for name in keys}, **{f"{column}_{merge}": column for column, merge in merges}}
    columns = {column: found[name].combine_chunks() for name, column in names.items()}
    return Grouped(columns, codes, len(members))


def summed(places: Ints, weights: Ints, *, greatest: bool = False) -> tuple[Ints, Ints]:
    """The distinct places, ascending, and the sum (or the greatest) of the weights at each; nothing where that is 0."""
    if not len(places):
        return places, weights
    low = int(places.min())
    width = int(places.max()) - low + 1
    if width <= _DENSE * len(places) + 4_096:
        totals = np.zeros(width, np.int64)
        (np.maximum if greatest else np.add).at(totals, places - low, weights)
        found = np.flatnonzero(totals)
        return found + low, totals[found]
    order = np.argsort(places)
    ascending = places[order]
    starts = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))
    totals = (np.maximum if greatest else np.add).reduceat(weights[order], starts)
    return ascending[starts][totals != 0], totals[totals != 0]


@dataclass(frozen=True, slots=True)
class Bucketed:
    """Weights of one bucketed aggregate, ordered by group and bucket."""

    aggregate: int
    groups: Ints
    buckets: Ints
    weights: Ints

    @classmethod
    def of(cls, layout: Layout, aggregate: int, groups: Ints, buckets: Ints, weights: Ints) -> Bucketed:
        """Of values in any order, any number of them in one bucket."""
        if not len(groups):
            return cls(aggregate, groups, buckets, weights)
        low = int(buckets.min())
        width = int(buckets.max()) - low + 1
        greatest = layout.bucketed[aggregate].kind is Kind.REGISTERS
        places, totals = summed(groups * width + (buckets - low), weights, greatest=greatest)
        return cls(aggregate, places // width, places % width + low, totals)

    def table(self) -> pa.Table:
        columns = (self.groups, np.full(len(self.groups), self.aggregate), self.buckets, self.weights)
        return pa.table(
            [pa.array(column).cast(field.type) for column, field in zip(columns, BUCKETED_SCHEMA, strict=True)],
            schema=BUCKETED_SCHEMA,
        )


def bucketed_table(parts: Sequence[Bucketed]) -> pa.Table:
    return pa.concat_tables([BUCKETED_SCHEMA.empty_table(), *(part.table() for part in parts)]).combine_chunks()


Order = Callable[[Ints], Ints]
"""Rows to numbers in the order of their (split, position)."""


def pick(group: Ints, groups: int, rows: Ints, times: Ints, order: Order, *, last: bool) -> npt.NDArray[np.int64]:
    """The first (or last) row of each group in event time, then by split and position; -1 where there is none.

    ``rows``: those that count; ``group`` and ``times``: of all rows."""
    most = np.iinfo(np.int64).max
    keys = ~times[rows] if last else times[rows]
    best = np.full(groups, most)
    np.minimum.at(best, group[rows], keys)
    rows = rows[keys == best[group[rows]]]
    ranks = ~order(rows) if last else order(rows)
    best = np.full(groups, most)
    np.minimum.at(best, group[rows], ranks)
    rows = rows[ranks == best[group[rows]]]
    winners = np.full(groups, -1)
    winners[group[rows]] = rows
    return winners


def picked_columns(state: State, table: pa.Table, winners: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
    """The columns of a picked state for rows of a table that has them; null where the row is -1."""
    rows = pa.array(winners, mask=winners < 0)
    return {field.name: table[field.name].combine_chunks().take(rows) for field in state.fields}


def merge(layout: Layout, parts: Sequence[Partials]) -> Partials:
    """In an order that does not depend on the parts: by window and group. Raises ``ValueError`` for another's part."""
    for part in parts:
        if part.flat.schema != layout.schema or part.bucketed.schema != BUCKETED_SCHEMA:
            raise ValueError("partials of another aggregation: its windows, groups or aggregates are different ones")
    if not parts:
        return layout.nothing
    flat = pa.concat_tables([part.flat for part in parts]).combine_chunks()
    merges = [(ROWS, "sum"), *((state.name, state.merges_by) for state in layout.merged_flat)]
    found = grouped(flat, layout.key_names, merges)
    columns = dict(found.columns)
    for state in layout.picked:
        columns |= _merged_pick(state, flat, found)
    merged = pa.table(columns).select(layout.schema.names).cast(layout.schema)
    order = pc.sort_indices(merged, [(name, "ascending") for name in layout.key_names])
    places = np.empty(found.groups, np.int64)
    places[order.to_numpy()] = np.arange(found.groups)
    return Partials(merged.take(order).combine_chunks(), _merged_buckets(layout, parts, places[found.codes]))


def _merged_pick(state: State, flat: pa.Table, found: Grouped) -> dict[str, pa.Array]:
    times = flat[f"{state.name}_time"].combine_chunks()
    rows = np.flatnonzero(times.is_valid().to_numpy(zero_copy_only=False))

    def order(among: Ints) -> Ints:
        names = [f"{state.name}_split", f"{state.name}_position"]
        ranks = np.empty(len(among), np.int64)
        ascending = pc.sort_indices(flat.select(names).take(among), [(name, "ascending") for name in names])
        ranks[ascending.to_numpy()] = np.arange(len(among))
        return ranks

    ticks = times.fill_null(0).to_numpy()
    winners = pick(found.codes, found.groups, rows, ticks, order, last=state.kind is Kind.LAST)
    return picked_columns(state, flat, winners)


def _merged_buckets(layout: Layout, parts: Sequence[Partials], places: Ints) -> pa.Table:
    """``places``: where the rows of the parts' flat tables, one after another, have gone."""
    starts = np.cumsum([0, *(part.flat.num_rows for part in parts)])
    rows = pa.concat_tables([part.bucketed for part in parts])
    groups = np.concatenate(
        [part.bucketed["group"].to_numpy() + start for part, start in zip(parts, starts, strict=False)]
    )
    kinds, buckets, weights = (rows[name].to_numpy().astype(np.int64) for name in ("aggregate", "bucket", "weight"))
    merged = []
    for number in range(len(layout.bucketed)):
        own = kinds == number
        merged.append(Bucketed.of(layout, number, places[groups[own]], buckets[own], weights[own]))
    return bucketed_table(merged)
