"""What a figure was measured on: the machine, whether its cores are cores, the versions, the commit."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loadtest.processes import REPOSITORY

_PACKAGES = ("confluent-kafka", "pyarrow", "duckdb", "obstore", "streamsvc")
_LOOP_S = 1.0


def describe() -> dict[str, Any]:
    """Machine, versions and commit, as plain data."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _PACKAGES},
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
    }


def two_process_speed() -> float | None:
    """What two pinned loops do at once, as a multiple of one alone: 2.0 on two real, idle cores. ``None``: one core."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        return None
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(_turns_in_a_second, cores))
        alone = processes.submit(_turns_in_a_second, cores[0]).result()
        together = sum(processes.map(_turns_in_a_second, cores))
    return together / alone


def _turns_in_a_second(core: int) -> int:
    os.sched_setaffinity(0, {core})
    turns, end = 0, time.perf_counter() + _LOOP_S
    while time.perf_counter() < end:
        for _ in range(1000):
            turns += 1
    return turns


def _cpu_model() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip()
