"""Which splits a worker has, where each stands in the log, and how far it has been taken in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count

from streamsvc.core.log_keys import Cursor
from streamsvc.core.segments import Outcome, Range
from streamsvc.records import Batch, Position, Ranges, Span, Split


class Splits:
    """Bookkeeping; no I/O.

    ``cursors`` say where the next claim of a split goes: they move when a segment is committed. ``reached`` says how
    far a split was taken into the open segment; a split that is not in it is not being read.
    """

    def __init__(self) -> None:
        self.assigned: set[Split] = set()
        self.cursors: dict[Split, Cursor] = {}
        self.reached: dict[Split, Position] = {}
        self._tickets: dict[Split, int] = {}
        self._next_ticket = count(1)

    @property
    def landed(self) -> dict[Split, Position]:
        """Up to where each assigned split is committed, as far as the log has told."""
        return {split: self.cursors[split].position for split in self.assigned if split in self.cursors}

    def seek_place(self, splits: Iterable[Split]) -> int:
        """These are not read until the log has told their place. Answers a ticket: an older answer is stale."""
        ticket = next(self._next_ticket)
        for split in splits:
            self.reached.pop(split, None)
            self._tickets[split] = ticket
        return ticket

    def start(self, cursors: Mapping[Split, Cursor], ticket: int) -> dict[Split, Position]:
        """The log has told these places. Answers where to read on, without what is stale or has left meanwhile."""
        fresh = {
            split: cursor
            for split, cursor in cursors.items()
            if split in self.assigned and self._tickets.get(split) == ticket
        }
        self.cursors.update(fresh)
        positions = {split: cursor.position for split, cursor in fresh.items()}
        self.reached.update(positions)
        return positions

    def drop(self, splits: Iterable[Split]) -> None:
        """These are no longer ours. Their cursors stay: the open segment may still hold rows of them."""
        for split in splits:
            self.assigned.discard(split)
            self.reached.pop(split, None)
            self._tickets.pop(split, None)

    def stop_taking(self) -> None:
        """Nothing that is still on its way will be taken in."""
        self.reached.clear()

    def continuing(self, batch: Batch) -> Batch:
        """The part of the batch that goes on exactly where we are. The rest was read before a move."""
        due = dict(self.reached)

        def continues(span: Span) -> bool:
            if due.get(span.split) != span.first:
                return False
            due[span.split] = span.to
            return True

        return batch.only(continues)

    def took(self, ranges: Ranges) -> None:
        """The open segment holds these ranges now."""
        for split, (_, to) in ranges.items():
            if split in self.reached:
                self.reached[split] = to

    def plan(self, ranges: Ranges, first_records: Mapping[Split, Position]) -> dict[Split, Range]:
        return {split: Range(self.cursors[split], to, first_records.get(split)) for split, (_, to) in ranges.items()}

    def committed(self, outcome: Outcome) -> None:
        self.cursors.update(outcome.next)

    def have_reached(self, ends: Mapping[Split, Position]) -> bool:
        """Every assigned split was taken in up to its end."""
        return all(self.reached.get(split, "") >= ends[split] for split in self.assigned if split in ends)

    def have_committed(self, ends: Mapping[Split, Position]) -> bool:
        """Every assigned split is committed up to its end."""
        places = self.cursors
        return all(
            split in places and places[split].position >= ends[split] for split in self.assigned if split in ends
        )
