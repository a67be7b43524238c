"""``streamsvc`` and ``python -m streamsvc``."""

import sys

INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""


def main() -> None:
    """Ctrl-C ends without a traceback, also while modules are still being loaded."""
    try:
        from streamsvc.cli import main as command_line  # noqa: PLC0415 - interrupted here, it must be caught

        command_line()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
