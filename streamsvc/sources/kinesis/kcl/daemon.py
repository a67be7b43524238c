"""One MultiLangDaemon, kept running: started, its log passed on, started anew after a pause when it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

import structlog

log = structlog.get_logger(__name__)

CALM_AFTER_S = 60.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
END_S = 5.0
LINE_CHARS = 2000

_LEVELS = {"ERROR": logging.ERROR, "WARN": logging.WARNING, "INFO": logging.DEBUG, "DEBUG": logging.DEBUG}


class Daemon:
    """``run`` until it is cancelled, or ``stop``.

    command:     what to start in ``folder``; it must die with this process
    environment: of the n-th life, from 1: what a life's children bring along tells them from those of the last one
    ended:       told when a life is over
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Callable[[int], Mapping[str, str]],
        ended: Callable[[], None] = lambda: None,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._command = command
        self._folder = folder
        self._environment = environment
        self._ended = ended
        self._first_pause_s = first_pause_s
        self._process: Process | None = None
        self._stopping = False
        self._complaint = ""
        self.generation = 0
        self.problem: str | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Ends after ``stop``. Cancelling kills the daemon."""
        pause_s = self._first_pause_s
        while not self._stopping:
            began = monotonic()
            try:
                code = await self._live()
            except OSError as error:
                code, self._complaint = -1, f"it cannot be started: {error.strerror}"
            if self._stopping:
                return
            pause_s = self._first_pause_s if monotonic() - began > CALM_AFTER_S else min(2 * pause_s, LONGEST_PAUSE_S)
            self.problem = f"the KCL's daemon ended with code {code}, and starts again: {self._complaint or '?'}"
            log.error("the KCL's daemon ended", exit_code=code, restart_in_s=pause_s, last_words=self._complaint)
            await asyncio.sleep(pause_s)

    def stop(self) -> None:
        """Ask it to hand over its shards, and to end."""
        self._stopping = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now. Unless it was stopped, it starts anew."""
        self._signal(signal.SIGKILL)

    def works(self) -> None:
        """It has a shard: what it complained of before is over."""
        self.problem = None

    async def _live(self) -> int:
        self.generation += 1
        self._complaint = ""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._folder,
            env=self._environment(self.generation),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            # Ctrl-C in a terminal is for us: we end it in order.
            start_new_session=True,
        )
        self._process = process
        if self._stopping:
            self.stop()
        try:
            async for line in _lines(process):
                self._tell(line)
            return await process.wait()
        finally:
            self.kill()
            # To the end of its output, which its children may hold open for a moment longer.
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await process.communicate()
            self._process = None
            self._ended()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def _tell(self, line: str) -> None:
        """A line of its log, ``LEVEL|logger|message``; of the JVM itself, anything."""
        head, _, rest = line.partition("|")
        level = _LEVELS.get(head)
        if level is None:
            logger, message, level = "jvm", line, logging.WARNING
        else:
            logger, _, message = rest.partition("|")
        if level >= logging.WARNING:
            self._complaint = message
        if level >= logging.ERROR:
            self.problem = f"the KCL says: {message}"
        log.log(level, message, java=logger)


async def _lines(process: Process) -> AsyncIterator[str]:
    """What the process writes, to its end; of long lines the beginning."""
    assert process.stdout is not None
    rest = b""
    while part := await process.stdout.read(64 * 1024):
        *lines, rest = (rest + part).split(b"\n")
        rest = rest[:LINE_CHARS]
        for line in lines:
            if text := line[:LINE_CHARS].decode(errors="replace").strip():
                yield text
    if text := rest.decode(errors="replace").strip():
        yield text
