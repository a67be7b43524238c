"""How the live page writes places, times and addresses: as short as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamsvc.core.kinesis_positions import position_after
from streamsvc.ops.health import PipelineStatus, ServiceStatus, SplitStatus, WorkerStatus
from streamsvc.ops.page import status_page

POSITION = position_after("49657018034567890123456789012345678901234567890123456789")
PARENT, CHILD = "s@shardId-000000000000.1764300000", "s@shardId-000000000001.1764300000"


def page(*splits: SplitStatus, **more: Any) -> str:
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
    pipeline.update(more)  # type: ignore[typeddict-item]
    worker = WorkerStatus(
        worker=0, pid=1, restarts=0, memory_used_bytes=0, memory_budget_bytes=1, pipelines={"p": pipeline}
    )
    status = ServiceStatus(service="s", version="0", started="2026-01-01T00:00:00Z", workers=[worker])
    return status_page(status, {}, datetime(2026, 1, 1, 1, tzinfo=UTC))


def test_a_child_says_where_it_came_from_and_its_position_is_short() -> None:
    child = SplitStatus(split=CHILD, position=POSITION, lag_records=None, lag_milliseconds=1500)
    child["parents"] = [PARENT]
    shown = page(child)
    assert f"<small>from {PARENT}</small>" in shown
    assert f'<span title="{POSITION}">…{POSITION[-20:]}</span>' in shown
    assert "1.5 s" in shown


def test_offsets_of_kafka_are_numbers() -> None:
    split = SplitStatus(split="access@0", position="00000000000000010600", lag_records=3, lag_milliseconds=None)
    shown = page(split)
    assert "<td class=n>10,600<" in shown
    assert "00000" not in shown


def test_an_object_below_the_sink_is_named_from_there() -> None:
    below, apart = "s3://lake/date=2026-11-28/a.parquet", "s3://lakes/b.json.gz"
    objects = [{"url": url, "rows": 1, "nbytes": 1, "kind": "data"} for url in (below, apart)]
    shown = page(sink="s3://lake/", last_objects=objects)
    assert f'title="{below}">date=2026-11-28/a.parquet<' in shown
    assert f'title="{apart}">{apart}<' in shown


@pytest.mark.parametrize(
    ("seconds", "said"), [(-5, "0 s"), (119, "119 s"), (125, "2 min"), (7200, "2 h"), (3e5, "3 d")]
)
def test_the_last_commit_is_so_long_ago(seconds: float, said: str) -> None:
    at = datetime(2026, 1, 1, 1, tzinfo=UTC) - timedelta(seconds=seconds)
    assert f">{said} ago<" in page(last_commit=at.isoformat())
