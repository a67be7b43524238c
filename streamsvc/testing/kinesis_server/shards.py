"""One shard: its records, as pieces of the answers that they will be part of."""

from __future__ import annotations

from base64 import b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from streamsvc.testing.kinesis_server.limits import Limits, Meter
from streamsvc.testing.kinesis_server.sequence_numbers import LAST_COUNT, SequenceNumbers

MAX_HASH_KEY = 2**128 - 1


@dataclass(frozen=True, slots=True)
class Answer:
    """Records of a shard. ``next`` is the place after them; ``pieces`` are JSON objects, one a record."""

    pieces: list[bytes]
    next: int
    nbytes: int


@dataclass(slots=True)
class Meters:
    """The throughput of one shard, as far as it is limited."""

    reads: Meter
    read_bytes: Meter
    iterators: Meter
    write_records: Meter
    write_bytes: Meter

    @classmethod
    def of(cls, limits: Limits) -> Meters:
        return cls(
            reads=Meter(limits.reads_per_s),
            read_bytes=Meter(limits.read_bytes_per_s),
            iterators=Meter(limits.reads_per_s),
            write_records=Meter(limits.write_records_per_s),
            write_bytes=Meter(limits.write_bytes_per_s),
        )


@dataclass(slots=True, eq=False)
class Shard:
    """``place`` n is before the n-th record that the shard ever took, from 0; trimmed records keep their places.

    ``opened`` and ``closed`` are seconds since the epoch.
    """

    index: int
    first_hash_key: int
    last_hash_key: int
    opened: float
    numbers: SequenceNumbers
    meters: Meters
    parents: tuple[str, ...] = ()
    children: tuple[Shard, ...] = ()
    closed: float | None = None
    wake: set[Callable[[], None]] = field(default_factory=set)
    """Called, once each, when a record comes or the shard is closed."""
    _trimmed: int = 0
    _pieces: list[bytes] = field(default_factory=list)
    _numbers: list[int] = field(default_factory=list)
    _arrivals: list[float] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=lambda: [0])
    """Bytes of all records before each, from the first that is kept."""

    @property
    def id(self) -> str:
        return f"shardId-{self.index:012}"

    @property
    def first_place(self) -> int:
        return self._trimmed

    @property
    def end(self) -> int:
        return self._trimmed + len(self._pieces)

    @property
    def start_number(self) -> int:
        return self.numbers.of(0, self.numbers.created_s)

    @property
    def end_number(self) -> int | None:
        return None if self.closed is None else self.numbers.of(LAST_COUNT, self.closed)

    def append(self, data: str, nbytes: int, key: str | None, now: float) -> int:
        """Take a record; its sequence number. ``data`` is base64, ``nbytes`` what the record counts for."""
        now = round(max(now, self._arrivals[-1] if self._arrivals else now), 3)
        number = self.numbers.of(self.end + 1, now)
        piece = b'{"SequenceNumber":"%d","ApproximateArrivalTimestamp":%.3f,"Data":"%s"' % (number, now, data.encode())
        self._pieces.append(piece + (b"}" if key is None else b',"PartitionKey":%s}' % orjson.dumps(key)))
        self._numbers.append(number)
        self._arrivals.append(now)
        self._sizes.append(self._sizes[-1] + nbytes)
        self._wake()
        return number

    def put(self, data: bytes, key: str, now: float) -> int:
        """Take a record without a request, for tests and measurements that fill a stream in this process."""
        return self.append(b64encode(data).decode(), len(data) + len(key.encode()), key, now)

    def close(self, children: tuple[Shard, ...], now: float) -> None:
        self.children = children
        self.closed = now
        self._wake()

    def read(self, place: int, records: int, nbytes: int) -> Answer:
        """From ``place``, or the first record that is kept, on: at least one record, if there is any."""
        start = min(max(place - self._trimmed, 0), len(self._pieces))
        fitting = bisect_right(self._sizes, self._sizes[start] + nbytes) - 1
        stop = min(start + records, max(fitting, start + 1), len(self._pieces))
        return Answer(self._pieces[start:stop], self._trimmed + stop, self._sizes[stop] - self._sizes[start])

    def place_at(self, number: int) -> int:
        """Before the record with this sequence number, or the first with a greater one."""
        return self._trimmed + bisect_left(self._numbers, number)

    def place_after(self, number: int) -> int:
        return self._trimmed + bisect_right(self._numbers, number)

    def place_at_time(self, time: float) -> int:
        """Before the first record that arrived at this time (seconds since the epoch) or later."""
        return self._trimmed + bisect_left(self._arrivals, round(time, 3))

    def millis_behind(self, place: int, now: float) -> int:
        """Age of the next record to be read; 0 at the tip."""
        if place >= self.end:
            return 0
        return max(round((now - self._arrivals[max(place - self._trimmed, 0)]) * 1000), 0)

    def number_before(self, place: int, now: float, *, idle: bool) -> int:
        """A sequence number to go on after: of the record before ``place``; ``idle`` at the tip a later one, of no
        record, which shows progress though nothing came (API Reference, SubscribeToShardEvent)."""
        if place <= self._trimmed or (idle and place >= self.end):
            return self.numbers.behind(place, max(now, self.numbers.created_s))
        return self._numbers[place - self._trimmed - 1]

    def trim(self, before: float) -> None:
        """Forget the records that arrived before this time (seconds since the epoch)."""
        gone = bisect_left(self._arrivals, before)
        if gone:
            self._trimmed += gone
            for column in (self._pieces, self._numbers, self._arrivals, self._sizes):
                del column[:gone]

    def hash_key_range(self) -> dict[str, str]:
        return {"StartingHashKey": str(self.first_hash_key), "EndingHashKey": str(self.last_hash_key)}

    def described(self) -> dict[str, Any]:
        """Shape ``Shard``."""
        numbers = {"StartingSequenceNumber": str(self.start_number)}
        if self.closed is not None:
            numbers["EndingSequenceNumber"] = str(self.end_number)
        names = ("ParentShardId", "AdjacentParentShardId")
        return {
            "ShardId": self.id,
            **dict(zip(names, self.parents, strict=False)),
            "HashKeyRange": self.hash_key_range(),
            "SequenceNumberRange": numbers,
        }

    def as_child(self) -> dict[str, Any]:
        """Shape ``ChildShard``."""
        return {"ShardId": self.id, "ParentShards": list(self.parents), "HashKeyRange": self.hash_key_range()}

    def _wake(self) -> None:
        callbacks, self.wake = self.wake, set()
        for callback in callbacks:
            callback()
