"""KPL aggregates: many user records packed into one Kinesis record, and unpacked again.

    F3 89 9A C2 | AggregatedRecord (protobuf) | MD5 of the protobuf

(amazon-kinesis-producer, aggregation-format.md: ``partition_key_table = 1``, ``explicit_hash_key_table = 2``,
``records = 3``; a record has ``partition_key_index = 1``, ``explicit_hash_key_index = 2``, ``data = 3``, ``tags = 4``.)

What is taken for an aggregate, and which aggregates are dropped, is decided as the KCL does (amazon-kinesis-client,
``AggregatorUtil.deaggregate``), except where it cannot read an aggregate to its end (a table index out of range, a hash
key that is no number): the KCL keeps the user records before that place and loses the rest; here the whole Kinesis
record is passed on as it is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from streamsvc.core.protobuf_wire import (
    NO_INDEX,
    Aggregate,
    Undecodable,
    hash_table_entry,
    key_table_entry,
    read_aggregate,
    record_entry,
)

MAGIC = b"\xf3\x89\x9a\xc2"
DIGEST_BYTES = 16
LAST_HASH_KEY = 2**128 - 1

OutOfRange: TypeAlias = Literal["drop", "keep"]


class HashRange(NamedTuple):
    """The hash keys of a shard; both ends are included."""

    first: int
    last: int


EVERYTHING = HashRange(0, LAST_HASH_KEY)


@dataclass(frozen=True, slots=True)
class UserRecords:
    """The user records of one answer, one after another. A Kinesis record that is no aggregate is one of them.

    keys, values:  one a user record
    counts:        how many user records each Kinesis record of the answer gave; 0: its aggregate was dropped, or empty
    last_sub:      how many user records the answer's last Kinesis record has, also if they were dropped; at least 1. So
                   ``position_before(its sequence number, last_sub)`` is where to read on
    met:           counts by name: ``aggregates``; ``out_of_range`` (aggregates dropped, or that would have been) and
                   ``out_of_range_records``; and what begins like an aggregate but was passed on as it is, by the
                   reason: ``bad_digest``, ``bad_body``, ``bad_index``, ``bad_hash_key``
    """

    keys: Sequence[str]
    values: Sequence[bytes]
    counts: Sequence[int]
    last_sub: int
    met: Counter[str] = field(default_factory=Counter)

    def rows(self) -> pa.Array:
        """int32: for each user record, the index of its Kinesis record in the answer."""
        return pa.array(np.repeat(np.arange(len(self.counts), dtype=np.int32), self.counts))

    def subs(self) -> pa.Array:
        """int32: for each user record, its sub-sequence number."""
        counts = np.asarray(self.counts, np.int64)
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        return pa.array((np.arange(len(starts)) - starts).astype(np.int32))


def deaggregate(
    keys: Sequence[str], values: Sequence[bytes], hashes: HashRange, out_of_range: OutOfRange = "drop"
) -> UserRecords:
    """keys, values: partition keys and data of the Kinesis records of one answer, in order. hashes: of their shard.

    With ``drop``, an aggregate that has any user record outside of ``hashes`` is dropped whole: the KPL compares the
    shard that it meant with the one that it hit, and puts all of it again. Never raises for what the records hold; what
    it makes is bounded by their size."""
    if not any(value.startswith(MAGIC) for value in values):
        return UserRecords(keys, values, [1] * len(values), 1)
    unpacked = _Unpacked(hashes, drop=out_of_range == "drop")
    for key, value in zip(keys, values, strict=True):
        if value.startswith(MAGIC):
            unpacked.take(key, value)
        else:
            unpacked.pass_on(key, value)
    return UserRecords(unpacked.keys, unpacked.values, unpacked.counts, unpacked.last_sub, unpacked.met)


def hash_key(partition_key: str, explicit_hash_key: str | None = None) -> int:
    """The hash key of a user record: the shard whose range has it is the record's.

    Raises ``ValueError`` for an explicit hash key that is no number."""
    if explicit_hash_key is None:
        return int.from_bytes(_md5(partition_key.encode()))
    if not (explicit_hash_key.isascii() and explicit_hash_key.isdigit() and len(explicit_hash_key) <= 39):
        raise ValueError(f"not a hash key: {explicit_hash_key!r}")
    return int(explicit_hash_key)


class _Unpacked:
    """The user records of an answer while they are being collected."""

    def __init__(self, hashes: HashRange, *, drop: bool) -> None:
        self.keys: list[str] = []
        self.values: list[bytes] = []
        self.counts: list[int] = []
        self.last_sub = 1
        self.met: Counter[str] = Counter()
        self._hashes = hashes
        self._drop = drop

    def pass_on(self, key: str, value: bytes) -> None:
        self.keys.append(key)
        self.values.append(value)
        self.counts.append(1)
        self.last_sub = 1

    def take(self, key: str, value: bytes) -> None:
        body = memoryview(value)[len(MAGIC) : -DIGEST_BYTES]
        if not body or _md5(body) != value[-DIGEST_BYTES:]:
            self._pass_on_for("bad_digest", key, value)
            return
        try:
            aggregate = read_aggregate(bytes(body))
            keys = _partition_keys(aggregate)
            inside = self._holds(aggregate)
        except Undecodable:
            self._pass_on_for("bad_body", key, value)
        except IndexError:
            self._pass_on_for("bad_index", key, value)
        except ValueError:
            self._pass_on_for("bad_hash_key", key, value)
        else:
            self._add(keys, aggregate.data, inside)

    def _add(self, keys: list[str], data: list[bytes], inside: bool) -> None:
        self.met["aggregates"] += 1
        self.last_sub = max(1, len(data))
        if not inside:
            self.met["out_of_range"] += 1
            self.met["out_of_range_records"] += len(data)
        if inside or not self._drop:
            self.keys += keys
            self.values += data
            self.counts.append(len(data))
        else:
            self.counts.append(0)

    def _pass_on_for(self, reason: str, key: str, value: bytes) -> None:
        self.met[reason] += 1
        self.pass_on(key, value)

    def _holds(self, aggregate: Aggregate) -> bool:
        """Whether the shard takes all the hash keys. Each key of a table is looked at once, however many records
        have it. Raises ``IndexError`` and ``ValueError``."""
        if max(aggregate.hash_indexes, default=NO_INDEX) == NO_INDEX:
            used_keys, used_hashes = set(aggregate.key_indexes), set[int]()
        else:
            pairs = list(zip(aggregate.key_indexes, aggregate.hash_indexes, strict=True))
            used_keys = {index for index, explicit in pairs if explicit == NO_INDEX}
            used_hashes = {explicit for _, explicit in pairs if explicit != NO_INDEX}
        explicit_keys = [hash_key("", aggregate.hash_table[index]) for index in used_hashes]
        first, last = self._hashes
        if not all(first <= key <= last for key in explicit_keys):
            return False
        if self._hashes == EVERYTHING:
            return True
        low, high = first.to_bytes(DIGEST_BYTES), last.to_bytes(DIGEST_BYTES)
        return all(low <= _md5(aggregate.key_table[index].encode()) <= high for index in used_keys)


def _md5(data: bytes | memoryview) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _partition_keys(aggregate: Aggregate) -> list[str]:
    """Raises ``IndexError``."""
    table = aggregate.key_table
    return [table[index] for index in aggregate.key_indexes]


class Put(NamedTuple):
    """A Kinesis record to be put."""

    partition_key: str
    explicit_hash_key: str | None
    data: bytes


class Aggregator:
    """Packs user records into Kinesis records of at most ``max_bytes`` of data, in the order in which they come.

    One for each shard: whoever reads a shard drops an aggregate with a record that belongs into another (``hash_key``
    says where one belongs). As with the KPL, a record that stays alone is put as it is, and an aggregate is put under
    the hash key of its first record (amazon-kinesis-producer, ``kinesis_record.cc``)."""

    def __init__(self, max_bytes: int = 51_200) -> None:
        self._max_bytes = max_bytes
        self._clear()

    def _clear(self) -> None:
        self._first: Put | None = None
        self._keys: dict[str, int] = {}
        self._hash_keys: dict[str, int] = {}
        self._tables: list[bytes] = []
        self._records: list[bytes] = []
        self.nbytes = len(MAGIC) + DIGEST_BYTES

    def __len__(self) -> int:
        """How many user records are packed."""
        return len(self._records)

    def add(self, partition_key: str, data: bytes, explicit_hash_key: str | None = None) -> Put | None:
        """Answers what was packed before, if this record no longer fits in.

        Raises ``ValueError`` for an explicit hash key that is no number."""
        hash_key(partition_key, explicit_hash_key)
        finished = None
        tables, record = self._entries(partition_key, data, explicit_hash_key)
        if self._records and self.nbytes + sum(map(len, tables)) + len(record) > self._max_bytes:
            finished = self.flush()
            tables, record = self._entries(partition_key, data, explicit_hash_key)
        if self._first is None:
            self._first = Put(partition_key, explicit_hash_key, data)
        self._keys.setdefault(partition_key, len(self._keys))
        if explicit_hash_key is not None:
            self._hash_keys.setdefault(explicit_hash_key, len(self._hash_keys))
        self._tables += tables
        self._records.append(record)
        self.nbytes += sum(map(len, tables)) + len(record)
        return finished

    def _entries(self, partition_key: str, data: bytes, explicit_hash_key: str | None) -> tuple[list[bytes], bytes]:
        """What the record would add to the tables, and its own entry."""
        tables = [] if partition_key in self._keys else [key_table_entry(partition_key.encode())]
        key_index = self._keys.get(partition_key, len(self._keys))
        if explicit_hash_key is None:
            return tables, record_entry(key_index, NO_INDEX, data)
        if explicit_hash_key not in self._hash_keys:
            tables.append(hash_table_entry(explicit_hash_key.encode()))
        return tables, record_entry(key_index, self._hash_keys.get(explicit_hash_key, len(self._hash_keys)), data)

    def flush(self) -> Put | None:
        """What is packed; ``None`` if nothing is."""
        put = self._first
        if put is not None and len(self._records) > 1:
            put = Put("a", str(hash_key(put.partition_key, put.explicit_hash_key)), self.encode())
        self._clear()
        return put

    def encode(self) -> bytes:
        """What is packed, as an aggregate even if it is a single record."""
        body = b"".join([*self._tables, *self._records])
        return MAGIC + body + _md5(body)


def encode_aggregate(records: Iterable[tuple[str, bytes]]) -> bytes:
    """The data of one Kinesis record that holds these partition keys and data, however many they are."""
    aggregator = Aggregator(max_bytes=2**63)
    for key, data in records:
        aggregator.add(key, data)
    return aggregator.encode()
