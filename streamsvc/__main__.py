"""``streamsvc`` and ``python -m streamsvc``."""

import os
import sys
from contextlib import suppress

INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""


def main() -> None:
    """Ctrl-C ends without a traceback, also while modules are still being loaded.

    What fails may leave calls of native clients under way, and a thread of theirs that comes back to an interpreter
    that is being taken down aborts the process (exit code 134). So after a failure nothing is taken down."""
    try:
        from streamsvc.cli import main as command_line  # noqa: PLC0415 - interrupted here, it must be caught

        command_line()
    except KeyboardInterrupt:
        _end(INTERRUPTED)
    except SystemExit as ended:
        if not isinstance(ended.code, int) or ended.code == 0:
            raise
        _end(ended.code)


def _end(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
