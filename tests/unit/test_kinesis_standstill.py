"""No shard stands still unheard: whatever reads it, or watches who reads it, ends by our will or as a failure."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from streamsvc.config_sources import Kpl
from streamsvc.core.kinesis_positions import BEGINNING
from streamsvc.core.kpl import EVERYTHING
from streamsvc.errors import SourceUnavailable
from streamsvc.ops.metrics import Metrics
from streamsvc.records import Position, Split
from streamsvc.sources.kinesis.counts import Counts
from streamsvc.sources.kinesis.health import Health
from streamsvc.sources.kinesis.lease_keeper import AllShards, LeaseEvent
from streamsvc.sources.kinesis.ownership import Ownership
from streamsvc.sources.kinesis.reader import Reader, Start
from streamsvc.sources.kinesis.retrieval import Answered, Reading

SPLIT = "access@shardId-000000000000.1764300000"


class Ends:
    """A retrieval that comes to an end though the shard has none, in this way."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    async def answers(self, reading: Reading) -> AsyncGenerator[Answered, None]:
        await asyncio.sleep(0)
        self._end()
        nothing: list[Answered] = []
        for answered in nothing:
            yield answered


class Deaf:
    def ended(self, split: Split, children: list[dict[str, Any]] | None) -> None: ...

    def met(self, counts: Counter[str]) -> None: ...

    def behind(self, split: Split, milliseconds: int | None) -> None: ...

    def trimmed(self, split: Split) -> None: ...

    def stop(self, splits: Iterable[Split]) -> None: ...

    async def newest_before(self, split: Split, ms: int) -> Position | None:
        return None


def cancelled() -> None:
    """As if something below had been cancelled, and not by us."""
    raise asyncio.CancelledError


def failed() -> None:
    raise ZeroDivisionError


def reader_that(end: Callable[[], None]) -> Reader:
    return Reader(Ends(end), Kpl(), lambda shard: EVERYTHING, 1024, Deaf())


@pytest.mark.parametrize(
    ("end", "raised"), [(lambda: None, SourceUnavailable), (cancelled, SourceUnavailable), (failed, ZeroDivisionError)]
)
async def test_a_shard_that_is_read_no_longer_is_a_failure(
    end: Callable[[], None], raised: type[BaseException]
) -> None:
    async with reader_that(end) as reader:
        reader.start({SPLIT: Start(BEGINNING)})
        with pytest.raises(raised) as told:
            await reader.read()
        if raised is SourceUnavailable:
            assert SPLIT in str(told.value)


async def test_a_shard_that_was_stopped_is_none() -> None:
    async with reader_that(cancelled) as reader:
        reader.start({SPLIT: Start(BEGINNING)})
        reader.stop([SPLIT])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.read()


class CutOff(AllShards):
    async def events(self) -> AsyncIterator[LeaseEvent]:
        await asyncio.sleep(0)
        cancelled()
        yield await self._events.get()


class NoShards:
    known: dict[str, Any] = {}  # noqa: RUF012 - never changed
    created_s = 0


async def test_leases_that_nobody_follows_any_more_are_a_failure() -> None:
    counts = Counts(Metrics("test"), "p")
    ownership = Ownership(NoShards(), CutOff(), Deaf(), Health(), counts, lambda shard: None)  # type: ignore[arg-type]
    with pytest.raises(ExceptionGroup) as failure:
        async with asyncio.timeout(20):
            await ownership.run()
    assert isinstance(failure.value.exceptions[0], SourceUnavailable)
