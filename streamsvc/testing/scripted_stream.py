"""A Kinesis stream of scripted records, as a source that joins no group: what the KCL bridge reads beside the KCL.

stream = ScriptedStream()
stream.records["shardId-000000000000"] = [("100", 0, b"value")]
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import pyarrow as pa

from streamsvc.contracts import Lag, SplitEvent
from streamsvc.core.kinesis_positions import BEGINNING, END, FromTime, parse_position, position_after, position_before
from streamsvc.errors import PositionLost
from streamsvc.records import METADATA, Batch, Position, Ranges, Span, Split
from streamsvc.testing.scripted_kcl import UserRecord, arrival_ms

CREATED_S = 1_764_300_000


def split_name(shard: str) -> Split:
    return f"access@{shard}.{CREATED_S}"


class ScriptedStream:
    """Implements ``contracts.Source`` for reading ranges; nothing is ever assigned.

    closed:   shards that have ended
    lost:     of these, ranges are gone
    errors:   raised by the next calls of ``read_range`` and ``ends``
    """

    def __init__(self, *shards: str) -> None:
        self.records: dict[str, list[UserRecord]] = {shard: [] for shard in shards}
        self.closed: set[str] = set()
        self.lost: set[str] = set()
        self.errors: list[Exception] = []
        self.ranges_read: list[tuple[Split, Position, Position]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def group(self) -> str:
        return "group"

    def reads(self, split: Split) -> bool:
        return split.startswith("access@")

    @property
    def problem(self) -> str | None:
        return None

    @property
    def first_position(self) -> Position:
        return BEGINNING

    async def assignments(self) -> AsyncIterator[SplitEvent]:
        raise NotImplementedError
        yield

    async def read(self) -> Batch:
        raise NotImplementedError

    def start_at(self, positions: Mapping[Split, Position]) -> None:
        raise NotImplementedError

    def stop_reading(self, splits: Sequence[Split]) -> None:
        raise NotImplementedError

    def release(self, splits: Sequence[Split]) -> None:
        raise NotImplementedError

    def acknowledge(self, positions: Mapping[Split, Position]) -> None:
        raise NotImplementedError

    async def splits(self) -> Sequence[Split]:
        self._raise_if_scripted()
        return [split_name(shard) for shard in self.records]

    async def first_positions(self) -> Mapping[Split, Position]:
        return dict.fromkeys(await self.splits(), BEGINNING)

    async def ends(self) -> Mapping[Split, Position]:
        self._raise_if_scripted()
        return {split_name(shard): self._end(shard) for shard in self.records}

    async def lag(self, places: Mapping[Split, Position]) -> Mapping[Split, Lag]:
        return {}

    def at_end(self, places: Mapping[Split, Position]) -> frozenset[Split]:
        return frozenset()

    def parents(self) -> Mapping[Split, frozenset[Split]]:
        return {}

    async def expired(self, places: Mapping[Split, Position]) -> frozenset[Split]:
        return frozenset()

    async def read_range(self, ranges: Ranges) -> AsyncIterator[Batch]:
        """A batch a record, then the way to the end of the range."""
        for split, (begin, to) in ranges.items():
            self._raise_if_scripted()
            self.ranges_read.append((split, begin, to))
            first = begin
            shard = split.rpartition("@")[2].rpartition(".")[0]
            if shard in self.lost:
                raise PositionLost("gone", split=split, position=first)
            for record in self._between(shard, first, to):
                after = position_after(*record[:2])
                yield _batch(split, first, after, [record])
                first = after
            if first < to:
                yield _batch(split, first, to, [])

    def _between(self, shard: str, first: Position, to: Position) -> list[UserRecord]:
        records = self.records[shard]
        place = parse_position(first)
        if isinstance(place, FromTime):
            begin = next((row for row, record in enumerate(records) if arrival_ms(record[0]) >= place.ms), len(records))
        else:
            begin = bisect_left(records, first, key=_before)
        return records[begin : bisect_left(records, to, key=_before)]

    def _end(self, shard: str) -> Position:
        if shard in self.closed:
            return END
        records = self.records[shard]
        return position_after(*records[-1][:2]) if records else BEGINNING

    def _raise_if_scripted(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


def _before(record: UserRecord) -> Position:
    return position_before(*record[:2])


def _batch(split: Split, first: Position, to: Position, records: Sequence[UserRecord]) -> Batch:
    values = pa.array([value for _, _, value in records], pa.binary())
    return Batch(
        spans=(Span(split, len(records), first, to),),
        values=values,
        offsets=pa.array([_before(record) for record in records], pa.string()),
        position_text=lambda offsets: offsets,
        arrivals=lambda: pa.array([arrival_ms(record[0]) for record in records], METADATA["_timestamp"]),
        keys=lambda: pa.array([f"key-{record[0]}".encode() for record in records], pa.binary()),
        headers=lambda: pa.nulls(len(records), METADATA["_headers"]),
        nbytes=values.nbytes,
    )
