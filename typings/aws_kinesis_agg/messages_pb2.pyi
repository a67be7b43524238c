from collections.abc import Sequence

class Record:
    partition_key_index: int
    explicit_hash_key_index: int
    data: bytes
    def HasField(self, name: str) -> bool: ...

class AggregatedRecord:
    partition_key_table: Sequence[str]
    explicit_hash_key_table: Sequence[str]
    records: Sequence[Record]
    def ParseFromString(self, body: bytes) -> int: ...
    def IsInitialized(self) -> bool: ...
