"""Two splits and a merge of a stream while it is written."""

from __future__ import annotations

from itertools import pairwise

from mypy_boto3_kinesis import KinesisClient
from mypy_boto3_kinesis.type_defs import ShardTypeDef


class Resharding:
    """After every so many records: a split, a split, a merge, and no more."""

    def __init__(self, client: KinesisClient, stream: str, every: int) -> None:
        self._client = client
        self._stream = stream
        self._every = every
        self.splits = 0
        self.merges = 0

    def look(self, records: int) -> None:
        """So many records have been written."""
        done = self.splits + self.merges
        if not self._every or done == 3 or records < self._every * (done + 1):
            return
        if done < 2:
            self._split()
        else:
            self._merge()

    def _split(self) -> None:
        """The widest shard, in the middle."""
        shard = max(self._open(), key=_width)
        first, last = _range(shard)
        middle = str((first + last) // 2 + 1)
        self._client.split_shard(StreamName=self._stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=middle)
        self._wait_until_active()
        self.splits += 1

    def _merge(self) -> None:
        """The two neighbours that are narrowest together."""
        shards = sorted(self._open(), key=_range)
        left, right = min(pairwise(shards), key=lambda pair: _width(pair[0]) + _width(pair[1]))
        self._client.merge_shards(
            StreamName=self._stream, ShardToMerge=left["ShardId"], AdjacentShardToMerge=right["ShardId"]
        )
        self._wait_until_active()
        self.merges += 1

    def _open(self) -> list[ShardTypeDef]:
        shards = self._client.list_shards(StreamName=self._stream)["Shards"]
        return [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]

    def _wait_until_active(self) -> None:
        self._client.get_waiter("stream_exists").wait(
            StreamName=self._stream, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )


def _range(shard: ShardTypeDef) -> tuple[int, int]:
    hashes = shard["HashKeyRange"]
    return int(hashes["StartingHashKey"]), int(hashes["EndingHashKey"])


def _width(shard: ShardTypeDef) -> int:
    first, last = _range(shard)
    return last - first
