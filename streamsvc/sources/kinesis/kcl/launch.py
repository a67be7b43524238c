"""Becomes the program that is named on its command line, and dies with the process that started it.

    python launch.py <process id of the parent> <program> <argument>...

Linux keeps the wish for a signal at the parent's death through ``execv`` (prctl(2), PR_SET_PDEATHSIG). Asked for in a
process of its own, since nothing may run between fork and exec of a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> NoReturn:
    parent, program = int(arguments[0]), arguments[1]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(program, arguments[1:])  # noqa: S606  # a program and its arguments, without a shell


if __name__ == "__main__":
    main(sys.argv[1:])
