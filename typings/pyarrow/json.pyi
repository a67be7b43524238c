from collections.abc import Iterator
from typing import Literal

from pyarrow.lib import MemoryPool, RecordBatch, Schema, Table, _Source

class ReadOptions:
    def __init__(self, use_threads: bool | None = None, block_size: int | None = None) -> None: ...
    use_threads: bool
    block_size: int

class ParseOptions:
    def __init__(
        self,
        explicit_schema: Schema | None = None,
        newlines_in_values: bool | None = None,
        unexpected_field_behavior: Literal["ignore", "error", "infer"] | None = None,
    ) -> None: ...
    explicit_schema: Schema | None
    newlines_in_values: bool
    unexpected_field_behavior: str

class _JSONStreamingReader:
    def __iter__(self) -> Iterator[RecordBatch]: ...
    @property
    def schema(self) -> Schema: ...
    def read_next_batch(self) -> RecordBatch: ...
    def read_all(self) -> Table: ...

def read_json(
    input_file: _Source,
    read_options: ReadOptions | None = None,
    parse_options: ParseOptions | None = None,
    memory_pool: MemoryPool | None = None,
) -> Table: ...
def open_json(
    input_file: _Source,
    read_options: ReadOptions | None = None,
    parse_options: ParseOptions | None = None,
    memory_pool: MemoryPool | None = None,
) -> _JSONStreamingReader: ...
