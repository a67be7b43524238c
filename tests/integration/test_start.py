"""A service whose store or broker is down when it starts: it waits, says so, and ends when it is told to."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from streamsvc.app import WorkerSpec, load, new_worker

FILE = """
service: start
state: {state}
aws: {{endpoint_url: "http://127.0.0.1:{port}", access_key_id: a, secret_access_key: b}}
pipelines:
  access:
    source: {{kafka: {{brokers: "127.0.0.1:{port}", topics: [access]}}}}
    decode: {{json: {{schema: infer}}}}
    sink: {{path: "memory://start/lake", format: json}}
"""


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


async def _problems_until_stopped(file: Path, state: str, part: str) -> dict[str, str]:
    file.write_text(FILE.format(state=state, port=_closed_port()))
    worker, health = new_worker(load(file), WorkerSpec(file, None, until_end=False, slot=0, slots=1))
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        while part not in health.ready():
            assert not running.done(), running.exception()
            await asyncio.sleep(0.01)
    assert health.live() == {}
    problems = dict(health.ready())
    worker.stop()
    await asyncio.wait_for(running, 20)
    return problems


async def test_a_store_that_is_down_is_waited_for(tmp_path: Path) -> None:
    problems = await _problems_until_stopped(tmp_path / "f.yaml", "s3://bucket/state", "access: state")
    assert problems["access: state"] == "s3://bucket/state/access: the store does not answer: connection refused"
    assert problems["access: start"] == "not open yet"


async def test_a_broker_that_is_down_is_waited_for_where_columns_are_inferred(tmp_path: Path) -> None:
    problems = await _problems_until_stopped(tmp_path / "f.yaml", "memory://start/state", "access: source")
    assert problems["access: source"].startswith("no broker answers")
