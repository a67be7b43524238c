"""The end of a process that has failed."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn


def end_at_once(code: int) -> NoReturn:
    """What failed may have left calls of native clients under way, and a thread of theirs that comes back to an
    interpreter that is being taken down aborts the process (exit code 134). So nothing is taken down."""
    for stream in (sys.stdout, sys.stderr):
        # Nobody reads it; it is closed; there is none; this is a signal's handler in the middle of a write.
        with suppress(OSError, ValueError, AttributeError, RuntimeError):
            stream.flush()
    os._exit(code)
