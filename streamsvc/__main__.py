"""``streamsvc`` and ``python -m streamsvc``."""

from streamsvc.ops.ending import end_at_once

INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""


def main() -> None:
    """Ctrl-C ends without a traceback, also while modules are still being loaded."""
    try:
        from streamsvc.cli import main as command_line  # noqa: PLC0415 - interrupted here, it must be caught

        command_line()
    except KeyboardInterrupt:
        end_at_once(INTERRUPTED)
    except SystemExit as ended:
        if not isinstance(ended.code, int) or ended.code == 0:
            raise
        end_at_once(ended.code)


if __name__ == "__main__":
    main()
