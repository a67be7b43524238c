"""What the segment log does for its callers, call by call; how calls of many interleave is tested by schedules."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from streamsvc.core.log_keys import Cursor, checkpoint_key, claim_key, outcome_key
from streamsvc.core.segments import Checkpoint, Outcome, Plan, Range
from streamsvc.errors import Fenced, ForeignState, LogCorrupt, PositionLost, StoreRefused, StoreUnavailable
from streamsvc.log.folder import GcReport
from streamsvc.log.reader import LogReader
from streamsvc.log.segment_log import Finish, SegmentLog, new_segment_name
from streamsvc.records import ObjectInfo, Position, Split
from streamsvc.stores.local import LocalStore
from streamsvc.testing.scripted_store import Operation, ScriptedStore, at_once

FIRST = "00"
OBJECT = ObjectInfo("memory://lake/x", 3, 100)


class Bench:
    """A store without faults, logs over it, and what was asked of them."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.operations: Counter[str] = Counter()
        self.slept: list[float] = []
        self.finished: list[Plan] = []

    async def script(self, operation: Operation) -> Any:
        self.operations[operation.kind] += 1
        return await at_once(operation)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def log(self, worker: str = "w1", start: Mapping[Split, Position] | None = None) -> SegmentLog:
        log = SegmentLog(ScriptedStore(self.script, self.objects), worker, FIRST, landing_s=9.0, sleep=self.sleep)

        async def first_positions() -> Mapping[Split, Position]:
            return start or {}

        await log.begin(first_positions)
        return log

    async def finish(self, plan: Plan) -> list[ObjectInfo]:
        self.finished.append(plan)
        return [OBJECT]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def write() -> list[ObjectInfo]:
    return [OBJECT]


async def write_never() -> list[ObjectInfo]:
    raise AssertionError("nothing may be written")


async def leave_hanging() -> list[ObjectInfo]:
    raise PositionLost("the test stops here")


async def land(log: SegmentLog, name: str, **ranges: tuple[Cursor, Position]) -> Outcome:
    wanted = {split: Range(cursor, to) for split, (cursor, to) in ranges.items()}
    return await log.land(await log.plan(name, wanted, config="c", decode_version=1), write)


async def hang(log: SegmentLog, name: str, **ranges: tuple[Cursor, Position]) -> Plan:
    """A segment that holds its claims and has no outcome."""
    wanted = {split: Range(cursor, to) for split, (cursor, to) in ranges.items()}
    plan = await log.plan(name, wanted, config="c", decode_version=1)
    with pytest.raises(PositionLost):
        await log.land(plan, leave_hanging)
    return plan


# Beginning


async def test_where_splits_begin_is_fixed_once(bench: Bench) -> None:
    await bench.log(start={"a": "50"})
    later = await bench.log("w2", start={"a": "70", "b": "70"})
    assert (await later.standing("a")).cursor == Cursor(0, "50")


async def test_a_split_that_came_later_begins_at_the_first_position(bench: Bench) -> None:
    log = await bench.log(start={"a": "50"})
    assert (await log.standing("b")).cursor == Cursor(0, FIRST)


async def test_the_source_is_not_asked_again(bench: Bench) -> None:
    await bench.log(start={"a": "50"})

    async def first_positions() -> Mapping[Split, Position]:
        raise AssertionError

    log = SegmentLog(ScriptedStore(objects=bench.objects), "w2", FIRST, landing_s=1.0)
    await log.begin(first_positions)


# Whose it is


async def test_workers_of_one_group_have_one_log(bench: Bench) -> None:
    first = await bench.log(start={"topic@0": "50"})
    await first.enter("Kafka group a.p", _reads("topic"))
    again = await bench.log("w2")
    await again.enter("Kafka group a.p", _reads("topic"))


async def test_a_group_that_came_later_is_refused(bench: Bench) -> None:
    """It would read every split beside the first one: each would land what it is quicker with, and fence the other."""
    first = await bench.log()
    await first.enter("Kafka group a.p", _reads("topic"))
    stranger = SegmentLog(ScriptedStore(objects=bench.objects), "w2", FIRST, landing_s=1.0)
    with pytest.raises(ForeignState, match=r"owner=Kafka group a\.p, ours=Kafka group b\.p") as refused:
        await stranger.enter("Kafka group b.p", _reads("topic"))
    assert "`group`" in refused.value.hint
    assert refused.value.where["key"] == "owner.json"


async def test_topics_may_be_added_and_given_up_one_by_one(bench: Bench) -> None:
    log = await bench.log(start={"old@0": FIRST})
    await log.enter("g", _reads("old", "new"))
    await land(log, "s1", **{"new@0": (Cursor(0, FIRST), "10")})
    await log.enter("g", _reads("new"))
    await log.checkpoint()
    await log.gc()
    await log.enter("g", _reads("new"))


async def test_other_topics_of_the_same_group_are_refused(bench: Bench) -> None:
    """Windows would merge both, and `start` would be ignored."""
    log = await bench.log(start={"topic@0": "50"})
    with pytest.raises(ForeignState, match="known=topic@0"):
        await log.enter("g", _reads("other"))
    assert "owner.json" not in bench.objects


async def test_a_log_of_before_gets_its_owner_when_it_is_next_run(bench: Bench) -> None:
    old = await bench.log(start={"topic@0": "50"})
    assert sorted(bench.objects) == ["start.json"]
    with pytest.raises(ForeignState):
        await old.enter("Kinesis application a.p", _reads("stream"))
    await old.enter("Kafka group a.p", _reads("topic"))
    with pytest.raises(ForeignState):
        await old.enter("Kafka group b.p", _reads("topic"))


async def test_of_two_that_are_first_at_once_one_is_refused(bench: Bench) -> None:
    logs = [SegmentLog(ScriptedStore(objects=bench.objects), name, FIRST, landing_s=1.0) for name in ("w1", "w2")]
    answers = await asyncio.gather(
        *(log.enter(f"group of {log.worker}", _reads("topic")) for log in logs), return_exceptions=True
    )
    assert Counter(type(answer) for answer in answers) == {type(None): 1, ForeignState: 1}


def _reads(*topics: str) -> Callable[[Split], bool]:
    return lambda split: split.partition("@")[0] in topics


# A store that lists late


class LateStore(ScriptedStore):
    """It can be read what was created, but ``unlisted`` are in no listing yet."""

    unlisted: frozenset[str] = frozenset()

    def _keys(self, prefix: str, after: str) -> Sequence[str]:
        return [key for key in super()._keys(prefix, after) if key not in self.unlisted]


async def _late_log(bench: Bench, *unlisted: str) -> SegmentLog:
    store = LateStore(objects=bench.objects)
    store.unlisted = frozenset(unlisted)
    return SegmentLog(store, "zombie", FIRST, landing_s=1.0)


@pytest.mark.parametrize("listed", [0, 1])
async def test_a_checkpoint_that_is_not_listed_yet_is_seen(bench: Bench, listed: int) -> None:
    """Else a zombie that claims again what was folded and deleted would write its rows for a second time."""
    log = await bench.log()
    for number in range(listed + 1):
        await land(log, f"s{number}", a=(Cursor(0, f"{number}0"), f"{number + 1}0"))
        await log.checkpoint()
    await log.gc()
    zombie = await _late_log(bench, checkpoint_key(listed + 1))
    plan = await zombie.plan("z", {"a": Range(Cursor(0, f"{listed}0"), "90")}, config="c", decode_version=1)
    outcome = await zombie.land(plan, write_never)
    assert outcome.reason == f"checkpoint {listed + 1} is past one of its claims"


async def test_a_plan_that_is_not_listed_yet_is_not_taken_for_deleted(bench: Bench) -> None:
    log = await bench.log()
    await land(log, "s0", a=(Cursor(0, FIRST), "10"))
    await log.checkpoint()
    await land(log, "s1", a=(Cursor(0, "10"), "20"))
    folder = await _late_log(bench, "plans/s1.json")
    assert (await folder.gc()).segments == 1
    assert (await log.standing("a")).cursor == Cursor(0, "20")


# Configurations


async def test_a_configuration_has_one_name_whatever_its_order(bench: Bench) -> None:
    log = await bench.log()
    digest = await log.save_config({"a": 1, "b": {"y": 2, "x": [1]}})
    assert await log.save_config({"b": {"x": [1], "y": 2}, "a": 1}) == digest
    assert await log.config(digest) == {"a": 1, "b": {"x": [1], "y": 2}}


async def test_a_configuration_that_is_missing_or_changed_is_refused(bench: Bench) -> None:
    log = await bench.log()
    digest = await log.save_config({"a": 1})
    bench.objects[f"configs/{digest}.json"] = b'{"a":2}'
    with pytest.raises(LogCorrupt, match="configuration"):
        await log.config(digest)
    with pytest.raises(LogCorrupt, match="configuration"):
        await log.config("0" * 32)


# Landing


async def test_a_segment_lands(bench: Bench) -> None:
    log = await bench.log()
    outcome = await land(log, "s1", a=(Cursor(0, "00"), "10"), b=(Cursor(0, "00"), "00"))
    assert outcome == Outcome(
        "s1", "committed", "w1", next={"a": Cursor(0, "10"), "b": Cursor(0, "00", 1)}, objects=[OBJECT]
    )
    assert (await log.standing("a")).cursor == Cursor(0, "10")
    assert (await log.standing("b")).cursor == Cursor(0, "00", 1)


async def test_a_segment_over_n_splits_is_n_plus_two_creates(bench: Bench) -> None:
    log = await bench.log()
    before = bench.operations["create"]
    await land(log, "s1", **{f"split{number}": (Cursor(0, "00"), "10") for number in range(50)})
    assert bench.operations["create"] - before == 52


async def test_a_lost_claim_aborts_and_nothing_is_written(bench: Bench) -> None:
    log, rival = await bench.log(), await bench.log("w2")
    await land(rival, "theirs", a=(Cursor(0, "00"), "10"))
    ranges = {"a": Range(Cursor(0, "00"), "20"), "b": Range(Cursor(0, "00"), "20")}
    outcome = await log.land(await log.plan("ours", ranges, config="c", decode_version=1), write_never)
    assert outcome.state == "aborted"
    assert outcome.reason == f"{claim_key('a', Cursor(0, '00'))} is held by theirs"
    assert (await log.standing("b")).cursor == Cursor(0, "00", 1)


async def test_a_segment_behind_the_checkpoint_aborts_and_nothing_is_written(bench: Bench) -> None:
    log, rival = await bench.log(), await bench.log("w2")
    await land(rival, "theirs", a=(Cursor(0, "00"), "10"))
    await rival.checkpoint()
    await rival.gc()
    assert claim_key("a", Cursor(0, "00")) not in bench.objects
    plan = await log.plan("ours", {"a": Range(Cursor(0, "00"), "20")}, config="c", decode_version=1)
    outcome = await log.land(plan, write_never)
    assert (outcome.state, outcome.reason) == ("aborted", "checkpoint 1 is past one of its claims")


async def test_landing_again_answers_what_stands(bench: Bench) -> None:
    log = await bench.log()
    plan = await log.plan("s1", {"a": Range(Cursor(0, "00"), "10")}, config="c", decode_version=1)
    assert await log.land(plan, write) == await log.land(plan, write)


async def test_the_name_of_a_segment_is_used_once(bench: Bench) -> None:
    log = await bench.log()
    await land(log, "s1", a=(Cursor(0, "00"), "10"))
    with pytest.raises(LogCorrupt, match="one name"):
        await land(log, "s1", a=(Cursor(0, "10"), "20"))


async def test_a_cancelled_landing_goes_on_where_it_was(bench: Bench) -> None:
    log = await bench.log()
    plan = await log.plan("s1", {"a": Range(Cursor(0, "00"), "10")}, config="c", decode_version=1)
    writing = asyncio.Event()

    async def write_for_ever() -> list[ObjectInfo]:
        writing.set()
        await asyncio.Event().wait()
        return []

    landing = asyncio.create_task(log.land(plan, write_for_ever))
    await writing.wait()
    landing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await landing
    assert (await log.standing("a")).pending == plan
    assert (await log.land(plan, write)).committed


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a" * 300, "s 1"])
async def test_names_that_are_no_part_of_a_path_are_refused(bench: Bench, name: str) -> None:
    log = await bench.log()
    with pytest.raises(ValueError, match="name of a segment"):
        await log.plan(name, {"a": Range(Cursor(0, "00"), "10")}, config="c", decode_version=1)


async def test_impossible_ranges_are_refused(bench: Bench) -> None:
    log = await bench.log()
    with pytest.raises(ValueError, match="no range"):
        await log.plan("s1", {}, config="c", decode_version=1)
    with pytest.raises(ValueError, match="before it begins"):
        await log.plan("s1", {"a": Range(Cursor(0, "10"), "05")}, config="c", decode_version=1)


def test_segment_names_are_new_and_in_order_of_time() -> None:
    names = [new_segment_name() for _ in range(100)]
    assert len(set(names)) == 100
    assert [name[:16] for name in names] == sorted(name[:16] for name in names)


# Faults of the store


async def test_a_store_that_fails_is_waited_for(bench: Bench) -> None:
    """Every call fails twice, once before and once after its effect."""
    tries: Counter[tuple[str, str]] = Counter()

    async def failing(operation: Operation) -> Any:
        tries[operation.kind, operation.key] += 1
        if tries[operation.kind, operation.key] == 1:
            raise StoreUnavailable("not yet")
        answer = operation.apply()
        if tries[operation.kind, operation.key] == 2:
            raise StoreUnavailable("done, but you do not know")
        return answer

    log = SegmentLog(ScriptedStore(failing, bench.objects), "w1", FIRST, landing_s=9.0, sleep=bench.sleep)
    await log.begin(_nowhere)
    assert (await land(log, "s1", a=(Cursor(0, "00"), "10"))).committed
    await log.checkpoint()
    assert await log.gc() == GcReport(claims=1, segments=1)
    assert 0.05 in bench.slept
    assert 0.1 in bench.slept
    assert 0.9 not in bench.slept


async def test_a_write_is_tried_again(bench: Bench) -> None:
    log = await bench.log()
    tries: list[str] = []

    async def write_at_second() -> list[ObjectInfo]:
        tries.append("try")
        if len(tries) == 1:
            raise StoreUnavailable("no")
        return [OBJECT]

    plan = await log.plan("s1", {"a": Range(Cursor(0, "00"), "10")}, config="c", decode_version=1)
    assert (await log.land(plan, write_at_second)).committed


async def test_a_refusal_comes_through_as_it_is(bench: Bench) -> None:
    """Claims are made at once; what one of them raises is no group of errors."""

    async def refusing(operation: Operation) -> Any:
        if operation.key.startswith("log/"):
            raise StoreRefused("no permission")
        return operation.apply()

    log = SegmentLog(ScriptedStore(refusing, bench.objects), "w1", FIRST, landing_s=9.0, sleep=bench.sleep)
    await log.begin(_nowhere)
    with pytest.raises(StoreRefused):
        await land(log, "s1", a=(Cursor(0, "00"), "10"), b=(Cursor(0, "00"), "10"))


async def _nowhere() -> Mapping[Split, Position]:
    return {}


# Recovery


async def test_a_segment_of_another_is_waited_for_and_finished_whole(bench: Bench) -> None:
    log, rival = await bench.log(), await bench.log("w2")
    plan = await hang(rival, "theirs", a=(Cursor(0, "00"), "10"), b=(Cursor(0, "00"), "20"))
    assert await log.recover("a", bench.finish) == Cursor(0, "10")
    assert sum(bench.slept) == pytest.approx(9.0)
    assert bench.finished == [plan]
    assert (await log.standing("b")).cursor == Cursor(0, "20")


async def test_a_segment_without_rows_is_finished_without_its_configuration(bench: Bench) -> None:
    """What is made by hand has none: a fence whose seek has crashed is ended by whoever comes by."""
    await hang(await bench.log("w2"), "fence", a=(Cursor(0, "00"), "00"))
    assert await (await bench.log()).recover("a", bench.finish) == Cursor(0, "00", 1)
    assert bench.finished == []


async def test_a_segment_of_our_own_is_not_waited_for(bench: Bench) -> None:
    await hang(await bench.log(), "ours", a=(Cursor(0, "00"), "10"))
    restarted = await bench.log()
    assert await restarted.recover("a", bench.finish) == Cursor(0, "10")
    assert bench.slept == []


async def test_a_segment_that_lands_meanwhile_is_not_finished(bench: Bench) -> None:
    log, rival = await bench.log(), await bench.log("w2")
    plan = await hang(rival, "theirs", a=(Cursor(0, "00"), "10"))

    async def meanwhile(seconds: float) -> None:
        await rival.land(plan, write)

    log = SegmentLog(ScriptedStore(objects=bench.objects), "w1", FIRST, landing_s=9.0, sleep=meanwhile)
    assert await log.recover("a", bench.finish) == Cursor(0, "10")
    assert bench.finished == []


async def test_many_splits_share_what_is_read(bench: Bench) -> None:
    splits = {f"split{number}": (Cursor(0, "00"), "10") for number in range(40)}
    await hang(await bench.log("w2"), "theirs", **splits)
    log = await bench.log()
    bench.operations.clear()
    cursors = await log.recover_all(splits, bench.finish)
    assert set(cursors.values()) == {Cursor(0, "10")}
    assert len(bench.finished) == 1
    assert sum(bench.slept) == pytest.approx(9.0)
    assert bench.operations["get"] < 40 * 6


async def test_what_cannot_be_finished_stops_recovery_and_decides_nothing(bench: Bench) -> None:
    plan = await hang(await bench.log("w2"), "theirs", a=(Cursor(0, "00"), "10"))
    log = await bench.log()

    async def gone(plan: Plan) -> list[ObjectInfo]:
        raise PositionLost("gone", split="a")

    with pytest.raises(PositionLost):
        await log.recover("a", gone)
    assert (await log.standing("a")).pending == plan


# What people decide


async def test_a_range_that_is_lost_is_given_up_by_name(bench: Bench) -> None:
    plan = await hang(await bench.log("w2"), "theirs", a=(Cursor(0, "00"), "10"), b=(Cursor(0, "00"), "20"))
    log = await bench.log()
    outcome = await log.give_up(plan, {"a": ("00", "04")}, bench.finish, "retention")
    assert (outcome.state, outcome.lost, outcome.reason) == ("committed", {"a": ("00", "04")}, "retention")
    assert [dict(plan.ranges) for plan in bench.finished] == [
        {"a": Range(Cursor(0, "04"), "10"), "b": Range(Cursor(0, "00"), "20")}
    ]
    assert (await log.standing("a")).cursor == Cursor(0, "10")


async def test_the_first_decision_to_give_up_stands(bench: Bench) -> None:
    plan = await hang(await bench.log("w2"), "theirs", a=(Cursor(0, "00"), "10"))
    log = await bench.log()

    async def interrupted(plan: Plan) -> list[ObjectInfo]:
        raise PositionLost("and more is gone")

    with pytest.raises(PositionLost):
        await log.give_up(plan, {"a": ("00", "04")}, interrupted)
    outcome = await log.give_up(plan, {"a": ("00", "10")}, bench.finish)
    assert outcome.lost == {"a": ("00", "04")}


async def test_of_a_segment_that_is_lost_as_a_whole_nothing_is_read(bench: Bench) -> None:
    plan = await hang(await bench.log("w2"), "theirs", a=(Cursor(0, "00"), "10"))
    outcome = await (await bench.log()).give_up(plan, {"a": ("00", "10")}, bench.finish)
    assert (outcome.objects, bench.finished) == ([], [])


async def test_a_seek_begins_an_epoch_and_live_workers_meet_it(bench: Bench) -> None:
    log, operator = await bench.log(), await bench.log("operator")
    await land(log, "s1", a=(Cursor(0, "00"), "10"), b=(Cursor(0, "00"), "10"))
    outcome = await operator.seek({"a": "03", "b": "15"}, "read again")
    assert outcome.next == {"a": Cursor(1, "03"), "b": Cursor(1, "15")}
    assert outcome.reason == "read again"
    assert (await land(log, "s2", a=(Cursor(0, "10"), "20"))).state == "aborted"
    assert await log.recover("a", bench.finish) == Cursor(1, "03")


async def test_a_seek_over_an_unfinished_segment_needs_somebody_to_finish_it(bench: Bench) -> None:
    await hang(await bench.log("w2"), "theirs", a=(Cursor(0, "00"), "10"))
    operator = await bench.log("operator")
    with pytest.raises(Fenced) as caught:
        await operator.seek({"a": "03"}, "why")
    assert caught.value.where["segment"] == "theirs"
    assert (await operator.seek({"a": "03"}, "why", bench.finish)).next == {"a": Cursor(1, "03")}


class SeekAnyway(SegmentLog):
    """A seek goes behind its fences whatever has become of the segments that were landing before them."""

    async def _lead_on(self, fences: Sequence[Plan], finish: Finish) -> bool:
        await super()._lead_on(fences, finish)
        return True


@pytest.mark.parametrize(("make_log", "moved"), [(SegmentLog, Cursor(1, "03")), (SeekAnyway, Cursor(0, "00", 1))])
async def test_a_seek_comes_to_a_split_whose_landing_segment_is_aborted(
    bench: Bench, make_log: type[SegmentLog], moved: Cursor
) -> None:
    """It has lost its other claim, so the split never comes by the fence that was made behind it."""
    landed = await land(await bench.log(), "other", b=(Cursor(0, "00"), "05"))
    assert landed.committed
    ranges = {split: Range(Cursor(0, "00"), "10") for split in "ab"}
    half = Plan("half", ranges, "c", 1, "crashed")
    bench.objects["plans/half.json"] = half.to_json()
    bench.objects[claim_key("a", Cursor(0, "00"))] = b'{"format":1,"segment":"half"}'
    operator = make_log(ScriptedStore(objects=bench.objects), "operator", FIRST, landing_s=0.0)
    assert (await operator.seek({"a": "03"}, "why", bench.finish)).committed
    assert (await (await bench.log("w3")).standing("a")).cursor == moved
    assert not bench.finished


async def test_an_unfinished_seek_is_finished_without_reading(bench: Bench) -> None:
    operator = await bench.log("operator")
    bench.objects[claim_key("a", Cursor(0, "00"))] = b'{"format":1,"segment":"seek"}'
    bench.objects["plans/seek.json"] = Plan(
        "seek", {"a": Range(Cursor(0, "00"), "00", seek="30")}, "", 0, "crashed", reason="why"
    ).to_json()
    assert await operator.recover("a", bench.finish) == Cursor(1, "30")
    assert bench.finished == []


# Folding and deleting


async def _land_many(log: SegmentLog, count: int) -> None:
    for number in range(count):
        await land(log, f"s{number:02d}", a=(Cursor(0, f"{number:02d}"), f"{number + 1:02d}"))


async def test_folding_and_deleting_change_no_standing(bench: Bench) -> None:
    log = await bench.log(start={"a": "00", "b": "40"})
    await _land_many(log, 5)
    before = await log.standings(["a", "b", "c"])
    assert await log.checkpoint() == Checkpoint(1, {"a": Cursor(0, "05"), "b": Cursor(0, "40")})
    assert await log.gc() == GcReport(claims=5, segments=5)
    assert await log.standings(["a", "b", "c"]) == before
    assert sorted(bench.objects) == [checkpoint_key(1), "start.json"]


async def test_a_segment_is_kept_until_all_its_splits_are_folded(bench: Bench) -> None:
    log, rival = await bench.log(), await bench.log("w2")
    await land(log, "s1", a=(Cursor(0, "00"), "10"), b=(Cursor(0, "00"), "10"))
    await hang(rival, "s2", b=(Cursor(0, "10"), "20"), c=(Cursor(0, "00"), "10"))
    await log.checkpoint()
    await log.gc()
    assert outcome_key("s1") not in bench.objects
    assert {"plans/s2.json", claim_key("b", Cursor(0, "10")), claim_key("c", Cursor(0, "00"))} <= bench.objects.keys()


async def test_a_checkpoint_is_made_only_of_something_new(bench: Bench) -> None:
    log = await bench.log()
    assert (await log.checkpoint()).number == 0
    await _land_many(log, 1)
    assert (await log.checkpoint()).number == 1
    assert (await log.checkpoint()).number == 1


async def test_before_the_first_start_there_is_nothing_to_fold(bench: Bench) -> None:
    log = SegmentLog(ScriptedStore(objects=bench.objects), "w1", FIRST, landing_s=9.0)
    assert await log.checkpoint() == Checkpoint()
    assert await log.gc() == GcReport()
    assert bench.objects == {}


async def test_some_checkpoints_are_kept_and_never_the_newest_deleted(bench: Bench) -> None:
    log = await bench.log()
    for number in range(6):
        await land(log, f"s{number}", a=(Cursor(0, f"{number:02d}"), f"{number + 1:02d}"))
        await log.checkpoint()
        await log.gc()
    kept = [key for key in sorted(bench.objects) if key.startswith("checkpoints/")]
    assert kept == [checkpoint_key(4), checkpoint_key(5), checkpoint_key(6)]


async def test_what_zombies_leave_behind_is_deleted_too(bench: Bench) -> None:
    log = await bench.log()
    await _land_many(log, 2)
    left_behind = {key: body for key, body in bench.objects.items() if key.startswith(("outcomes/", "log/"))}
    await log.checkpoint()
    await log.gc()
    bench.objects |= left_behind
    assert await log.gc() == GcReport(claims=2, segments=2)
    assert sorted(bench.objects) == [checkpoint_key(1), "start.json"]


async def test_strange_objects_are_left_alone(bench: Bench) -> None:
    log = await bench.log()
    strange = {"log/README": b"x", "log/000000/a/note.txt": b"x", "checkpoints/old.bak": b"x", "data/x.parquet": b"x"}
    bench.objects |= strange
    await _land_many(log, 1)
    await log.checkpoint()
    await log.gc()
    assert strange.items() <= bench.objects.items()


async def test_checkpoints_that_vanish_are_noticed(bench: Bench) -> None:
    log = await bench.log()
    await _land_many(log, 1)
    await log.checkpoint()
    assert (await log.newest()).number == 1
    del bench.objects[checkpoint_key(1)]
    with pytest.raises(LogCorrupt, match="checkpoint"):
        await log.standing("a")


async def test_splits_with_the_longest_names_stand_in_a_directory(tmp_path: Path) -> None:
    """A topic's name may have 249 characters, a file's only 255 bytes."""
    log = SegmentLog(LocalStore(tmp_path), "w1", FIRST, landing_s=9.0)
    await log.begin(_nowhere)
    splits = [f"{'t' * 249}@{number}.Vd3sQAAAAAAAAAAAAAAAAA" for number in range(2)]
    ranges = {split: Range(Cursor(0, "00"), "10") for split in splits}
    await log.land(await log.plan("s1", ranges, config="c", decode_version=1), write)
    assert (await log.checkpoint()).cursors == dict.fromkeys(splits, Cursor(0, "10"))
    assert await log.gc() == GcReport(claims=2, segments=1)


# Looking


async def test_a_reader_needs_no_name_and_changes_nothing(bench: Bench) -> None:
    log = await bench.log()
    await _land_many(log, 3)
    plan = await hang(log, "s9", a=(Cursor(0, "03"), "09"))
    before = dict(bench.objects)
    reader = LogReader(ScriptedStore(objects=bench.objects), FIRST)
    assert (await reader.standing("a")).pending == plan
    assert [outcome.segment for outcome in await reader.history(2)] == ["s02", "s01"]
    assert await reader.history(0) == []
    assert (await reader.history(10))[0].objects == [OBJECT]
    assert bench.objects == before


async def test_an_outcome_that_contradicts_a_claim_is_corrupt(bench: Bench) -> None:
    log = await bench.log()
    await land(log, "s1", a=(Cursor(0, "00"), "10"))
    bench.objects[claim_key("b", Cursor(0, "00"))] = bench.objects[claim_key("a", Cursor(0, "00"))]
    with pytest.raises(LogCorrupt) as caught:
        await log.standing("b")
    assert caught.value.where == {"split": "b", "key": outcome_key("s1")}


async def test_replays_remember_what_they_landed_also_when_folded(bench: Bench) -> None:
    log, split = await bench.log(), "reject@2026/x.json"
    for name, numbers in (("r1", {0, 1}), ("r2", {4})):
        standing = await log.replayed(split)
        ranges = {split: Range(standing.cursor, standing.cursor.position)}
        plan = await log.plan(name, ranges, config="c", decode_version=1, landed={split: numbers})
        assert (await log.land(plan, write)).landed == {split: numbers}
        await log.checkpoint()
        await log.gc()
    assert await log.replayed(split) == await (await bench.log("w2")).replayed(split)
    assert (await log.replayed(split)).landed == {0, 1, 4}
