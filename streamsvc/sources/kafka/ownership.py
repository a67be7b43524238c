"""Which splits are ours. The member knows partitions; here they get the names of their splits, and are watched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Protocol

from streamsvc.contracts import Assigned, Revoked, SplitEvent
from streamsvc.errors import Retryable, SourceRefused
from streamsvc.records import Split
from streamsvc.sources.kafka.member import Gained, Leaving, MemberEvent
from streamsvc.sources.kafka.splits import Partition, parse_split
from streamsvc.sources.kafka.topics import Described, Topics

CHECK_S = 5.0
"""How often the topics are looked at: whether they are there, and still the same ones."""

RETRY_S = 1.0
TOPIC_GRACE_S = 10.0
"""A topic that was just created, or is being created anew, may be missing for a moment."""

NO_NEWS_S = 15.0
"""With KIP-848 a member to which the group gives nothing is not told so: no news for so long says it."""


@dataclass(slots=True)
class Health:
    """``problem``: why nothing may be coming, in words; ``None`` while the brokers answer.

    has_place: the group has told this member what is its own, which is nothing where there are more members than
               partitions
    """

    problem: str | None = "not connected yet"
    was_connected: bool = False
    has_place: bool = False


class Stops(Protocol):
    def stop(self, splits: Iterable[Split]) -> None: ...


class Releases(Protocol):
    def release(self, partitions: Iterable[Partition]) -> None: ...


class Ownership:
    """All calls come from the event loop. ``run`` raises ``SourceRefused``."""

    def __init__(self, topics: Topics, reader: Stops, member: Releases, health: Health) -> None:
        self.events: asyncio.Queue[SplitEvent | BaseException] = asyncio.Queue()
        self._topics = topics
        self._reader = reader
        self._member = member
        self._health = health
        self._inbox: asyncio.Queue[MemberEvent | None] = asyncio.Queue()
        self._named: dict[Partition, Split] = {}
        self._unnamed: set[Partition] = set()
        self._leaving: dict[Split, float] = {}
        self._missing_since: dict[str, float] = {}
        self._connected_at = 0.0

    def post(self, event: MemberEvent) -> None:
        """The member gained or loses partitions."""
        self._inbox.put_nowait(event)

    def look(self) -> None:
        """Something may be wrong with the topics: look at them now."""
        self._inbox.put_nowait(None)

    def has(self, split: Split) -> bool:
        return self._named.get(parse_split(split).partition) == split

    def may_commit(self, split: Split) -> bool:
        return split in self._leaving or self.has(split)

    def release(self, splits: Iterable[Split]) -> None:
        """Let go of those that are leaving."""
        leaving = [split for split in splits if self._leaving.pop(split, None) is not None]
        self._reader.stop(leaving)
        self._member.release([parse_split(split).partition for split in leaving])

    async def run(self) -> None:
        while True:
            if isinstance(event := await self._next_event(), Leaving):
                self._give_up(event)
                continue
            if isinstance(event, Gained):
                self._health.has_place = True
                self._unnamed.update(event.partitions)
            await self._check()

    async def _next_event(self) -> MemberEvent | None:
        wait_s = RETRY_S if self._unnamed or self._missing_since or self._health.problem else CHECK_S
        try:
            async with asyncio.timeout(wait_s):
                return await self._inbox.get()
        except TimeoutError:
            return None

    def _give_up(self, event: Leaving) -> None:
        self._unnamed.difference_update(event.partitions)
        splits = tuple(self._named.pop(partition) for partition in event.partitions if partition in self._named)
        left_s = event.deadline - time.monotonic()
        if left_s > 0:
            self._leaving.update(dict.fromkeys(splits, event.deadline))
            self._member.release(set(event.partitions) - {parse_split(split).partition for split in splits})
            asyncio.get_running_loop().call_later(left_s, self._release_overdue, event.deadline)
        else:
            self._reader.stop(splits)
        if splits:
            self.events.put_nowait(Revoked(splits, max(0.0, left_s)))

    def _release_overdue(self, deadline: float) -> None:
        self.release([split for split, due in self._leaving.items() if due == deadline])

    async def _check(self) -> None:
        try:
            described = await self._topics.describe()
        except Retryable as error:
            self._health.problem = error.what
            return
        self._note_connection()
        self._judge_missing(described.missing)
        self._give_up_recreated(described)
        named = self._unnamed & described.splits.keys()
        self._unnamed -= named
        self._take_over({partition: described.splits[partition] for partition in sorted(named)})

    def _note_connection(self) -> None:
        if not self._health.was_connected:
            self._connected_at = time.monotonic()
        self._health.problem = None
        self._health.was_connected = True
        self._health.has_place |= time.monotonic() - self._connected_at > NO_NEWS_S

    def _judge_missing(self, missing: Set[str]) -> None:
        now = time.monotonic()
        self._missing_since = {topic: self._missing_since.get(topic, now) for topic in missing}
        for topic, since in self._missing_since.items():
            if now - since > TOPIC_GRACE_S:
                what = f"there is no such topic: {topic}"
                raise SourceRefused(what, hint="create it, or correct `topics`", topic=topic)

    def _give_up_recreated(self, described: Described) -> None:
        """A topic of the same name with another id: its partitions are other splits, the old ones are gone."""
        renamed = {
            partition: described.splits[partition]
            for partition, split in self._named.items()
            if described.splits.get(partition, split) != split
        }
        if renamed:
            gone = tuple(self._named[partition] for partition in renamed)
            self._reader.stop(gone)
            self.events.put_nowait(Revoked(gone, 0.0))
            self._take_over(renamed)

    def _take_over(self, named: dict[Partition, Split]) -> None:
        self._named.update(named)
        if named:
            self.events.put_nowait(Assigned(tuple(named.values())))
