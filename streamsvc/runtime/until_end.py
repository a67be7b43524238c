"""When a run that is to end by itself has done its work."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from time import monotonic

from streamsvc.contracts import Source
from streamsvc.core.log_keys import Cursor
from streamsvc.errors import PositionLost, Retryable
from streamsvc.log.segment_log import SegmentLog
from streamsvc.records import Position, Split
from streamsvc.runtime.splits import Splits


class UntilEnd:
    """ends:   where every split ended when the run began
    tick_s: how often the log is asked about splits of other workers
    look_s: how often the source is asked whether it still has a split that nobody brings to its end
    """

    def __init__(
        self, source: Source, log: SegmentLog, ends: Mapping[Split, Position], *, tick_s: float, look_s: float
    ) -> None:
        self._source = source
        self._log = log
        self._ends = ends
        self._tick_s = tick_s
        self._look_s = look_s
        self._asked_at = 0.0
        self._looked_at = monotonic()
        self._gone: tuple[Split, Cursor] | None = None

    def is_taken_in(self, splits: Splits) -> bool:
        """What is ours was taken in up to the end."""
        return splits.have_reached(self._ends)

    async def is_committed(self, splits: Splits) -> bool:
        """Everything is committed, also what other workers have, as far as the log said within this tick.

        Raises ``PositionLost``: a split is gone, so that nobody will ever bring it to its end."""
        if not splits.have_committed(self._ends) or monotonic() - self._asked_at < self._tick_s:
            return False
        self._asked_at = monotonic()
        others = sorted(self._ends.keys() - splits.assigned)
        standings = await self._log.standings(others) if others else {}
        for split in others:
            if standings[split].cursor.position < self._ends[split]:
                await self._check_live(split, standings[split].cursor)
                return False
        return True

    async def _check_live(self, split: Split, cursor: Cursor) -> None:
        """A split that is gone may still come to its end by a worker that has read it: for that it has one look."""
        if monotonic() - self._looked_at < self._look_s:
            return
        self._looked_at = monotonic()
        with suppress(Retryable):
            is_gone = split not in await self._source.splits()
            if is_gone and self._gone == (split, cursor):
                raise PositionLost(
                    "a split is gone before it was read to where it ended when the run began: its topic or stream was"
                    " deleted, or deleted and created anew",
                    hint="What lay between is lost. Run again: what is there now is read as configured.",
                    split=split,
                    landed=cursor.position,
                    end=self._ends[split],
                )
            self._gone = (split, cursor) if is_gone else None
