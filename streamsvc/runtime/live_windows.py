"""The open windows as they are now: what any worker has committed of them, for whoever looks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow.compute as pc

from streamsvc.core.json_text import json_objects
from streamsvc.core.segments import NEVER
from streamsvc.core.windows.assignment import LAST_TIME, Windows
from streamsvc.core.windows.control import View
from streamsvc.log.window_log import WindowLog
from streamsvc.ops.health import WindowsStatus, WindowStatus
from streamsvc.records import WINDOW, Partials, Window
from streamsvc.runtime.window_recipe import Results

WINDOWS_SHOWN = 5
"""The newest ones."""

ROWS_SHOWN = 50
"""Of a window, in the order of results."""

MAX_GROUPS = 20_000
"""What is shown costs about a second of CPU time for so many; of more, nothing is."""


class LiveWindows:
    """Reads on in the log as far as a view goes; ``status`` is from memory. One ``refresh`` at a time.

    Results of windows that are open are provisional: more rows may come, and ``having`` may change its mind.
    """

    def __init__(self, log: WindowLog, windows: Windows, results: Results) -> None:
        self._log = log
        self._windows = windows
        self._results = results
        self._view: View | None = None
        self._merged: Partials | None = None
        self.status: WindowsStatus | None = None

    async def refresh(self, view: View) -> None:
        """Raises what the store raises."""
        if view is self._view:
            return
        last = self._view
        since = last if self._merged is not None and last is not None and last.base == view.base else None
        fresh = await self._log.open_partials(view, since)
        self._view = view
        if fresh is None:
            self._merged = None
            return
        known = [self._merged.only(view.open_windows)] if since is not None and self._merged is not None else []
        self._merged = await self._results.merge([*known, fresh])
        self.status = await self._look(view, self._merged)

    async def _look(self, view: View, merged: Partials) -> WindowsStatus:
        starts = view.open_windows
        shown = starts[: -WINDOWS_SHOWN - 1 : -1] if merged.groups <= MAX_GROUPS else []
        reached = view.pipeline_watermark
        return {
            "provisional": True,
            "as_of": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "watermark": None if not NEVER < reached <= LAST_TIME else _iso(reached),
            "held_by": view.held_by,
            "held_since": _planned_at(view.watermark(view.held_by).since) if view.held_by else None,
            "open": len(starts),
            "groups": merged.groups,
            "windows": [await self._window(merged, self._windows.window(start)) for start in shown],
        }

    async def _window(self, merged: Partials, window: Window) -> WindowStatus:
        finished = await self._results.finish(merged, window)
        groups = pc.sum(pc.equal(merged.flat[WINDOW], window.start_us)).as_py() or 0
        rows: list[dict[str, Any]] = [
            orjson.loads(text)
            for batch in finished.rows.slice(0, ROWS_SHOWN).to_batches()
            for text in json_objects(batch).to_pylist()
        ]
        return {
            "window_start": _iso(window.start_us),
            "window_end": _iso(window.end_us),
            "groups": groups,
            "rows": rows,
            "rows_left_out": finished.rows.num_rows - len(rows),
        }


def _planned_at(segment: str) -> str | None:
    """Names of segments begin with when they were planned."""
    try:
        moment = datetime.strptime(segment.partition("-")[0], "%Y%m%dT%H%M%SZ")
    except ValueError:
        return None
    return f"{moment.isoformat()}Z"


def _iso(us: int) -> str:
    seconds, rest = divmod(us, 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest, tzinfo=None)
    return f"{moment.isoformat()}Z"
