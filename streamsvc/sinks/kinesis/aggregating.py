"""Records packed as the Kinesis Producer Library packs them: several in one record of the stream.

Whoever reads a shard as the KCL does drops an aggregate of which a record belongs into another shard, because the KPL
sends such records again (amazon-kinesis-producer, ``retrier.cc``). So does this: it packs for the shard that it expects
a record to go to, compares that with the shard that took the aggregate, and after a reshard packs and sends again
what its readers will drop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from streamsvc.core.kpl import Aggregator, HashRange, Put, hash_key
from streamsvc.sinks.kinesis.writer import MAX_RECORDS, Counts, KinesisWriter

RECORD_BYTES = 51_200
"""Of one aggregate (amazon-kinesis-producer, default of ``AggregationMaxSize``)."""


@dataclass(frozen=True, slots=True)
class Packed:
    """``put`` holds ``records``, for ``shard``."""

    shard: str
    put: Put
    records: list[Put]


@dataclass(slots=True)
class _Packing:
    """What is being packed for one shard."""

    shard: str
    aggregator: Aggregator = field(default_factory=lambda: Aggregator(RECORD_BYTES))
    records: list[Put] = field(default_factory=list)

    def add(self, record: Put) -> Packed | None:
        finished = self.aggregator.add(record.partition_key, record.data, record.explicit_hash_key)
        packed = self._done(finished)
        self.records.append(record)
        return packed

    def flush(self) -> Packed | None:
        return self._done(self.aggregator.flush())

    def _done(self, put: Put | None) -> Packed | None:
        if put is None:
            return None
        records, self.records = self.records, []
        return Packed(self.shard, put, records)


class AggregatingWriter:
    """Packs what it is given; ``flush`` sends what is still held, at most some 50 KB a shard.

    Raises, and is cancelled, as ``KinesisWriter``."""

    def __init__(self, writer: KinesisWriter) -> None:
        self._writer = writer
        self._ranges: dict[str, HashRange] = {}
        self._open: list[tuple[int, str]] = []
        self._packing: dict[str, _Packing] = {}
        self._ready: list[Packed] = []

    @property
    def counts(self) -> Counts:
        return self._writer.counts

    @property
    def max_record_bytes(self) -> int:
        return self._writer.max_record_bytes

    async def put(self, records: Sequence[Put]) -> None:
        if not self._open:
            await self._look()
        for record in records:
            shard = self._shard_of(record)
            packed = self._packing.setdefault(shard, _Packing(shard)).add(record)
            if packed is not None:
                self._ready.append(packed)
        if len(self._ready) >= MAX_RECORDS:
            await self._send()

    async def flush(self) -> None:
        while self._packing or self._ready:
            packings, self._packing = self._packing, {}
            self._ready += [packed for packing in packings.values() if (packed := packing.flush()) is not None]
            await self._send()

    async def _send(self) -> None:
        """Send what is ready; what landed where its readers drop it is packed again."""
        ready, self._ready = self._ready, []
        took = await self._writer.put([packed.put for packed in ready])
        elsewhere = [(packed, shard) for packed, shard in zip(ready, took, strict=True) if shard != packed.shard]
        if elsewhere:
            await self._look()
        lost = [
            record for packed, shard in elsewhere if not self._all_inside(packed, shard) for record in packed.records
        ]
        self.counts.records += sum(len(packed.records) - 1 for packed in ready) - len(lost)
        self.counts.retries += len(lost)
        await self.put(lost)

    def _all_inside(self, packed: Packed, shard: str) -> bool:
        """A record that stayed alone is no aggregate, so it may be anywhere."""
        if len(packed.records) == 1:
            return True
        first, last = self._ranges[shard]
        return all(first <= hash_key(r.partition_key, r.explicit_hash_key) <= last for r in packed.records)

    def _shard_of(self, record: Put) -> str:
        place = bisect_left(self._open, hash_key(record.partition_key, record.explicit_hash_key), key=lambda o: o[0])
        return self._open[place][1]

    async def _look(self) -> None:
        """Learn every shard's range of hash keys, and which shards are open."""
        shards = await self._writer.list_shards()
        for shard in shards:
            hashes = shard["HashKeyRange"]
            self._ranges[shard["ShardId"]] = HashRange(int(hashes["StartingHashKey"]), int(hashes["EndingHashKey"]))
        opened = (s["ShardId"] for s in shards if "EndingSequenceNumber" not in s["SequenceNumberRange"])
        self._open = sorted((self._ranges[shard].last, shard) for shard in opened)
