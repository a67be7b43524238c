"""Positions in a shard: text order is read order."""

from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.core import kinesis_positions as positions
from streamsvc.core.kinesis_positions import (
    BEGINNING,
    END,
    AtEnd,
    FromBeginning,
    FromRecord,
    FromTime,
    KclCheckpoint,
    kcl_checkpoint,
    parse_position,
    position_after,
    position_at_time,
    position_before,
    position_of_checkpoint,
    positions_before,
)

SEQUENCE = "49590338271490256608559692538361571095921575989136588898"
sequences = st.integers(1, 10**129 - 1).map(str) | st.integers(1, 200).map(str)
subs = st.integers(0, positions.MAX_SUB_SEQUENCE - 1) | st.integers(0, 20)
places = st.tuples(sequences, subs)


@settings(deadline=None)
@given(places, places)
def test_text_order_is_read_order(one: tuple[str, int], other: tuple[str, int]) -> None:
    as_numbers = (int(one[0]), one[1]) < (int(other[0]), other[1])
    assert (position_before(*one) < position_before(*other)) == as_numbers
    assert position_before(*one) < position_after(*one) <= position_before(one[0], one[1] + 1)


@settings(deadline=None)
@given(places, st.integers(0, 10**14 - 1), st.integers(0, 10**14 - 1))
def test_everything_has_its_place_in_the_order(place: tuple[str, int], ms: int, later: int) -> None:
    line = [BEGINNING, position_at_time(ms), position_before(*place), position_after(*place), END]
    assert all(a < b for a, b in pairwise(line))
    assert (position_at_time(ms) < position_at_time(later)) == (ms < later)


@settings(deadline=None)
@given(places, st.integers(0, 10**14 - 1))
def test_what_is_made_is_read_back(place: tuple[str, int], ms: int) -> None:
    assert parse_position(position_before(*place)) == FromRecord(*place)
    assert parse_position(position_at_time(ms)) == FromTime(ms)
    assert parse_position(BEGINNING) == FromBeginning()
    assert parse_position(END) == AtEnd()


@settings(deadline=None)
@given(st.lists(places))
def test_columns_of_positions(rows: list[tuple[str, int]]) -> None:
    column = positions_before(
        pa.array([sequence for sequence, _ in rows], pa.string()), pa.array([sub for _, sub in rows], pa.int32())
    )
    assert column.type == pa.string()
    assert column.to_pylist() == [position_before(*row) for row in rows]


def test_a_position_as_it_looks() -> None:
    assert position_after(SEQUENCE, 2) == f"056{SEQUENCE}.00000003"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "end",
        "TRIM_HORIZON",
        "0010",
        "0010.0000000",
        "0021.00000000",
        "056123.00000000",
        "0010@1",
        f"057{SEQUENCE}.00000000",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        parse_position(text)


@pytest.mark.parametrize(("sequence", "sub"), [("", 0), ("-1", 0), ("١", 0), ("1" * 130, 0), ("1", -1), ("1", 10**8)])
def test_what_is_no_sequence_number_is_refused(sequence: str, sub: int) -> None:
    with pytest.raises(ValueError, match="not a sequence number"):
        position_before(sequence, sub)


@settings(deadline=None)
@given(places)
def test_a_checkpoint_names_the_last_record_and_a_position_the_next(place: tuple[str, int]) -> None:
    checkpoint = KclCheckpoint(*place)
    boundary = position_of_checkpoint(checkpoint)
    assert boundary == position_after(*place)
    assert kcl_checkpoint(boundary) == checkpoint


@pytest.mark.parametrize("boundary", [BEGINNING, position_at_time(1), position_before(SEQUENCE)])
def test_boundaries_that_the_kcl_has_no_word_for(boundary: str) -> None:
    assert kcl_checkpoint(boundary) is None


def test_the_words_of_the_kcl() -> None:
    assert position_of_checkpoint(KclCheckpoint("TRIM_HORIZON")) == BEGINNING
    assert position_of_checkpoint(KclCheckpoint("SHARD_END")) == END
    assert position_of_checkpoint(KclCheckpoint("LATEST")) is None
    assert position_of_checkpoint(KclCheckpoint("AT_TIMESTAMP")) is None
    assert kcl_checkpoint(END) == KclCheckpoint("SHARD_END")
    with pytest.raises(ValueError, match="nonsense"):
        position_of_checkpoint(KclCheckpoint("nonsense"))
