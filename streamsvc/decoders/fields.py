"""The text of an access log's fields to typed columns."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.decoders import timestamps
from streamsvc.decoders.cutting import cut, interleave
from streamsvc.decoders.logformat import Field, column_names
from streamsvc.decoders.sifting import Fault, excerpt, marked

NUMBER = "number"
"""A field that must be a number is none, or it is out of range."""
TIMESTAMP = "timestamp"
"""A field that must be a time is none, or names a day that does not exist."""

_BITS = {"int16": 16, "int32": 32, "int64": 64}
_INTEGERS = {"int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64()}
_PER_SECOND = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000}

_METHOD = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
_PROTOCOL = r"^HTTP/[0-9]+\.[0-9]+$"


def schema_of(fields: list[Field]) -> pa.Schema:
    return pa.schema([(name, _type_of(field)) for field in fields for name in column_names(field)])


def parts_of(field: Field) -> int:
    """How many texts a line has for this field: two for a common log time, the clock and the zone."""
    return 2 if field.kind == "clf" else 1


def is_text(field: Field) -> bool:
    """Whether escapes in the field's text are resolved."""
    return field.kind in {"text", "state", "request"}


def typed(field: Field, texts: list[pa.Array]) -> tuple[list[pa.Array], dict[int, Fault]]:
    """The columns of one field, and what is wrong with its text, by row.

    texts: string, as many as ``parts_of`` says; where they are null there is no line, and no fault.
    """
    text = texts[0]
    if field.kind == "state":
        return [text], {}
    if field.kind == "text":
        return [_dash_is_null(text)], {}
    if field.kind == "request":
        request = _dash_is_null(text)
        return [request, *_request_parts(request)], {}
    if field.kind in _BITS:
        return _read(texts, lambda present: _integers(present, field.kind), field, NUMBER)
    if field.kind == "clf":
        return _read(texts, lambda clocks: timestamps.from_clf(clocks, texts[1]), field, TIMESTAMP)
    if field.kind == "strftime":
        return _read(texts, lambda present: timestamps.from_strftime(present, field.time_format), field, TIMESTAMP)
    return _read(texts, lambda present: _epochs(present, field.kind), field, TIMESTAMP)


def _type_of(field: Field) -> pa.DataType:
    if is_text(field):
        return pa.string()
    return _INTEGERS.get(field.kind, timestamps.UTC)


def _dash_is_null(text: pa.Array) -> pa.Array:
    """Without a copy of the bytes: a null may stand on any."""
    dashes = pc.equal(text, "-")
    if not pc.any(dashes).as_py():
        return text
    _, offsets, data = text.buffers()
    if text.offset or offsets is None:
        return pc.if_else(dashes, None, text)
    present = pc.invert(dashes).fill_null(False).buffers()[1]
    return pa.StringArray.from_buffers(len(text), offsets, data, present)


def _read(
    texts: list[pa.Array], read: Callable[[pa.Array], pa.Array], field: Field, reason: str
) -> tuple[list[pa.Array], dict[int, Fault]]:
    """A column from the first of the texts, and a fault where there is a text but no value."""
    present = _dash_is_null(texts[0])
    column = read(present)
    if column.null_count == present.null_count:
        return [column], {}
    wrong = pc.indices_nonzero(pc.and_(column.is_null(), present.is_valid()))
    said = pc.binary_join_element_wise(*(text.take(wrong) for text in texts), " ")
    found = zip(wrong.to_pylist(), said.to_pylist(), strict=True)
    expected = "a time" if reason == TIMESTAMP else f"an {field.kind}"
    return [column], {
        row: Fault(reason, f"column {field.name} ({field.directive}): {excerpt(value)} is not {expected}")
        for row, value in found
    }


def _integers(texts: pa.Array, kind: str) -> pa.Array:
    """Digits only, without a sign. Null where a text is no such number or is out of range."""
    digits = pc.ascii_is_decimal(texts)
    if pc.all(digits).as_py() is False:
        texts = pc.if_else(digits, texts, None)
    try:
        return texts.cast(_INTEGERS[kind])
    except pa.ArrowInvalid:
        largest = 2 ** (_BITS[kind] - 1) - 1
        long = pc.indices_nonzero(pc.greater_equal(pc.binary_length(texts), len(str(largest))))
        over = [
            row
            for row, text in zip(long.to_pylist(), texts.take(long).to_pylist(), strict=True)
            if _over(text, largest)
        ]
        return pc.if_else(marked(len(texts), over), None, texts).cast(_INTEGERS[kind])


def _over(digits: str, largest: int) -> bool:
    significant = digits.lstrip("0")
    return len(significant) > len(str(largest)) or int(significant or "0") > largest


def _epochs(texts: pa.Array, kind: str) -> pa.Array:
    return timestamps.from_epoch(_integers(texts, "int64"), _PER_SECOND[kind])


def _request_parts(request: pa.Array) -> list[pa.Array]:
    """Method, path and protocol of ``METHOD target HTTP/x.y``; null of any other request line."""
    parts, fit = cut(request, " ", 3)
    if fit is not None:
        odd = pc.extract_regex(request.filter(pc.invert(fit)), r"(?s)^(?P<m>[^ ]+) (?P<p>.+) (?P<v>[^ ]+)$")
        parts = interleave(fit, parts, odd.flatten())
    method, path, protocol = parts
    well_formed = pc.and_(_matches(method, _METHOD), _matches(protocol, _PROTOCOL))
    well_formed = pc.and_(well_formed, pc.not_equal(path, ""))
    if pc.all(well_formed).as_py() is False:
        method, path, protocol = (pc.if_else(well_formed, column, None) for column in (method, path, protocol))
    return [method, path, protocol]


def _matches(texts: pa.Array, pattern: str) -> pa.Array:
    """By the distinct values: there are few methods and protocols."""
    encoded = texts.dictionary_encode()
    return pc.match_substring_regex(encoded.dictionary, pattern).take(encoded.indices)
