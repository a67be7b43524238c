"""A decoder from its configuration."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from streamsvc.config import Decode, JsonDecode
from streamsvc.contracts import Decoder
from streamsvc.decoders.apache import apache_decoder
from streamsvc.decoders.json import JsonDecoder
from streamsvc.decoders.json_exact import EXTRA
from streamsvc.decoders.json_infer import infer_schema
from streamsvc.decoders.json_types import ColumnType, parse_type
from streamsvc.decoders.raw import RawDecoder
from streamsvc.records import METADATA, ROW

_RESERVED = (ROW, EXTRA, *METADATA)


class InvalidDecode(ValueError):
    """``path``: the keys below ``decode`` that lead to what is wrong."""

    def __init__(self, what: str, *path: str) -> None:
        super().__init__(what)
        self.path = path


def build(decode: Decode) -> Decoder:
    """Raises ``InvalidDecode``."""
    if decode.apache is not None:
        try:
            return apache_decoder(decode.apache)
        except ValueError as error:
            raise InvalidDecode(str(error), "apache") from None
    if decode.raw is not None:
        _refuse_reserved(decode.raw.column, "raw", "column")
        return RawDecoder(decode.raw.column, decode.raw.type)
    assert decode.json_ is not None
    if decode.json_.columns == "infer":
        raise InvalidDecode("the schema must be inferred from a sample first", "json", "schema")
    return JsonDecoder(_declared(decode.json_.columns), decode.json_.on_new_field)


def needs_sample(decode: Decode) -> bool:
    """Whether ``build`` needs what ``with_sample`` answers."""
    return decode.json_ is not None and decode.json_.columns == "infer"


def with_sample(decode: Decode, sample: pa.Array) -> Decode:
    """The same with the schema inferred, to be stored with the configuration: it is fixed from then on.

    sample: binary, values as they were read. Raises ``InvalidDecode``: there is no JSON object in it.
    """
    if decode.json_ is None or decode.json_.columns != "infer":
        return decode
    try:
        columns = infer_schema(sample)
    except ValueError as error:
        raise InvalidDecode(str(error), "json", "schema") from None
    return Decode(json=JsonDecode(schema=columns, on_new_field=decode.json_.on_new_field))


def _declared(columns: Mapping[str, str]) -> dict[str, ColumnType]:
    if not columns:
        raise InvalidDecode("name at least one column, or write schema: infer", "json", "schema")
    declared: dict[str, ColumnType] = {}
    folded: dict[str, str] = {}
    for name, text in columns.items():
        _refuse_reserved(name, "json", "schema", name)
        if name.casefold() in folded:
            other = folded[name.casefold()]
            raise InvalidDecode(f"{name!r} and {other!r} differ only in case: SQL cannot tell", "json", "schema", name)
        folded[name.casefold()] = name
        try:
            declared[name] = parse_type(text)
        except ValueError as error:
            raise InvalidDecode(f"column {name!r}: {error}", "json", "schema", name) from None
    return declared


def _refuse_reserved(name: str, *path: str) -> None:
    if not name:
        raise InvalidDecode("a column needs a name", *path)
    if name in _RESERVED:
        raise InvalidDecode(f"a column cannot be called {name!r}: the name is used inside", *path)
