"""Closing windows: whoever sees that one is complete decides it, and writes its results or finds them missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from streamsvc.core.segments import FOREVER, NEVER, Closing
from streamsvc.core.windows.assignment import Windows
from streamsvc.core.windows.control import Entry, Result, View
from streamsvc.errors import Retryable
from streamsvc.log.window_log import WindowLog
from streamsvc.records import Partials, Split, Window

WINDOWS_AT_ONCE = 100
"""That one entry closes: their partials are in memory together."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far windows are, as committed; times are microseconds since the epoch.

    watermark:   of the pipeline; ``None``: there is none yet, or there are no splits any more
    watermarks:  of the splits that have one
    open:        windows that hold rows
    oldest_end:  of the windows, open or closed, whose results are not written; ``None``: there are none
    """

    watermark: int | None
    watermarks: Mapping[Split, int]
    open: int
    oldest_end: int | None


class Writer(Protocol):
    """Makes the results of windows, and brings them to where they belong."""

    def holding(self, nbytes: int) -> AbstractContextManager[None]:
        """Is entered while so many bytes of partials are in memory."""
        ...

    async def write(self, partials: Partials, window: Window) -> Result:
        """Waits for a destination that does not answer."""
        ...


class Closer:
    """Any number of them may be at work, in any number of workers; of each, one ``step`` at a time.

    lateness_us: how long a window is kept open after the watermark has passed its end
    landing_s:   how long the results of a window that another has closed may take before they are written here
    """

    def __init__(
        self,
        log: WindowLog,
        windows: Windows,
        lateness_us: int,
        results: Writer,
        *,
        landing_s: float,
        on_result: Callable[[Result], None] = lambda _: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._log = log
        self._windows = windows
        self._lateness_us = lateness_us
        self._results = results
        self._landing_s = landing_s
        self._on_result = on_result
        self._clock = clock
        self._closed_here: set[Window] = set()
        self._owed_since: dict[Window, float] = {}
        self._nudged = asyncio.Event()
        self.is_writing = False
        self.view: View | None = None

    def nudge(self) -> None:
        """Something was committed: look now."""
        self._nudged.set()

    async def run(self, poll_s: float, on_retry: Callable[[Retryable], None]) -> None:
        """For ever. Cancelling leaves what was decided to the others."""
        while True:
            try:
                while await self.step():
                    pass
            except Retryable as error:
                on_retry(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(poll_s):
                    await self._nudged.wait()
            self._nudged.clear()

    async def step(self) -> bool:
        """Look, and do one thing that is to be done. Answers whether there may be more."""
        view = await self.look()
        mine = self._to_write(view)
        if mine is not None:
            return await self._write(view, mine)
        due = self._due(view)[:WINDOWS_AT_ONCE]
        if not due:
            return False
        closed = await self._log.close(view, due, passed=due[-1].end_us + self._lateness_us)
        if closed is None:
            return True
        self._closed_here.update(due)
        return await self._write(closed, closed.control.owed[-1])

    async def look(self) -> View:
        """Read on in the log. Also while results are written, which may take long."""
        view = await self._log.owed(await self._log.view(self.view))
        self.view = view
        return view

    def is_done(self, view: View) -> bool:
        """Nothing can be closed, and all that is closed has its results."""
        return not view.control.owed and not self._due(view)

    def progress(self) -> Progress | None:
        """``None``: nothing was looked at yet."""
        view = self.view
        if view is None:
            return None
        marks = {split: view.watermark(split).us for split in view.counting}
        oldest = min(view.wanted_windows, default=None)
        return Progress(
            view.pipeline_watermark if NEVER < view.pipeline_watermark < FOREVER else None,
            {split: us for split, us in marks.items() if NEVER < us < FOREVER},
            len(view.open_windows),
            None if oldest is None else self._windows.window(oldest).end_us,
        )

    def _due(self, view: View) -> list[Window]:
        return view.due(self._windows, self._lateness_us)

    def _open_until(self, view: View) -> int:
        """The watermark that closes all that is open; ``NEVER``: nothing is."""
        starts = view.open_windows
        return self._windows.window(starts[-1]).end_us + self._lateness_us if starts else NEVER

    async def lift_all(self) -> bool:
        """Let idle splits be lifted so far that all windows close that are open now. ``False``: that was decided."""
        view = await self.look()
        to = self._open_until(view)
        if to <= view.control.lift:
            return False
        await self._log.decide(view, Entry("lift", self._log.worker, lift=to))
        return True

    def _to_write(self, view: View) -> Closing | None:
        """A closing whose results are for us to write: it is ours, or whose it is has had the time."""
        now = self._clock()
        owed = {window for closing in view.control.owed for window in closing.windows}
        self._owed_since = {window: self._owed_since.get(window, now) for window in owed}
        self._closed_here &= owed
        for closing in view.control.owed:
            first = closing.windows[0]
            if first in self._closed_here or now - self._owed_since[first] >= self._landing_s:
                return closing
        return None

    async def _write(self, view: View, closing: Closing) -> bool:
        partials = await self._log.gather(view, closing)
        if partials is None:
            self.view = None
            return True
        self.is_writing = True
        try:
            with self._results.holding(partials.nbytes):
                for window in closing.windows:
                    result = await self._results.write(partials, window)
                    await self._log.save_result(result)
                    self._on_result(result)
        finally:
            self.is_writing = False
        return True
