"""Rows of one segment to its partials, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from streamsvc.core.windows.exact import Ints
from streamsvc.core.windows.hashing import row_hashes
from streamsvc.core.windows.lifting import Rows, fold, key_column
from streamsvc.core.windows.states import Layout, merge
from streamsvc.records import REJECTED, ROW, Batch, Partials, Windowed
from streamsvc.transforms.aggregation.limits import TOO_MANY_GROUPS, GroupLimit
from streamsvc.transforms.aggregation.row_expressions import RowExpressions

_WAITING_GROUPS = 20_000
"""So many groups of single batches are merged at once, or as many as have been merged before."""


_PAIRS_AT_ONCE = 250_000


@dataclass(frozen=True, slots=True)
class Folding:
    """How rows become partials. ``keys``, ``sources`` and ``masks``: numbers of expressions; masks by source."""

    expressions: RowExpressions
    layout: Layout
    keys: Sequence[int]
    sources: Sequence[int]
    masks: Mapping[int, int]
    max_groups: int


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs of row and window. columns: those of the expressions and ``_row``; one value a pair in all of them."""

    columns: list[pa.Array]
    starts: pa.Array
    times: Ints

    @property
    def records(self) -> Ints:
        return self.columns[-1].to_numpy()

    def without(self, records: Ints) -> _Pairs:
        kept = ~np.isin(self.records, records)
        mask = pa.array(kept)
        return _Pairs([column.filter(mask) for column in self.columns], self.starts.filter(mask), self.times[kept])


class OpenPartials:
    """See ``contracts.OpenPartials``."""

    def __init__(self, folding: Folding) -> None:
        self._folding = folding
        self._limit = GroupLimit(folding.max_groups)
        self._merged = folding.layout.nothing
        self._waiting: list[Partials] = []

    @property
    def memory_bytes(self) -> int:
        return self._merged.nbytes + sum(part.nbytes for part in self._waiting) + self._limit.nbytes

    def add(self, rows: Windowed) -> pa.RecordBatch:
        return pa.concat_batches([self._add(part) for part in _parts(rows)])

    def _add(self, rows: Windowed) -> pa.RecordBatch:
        rows = _in_time(rows)
        sifted = self._folding.expressions.apply(rows.rows)
        pairs = _paired(rows, sifted.rows)
        if not len(pairs.starts):
            return sifted.rejects
        found, groups = self._fold(pairs, rows.batch)
        refused = self._refused(pairs, found, groups, rows.batch)
        if not len(refused):
            self._keep(found)
            return sifted.rejects
        found, _ = self._fold(pairs.without(refused), rows.batch)
        self._keep(found)
        return pa.concat_batches([sifted.rejects, _too_many(refused, self._folding.max_groups)])

    def partials(self) -> Partials:
        self._merged = merge(self._folding.layout, [self._merged, *self._waiting])
        self._waiting = []
        return self._merged

    def _keep(self, part: Partials) -> None:
        self._waiting.append(part)
        if sum(waiting.groups for waiting in self._waiting) > max(_WAITING_GROUPS, self._merged.groups):
            self.partials()

    def _fold(self, pairs: _Pairs, batch: Batch) -> tuple[Partials, Ints]:
        folding = self._folding
        records = pairs.records

        def coordinates(rows: Ints) -> tuple[pa.Array, pa.Array]:
            some = pa.array(records[rows])
            return batch.split_names().take(some).cast(pa.string()), batch.position_text(batch.offsets.take(some))

        return fold(
            folding.layout,
            Rows(
                starts=pairs.starts,
                keys=[key_column(pairs.columns[number]) for number in folding.keys],
                sources=[pairs.columns[number] for number in folding.sources],
                masks={source: pairs.columns[number] for source, number in folding.masks.items()},
                times=pairs.times,
                order=lambda rows: _ranks(batch)[records[rows]],
                coordinates=coordinates,
            ),
        )

    def _refused(self, pairs: _Pairs, found: Partials, groups: Ints, batch: Batch) -> Ints:
        """The ``_row`` of each row that would bring a group too many."""
        names, split_of_record = _splits(batch)
        keys = [found.flat[name].combine_chunks() for name in self._folding.layout.key_names]
        records = pairs.records
        return self._limit.refused(names, split_of_record[records], groups, row_hashes(keys), records)


def _parts(rows: Windowed) -> Iterator[Windowed]:
    """The rows, one part after another, each with all its pairs: of long windows with short hops there are many."""
    if rows.members is None or len(rows.starts) <= _PAIRS_AT_ONCE:
        yield rows
        return
    members = rows.members.to_numpy()
    bounds = np.append(np.flatnonzero(np.diff(members, prepend=-1)), len(members))
    wanted = np.arange(0, len(members) + _PAIRS_AT_ONCE, _PAIRS_AT_ONCE)
    cuts = np.unique(bounds[np.minimum(np.searchsorted(bounds, wanted), len(bounds) - 1)]).tolist()
    for begin, end in pairwise(cuts):
        yield replace(rows, starts=rows.starts[begin:end], members=rows.members[begin:end])


def _in_time(rows: Windowed) -> Windowed:
    """Without the rows that are in no pair."""
    if rows.members is None:
        return rows
    members = rows.members.to_numpy()
    kept, places = np.unique(members, return_inverse=True)
    if len(kept) == rows.rows.num_rows:
        return rows
    indices = pa.array(kept)
    return replace(rows, rows=rows.rows.take(indices), times=rows.times.take(indices), members=pa.array(places))


def _paired(rows: Windowed, evaluated: pa.RecordBatch) -> _Pairs:
    """``evaluated``: of the rows that passed."""
    members = np.arange(rows.rows.num_rows) if rows.members is None else rows.members.to_numpy()
    columns, starts, times = evaluated.columns, rows.starts, rows.times.to_numpy()
    if evaluated.num_rows < rows.rows.num_rows:
        passed = np.isin(rows.rows[ROW].to_numpy(), evaluated[ROW].to_numpy())
        starts = starts.filter(pa.array(passed[members]))
        members, times = (passed.cumsum() - 1)[members[passed[members]]], times[passed]
    if rows.members is not None:
        columns, times = [column.take(pa.array(members)) for column in columns], times[members]
    return _Pairs(columns, starts, times)


def _splits(batch: Batch) -> tuple[list[str], Ints]:
    """The splits of a batch, in the order of their names, and the number of each record's."""
    names = sorted({span.split for span in batch.spans})
    numbers = {name: number for number, name in enumerate(names)}
    codes = np.array([numbers[span.split] for span in batch.spans], np.int64)
    return names, np.repeat(codes, [span.rows for span in batch.spans])


def _ranks(batch: Batch) -> Ints:
    """Numbers of the records in the order of (split, position)."""
    _, split_of_record = _splits(batch)
    return split_of_record * len(batch) + np.arange(len(batch))


def _too_many(records: Ints, most: int) -> pa.RecordBatch:
    error = f"its group would be one too many: {most} of this split are in this segment, and that is `max_groups`"
    columns = [
        pa.array(np.unique(records), pa.int32()),
        *(pa.repeat(pa.scalar(text, pa.string()), len(np.unique(records))) for text in (TOO_MANY_GROUPS, error)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=REJECTED)
