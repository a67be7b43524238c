"""Watermarks of splits, and what is decided of them: who joins where, what is closed, where idle splits go."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.log_keys import Cursor
from streamsvc.core.segments import FOREVER, NEVER, Checkpoint, Closing, Control, Outcome, Standing, Watermark
from streamsvc.core.windows.assignment import FIRST_TIME, LAST_TIME, FixedWindows
from streamsvc.core.windows.control import (
    Entry,
    Result,
    View,
    control_key,
    control_number,
    follow,
    join,
    result_key,
    without_results,
)
from streamsvc.core.windows.watermarks import Run, Watermarks, is_ahead, is_late
from streamsvc.records import Window

TENS = FixedWindows(10, 10)


# Watermarks

rows = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 100) | st.sampled_from([FIRST_TIME, LAST_TIME])),
    max_size=30,
)


@given(rows, st.lists(st.integers(0, 30), max_size=4), st.integers(0, 20), st.sampled_from([NEVER, 40]))
def test_a_row_finds_the_watermark_of_those_before_it(
    all_rows: list[tuple[str, int]], cuts: list[int], disorder: int, began: int
) -> None:
    """Whatever the batches; rows of one split need not lie together."""
    expected, highest = [], {"a": began, "b": NEVER}
    for split, time in all_rows:
        expected.append(highest[split])
        highest[split] = max(highest[split], time - disorder)
    watermarks = Watermarks(disorder, {"a": began})
    found: list[int] = []
    edges = sorted({0, len(all_rows), *(cut for cut in cuts if cut < len(all_rows))})
    for begin, end in itertools.pairwise(edges):
        part = all_rows[begin:end]
        runs = [Run(split, row, row + 1) for row, (split, _) in enumerate(part)]
        times = np.array([time for _, time in part], np.int64)
        found += watermarks.meet(times, runs).tolist()
    assert found == expected
    assert {split: watermarks.of(split) for split in "ab"} == highest


def test_late_is_at_the_end_plus_lateness_or_beyond() -> None:
    found = np.array([NEVER, 14, 15, 16], np.int64)
    assert is_late(found, np.full(4, 10, np.int64), 5).tolist() == [False, False, True, True]


def test_ahead_is_against_the_arrival_if_there_is_one() -> None:
    times, arrivals = np.array([5, 16, 99, 99], np.int64), np.array([5, 5, 5, 0], np.int64)
    assert is_ahead(times, arrivals, np.array([True, True, True, False]), 10).tolist() == [False, True, True, False]


# Control


def view(control: Control, **watermarks: tuple[int, bool]) -> View:
    standings = {
        split: Standing(Cursor(0, "5"), watermark=Watermark(us, is_lift)) for split, (us, is_lift) in watermarks.items()
    }
    return View(Checkpoint(), control, standings, {"s1": Outcome("s1", "committed", windows=[0, 10, 40])})


JOINED = Control(number=1, config="c", joined={"a": NEVER, "b": NEVER, "c": NEVER})


def test_windows_are_closed_when_every_split_has_passed_them() -> None:
    assert view(JOINED, a=(100, False), b=(30, False)).due(TENS, 5) == []
    assert view(JOINED, a=(100, False), b=(24, False), c=(99, False)).due(TENS, 5) == [Window(0, 10)]
    assert view(JOINED, a=(100, False), b=(25, False), c=(99, True)).due(TENS, 5) == [Window(0, 10), Window(10, 20)]


def test_windows_that_are_closed_are_not_closed_again() -> None:
    control = follow(JOINED, Entry("close", "w", windows=[Window(0, 10)], cursors={}, passed=15))
    assert view(control, a=(100, False), b=(100, False), c=(50, False)).due(TENS, 5) == [Window(10, 20)]


def test_a_split_whose_children_have_joined_does_not_hold_windows_back() -> None:
    control = replace(JOINED, ended=["b"])
    assert view(control, a=(60, False), b=(3, False), c=(60, False)).pipeline_watermark == 60


def test_the_split_that_holds_windows_back_is_named() -> None:
    assert view(JOINED, a=(60, False), b=(3, False), c=(60, False)).held_by == "b"
    assert view(JOINED, a=(60, False), b=(3, False)).held_by == "c"
    assert view(Control()).held_by is None


def test_who_is_ended_by_hand_holds_nothing_back() -> None:
    control = follow(JOINED, Entry("end", "w", ended=["b"]))
    seen = view(control, a=(60, False), b=(FOREVER, True), c=(50, True))
    assert (seen.pipeline_watermark, seen.held_by, seen.lift_of("b"), seen.lift_of("c")) == (50, "c", None, 60)


def test_nobody_is_lifted_to_where_a_split_is_lifted_that_is_being_ended() -> None:
    seen = view(JOINED, a=(30, True), b=(FOREVER, True), c=(50, True))
    assert (seen.lift_of("a"), seen.lift_of("c")) == (50, None)
    assert view(JOINED, a=(30, False), b=(FOREVER, True), c=(FOREVER, True)).lift_of("a") is None


def test_children_do_not_begin_where_a_parent_was_ended_by_hand() -> None:
    control = follow(replace(JOINED, passed=15), Entry("end", "w", ended=["a"]))
    seen = view(control, a=(FOREVER, True), b=(40, False))
    for child, parents, begin in (("x", ["a"], 15), ("m", ["a", "b"], 40)):
        entry = join(seen, child, [child], {child: parents})
        assert entry is not None
        assert entry.joins == {child: begin}


def test_what_is_gone_counts_until_its_children_have_joined_or_are_gone_too() -> None:
    parents = {"x": ["a"], "y": ["a"]}
    assert view(JOINED).without_children(["a", "b", "unknown"], parents) == ["b"]
    assert view(replace(JOINED, joined={**JOINED.joined, "x": 3})).without_children(["a", "y"], parents) == ["a"]
    assert view(replace(JOINED, ended=["b"])).without_children(["b"], {}) == []


def test_an_idle_split_goes_to_the_least_of_those_with_rows() -> None:
    seen = view(JOINED, a=(50, False), b=(20, True), c=(30, True))
    assert (seen.lift_of("b"), seen.lift_of("c"), seen.lift_of("a")) == (50, 50, None)
    assert view(JOINED, a=(50, True), b=(20, True), c=(30, True)).lift_of("b") == 50
    assert view(JOINED, a=(50, False), b=(20, False), c=(30, False)).lift_of("a") is None
    assert view(replace(JOINED, lift=70), a=(50, False), b=(20, False)).lift_of("a") == 70
    assert view(JOINED, a=(50, False)).lift_of("unknown") is None


def test_two_idle_splits_at_one_place_do_not_hold_each_other_back() -> None:
    """Each says by a lift to where it is that nothing comes of it; then the other can go on."""
    assert view(JOINED, a=(50, False)).lift_of("b") == NEVER
    assert view(JOINED, a=(50, False), b=(NEVER, True)).lift_of("c") == 50
    assert view(JOINED, a=(50, False), b=(20, False), c=(20, False)).lift_of("b") == 20
    assert view(JOINED, a=(50, False), b=(20, True), c=(20, False)).lift_of("b") is None
    assert view(JOINED, a=(50, False), b=(20, True), c=(20, True)).lift_of("b") == 50
    assert view(Control(number=1, joined={"a": 5}), a=(50, False)).lift_of("a") is None


def test_a_new_split_begins_where_the_last_window_was_closed() -> None:
    control = replace(JOINED, closed=0, passed=15)
    entry = join(view(control), "d", ["a", "b", "d", "e", "x"], {"x": ["a"]})
    assert entry is not None
    assert (entry.joins, entry.ended) == ({"d": 15, "e": 15}, [])
    assert join(view(control), "a", ["a"], {}) is None


def test_children_join_together_at_the_least_of_their_parents() -> None:
    control = replace(JOINED, passed=15)
    seen = view(control, a=(50, False), b=(40, False))
    halves = join(seen, "x", ["a", "x", "y"], {"x": ["a"], "y": ["a"]})
    merged = join(seen, "m", ["m"], {"m": ["a", "b"]})
    assert halves is not None
    assert merged is not None
    assert (halves.joins, halves.ended) == ({"x": 50, "y": 50}, ["a"])
    assert (merged.joins, merged.ended) == ({"m": 40}, ["a", "b"])


def test_children_never_begin_before_what_is_closed() -> None:
    entry = join(view(replace(JOINED, passed=70), a=(50, False)), "x", ["x"], {"x": ["a", "expired"]})
    assert entry is not None
    assert entry.joins == {"x": 70}


def test_the_first_to_join_a_split_says_where_it_begins() -> None:
    control = follow(JOINED, Entry("join", "w", joins={"a": 99, "d": 3}))
    assert (control.joined["a"], control.joined["d"], control.number) == (NEVER, 3, 2)


def test_what_has_results_is_not_owed() -> None:
    one, other = Window(0, 10), Window(10, 20)
    control = follow(JOINED, Entry("close", "w", windows=[one, other], cursors={"a": Cursor(0, "5")}, passed=25))
    assert without_results(control, {one}).owed == [Closing([other], {"a": Cursor(0, "5")})]
    assert without_results(control, {one, other}).owed == []
    assert view(control, a=(0, False)).wanted_windows == {0, 10, 40}


def test_entries_and_results_are_stored() -> None:
    entry = Entry("close", "w", windows=[Window(0, 10)], cursors={"a": Cursor(0, "5")}, passed=NEVER)
    assert Entry.from_json(entry.to_json()) == entry
    assert control_number(control_key(12)) == 12
    assert control_number("control/x.json") is None
    assert result_key(Window(0, 10)) == "results/19700101T000000Z.json"
    assert Result.from_json(Result(Window(0, 10), 3).to_json()).rows == 3
    checkpoint = Checkpoint(3, control=follow(JOINED, entry), watermarks={"a": Watermark(5, True)})
    assert Checkpoint.from_json(checkpoint.to_json()) == checkpoint


def test_a_checkpoint_of_before_windows_can_be_read() -> None:
    old = Checkpoint.from_json(b'{"format":1,"number":4,"cursors":{},"landed":{}}')
    assert (old.control.number, old.folded.windows) == (0, [])
