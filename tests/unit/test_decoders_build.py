"""Decoders from configuration."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from streamsvc.config import Decode
from streamsvc.decoders.build import InvalidDecode, build, needs_sample, with_sample


def decode(**shape: Any) -> Decode:
    return Decode.model_validate(shape)


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ({"apache": "common"}, ["host", "ident", "authuser", "datetime", "request", "method", "path", "protocol"]),
        ({"apache": "%h %{Referer}i"}, ["host", "referer"]),
        ({"apache": "error"}, ["timestamp", "module", "severity", "processid", "threadid", "client", "message"]),
        ({"json": {"schema": {"a": "int64", "b": "date"}}}, ["a", "b"]),
        ({"json": {"schema": {"a": "int64"}, "on_new_field": "keep"}}, ["a", "_extra"]),
        ({"raw": {}}, ["value"]),
        ({"raw": {"column": "line", "type": "string"}}, ["line"]),
    ],
)
def test_each_shape_is_a_decoder(shape: dict[str, Any], names: list[str]) -> None:
    assert build(decode(**shape)).schema.names[: len(names)] == names


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"raw": {}, "apache": "common"},
        {"json": {"schema": "guess"}},
        {"json": {"on_new_field": "drop"}},
        {"raw": {"type": "text"}},
        {"csv": {}},
    ],
)
def test_other_shapes_are_refused(shape: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        decode(**shape)


@pytest.mark.parametrize(
    ("shape", "path", "says"),
    [
        ({"apache": "combinde"}, ("apache",), "did you mean combined?"),
        (
            {"json": {"schema": {"a": "int64", "b": "int"}}},
            ("json", "schema", "b"),
            "column 'b': .* did you mean int64?",
        ),
        ({"json": {"schema": {}}}, ("json", "schema"), "name at least one column"),
        ({"json": {"schema": {"a": "date", "A": "date"}}}, ("json", "schema", "A"), "differ only in case"),
        ({"json": {"schema": {"_row": "date"}}}, ("json", "schema", "_row"), "used inside"),
        ({"json": {"schema": {"": "date"}}}, ("json", "schema", ""), "needs a name"),
        ({"json": {"schema": "infer"}}, ("json", "schema"), "inferred from a sample first"),
        ({"raw": {"column": "_key"}}, ("raw", "column"), "used inside"),
    ],
)
def test_what_is_wrong_has_a_path(shape: dict[str, Any], path: tuple[str, ...], says: str) -> None:
    with pytest.raises(InvalidDecode, match=says) as caught:
        build(decode(**shape))
    assert [where for where, _ in caught.value.problems] == [path]


def test_every_column_that_is_wrong_is_said() -> None:
    with pytest.raises(InvalidDecode) as caught:
        build(decode(json={"schema": {"a": "intt", "b": "int64", "_row": "date", "B": "date"}}))
    assert [where[-1] for where, _ in caught.value.problems] == ["a", "_row", "B"]
    assert "did you mean int64?" in str(caught.value)


def test_an_inferred_schema_can_be_stored_and_is_fixed() -> None:
    inferring = decode(json={"on_new_field": "keep"})
    assert needs_sample(inferring)
    fixed = with_sample(inferring, pa.array([b'{"a":1,"b":{"c":[1.5]}}', None, b"x"], pa.binary()))
    assert not needs_sample(fixed)
    stored = Decode.model_validate(fixed.model_dump(by_alias=True, exclude_none=True))
    assert stored == fixed
    assert build(stored).schema.names == ["a", "b", "_extra"]
    assert with_sample(fixed, pa.array([b'{"z":1}'], pa.binary())) == fixed


def test_a_sample_without_objects_is_an_error() -> None:
    with pytest.raises(InvalidDecode, match="none of 1 sampled records"):
        with_sample(decode(json={}), pa.array([b"x"], pa.binary()))
