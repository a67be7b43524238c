"""A stream: its shards, which of them takes a record, and what becomes of them when it is resharded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from streamsvc.testing.kinesis_server.errors import in_use, invalid, not_found, throttled
from streamsvc.testing.kinesis_server.limits import Limits
from streamsvc.testing.kinesis_server.sequence_numbers import SequenceNumbers
from streamsvc.testing.kinesis_server.shards import MAX_HASH_KEY, Meters, Shard

ON_DEMAND_SHARDS = 4
"""Of a new stream in on-demand mode (Developer Guide, "Choose the right mode to stream in")."""

RETENTION_HOURS = 24

Mode = Literal["PROVISIONED", "ON_DEMAND"]


@dataclass(frozen=True, slots=True)
class Options:
    """Of CreateStream."""

    mode: Mode = "PROVISIONED"
    max_record_kib: int = 1024
    distribution: Literal["AUTO", "USER_PARTITION_KEY"] = "USER_PARTITION_KEY"
    tags: Mapping[str, str] = field(default_factory=dict)


class Stream:
    """``created`` and every ``now`` are seconds since the epoch. Expired shards are gone from ``shards``."""

    def __init__(self, name: str, arn: str, shard_count: int, options: Options, limits: Limits, created: float) -> None:
        self.name = name
        self.arn = arn
        self.mode: Mode = options.mode
        self.max_record_bytes = options.max_record_kib * 1024
        self.created = created
        self.retention_hours = RETENTION_HOURS
        self.tags = dict(options.tags)
        self.shards: dict[str, Shard] = {}
        self._distribution = options.distribution
        self._limits = limits
        self._turn = 0
        self._next_index = 0
        self._status: Literal["CREATING", "UPDATING"] = "CREATING"
        self._settled_at = created + limits.transition_s
        width = (MAX_HASH_KEY + 1) // shard_count
        for number in range(shard_count):
            last = MAX_HASH_KEY if number == shard_count - 1 else (number + 1) * width - 1
            self._open(number * width, last, created, ())
        self._routes = self._open_shards()

    def status(self, now: float) -> str:
        return "ACTIVE" if now >= self._settled_at else self._status

    def settled(self, now: float) -> Stream:
        """Itself, once it takes and gives records. AWS knows no stream that is CREATING (kinesalite, ``getStream``)."""
        if self.status(now) == "CREATING":
            raise not_found(f"Stream {self.name} not found: it is being created.")
        return self

    def horizon(self, now: float) -> float:
        """The time from which on records are kept."""
        retention_s = self._limits.retention_s
        return now - (self.retention_hours * 3600 if retention_s is None else retention_s)

    def trim(self, now: float) -> None:
        """Forget what is older than the retention period: records, and shards that were closed before it
        (Developer Guide, "Data Routing, Data Persistence, and Shard State after a Reshard": expired)."""
        horizon = self.horizon(now)
        for shard in list(self.shards.values()):
            shard.trim(horizon)
            if shard.closed is not None and shard.closed < horizon:
                del self.shards[shard.id]

    def shard(self, shard_id: str, now: float) -> Shard:
        self.trim(now)
        if shard_id not in self.shards:
            raise not_found(f"Shard {shard_id} in stream {self.name} does not exist")
        return self.shards[shard_id]

    def open_shards(self) -> list[Shard]:
        return list(self._routes)

    def put(
        self, data: str, nbytes: int, key: str | None, explicit_hash_key: str | None, now: float
    ) -> tuple[Shard, int]:
        """Take one record, ``data`` in base64. Raises ``KinesisError``: throttled, or a hash key out of range."""
        shard = self._route(key, explicit_hash_key)
        meters = shard.meters
        if not (meters.write_records.allows(now) and meters.write_bytes.allows(now)):
            raise throttled(f"Rate exceeded for shard {shard.id} in stream {self.name}.")
        meters.write_records.spend(1)
        meters.write_bytes.spend(nbytes)
        return shard, shard.append(data, nbytes, None if self._distribution == "AUTO" else key, now)

    def split(self, shard_id: str, hash_key: str, now: float) -> None:
        """API Reference, SplitShard. The condition on the new hash key is AWS's (kinesalite, ``splitShard``)."""
        parent = self._for_resharding(shard_id, now)
        middle = int(hash_key)
        if not parent.first_hash_key + 1 < middle < parent.last_hash_key:
            raise invalid(
                f"NewStartingHashKey {hash_key} of shard {shard_id} in stream {self.name} is not both greater than one "
                f"plus the shard's StartingHashKey {parent.first_hash_key} and less than its EndingHashKey "
                f"{parent.last_hash_key}."
            )
        lower = self._open(parent.first_hash_key, middle - 1, now, (shard_id,))
        upper = self._open(middle, parent.last_hash_key, now, (shard_id,))
        parent.close((lower, upper), now)
        self._resharded(now)

    def merge(self, shard_id: str, adjacent_id: str, now: float) -> None:
        """API Reference, MergeShards: adjacent are shards whose hash key ranges form a contiguous set."""
        first, second = self._for_resharding(shard_id, now), self._for_resharding(adjacent_id, now)
        lower, upper = sorted((first, second), key=lambda shard: shard.first_hash_key)
        if lower.last_hash_key + 1 != upper.first_hash_key:
            raise invalid(f"Shards {shard_id} and {adjacent_id} in stream {self.name} are not an adjacent pair.")
        child = self._open(lower.first_hash_key, upper.last_hash_key, now, (shard_id, adjacent_id))
        first.close((child,), now)
        second.close((child,), now)
        self._resharded(now)

    def described(self, now: float) -> dict[str, Any]:
        """What the shapes ``StreamDescription`` and ``StreamDescriptionSummary`` have in common."""
        return {
            "StreamName": self.name,
            "StreamARN": self.arn,
            "StreamStatus": self.status(now),
            "StreamModeDetails": {"StreamMode": self.mode},
            "RetentionPeriodHours": self.retention_hours,
            "StreamCreationTimestamp": round(self.created, 3),
            "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
            "EncryptionType": "NONE",
        }

    def summary(self) -> dict[str, Any]:
        """What ``StreamDescriptionSummary`` says besides."""
        return {
            "OpenShardCount": len(self._routes),
            "MaxRecordSizeInKiB": self.max_record_bytes // 1024,
            "RecordDistributionStrategy": self._distribution,
        }

    def requires_key(self) -> bool:
        return self._distribution != "AUTO"

    def _route(self, key: str | None, explicit_hash_key: str | None) -> Shard:
        """API Reference, PutRecords: MD5 of the partition key as a 128-bit number, unless the hash key is explicit."""
        if self._distribution == "AUTO":
            self._turn += 1
            return self._routes[self._turn % len(self._routes)]
        if explicit_hash_key is not None:
            hash_key = int(explicit_hash_key)
            if hash_key > MAX_HASH_KEY:
                raise invalid(
                    "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
                    f"Specified value was {explicit_hash_key}"
                )
        else:
            digest = hashlib.md5((key or "").encode(), usedforsecurity=False).digest()
            hash_key = int.from_bytes(digest, "big")
        return next(shard for shard in self._routes if hash_key <= shard.last_hash_key)

    def _open(self, first: int, last: int, now: float, parents: tuple[str, ...]) -> Shard:
        index = self._next_index
        self._next_index += 1
        # A child's numbers begin a second after its parents end, so that they are greater (kinesalite, ``splitShard``).
        numbers = SequenceNumbers(index, int(now) + (1 if parents else 0))
        shard = Shard(index, first, last, now, numbers, Meters.of(self._limits), parents)
        self.shards[shard.id] = shard
        return shard

    def _open_shards(self) -> list[Shard]:
        found = [shard for shard in self.shards.values() if shard.closed is None]
        return sorted(found, key=lambda shard: shard.first_hash_key)

    def _for_resharding(self, shard_id: str, now: float) -> Shard:
        if self.status(now) != "ACTIVE":
            raise in_use(f"Stream {self.name} not ACTIVE, instead in state {self.status(now)}")
        shard = self.shard(shard_id, now)
        if shard.closed is not None:
            raise in_use(f"Shard {shard_id} in stream {self.name} is closed: it was split or merged before.")
        return shard

    def _resharded(self, now: float) -> None:
        self._routes = self._open_shards()
        self._status = "UPDATING"
        self._settled_at = now + self._limits.transition_s
