"""``workers: N``: one process a worker, started by spawn, watched, restarted, drained.

A worker that is killed or crashes is started again after a pause that grows, and so is one that somebody else told to
stop; one that ends with ``FAILED`` has met
something that waiting will not mend, so the others are drained and the service ends. Workers do not listen to Ctrl-C:
the terminal sends it to all, and the supervisor tells them once.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pickle import UnpicklingError
from time import monotonic
from typing import Any

import structlog

from streamsvc.ops.health import WorkerStatus
from streamsvc.runtime.observer import Summary

log = structlog.get_logger(__name__)

FAILED = 1
REPORT_TIMEOUT_S = 30.0
CALM_AFTER_S = 60.0
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker sends once a second: problems (empty is good), metrics as text, status as plain data."""

    live: dict[str, str]
    ready: dict[str, str]
    metrics: str
    status: WorkerStatus
    summary: Summary


@dataclass(slots=True)
class Slot:
    """The place of one worker, whichever process is in it."""

    number: int
    process: SpawnProcess | None = None
    reports: Connection | None = None
    last: Report | None = None
    last_at: float = 0.0
    restarts: int = 0
    exit_code: int | None = None


WorkerMain = Callable[[int, Connection], None]
"""Runs in the child: slot number, and where to send ``Report``. Must be picklable. Its exit code says how it ended."""


@dataclass
class Supervisor:
    """``run`` answers the exit code: 0 when every worker has ended well, else that of the first that failed.

    until_end: a worker that ends well has done its work; without it, it must not end before it is told to
    """

    main: WorkerMain
    workers: int
    drain_s: float
    until_end: bool = False
    slots: list[Slot] = field(init=False)

    def __post_init__(self) -> None:
        self.slots = [Slot(number) for number in range(self.workers)]
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Drain every worker, then end."""
        self._stopping.set()

    def kill(self) -> None:
        """End every worker at once."""
        self._stopping.set()
        for slot in self.slots:
            if slot.process is not None:
                slot.process.kill()

    async def run(self) -> int:
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(self._keep_running(slot)) for slot in self.slots]
            group.create_task(self._pass_stop_on(watching))
        return next((slot.exit_code for slot in self.slots if slot.exit_code), 0)

    async def _pass_stop_on(self, watching: list[asyncio.Task[None]]) -> None:
        stopped: asyncio.Future[Any] = asyncio.create_task(self._stopping.wait())
        ended: asyncio.Future[Any] = asyncio.gather(*watching)
        await asyncio.wait([stopped, ended], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if ended.done():
            return
        for slot in self.slots:
            if slot.process is not None and slot.process.is_alive():
                slot.process.terminate()
        _, late = await asyncio.wait([ended], timeout=self.drain_s + 5.0)
        if late:
            self.kill()

    async def _keep_running(self, slot: Slot) -> None:
        pause_s = 0.5
        while not self._stopping.is_set():
            began = monotonic()
            slot.exit_code = await self._run_once(slot)
            if self._stopping.is_set() and slot.exit_code == -signal.SIGTERM:
                # Told to stop before it could listen: nothing was open.
                slot.exit_code = 0
            if slot.exit_code == FAILED:
                self.stop()
            if self._stopping.is_set() or (slot.exit_code == 0 and self.until_end):
                return
            pause_s = 0.5 if monotonic() - began > CALM_AFTER_S else min(pause_s * 2, LONGEST_PAUSE_S)
            slot.restarts += 1
            log.warning("worker ended", slot=slot.number, exit_code=slot.exit_code, restart_in_s=pause_s)
            await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        waiting = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([waiting], timeout=seconds)
        waiting.cancel()

    async def _run_once(self, slot: Slot) -> int:
        """Start a process in the slot and wait for its end. Cancelling kills it."""
        context = multiprocessing.get_context("spawn")
        reports, sending = context.Pipe(duplex=False)
        process = context.Process(target=self.main, args=(slot.number, sending), name=f"worker-{slot.number}")
        process.start()
        sending.close()
        slot.process, slot.reports, slot.last, slot.last_at = process, reports, None, monotonic()
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(process.sentinel, ended.set)
        loop.add_reader(reports.fileno(), self._receive, slot, reports)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(process.sentinel)
            loop.remove_reader(reports.fileno())
            if process.is_alive():
                process.kill()
            process.join()
            self._receive_rest(slot, reports)
            reports.close()
            slot.process = slot.reports = None
        return process.exitcode or 0

    @staticmethod
    def _receive(slot: Slot, reports: Connection) -> None:
        """Called when the pipe is readable; it also is when the worker has gone, perhaps in the middle of a report."""
        try:
            slot.last, slot.last_at = reports.recv(), monotonic()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(reports.fileno())

    @staticmethod
    def _receive_rest(slot: Slot, reports: Connection) -> None:
        """The last words of a worker that has ended. A killed one may have stopped in the middle of them."""
        with suppress(EOFError, OSError, UnpicklingError):
            while reports.poll():
                slot.last, slot.last_at = reports.recv(), monotonic()

    # What the service says of itself, from what its workers say of themselves

    def live(self) -> dict[str, str]:
        """A worker that says nothing for long hangs."""
        silent = {
            f"worker {slot.number}": f"no report for {monotonic() - slot.last_at:.0f} s"
            for slot in self.slots
            if slot.process is not None and monotonic() - slot.last_at > REPORT_TIMEOUT_S
        }
        return silent | self._collect(lambda report: report.live)

    def ready(self) -> dict[str, str]:
        """A worker that has done its work is not missed."""
        gone = {
            f"worker {slot.number}": "has not started yet" if slot.exit_code is None else "has ended, is started again"
            for slot in self.slots
            if (slot.process is None or slot.last is None) and not (slot.exit_code == 0 and self.until_end)
        }
        return self._collect(lambda report: report.ready) | gone

    def _collect(self, problems: Callable[[Report], dict[str, str]]) -> dict[str, str]:
        return {
            f"worker {slot.number}: {name}": problem
            for slot in self.slots
            if slot.last is not None
            for name, problem in problems(slot.last).items()
        }
