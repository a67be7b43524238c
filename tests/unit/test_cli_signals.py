"""What the console script does around its commands."""

from __future__ import annotations

import signal

import pytest

from streamsvc import cli


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
