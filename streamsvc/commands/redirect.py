"""``streamsvc redirect``: pending segments whose destination is gone for good, to where the file says now."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from streamsvc.app import Inspected, inspect, load, new_stores, selected
from streamsvc.app_recipes import destinations
from streamsvc.config import Service
from streamsvc.core.redirects import Redirect
from streamsvc.core.segments import Outcome, Plan
from streamsvc.errors import StoreRefused
from streamsvc.ops import logs
from streamsvc.runtime.replay import is_reject_object


def redirect(file: Path, pipeline: str, *, gone: bool, reason: str) -> int:
    """Finish every pending segment: where it was to go, if that can be written; else where the file says now.

    Answers the exit code. Raises ``StoreRefused`` if neither can be written, or the former place not be looked at."""
    logs.configure("error")
    service = load(file)
    [name] = selected(service, pipeline)

    async def finish_all() -> None:
        async with AsyncExitStack() as stack:
            inspected = await inspect(service, name, stack)
            plans = await _pending(inspected)
            for plan in plans:
                _tell(plan, await _finish(service, inspected, plan, gone=gone, reason=reason))
            if not plans:
                print(f"{name}: no segment is pending")

    asyncio.run(finish_all())
    return 0


async def _pending(inspected: Inspected) -> list[Plan]:
    splits = [split for split in await inspected.log.known_splits() if not is_reject_object(split)]
    standings = await inspected.log.standings(splits)
    plans = {standing.pending.segment: standing.pending for standing in standings.values() if standing.pending}
    return [plans[segment] for segment in sorted(plans)]


async def _finish(service: Service, inspected: Inspected, plan: Plan, *, gone: bool, reason: str) -> Outcome:
    try:
        return await inspected.log.finish(plan, inspected.finisher)
    except StoreRefused as refusal:
        then = destinations(await inspected.finisher.recipe(plan))
        moved = {was: now for was, now in zip(then, destinations(inspected.recipe), strict=True) if was != now}
        if not moved:
            raise
        print(f"{plan.segment}: {refusal.what}")
        await _try(service, inspected, plan, list(moved.values()))
        if not gone:
            await _look(service, inspected, plan, list(moved))
    for was, now in moved.items():
        print(f"  what was to go to {was} goes to {now}")
    decision = Redirect(plan.segment, moved, gone, reason)
    return await inspected.log.redirect(plan, decision, inspected.finisher)


async def _try(service: Service, inspected: Inspected, plan: Plan, urls: list[str]) -> None:
    """Before it is decided for good that the objects go there. Raises ``StoreRefused``."""
    stores = new_stores(service, inspected.name)
    for url in urls:
        key = f".streamsvc-redirect-{plan.segment}"
        await stores(url, "sink").create(key, b"")
        await stores(url, "sink").delete([key])


async def _look(service: Service, inspected: Inspected, plan: Plan, urls: list[str]) -> None:
    """Before it is decided that objects which are there stay there. Raises ``StoreRefused``."""
    stores = new_stores(service, inspected.name)
    for url in urls:
        try:
            await stores(url, "sink").size(plan.segment)
        except StoreRefused as refusal:
            raise StoreRefused(
                f"whether objects of the segment are at {url} cannot be told: {refusal.what}",
                hint="Let it be read, if anybody can read it. If what is there is gone for good too, add --gone.",
                segment=plan.segment,
            ) from refusal


def _tell(plan: Plan, outcome: Outcome) -> None:
    rows = sum(item.rows for item in outcome.objects)
    note = f"; {outcome.reason}" if outcome.reason else ""
    print(f"{plan.segment}: {outcome.state}, {len(outcome.objects)} objects, {rows:,} rows{note}")
