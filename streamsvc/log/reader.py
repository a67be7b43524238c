"""Reading the segment log: the newest checkpoint, and the walk from there to where a split stands."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import orjson

from streamsvc.contracts import ObjectStore
from streamsvc.core.log_keys import (
    CHECKPOINTS,
    OUTCOMES,
    START_KEY,
    Cursor,
    checkpoint_key,
    checkpoint_number,
    claim_key,
    config_key,
    outcome_key,
    plan_key,
)
from streamsvc.core.segments import Checkpoint, Claim, Outcome, Plan, Standing, Start, Watermark
from streamsvc.errors import LogCorrupt
from streamsvc.log.patience import PatientStore, Sleep, concurrently
from streamsvc.records import Position, Split

REMEMBERED_OUTCOMES = 2_000

Walk: TypeAlias = Mapping[Split, Standing | None]
"""Where walks ended; ``None``: on the way, something was met that ``gc`` was deleting."""


class LogReader:
    """Changes nothing, so it needs no name and harms nobody; what it answers may be outdated when it arrives.

    store:          the folder ``<state>/<pipeline>/``
    first_position: before the first record that any split can have; where splits begin that came after the start
    """

    def __init__(self, store: ObjectStore, first_position: Position, *, sleep: Sleep = asyncio.sleep) -> None:
        self._store = PatientStore(store, sleep)
        self._first_position = first_position
        self._start: Start | None = None
        self._highest_checkpoint = 0
        self._outcomes: dict[str, Outcome] = {}

    async def standing(self, split: Split) -> Standing:
        """Where a split stands now."""
        return (await self.standings([split]))[split]

    async def replayed(self, reject_object: Split) -> Standing:
        """The standing of a reject object: its next replay goes to ``cursor`` and skips the records ``landed``."""
        return await self.standing(reject_object)

    async def standings(self, splits: Iterable[Split]) -> dict[Split, Standing]:
        """Where these splits stand now. Many at once cost little more time than the furthest of them."""
        known: dict[Split, Standing] = {}
        while missing := [split for split in dict.fromkeys(splits) if split not in known]:
            walk = await self._walk(missing, await self.newest())
            known |= {split: standing for split, standing in walk.items() if standing is not None}
        return known

    async def history(self, limit: int) -> list[Outcome]:
        """The last outcomes by the names of their segments, newest first. ``gc`` removes what has been folded."""
        keys = list(reversed(await self._store.keys(OUTCOMES)))[:limit]
        bodies = await concurrently(self._store.get, keys)
        return [Outcome.from_json(body, key=key) for key, body in zip(keys, bodies, strict=True) if body is not None]

    async def config(self, digest: str) -> dict[str, Any]:
        """The configuration that was saved under this digest. Raises ``LogCorrupt`` if it is not there or not it."""
        key = config_key(digest)
        body = await self._store.get(key)
        if body is None or digest_of(body) != digest:
            raise LogCorrupt(
                "a stored configuration is missing or was changed",
                hint="Restore the object; the segments that name it cannot be finished without it.",
                key=key,
            )
        document: dict[str, Any] = orjson.loads(body)
        return document

    async def newest(self) -> Checkpoint:
        """The newest checkpoint; number 0 if there is none.

        A listing is not one moment: what was deleted or created while it ran may be missing. Checkpoints go in
        ascending order, so what was listed and is still there afterwards was the newest when the listing began; what
        came since, or is not listed yet, is read by its number.
        Nothing listed proves nothing, for all that was there may have gone meanwhile; so that is asked twice.
        Calls may run at once: each goes by what was known when it began.
        """
        empty_answers, highest = 0, self._highest_checkpoint
        after = checkpoint_key(highest - 1) if highest else ""
        while empty_answers < 2:
            numbers = [checkpoint_number(key) for key in await self._store.keys(CHECKPOINTS, after=after)]
            listed = [number for number in numbers if number is not None]
            if (found := await self._last_from(max(listed, default=highest or 1))) is not None:
                self._highest_checkpoint = max(self._highest_checkpoint, found.number)
                return found
            empty_answers += not listed
        if highest:
            raise LogCorrupt(
                "the newest checkpoint has gone",
                hint="Something but `gc` deletes objects of the state; restore them, above all the last checkpoint.",
                key=checkpoint_key(highest),
            )
        return Checkpoint()

    async def _last_from(self, number: int) -> Checkpoint | None:
        """The checkpoint of this number, or the last of those that follow it without a gap."""
        found: Checkpoint | None = None
        while (body := await self._store.get(key := checkpoint_key(number))) is not None:
            found = Checkpoint.from_json(body, key=key)
            number += 1
        return found

    async def _walk(
        self, splits: Iterable[Split], checkpoint: Checkpoint, met: dict[str, Outcome] | None = None
    ) -> Walk:
        """Follow the claims of each split from the checkpoint on. ``met``: gets what ``_go_on`` says."""
        beginnings = await self._beginnings(splits, checkpoint)
        walks = {
            split: Standing(
                cursor,
                landed=checkpoint.landed.get(split, frozenset()),
                watermark=checkpoint.watermarks.get(split),
            )
            for split, cursor in beginnings.items()
        }
        return await self._go_on(walks, {} if met is None else met)

    async def _go_on(self, walks: dict[Split, Standing], met: dict[str, Outcome]) -> Walk:
        """Follow the claims of each split from where it stands, all of them a claim at a time.

        Splits of one segment meet at the same outcome, which is read once. ``met`` gets those that are committed.
        """
        ended: dict[Split, Standing | None] = {}
        while walks:
            holders = await concurrently(self._holder, [(split, at.cursor) for split, at in walks.items()])
            held = {split: holder for split, holder in zip(walks, holders, strict=True) if holder is not None}
            ended |= {split: at for split, at in walks.items() if split not in held}
            holding = dict.fromkeys(held.values())
            fates = dict(zip(holding, await concurrently(self._fate, holding), strict=True))
            following: dict[Split, Standing] = {}
            for split, segment in held.items():
                match fates[segment]:
                    case Outcome() as outcome:
                        following[split] = _follow(walks[split], split, outcome)
                        if outcome.committed:
                            met[segment] = outcome
                    case Plan() as plan:
                        ended[split] = replace(walks[split], pending=plan)
                    case None:
                        ended[split] = None
            walks = following
        return ended

    async def _beginnings(self, splits: Iterable[Split], checkpoint: Checkpoint) -> dict[Split, Cursor]:
        start = await self._started()
        positions = start.positions if start else {}
        return {
            split: checkpoint.cursors.get(split) or Cursor(0, positions.get(split, self._first_position))
            for split in splits
        }

    async def _started(self) -> Start | None:
        if self._start is None and (body := await self._store.get(START_KEY)) is not None:
            self._start = Start.from_json(body, key=START_KEY)
        return self._start

    async def _holder(self, place: tuple[Split, Cursor]) -> str | None:
        """The segment that holds this place in the log."""
        key = claim_key(*place)
        body = await self._store.get(key)
        return None if body is None else Claim.from_json(body, key=key).segment

    async def _fate(self, segment: str) -> Outcome | Plan | None:
        """How a segment ended; else its plan; else ``None``, since ``gc`` was here: a claim's plan is older than it."""
        if segment in self._outcomes:
            return self._outcomes[segment]
        body = await self._store.get(outcome_key(segment))
        if body is None:
            return await self._plan(segment)
        outcome = replace(Outcome.from_json(body, key=outcome_key(segment)), objects=[])
        if len(self._outcomes) >= REMEMBERED_OUTCOMES:
            self._outcomes.clear()
        self._outcomes[segment] = outcome
        return outcome

    async def _plan(self, segment: str) -> Plan | None:
        body = await self._store.get(plan_key(segment))
        return None if body is None else Plan.from_json(body, key=plan_key(segment))


def digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


def _follow(at: Standing, split: Split, outcome: Outcome) -> Standing:
    if not outcome.committed:
        return replace(at, cursor=at.cursor.retried)
    if split not in outcome.next:
        raise LogCorrupt(
            "a segment holds a split that its outcome does not name",
            hint="Restore the objects of the state: one of the two was changed.",
            split=split,
            key=outcome_key(outcome.segment),
        )
    return Standing(
        outcome.next[split],
        landed=at.landed | outcome.landed.get(split, frozenset()),
        watermark=_risen(at.watermark, outcome.watermarks.get(split), outcome.segment),
    )


def _risen(before: Watermark | None, after: Watermark | None, segment: str) -> Watermark | None:
    if after is None:
        return before
    return replace(after, since=segment if before is None or after.us > before.us else before.since)
