"""Splits that a source has lost as a whole, before they were read to their ends: not passed over in silence."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from streamsvc.contracts import Source
from streamsvc.core.log_keys import Cursor
from streamsvc.errors import PositionLost
from streamsvc.log.segment_log import Finish, SegmentLog
from streamsvc.records import Split
from streamsvc.runtime.replay import is_reject_object


class Expiry:
    """Compares the splits that the log knows with those that the source has.

    A split that came and went while no worker ran is in neither. So those that a new split came from count too.
    """

    def __init__(self, source: Source, log: SegmentLog, finish: Finish) -> None:
        self._source = source
        self._log = log
        self._finish = finish

    async def check(self, assigned: Collection[Split] = ()) -> Mapping[Split, Cursor]:
        """When a pipeline begins, and of splits that are assigned later. Raises ``PositionLost``.

        Answers those that are gone, and of which nothing is missing: they were read to their ends, or somebody has
        decided to go on without them.
        """
        if assigned and not await self._gone({*assigned, *self._before(assigned)}):
            return {}
        known = {split for split in await self._log.known_splits() if not is_reject_object(split)}
        gone = await self._gone({*known, *assigned})
        new = {*assigned, *self._source.parents()} - known
        gone |= await self._gone(self._before(new))
        cursors = await self._log.recover_all(sorted(gone), self._finish)
        lost = await self._source.expired({split: cursor.position for split, cursor in cursors.items()})
        if lost:
            raise _lost({split: cursors[split] for split in sorted(lost)})
        return cursors

    async def _gone(self, splits: Collection[Split]) -> frozenset[Split]:
        return await self._source.expired(dict.fromkeys(splits, self._source.first_position))

    def _before(self, splits: Collection[Split]) -> frozenset[Split]:
        parents = self._source.parents()
        return frozenset[Split]().union(*(parents.get(split, ()) for split in splits))


def _lost(cursors: Mapping[Split, Cursor]) -> PositionLost:
    options = " ".join(f"--split {split}" for split in cursors)
    return PositionLost(
        "splits that were not read to their ends are gone from the source, and the rest of their records with them",
        hint=f"To go on without these records, which the log keeps in mind: streamsvc seek --to end {options}",
        **{split: cursor.position for split, cursor in cursors.items()},
    )
