"""All pipelines of one process, from start to drained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import structlog

from streamsvc.errors import StreamsvcError
from streamsvc.runtime.pipeline import Pipeline
from streamsvc.runtime.stopping import unless

log = structlog.get_logger(__name__)


Opening: TypeAlias = Callable[[], Coroutine[Any, Any, tuple[AbstractAsyncContextManager[object], Pipeline]]]
"""Makes a pipeline, and what must be open while it runs. It may wait for stores and brokers, and may be cancelled."""


class Worker:
    """``run`` opens every pipeline, each at its own pace, and returns when all have ended by themselves or were stopped
    and drained. One that is stopped while it opens has nothing to land.

    If one fails, the others are drained and the failure is raised. What is not landed ``drain_s`` after ``stop`` is
    left as a crash would leave it: read again by whoever has the splits next.
    """

    def __init__(self, openings: Sequence[Opening], drain_s: float) -> None:
        self._openings = openings
        self._running: list[Pipeline] = []
        self._drain_s = drain_s
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Land what is open, then end."""
        self._stopped.set()

    async def run(self) -> None:
        running = {asyncio.create_task(self._run_one(opening)) for opening in self._openings}
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            pending = running
            while pending and not stopped.done():
                done, _ = await asyncio.wait({*pending, stopped}, return_when=asyncio.FIRST_COMPLETED)
                pending = pending - done
                if any(task is not stopped and task.exception() for task in done):
                    break
            await self._drain(pending)
        finally:
            stopped.cancel()
            for task in running:
                task.cancel()
            results = await asyncio.gather(*running, return_exceptions=True)
        self._raise_first(results)

    async def _drain(self, pending: set[asyncio.Task[None]]) -> None:
        if not pending:
            return
        self._stopped.set()
        for pipeline in self._running:
            pipeline.stop()
        _, late = await asyncio.wait(pending, timeout=self._drain_s)
        if late:
            log.warning(
                "not drained in time",
                pipelines_left=len(late),
                drain_s=self._drain_s,
                hint="Nothing is lost: what was not landed is read again. A longer `drain` avoids it.",
            )

    async def _run_one(self, opening: Opening) -> None:
        opened = await unless(self._stopped, opening())
        if opened is None or self._stopped.is_set():
            return
        parts, pipeline = opened
        self._running.append(pipeline)
        async with parts:
            await pipeline.run()

    @staticmethod
    def _raise_first(results: Sequence[BaseException | None]) -> None:
        failures = [result for result in results if result and not isinstance(result, asyncio.CancelledError)]
        for failure in failures[1:]:
            log.error("another pipeline failed too", error=str(failure))
        for failure in failures:
            if isinstance(failure, StreamsvcError):
                raise failure
        if failures:
            raise failures[0]
