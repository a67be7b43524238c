from collections.abc import Iterator, Sequence
from os import PathLike

from pyarrow.compute import Expression
from pyarrow.lib import RecordBatch, Schema, Table

class Dataset:
    @property
    def schema(self) -> Schema: ...
    def to_table(self, columns: Sequence[str] | None = None, filter: Expression | None = None) -> Table: ...
    def to_batches(self, columns: Sequence[str] | None = None) -> Iterator[RecordBatch]: ...
    def count_rows(self, filter: Expression | None = None) -> int: ...

class FileSystemDataset(Dataset):
    @property
    def files(self) -> list[str]: ...

def dataset(
    source: str | PathLike[str] | Sequence[str] | Sequence[PathLike[str]],
    schema: Schema | None = None,
    format: str | None = None,
    *,
    partitioning: str | Sequence[str] | None = None,
    ignore_prefixes: Sequence[str] | None = None,
) -> FileSystemDataset: ...
