"""Values as they came, in one column."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

from streamsvc.decoders.sifting import row_numbers, screen, sift, with_row
from streamsvc.records import NO_REJECTS, Sifted


class RawDecoder:
    """One column of ``binary``, or of ``string``; then a value that is not UTF-8 is a reject (``encoding``)."""

    version = 1

    def __init__(self, column: str = "value", kind: Literal["binary", "string"] = "binary") -> None:
        self._schema = pa.schema([(column, pa.binary() if kind == "binary" else pa.string())])

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def decode(self, values: pa.Array) -> Sifted:
        if self._schema.types[0] == pa.binary():
            rows = pa.RecordBatch.from_arrays([values, row_numbers(len(values))], schema=with_row(self._schema))
            return Sifted(rows, NO_REJECTS)
        texts, records = screen(values)
        return sift(self._schema, records, [texts])
