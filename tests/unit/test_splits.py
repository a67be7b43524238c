from streamsvc.core.log_keys import Cursor
from streamsvc.core.offsets import position_of as at
from streamsvc.records import Span
from streamsvc.runtime.splits import Splits
from tests.unit.test_records import make_batch


def reading(**positions: str) -> Splits:
    splits = Splits()
    splits.assigned.update(positions)
    ticket = splits.seek_place(positions)
    splits.start({split: Cursor(0, position) for split, position in positions.items()}, ticket)
    return splits


def test_only_what_goes_on_where_we_are_is_taken() -> None:
    splits = reading(a="0002", b="0007")
    batch = make_batch(
        Span("a", 2, "0000", "0002"),
        Span("a", 2, "0002", "0004"),
        Span("b", 1, "0009", "0010"),
        Span("a", 1, "0004", "0005"),
        Span("c", 1, "0000", "0001"),
    )
    assert [(span.split, span.first) for span in splits.continuing(batch).spans] == [("a", "0002"), ("a", "0004")]


def test_a_split_that_waits_for_its_place_takes_nothing() -> None:
    splits = reading(a="0000")
    splits.seek_place(["a"])
    assert splits.continuing(make_batch(Span("a", 2, "0000", "0002"))).spans == ()


def test_a_stale_place_is_not_started_at() -> None:
    splits = Splits()
    splits.assigned.update("ab")
    old = splits.seek_place("ab")
    new = splits.seek_place("a")
    assert splits.start({"a": Cursor(0, at(1)), "b": Cursor(0, at(2))}, old) == {"b": at(2)}
    splits.drop("a")
    assert splits.start({"a": Cursor(0, at(3))}, new) == {}


def test_what_left_is_not_taken_up_again_by_a_segment_that_still_holds_it() -> None:
    splits = reading(a="0000", b="0000")
    splits.drop("a")
    splits.took({"a": ("0000", "0005"), "b": ("0000", "0003")})
    assert splits.reached == {"b": "0003"}
