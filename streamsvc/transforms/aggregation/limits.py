"""How many groups one split may bring into one segment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streamsvc.core.windows.exact import Ints
from streamsvc.core.windows.hashing import Hashes, combined, text_hash

TOO_MANY_GROUPS = "too_many_groups"
"""Why a record is a reject: its split has brought as many groups into the segment as it may."""


class GroupLimit:
    """Counts the groups of each split, in read order, so that batches and other splits do not matter.

    Groups are known by a hash of 64 bits, which is the same everywhere: where two groups share one, they count once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: Hashes = np.zeros(0, np.uint64)
        self._counts: dict[str, int] = {}
        self._names: dict[str, np.uint64] = {}

    @property
    def nbytes(self) -> int:
        return self._known.nbytes

    def refused(self, splits: Sequence[str], split_of: Ints, group_of: Ints, groups: Hashes, rows: Ints) -> Ints:
        """Which rows would bring a group too many; all others are counted.

        splits:   names, each once
        split_of: number of the split of each pair of row and window; a split's pairs are in read order
        group_of: number of the group of each pair
        groups:   hash of each group
        rows:     the row of each pair; a row is refused with all its pairs
        """
        split, group = np.divmod(_present(split_of * len(groups) + group_of), max(len(groups), 1))
        names = np.array([self._name(split) for split in splits], np.uint64)
        fresh = self._fresh(combined(names[split], groups[group]))
        counts = np.bincount(split[fresh], minlength=len(splits))
        full = [n for n, name in enumerate(splits) if self._counts.get(name, 0) + counts[n] > self._most]
        refused = [self._sort_out(splits[n], names[n], split_of == n, group_of, groups, rows) for n in full]
        taken = fresh & ~np.isin(split, full)
        self._note(combined(names[split[taken]], groups[group[taken]]))
        for n, name in enumerate(splits):
            if n not in full:
                self._counts[name] = self._counts.get(name, 0) + int(counts[n])
        return np.concatenate([np.zeros(0, np.int64), *refused])

    def _sort_out(
        self, split: str, name: np.uint64, own: npt.NDArray[np.bool_], group_of: Ints, groups: Hashes, rows: Ints
    ) -> Ints:
        """One row after another: the slow way, for a split that has too many."""
        pairs = np.flatnonzero(own)
        marks = combined(np.full(len(pairs), name), groups[group_of[pairs]])
        fresh = self._fresh(marks)
        wanted: dict[int, set[int]] = {}
        for row, mark in zip(rows[pairs[fresh]].tolist(), marks[fresh].tolist(), strict=True):
            wanted.setdefault(row, set()).add(mark)
        count, new, refused = self._counts.get(split, 0), set[int](), list[int]()
        for row, mine in wanted.items():
            if count + len(mine - new) > self._most:
                refused.append(row)
            else:
                count += len(mine - new)
                new |= mine
        self._counts[split] = count
        self._note(np.array(sorted(new), np.uint64))
        return np.array(refused, np.int64)

    def _name(self, split: str) -> np.uint64:
        if split not in self._names:
            self._names[split] = text_hash(split)
        return self._names[split]

    def _fresh(self, marks: Hashes) -> npt.NDArray[np.bool_]:
        """Which are not known yet."""
        if not len(self._known):
            return np.ones(len(marks), bool)
        places = np.searchsorted(self._known, marks)
        return np.asarray(self._known[np.minimum(places, len(self._known) - 1)] != marks)

    def _note(self, marks: Hashes) -> None:
        if len(marks):
            ascending = np.sort(marks)
            self._known = np.insert(self._known, np.searchsorted(self._known, ascending), ascending)


def _present(places: Ints) -> Ints:
    """The distinct places, ascending."""
    width = int(places.max(initial=0)) + 1
    if width > 8 * len(places) + 4_096:
        return np.unique(places)
    met = np.zeros(width, bool)
    met[places] = True
    return np.flatnonzero(met)
