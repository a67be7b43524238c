"""``streamsvc run``: one process, or several under a supervisor; signals, health, summary."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import orjson
import structlog

from streamsvc.app import WorkerSpec, check_installed, load, new_worker, worker_count
from streamsvc.config import Service
from streamsvc.errors import ConfigError, Fatal, StreamsvcError
from streamsvc.ops import logs
from streamsvc.ops.ending import end_at_once
from streamsvc.ops.http import serving
from streamsvc.runtime.health import SupervisorHealth, WorkerHealth
from streamsvc.runtime.observer import Summary
from streamsvc.runtime.supervisor import FAILED, Supervisor
from streamsvc.runtime.worker import Worker

REJECTED = 3
CRASHED = 70
REPORT_EVERY_S = 1.0

log = structlog.get_logger("streamsvc")


def run(
    file: Path,
    pipeline: str | None,
    *,
    until_end: bool,
    close_windows: bool = False,
    fail_on_rejects: bool,
    summary: Path | None,
) -> int:
    """Answers the exit code. Raises ``ConfigError``; what is ``Fatal`` too, on a terminal, and else logs it."""
    service = load(file)
    check_installed(service, pipeline)
    _check_writable(summary)
    logs.configure()
    count = worker_count(service)
    spec = WorkerSpec(file, pipeline, until_end=until_end, slot=0, slots=count, close_windows=close_windows)
    try:
        code, done = asyncio.run(_run_many(service, spec) if count > 1 else _run_alone(service, spec))
    except Fatal as error:
        if sys.stderr.isatty():
            raise
        log.error("failed", exc_info=error)  # as one line among those before it
        return FAILED
    if summary is not None:
        summary.write_bytes(orjson.dumps(asdict(done), option=orjson.OPT_INDENT_2))
    log.info("done" if code == 0 else "failed", **asdict(done))
    return REJECTED if code == 0 and fail_on_rejects and done.rejects else code


def _check_writable(summary: Path | None) -> None:
    """Before the work, not after it. Raises ``ConfigError``."""
    try:
        if summary is not None:
            summary.open("ab").close()
    except OSError as error:
        raise ConfigError([f"--summary {summary}: cannot be written: {error.strerror}"]) from None


async def _run_alone(service: Service, spec: WorkerSpec) -> tuple[int, Summary]:
    worker, health = new_worker(service, spec)
    _on_signals(worker.stop, lambda: os._exit(128 + signal.SIGTERM))
    async with serving(health, service.http.listen if service.http else None):
        await worker.run()
    return 0, health.summary()


async def _run_many(service: Service, spec: WorkerSpec) -> tuple[int, Summary]:
    supervisor = Supervisor(partial(_child, spec), spec.slots, service.drain, spec.until_end)
    health = SupervisorHealth(service.service, supervisor)
    _on_signals(supervisor.stop, supervisor.kill)
    async with serving(health, service.http.listen if service.http else None):
        code = await supervisor.run()
    return code, health.summary()


def _on_signals(stop: Callable[[], None], stop_at_once: Callable[[], None]) -> None:
    """The first SIGTERM or Ctrl-C drains; a second one does not wait."""
    asked = False

    def asked_to_stop() -> None:
        nonlocal asked
        if asked:
            stop_at_once()
        else:
            asked = True
            log.info("draining", hint="A second signal stops at once; nothing would be lost.")
            stop()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, asked_to_stop)
    loop.add_signal_handler(signal.SIGINT, asked_to_stop)


def _child(spec: WorkerSpec, slot: int, reports: Connection) -> None:
    """A worker process from start to end. A failure that waiting will not mend is ``FAILED``; the supervisor starts
    another process after any other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(fields={"worker": slot})
    code = CRASHED
    try:
        asyncio.run(_work(spec.in_slot(slot), reports))
        code = 0
    except StreamsvcError as error:
        log.error("failed", exc_info=error)
        code = FAILED
    finally:
        if code == CRASHED:
            log.error("crashed", exc_info=sys.exc_info())
        if code:
            end_at_once(code)


async def _work(spec: WorkerSpec, reports: Connection) -> None:
    worker, health = new_worker(load(spec.file), spec)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    # One thread sends, so that the last report begins where the one before it has ended.
    with ThreadPoolExecutor(1, thread_name_prefix="reports") as sender:
        reporting = asyncio.create_task(_report(worker, health, reports, sender))
        try:
            await worker.run()
        finally:
            reporting.cancel()
            with suppress(OSError):
                await asyncio.get_running_loop().run_in_executor(sender, reports.send, health.report())


async def _report(worker: Worker, health: WorkerHealth, reports: Connection, sender: Executor) -> None:
    """Once a second. When nobody listens any more, the supervisor is gone, and the worker must not outlive it."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            await loop.run_in_executor(sender, reports.send, health.report())
            await asyncio.sleep(REPORT_EVERY_S)
    except OSError:
        log.error("the supervisor is gone: draining")
        worker.stop()
