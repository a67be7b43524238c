"""What the console script does around its commands."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from streamsvc import cli
from streamsvc.commands.demo import _on_first_signal


def test_sigterm_is_heard_from_the_start() -> None:
    """By default the first process of a container, unlike others, is not ended by it. Nothing is raised: DuckDB makes
    errors of its own of what a handler raises. Seen when a worker was stopped while it read its configuration."""
    code = """
import signal, sys
from streamsvc import cli
def stopped():
    print("half a line", end="")
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        sys.exit(1)
cli.app = stopped
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (143, b"half a line")


def test_ctrl_c_while_duckdb_computes_ends_as_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("Query interrupted") from None

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "app", compute)
    try:
        with pytest.raises(KeyboardInterrupt):
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_demo_that_is_stopped_twice_does_not_wait() -> None:
    """The first one lands what is there; the second one ends as without a handler."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stopped = asyncio.Event()
    try:
        _on_first_signal(stopped.set)
        signal.raise_signal(signal.SIGTERM)
        await stopped.wait()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
