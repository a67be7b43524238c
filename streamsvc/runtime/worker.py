"""All pipelines of one process, from start to drained."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from streamsvc.contracts import Source
from streamsvc.errors import StreamsvcError
from streamsvc.runtime.pipeline import Pipeline

log = structlog.get_logger(__name__)


class Worker:
    """``run`` returns when every pipeline has ended by itself or was stopped and drained.

    If one fails, the others are drained and the failure is raised. What is not landed ``drain_s`` after ``stop`` is
    left as a crash would leave it: read again by whoever has the splits next.
    """

    def __init__(self, pipelines: Sequence[tuple[Source, Pipeline]], drain_s: float) -> None:
        self._pipelines = pipelines
        self._drain_s = drain_s
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Land what is open, then end."""
        self._stopped.set()

    async def run(self) -> None:
        running = {asyncio.create_task(self._run_one(source, pipeline)) for source, pipeline in self._pipelines}
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
        for _, pipeline in self._pipelines:
            pipeline.stop()
        _, late = await asyncio.wait(pending, timeout=self._drain_s)
        if late:
            log.warning(
                "not drained in time",
                pipelines_left=len(late),
                drain_s=self._drain_s,
                hint="Nothing is lost: what was not landed is read again. A longer `drain` avoids it.",
            )

    @staticmethod
    async def _run_one(source: Source, pipeline: Pipeline) -> None:
        async with source:
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
