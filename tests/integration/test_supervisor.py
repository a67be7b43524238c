"""Real processes: restarted when they die, drained when asked, all ended by a failure that waiting will not mend."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from streamsvc.ops.health import WorkerStatus
from streamsvc.runtime.health import SupervisorHealth
from streamsvc.runtime.observer import Summary
from streamsvc.runtime.supervisor import FAILED, Report, Supervisor


def _report(slot: int, records: int = 0) -> Report:
    status = WorkerStatus(
        worker=slot, pid=os.getpid(), restarts=0, memory_used_bytes=0, memory_budget_bytes=0, pipelines={}
    )
    return Report({}, {}, "# HELP up Up\n# TYPE up gauge\nup 1\n", status, Summary(records=records))


def work_until_asked(slot: int, reports: Connection) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    reports.send(_report(slot))
    while True:
        time.sleep(0.05)


def work_and_end(slot: int, reports: Connection) -> None:
    reports.send(_report(slot, records=slot + 1))


def fail_in_slot_one(slot: int, reports: Connection) -> None:
    if slot == 1:
        sys.exit(FAILED)
    work_until_asked(slot, reports)


def _first_time(folder: Path, slot: int) -> bool:
    marker = folder / f"slot-{slot}"
    first = not marker.exists()
    marker.touch()
    return first


def crash_once(folder: Path, slot: int, reports: Connection) -> None:
    if _first_time(folder, slot):
        os.kill(os.getpid(), signal.SIGKILL)
    work_and_end(slot, reports)


def die_in_the_middle_of_a_report(folder: Path, slot: int, reports: Connection) -> None:
    if _first_time(folder, slot):
        os.write(reports.fileno(), struct.pack("!i", 100) + b"so far")
        os.kill(os.getpid(), signal.SIGKILL)
    work_and_end(slot, reports)


def be_told_to_stop_by_another(folder: Path, slot: int, reports: Connection) -> None:
    if not _first_time(folder, slot):
        work_until_asked(slot, reports)
    reports.send(_report(slot))


async def _until_reports(supervisor: Supervisor, count: int) -> list[int]:
    while True:
        pids = [slot.last.status["pid"] for slot in supervisor.slots if slot.last and slot.process]
        if len(pids) == count:
            return pids
        await asyncio.sleep(0.05)


async def test_workers_that_end_well_end_the_service_well() -> None:
    supervisor = Supervisor(work_and_end, 2, drain_s=1, until_end=True)
    assert await supervisor.run() == 0
    assert SupervisorHealth("s", supervisor).summary().records == 3


async def test_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    supervisor = Supervisor(partial(crash_once, tmp_path), 1, drain_s=1, until_end=True)
    assert await supervisor.run() == 0
    assert supervisor.slots[0].restarts == 1
    assert SupervisorHealth("s", supervisor).summary().records == 1


async def test_a_worker_that_ends_unasked_is_missed_and_started_again(tmp_path: Path) -> None:
    supervisor = Supervisor(partial(be_told_to_stop_by_another, tmp_path), 1, drain_s=5)
    running = asyncio.create_task(supervisor.run())
    [slot] = supervisor.slots
    while slot.restarts == 0:
        await asyncio.sleep(0.01)
    assert supervisor.ready() == {"worker 0": "has ended, is started again"}
    while supervisor.ready():
        await asyncio.sleep(0.01)
    supervisor.stop()
    assert await running == 0


async def test_a_worker_that_dies_in_the_middle_of_a_report_is_no_fault_of_the_supervisor(tmp_path: Path) -> None:
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    supervisor = Supervisor(partial(die_in_the_middle_of_a_report, tmp_path), 1, drain_s=1, until_end=True)
    assert await supervisor.run() == 0
    assert supervisor.slots[0].restarts == 1
    assert faults == []


async def test_a_failure_drains_the_others_and_is_the_exit_code() -> None:
    supervisor = Supervisor(fail_in_slot_one, 2, drain_s=5)
    assert await supervisor.run() == FAILED
    assert supervisor.slots[0].exit_code == 0


async def test_stop_drains_every_worker() -> None:
    supervisor = Supervisor(work_until_asked, 2, drain_s=5)
    running = asyncio.create_task(supervisor.run())
    pids = await _until_reports(supervisor, 2)
    health = SupervisorHealth("s", supervisor)
    assert health.live() == {}
    assert health.ready() == {}
    assert b'worker="1"' in health.metrics()
    supervisor.stop()
    assert await running == 0
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()


async def test_a_cancelled_supervisor_leaves_no_process_behind() -> None:
    supervisor = Supervisor(work_until_asked, 1, drain_s=5)
    running = asyncio.create_task(supervisor.run())
    [pid] = await _until_reports(supervisor, 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not Path(f"/proc/{pid}").exists()
