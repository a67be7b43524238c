"""``streamsvc gc`` and ``streamsvc seek``: what is done to the log by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from streamsvc.app import Inspected, inspect, load, log_of, selected, window_log_of
from streamsvc.commands.status import place_text
from streamsvc.config import Service
from streamsvc.config_sources import Source
from streamsvc.core.kinesis_positions import END, parse_position
from streamsvc.core.offsets import offset_of
from streamsvc.core.segments import Plan
from streamsvc.errors import ConfigError
from streamsvc.ops import logs
from streamsvc.records import Position, Split


def gc(file: Path, pipeline: str | None) -> int:
    """Fold and delete; safe beside running workers. Answers the exit code."""
    logs.configure("warning")
    service = load(file)

    async def collect() -> None:
        for name in selected(service, pipeline):
            windowed = await window_log_of(service, name)
            log = log_of(service, name) if windowed is None else windowed[0]
            checkpoint = await log.checkpoint()
            report = await log.gc()
            print(
                f"{name}: checkpoint {checkpoint.number} of {len(checkpoint.cursors)} splits; deleted {report.claims:,}"
                f" claims, {report.segments:,} segments and {report.checkpoints:,} older checkpoints"
            )

    asyncio.run(collect())
    return 0


@dataclass(frozen=True, slots=True)
class Seek:
    """What is asked for. ``confirmed`` says yes or no to what would be done."""

    to: str
    splits: list[Split]
    reason: str
    give_up: bool
    confirmed: Callable[[], bool] = lambda: True


def seek(file: Path, pipeline: str, asked: Seek) -> int:
    """Move splits. Running workers lose a claim to the move and go on from there. Answers the exit code."""
    logs.configure("warning")
    service = load(file)
    [name] = selected(service, pipeline)
    to = asked.to
    if service.pipelines[name].source.kinesis is not None and to.lower() == "end":
        to = END
    _check_target(to, asked.splits, service.pipelines[name].source)

    async def move() -> None:
        async with AsyncExitStack() as stack:
            inspected = await inspect(service, name, stack)
            moves = await _moves(service, inspected, to, asked.splits)
            await _say_what_it_means(inspected, moves)
            if asked.confirmed():
                await _seek(inspected, moves, asked.reason, give_up=asked.give_up)
            else:
                print(f"{name}: nothing is moved")

    asyncio.run(move())
    return 0


async def _say_what_it_means(inspected: Inspected, moves: Mapping[Split, Position]) -> None:
    for split, standing in sorted((await inspected.log.standings(moves)).items()):
        print(f"  {split}: {effect(standing.cursor.position, moves[split])}")


def effect(now: Position, then: Position) -> str:
    """What a move from one position to another does to the lake."""
    if now == then:
        return f"stays at {place_text(now)}"
    moved = f"from {place_text(now)} to {place_text(then)}"
    known = now.isdecimal() and then.isdecimal()
    if then == END:
        return f"{moved}: what has not landed of it never will"
    if then > now:
        number = f"{offset_of(then) - offset_of(now):,} offsets" if known else "what is between"
        return f"{moved}: {number} never land"
    number = f"{offset_of(now) - offset_of(then):,} offsets" if known else "what is between"
    return f"{moved}: {number} are read again, and what of them has landed will be there twice"


async def _seek(inspected: Inspected, moves: dict[Split, Position], reason: str, *, give_up: bool) -> None:
    if give_up:
        await give_up_pending(inspected, moves, reason)
    outcome = await inspected.log.seek(moves, reason, inspected.finisher)
    print(f"{inspected.name}: moved by {outcome.segment}")
    for split, cursor in sorted(outcome.next.items()):
        print(f"  {split} goes on at {cursor.position}, epoch {cursor.epoch}")


async def _moves(service: Service, inspected: Inspected, to: str, splits: list[Split]) -> dict[Split, Position]:
    live = list(await inspected.source.splits())
    unknown = sorted(set(splits) - set(live))
    gone = await inspected.source.expired(dict.fromkeys(unknown, inspected.source.first_position))
    if nowhere := [split for split in unknown if split not in gone]:
        raise ConfigError([f"no such split: {', '.join(nowhere)}; there are: {', '.join(live)}"])
    if gone and to != END:
        raise ConfigError([f"--to {to}: {split} is gone from the source; write end" for split in sorted(gone)])
    wanted = [split for split in splits if split not in gone] if splits else live
    ended: dict[Split, Position] = dict.fromkeys(sorted(gone), END)
    return {**ended, **(await _live_moves(service, inspected, to, wanted) if wanted else {})}


async def _live_moves(service: Service, inspected: Inspected, to: str, wanted: list[Split]) -> Mapping[Split, Position]:
    if _is_place(to, service.pipelines[inspected.name].source):
        return await _at_place(inspected, to, wanted)
    positions = await inspected.positions_at(to)
    return {split: positions[split] for split in wanted}


async def _at_place(inspected: Inspected, to: str, splits: list[Split]) -> dict[Split, Position]:
    """Raises ``ConfigError`` for a place at which there is no record and none will be next."""
    position = inspected.source.position(to)
    firsts, ends = await inspected.positions_at("earliest"), await inspected.source.ends()
    problems = [
        f"--to {to}: {split} holds {place_text(firsts[split])} to {place_text(ends[split])}"
        for split in splits
        if not firsts[split] <= position <= ends[split]
    ]
    if problems:
        raise ConfigError(problems)
    return dict.fromkeys(splits, position)


def _is_place(to: str, source: Source) -> bool:
    """Whether it names a record of one split, not a time or an end of every split."""
    if to.isascii() and to.isdecimal():
        return True
    if source.kinesis is None:
        return False
    try:
        parse_position(to)
    except ValueError:
        return False
    return True


def _check_target(to: str, splits: list[Split], source: Source) -> None:
    """Raises ``ConfigError``."""
    is_kinesis = source.kinesis is not None
    record = "a position or sequence number" if is_kinesis else "an offset"
    words = ["trim_horizon", "earliest", "latest", "end"] if is_kinesis else ["earliest", "latest"]
    if _is_place(to, source):
        if not splits:
            raise ConfigError([f"--to {to}: {record} is a place in one split: name it with --split"])
        return
    if to in words:
        return
    try:
        moment = datetime.fromisoformat(to)
    except ValueError:
        raise ConfigError([f"--to {to}: write {', '.join(words)}, {record}, or a time: 2026-01-31T06:00:00Z"]) from None
    if moment.tzinfo is None:
        raise ConfigError([f"--to {to}: the time has no zone; write for example 2026-01-31T06:00:00Z"])
    if moment < datetime(1970, 1, 1, tzinfo=UTC):
        raise ConfigError([f"--to {to}: before 1970, when no record was written; write earliest"])


async def give_up_pending(inspected: Inspected, splits: Iterable[Split], reason: str) -> None:
    """Decide the pending segments of these splits, with what of them is lost."""
    for plan in await _pending(inspected, splits):
        await _give_up(inspected, plan, reason)


async def _pending(inspected: Inspected, splits: Iterable[Split]) -> list[Plan]:
    standings = await inspected.log.standings(splits)
    plans = {standing.pending.segment: standing.pending for standing in standings.values() if standing.pending}
    return list(plans.values())


async def _give_up(inspected: Inspected, plan: Plan, reason: str) -> None:
    lost = await inspected.finisher.losses(plan)
    if lost:
        outcome = await inspected.log.give_up(plan, lost, inspected.finisher, reason)
        print(f"{plan.segment}: {outcome.state}; lost: {outcome.lost}")
