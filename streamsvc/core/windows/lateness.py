"""Which rows are in time for their windows. A function of each split's rows in read order, whatever the batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamsvc.core.windows.assignment import Ints, Windows
from streamsvc.core.windows.watermarks import Mask, Run, Watermarks, is_late


@dataclass(frozen=True, slots=True)
class Sorted:
    """Pairs of a row and one of its windows, in time or late. ``members``: the row of each; ``None``: i of i."""

    members: Ints | None
    starts: Ints
    ends: Ints
    late: Mask

    def rows(self, wanted: Mask) -> Ints | None:
        """The rows of the wanted pairs; ``None``: all rows, each once."""
        if self.members is None:
            return None if wanted.all() else wanted.nonzero()[0]
        return self.members[wanted]


def sort_out(windows: Windows, lateness_us: int, watermarks: Watermarks, times: Ints, runs: Sequence[Run]) -> Sorted:
    """Late is a row for a window that its split's watermark had passed when it came. ``watermarks`` go on."""
    found = watermarks.meet(times, runs)
    members, starts, ends = windows.assign(times)
    late = is_late(found if members is None else found[members], ends, lateness_us)
    return Sorted(members, starts, ends, late)
