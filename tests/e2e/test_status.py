"""``streamsvc status`` while the source does not answer: the log can say where everything stands."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from streamsvc.app import load, log_of
from streamsvc.commands.status import status
from streamsvc.core.log_keys import Cursor, claim_key, plan_key
from streamsvc.core.offsets import position_of
from streamsvc.core.segments import Plan, Range
from streamsvc.log.segment_log import SegmentLog
from streamsvc.records import ObjectInfo, Position, Split

FILE = """
service: status
state: file://{folder}/state
http: null
pipelines:
  access:
    source: {{kafka: {{brokers: "{brokers}", topics: [access]}}}}
    decode: {{json: {{schema: infer}}}}
    sink: {{path: "file://{folder}/lake"}}
"""

NOBODY = "127.0.0.1:9"


async def _fill(log: SegmentLog) -> None:
    """Two splits: one has landed ten records, of the other a segment is on the way."""

    async def first() -> dict[Split, Position]:
        return {"access/0": position_of(0), "access/1": position_of(5)}

    async def write() -> list[ObjectInfo]:
        return [ObjectInfo("file:///lake/part.parquet", 10, 100)]

    await log.begin(first)
    ranges = {"access/0": Range(Cursor(0, position_of(0)), position_of(10))}
    await log.land(await log.plan("first", ranges, config="", decode_version=1), write)
    pending = Plan("second", {"access/1": Range(Cursor(0, position_of(5)), position_of(9))}, "", 1, "another")
    await log._store.create(plan_key("second"), pending.to_json())
    await log._store.create(claim_key("access/1", Cursor(0, position_of(5))), b'{"format":1,"segment":"second"}')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "pipeline.yaml"
    file.write_text(FILE.format(folder=tmp_path, brokers=NOBODY))
    asyncio.run(_fill(log_of(load(file), "access")))
    return file


def test_a_broker_that_is_down(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(file, None, as_json=True) == 1
    told = json.loads(capsys.readouterr().out)["access"]
    assert told["source_problem"].startswith(f"no broker answers at {NOBODY}")
    rows = [(row["split"], row["committed"], row["end"], row["pending_segment"]) for row in told["splits"]]
    assert rows == [("access/0", position_of(10), None, None), ("access/1", position_of(5), None, "second")]
    assert told["last_segments"][0]["objects"][0]["url"] == "file:///lake/part.parquet"


def test_people_are_told_in_one_line_why_the_ends_are_not_known(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(file, None, as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "no broker answers" in line]) == 1
    assert any("access/1" in line and "second" in line and "?" in line for line in lines)
