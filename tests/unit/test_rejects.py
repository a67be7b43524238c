"""Reject objects keep every byte, and are read back whatever they hold."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pytest

from streamsvc.config import Aws
from streamsvc.core.offsets import position_of, positions_of
from streamsvc.errors import LogCorrupt
from streamsvc.records import METADATA, REJECTED, ROW, Batch, Span
from streamsvc.sinks.rejects import REJECTS_READ, RejectObjects, Rejects, read_rejects
from streamsvc.stores.objects import open_store

SEGMENT = "20261124T120000Z-0123456789ab"
VALUES = [b"\xff\x00broken", None, b"", "ü\n".encode(), b"x" * 100_000]
KEYS = [b"k", None, b"", b"\x00", b"k"]
HEADERS: list[Any] = [[("h", b"1"), ("h", None)], None, [], [("ü", b"\xff")], [("trace", b"")]]
ARRIVALS = [0, None, 1_764_000_000_123, 1, 253_402_300_799_999]


def batch() -> Batch:
    """Five records of two splits; the offsets have a gap."""
    spans = (Span("a@0.x", 2, position_of(7), position_of(10)), Span("a@1.x", 3, position_of(0), position_of(3)))
    return Batch(
        spans=spans,
        values=pa.array(VALUES, pa.binary()),
        offsets=pa.array([7, 9, 0, 1, 2], pa.int64()),
        position_text=positions_of,
        arrivals=lambda: pa.array(ARRIVALS, METADATA["_timestamp"]),
        keys=lambda: pa.array(KEYS, pa.binary()),
        headers=lambda: pa.array(HEADERS, METADATA["_headers"]),
        nbytes=100,
    )


def rejected(*rows: int) -> pa.RecordBatch:
    made = [{ROW: row, "reason": f"reason_{row}", "error": f'at "{row}"\n'} for row in rows]
    return pa.RecordBatch.from_pylist(made, schema=REJECTED)


def body_of(rejects: Rejects) -> bytes:
    (only,) = rejects.close(SEGMENT)
    return b"".join(bytes(part) for part in only.body)


async def test_every_byte_and_coordinate_comes_back() -> None:
    sink = RejectObjects(open_store("memory://rejects", Aws()))
    rejects = sink.open()
    rejects.add(batch(), rejected(0, 1, 2))
    rejects.add(batch(), rejected())
    rejects.add(batch(), rejected(3, 4))
    assert rejects.rows == 5
    assert rejects.memory_bytes >= 100_000
    (published,) = await sink.publish(closed := rejects.close(SEGMENT))
    assert published.url == f"memory://rejects/date=2026-11-24/{SEGMENT}.json.gz"
    assert (published.kind, published.rows) == ("rejects", 5)
    (read,) = read_rejects(b"".join(bytes(part) for part in closed[0].body))
    assert read.schema == REJECTS_READ
    assert read["split"].to_pylist() == ["a@0.x"] * 2 + ["a@1.x"] * 3
    assert read["position"].to_pylist() == [position_of(offset) for offset in (7, 9, 0, 1, 2)]
    assert read["arrival"].cast(pa.int64()).to_pylist() == ARRIVALS
    assert read["reason"].to_pylist() == [f"reason_{row}" for row in range(5)]
    assert read["error"].to_pylist() == [f'at "{row}"\n' for row in range(5)]
    assert read["key"].to_pylist() == KEYS
    assert read["headers"].to_pylist() == HEADERS
    assert read["value"].to_pylist() == VALUES


def test_a_line_is_plain_json(tmp_path: Any) -> None:
    rejects = Rejects()
    rejects.add(batch(), rejected(0))
    body = body_of(rejects)
    assert orjson.loads(gzip.decompress(body)) == {
        "split": "a@0.x",
        "position": position_of(7),
        "arrival": "1970-01-01T00:00:00Z",
        "reason": "reason_0",
        "error": 'at "0"\n',
        "key_base64": "aw==",
        "headers": [{"key": "h", "value": "MQ=="}, {"key": "h", "value": None}],
        "raw_base64": "/wBicm9rZW4=",
    }
    (tmp_path / "x.json.gz").write_bytes(body)
    count = "SELECT reason, count(*), max(from_base64(raw_base64)) FROM read_json(?) GROUP BY reason"
    assert duckdb.execute(count, [str(tmp_path / "*.json.gz")]).fetchall() == [("reason_0", 1, VALUES[0])]


def test_none_are_no_object() -> None:
    rejects = Rejects()
    rejects.add(batch(), rejected())
    assert rejects.close(SEGMENT) == []


def test_many_are_encoded_as_they_come_and_read_some_at_a_time() -> None:
    rejects = Rejects()
    for _ in range(300):
        rejects.add(batch(), rejected(0, 1, 2, 3, 4))
    assert rejects.memory_bytes < 5_000_000, "thirty million bytes came in"
    sizes = [read.num_rows for read in read_rejects(body_of(rejects))]
    assert len(sizes) > 5
    assert sum(sizes) == 1500


def test_a_segment_without_a_day_is_a_fault() -> None:
    rejects = Rejects()
    rejects.add(batch(), rejected(0))
    with pytest.raises(ValueError, match="begins with its time"):
        rejects.close("segment")


def zipped(text: bytes) -> bytes:
    """The same bytes every second, so that a test has the same name in every process."""
    return gzip.compress(text, mtime=0)


def good_line(**changes: Any) -> bytes:
    rejects = Rejects()
    rejects.add(batch(), rejected(2))
    return orjson.dumps(orjson.loads(gzip.decompress(body_of(rejects))) | changes)


@pytest.mark.parametrize(
    "body",
    [
        b"not gzip",
        zipped(good_line() + b"\n")[:-9],
        zipped(b"{"),
        zipped(b"[]"),
        zipped(b"{}"),
        zipped(good_line(raw_base64="%%%")),
        zipped(good_line(raw_base64=5)),
        zipped(good_line(arrival="yesterday")),
        zipped(good_line(headers=[[]])),
        zipped(good_line(split=5)),
        zipped(good_line().replace(b"reason_2", b"\xff")),
    ],
)
def test_what_is_no_reject_object_is_named(body: bytes) -> None:
    with pytest.raises(LogCorrupt, match=r"key=date=x/y\.json\.gz"):
        list(read_rejects(body, key="date=x/y.json.gz"))


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsvc.sinks.rejects.MAX_LINE_BYTES", 1 << 20)
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    with pytest.raises(LogCorrupt):
        list(read_rejects(bomb))


@pytest.mark.parametrize("moment_ms", [253_402_300_800_000, -62_135_596_800_001, 2**63 - 1])
def test_a_time_that_no_calendar_has_does_not_spoil_its_neighbours(moment_ms: int) -> None:
    rejects = Rejects()
    arrivals = pa.array([0, moment_ms, 1, 2, 3], pa.int64()).cast(METADATA["_timestamp"])
    rejects.add(replace(batch(), arrivals=lambda: arrivals), rejected(0, 1, 2))
    (read,) = read_rejects(body_of(rejects))
    assert read["arrival"].cast(pa.int64()).to_pylist() == [0, None, 1]
    assert read["value"].to_pylist() == VALUES[:3]
