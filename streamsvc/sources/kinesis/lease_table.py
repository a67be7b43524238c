"""The lease table in DynamoDB: rows are read all at once, and written one by one, each on a condition."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias

import structlog
from botocore.exceptions import ClientError

from streamsvc.core.kinesis_positions import KclCheckpoint
from streamsvc.core.leases import Lease
from streamsvc.core.shards import ShardId
from streamsvc.errors import Retryable
from streamsvc.sources.kinesis import failures, lease_rows
from streamsvc.sources.kinesis.lease_rows import lease_of, row_of

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
_CONDITION = "ConditionalCheckFailedException"

_Method: TypeAlias = Callable[..., Awaitable[Mapping[str, Any]]]

log = structlog.get_logger(__name__)


class LeaseTable:
    """Rows of one KCL application, whose name is the table's.

    Methods wait for as long as DynamoDB throttles or does not answer, and say so in ``problem``. They raise
    ``SourceRefused``: a permission is missing (its hint names the action), or a row is not the KCL's. A write says
    whether it was done: one that is repeated after a lost answer meets its own row, and knows it. Cancelling a write
    leaves unknown whether it was done.

    dynamodb: an open client of aiobotocore, which is not closed here
    failures: how many calls failed and were made again
    """

    def __init__(self, dynamodb: Any, name: str, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._dynamodb = dynamodb
        self._sleep = sleep
        self._failing: dict[object, str] = {}
        self.name = name
        self.failures = 0

    @property
    def problem(self) -> str | None:
        """Why DynamoDB is being waited for, in words."""
        return next((f"the lease table {self.name}: {what}" for what in self._failing.values()), None)

    async def exists(self) -> bool:
        return await self._status() is not None

    async def open(self) -> None:
        """Makes the table if it is missing (billed on demand), and waits until it can be used."""
        opening = object()
        wait_s = FIRST_WAIT_S
        try:
            while (status := await self._status()) not in ("ACTIVE", "UPDATING"):
                if status is None:
                    await self._make()
                self._failing[opening] = f"it is {status or 'being made'}"
                await self._sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        finally:
            self._failing.pop(opening, None)

    async def scan(self) -> list[Lease]:
        """All leases, as they were at or after the call."""
        found: list[Lease] = []
        page: dict[str, Any] = {}
        while True:
            answer = await self._call("Scan", self._dynamodb.scan, ConsistentRead=True, **page)
            leases = (lease_of(row, self.name) for row in answer.get("Items", ()))
            found.extend(lease for lease in leases if lease is not None)
            if not answer.get("LastEvaluatedKey"):
                return found
            page = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def create(self, lease: Lease, instead_of: Lease | None = None) -> None:
        """A row for a shard that has none, or that one as it was seen. One that has another keeps it."""
        seen = {":seen": {"N": str(instead_of.counter)}} if instead_of else {}
        await self._write(
            "PutItem",
            self._dynamodb.put_item,
            Item=row_of(lease),
            ConditionExpression="#name = :seen" if instead_of else "attribute_not_exists(#name)",
            ExpressionAttributeNames={"#name": lease_rows.COUNTER if instead_of else lease_rows.KEY},
            **({"ExpressionAttributeValues": seen} if seen else {}),
        )

    async def delete(self, lease: Lease) -> None:
        """Unless it has changed."""
        await self._write(
            "DeleteItem",
            self._dynamodb.delete_item,
            Key={lease_rows.KEY: {"S": lease.shard}},
            ConditionExpression="#counter = :seen",
            ExpressionAttributeNames={"#counter": lease_rows.COUNTER},
            ExpressionAttributeValues={":seen": {"N": str(lease.counter)}},
        )

    async def take(self, lease: Lease, worker: str, stream_created_s: int | None = None) -> Lease | None:
        """The lease as ours; ``None`` if its owner or another worker was faster. The row is marked as that stream's."""
        change = _Change(lease).put(lease_rows.OWNER, {"S": worker})
        change.remove(lease_rows.WANTED_BY, lease_rows.CHECKPOINT_OWNER)
        if lease.owner not in (None, worker):
            change.count(lease_rows.SWITCHES)
        if stream_created_s is not None:
            change.put(lease_rows.STREAM, {"N": str(stream_created_s)})
        return await self._update(change, worker)

    async def renew(self, lease: Lease) -> Lease | None:
        """``None``: it is no longer ours."""
        return await self._update(_Change(lease), lease.owner)

    async def checkpoint(
        self, lease: Lease, checkpoint: KclCheckpoint, children: Iterable[ShardId] = ()
    ) -> Lease | None:
        """Renews it, too. With ``SHARD_END`` it is given back. ``None``: it is no longer ours."""
        change = _Change(lease).put(lease_rows.CHECKPOINT, {"S": checkpoint.sequence})
        change.put(lease_rows.SUB_SEQUENCE, {"N": str(checkpoint.sub)}).put(lease_rows.SWITCHES, {"N": "0"})
        change.remove(*lease_rows.PENDING)
        if names := sorted(children):
            change.put(lease_rows.CHILDREN, {"SS": names})
        if checkpoint.ended:
            change.remove(lease_rows.OWNER, lease_rows.WANTED_BY)
        return await self._update(change, None if checkpoint.ended else lease.owner)

    async def give(self, lease: Lease) -> Lease | None:
        """The lease without an owner; ``None``: it was no longer ours."""
        return await self._update(_Change(lease).remove(lease_rows.OWNER), None)

    async def ask(self, lease: Lease, worker: str) -> None:
        """Tells the owner that ``worker`` waits for it, unless another one does already, or the owner is another."""
        await self._write(
            "UpdateItem",
            self._dynamodb.update_item,
            Key={lease_rows.KEY: {"S": lease.shard}},
            UpdateExpression="SET #wanted = :worker",
            ConditionExpression="#owner = :owner AND attribute_not_exists(#wanted)",
            ExpressionAttributeNames={"#wanted": lease_rows.WANTED_BY, "#owner": lease_rows.OWNER},
            ExpressionAttributeValues={":worker": {"S": worker}, ":owner": {"S": lease.owner}},
        )

    async def _update(self, change: _Change, owner_after: str | None) -> Lease | None:
        answer = await self._write(
            "UpdateItem",
            self._dynamodb.update_item,
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            **change.request(),
        )
        if done := answer.get("Attributes"):
            return lease_of(done, self.name)
        standing = lease_of(answer["Item"], self.name) if answer.get("Item") else None
        ours = (owner_after, change.lease.counter + 1)
        return standing if standing is not None and (standing.owner, standing.counter) == ours else None

    async def _status(self) -> str | None:
        try:
            answer = await self._call("DescribeTable", self._dynamodb.describe_table, let_through=failures.NOT_FOUND)
        except ClientError:
            return None
        return str(answer["Table"]["TableStatus"])

    async def _make(self) -> None:
        log.info("making the lease table", table=self.name)
        with contextlib.suppress(ClientError):  # another worker was faster
            await self._call(
                "CreateTable",
                self._dynamodb.create_table,
                let_through=failures.IN_USE,
                KeySchema=[{"AttributeName": lease_rows.KEY, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": lease_rows.KEY, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )

    async def _write(self, operation: str, method: _Method, **parameters: Any) -> Mapping[str, Any]:
        """``Item``: what stands there, if the condition does not hold and it was asked for."""
        try:
            return await self._call(operation, method, let_through=_CONDITION, **parameters)
        except ClientError as error:
            return {"Item": error.response.get("Item")}

    async def _call(
        self, operation: str, method: _Method, *, let_through: str = "", **parameters: Any
    ) -> Mapping[str, Any]:
        """let_through: the code of an answer that the caller knows what to do with; raised as ``ClientError``."""
        call = object()
        wait_s = FIRST_WAIT_S
        try:
            while True:
                try:
                    return await method(TableName=self.name, **parameters)
                except failures.FOREIGN as error:
                    if (code := failures.code_of(error)) == let_through:
                        raise
                    problem = failures.mapped(error, f"dynamodb:{operation}", table=self.name)
                if code == failures.NOT_FOUND:
                    log.warning("the lease table is gone", table=self.name)
                    await self.open()
                elif not isinstance(problem, Retryable):
                    raise problem
                self.failures += 1
                self._failing[call] = problem.what
                await self._sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        finally:
            self._failing.pop(call, None)


class _Change:
    """An update of the row as it was seen, which raises its counter."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self._names = {"#counter": lease_rows.COUNTER}
        self._values = {":seen": {"N": str(lease.counter)}, ":next": {"N": str(lease.counter + 1)}}
        self._puts = ["#counter = :next"]
        self._removed: list[str] = []
        self._added: list[str] = []

    def put(self, name: str, value: dict[str, Any]) -> _Change:
        self._names[f"#{name}"] = name
        self._values[f":{name}"] = value
        self._puts.append(f"#{name} = :{name}")
        return self

    def remove(self, *names: str) -> _Change:
        self._names.update({f"#{name}": name for name in names})
        self._removed += [f"#{name}" for name in names]
        return self

    def count(self, name: str) -> _Change:
        self._names[f"#{name}"] = name
        self._values[":one"] = {"N": "1"}
        self._added.append(f"#{name} :one")
        return self

    def request(self) -> dict[str, Any]:
        parts = {"SET": self._puts, "REMOVE": self._removed, "ADD": self._added}
        names = self._names | {"#owned": lease_rows.OWNER}
        values = self._values
        owned = "attribute_not_exists(#owned)"
        if self.lease.owner is not None:
            values = values | {":owner": {"S": self.lease.owner}}
            owned = "#owned = :owner"
        return {
            "Key": {lease_rows.KEY: {"S": self.lease.shard}},
            "UpdateExpression": " ".join(f"{verb} {', '.join(part)}" for verb, part in parts.items() if part),
            "ConditionExpression": f"#counter = :seen AND {owned}",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }
