"""What the console script does around its commands."""

from __future__ import annotations

import asyncio
import signal

import pytest

from streamsvc import cli
from streamsvc.commands.demo import _on_first_signal


def test_sigterm_is_heard_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the first process of a container, unlike others, is not ended by it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        monkeypatch.setattr("sys.argv", ["streamsvc", "--help"])
        with pytest.raises(SystemExit):
            cli.main()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        with pytest.raises(SystemExit, match="143"):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("number", "end"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_while_duckdb_computes_ends_as_elsewhere(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, end: type[BaseException]
) -> None:
    """DuckDB swallows what the handler raises; seen when a worker was stopped while it read its configuration."""

    def compute() -> None:
        try:
            signal.raise_signal(number)
        except (SystemExit, KeyboardInterrupt):
            raise RuntimeError("Query interrupted") from None

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "app", compute)
    try:
        with pytest.raises(end) as ended:
            cli.main()
        assert end is KeyboardInterrupt or ended.value.args == (143,)
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
