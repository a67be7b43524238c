import pyarrow as pa
import pytest

from streamsvc.records import Batch, Span, ranges_of


def make_batch(*spans: Span) -> Batch:
    offsets = [int(span.first) + i for span in spans for i in range(span.rows)]
    values = pa.array([f"{o}".encode() for o in offsets], pa.binary())
    return Batch(
        spans=spans,
        values=values,
        offsets=pa.array(offsets, pa.int64()),
        position_text=lambda column: pa.array([f"{o.as_py():04d}" for o in column], pa.string()),
        arrivals=lambda: pa.nulls(len(values), pa.timestamp("ms", tz="UTC")),
        keys=lambda: values,
        headers=lambda: pa.nulls(len(values), pa.map_(pa.string(), pa.binary())),
        nbytes=100,
    )


SPANS = (
    Span("a", 2, "0000", "0002"),
    Span("b", 0, "0007", "0009"),
    Span("c", 3, "0004", "0007"),
    Span("d", 0, "0001", "0002"),
)


@pytest.mark.parametrize("row", range(6))
def test_cutting_a_batch_keeps_every_record_and_every_move(row: int) -> None:
    batch = make_batch(*SPANS)
    head, tail = batch.before(row), batch.after(row)
    assert [*head.values.to_pylist(), *tail.values.to_pylist()] == batch.values.to_pylist()
    assert [*head.keys().to_pylist(), *tail.keys().to_pylist()] == batch.values.to_pylist()
    for part in (head, tail):
        assert sum(span.rows for span in part.spans) == len(part)
    assert ranges_of((*head.spans, *tail.spans)) == ranges_of(batch.spans)


def test_a_cut_inside_a_span_meets_at_the_record() -> None:
    batch = make_batch(*SPANS)
    assert batch.before(3).spans[-1] == Span("c", 1, "0004", "0005")
    assert batch.after(3).spans[0] == Span("c", 2, "0005", "0007")


def test_only_the_wanted_spans() -> None:
    batch = make_batch(*SPANS)
    assert batch.only(lambda _: True) is batch
    kept = batch.only(lambda span: span.split in "cd")
    assert kept.values.to_pylist() == [b"4", b"5", b"6"]
    assert [span.split for span in kept.spans] == ["c", "d"]


def test_split_names() -> None:
    assert make_batch(*SPANS).split_names().to_pylist() == ["a", "a", "c", "c", "c"]
