"""The segment log: exactly once on plain object storage, by objects that are only ever created.

A segment is planned, claims a key of the log for each of its splits, writes its data objects when it holds them all,
and ends with an outcome. Any number of workers may use the log at once, none of which needs to know of another;
wherever one of them stops, for good or for a day, the others go on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

import orjson

from streamsvc.contracts import ObjectStore
from streamsvc.core.log_keys import (
    OWNER_KEY,
    START_KEY,
    Cursor,
    config_key,
    loss_key,
    outcome_key,
    partials_key,
    plan_key,
)
from streamsvc.core.redirects import Redirect, redirect_key
from streamsvc.core.segments import (
    Claim,
    Loss,
    Losses,
    Outcome,
    Owner,
    Plan,
    Range,
    Standing,
    Start,
    abort,
    commit,
    is_overtaken,
)
from streamsvc.errors import Fenced, ForeignState, LogCorrupt
from streamsvc.log.folder import LogFolder
from streamsvc.log.patience import Sleep, concurrently
from streamsvc.log.reader import digest_of
from streamsvc.records import ObjectInfo, Position, Split

_SEGMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")


LOOKS = 10
"""So often in a landing time is looked whether a segment of another worker has landed."""


def new_segment_name() -> str:
    """A name that was never used before; in text order of time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:12]}"


class Finish(Protocol):
    def __call__(self, plan: Plan, /) -> Awaitable[list[ObjectInfo]]:
        """Read all ranges of the plan again, under its stored configuration, and publish every object.

        It may be called again, and by several workers at once. It may raise ``PositionLost`` or ``ForeignVersion``.
        """
        ...


class SegmentLog(LogFolder):
    """The log as a worker uses it. ``begin`` comes first.

    A cancelled call equals a crash at that place: the log stays right, and ``recover`` goes on from there. Every call
    waits out ``StoreUnavailable``; ``StoreRefused`` and ``LogCorrupt`` (both ``Fatal``) come through.

    worker:    who we are, in plans and outcomes; for people, and to tell a segment of ours from others'
    landing_s: how long a segment of another worker may take to land before we finish it
    """

    def __init__(
        self,
        store: ObjectStore,
        worker: str,
        first_position: Position,
        *,
        landing_s: float,
        sleep: Sleep = asyncio.sleep,
        name_segment: Callable[[], str] = new_segment_name,
    ) -> None:
        super().__init__(store, first_position, sleep=sleep)
        self._worker = worker
        self._landing_s = landing_s
        self._sleep = sleep
        self._name_segment = name_segment

    @property
    def worker(self) -> str:
        return self._worker

    @property
    def landing_s(self) -> float:
        return self._landing_s

    async def enter(self, group: str, reads: Callable[[Split], bool]) -> None:
        """Make sure that this log is ours, before anything is read. To be called by whoever is going to land.

        Raises ``ForeignState``: it belongs to another group, and who does not share the splits fences the other for
        ever; or of all splits that it knows none is one that we read, so that it would be two logs in one.
        """
        strange = await self._stranger(reads)
        if strange is not None:
            raise ForeignState(
                "the state belongs to another pipeline: it holds other topics or another stream",
                hint="Give this pipeline another name, or the service another `state`. To go on under this name all the"
                " same, keep one of the former topics in `topics` until a record of the new ones has landed.",
                known=strange,
                group=group,
            )
        standing = await self._store.create(OWNER_KEY, Owner(group).to_json())
        owner = Owner.from_json(standing, key=OWNER_KEY).group
        if owner != group:
            raise ForeignState(
                "the state belongs to another service",
                hint="Give this pipeline another name, or the service another `state`. If it is the same one under a"
                " new name, let it keep its `group` (Kinesis: `application`); or, once nobody runs under the other any"
                " more, delete the object.",
                key=OWNER_KEY,
                owner=owner,
                ours=group,
            )

    async def _stranger(self, reads: Callable[[Split], bool]) -> Split | None:
        """A split that the log knows, if it knows none that is ours."""
        start = await self._started()
        if start is None or any(map(reads, start.positions)):
            return None
        known = await self.known_splits()
        return None if any(map(reads, known)) else next(iter(known), None)

    async def begin(self, first_positions: Callable[[], Awaitable[Mapping[Split, Position]]]) -> None:
        """Fix where the splits begin. ``first_positions`` is asked only if no worker has ever done so."""
        if await self._started() is None:
            start = Start(dict(await first_positions()))
            self._start = Start.from_json(await self._store.create(START_KEY, start.to_json()), key=START_KEY)

    async def save_config(self, document: Mapping[str, Any]) -> str:
        """Keep what decoding, transforming and placing mean. Answers the digest that plans name it by."""
        body = orjson.dumps(dict(document), option=orjson.OPT_SORT_KEYS)
        digest = digest_of(body)
        await self._store.create(config_key(digest), body)
        return digest

    # Landing

    async def plan(
        self,
        segment: str,
        ranges: Mapping[Split, Range],
        *,
        config: str,
        decode_version: int,
        landed: Mapping[Split, Iterable[int]] | None = None,
        windows: Sequence[int] = (),
    ) -> Plan:
        """A plan, not yet stored. Plan only when the segment before it is committed, from where that one ended.

        segment: a name that was never used and never will be; in text order of time, for ``history``
        ranges:  splits whose position did not move may be left out; at least one is needed
        landed:  in a replay, the records that it lands of each reject object, none of them landed before
        windows: starts of the windows of which it has partials
        """
        if not _SEGMENT_NAME.fullmatch(segment):
            raise ValueError(f"not the name of a segment: {segment!r}")
        if not ranges:
            raise ValueError(f"segment {segment} has no range")
        for split, wanted in ranges.items():
            if wanted.to < wanted.cursor.position:
                raise ValueError(f"a range of {split} ends before it begins: {wanted}")
        numbers = {split: frozenset(records) for split, records in (landed or {}).items()}
        return Plan(segment, dict(ranges), config, decode_version, self._worker, numbers, windows=list(windows))

    async def save_partials(self, segment: str, body: bytes) -> None:
        """Keep what the segment makes of windows, as part of its ``write``. Whoever finishes it keeps the same."""
        await self._store.create(partials_key(segment), body)

    async def land(self, plan: Plan, write: Callable[[], Awaitable[list[ObjectInfo]]]) -> Outcome:
        """Store the plan, claim its ranges, write its objects, decide. Answers the outcome that stands.

        ``write`` is called when all claims are held, and again after ``StoreUnavailable``. An outcome ``aborted`` says
        that another worker has had one of the splits: drop what is buffered of them and ``recover`` them.
        """
        await self._save_plan(plan)
        return await self._decide(plan, write)

    async def _save_plan(self, plan: Plan) -> None:
        key = plan_key(plan.segment)
        standing = Plan.from_json(await self._store.create(key, plan.to_json()), key=key)
        if standing != plan:
            raise LogCorrupt("two segments have one name", hint="Never use the name of a segment again.", key=key)

    async def _decide(self, plan: Plan, write: Callable[[], Awaitable[list[ObjectInfo]]]) -> Outcome:
        """Whoever runs this for a plan, and however often: it ends one way, and its objects are made once.

        Data is written only if all claims are held and no checkpoint is past one, so what is visible is going to be
        committed. The order matters: a claim that was folded and deleted can be made again, but then the
        checkpoint is older than it.
        """
        obstacle = await self._claim_all(plan) or await self._overtaken(plan)
        if obstacle:
            return await self._end(abort(plan, obstacle, self._worker))
        objects = await self._store.until_known(write)
        return await self._end(commit(plan, objects, await self._loss(plan.segment), self._worker))

    async def _claim_all(self, plan: Plan) -> str:
        """What keeps the segment from holding all its claims; empty if nothing does."""
        keys = plan.claim_keys()
        holders = await concurrently(partial(self._claim, segment=plan.segment), keys)
        lost = [
            f"{key} is held by {holder}" for key, holder in zip(keys, holders, strict=True) if holder != plan.segment
        ]
        return "; ".join(lost)

    async def _claim(self, key: str, segment: str) -> str:
        """The segment that holds the key from now on."""
        return Claim.from_json(await self._store.create(key, Claim(segment).to_json()), key=key).segment

    async def _overtaken(self, plan: Plan) -> str:
        newest = await self.newest()
        return f"checkpoint {newest.number} is past one of its claims" if is_overtaken(plan, newest) else ""

    async def _end(self, outcome: Outcome) -> Outcome:
        key = outcome_key(outcome.segment)
        return Outcome.from_json(await self._store.create(key, outcome.to_json()), key=key)

    # Recovery

    async def recover(self, split: Split, finish: Finish) -> Cursor:
        """Where the split's next claim goes, once nothing on the way is without an outcome."""
        return (await self.recover_all([split], finish))[split]

    async def recover_all(self, splits: Iterable[Split], finish: Finish) -> dict[Split, Cursor]:
        """``recover`` for many: they share reads, the wait for segments that are landing, and what is finished."""
        standings = await self.recover_standings(splits, finish)
        return {split: standing.cursor for split, standing in standings.items()}

    async def recover_standings(
        self, splits: Iterable[Split], finish: Finish, before: Container[str] = ()
    ) -> dict[Split, Standing]:
        """Where these splits stand, once nothing on the way is without an outcome.

        A segment of another worker is left to it for one landing time, then finished here: its claims completed, its
        ranges read again by ``finish``, its outcome created. Segments of ``before`` are left pending, as they are.
        """
        known: dict[Split, Standing] = {}
        waited_for: set[str] = set()
        while left := [split for split in dict.fromkeys(splits) if split not in known]:
            pending: dict[str, Plan] = {}
            for split, standing in (await self.standings(left)).items():
                if standing.pending is None or standing.pending.segment in before:
                    known[split] = standing
                else:
                    pending[standing.pending.segment] = standing.pending
            landing = {name for name, plan in pending.items() if plan.worker != self._worker} - waited_for
            if landing:
                await self._leave_time(landing)
                waited_for |= landing
                continue
            for plan in pending.values():
                await self._finish(plan, finish)
        return known

    async def _leave_time(self, segments: Iterable[str]) -> None:
        """One landing time, or less if all of them have an outcome before."""
        keys = [outcome_key(segment) for segment in segments]
        for _ in range(LOOKS):
            await self._sleep(self._landing_s / LOOKS)
            if None not in await concurrently(self._store.get, keys):
                return

    async def finish(self, plan: Plan, finish: Finish) -> Outcome:
        """Finish a pending segment now, whoever planned it. Answers the outcome that stands."""
        return await self._finish(plan, finish)

    async def _finish(self, plan: Plan, finish: Finish) -> Outcome:
        loss = await self._loss(plan.segment)
        redirect = await self.redirected(plan.segment)
        if redirect is not None:
            plan = replace(plan, reason=redirect.note)
        readable = plan.without(loss.lost) if loss else plan

        async def write() -> list[ObjectInfo]:
            return await finish(readable) if readable.has_rows else []

        return await self._decide(plan, write)

    # What people decide

    async def seek(self, moves: Mapping[Split, Position], reason: str, finish: Finish | None = None) -> Outcome:
        """Let these splits go on at other positions, all of them or none, in their next epoch.

        Workers that are reading them lose a claim to the seek and recover from it; nobody has to stop. A segment that
        was not finished is finished first by ``finish``; without that, ``Fenced`` is raised.

        A worker that lands one segment after another is always first at the end of its split. So an empty segment, the
        fence, claims what comes behind the one that is landing, where everybody must come by. The seek goes behind its
        fences, which are left without an outcome until then: whoever meets one waits.
        """
        while True:
            standings = await self.standings(moves)
            fences = await concurrently(partial(self._fence, reason=reason), list(standings.items()))
            sought = None
            if await self._lead_on(fences, finish or _refuse):
                held = {split: wanted.cursor for fence in fences for split, wanted in fence.ranges.items()}
                ranges = {split: Range(at.retried, at.position, seek=moves[split]) for split, at in held.items()}
                sought = await self.land(self._by_hand(ranges, reason), write_nothing)
            await concurrently(lambda fence: self._decide(fence, write_nothing), fences)
            if sought is not None and sought.committed:
                return sought

    async def _fence(self, place: tuple[Split, Standing], reason: str) -> Plan:
        """It holds the next claim of the split, and is harmless if nobody comes by there."""
        split, at = place
        while True:
            tail = await self._tail(split, at)
            fence = self._by_hand({split: Range(tail, tail.position)}, reason)
            await self._save_plan(fence)
            if not await self._claim_all(fence):
                return fence
            await self._decide(fence, write_nothing)
            at = Standing(tail)

    def _by_hand(self, ranges: Mapping[Split, Range], reason: str) -> Plan:
        return Plan(self._name_segment(), dict(ranges), "", 0, self._worker, reason=reason)

    async def _tail(self, split: Split, at: Standing) -> Cursor:
        """From there on, where the next claim goes once what is landing is committed."""
        while True:
            ahead = Standing(at.pending.ranges[split].next) if at.pending else at
            at = (await self._go_on({split: ahead}, {}))[split] or await self.standing(split)
            if at.pending is None:
                return at.cursor

    async def _lead_on(self, fences: Sequence[Plan], finish: Finish) -> bool:
        """Whether all splits have come to their fences, once what was landing has an outcome. From there, be the fence
        committed or aborted, a split goes on at the next attempt."""
        names = {fence.segment for fence in fences}
        standings = await self.recover_standings([split for fence in fences for split in fence.ranges], finish, names)
        return all(at.pending is not None and at.pending.segment in names for at in standings.values())

    async def give_up(self, plan: Plan, lost: Losses, finish: Finish, reason: str = "") -> Outcome:
        """Finish a pending segment without the ranges that cannot be read any more; its outcome names them.

        The decision is an object of its own, made before anything is written. Whoever ends the segment reads it after
        writing: an object of another finisher may be one of those that lack the lost records. The first
        decision stands; ``ValueError`` if a loss is not one end of its range.
        """
        plan.without(lost)
        await self._store.create(loss_key(plan.segment), Loss(plan.segment, dict(lost), reason).to_json())
        return await self._finish(plan, finish)

    async def redirect(self, plan: Plan, redirect: Redirect, finish: Finish) -> Outcome:
        """Finish a pending segment whose objects cannot be written to where they were to go. Its rows stay the same.

        The first decision stands. It must be true that nothing can be created any more at the former destination: an
        object that a sleeper creates there afterwards would be there a second time. ``finish`` asks ``redirected``.
        """
        await self._store.create(redirect_key(plan.segment), redirect.to_json())
        return await self._finish(plan, finish)

    async def redirected(self, segment: str) -> Redirect | None:
        """The decision to write a segment elsewhere, if there is one."""
        key = redirect_key(segment)
        body = await self._store.get(key)
        return None if body is None else Redirect.from_json(body, key=key)

    async def _loss(self, segment: str) -> Loss | None:
        body = await self._store.get(loss_key(segment))
        return None if body is None else Loss.from_json(body, key=loss_key(segment))


async def write_nothing() -> list[ObjectInfo]:
    return []


async def _refuse(plan: Plan) -> list[ObjectInfo]:
    raise Fenced(
        "a segment that was not finished holds a split",
        hint="Run the pipeline until the segment is committed. If it cannot be, give up what it has lost.",
        segment=plan.segment,
        splits=sorted(plan.ranges),
        worker=plan.worker,
    )
