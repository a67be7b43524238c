"""JSON records against orjson, and blocks against one record at a time."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.decoders import json as json_decoder
from streamsvc.decoders.json import JsonDecoder
from streamsvc.decoders.json_infer import infer_schema
from streamsvc.decoders.json_types import arrow_type, parse_type, type_text
from streamsvc.testing.access_logs import JSON_COLUMNS, AccessLogs

Row = dict[str, Any]


def decoder(on_new_field: Literal["ignore", "keep"] = "ignore", /, **columns: str) -> JsonDecoder:
    return JsonDecoder({name: parse_type(text) for name, text in columns.items()}, on_new_field)


def decode(using: JsonDecoder, *values: bytes | None) -> tuple[list[Row], list[tuple[int, str, str]]]:
    sifted = using.decode(pa.array(values, pa.binary()))
    sifted.rows.validate(full=True)
    rejects = [(reject["_row"], reject["reason"], reject["error"]) for reject in sifted.rejects.to_pylist()]
    return sifted.rows.to_pylist(), rejects


def one(column_type: str, literal: str) -> Any:
    """What a column of this type makes of a JSON value; ``(reason, error)`` if it is a reject."""
    rows, rejects = decode(decoder(x=column_type), f'{{"x":{literal}}}'.encode())
    return rows[0]["x"] if rows else rejects[0][1:]


def exact(using: JsonDecoder, *values: bytes | None) -> tuple[list[Row], list[tuple[int, str, str]]]:
    """One record at a time, without Arrow."""
    using._read = using._one_by_one  # type: ignore[method-assign]
    return decode(using, *values)


@pytest.mark.parametrize(
    ("column_type", "literal", "value"),
    [
        ("string", '"a\\u00e9\\ud83d\\ude00"', "aé😀"),
        ("string", '""', ""),
        ("int64", "-9223372036854775808", -(2**63)),
        ("int32", "2147483647", 2**31 - 1),
        ("int16", "-0", 0),
        ("float64", "1", 1.0),
        ("float64", "-1.5e3", -1500.0),
        ("float64", "123456789012345678901234567890", 123456789012345678901234567890.0),
        ("double", "0.1", 0.1),
        ("float32", "0.5", 0.5),
        ("bool", "true", True),
        ("timestamp", '"2024-02-29T12:00:00Z"', datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ("timestamp", '"2024-02-29 12:00:00.123456"', datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)),
        ("timestamp", '"2024-02-29T12:00+05:30"', datetime(2024, 2, 29, 6, 30, tzinfo=UTC)),
        ("timestamp", '"9999-12-31T23:59:59.999999Z"', datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("timestamp(s)", "1700000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("timestamp(ms)", "1700000000123", datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)),
        ("timestamp(us)", "-1", datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("date", '"2024-02-29"', date(2024, 2, 29)),
        ("decimal(6,2)", "1234.5", Decimal("1234.50")),
        ("decimal(6,2)", '"-1234.50"', Decimal("-1234.50")),
        (
            "decimal(38,20)",
            "123456789012345678.12345678901234567890",
            Decimal("123456789012345678.12345678901234567890"),
        ),
        ("decimal(4,1)", "1.2000", Decimal("1.2")),
        ("list<int64>", "[1,null,3]", [1, None, 3]),
        ("list<list<string>>", '[["a"],[],null]', [["a"], [], None]),
        ("list<date>", '["2024-01-01",null]', [date(2024, 1, 1), None]),
        ("struct<a: int64, b: string>", '{"b":"x","c":1}', {"a": None, "b": "x"}),
        ("struct<a: list<struct<t: date>>>", '{"a":[{"t":"2024-01-01"}]}', {"a": [{"t": date(2024, 1, 1)}]}),
        ("map<string, int64>", '{"a":1,"b":null}', [("a", 1), ("b", None)]),
        ("json", '{"a": [1, 2.50, "x"]}', '{"a":[1,2.50,"x"]}'),
        ("json", "12345678901234567890123.4500", "12345678901234567890123.4500"),
        ("json", '"x"', '"x"'),
        ("json", "true", "true"),
    ],
)
def test_values(column_type: str, literal: str, value: Any) -> None:
    assert one(column_type, literal) == value
    assert one(column_type, "null") is None


@pytest.mark.parametrize(
    ("column_type", "literal", "error"),
    [
        ("string", "1", "x: number 1 is not string"),
        ("int64", "1.0", "x: number 1.0 is not int64"),
        ("int64", "1e2", "x: number 100.0 is not int64"),
        ("int64", '"1"', "x: text '1' is not int64"),
        ("int64", "true", "x: true is not int64"),
        ("int64", "9223372036854775808", "x: number 9223372036854775808 is not int64"),
        ("int16", "40000", "x: number 40000 is not int16"),
        ("bool", "1", "x: number 1 is not bool"),
        ("bool", '"true"', "x: text 'true' is not bool"),
        ("float64", '"1.5"', "x: text '1.5' is not float64"),
        ("float64", "NaN", "x: 'nan' is not float64"),
        ("float64", "-Infinity", "x: '-inf' is not float64"),
        ("float32", "1e39", "x: '1e+39' is not float32"),
        ("int64", "NaN", "x: number nan is not int64"),
        ("timestamp", "1700000000", "x: number 1700000000 is not timestamp"),
        ("timestamp", '"2024-02-30T12:00:00Z"', "x: '2024-02-30T12:00:00Z' is not timestamp"),
        ("timestamp", '"2024-02-29T12:00:00.1234567Z"', "x: '2024-02-29T12:00:00.1234567Z' is not timestamp"),
        ("timestamp", '"2024-02-29"', "x: '2024-02-29' is not timestamp"),
        ("timestamp(s)", "1e9", "x: number 1000000000.0 is not timestamp(s)"),
        ("timestamp(s)", "1700000000123456", "x: '1700000000123456' is not timestamp(s)"),
        ("date", '"2023-02-29"', "x: '2023-02-29' is not date"),
        ("decimal(6,2)", "1.234", "x: number 1.234 is not decimal(6,2)"),
        ("decimal(6,2)", "12345", "x: '12345.00' is not decimal(6,2)"),
        ("decimal(6,2)", '"1,5"', "x: text '1,5' is not decimal(6,2)"),
        ("decimal(38,10)", "1e-49", "x: number 1E-49 is not decimal(38,10)"),
        ("decimal(38,10)", "1e30", "x: number 1E+30 is not decimal(38,10)"),
        ("decimal(38,10)", "1e-999999999", "x: number 1E-999999999 is not decimal(38,10)"),
        ("decimal(38,10)", "1" + "0" * 30, f"x: number 1{'0' * 30} is not decimal(38,10)"),
        (
            "decimal(38,30)",
            "34028236692093846346337460744.5",
            "x: number 34028236692093846346337460744.5 is not decimal(38,30)",
        ),
        ("decimal(38,30)", '"1\\u0065-49"', "x: text '1e-49' is not decimal(38,30)"),
        ("decimal(6,2)", '"1e99999999999999999999"', "x: text '1e99999999999999999999' is not decimal(6,2)"),
        ("list<int64>", '[1,"a"]', "x[1]: text 'a' is not int64"),
        ("list<int64>", "1", "x: number 1 is not list<int64>"),
        ("struct<a: struct<b: list<bool>>>", '{"a":{"b":[true,0]}}', "x.a.b[1]: number 0 is not bool"),
        ("struct<a: int64>", "[]", "x: an array is not struct<a: int64>"),
        ("map<string, int64>", '{"a b":true}', "x.a b: true is not int64"),
        ("map<string, float64>", '{"a":NaN}', "x: \"[['a', nan]]\" is not map<string, float64>"),
        (
            "list<map<string, date>>",
            '[{"a":"2023-02-29"}]',
            "x: \"[[['a', '2023-02-29']]]\" is not list<map<string, date>>",
        ),
    ],
)
def test_a_wrong_type_is_a_reject_never_a_guess(column_type: str, literal: str, error: str) -> None:
    assert one(column_type, literal) == ("type", error)


def test_an_exponent_that_nothing_can_hold() -> None:
    error = "x: number 0e99999999999999999999 is not decimal(6,2)"
    assert one("decimal(6,2)", "0e99999999999999999999") == ("type", error)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 400])
def test_a_number_beyond_a_double_is_no_float(number: str) -> None:
    for column_type in ("float64", "float32"):
        found = one(column_type, number)
        assert (found[0], found[1].endswith(f"inf' is not {column_type}")) == ("type", True)
    assert one("int64", number)[0] == "type"


@pytest.mark.parametrize("number", ["1E+400", "0e99999999999999999999", "1" + "0" * 5000])
def test_a_number_beyond_a_double_is_kept_as_it_was_written(number: str) -> None:
    rows, rejects = decode(decoder("keep", x="json"), f'{{"x":[{number}],"y":{number}}}'.encode())
    assert rejects == []
    assert rows[0]["x"] == f"[{number}]"
    assert rows[0]["_extra"] == f'{{"y":{number}}}'


@pytest.mark.parametrize(
    ("value", "reason", "error"),
    [
        (b"", "malformed", "zero-length"),
        (b"  ", "malformed", "empty"),
        (b"null", "malformed", "null is not an object"),
        (b"[{}]", "malformed", "an array is not an object"),
        (b'"x"', "malformed", "text 'x' is not an object"),
        (b"1", "malformed", "number 1 is not an object"),
        (b'{"x":1', "malformed", "unexpected end of data"),
        (b'{"x":1}{"x":2}', "malformed", "unexpected content after document"),
        (b'{"x":1} null {"x":2}', "malformed", "unexpected content after document"),
        (b'{"x":1}\n{"x":2}', "malformed", "unexpected content after document"),
        (b'{"x":1},', "malformed", "unexpected content after document"),
        (b'{"x":1,}', "malformed", "trailing comma"),
        (b"{'x':1}", "malformed", "expected a string key"),
        (b'{"x":01}', "malformed", "leading zero"),
        (b'{"x":1}\x00', "malformed", "unexpected content"),
        (b'\xef\xbb\xbf{"x":1}', "malformed", "BOM"),
        (b'{"x":1,"y":"\\ud800"}', "malformed", "surrogate"),
        (b'{"x":1,"y":01e999}', "malformed", "leading zero"),
        (b'{"x":1,"y":1e999.5}', "malformed", "infinity"),
        (b'{"x":1,"y":1e999e5}', "malformed", "infinity"),
        (b'{"x":1,"y":--1e999}', "malformed", "no digit after sign"),
        (b'{"x":1,"y":1e999,"z":"\\ud800"}', "malformed", "infinity"),
        (b'{"x":1e999}', "type", "x: number 1E+999 is not int64"),
        (b'{"x":1,"y":nan}', "malformed", "invalid literal"),
        (b'{"x":1,"y":"a\nb"}', "malformed", "control character"),
        (b'{"x":1,"y":"\xff"}', "encoding", "byte 12 is not UTF-8"),
        (b'{"x":1,"x":1}', "duplicate_key", "the key 'x' comes twice"),
        (b'{"x":1,"\\u0078":null}', "duplicate_key", "the key 'x' comes twice"),
        (b'{"x":1,"y":' + b"[" * 501 + b"]" * 501 + b"}", "too_deep", "nested deeper than 500"),
        (b'{"x":1,"y":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "too_deep", "nested deeper than 500"),
        (b"[" * 1_000_000, "too_deep", "nested deeper than 500"),
    ],
)
def test_what_is_no_record_is_a_reject_and_its_neighbours_are_rows(value: bytes, reason: str, error: str) -> None:
    good = b'{"x":7}'
    rows, rejects = decode(decoder(x="int64"), good, value, good)
    assert rows == [{"x": 7, "_row": 0}, {"x": 7, "_row": 2}]
    assert [found[:2] for found in rejects] == [(1, reason)]
    assert error in rejects[0][2]
    assert exact(decoder(x="int64"), good, value, good) == (rows, rejects)


@pytest.mark.parametrize(
    "value",
    [
        b' {"x":7}\r\n',
        b'{\n  "x": 7\n}\n',
        b'{"y":{"x":1},"x":7}',
        b'{"x":7,"y":1,"y":2}',
        b'{"x":7,"y":NaN,"z":[-Infinity,-Inf]}',
        b'{"x":7,"y":"}x"}',
        b'{"x":7,"y":' + b"[" * 499 + b"]" * 499 + b"}",
        b'{"x":7,"y":123456789012345678901234567890}',
        b'{"x":7,"y":[1e400,-1E999],"z":-Infinity}',
        b'{"x":7,"y":1e99999999999999999999}',
        b'{"x":7,"y":1' + b"0" * 5000 + b"}",
    ],
)
def test_what_is_not_asked_for_does_not_matter(value: bytes) -> None:
    assert decode(decoder(x="int64"), value) == ([{"x": 7, "_row": 0}], [])
    assert exact(decoder(x="int64"), value) == ([{"x": 7, "_row": 0}], [])


@pytest.mark.parametrize(
    "hostile", [b'\\"' * 500_000, b"\\" * 1_000_001, b'"' * 1_000_000, b'" ' * 500_000, b"NaN" * 300_000]
)
def test_a_megabyte_of_quotes_is_read_in_linear_time(hostile: bytes) -> None:
    records = [b'{"x":' + b"[" * 501 + b'"' + hostile, b'{"x":NaN,"y":"' + hostile + b"}", b'{"x":7}']
    rows, rejects = decode(decoder(x="int64"), *records)
    assert rows == [{"x": 7, "_row": 2}]
    assert [reason for _, reason, _ in rejects] == ["too_deep", "malformed"]


def test_deep_records_with_exact_numbers_are_read() -> None:
    deep = b'{"d":1.50,"y":' + b"[" * 499 + b"]" * 499 + b',"z":' + b'{"a":' * 498 + b"1" + b"}" * 498 + b"}"
    assert decode(decoder(d="decimal(4,2)"), deep) == ([{"d": Decimal("1.50"), "_row": 0}], [])
    assert exact(decoder(d="decimal(4,2)"), deep) == ([{"d": Decimal("1.50"), "_row": 0}], [])


def test_two_documents_and_none_do_not_move_the_rows_between() -> None:
    rows, rejects = decode(decoder(x="int64"), b'{"x":1}{"x":2}', b'{"x":3}', b" ", b'{"x":4', b"}", b'{"x":5}')
    assert rows == [{"x": 3, "_row": 1}, {"x": 5, "_row": 5}]
    assert [row for row, *_ in rejects] == [0, 2, 3, 4]


@pytest.mark.parametrize("item", ["date", "timestamp", "timestamp(ms)", "float32", "float64", "decimal(5,2)"])
def test_maps_of_values_that_have_a_range(item: str) -> None:
    good, bad = {"date": ('"2024-02-29"', '"2023-02-29"'), "timestamp": ('"2024-02-29T00:00Z"', '"noon"')}.get(
        item, ("1", "1e400")
    )
    records = [f'{{"x":{members}}}'.encode() for members in (f'{{"a":{good}}}', "{}", f'{{"a":{good},"b":{bad}}}')]
    rows, rejects = decode(decoder(x=f"map<string, {item}>"), *records, b"{}", records[0])
    assert [len(row["x"] or ()) for row in rows] == [1, 0, 0, 1]
    assert [(row, reason) for row, reason, _ in rejects] == [(2, "type")]


def test_what_is_wrong_is_said_the_same_whoever_reads_the_record() -> None:
    columns = {"x": "struct<a: float64, b: decimal(5,5)>"}
    record = b'{"x":{"a":-0,"b":92}}'
    assert decode(decoder(**columns), record) == exact(decoder(**columns), record)


def test_a_missing_field_is_null_and_so_is_a_tombstone() -> None:
    rows, rejects = decode(decoder(x="int64", y="list<date>"), b"{}", None, b'{"x":1,"y":["2024-01-01"]}')
    assert rows == [
        {"x": None, "y": None, "_row": 0},
        {"x": None, "y": None, "_row": 1},
        {"x": 1, "y": [date(2024, 1, 1)], "_row": 2},
    ]
    assert rejects == []


def test_rejects_among_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_decoder, "_BLOCK_BYTES", 256)
    values = [b'{"x":"no"}' if number % 37 == 5 else b'{"x":%d}' % number for number in range(3000)]
    rows, rejects = decode(decoder(x="int64"), *values)
    assert [row["x"] for row in rows] == [number for number in range(3000) if number % 37 != 5]
    assert all(row["x"] == row["_row"] for row in rows)
    assert [row for row, *_ in rejects] == list(range(5, 3000, 37))


def test_generated_logs_reject_exactly_the_malformed() -> None:
    logs = AccessLogs(seed=11, start=datetime(2026, 11, 24, tzinfo=UTC), form="json", malformed_share=0.01)
    _, rejects = decode(decoder(**JSON_COLUMNS), *logs.lines(20_000))
    assert [row for row, *_ in rejects] == sorted(logs.malformed)


# New fields


@pytest.mark.parametrize(
    ("record", "extra"),
    [
        (b'{"x":1}', None),
        (b'{"x":1,"y":2}', '{"y":2}'),
        (b'{"y":null}', '{"y":null}'),
        (b'{"y":1.10,"z":{"a":[12345678901234567890.5]}}', '{"y":1.10,"z":{"a":[12345678901234567890.5]}}'),
        (b'{"o":{"a":1,"new":true}}', '{"o":{"new":true}}'),
        (b'{"l":[{"a":1},{"new":2},null]}', '{"l":[null,{"new":2},null]}'),
        ('{"y":"é\\u00e9"}'.encode(), '{"y":"éé"}'),
    ],
)
def test_new_fields_are_kept_where_they_were(record: bytes, extra: str | None) -> None:
    columns = {"x": "int64", "o": "struct<a: int64>", "l": "list<struct<a: int64>>"}
    rows, rejects = decode(decoder("keep", **columns), record)
    assert rejects == []
    assert rows[0]["_extra"] == extra
    assert decoder("keep", **columns).schema.field("_extra").type == pa.string()
    assert "_extra" not in decode(decoder(**columns), record)[0][0]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"y":1,"y":2}', "duplicate_key"),
        (b'{"y":{"a":1,"a":2}}', "duplicate_key"),
        (b'{"y":NaN}', "malformed"),
        (b'{"y":' + b"[" * 400 + b"]" * 400 + b"}", "malformed"),
    ],
)
def test_new_fields_that_text_would_lose_are_rejects(record: bytes, reason: str) -> None:
    rows, rejects = decode(decoder("keep", x="int64"), b'{"x":1}', record)
    assert [row["x"] for row in rows] == [1]
    assert [found[:2] for found in rejects] == [(1, reason)]


def test_shapes_that_take_turns_are_one_batch() -> None:
    values = [b'{"x":1}' if number % 2 else b'{"x":1,"new":2}' for number in range(1000)]
    rows, rejects = decode(decoder("keep", x="int64"), *values)
    assert rejects == []
    assert [row["_extra"] for row in rows] == [None if number % 2 else '{"new":2}' for number in range(1000)]


# The types' texts


@pytest.mark.parametrize(
    "text",
    [
        "string", "int16", "int32", "int64", "float32", "float64", "bool", "json", "date", "timestamp", "timestamp(s)",
        "timestamp(ms)", "timestamp(us)", "decimal(10,2)", "list<list<int64>>", "map<string, list<date>>",
        'struct<a: int64, "b c": struct<"\\"\\\\": json>, "": string>',
    ],
)  # fmt: skip
def test_a_type_is_read_back_from_its_text(text: str) -> None:
    assert type_text(parse_type(text)) == text


def test_types_may_be_written_loosely() -> None:
    assert (
        type_text(parse_type(" struct < a:double ,b : decimal( 10 , 2 ) > ")) == "struct<a: float64, b: decimal(10,2)>"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("int", "type 'int', column 1: 'int' is no type; did you mean int64?"),
        ("timestmp", "did you mean timestamp?"),
        ("timestamp(ns)", "'timestamp(ns)' is no type; did you mean timestamp(s)?"),
        ("list<strng>", "column 6: 'strng' is no type; did you mean string?"),
        ("list<int64", "column 11: expected '>', found the end"),
        ("struct<a int64>", "column 10: expected ':', found 'int64'"),
        ("struct<a: int64, a: bool>", "column 18: the field 'a' comes twice"),
        ("map<int64, string>", "column 5: the keys of a map are strings"),
        ("decimal(40,2)", "needs 1 <= p <= 38 and 0 <= s <= p"),
        ("decimal(x,2)", "column 9: expected a number, found 'x'"),
        ("int64 int64", "column 7: 'int64' is left over"),
        ("", "column 1: expected a type, found the end"),
        ("list<" * 2000, "nested deeper than 32"),
        ("blob", "known are string, json"),
    ],
)
def test_a_wrong_type_says_where_and_what_was_meant(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_type(text)


# Inference


def test_a_schema_is_inferred_from_a_sample() -> None:
    sample = [
        b'{"i":1,"f":1,"s":"a","t":"2024-01-01T00:00:00Z","d":"2024-01-01","b":true,"n":null,"m":1,"l":[1,null],"e":[]}',
        b'{"i":2,"f":1.5,"s":"2024-01-01","t":"2024-01-01 10:00","d":"2024-02-29","b":null,"m":"x","l":[],"o":{"a":1}}',
        b'{"big":9223372036854775808,"o":{"a":2.5,"b":[{"c":"x"}]},"w":{},"f2":9007199254740993}',
        b'{"f2":0.5,"no_date":"2024-02-30"}',
        b"broken",
        b"[1]",
        None,
    ]
    assert infer_schema(pa.array(sample, pa.binary())) == {
        "i": "int64",
        "f": "float64",
        "s": "string",
        "t": "timestamp",
        "d": "date",
        "b": "bool",
        "n": "json",
        "m": "json",
        "l": "list<int64>",
        "e": "list<json>",
        "o": "struct<a: float64, b: list<struct<c: string>>>",
        "big": "json",
        "w": "json",
        "f2": "json",
        "no_date": "string",
    }


def test_names_that_cannot_be_columns_are_left_to_on_new_field() -> None:
    sample = pa.array([b'{"a":1,"A":2,"_row":3,"_extra":4,"_key":5,"":6}'], pa.binary())
    assert infer_schema(sample) == {"a": "int64"}


def test_digits_are_never_lost_in_an_inferred_column() -> None:
    sample = pa.array(
        [b'{"id":123456789012345678901,"x":[1,36893488147419103233],"f":1e30,"n":12345678901234567890123}']
    )
    assert infer_schema(sample.cast(pa.binary())) == {"id": "json", "x": "list<json>", "f": "float64", "n": "json"}
    assert one("json", "123456789012345678901") == "123456789012345678901"


@pytest.mark.parametrize("sample", [[], [None, b"x"], [b"[]"], [b"{}"]])
def test_a_sample_without_fields_is_an_error(sample: list[bytes | None]) -> None:
    with pytest.raises(ValueError, match="no schema to infer"):
        infer_schema(pa.array(sample, pa.binary()))


# Against orjson

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.sampled_from(["2024-02-29T12:00:00Z", "2024-02-30T12:00:00Z", "}x", '"', "{", "a\nb"]),
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abxy"), inner, max_size=3)),
)
_OBJECTS = st.dictionaries(st.one_of(st.sampled_from("abcixslo"), st.text(max_size=3)), _JSON, max_size=5)
_RENDERED = st.builds(
    lambda value, indent, ascii_only: json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode(
        "utf-8", "replace"
    ),
    st.one_of(_OBJECTS, _JSON),
    st.sampled_from([None, 2]),
    st.booleans(),
)


@st.composite
def _records(draw: st.DrawFn) -> bytes:
    record = draw(_RENDERED)
    if draw(st.integers(0, 3)):
        return record
    at = draw(st.integers(0, len(record)))
    piece = draw(
        st.sampled_from(
            [b"", b"null", b"{}", b"}", b'"', b",", b"\n", b"\x00", b"NaN", b"1", b"\xff", b"\\u0061", b"2e999"]
        )
    )
    return record[:at] + piece + record[draw(st.sampled_from([at, len(record)])) :]


_COLUMNS = {"i": "int64", "s": "string", "x": "float64", "l": "list<int64>", "o": "struct<a: int64, b: string>"}


def _as_declared(kind: str, value: Any) -> Any:
    """The value if it is of the type, else ``NotImplemented``; by what orjson makes of it."""
    if value is None:
        return None
    if kind == "string":
        return value if isinstance(value, str) else NotImplemented
    if kind == "int64":
        return value if type(value) is int and -(2**63) <= value < 2**63 else NotImplemented
    if kind == "float64":
        return float(value) if type(value) in {int, float} else NotImplemented
    if kind == "list<int64>":
        items = [_as_declared("int64", item) for item in value] if isinstance(value, list) else [NotImplemented]
        return NotImplemented if any(item is NotImplemented for item in items) else items
    if not isinstance(value, dict):
        return NotImplemented
    members = {"a": _as_declared("int64", value.get("a")), "b": _as_declared("string", value.get("b"))}
    return NotImplemented if any(member is NotImplemented for member in members.values()) else members


def _as_orjson_reads(record: bytes) -> Row | None:
    try:
        value = orjson.loads(record)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        return None
    row = {name: _as_declared(kind, value.get(name)) for name, kind in _COLUMNS.items()}
    return None if any(item is NotImplemented for item in row.values()) else row


@given(st.lists(_records(), max_size=6))
@settings(max_examples=120, deadline=None)
def test_records_are_what_orjson_reads(records: list[bytes]) -> None:
    rows, rejects = decode(decoder(**_COLUMNS), *records)
    wanted = {number: _as_orjson_reads(record) for number, record in enumerate(records)}
    unclear = {number for number, record in enumerate(records) if b"NaN" in record or b"e999" in record}
    unclear |= {row for row, reason, _ in rejects if reason == "duplicate_key"}
    found: dict[int, Row | None] = {row.pop("_row"): row for row in rows}
    found |= {row: None for row, *_ in rejects}
    assert found.keys() == wanted.keys()
    assert {n: row for n, row in found.items() if n not in unclear} == {
        n: row for n, row in wanted.items() if n not in unclear
    }


@pytest.mark.parametrize("on_new_field", ["ignore", "keep"])
@pytest.mark.parametrize("more", [{}, {"a": "json", "b": "map<string, int64>", "c": "decimal(8,3)", "y": "float32"}])
@given(records=st.lists(_records(), max_size=6))
@settings(max_examples=50, deadline=None)
def test_blocks_are_read_as_one_record_at_a_time_is(
    on_new_field: Literal["ignore", "keep"], more: dict[str, str], records: list[bytes]
) -> None:
    columns = _COLUMNS | more
    assert decode(decoder(on_new_field, **columns), *records) == exact(decoder(on_new_field, **columns), *records)


@given(st.lists(_OBJECTS, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_sample_fits_the_schema_inferred_from_it(objects: list[Row]) -> None:
    values = pa.array(
        [orjson.dumps(members, default=str) if _fits64(members) else b"{}" for members in objects], pa.binary()
    )
    try:
        columns = infer_schema(values)
    except ValueError:
        return
    sifted = JsonDecoder({name: parse_type(text) for name, text in columns.items()}).decode(values)
    assert len(sifted.rejects) == 0
    assert sifted.rows.schema.names[:-1] == list(columns)
    assert sifted.rows.schema.types[:-1] == [arrow_type(parse_type(text)) for text in columns.values()]


def _fits64(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True
