"""Child processes of a run: each with its output in a file, ended by process id, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parent.parent
STREAMSVC = str(Path(sys.executable).with_name("streamsvc"))

_LAST_LINES = 40


class ProcessFailed(Exception):
    """A child ended otherwise than it should have, or not in time. The message holds the end of its output."""


class Child:
    """A running command; ``output`` is the file with all that it printed, appended to what was there."""

    def __init__(self, command: Sequence[str], output: Path, environment: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.output = output
        with output.open("ab") as sink:
            self._printed_before = sink.tell()
            self._process = self._start(sink, environment)

    def _start(self, sink: IO[bytes], environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=REPOSITORY,
            # An interrupt typed at the terminal is for the owner, who then ends its children.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Nothing happens if it has ended."""
        self._process.send_signal(number)

    def first_line(self, within_s: float = 60.0) -> str:
        """The first line that it prints: an address, usually. Raises ``ProcessFailed``."""
        give_up_at = time.monotonic() + within_s
        while time.monotonic() < give_up_at:
            with self.output.open("rb") as printed:
                printed.seek(self._printed_before)
                line = printed.readline()
            if line.endswith(b"\n"):
                return line.decode().strip()
            if not self.running:
                break
            time.sleep(0.02)
        raise self._failed("printed no line")

    def wait(self, within_s: float, *, expected: Sequence[int] = (0,)) -> int:
        """Its exit code. Raises ``ProcessFailed`` for another than is expected, and, having killed it, when late."""
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failed(f"did not end within {within_s:.0f} s") from None
        if code not in expected:
            raise self._failed(f"ended with code {code}")
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self, patience_s: float = 10.0) -> None:
        """SIGTERM, then SIGKILL; nothing happens if it has ended. A stopped process is continued first."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def check_running(self) -> None:
        """Raises ``ProcessFailed`` if it has ended by itself."""
        if not self.running:
            raise self._failed(f"ended by itself with code {self._process.returncode}")

    def _failed(self, what: str) -> ProcessFailed:
        lines = self.output.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        return ProcessFailed("\n".join([f"{' '.join(self.command)}: {what}", *lines]))


@contextmanager
def running(
    command: Sequence[str], output: Path, environment: Mapping[str, str] | None = None, *, patience_s: float = 10.0
) -> Iterator[Child]:
    """The command, for the length of the block; then SIGTERM, and SIGKILL after ``patience_s``."""
    child = Child(command, output, environment)
    try:
        yield child
    finally:
        child.end(patience_s)
