"""A decoder from its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    """``problems``: the keys below ``decode`` that lead to what is wrong, and what it is."""

    def __init__(self, what: str, *path: str) -> None:
        super().__init__(what)
        self.problems = [(path, what)]

    @classmethod
    def of(cls, several: Sequence[InvalidDecode]) -> InvalidDecode:
        whole = cls("\n".join(map(str, several)))
        whole.problems = [problem for one in several for problem in one.problems]
        return whole


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
    problems: list[InvalidDecode] = []
    folded: dict[str, str] = {}
    for name, text in columns.items():
        try:
            declared[name] = _declared_type(name, text, folded)
        except InvalidDecode as problem:
            problems.append(problem)
    if problems:
        raise InvalidDecode.of(problems)
    return declared


def _declared_type(name: str, text: str, folded: dict[str, str]) -> ColumnType:
    """``folded``: the names before this one, by how SQL sees them; this one is added."""
    _refuse_reserved(name, "json", "schema", name)
    other = folded.setdefault(name.casefold(), name)
    if other != name:
        raise InvalidDecode(f"{name!r} and {other!r} differ only in case: SQL cannot tell", "json", "schema", name)
    try:
        return parse_type(text)
    except ValueError as error:
        raise InvalidDecode(f"column {name!r}: {error}", "json", "schema", name) from None


def _refuse_reserved(name: str, *path: str) -> None:
    if not name:
        raise InvalidDecode("a column needs a name", *path)
    if name in _RESERVED:
        raise InvalidDecode(f"a column cannot be called {name!r}: the name is used inside", *path)
