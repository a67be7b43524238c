"""What every decoder promises: ``contracts.Decoder``."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.config import Decode
from streamsvc.contracts import Decoder
from streamsvc.decoders.build import build
from streamsvc.records import REJECTED, ROW, Sifted

COMBINED = rb'1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.1" 200 5 "-" "say \"x\""'
ERROR = b"[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 3:tid 4] [client ::1:80] AH00035: denied"
RECORD = b'{"a":1,"b":[{"c":"2024-01-01T00:00:00Z"}],"d":1.5,"new":"x"}'

_JSON_SCHEMA = {"a": "int64", "b": "list<struct<c: timestamp>>", "d": "float32"}

CASES: dict[str, tuple[dict[str, Any], bytes]] = {
    "apache common": ({"apache": "common"}, COMBINED.partition(b' "-"')[0]),
    "apache combined": ({"apache": "combined"}, COMBINED),
    "apache vhost_combined": ({"apache": "vhost_combined"}, b"www:80 " + COMBINED),
    "apache error": ({"apache": "error"}, ERROR),
    "apache LogFormat": ({"apache": '%h|%>s "%m %U%q %H"'}, b'::1|200 "GET /?a HTTP/1.1"'),
    "json": ({"json": {"schema": _JSON_SCHEMA}}, RECORD),
    "json keep": ({"json": {"schema": _JSON_SCHEMA, "on_new_field": "keep"}}, RECORD),
    "json loose": ({"json": {"schema": {"b": "json", "new": "string", "d": "decimal(9,4)"}}}, RECORD),
    "json map": ({"json": {"schema": {"m": "map<string, date>"}}}, b'{"m":{"a":"2024-02-29"}}'),
    "raw binary": ({"raw": {}}, b"any"),
    "raw string": ({"raw": {"type": "string"}}, b"any"),
}

every_decoder = pytest.mark.parametrize("name", CASES)


def make(name: str) -> tuple[Decoder, bytes]:
    shape, good = CASES[name]
    return build(Decode.model_validate(shape)), good


def decode(decoder: Decoder, values: list[bytes | None]) -> Sifted:
    """Decodes, and checks what holds for any input: shapes, and that every record is a row or a reject, once."""
    sifted = decoder.decode(pa.array(values, pa.binary()))
    sifted.rows.validate(full=True)
    sifted.rejects.validate(full=True)
    assert sifted.rows.schema == decoder.schema.append(pa.field(ROW, pa.int32()))
    assert sifted.rejects.schema == REJECTED
    rows, rejects = sifted.rows[ROW].to_pylist(), sifted.rejects[ROW].to_pylist()
    assert rows == sorted(rows)
    assert rejects == sorted(rejects)
    assert sorted(rows + rejects) == list(range(len(values)))
    assert sifted.rejects["reason"].null_count == sifted.rejects["error"].null_count == 0
    return sifted


def by_record(sifted: Sifted, start: int = 0) -> dict[int, dict[str, Any]]:
    """Row or reject, by record."""
    found = sifted.rows.to_pylist() + sifted.rejects.to_pylist()
    return {start + members.pop(ROW): members for members in found}


@every_decoder
def test_a_good_record_is_a_row(name: str) -> None:
    decoder, good = make(name)
    sifted = decode(decoder, [good])
    assert len(sifted.rows) == 1
    assert any(column[0].as_py() is not None for column in sifted.rows.columns[:-1])


@every_decoder
def test_no_records(name: str) -> None:
    decoder, _ = make(name)
    assert len(decode(decoder, []).rows) == 0


@every_decoder
def test_a_tombstone_is_a_row_of_nulls(name: str) -> None:
    decoder, good = make(name)
    sifted = decode(decoder, [None, good, None])
    assert sifted.rows[ROW].to_pylist() == [0, 1, 2]
    for column in sifted.rows.columns[:-1]:
        assert (column[0].as_py(), column[2].as_py()) == (None, None)
    assert len(decode(decoder, [None]).rows) == 1


@every_decoder
def test_an_empty_value_takes_no_neighbour_along(name: str) -> None:
    decoder, good = make(name)
    found = by_record(decode(decoder, [good, b"", good]))
    assert found[0] == found[2] == by_record(decode(decoder, [good]))[0]


@every_decoder
def test_bytes_that_are_no_text(name: str) -> None:
    decoder, good = make(name)
    sifted = decode(decoder, [good, good + b"\xff", b"\xc0\x80", good])
    if name == "raw binary":
        assert sifted.rows["value"].to_pylist() == [good, good + b"\xff", b"\xc0\x80", good]
    else:
        assert sifted.rejects["reason"].to_pylist() == ["encoding", "encoding"]
        assert sifted.rows[ROW].to_pylist() == [0, 3]


@every_decoder
def test_a_huge_value_takes_no_neighbour_along(name: str) -> None:
    decoder, good = make(name)
    huge = [b"x" * 5_000_000, b'"' * 3_000_000, b"[" * 3_000_000, b"\\" * 3_000_000, b'{"a":"' + b"y" * 3_000_000]
    found = by_record(decode(decoder, [good, *huge, good]))
    assert found[0] == found[len(huge) + 1] == by_record(decode(decoder, [good]))[0]


@every_decoder
def test_a_slice_of_a_larger_batch_is_counted_from_its_own_start(name: str) -> None:
    decoder, good = make(name)
    values = pa.array([b"?", None, good, b"\xff", good], pa.binary())
    found = by_record(decoder.decode(values.slice(2)))
    assert found == by_record(decode(decoder, [good, b"\xff", good]))


@every_decoder
def test_the_version_is_a_number_from_1(name: str) -> None:
    decoder, _ = make(name)
    assert decoder.version >= 1


_HOSTILE = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.sampled_from([b"", b"\n", b"\r\n", b"null", b"{}", b"{", b'""', b"-", b"\xef\xbb\xbf", b"\x00", b"a b c"]),
)


def _near(good: bytes) -> st.SearchStrategy[bytes]:
    """A good record, or one with a piece put in, cut out or repeated."""

    def mangle(at: int, length: int, piece: bytes) -> bytes:
        return good[:at] + piece + good[at + length :]

    pieces = st.sampled_from([b"", b'"', b"\\", b" ", b"\n", b"\xff", b"}", b"null", b"]", b"9" * 25, good])
    return st.one_of(st.just(good), st.builds(mangle, st.integers(0, len(good)), st.integers(0, 30), pieces))


@every_decoder
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_batch_is_what_its_parts_are(name: str, data: st.DataObject) -> None:
    decoder, good = make(name)
    values = data.draw(st.lists(st.one_of(_near(good), _HOSTILE), max_size=8))
    cut = data.draw(st.integers(0, len(values)))
    whole = by_record(decode(decoder, values))
    parts = by_record(decode(decoder, values[:cut])) | by_record(decode(decoder, values[cut:]), cut)
    assert whole == parts
    assert whole == {
        number: found
        for start, value in enumerate(values)
        for number, found in by_record(decode(decoder, [value]), start).items()
    }
