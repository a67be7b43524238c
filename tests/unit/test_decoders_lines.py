"""Decoders as Unix filters."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.decoders.json import JsonDecoder
from streamsvc.decoders.json_types import parse_type
from streamsvc.decoders.lines import Counts, decode_lines
from streamsvc.decoders.raw import RawDecoder

COLUMNS = {
    "n": "int64",
    "t": "timestamp",
    "d": "date",
    "c": "decimal(5,2)",
    "l": "list<timestamp(ms)>",
    "m": "map<string, struct<t: timestamp>>",
}
RECORD = (
    b'{"n":1,"t":"2024-02-29T13:00:00.5+01:00","d":"2024-02-29","c":1.5,"l":[0,null],'
    b'"m":{"a":{"t":"2024-01-01T00:00:00Z"}}}'
)


class Trickle(io.BytesIO):
    """Gives a few bytes at a time, however many are asked for."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self._step = step

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(self._step)


def json_decoder(**columns: str) -> JsonDecoder:
    return JsonDecoder({name: parse_type(text) for name, text in columns.items()})


def run(decoder: Any, data: bytes, *, step: int = 1 << 20, **options: int) -> tuple[Counts, list[Any], list[Any]]:
    out, rejects = io.BytesIO(), io.BytesIO()
    counts = decode_lines(decoder, Trickle(data, step), out, rejects, **options)
    rows, refused = ([json.loads(line) for line in stream.getvalue().split(b"\n")[:-1]] for stream in (out, rejects))
    return counts, rows, refused


def test_rows_are_json_in_the_columns_order() -> None:
    out = io.BytesIO()
    assert decode_lines(json_decoder(**COLUMNS), io.BytesIO(RECORD + b"\n{}\n"), out, None) == Counts(2, 0)
    assert out.getvalue() == (
        b'{"n":1,"t":"2024-02-29T12:00:00.500000Z","d":"2024-02-29","c":"1.50","l":["1970-01-01T00:00:00Z",null],'
        b'"m":{"a":{"t":"2024-01-01T00:00:00Z"}}}\n'
        b'{"n":null,"t":null,"d":null,"c":null,"l":null,"m":null}\n'
    )


def test_rejects_name_the_line_and_hold_its_bytes() -> None:
    counts, rows, rejects = run(json_decoder(n="int64"), b'{"n":1}\n{"n":"\xff"}\n\n{"n":"x"}\n{"n":2}')
    assert counts == Counts(2, 3)
    assert rows == [{"n": 1}, {"n": 2}]
    assert [(reject["line"], reject["reason"]) for reject in rejects] == [
        (2, "encoding"),
        (3, "malformed"),
        (4, "type"),
    ]
    assert base64.b64decode(rejects[0]["raw_base64"]) == b'{"n":"\xff"}'
    assert rejects[2]["error"] == "n: text 'x' is not int64"


def test_bytes_that_are_no_text_are_base64() -> None:
    _, rows, _ = run(RawDecoder(), b"text\r\n\xff\xfe\n\x00\n\n")
    assert rows == [{"value": "text\r"}, {"value": {"base64": "//4="}}, {"value": "\x00"}, {"value": ""}]


@given(
    lines=st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8),
    ends=st.booleans(),
    step=st.integers(1, 9),
)
@settings(max_examples=150, deadline=None)
def test_every_line_is_a_row_or_a_reject_however_the_bytes_arrive(lines: list[bytes], ends: bool, step: int) -> None:
    data = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    wanted = data.split(b"\n")
    if not wanted[-1]:
        wanted.pop()
    counts, rows, rejects = run(RawDecoder(), data, step=step, longest_line_bytes=8)
    assert counts == Counts(len(rows), len(rejects))
    assert len(rows) + len(rejects) == len(wanted)
    assert [reject["line"] for reject in rejects] == [number for number, line in enumerate(wanted, 1) if len(line) > 8]
    assert {reject["error"] for reject in rejects} == {f"{len(line)} bytes" for line in wanted if len(line) > 8}


def test_a_line_that_never_ends_is_not_held() -> None:
    class Endless:
        """100 MB without a line break, then a good line."""

        chunks = 100

        def read1(self, size: int = -1, /) -> bytes:
            self.chunks -= 1
            return b"x" * 1_000_000 if self.chunks >= 0 else b"\nok\n" if self.chunks == -1 else b""

    out, rejects = io.BytesIO(), io.BytesIO()
    before = pa.total_allocated_bytes()
    assert decode_lines(RawDecoder(), Endless(), out, rejects) == Counts(1, 1)
    assert pa.total_allocated_bytes() - before < 10_000_000
    reject = json.loads(rejects.getvalue())
    assert (reject["line"], reject["reason"], reject["error"]) == (1, "too_long", "100000000 bytes")
    assert base64.b64decode(reject["raw_base64"]) == b"x" * 1024


def test_a_line_is_printed_when_it_comes() -> None:
    """As behind ``tail -f``: the pipe stays open, and no more comes until the row has been read."""
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()
    with os.fdopen(read_in, "rb") as stream, os.fdopen(write_out, "wb") as out:
        filtering = threading.Thread(target=decode_lines, args=(RawDecoder(), stream, out, None))
        filtering.start()
        with os.fdopen(write_in, "wb", buffering=0) as writer, os.fdopen(read_out, "rb") as reader:
            for line in (b"one", b"two"):
                writer.write(line + b"\n")
                assert reader.readline() == b'{"value":"%b"}\n' % line
        filtering.join()


@pytest.mark.parametrize("gone", ["out", "rejects"])
def test_nobody_reads_any_more(gone: str) -> None:
    class Gone(io.BytesIO):
        def flush(self) -> None:
            raise BrokenPipeError

    streams = {"out": io.BytesIO(), "rejects": io.BytesIO()} | {gone: Gone()}
    endless = Trickle(b"a\n" * 1000, 2)
    assert decode_lines(RawDecoder(), endless, streams["out"], streams["rejects"]) == Counts(0, 0)
    assert endless.tell() == 2
