"""The smallest sink: each value a line of an object, one object a partition. For tests of what is around a sink."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import pyarrow as pa

from streamsvc.contracts import ObjectStore, Written
from streamsvc.records import NO_REJECTS, ROW, Batch, DataObject, ObjectInfo


class LineSink:
    """Implements ``contracts.Sink`` for rows with a binary column ``value``. Values must hold no line end.

    partition: the partition of a value
    """

    def __init__(
        self, store: ObjectStore, partition: Callable[[bytes], str] = lambda _: "all", max_partitions: int = 500
    ) -> None:
        self._store = store
        self._partition = partition
        self._max_partitions = max_partitions

    def open(self) -> OpenLines:
        return OpenLines(self._partition, self._max_partitions)

    async def publish(self, objects: Sequence[DataObject]) -> list[ObjectInfo]:
        for item in objects:
            await self._store.create(item.key, item.body)
        return [ObjectInfo(f"{self._store.url}/{item.key}", item.rows, item.nbytes) for item in objects]


class OpenLines:
    """Implements ``contracts.OpenObjects``."""

    def __init__(self, partition: Callable[[bytes], str], max_partitions: int) -> None:
        self._partition = partition
        self._max_partitions = max_partitions
        self._lines: dict[str, list[bytes]] = defaultdict(list)

    @property
    def largest_bytes(self) -> int:
        return max((sum(map(len, lines)) for lines in self._lines.values()), default=0)

    @property
    def memory_bytes(self) -> int:
        return sum(len(line) for lines in self._lines.values() for line in lines)

    @property
    def rows(self) -> int:
        return sum(map(len, self._lines.values()))

    def write(self, rows: pa.RecordBatch) -> Written:
        known = set(self._lines)
        values = [value or b"" for value in rows["value"].to_pylist()]
        for value, row in zip(values, rows[ROW].to_pylist(), strict=True):
            known.add(self._partition(value))
            if len(known) > self._max_partitions:
                return Written(NO_REJECTS, row)
        for value in values:
            self._lines[self._partition(value)].append(value)
        return Written(NO_REJECTS)

    def close(self, segment: str) -> list[DataObject]:
        return [
            DataObject(f"{partition}/{segment}.txt", [b"\n".join(lines)], len(lines))
            for partition, lines in sorted(self._lines.items())
        ]


class LineRejects:
    """Implements ``contracts.RejectSink``: the raw values, a line each."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def open(self) -> OpenLineRejects:
        return OpenLineRejects()

    async def publish(self, objects: Sequence[DataObject]) -> list[ObjectInfo]:
        for item in objects:
            await self._store.create(item.key, item.body)
        return [ObjectInfo(f"{self._store.url}/{item.key}", item.rows, item.nbytes, "rejects") for item in objects]


class OpenLineRejects:
    """Implements ``contracts.OpenRejects``."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    @property
    def memory_bytes(self) -> int:
        return sum(map(len, self._lines))

    @property
    def rows(self) -> int:
        return len(self._lines)

    def add(self, batch: Batch, rejects: pa.RecordBatch) -> None:
        self._lines += batch.values.take(rejects[ROW]).to_pylist()

    def close(self, segment: str) -> list[DataObject]:
        if not self._lines:
            return []
        return [DataObject(f"rejects/{segment}.txt", [b"\n".join(self._lines)], len(self._lines))]
