"""What the KCL does for its application, played on the server of this process: leases, checkpoints, records in order.

Each member has a daemon of its own, whose lines are said here (``ScriptedKcl``). Members share shards evenly; one that
has too many is asked for a shard, as KCL 3 does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson

from streamsvc.contracts import Source
from streamsvc.sources.kinesis.kcl.settings import DaemonSettings
from streamsvc.sources.kinesis.kcl.source import KclSource
from streamsvc.testing.kinesis_server.shards import Shard
from streamsvc.testing.scripted_kcl import ScriptedKcl, ScriptedShard
from tests.kinesis_sources import Scene

SETTINGS = DaemonSettings(stream="access", application="app", table="app", worker="w", region="us-east-1")
RECORDS = 7


@dataclass(eq=False)
class Member:
    """``asked``: it shall give this shard."""

    kcl: ScriptedKcl
    leases: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    leaving: bool = False


class KclGroup:
    def __init__(self, scene: Scene, hold_s: float) -> None:
        self._scene = scene
        self._hold_s = hold_s
        self._members: list[Member] = []
        self._checkpoints: dict[str, tuple[str, int]] = {}

    @asynccontextmanager
    async def member(self, start: str) -> AsyncIterator[Source]:
        stream = self._scene.source(joins=False, start=start)
        async with ScriptedKcl() as kcl:
            kcl.obeys = False
            source = KclSource(stream, SETTINGS, kcl.command, queue_bytes=1024 * 1024, hold_s=self._hold_s)
            member = Member(kcl)
            async with source:
                await kcl.restarted()
                self._members.append(member)
                self._balance()
                ending = asyncio.create_task(self._end_in_order(member))
                yield source
            ending.cancel()
            member.leaving = True
            await asyncio.gather(ending, *member.leases.values(), return_exceptions=True)
            self._members.remove(member)
            self._balance()

    async def _end_in_order(self, member: Member) -> None:
        """What the daemon does when it is asked to end, and not killed."""
        await member.kcl.asked_to_end()
        member.leaving = True

    def _balance(self) -> None:
        """Free shards go to who has the fewest; who has two more than another is asked for one."""
        members = [member for member in self._members if not member.leaving]
        owned = {shard for member in self._members for shard in member.leases}
        for shard in self._scene.shards:
            if members and shard.id not in owned:
                least = min(members, key=lambda member: len(member.leases))
                least.leases[shard.id] = asyncio.create_task(self._lease(least, shard))
        if members:
            most = max(members, key=lambda member: len(member.leases) - len(member.asked))
            least = min(members, key=lambda member: len(member.leases))
            if len(most.leases) - len(most.asked) - len(least.leases) > 1:
                most.asked.add(max(most.leases))

    async def _lease(self, member: Member, shard: Shard) -> None:
        sequence, sub = self._checkpoints.get(shard.id, ("TRIM_HORIZON", 0))
        scripted = await member.kcl.start(shard.id, sequence, sub)
        place = shard.first_place if sequence == "TRIM_HORIZON" else shard.place_after(int(sequence))
        while shard.id not in member.asked and not member.leaving:
            place = await self._give(scripted, shard, max(place, shard.first_place))
            await asyncio.sleep(0.01)
        await scripted.ask({"action": "shutdownRequested"})
        self._note(shard, scripted)
        await scripted.ask({"action": "leaseLost"})
        scripted.hang_up()
        del member.leases[shard.id]
        member.asked.discard(shard.id)
        self._balance()

    async def _give(self, scripted: ScriptedShard, shard: Shard, place: int) -> int:
        answer = shard.read(place, RECORDS, 1024 * 1024)
        rows = [
            {
                "action": "record",
                "data": row["Data"],
                "partitionKey": row["PartitionKey"],
                "sequenceNumber": row["SequenceNumber"],
                "subSequenceNumber": 0,
                "approximateArrivalTimestamp": round(row["ApproximateArrivalTimestamp"] * 1000),
            }
            for row in map(orjson.loads, answer.pieces)
        ]
        behind_ms = 0 if answer.next >= shard.end else 1000
        await scripted.ask({"action": "processRecords", "records": rows, "millisBehindLatest": behind_ms})
        self._note(shard, scripted)
        return answer.next

    def _note(self, shard: Shard, scripted: ScriptedShard) -> None:
        if scripted.checkpoints:
            sequence, sub = scripted.checkpoints[-1]
            assert sequence is not None
            self._checkpoints[shard.id] = (sequence, sub or 0)
