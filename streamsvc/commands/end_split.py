"""``streamsvc end-split``: a split that will never have a record again holds windows back no longer."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from streamsvc.app import inspect, load, selected, window_log_of
from streamsvc.commands.housekeeping import give_up_pending
from streamsvc.contracts import Inspectable
from streamsvc.core.windows.control import View
from streamsvc.errors import ConfigError
from streamsvc.ops import logs
from streamsvc.records import Split


def end_split(file: Path, pipeline: str, *, splits: list[Split], reason: str, give_up: bool) -> int:
    """Beside running workers, too. Answers the exit code. Raises ``ConfigError`` for a split that is still there."""
    logs.configure("warning")
    service = load(file)
    [name] = selected(service, pipeline)

    async def end() -> None:
        async with AsyncExitStack() as stack:
            found = await window_log_of(service, name)
            if found is None:
                raise ConfigError([f"{name} has no windows, so no split holds any back"])
            log, _ = found
            inspected = await inspect(service, name, stack)
            await _check(await log.view(), inspected.source, splits)
            if give_up:
                await give_up_pending(inspected, splits, reason)
            view = await log.end(splits, reason, inspected.finisher)
            print(f"{name}: {', '.join(splits)} ended; windows now wait for {view.held_by or 'no split'}")

    asyncio.run(end())
    return 0


async def _check(view: View, source: Inspectable, splits: list[Split]) -> None:
    live = set(await source.splits())
    problems = []
    for split in splits:
        if split not in view.control.joined:
            problems.append(f"no split {split} counts for windows; there are: {', '.join(view.counting)}")
        elif split in live:
            problems.append(
                f"{split} is still there, and all that came of it would be late; while it is read and nothing comes,"
                " its owner lets windows close without it"
            )
    if problems:
        raise ConfigError(problems)
