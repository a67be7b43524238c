"""Keepers that share a stream's shards over moto's DynamoDB. Time that matters stands still until a test moves it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Self

import pytest
from botocore.exceptions import ClientError

from streamsvc.core.kinesis_positions import LATEST, SHARD_END, TRIM_HORIZON, KclCheckpoint
from streamsvc.core.kpl import LAST_HASH_KEY, HashRange
from streamsvc.core.leases import LeasePolicy
from streamsvc.core.shards import ShardId, ShardInfo
from streamsvc.errors import SourceRefused
from streamsvc.sources.kinesis import lease_keeper
from streamsvc.sources.kinesis.lease_keeper import AllShards, Asked, Gained, LeaseEvent, LeaseKeeper, Lost
from streamsvc.sources.kinesis.lease_table import LeaseTable
from tests.kinesis_emulators import DynamoDb, client

POLICY = LeasePolicy(failover_s=0.3, handover_s=1.0)
END = KclCheckpoint(SHARD_END)


def name(number: int) -> ShardId:
    return f"shardId-{number:012}"


def shard(number: int, *parents: int) -> ShardInfo:
    return ShardInfo(name(number), frozenset(map(name, parents)), HashRange(0, LAST_HASH_KEY))


def graph(*shards: ShardInfo) -> dict[ShardId, ShardInfo]:
    return {each.shard: each for each in shards}


def names(*numbers: int) -> set[ShardId]:
    return set(map(name, numbers))


class Line:
    """To DynamoDB. ``cut``: calls hang, as those of a process that was killed. ``codes``: what the next calls get."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.scans = 0
        self.cut = False
        self.codes: list[str] = []

    def __getattr__(self, operation: str) -> Any:
        method = getattr(self._inner, operation)
        self.scans += operation == "scan"

        async def call(**parameters: Any) -> Any:
            if self.cut:
                await asyncio.Event().wait()
            if self.codes:
                raise ClientError({"Error": {"Code": self.codes.pop(), "Message": "no"}}, operation)
            return await method(**parameters)

        return call


class Worker:
    """A keeper, and a runtime that has landed everything as soon as it is asked to, unless it is ``stubborn``."""

    def __init__(self, line: Line, table: str, worker: str, policy: LeasePolicy, stubborn: bool) -> None:
        self.line = line
        self.now_s = 1000.0
        self.keeper = LeaseKeeper(LeaseTable(line, table), worker, policy, monotonic=lambda: self.now_s)
        self.shards: set[ShardId] = set()
        self.events: list[LeaseEvent] = []
        self._stubborn = stubborn

    async def __aenter__(self) -> Self:
        await self.keeper.__aenter__()
        self._consumer = asyncio.create_task(self._consume())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._consumer.cancel()
        await self.keeper.__aexit__(None, None, None)

    async def _consume(self) -> None:
        async for event in self.keeper.events():
            self.events.append(event)
            match event:
                case Gained(shards):
                    assert not shards & self.shards
                    self.shards |= shards
                case Lost(shards):
                    assert shards <= self.shards
                    self.shards -= shards
                case Asked(shards) if not self._stubborn:
                    self.shards -= shards
                    self.keeper.checkpoint(dict.fromkeys(shards, KclCheckpoint("77", 5)))
                    self.keeper.give(shards)

    @property
    def asked(self) -> set[ShardId]:
        """Each is written by itself, so it may come with another or alone."""
        return {each for event in self.events if isinstance(event, Asked) for each in event.shards}

    def end(self, *numbers: int) -> None:
        self.shards -= names(*numbers)
        self.keeper.checkpoint(dict.fromkeys(names(*numbers), END))


class Fleet:
    """Workers on one table."""

    def __init__(self, dynamodb: Any, stack: AsyncExitStack) -> None:
        self.dynamodb = dynamodb
        self.table = f"app-{uuid.uuid4().hex[:8]}"
        self._stack = stack
        self.workers: list[Worker] = []

    async def start(
        self,
        worker: str,
        shards: Mapping[ShardId, ShardInfo],
        policy: LeasePolicy = POLICY,
        *,
        stubborn: bool = False,
    ) -> Worker:
        started = Worker(Line(self.dynamodb), self.table, worker, policy, stubborn)
        started.keeper.offer(shards)
        await self._stack.enter_async_context(started)
        self.workers.append(started)
        return started

    def pass_time(self, seconds: float) -> None:
        for worker in self.workers:
            worker.now_s += seconds

    async def rows(self) -> dict[ShardId, dict[str, Any]]:
        answer = await self.dynamodb.scan(TableName=self.table, ConsistentRead=True)
        return {row["leaseKey"]["S"]: row for row in answer["Items"]}

    async def put(self, *rows: Mapping[str, Any]) -> None:
        await LeaseTable(self.dynamodb, self.table, sleep=lambda _: asyncio.sleep(0)).open()
        for row in rows:
            await self.dynamodb.put_item(TableName=self.table, Item=row)


@pytest.fixture
async def fleet(dynamodb: DynamoDb, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    monkeypatch.setattr(lease_keeper, "LEAVING_S", 1.0)
    async with client("dynamodb", dynamodb.endpoint_url) as opened, AsyncExitStack() as stack:
        yield Fleet(opened, stack)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def rounds(*workers: Worker) -> None:
    """Each has read the table, decided and acted at least twice since now."""
    scans = {worker.line: worker.line.scans for worker in workers}
    await until(lambda: all(line.scans >= before + 3 for line, before in scans.items()))


async def test_one_worker_gets_everything_parents_first(fleet: Fleet) -> None:
    a = await fleet.start("a", graph(shard(0), shard(1), shard(2, 0), shard(3, 0), shard(4, 1, 3)))
    await until(lambda: a.shards == names(0, 1))
    a.end(0)
    await until(lambda: a.shards == names(1, 2, 3))
    assert a.keeper.landed() == names(0)
    a.end(3)
    await rounds(a)
    assert a.shards == names(1, 2)
    a.end(1)
    await until(lambda: a.shards == names(2, 4))
    rows = await fleet.rows()
    assert rows[name(0)]["checkpoint"] == {"S": "SHARD_END"}
    assert sorted(rows[name(0)]["childShardIds"]["SS"]) == [name(2), name(3)]
    assert "leaseOwner" not in rows[name(0)]
    await until(lambda: a.keeper.owners() == {name(2): "a", name(4): "a"})


async def test_new_rows_say_where_a_kcl_would_begin(fleet: Fleet) -> None:
    a = await fleet.start("a", graph(shard(5, 1), shard(6), shard(7, 6)), replace(POLICY, initial=LATEST))
    await until(lambda: a.shards == names(5, 6))
    a.end(6)
    await until(lambda: a.shards == names(5, 7))
    rows = await fleet.rows()
    assert rows[name(5)]["checkpoint"] == {"S": "LATEST"}
    assert rows[name(7)]["checkpoint"] == {"S": "TRIM_HORIZON"}


async def test_a_second_worker_is_handed_half(fleet: Fleet) -> None:
    shards = graph(*map(shard, range(6)))
    a = await fleet.start("a", shards)
    await until(lambda: len(a.shards) == 6)
    b = await fleet.start("b", shards)
    await until(lambda: len(a.shards) == len(b.shards) == 3)
    assert a.shards | b.shards == set(shards)
    rows = await fleet.rows()
    assert {rows[each]["checkpoint"]["S"] for each in b.shards} == {"77"}
    assert {rows[each]["checkpointSubSequenceNumber"]["N"] for each in b.shards} == {"5"}
    assert not any("streamsvcWantedBy" in row for row in rows.values())
    before = [list(a.events), list(b.events)]
    await rounds(a, b)
    assert [a.events, b.events] == before


async def test_three_workers_share_and_who_leaves_gives_back_at_once(fleet: Fleet) -> None:
    shards = graph(*map(shard, range(6)))
    a, b, c = [await fleet.start(worker, shards) for worker in "abc"]
    await until(lambda: [len(each.shards) for each in (a, b, c)] == [2, 2, 2])
    await c.keeper.__aexit__(None, None, None)
    await until(lambda: len(a.shards) == len(b.shards) == 3)
    assert a.shards | b.shards == set(shards)


async def test_a_killed_workers_shards_are_taken_after_the_failover_time(fleet: Fleet) -> None:
    shards = graph(*map(shard, range(4)))
    a, b = [await fleet.start(worker, shards) for worker in "ab"]
    await until(lambda: len(a.shards) == len(b.shards) == 2)
    a.line.cut = True
    await rounds(b)
    fleet.pass_time(POLICY.failover_s - 0.01)
    await rounds(b)
    assert len(b.shards) == 2
    fleet.pass_time(0.02)
    await until(lambda: len(b.shards) == 4)


async def test_who_renews_keeps(fleet: Fleet) -> None:
    shards = graph(*map(shard, range(4)))
    a, b = [await fleet.start(worker, shards) for worker in "ab"]
    await until(lambda: len(a.shards) == len(b.shards) == 2)
    held = [set(a.shards), set(b.shards)]
    for _ in range(6):
        counters = {each: int(row["leaseCounter"]["N"]) for each, row in (await fleet.rows()).items()}
        fleet.pass_time(POLICY.failover_s * 0.9)
        await rounds(a, b)
        assert all(int(row["leaseCounter"]["N"]) > counters[each] for each, row in (await fleet.rows()).items())
    assert [a.shards, b.shards] == held


async def test_an_owner_that_does_not_give_loses_it_at_the_deadline(fleet: Fleet) -> None:
    shards = graph(*map(shard, range(4)))
    a = await fleet.start("a", shards, stubborn=True)
    await until(lambda: len(a.shards) == 4)
    b = await fleet.start("b", shards)
    await until(lambda: len(a.asked) == 2)
    assert all(0 < event.deadline_s < POLICY.handover_s for event in a.events if isinstance(event, Asked))
    await rounds(b)
    assert b.shards == set()
    while len(b.shards) < 2:
        fleet.pass_time(POLICY.renew_s)
        await rounds(a, b)
    assert b.shards == a.asked
    await until(lambda: a.shards == set(shards) - a.asked)


async def test_a_worker_under_its_old_name_goes_on_at_once(fleet: Fleet) -> None:
    shards = graph(shard(0), shard(1))
    a = await fleet.start("a", shards)
    await until(lambda: len(a.shards) == 2)
    a.line.cut = True
    again = await fleet.start("a", shards)
    await until(lambda: len(again.shards) == 2)


def kcl_row(number: int, checkpoint: str, *parents: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "leaseKey": {"S": name(number)},
        "leaseOwner": {"S": "kcl-worker"},
        "leaseCounter": {"N": "99"},
        "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "checkpoint": {"S": checkpoint},
        "checkpointSubSequenceNumber": {"N": "3"},
        "startingHashKey": {"S": "0"},
        "endingHashKey": {"S": str(LAST_HASH_KEY)},
        "throughputKBps": {"N": "12.5"},
    }
    return row | ({"parentShardId": {"SS": list(map(name, parents))}} if parents else {})


async def test_a_stopped_kcl_is_followed_where_it_was(fleet: Fleet) -> None:
    """Its name is still on every row, and it deleted the row of a parent that it had read to the end."""
    await fleet.put(kcl_row(1, "SHARD_END"), kcl_row(2, "123", 0), kcl_row(3, "TRIM_HORIZON", 0), kcl_row(4, "9", 1))
    a = await fleet.start("a", graph(shard(0), shard(1), shard(2, 0), shard(3, 0), shard(4, 1)))
    assert await a.keeper.starting_checkpoints() == {
        name(0): END,
        name(1): KclCheckpoint("SHARD_END", 3),
        name(2): KclCheckpoint("123", 3),
        name(3): KclCheckpoint("TRIM_HORIZON", 3),
        name(4): KclCheckpoint("9", 3),
    }
    await rounds(a)
    assert a.shards == set()
    assert a.keeper.owners() == dict.fromkeys(names(2, 3, 4), "kcl-worker")
    fleet.pass_time(POLICY.failover_s * 1.1)
    await until(lambda: a.shards == names(2, 3, 4))
    assert a.keeper.landed() == names(0, 1)
    rows = await fleet.rows()
    assert set(rows) == names(1, 2, 3, 4)
    assert rows[name(2)] == kcl_row(2, "123", 0) | {
        "leaseOwner": {"S": "a"},
        "leaseCounter": {"N": "100"},
        "ownerSwitchesSinceCheckpoint": {"N": "1"},
    }


async def test_where_no_kcl_was_there_is_no_checkpoint(fleet: Fleet) -> None:
    keeper = LeaseKeeper(LeaseTable(fleet.dynamodb, fleet.table), "a", POLICY)
    keeper.offer(graph(shard(0)))
    assert await keeper.starting_checkpoints() == {}
    tables = await fleet.dynamodb.list_tables()
    assert fleet.table not in tables["TableNames"]


async def test_rows_of_other_streams_of_the_same_kcl_are_left_alone(fleet: Fleet) -> None:
    stranger = kcl_row(0, "5") | {"leaseKey": {"S": f"123456789012:other:1700000000:{name(0)}"}}
    await fleet.put(stranger)
    a = await fleet.start("a", graph(shard(0)))
    await until(lambda: a.shards == names(0))
    fleet.pass_time(10 * POLICY.failover_s)
    await rounds(a)
    assert (await fleet.rows())[stranger["leaseKey"]["S"]] == stranger


async def test_children_that_only_another_worker_knows_are_taken_too(fleet: Fleet) -> None:
    known = graph(shard(0), shard(1))
    a = await fleet.start("a", known)
    b = await fleet.start("b", known)
    await until(lambda: len(a.shards) == len(b.shards) == 1)
    reader, other = (a, b) if name(0) in a.shards else (b, a)
    reader.keeper.offer(known | graph(shard(2, 0), shard(3, 0)))
    reader.end(0)
    await until(lambda: len(a.shards | b.shards) == 3)
    assert len(other.shards) == 2 or len(reader.shards) == 2
    reader.line.cut = True
    await rounds(other)
    fleet.pass_time(POLICY.failover_s * 1.1)
    await until(lambda: other.shards == names(1, 2, 3))


async def test_rows_of_shards_that_are_gone_from_the_stream_go(fleet: Fleet) -> None:
    a = await fleet.start("a", graph(shard(1), shard(2), shard(3, 1)))
    await until(lambda: a.shards == names(1, 2))
    a.end(1)
    await until(lambda: a.shards == names(2, 3))
    await fleet.put(kcl_row(0, "SHARD_END"), kcl_row(9, "SHARD_END"))
    a.keeper.offer(graph(shard(2), shard(3, 1)))
    await rounds(a)
    assert set(await fleet.rows()) == names(2, 3, 9)
    assert a.shards == names(2, 3)


async def test_no_more_leases_than_allowed(fleet: Fleet) -> None:
    shards = graph(*map(shard, range(3)))
    a = await fleet.start("a", shards, replace(POLICY, max_leases=2))
    await until(lambda: len(a.shards) == 2)
    assert a.keeper.problem is None
    fleet.pass_time(POLICY.failover_s * 1.1)
    await until(lambda: a.keeper.problem is not None)
    assert "1 shards" in str(a.keeper.problem)
    b = await fleet.start("b", shards)
    await until(lambda: len(b.shards) == 1 and a.keeper.problem is None)


async def test_a_given_lease_is_not_taken_back_at_once(fleet: Fleet) -> None:
    a = await fleet.start("a", graph(shard(0), shard(1)))
    await until(lambda: len(a.shards) == 2)
    a.keeper.give([name(0)])
    a.shards.discard(name(0))
    await rounds(a)
    assert "leaseOwner" not in (await fleet.rows())[name(0)]
    fleet.pass_time(POLICY.failover_s * 1.1)
    await until(lambda: len(a.shards) == 2)


async def test_checkpoints_are_written_soon_and_only_for_what_is_held(fleet: Fleet) -> None:
    a = await fleet.start("a", graph(shard(0), shard(1)))
    await until(lambda: len(a.shards) == 2)
    a.keeper.checkpoint({name(0): KclCheckpoint("1"), name(7): KclCheckpoint("1")})
    a.keeper.checkpoint({name(0): KclCheckpoint("2", 4)})
    await rounds(a)
    rows = await fleet.rows()
    assert (rows[name(0)]["checkpoint"], rows[name(0)]["checkpointSubSequenceNumber"]) == ({"S": "2"}, {"N": "4"})
    assert rows[name(1)]["checkpoint"] == {"S": TRIM_HORIZON}
    assert set(rows) == names(0, 1)
    assert a.shards == names(0, 1)


async def test_throttles_are_a_problem_that_passes(fleet: Fleet) -> None:
    a = await fleet.start("a", graph(shard(0)))
    await until(lambda: a.shards == names(0))
    a.line.codes = ["ProvisionedThroughputExceededException"] * 3
    await until(lambda: a.keeper.problem is not None)
    assert fleet.table in str(a.keeper.problem)
    await until(lambda: a.keeper.problem is None)
    assert a.shards == names(0)


async def test_a_missing_permission_ends_the_events(fleet: Fleet) -> None:
    a = Worker(Line(fleet.dynamodb), fleet.table, "a", POLICY, stubborn=False)
    a.keeper.offer(graph(shard(0)))
    async with a.keeper:
        a.line.codes = ["AccessDeniedException"] * 20
        with pytest.raises(SourceRefused, match="Allow dynamodb:"):
            async for _ in a.keeper.events():
                pass


async def test_cancelling_gives_everything_back(fleet: Fleet) -> None:
    keeper = LeaseKeeper(LeaseTable(fleet.dynamodb, fleet.table), "a", POLICY)
    keeper.offer(graph(shard(0), shard(1)))
    held = asyncio.Event()

    async def work() -> None:
        async with keeper:
            async for _ in keeper.events():
                held.set()

    task = asyncio.create_task(work())
    await held.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert not any("leaseOwner" in row for row in (await fleet.rows()).values())


async def test_leaving_does_not_wait_for_a_dynamodb_that_is_gone(fleet: Fleet) -> None:
    a = await fleet.start("a", graph(shard(0)))
    await until(lambda: a.shards == names(0))
    a.line.cut = True
    async with asyncio.timeout(20):
        await a.keeper.__aexit__(None, None, None)


async def test_a_table_that_is_deleted_is_made_and_filled_again(fleet: Fleet) -> None:
    a = await fleet.start("a", graph(shard(0)))
    await until(lambda: a.shards == names(0))
    await fleet.dynamodb.delete_table(TableName=fleet.table)
    await until(lambda: any(isinstance(event, Lost) for event in a.events) and a.shards == names(0))
    assert set(await fleet.rows()) == names(0)


async def test_rows_of_an_older_stream_of_the_name_are_replaced(fleet: Fleet) -> None:
    async with LeaseKeeper(LeaseTable(fleet.dynamodb, fleet.table), "old", POLICY) as old:
        old.offer(graph(shard(0), shard(1), shard(2, 0)), 1000)
        gained = await collect(old.events(), 1)
        assert gained == [Gained(frozenset(names(0, 1)))]
        old.checkpoint({name(0): END, name(1): KclCheckpoint("8")})
    a = Worker(Line(fleet.dynamodb), fleet.table, "a", POLICY, stubborn=False)
    a.keeper.offer(graph(shard(0), shard(1)), 2000)
    assert await a.keeper.starting_checkpoints() == {}
    async with a:
        await until(lambda: a.shards == names(0, 1))
        assert a.keeper.landed() == set()
        rows = await fleet.rows()
        assert {rows[each]["checkpoint"]["S"] for each in names(0, 1)} == {TRIM_HORIZON}
        assert {rows[each]["streamsvcStreamCreated"]["N"] for each in names(0, 1)} == {"2000"}
        await rounds(a)
        assert set(await fleet.rows()) == names(0, 1)
        late = LeaseKeeper(LeaseTable(fleet.dynamodb, fleet.table), "late", POLICY)
        late.offer(graph(shard(0), shard(1), shard(2, 0)), 1000)
        async with late:
            await until(lambda: late.problem is not None)
            await rounds(a)
        assert "created anew" in str(late.problem)
        assert a.shards == names(0, 1)


async def test_a_row_of_a_kcl_is_marked_when_it_is_taken(fleet: Fleet) -> None:
    await fleet.put(kcl_row(0, "123"))
    a = await fleet.start("a", graph(shard(0)))
    a.keeper.offer(graph(shard(0)), 3000)
    await rounds(a)
    fleet.pass_time(POLICY.failover_s * 1.1)
    await until(lambda: a.shards == names(0))
    row = (await fleet.rows())[name(0)]
    assert (row["streamsvcStreamCreated"], row["checkpoint"]) == ({"N": "3000"}, {"S": "123"})


async def collect(events: AsyncIterator[LeaseEvent], count: int) -> list[LeaseEvent]:
    return [await anext(events) for _ in range(count)]


async def test_without_leases_every_shard_is_ours_when_its_parents_have_ended() -> None:
    async with AllShards("me") as leases:
        leases.offer(graph(shard(0), shard(1), shard(2, 0, 1)))
        events = leases.events()
        assert await collect(events, 1) == [Gained(frozenset(names(0, 1)))]
        leases.checkpoint({name(0): KclCheckpoint("5")})
        leases.checkpoint({name(0): END})
        leases.give([name(1)])
        leases.checkpoint({name(1): END})
        leases.offer(graph(shard(1), shard(2, 0, 1), shard(3)))
        assert await collect(events, 2) == [Gained(frozenset(names(2))), Gained(frozenset(names(3)))]
        assert leases.landed() == names(0, 1)
        assert leases.owners() == {name(2): "me", name(3): "me"}
        assert await leases.starting_checkpoints() == {}
        assert leases.problem is None
