"""Texts cut in columns by Arrow's CSV reader, which is faster than anything else at it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from streamsvc.decoders.sifting import bytes_of, marked, row_numbers

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def cut(texts: pa.Array, delimiter: str, width: int, *, without: str = "") -> tuple[list[pa.Array], pa.Array | None]:
    """Cut texts at every ``delimiter`` (one ASCII character) in ``width`` pieces, at least two.

    The columns hold the texts that fit, and only those; the mask (bool, one for each text) says which, ``None``
    that all do. A text does not fit that is null or empty, has another number of pieces, or holds a line break or
    a character of ``without``.
    """
    fit: pa.Array | None = None
    if texts.null_count or pc.min(pc.binary_length(texts)).as_py() == 0:
        fit = pc.not_equal(texts, "").fill_null(False)
        texts = texts.filter(fit)
    for mark in f"\r\n{without}":
        if holds(texts, mark):
            clean = pc.invert(pc.match_substring_regex(texts, re.escape(mark)))
            fit, texts = within(fit, clean), texts.filter(clean)
    columns, misfits = _read(joined(texts), delimiter, width)
    return columns, within(fit, pc.invert(marked(len(texts), misfits))) if misfits else fit


def within(mask: pa.Array | None, narrower: pa.Array) -> pa.Array:
    """A mask (bool) narrowed by one that has a value for each of its true ones. ``None`` is all true."""
    return narrower if mask is None else pc.replace_with_mask(mask, mask, narrower)


def interleave(where: pa.Array, columns: Sequence[pa.Array], others: Sequence[pa.Array]) -> list[pa.Array]:
    """Rows of ``columns`` where ``where`` (bool, no nulls) is true, else of ``others``; each in their order."""
    count = pc.cumulative_sum(where.cast(pa.int32()))
    place = pc.subtract(count, 1)
    other_place = pc.add(pc.subtract(row_numbers(len(where)), count), len(columns[0]))
    order = pc.if_else(where, place, other_place)
    return [pa.concat_arrays(pair).take(order) for pair in zip(columns, others, strict=True)]


def joined(texts: pa.Array) -> pa.Buffer:
    """The bytes of texts (no nulls) with line breaks between them."""
    lines = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts), "\n")
    return bytes_of(lines)[0]


def holds(texts: pa.Array, mark: str) -> bool:
    """Whether any of them (string, no nulls) has this character: one ``memchr`` over all their bytes, no copy."""
    whole, _ = bytes_of(texts)
    one = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, whole.size], np.int32).tobytes()), whole)
    return bool(pc.match_substring_regex(one, re.escape(mark))[0].as_py())


def _read(buffer: pa.Buffer, delimiter: str, width: int) -> tuple[list[pa.Array], list[int]]:
    """The columns of the lines that have ``width`` pieces, and the numbers of the lines that have not."""
    names = [str(number) for number in range(width)]
    if buffer.size == 0:
        return [pa.nulls(0, pa.string())] * width, []
    if buffer[:3].to_pybytes() == _BYTE_ORDER_MARK:
        columns, misfits = _read(pa.py_buffer(b"\n" + buffer.to_pybytes()), delimiter, width)
        return [column.slice(1) for column in columns], [number - 1 for number in misfits]
    misfits = []

    def note(row: csv.InvalidRow) -> Literal["skip"]:
        misfits.append((row.number or 0) - 1)
        return "skip"

    table = csv.read_csv(
        pa.BufferReader(buffer),
        read_options=csv.ReadOptions(use_threads=False, block_size=buffer.size + 1, column_names=names),
        parse_options=csv.ParseOptions(
            delimiter=delimiter,
            quote_char=False,
            double_quote=False,
            escape_char=False,
            ignore_empty_lines=False,
            invalid_row_handler=note,
        ),
        convert_options=csv.ConvertOptions(
            check_utf8=False, column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    return [whole(column) for column in table.columns], misfits


def whole(column: pa.ChunkedArray) -> pa.Array:
    """``combine_chunks`` copies also what is one chunk already."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
