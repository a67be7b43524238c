"""The open windows as they are now: what any worker has committed of them, for whoever looks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.core.json_text import json_objects, json_texts
from streamsvc.core.segments import NEVER
from streamsvc.core.windows.assignment import LAST_TIME, Windows
from streamsvc.core.windows.control import View
from streamsvc.log.window_log import WindowLog
from streamsvc.ops.health import WatermarkStatus, WindowsStatus, WindowStatus
from streamsvc.records import WINDOW, Partials, Window
from streamsvc.runtime.window_recipe import Results

WINDOWS_SHOWN = 5
"""The newest ones."""

ROWS_SHOWN = 50
"""Of a window, in the order of results."""

MAX_GROUPS = 20_000
"""What is shown costs about a second of CPU time for so many; of more, nothing is."""


KEPT_BYTES = 32 << 20
"""Of merged partials, so that what is new is all that has to be read. Of more, nothing is shown until it is folded."""


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
        self._too_large_since = -1
        self.status: WindowsStatus | None = None

    async def refresh(self, view: View) -> None:
        """Raises what the store raises."""
        last = self._view
        if last is not None and self.status is not None and (_has_the_same(view, last) or self._is_too_large(view)):
            self._view = view
            if _watermark(view, self.status["as_of"]) != _watermark(last, self.status["as_of"]):
                self.status = {**self.status, **_watermark(view, _now())}
            return
        since = last if self._merged is not None and last is not None and last.base == view.base else None
        fresh = await self._log.open_partials(view, since)
        self._view = view if fresh is not None else None
        if fresh is None:
            self._merged = None
            return
        known = [self._merged.only(view.open_windows)] if since is not None and self._merged is not None else []
        merged = await self._results.merge([*known, fresh])
        self._merged = merged if merged.nbytes <= KEPT_BYTES else None
        self._too_large_since = view.base.number if self._merged is None else -1
        self.status = await self._look(view, merged)

    def _is_too_large(self, view: View) -> bool:
        """To read all of it again and again; once it is folded anew it may be less."""
        return view.base.number == self._too_large_since

    async def _look(self, view: View, merged: Partials) -> WindowsStatus:
        few = merged.groups <= MAX_GROUPS and self._merged is not None
        shown = view.open_windows[: -WINDOWS_SHOWN - 1 : -1] if few else []
        return {
            **_watermark(view, _now()),
            "provisional": True,
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


def _has_the_same(view: View, last: View) -> bool:
    """Rows of open windows."""
    return view.base == last.base and view.met.keys() == last.met.keys() and view.open_windows == last.open_windows


def _watermark(view: View, as_of: str) -> WatermarkStatus:
    reached, held_by = view.pipeline_watermark, view.held_by
    return {
        "as_of": as_of,
        "watermark": None if not NEVER < reached <= LAST_TIME else _iso(reached),
        "held_by": held_by,
        "held_since": None if held_by is None else _planned_at(view.watermark(held_by).since),
        "open": len(view.open_windows),
        "unfinished": sum(len(closing.windows) for closing in view.control.owed),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _planned_at(segment: str) -> str | None:
    """Names of segments begin with when they were planned."""
    try:
        moment = datetime.strptime(segment.partition("-")[0], "%Y%m%dT%H%M%SZ")
    except ValueError:
        return None
    return f"{moment.isoformat()}Z"


def _iso(us: int) -> str:
    """Windows may begin before the year 1 and end behind the year 9999, for which Python has no dates."""
    text: str = orjson.loads(json_texts(pa.array([us], pa.timestamp("us", "UTC")))[0].as_py())
    return text
