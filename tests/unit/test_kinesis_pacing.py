"""How often a shard is asked, on a clock of numbers; and who gets into a room that is full."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from itertools import pairwise

import pytest

from streamsvc.sources.kinesis.pacing import (
    BYTES_PER_S,
    LONG,
    OUTAGE_S,
    RETRY_S,
    THROTTLED_S,
    TIP_INTERVAL_S,
    Backoff,
    Pace,
)
from streamsvc.sources.kinesis.room import Reservation, Room

MIB = 1024 * 1024


def calls_in(pace: Pace, seconds: float, nbytes: int, *, at_tip: bool, start: float = 0.0) -> list[float]:
    """When calls are made, one as soon as the last has been answered."""
    now = start
    made: list[float] = []
    while True:
        now += pace.wait_s(now)
        if now >= start + seconds:
            return made
        pace.calls(now)
        made.append(now)
        pace.answered(nbytes, at_tip=at_tip)
        now += 0.001


def test_behind_it_is_five_calls_a_second() -> None:
    made = calls_in(Pace(), 10.0, 1000, at_tip=False)
    assert 49 <= len(made) <= 56
    assert all(later - earlier >= 0.99 for earlier, later in zip(made[5:], made[10:], strict=False))


def test_behind_it_is_two_mebibytes_a_second() -> None:
    made = calls_in(Pace(), 60.0, 10 * MIB, at_tip=False)
    assert len(made) * 10 * MIB <= 61.0 * BYTES_PER_S + 10 * MIB
    assert len(made) >= 12


def test_at_the_tip_calls_are_even() -> None:
    made = calls_in(Pace(), 10.0, 0, at_tip=True)
    gaps = [later - earlier for earlier, later in pairwise(made[1:])]
    assert max(gaps) - min(gaps) < 0.001
    assert min(gaps) == pytest.approx(TIP_INTERVAL_S)


def test_a_shard_that_is_refused_is_asked_less_often_and_comes_back() -> None:
    pace = Pace()
    calls_in(pace, 1.0, 0, at_tip=True)
    waits = []
    for _ in range(12):
        pace.calls(1.0)
        pace.refused()
        waits.append(pace.wait_s(1.0))
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(2 * TIP_INTERVAL_S)
    assert waits[-1] == THROTTLED_S
    made = calls_in(pace, 12.0, 0, at_tip=True, start=3.0)
    assert made[-1] - made[-2] == pytest.approx(TIP_INTERVAL_S)


def test_an_outage_is_waited_out_ever_longer_and_one_success_ends_it() -> None:
    backoff = Backoff("a")
    waits = [backoff.failed() for _ in range(10)]
    assert waits == sorted(waits)
    assert OUTAGE_S / 2 <= waits[-1] <= OUTAGE_S
    assert backoff.is_long
    backoff.reset()
    assert not backoff.is_long
    assert backoff.failed() == waits[0] <= RETRY_S


def test_a_throttle_ends_an_outage() -> None:
    """The service answers; and what it answered does not make the next outage longer."""
    backoff = Backoff("a")
    for failures in range(1, 10):
        assert backoff.failed() <= RETRY_S
        for _ in range(failures):
            backoff.failed()
        assert max(backoff.failed(throttled=True) for _ in range(failures)) <= THROTTLED_S


def test_refusals_are_told_only_where_they_do_not_end() -> None:
    backoff = Backoff("a")
    told = []
    for _ in range(LONG):
        told.append(backoff.is_long)
        backoff.failed(throttled=True)
    assert not any(told)
    assert backoff.is_long


def test_who_fails_together_does_not_come_back_together() -> None:
    waits = {Backoff(f"access@shardId-{shard:012}.1764300000").failed() for shard in range(8)}
    assert len(waits) == 8


@pytest.mark.parametrize("refused", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_mixed_faults_do_not_add_up(seed: int, refused: float) -> None:
    """What is refused, expires, is answered with a fault, or passes: as long as the service answers, a shard waits two
    seconds at most for what is refused, and only a run of faults waits longer."""
    dice = random.Random(seed)
    pace, backoff = Pace(), Backoff("a")
    now = 0.0
    waits: list[float] = []
    faults = 0
    for _ in range(2000):
        wait_s = pace.wait_s(now)
        now += wait_s
        pace.calls(now)
        fate = dice.choices(["refused", "expired", "fault", "answered"], [refused, 0.1, 0.1, 1.0])[0]
        faults = faults + 1 if fate == "fault" else 0 if fate in ("refused", "answered") else faults
        if fate == "refused":
            pace.refused()
            backoff.failed(throttled=True)
        elif fate == "fault":
            wait_s = backoff.failed()
            now += wait_s
        elif fate == "expired":
            pace.let_through()
        else:
            pace.answered(100, at_tip=True)
            backoff.reset()
        waits.append(wait_s)
        assert wait_s <= max(THROTTLED_S, RETRY_S * 2 ** (faults - 1)) + 1e-9
    assert sum(waits) / len(waits) < (4 if refused < 0.5 else 10) * TIP_INTERVAL_S


async def test_the_room_is_never_overfull_and_nobody_is_forgotten() -> None:
    dice = random.Random(4)
    room = Room(1000)
    most = done = 0

    async def one() -> None:
        nonlocal most, done
        with Reservation(room) as reservation:
            for _ in range(5):
                await reservation.take(dice.randrange(1, 400))
                most = max(most, room.held_bytes)
                await asyncio.sleep(0)
        done += 1

    tasks = [asyncio.create_task(one()) for _ in range(40)]
    for _ in range(60):
        await asyncio.sleep(0)
        if dice.random() < 0.2:
            dice.choice(tasks).cancel()
    cancelled = 0
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
        cancelled += task.cancelled()
    assert done + cancelled == 40
    assert cancelled > 0
    assert room.held_bytes == 0
    assert 500 < most <= 1000


async def test_what_is_larger_than_the_room_gets_in_alone() -> None:
    room = Room(10)
    await room.take(3)
    large = asyncio.create_task(room.take(50))
    small = asyncio.create_task(room.take(1))
    await asyncio.sleep(0)
    assert not large.done()
    assert not small.done()
    room.give(3)
    await large
    assert not small.done()
    room.give(50)
    await small
