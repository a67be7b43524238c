"""Columns as JSON, made column by column: Python touches no row, but for base64 and control characters.

nulls                 ``null``; every column is there
timestamps            ISO 8601 with ``Z`` (without, if the column has no zone), in microseconds
dates, times          ISO 8601; here too an empty fraction of a second is left out
binary                base64
NaN and infinities    ``"NaN"``, ``"Infinity"``, ``"-Infinity"``, as in the JSON mapping of Protocol Buffers
decimals, durations   numbers; a duration in the unit of its column
maps                  lists of ``{"key": ..., "value": ...}``: a key may come twice
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types


def json_lines(batch: pa.RecordBatch) -> pa.Buffer:
    """The rows as UTF-8, every line ended."""
    lines = json_objects(batch, ending="}\n")
    whole = pa.LargeListArray.from_arrays(pa.array([0, len(lines)], pa.int64()), lines)
    joined = pc.binary_join(whole, "")[0]
    assert isinstance(joined, pa.StringScalar)
    return joined.as_buffer()


def json_objects(batch: pa.RecordBatch, *, ending: str = "}") -> pa.Array:
    """string: each row as a JSON object of all its columns. ``ending``: what closes it."""
    return _objects(batch.schema.names, batch.columns, ending)


def json_texts(column: pa.Array) -> pa.Array:
    """string, no nulls: each value as JSON. Raises ``ArrowNotImplementedError`` for a type that has none."""
    kind = column.type
    if isinstance(column, pa.DictionaryArray):
        return json_texts(column.dictionary).take(column.indices).fill_null("null")
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        texts = _quoted(column.cast(pa.string()))
    elif types.is_integer(kind) or types.is_boolean(kind) or types.is_decimal(kind) or types.is_null(kind):
        texts = column.cast(pa.string())
    elif types.is_floating(kind):
        texts = _floats(column)
    elif types.is_duration(kind):
        texts = column.cast(pa.int64()).cast(pa.string())
    elif types.is_temporal(kind):
        encoded = column.dictionary_encode()
        texts = _times(encoded.dictionary).take(encoded.indices)
    elif isinstance(column, pa.StructArray) and isinstance(kind, pa.StructType):
        texts = _objects(kind.names, column.flatten(), ending="}")
        texts = pc.if_else(column.is_valid(), texts, None)
    elif isinstance(kind, pa.MapType):
        pair = pa.struct([("key", kind.key_type), ("value", kind.item_type)])
        texts = json_texts(column.cast(pa.list_(pair)))
    elif isinstance(column, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        texts = _lists(column)
    else:
        texts = _base64(column)
    return texts.fill_null("null")


def _objects(names: Sequence[str], columns: Sequence[pa.Array], ending: str) -> pa.Array:
    if not names:
        raise pa.ArrowNotImplementedError("a struct without fields")
    first, *others = (orjson.dumps(name).decode() for name in names)
    pieces: list[pa.Array | str] = []
    for name, column in zip(others, columns[1:], strict=True):
        pieces += [f",{name}:", json_texts(column)]
    return pc.binary_join_element_wise(f"{{{first}:", json_texts(columns[0]), *pieces, ending, "")


def _quoted(texts: pa.Array) -> pa.Array:
    """RFC 8259: the quote, the backslash and the controls below U+0020 are escaped."""
    escaped = pc.replace_substring(pc.replace_substring(texts, "\\", "\\\\"), '"', '\\"')
    quoted = pc.binary_join_element_wise('"', escaped, '"', "")
    if pc.all(pc.ascii_is_printable(texts)).as_py() is not False:
        return quoted
    odd = pc.match_substring_regex(texts, "[\x00-\x1f]")
    replacements = [orjson.dumps(text).decode() for text in texts.filter(odd).to_pylist()]
    return pc.replace_with_mask(quoted, odd.fill_null(False), pa.array(replacements, pa.string()))


def _floats(numbers: pa.Array) -> pa.Array:
    numbers = numbers.cast(pa.float32()) if types.is_float16(numbers.type) else numbers
    texts = numbers.cast(pa.string())
    words = pc.if_else(pc.is_nan(numbers), '"NaN"', pc.if_else(pc.less(numbers, 0), '"-Infinity"', '"Infinity"'))
    return pc.if_else(pc.is_finite(numbers), texts, words)


def _times(values: pa.Array) -> pa.Array:
    kind = values.type
    zone = ""
    if isinstance(kind, pa.TimestampType):
        zone = "Z" if kind.tz else ""
        naive = values.cast(pa.timestamp(kind.unit))
        values = naive.cast(pa.timestamp("us"), safe=False) if kind.unit == "ns" else naive
    texts = pc.replace_substring(values.cast(pa.string()), " ", "T", max_replacements=1)
    texts = pc.replace_substring_regex(texts, r"\.0+$", "")
    return pc.binary_join_element_wise('"', texts, f'{zone}"', "")


def _lists(column: pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray) -> pa.Array:
    lengths = pc.list_value_length(column).fill_null(0).cast(pa.int64())
    ends = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
    items = pa.LargeListArray.from_arrays(ends, json_texts(column.flatten()))
    texts = pc.binary_join_element_wise("[", pc.binary_join(items, ","), "]", "")
    return pc.if_else(column.is_valid(), texts, None)


def _base64(column: pa.Array) -> pa.Array:
    values = column.cast(pa.binary()).to_pylist()
    texts = [None if value is None else f'"{b64encode(value).decode("ascii")}"' for value in values]
    return pa.array(texts, pa.string())
