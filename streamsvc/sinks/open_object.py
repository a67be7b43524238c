"""One object of a segment while it fills."""

from __future__ import annotations

import pyarrow as pa

from streamsvc.contracts import Format, FormatWriter
from streamsvc.records import DataObject

ARRAY_BYTES = 256
"""What an Arrow array costs besides its values: many small batches are not free."""


def held_bytes(batch: pa.RecordBatch) -> int:
    return batch.nbytes + ARRAY_BYTES * batch.num_columns


class OpenObject:
    """Rows wait as Arrow data until they fill a piece of the format; then they are encoded.

    ``waiting_bytes`` and ``writer_bytes`` are what it holds; ``encoded_bytes`` is the size of the object so far.
    """

    def __init__(self, prefix: str, format_: Format, schema: pa.Schema) -> None:
        """prefix: the folders of its partition, or empty."""
        self._prefix = prefix
        self._format = format_
        self._schema = schema
        self._writer: FormatWriter | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self.waiting_bytes = 0
        self.encoded_bytes = 0
        self.writer_bytes = 0
        self.rows = 0

    @property
    def is_due(self) -> bool:
        """A whole piece is waiting."""
        return self.waiting_bytes >= self._format.chunk_bytes or self._waiting_rows >= self._format.chunk_rows

    def add(self, rows: pa.RecordBatch) -> None:
        """rows: of the schema; they must own their memory, or it is held as long as they wait."""
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        self.waiting_bytes += held_bytes(rows)
        self.rows += rows.num_rows

    def encode(self) -> None:
        """Encode what waits."""
        if not self._waiting:
            return
        if self._writer is None:
            self._writer = self._format.open(self._schema)
        self._writer.write(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting, self._waiting_rows, self.waiting_bytes = [], 0, 0
        self.encoded_bytes = self._writer.nbytes
        self.writer_bytes = self._writer.memory_bytes

    def close(self, stem: str) -> DataObject:
        """stem: the name without folder of its partition and suffix. There must be rows."""
        self.encode()
        assert self._writer is not None
        folder = f"{self._prefix}/" if self._prefix else ""
        return DataObject(f"{folder}{stem}{self._format.suffix}", self._writer.close(), self.rows)
