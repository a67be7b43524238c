"""Shards of Kinesis on the live page: where they came from, and positions that are long."""

from __future__ import annotations

from streamsvc.core.kinesis_positions import position_after
from streamsvc.ops.health import PipelineStatus, ServiceStatus, SplitStatus, WorkerStatus
from streamsvc.ops.page import status_page

POSITION = position_after("49657018034567890123456789012345678901234567890123456789")
PARENT, CHILD = "s@shardId-000000000000.1764300000", "s@shardId-000000000001.1764300000"


def page(*splits: SplitStatus) -> str:
    pipeline = PipelineStatus(
        source="kinesis s",
        sink="s3://lake",
        records_read=1,
        rows_landed=1,
        rejects={},
        splits=list(splits),
        open_segment=None,
        landing=False,
        last_commit=None,
        last_objects=[],
        windows=None,
    )
    worker = WorkerStatus(
        worker=0, pid=1, restarts=0, memory_used_bytes=0, memory_budget_bytes=1, pipelines={"p": pipeline}
    )
    return status_page(ServiceStatus(service="s", version="0", started="2026-01-01T00:00:00Z", workers=[worker]), {})


def test_a_child_says_where_it_came_from_and_its_position_is_short() -> None:
    child = SplitStatus(split=CHILD, position=POSITION, lag_records=None, lag_milliseconds=1500)
    child["parents"] = [PARENT]
    shown = page(child)
    assert f"<small>from {PARENT}</small>" in shown
    assert f'<span title="{POSITION}">…{POSITION[-20:]}</span>' in shown
    assert "1.5 s" in shown


def test_an_offset_is_shown_whole() -> None:
    offset = f"{17:020}"
    shown = page(SplitStatus(split="t@0.x", position=offset, lag_records=1, lag_milliseconds=None))
    assert f"<td class=n>{offset}<" in shown
    assert "from" not in shown.partition("<tbody>")[2]
