"""The watermark of a split: the greatest event time seen in it, less the allowed disorder. A function of the split
alone, in read order. Times are int64 microseconds since the epoch; arrays are numpy's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamsvc.core.segments import NEVER
from streamsvc.core.windows.assignment import Ints
from streamsvc.records import Split

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Run:
    """Rows ``[start, end)`` are of this split, in read order."""

    split: Split
    start: int
    end: int


@dataclass(slots=True)
class Watermarks:
    """Running watermarks while rows go by.

    began: of each split, before its first row
    """

    disorder_us: int
    began: Mapping[Split, int]
    reached: dict[Split, int] = field(default_factory=dict)

    def of(self, split: Split) -> int:
        return self.reached.get(split, self.began.get(split, NEVER))

    def meet(self, times: Ints, runs: Iterable[Run]) -> Ints:
        """The watermark that each row found in its split."""
        raises = times - self.disorder_us
        found = np.empty(len(times), np.int64)
        for run in runs:
            if run.start == run.end:
                continue
            here = found[run.start : run.end]
            here[0] = self.of(run.split)
            here[1:] = raises[run.start : run.end - 1]
            np.maximum.accumulate(here, out=here)
            self.reached[run.split] = max(int(here[-1]), int(raises[run.end - 1]))
        return found


def is_late(found: Ints, ends: Ints, lateness_us: int) -> Mask:
    """The watermark that the row found had passed its window: it was at the end plus the lateness, or beyond."""
    return found >= ends + lateness_us


def is_ahead(times: Ints, arrivals: Ints, known: Mask, max_ahead_us: int) -> Mask:
    """Further ahead of its arrival than a clock may be wrong. ``arrivals``: microseconds; ``known``: there is one."""
    return known & (times > arrivals + max_ahead_us)
