"""The log as commands use it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from streamsvc.app import instance_name, load, log_of, new_stores, state_url
from streamsvc.core.log_keys import Cursor
from streamsvc.core.offsets import position_of
from streamsvc.core.segments import Plan, Range
from streamsvc.log.segment_log import SegmentLog
from streamsvc.records import ObjectInfo

FILE = """
service: commands
state: memory://command-log/state
pipelines:
  access:
    source: {kafka: {brokers: "127.0.0.1:9", topics: [access]}}
    decode: {raw: {}}
    sink: {path: "memory://command-log/lake", format: json}
"""


async def test_a_segment_that_a_worker_of_this_machine_is_landing_is_left_to_it(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(FILE)
    service = load(file)
    state = new_stores(service, "access")(state_url(service, "access"), "state")
    worker = SegmentLog(state, instance_name(0), position_of(0), landing_s=0)
    plan = await worker.plan("s1", {"a": Range(Cursor(0, position_of(0)), position_of(9))}, config="", decode_version=1)
    claimed, finished = asyncio.Event(), asyncio.Event()

    async def write_for_long() -> list[ObjectInfo]:
        claimed.set()
        await asyncio.Event().wait()
        return []

    async def finish(_: Plan) -> list[ObjectInfo]:
        finished.set()
        return []

    landing = asyncio.create_task(worker.land(plan, write_for_long))
    await claimed.wait()
    recovering = asyncio.create_task(log_of(service, "access").recover("a", finish))
    for _ in range(200):
        await asyncio.sleep(0)
    assert not finished.is_set()
    for task in (landing, recovering):
        task.cancel()
    await asyncio.wait([landing, recovering])
