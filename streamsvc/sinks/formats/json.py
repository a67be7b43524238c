"""JSON lines."""

from __future__ import annotations

import pyarrow as pa

from streamsvc.core.json_text import json_lines, json_texts

CHUNK_ROWS = 1_000_000
CHUNK_BYTES = 1024 * 1024

_SUFFIX = {"none": ".json", "gzip": ".json.gz", "zstd": ".json.zst"}


class JsonLines:
    """A ``Format``: an object a line, every column; values as ``core.json_text`` has them.

    A compressed object is a series of gzip members or zstd frames, one for each piece, which readers take for one.
    """

    chunk_rows = CHUNK_ROWS
    chunk_bytes = CHUNK_BYTES

    def __init__(self, compression: str, level: int | None) -> None:
        self.suffix = _SUFFIX[compression]
        self._codec = None if compression == "none" else pa.Codec(compression, level)

    def open(self, schema: pa.Schema) -> JsonWriter:
        for field in schema:
            json_texts(pa.array([], field.type))
        return JsonWriter(self._codec)


class JsonWriter:
    """A ``FormatWriter``."""

    def __init__(self, codec: pa.Codec | None) -> None:
        self._codec = codec
        self._parts: list[pa.Buffer | bytes] = []
        self.nbytes = 0

    @property
    def memory_bytes(self) -> int:
        return self.nbytes

    def write(self, rows: pa.Table) -> None:
        for batch in rows.combine_chunks().to_batches():
            text = json_lines(batch)
            # As bytes: Arrow's buffers keep room to grow, or for what cannot be compressed.
            part = text.to_pybytes() if self._codec is None else self._codec.compress(text, asbytes=True)
            self._parts.append(part)
            self.nbytes += len(part)

    def close(self) -> list[pa.Buffer | bytes]:
        return self._parts
