"""The lease table against moto's DynamoDB: the KCL's rows, conditions, throttles, and what is refused."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from streamsvc.core.kinesis_positions import SHARD_END, TRIM_HORIZON, KclCheckpoint
from streamsvc.core.kpl import LAST_HASH_KEY, HashRange
from streamsvc.core.leases import Lease
from streamsvc.errors import SourceRefused
from streamsvc.sources.kinesis.lease_table import LeaseTable
from tests.kinesis_emulators import DynamoDb, client

NEW = Lease(
    "shardId-000000000002",
    None,
    0,
    KclCheckpoint(TRIM_HORIZON),
    parents=frozenset({"shardId-000000000000", "shardId-000000000001"}),
    hashes=HashRange(0, LAST_HASH_KEY),
)

KCL_ROW: dict[str, dict[str, Any]] = {
    "leaseKey": {"S": "shardId-000000000007"},
    "leaseOwner": {"S": "ip-10-0-0-1:8f6e"},
    "leaseCounter": {"N": "4711"},
    "ownerSwitchesSinceCheckpoint": {"N": "3"},
    "checkpoint": {"S": "49590338271490256608559692538361571095921575989136588898"},
    "checkpointSubSequenceNumber": {"N": "12"},
    "parentShardId": {"SS": ["shardId-000000000001"]},
    "pendingCheckpoint": {"S": "49590338271490256608559692538361571095921575989136588899"},
    "pendingCheckpointSubSequenceNumber": {"N": "0"},
    "startingHashKey": {"S": "0"},
    "endingHashKey": {"S": "170141183460469231731687303715884105727"},
    "throughputKBps": {"N": "1.5E-5"},
    "checkpointOwner": {"S": "ip-10-0-0-2:17aa"},
    "entityType": {"S": "LEASE"},
}
"""As ``DynamoDBLeaseSerializer.toDynamoRecord`` makes it."""


@pytest.fixture
async def client_of_dynamodb(dynamodb: DynamoDb) -> AsyncIterator[Any]:
    async with client("dynamodb", dynamodb.endpoint_url) as opened:
        yield opened


@pytest.fixture
async def table(client_of_dynamodb: Any) -> LeaseTable:
    made = LeaseTable(client_of_dynamodb, f"app-{uuid.uuid4().hex[:8]}", sleep=lambda _: _now())
    await made.open()
    return made


async def row(table: LeaseTable, client_of_dynamodb: Any, shard: str) -> dict[str, Any]:
    answer = await client_of_dynamodb.get_item(TableName=table.name, Key={"leaseKey": {"S": shard}})
    return dict(answer.get("Item", {}))


async def test_the_table_is_made_as_the_kcl_makes_it(table: LeaseTable, client_of_dynamodb: Any) -> None:
    await table.open()
    made = (await client_of_dynamodb.describe_table(TableName=table.name))["Table"]
    assert made["TableStatus"] == "ACTIVE"
    assert made["KeySchema"] == [{"AttributeName": "leaseKey", "KeyType": "HASH"}]
    assert made["AttributeDefinitions"] == [{"AttributeName": "leaseKey", "AttributeType": "S"}]
    assert made["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert await table.scan() == []


async def test_a_new_row_is_what_the_kcl_would_write(table: LeaseTable, client_of_dynamodb: Any) -> None:
    await table.create(NEW)
    assert await row(table, client_of_dynamodb, NEW.shard) == {
        "leaseKey": {"S": NEW.shard},
        "leaseCounter": {"N": "0"},
        "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "checkpoint": {"S": "TRIM_HORIZON"},
        "checkpointSubSequenceNumber": {"N": "0"},
        "parentShardId": {"SS": ["shardId-000000000000", "shardId-000000000001"]},
        "startingHashKey": {"S": "0"},
        "endingHashKey": {"S": "340282366920938463463374607431768211455"},
    }
    assert await table.scan() == [NEW]


async def test_a_row_that_is_there_stays(table: LeaseTable) -> None:
    await table.create(NEW)
    taken = await table.take(NEW, "a")
    await table.create(NEW)
    assert await table.scan() == [taken]


async def test_a_row_of_the_kcl_is_taken_over_where_it_was(table: LeaseTable, client_of_dynamodb: Any) -> None:
    await client_of_dynamodb.put_item(TableName=table.name, Item=KCL_ROW)
    (lease,) = await table.scan()
    assert lease == Lease(
        "shardId-000000000007",
        "ip-10-0-0-1:8f6e",
        4711,
        KclCheckpoint("49590338271490256608559692538361571095921575989136588898", 12),
        parents=frozenset({"shardId-000000000001"}),
        hashes=HashRange(0, 2**127 - 1),
    )
    taken = await table.take(lease, "a")
    assert taken == replace(lease, owner="a", counter=4712)
    written = await table.checkpoint(
        taken, KclCheckpoint("49590338271490256608559692538361571095921575989136588900", 2)
    )
    assert written is not None
    after = await row(table, client_of_dynamodb, lease.shard)
    assert after == {
        **{name: value for name, value in KCL_ROW.items() if name != "checkpointOwner" and "pending" not in name},
        "leaseOwner": {"S": "a"},
        "leaseCounter": {"N": "4713"},
        "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "checkpoint": {"S": "49590338271490256608559692538361571095921575989136588900"},
        "checkpointSubSequenceNumber": {"N": "2"},
        "throughputKBps": {"N": "1.5E-5"},
    }


async def test_a_change_of_owner_is_counted_until_the_next_checkpoint(
    table: LeaseTable, client_of_dynamodb: Any
) -> None:
    await client_of_dynamodb.put_item(TableName=table.name, Item=KCL_ROW)
    (lease,) = await table.scan()
    assert await table.take(lease, "a")
    assert (await row(table, client_of_dynamodb, lease.shard))["ownerSwitchesSinceCheckpoint"] == {"N": "4"}


async def test_only_one_of_two_takes_a_lease(table: LeaseTable) -> None:
    await table.create(NEW)
    assert [await table.take(NEW, worker) is not None for worker in ("a", "b")] == [True, False]
    (lease,) = await table.scan()
    assert lease.owner == "a"


async def test_who_has_lost_a_lease_is_told_with_every_write(table: LeaseTable) -> None:
    await table.create(NEW)
    ours = await table.take(NEW, "a")
    assert ours is not None
    theirs = await table.take(ours, "b")
    assert await table.renew(ours) is None
    assert await table.checkpoint(ours, KclCheckpoint("1")) is None
    assert await table.give(ours) is None
    assert await table.scan() == [theirs]


async def test_an_ask_is_seen_by_the_owner_and_does_not_disturb_it(table: LeaseTable) -> None:
    await table.create(NEW)
    ours = await table.take(NEW, "a")
    assert ours is not None
    await table.ask(ours, "b")
    await table.ask(ours, "c")
    assert await table.scan() == [replace(ours, wanted_by="b")]
    renewed = await table.renew(ours)
    assert renewed == replace(ours, counter=2, wanted_by="b")
    given = await table.give(renewed)
    assert given == replace(renewed, owner=None, counter=3)
    assert await table.take(given, "b") == replace(given, owner="b", counter=4, wanted_by=None)


async def test_an_ask_of_who_no_longer_has_it_is_not_written(table: LeaseTable) -> None:
    await table.create(NEW)
    ours = await table.take(NEW, "a")
    assert ours is not None
    theirs = await table.take(ours, "b")
    await table.ask(ours, "c")
    assert await table.scan() == [theirs]


async def test_an_ended_shard_is_nobodys(table: LeaseTable, client_of_dynamodb: Any) -> None:
    await table.create(NEW)
    ours = await table.take(NEW, "a")
    assert ours is not None
    await table.ask(ours, "b")
    ended = await table.checkpoint(ours, KclCheckpoint(SHARD_END), ["d", "c"])
    assert ended == replace(ours, owner=None, counter=2, checkpoint=KclCheckpoint(SHARD_END), children=frozenset("cd"))
    assert "leaseOwner" not in await row(table, client_of_dynamodb, NEW.shard)
    await table.delete(ended)
    assert await table.scan() == []


async def test_a_lease_that_changed_is_not_deleted(table: LeaseTable) -> None:
    await table.create(NEW)
    taken = await table.take(NEW, "a")
    await table.delete(NEW)
    assert await table.scan() == [taken]


async def test_many_rows_come_in_pages(table: LeaseTable, client_of_dynamodb: Any) -> None:
    padding = "x" * 300_000
    for number in range(8):
        item = {**KCL_ROW, "leaseKey": {"S": f"shardId-{number:012}"}, "padding": {"S": padding}}
        await client_of_dynamodb.put_item(TableName=table.name, Item=item)
    first_page = await client_of_dynamodb.scan(TableName=table.name)
    assert first_page.get("LastEvaluatedKey")
    assert len(await table.scan()) == 8


async def test_what_newer_kcls_keep_beside_leases_is_not_looked_at(table: LeaseTable, client_of_dynamodb: Any) -> None:
    stranger = {"leaseKey": {"S": "worker-1"}, "entityType": {"S": "WORKER_METRIC_STATS"}}
    await client_of_dynamodb.put_item(TableName=table.name, Item=stranger)
    assert await table.scan() == []


async def test_a_table_of_something_else_is_refused(table: LeaseTable, client_of_dynamodb: Any) -> None:
    await client_of_dynamodb.put_item(TableName=table.name, Item={"leaseKey": {"S": "mine"}, "color": {"S": "red"}})
    with pytest.raises(SourceRefused, match="row=mine"):
        await table.scan()


async def test_a_table_that_is_deleted_is_made_again(table: LeaseTable, client_of_dynamodb: Any) -> None:
    await client_of_dynamodb.delete_table(TableName=table.name)
    assert await table.scan() == []


class Scripted:
    """A client whose next calls fail as told: before they are made, or after, when only the answer is lost."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.before: list[Exception] = []
        self.after: list[Exception] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(**parameters: Any) -> Any:
            if self.before:
                raise self.before.pop(0)
            answer = await method(**parameters)
            if self.after:
                raise self.after.pop(0)
            return answer

        return call


def answer(code: str, status: int = 400) -> ClientError:
    said = "User: arn:aws:iam::1:user/u is not authorized" if "Denied" in code else ""
    parsed: Any = {"Error": {"Code": code, "Message": said}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(parsed, "Any")


@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "ThrottlingException", "InternalServerError"]
)
async def test_throttles_are_waited_out_ever_longer(table: LeaseTable, client_of_dynamodb: Any, code: str) -> None:
    await table.create(NEW)
    scripted = Scripted(client_of_dynamodb)
    waits: list[float] = []
    problems: list[str | None] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        problems.append(patient.problem)

    patient = LeaseTable(scripted, table.name, sleep=sleep)
    scripted.before = [answer(code, 500 if code.startswith("Internal") else 400) for _ in range(8)]
    assert await patient.scan() == [NEW]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert all(problem and table.name in problem for problem in problems)
    assert patient.problem is None
    assert patient.failures == 8


async def test_a_write_whose_answer_was_lost_meets_itself(table: LeaseTable, client_of_dynamodb: Any) -> None:
    scripted = Scripted(client_of_dynamodb)
    unsure = LeaseTable(scripted, table.name, sleep=lambda _: _now())

    def lose() -> None:
        scripted.after = [ReadTimeoutError(endpoint_url="http://127.0.0.1")]

    await table.create(NEW)
    lose()
    taken = await unsure.take(NEW, "a")
    assert taken == replace(NEW, owner="a", counter=1)
    lose()
    renewed = await unsure.renew(taken)
    assert renewed == replace(taken, counter=2)
    lose()
    written = await unsure.checkpoint(renewed, KclCheckpoint("9", 1))
    assert written == replace(renewed, counter=3, checkpoint=KclCheckpoint("9", 1))
    lose()
    assert await unsure.give(written) == replace(written, owner=None, counter=4)


async def _now() -> None: ...


async def test_a_missing_permission_is_named(table: LeaseTable, client_of_dynamodb: Any) -> None:
    scripted = Scripted(client_of_dynamodb)
    refused = LeaseTable(scripted, table.name)
    scripted.before = [answer("AccessDeniedException")]
    with pytest.raises(SourceRefused) as scan:
        await refused.scan()
    assert "dynamodb:Scan" in str(scan.value)
    assert table.name in str(scan.value)
    scripted.before = [answer("AccessDeniedException")]
    with pytest.raises(SourceRefused, match="dynamodb:UpdateItem"):
        await refused.take(NEW, "a")
    assert refused.problem is None
