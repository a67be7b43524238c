"""The segment state machine: keys, stored objects, and where splits go on."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.log_keys import (
    Cursor,
    checkpoint_key,
    checkpoint_number,
    claim_key,
    outcome_key,
    parse_claim_key,
    segment_of,
)
from streamsvc.core.segments import (
    Checkpoint,
    Claim,
    Loss,
    Outcome,
    Plan,
    Range,
    Standing,
    Start,
    Stored,
    abort,
    advance,
    commit,
    fold,
    is_below,
    is_folded,
    is_overtaken,
)
from streamsvc.errors import LogCorrupt
from streamsvc.records import ObjectInfo

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400) | st.text("./~%@é", min_size=1)
digits = st.integers(0, 10**20 - 1).map(lambda number: f"{number:020d}")
cursors = st.builds(Cursor, st.integers(0, 10**5), digits, st.integers(0, 10**9))

PLAN = Plan(
    "s1",
    {"a": Range(Cursor(0, "10"), "20", "11"), "b": Range(Cursor(2, "05", 3), "05")},
    "digest",
    1,
    "worker",
    landed={"reject@x": frozenset([1, 2, 3, 9])},
)


# Keys


@given(names, cursors)
def test_a_claim_key_says_its_split_and_cursor(split: str, cursor: Cursor) -> None:
    assert parse_claim_key(claim_key(split, cursor)) == (split, cursor)


@given(names, names, cursors, cursors)
def test_claim_keys_are_one_to_one(one: str, other: str, here: Cursor, there: Cursor) -> None:
    assert (claim_key(one, here) == claim_key(other, there)) == ((one, here) == (other, there))


@given(names, names, cursors)
def test_a_claim_key_is_a_path_in_any_store(split: str, position: str, cursor: Cursor) -> None:
    key = claim_key(split, cursor)
    assert key.isascii()
    assert all(0 < len(part) <= 255 and part not in {".", ".."} for part in key.split("/"))
    assert str(PurePosixPath(key)) == key


@given(cursors, cursors)
def test_text_order_of_claim_keys_is_the_order_of_cursors(one: Cursor, other: Cursor) -> None:
    assert (claim_key("topic@3.Vd3sQ", one) < claim_key("topic@3.Vd3sQ", other)) == (one < other)


def test_no_claim_is_the_folder_of_another() -> None:
    """A directory and a file cannot have one name."""
    long = "a" * 200
    claims = [claim_key(split, Cursor(0, "00")) for split in (long, long + "/00~0000000000", long + "b")]
    assert not any(one != other and other.startswith(one + "/") for one in claims for other in claims)


@pytest.mark.parametrize("key", ["log/", "log/000000/a/00", "log/x/a/00~1", "log/000000/.DS_Store", "plans/a.json"])
def test_what_is_no_claim_is_left_alone(key: str) -> None:
    assert parse_claim_key(key) is None


def test_checkpoints_and_segments_have_keys() -> None:
    assert checkpoint_number(checkpoint_key(1234)) == 1234
    assert checkpoint_key(9) < checkpoint_key(10)
    assert checkpoint_number("checkpoints/notes.txt") is None
    assert segment_of(outcome_key("20261124T100000Z-ab.1")) == "20261124T100000Z-ab.1"


# Stored objects

STORED: list[Stored] = [
    PLAN,
    commit(PLAN, [ObjectInfo("s3://lake/x", 3, 400)], Loss("s1", {"a": ("10", "12")}, "gone"), "w"),
    abort(PLAN, "lost", "w"),
    Checkpoint(7, {"a": Cursor(1, "10", 2)}, {"reject@x": frozenset(range(1000))}),
    Claim("s1"),
    Start({"a": "10"}),
    Loss("s1", {"a": ("10", "12")}),
]


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: type(stored).__name__)
def test_what_is_stored_is_read(stored: Stored) -> None:
    assert type(stored).from_json(stored.to_json()) == stored


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: type(stored).__name__)
def test_fields_of_a_later_version_are_left_alone(stored: Stored) -> None:
    body = stored.to_json().replace(b'"format":1', b'"format":1,"watermarks":{"a":12}')
    assert type(stored).from_json(body) == stored


def test_record_numbers_are_stored_as_runs() -> None:
    assert b'"landed":{"reject@x":[[1,4],[9,10]]}' in PLAN.to_json()


@pytest.mark.parametrize(
    ("good", "bad", "field"),
    [
        (b'"format":1', b'"format":2', "format"),
        (b'"decode_version":1', b'"decode_version":"1"', "decode_version"),
        (b'"attempt":3', b'"attempt":"3"', "ranges.b.cursor.attempt"),
        (b"[[1,4],", b"[1,", "landed.reject@x"),
        (b"[[1,4],", b'[["1",4],', "landed.reject@x"),
        (b'"segment":"s1",', b"", "segment"),
        (b"{", b"", ""),
    ],
)
def test_a_corrupt_object_is_named(good: bytes, bad: bytes, field: str) -> None:
    body = PLAN.to_json().replace(good, bad, 1)
    with pytest.raises(LogCorrupt) as caught:
        Plan.from_json(body, key="plans/s1.json")
    assert caught.value.where["key"] == "plans/s1.json"
    assert caught.value.where["field"] == field


# The state machine


def test_a_committed_range_goes_on_at_its_end() -> None:
    wanted = PLAN.ranges["a"]
    assert advance(wanted.cursor, wanted, commit(PLAN, [], None, "w")) == Cursor(0, "20", 0)


def test_a_committed_empty_range_uses_up_an_attempt() -> None:
    wanted = PLAN.ranges["b"]
    assert advance(wanted.cursor, wanted, commit(PLAN, [], None, "w")) == Cursor(2, "05", 4)


def test_an_aborted_range_uses_up_an_attempt() -> None:
    wanted = PLAN.ranges["a"]
    assert advance(wanted.cursor, wanted, abort(PLAN, "lost", "w")) == Cursor(0, "10", 1)


def test_a_seek_begins_an_epoch_above_everything_before() -> None:
    back = Range(Cursor(0, "20", 5), "20", seek="03")
    assert back.next == Cursor(1, "03", 0)
    assert back.next > back.cursor


def test_an_outcome_says_where_every_split_goes_on() -> None:
    assert commit(PLAN, [], None, "w").next == {"a": Cursor(0, "20"), "b": Cursor(2, "05", 4)}
    assert abort(PLAN, "lost", "w").next == {}


def test_below_is_strict_and_counts_attempts() -> None:
    checkpoint = Checkpoint(1, {"a": Cursor(0, "10", 2)})
    assert is_below("a", Cursor(0, "10", 1), checkpoint)
    assert not is_below("a", Cursor(0, "10", 2), checkpoint)
    assert not is_below("a", Cursor(1, "00", 0), checkpoint)
    assert not is_below("b", Cursor(0, "00", 0), checkpoint)


def test_one_key_below_overtakes_a_segment_and_all_keys_fold_it() -> None:
    one = Checkpoint(1, {"a": Cursor(0, "20")})
    both = Checkpoint(2, {"a": Cursor(0, "20"), "b": Cursor(2, "05", 4)})
    assert (is_overtaken(PLAN, Checkpoint()), is_folded(PLAN, Checkpoint())) == (False, False)
    assert (is_overtaken(PLAN, one), is_folded(PLAN, one)) == (True, False)
    assert (is_overtaken(PLAN, both), is_folded(PLAN, both)) == (True, True)


def test_folding_keeps_what_was_not_walked() -> None:
    before = Checkpoint(4, {"a": Cursor(0, "10"), "b": Cursor(0, "10")}, {"r": frozenset([1])})
    after = fold(before, {"a": Standing(Cursor(0, "20")), "q": Standing(Cursor(0, "00", 1), landed=frozenset([2]))})
    assert after == Checkpoint(
        5,
        {"a": Cursor(0, "20"), "b": Cursor(0, "10"), "q": Cursor(0, "00", 1)},
        {"r": frozenset([1]), "q": frozenset([2])},
    )


@pytest.mark.parametrize(
    ("lost", "rest"),
    [
        (("10", "13"), ("13", "20")),
        (("18", "20"), ("10", "18")),
        (("10", "20"), None),
    ],
)
def test_what_is_lost_is_left_out(lost: tuple[str, str], rest: tuple[str, str] | None) -> None:
    ranges = PLAN.without({"a": lost}).ranges
    left = ranges.get("a")
    assert (left and (left.cursor.position, left.to)) == rest
    assert ranges["b"] == PLAN.ranges["b"]


@pytest.mark.parametrize("lost", [("12", "15"), ("05", "12"), ("15", "25"), ("13", "13"), ("15", "12")])
def test_a_loss_is_one_end_of_a_range(lost: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="one end"):
        PLAN.without({"a": lost})


def test_outcomes_of_given_up_segments_name_what_is_lost() -> None:
    outcome = commit(PLAN, [], Loss("s1", {"a": ("10", "12")}, "retention"), "w")
    assert isinstance(outcome, Outcome)
    assert (outcome.lost, outcome.reason) == ({"a": ("10", "12")}, "retention")
    assert outcome.next["a"] == Cursor(0, "20")
