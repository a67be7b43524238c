"""How often a shard is asked, on a clock of numbers; and who gets into a room that is full."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from itertools import pairwise

import pytest

from streamsvc.sources.kinesis.pacing import BYTES_PER_S, TIP_INTERVAL_S, Pace
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
    assert waits[-1] == 10.0
    made = calls_in(pace, 200.0, 0, at_tip=True, start=11.0)
    assert made[-1] - made[-2] == pytest.approx(TIP_INTERVAL_S)


@pytest.mark.parametrize("seed", range(20))
def test_refusals_now_and_then_do_not_add_up(seed: int) -> None:
    """One call in five that is decided on is refused; some of the others fail, and some are decided by nobody."""
    dice = random.Random(seed)
    pace = Pace()
    now = slept = 0.0
    slow = 0
    for _ in range(2000):
        wait_s = pace.wait_s(now)
        slept += wait_s
        now += wait_s
        pace.calls(now)
        fate = dice.choices(["refused", "expired", "cut", "answered"], [0.16, 0.16, 0.2, 0.48])[0]
        if fate == "refused":
            pace.refused()
        elif fate == "expired":
            pace.let_through()
        elif fate == "answered":
            pace.answered(100, at_tip=True)
        slow += pace.is_slow
    assert slow < 2000 * 0.05
    assert slept / 2000 < 4 * TIP_INTERVAL_S


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
