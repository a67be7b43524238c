"""The KCL bridge against a daemon whose lines the test says, through real children and sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from streamsvc.contracts import Assigned, Revoked, SplitEvent
from streamsvc.core.kinesis_positions import (
    BEGINNING,
    END,
    position_after,
    position_at_time,
    position_before,
)
from streamsvc.errors import PositionLost, SourceRefused, SourceUnavailable
from streamsvc.records import Batch, Position, Split
from streamsvc.sources.kinesis.kcl.settings import DaemonSettings
from streamsvc.sources.kinesis.kcl.source import KclSource
from streamsvc.testing.kinesis_server.shards import MAX_HASH_KEY
from streamsvc.testing.scripted_kcl import ScriptedKcl, UserRecord, arrival_ms
from streamsvc.testing.scripted_stream import ScriptedStream, split_name
from tests.kinesis_sources import open_scene

SHARD = "shardId-000000000000"
OTHER = "shardId-000000000001"
SPLIT = split_name(SHARD)
SETTINGS = DaemonSettings(stream="access", application="app", table="app", worker="w", region="us-east-1")


def numbered(first: int, last: int) -> list[UserRecord]:
    """Plain records, by sequence number."""
    return [(str(number), 0, f"value {number}".encode()) for number in range(first, last + 1)]


def values(first: int, last: int) -> list[bytes]:
    return [value for _, _, value in numbered(first, last)]


@dataclass
class Play:
    """A source, its daemon, and what was read of the splits, checked for gaps as it comes."""

    kcl: ScriptedKcl
    stream: ScriptedStream
    source: KclSource
    at: dict[Split, Position] = field(default_factory=dict)
    values: dict[Split, list[bytes]] = field(default_factory=dict)
    behind: list[tuple[Split, int | None]] = field(default_factory=list)
    trimmed: list[None] = field(default_factory=list)

    def start_at(self, position: Position, split: Split = SPLIT) -> None:
        self.at[split] = position
        self.source.start_at({split: position})

    async def event(self) -> SplitEvent:
        return await anext(self.source.assignments())

    async def read(self) -> Batch:
        batch = await self.source.read()
        (span,) = batch.spans
        assert span.first == self.at[span.split]
        assert span.to > span.first
        self.at[span.split] = span.to
        self.values.setdefault(span.split, []).extend(batch.values.to_pylist())
        return batch

    async def read_to(self, position: Position, split: Split = SPLIT) -> list[bytes]:
        """Read on, of all splits, until this one has come so far."""
        while self.at[split] < position:
            await self.read()
        assert self.at[split] == position
        return self.values.get(split, [])


@asynccontextmanager
async def played(stream: ScriptedStream | None = None, queue_bytes: int = 1024 * 1024) -> AsyncIterator[Play]:
    stream = stream or ScriptedStream(SHARD, OTHER)
    async with ScriptedKcl() as kcl:
        behind: list[tuple[Split, int | None]] = []
        trimmed: list[None] = []
        source = KclSource(
            stream,
            SETTINGS,
            kcl.command,
            queue_bytes=queue_bytes,
            restart_s=0.01,
            on_behind=lambda split, milliseconds: behind.append((split, milliseconds)),
            on_trimmed=lambda: trimmed.append(None),
        )
        async with source:
            await kcl.restarted()
            yield Play(kcl, stream, source, behind=behind, trimmed=trimmed)


async def nothing_more(task: asyncio.Task[None]) -> None:
    """Let everything happen that can, over sockets and pipes, before it is asked whether this is still waiting."""
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not task.done()


async def test_records_come_in_order_and_aggregates_keep_their_places() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        assert await play.event() == Assigned((SPLIT,))
        play.start_at(BEGINNING)
        aggregate = [("200", sub, b"user record %d" % sub) for sub in range(3)]
        await shard.process([*numbered(100, 102), *aggregate])
        batch = await play.read()
        assert batch.values.to_pylist() == values(100, 102) + [value for _, _, value in aggregate]
        assert batch.offsets.to_pylist() == [
            *(position_before(str(number)) for number in (100, 101, 102)),
            *(position_before("200", sub) for sub in range(3)),
        ]
        assert play.at[SPLIT] == position_after("200", 2)
        assert batch.keys().to_pylist()[0] == b"key-100"
        assert batch.arrivals().cast("int64").to_pylist()[0] == arrival_ms("100")


@pytest.mark.parametrize(("first", "times"), [(104, 0), (105, 1)])
async def test_that_the_last_record_is_gone_is_counted(first: int, times: int) -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(position_after("104"))
        await shard.process(numbered(first, 109))
        await play.read_to(position_after("109"))
        assert len(play.trimmed) == times


async def test_only_what_has_landed_is_checkpointed() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process(numbered(100, 109))
        await shard.process([])
        await play.read()
        await shard.process([])
        assert shard.checkpoints == []
        play.source.acknowledge({SPLIT: position_after("104")})
        await shard.process([])
        await shard.process([("110", sub, b"x") for sub in range(5)])
        play.source.acknowledge({SPLIT: position_before("110", 3)})
        await shard.process([])
        await shard.process([])
        assert shard.checkpoints == [("104", 0), ("110", 2)]


async def test_a_boundary_in_front_of_a_record_waits_for_one_that_the_kcl_can_say() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process(numbered(100, 109))
        play.source.acknowledge({SPLIT: position_before("105")})
        await shard.process([])
        assert shard.checkpoints == []


async def test_a_refused_checkpoint_is_tried_again_with_the_next_message() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process(numbered(100, 109))
        shard.refusals.append("ThrottlingException")
        play.source.acknowledge({SPLIT: position_after("109")})
        await shard.process([])
        assert (shard.checkpoints, shard.refusals) == ([], [])
        await shard.process([])
        assert shard.checkpoints == [("109", 0)]


async def test_what_was_landed_already_is_skipped_and_checkpointed() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "99")
        await play.event()
        play.start_at(position_after("104"))
        await shard.process(numbered(100, 102))
        await shard.process(numbered(103, 107))
        assert await play.read_to(position_after("107")) == values(105, 107)
        assert shard.checkpoints == [("102", 0), ("104", 0)]
        assert play.stream.ranges_read == []


async def test_records_before_the_kcls_checkpoint_are_read_from_the_stream() -> None:
    stream = ScriptedStream(SHARD)
    stream.records[SHARD] = numbered(100, 120)
    async with played(stream) as play:
        shard = await play.kcl.start(SHARD, "110", 0)
        await play.event()
        play.start_at(position_after("104"))
        await shard.process(numbered(111, 120))
        assert await play.read_to(position_after("120")) == values(105, 120)
        assert stream.ranges_read == [(SPLIT, position_after("104"), position_after("110"))]


async def test_records_that_are_gone_are_not_skipped() -> None:
    stream = ScriptedStream(SHARD)
    stream.lost.add(SHARD)
    async with played(stream) as play:
        shard = await play.kcl.start(SHARD, "110")
        await play.event()
        play.start_at(position_after("104"))
        shard.send({"action": "processRecords", "records": [], "millisBehindLatest": 0})
        with pytest.raises(PositionLost):
            await play.read()
        with pytest.raises(PositionLost):
            await play.event()


async def test_a_stream_that_does_not_answer_is_asked_again() -> None:
    stream = ScriptedStream(SHARD)
    stream.records[SHARD] = numbered(100, 120)
    async with played(stream) as play:
        shard = await play.kcl.start(SHARD, "110")
        await play.event()
        stream.errors.append(SourceUnavailable("away"))
        play.start_at(position_after("104"))
        await shard.process([])
        assert await play.read_to(position_after("110")) == values(105, 110)
        assert play.source.problem is None


async def test_what_was_dropped_is_read_again_from_the_stream() -> None:
    """As after a lost claim: the KCL has brought it, and does not bring it again."""
    stream = ScriptedStream(SHARD)
    stream.records[SHARD] = numbered(100, 120)
    async with played(stream) as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process(numbered(100, 109))
        await play.read()
        await shard.process(numbered(110, 114))
        play.source.stop_reading([SPLIT])
        play.start_at(position_after("102"))
        await shard.process(numbered(115, 120))
        play.values.clear()
        assert await play.read_to(position_after("120")) == values(103, 120)


@pytest.mark.parametrize("checkpoint", ["LATEST", "AT_TIMESTAMP", None])
async def test_a_checkpoint_that_names_no_record_leaves_no_gap(checkpoint: str | None) -> None:
    """The KCL was configured to begin anywhere; our place is in the log."""
    stream = ScriptedStream(SHARD, OTHER)
    stream.records = {SHARD: numbered(100, 120), OTHER: numbered(100, 105)}
    async with played(stream) as play:
        shard = await play.kcl.start(SHARD, checkpoint)
        other = await play.kcl.start(OTHER, checkpoint)
        await play.event()
        await play.event()
        play.start_at(position_after("101"))
        play.start_at(BEGINNING, split_name(OTHER))
        await shard.process(numbered(112, 120))
        assert await play.read_to(position_after("120")) == values(102, 120)
        await other.process([])
        assert await play.read_to(position_after("105"), split_name(OTHER)) == values(100, 105)
        stream.records[OTHER] += numbered(106, 108)
        await other.process(numbered(104, 108))
        assert await play.read_to(position_after("108"), split_name(OTHER)) == values(100, 108)


async def test_a_start_by_time_skips_what_arrived_before() -> None:
    stream = ScriptedStream(SHARD)
    async with played(stream) as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(position_at_time(arrival_ms("105")))
        await shard.process(numbered(100, 103))
        await shard.process(numbered(104, 108))
        assert await play.read_to(position_after("108")) == values(105, 108)
        assert stream.ranges_read == []


async def test_a_start_by_time_that_the_kcl_is_behind_of_is_read_from_the_stream() -> None:
    stream = ScriptedStream(SHARD)
    stream.records[SHARD] = numbered(100, 120)
    async with played(stream) as play:
        shard = await play.kcl.start(SHARD, "110")
        await play.event()
        play.start_at(position_at_time(arrival_ms("105")))
        await shard.process(numbered(111, 120))
        assert await play.read_to(position_after("120")) == values(105, 120)


async def test_not_answering_is_the_back_pressure() -> None:
    async with played(queue_bytes=15_000) as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process([("100", 0, b"x" * 9_000)])
        waiting = asyncio.create_task(shard.process([("101", 0, b"x" * 9_000)]))
        await nothing_more(waiting)
        play.source.acknowledge({SPLIT: position_after("100")})
        await nothing_more(waiting)
        assert shard.checkpoints == [("100", 0)], "while the daemon waits is the time for checkpoints"
        await play.read()
        await waiting
        await play.read()


async def test_nothing_is_answered_before_the_log_has_told_the_place() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        waiting = asyncio.create_task(shard.process(numbered(100, 101)))
        await nothing_more(waiting)
        play.start_at(BEGINNING)
        await waiting
        assert await play.read_to(position_after("101")) == values(100, 101)


async def test_records_of_ten_megabytes() -> None:
    values_ = [os.urandom(10 * 1024 * 1024) for _ in range(2)]
    async with played(queue_bytes=1024) as play:
        shards = {name: await play.kcl.start(name, "TRIM_HORIZON") for name in (SHARD, OTHER)}
        for name in shards:
            await play.event()
            play.start_at(BEGINNING, split_name(name))
        sending = [
            asyncio.create_task(shard.process([("100", 0, value)]))
            for shard, value in zip(shards.values(), values_, strict=True)
        ]
        for name in shards:
            await play.read_to(position_after("100"), split_name(name))
        await asyncio.gather(*sending)
        assert [play.values[split_name(name)] for name in shards] == [[value] for value in values_]


async def test_a_lost_lease_is_told_at_once_and_its_rest_is_dropped() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process(numbered(100, 109))
        await shard.ask({"action": "leaseLost"})
        assert await play.event() == Revoked((SPLIT,), 0.0)
        again = await play.kcl.start(SHARD, "104")
        assert await play.event() == Assigned((SPLIT,))
        play.start_at(position_after("104"))
        await again.process(numbered(105, 106))
        assert await play.read_to(position_after("106")) == values(105, 106)


async def test_a_shard_is_ended_once_its_end_has_landed() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process(numbered(100, 101))
        ending = asyncio.create_task(shard.ask({"action": "shardEnded"}))
        await play.read_to(END)
        play.source.acknowledge({SPLIT: position_after("101")})
        await nothing_more(ending)
        assert (None, None) not in shard.checkpoints
        shard.refusals.append("ThrottlingException")
        play.source.acknowledge({SPLIT: END})
        await ending
        assert shard.checkpoints[-1] == (None, None)
        assert play.source.at_end({SPLIT: END}) == {SPLIT}
        shard.hang_up()
        assert await play.event() == Revoked((SPLIT,), 0.0), "there is nothing more to read in it"
        await play.kcl.start(OTHER, "TRIM_HORIZON")
        assert await play.event() == Assigned((split_name(OTHER),))


async def test_a_shard_that_the_log_knows_to_be_landed_is_ended_at_once() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(END)
        await shard.process(numbered(100, 101))
        await shard.ask({"action": "shardEnded"})
        assert shard.checkpoints[-1] == (None, None)


async def test_a_shard_that_is_asked_for_is_given_when_it_has_landed() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process(numbered(100, 109))
        await play.read()
        giving = asyncio.create_task(shard.ask({"action": "shutdownRequested"}))
        leaving = await play.event()
        assert isinstance(leaving, Revoked)
        assert leaving.splits == (SPLIT,)
        assert leaving.deadline_s > 0
        await nothing_more(giving)
        play.source.acknowledge({SPLIT: position_after("109")})
        play.source.release([SPLIT])
        await giving
        assert shard.checkpoints == [("109", 0)]
        await shard.ask({"action": "leaseLost"})
        shard.hang_up()
        await play.kcl.start(OTHER, "TRIM_HORIZON")
        assert await play.event() == Assigned((split_name(OTHER),)), "the shard is not revoked twice"


async def test_a_new_connection_for_a_shard_silences_the_old_one() -> None:
    """The KCL got its lease back while the old processor still waits for our answer."""
    async with played(queue_bytes=15_000) as play:
        old = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await old.process([("100", 0, b"x" * 9_000)])
        waiting = asyncio.create_task(old.process([("101", 0, b"y" * 9_000)]))
        await nothing_more(waiting)
        new = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await waiting
        assert [await play.event(), await play.event()] == [Revoked((SPLIT,), 0.0), Assigned((SPLIT,))]
        play.start_at(BEGINNING)
        play.source.acknowledge({SPLIT: position_after("100")})
        await new.process(numbered(100, 101))
        assert await play.read_to(position_after("101")) == values(100, 101)
        assert old.checkpoints == []


@pytest.mark.parametrize("victim", ["daemon", "child"])
async def test_a_daemon_that_is_gone_is_started_anew(victim: str) -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process(numbered(100, 109))
        os.kill(play.kcl.daemon if victim == "daemon" else shard.pid, signal.SIGKILL)
        assert await play.event() == Revoked((SPLIT,), 0.0)
        await play.kcl.restarted()
        assert play.source.problem is not None
        again = await play.kcl.start(SHARD, "104")
        assert await play.event() == Assigned((SPLIT,))
        assert play.source.problem is None
        play.start_at(position_after("104"))
        await again.process(numbered(105, 109))
        assert await play.read_to(position_after("109")) == values(105, 109)


async def test_nonsense_from_the_daemon_starts_it_anew() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        shard.send("{nonsense")
        await play.kcl.restarted()
        assert await play.event() == Revoked((SPLIT,), 0.0)


async def test_leaving_checkpoints_what_has_landed_and_answers_everything() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process(numbered(100, 109))
        await play.read()
        play.source.stop_reading([SPLIT])
        held = asyncio.create_task(shard.process(numbered(110, 111)))
        play.source.acknowledge({SPLIT: position_after("109")})
        play.kcl.obeys = False
        leaving = asyncio.create_task(play.kcl.asked_to_end())
        closing = asyncio.create_task(play.source.__aexit__(None, None, None))
        await leaving
        await held
        await shard.ask({"action": "shutdownRequested"})
        await shard.ask({"action": "leaseLost"})
        shard.hang_up()
        await closing
        assert shard.checkpoints == [("109", 0)]


async def test_nobody_is_left_when_the_source_is_left() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        pids = [play.kcl.daemon, shard.pid]
        await play.source.__aexit__(RuntimeError, RuntimeError(), None)
        for pid in pids:
            await gone(pid)


async def gone(pid: int) -> None:
    while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        await asyncio.sleep(0.01)


async def test_how_far_the_kcl_is_behind_is_told_until_it_brings_no_more() -> None:
    async with played() as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process(numbered(100, 109), behind_ms=7000)
        await shard.process([], behind_ms=0)
        assert play.behind == [(SPLIT, 7000), (SPLIT, 0)]
        await shard.ask({"action": "leaseLost"})
        shard.hang_up()
        async with asyncio.timeout(20):
            while play.behind[-1] != (SPLIT, None):
                await asyncio.sleep(0.01)


async def test_a_shard_that_is_gone_has_not_ended() -> None:
    """The KCL says so: to it, a shard that is not found any more has ended."""
    stream = ScriptedStream(SHARD)
    async with played(stream) as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process(numbered(100, 101))
        await play.read_to(position_after("101"))
        stream.lost.add(SHARD)
        shard.send({"action": "shardEnded"})
        with pytest.raises(PositionLost):
            await play.read()
        assert END not in play.at.values()
        assert (None, None) not in shard.checkpoints


async def test_what_the_kcl_did_not_bring_before_the_end_is_read_from_the_stream() -> None:
    stream = ScriptedStream(SHARD)
    stream.records[SHARD] = numbered(100, 105)
    async with played(stream) as play:
        shard = await play.kcl.start(SHARD, "TRIM_HORIZON")
        await play.event()
        play.start_at(BEGINNING)
        await shard.process(numbered(100, 101))
        ending = asyncio.create_task(shard.ask({"action": "shardEnded"}))
        assert await play.read_to(END) == values(100, 105)
        play.start_at(position_after("103"))
        play.values.clear()
        assert await play.read_to(END) == values(104, 105), "moved back while its end was about to land"
        play.source.acknowledge({SPLIT: END})
        await ending
        assert shard.checkpoints[-1] == (None, None)


@pytest.mark.parametrize("fate", ["retention", "created anew", "deleted"])
async def test_a_shard_that_vanishes_is_what_it_is_to_the_native_engine(fate: str) -> None:
    """The stream is the real source on the server of this process; the daemon says what the KCL would."""
    async with open_scene() as scene, ScriptedKcl() as kcl:
        scene.put(b"0")
        source = KclSource(scene.source(joins=False), SETTINGS, kcl.command, queue_bytes=1024 * 1024)
        async with source:
            await kcl.restarted()
            shard = await kcl.start(SHARD, "TRIM_HORIZON")
            event = await anext(source.assignments())
            source.start_at(dict.fromkeys(event.splits, BEGINNING))
            account, older = scene.server.account, scene.stream
            if fate == "retention":
                older.split(SHARD, str(MAX_HASH_KEY // 2), time.time())
                scene.shards[0].closed = time.time() - 25 * 3600
            else:
                account.delete_stream(older, with_consumers=True)
            if fate == "created anew":
                account.create_stream("access", 1).created += 10
            shard.send({"action": "shardEnded"})
            told = "no such resource" if fate == "deleted" else "gone from the stream|created anew"
            with pytest.raises((PositionLost, SourceRefused), match=told):
                await source.read()
