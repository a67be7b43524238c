"""Which shards ListShards lists, and its tokens."""

from __future__ import annotations

from collections.abc import Callable

from streamsvc.testing.kinesis_server.errors import invalid
from streamsvc.testing.kinesis_server.requests import ShardFilter
from streamsvc.testing.kinesis_server.shards import Shard
from streamsvc.testing.kinesis_server.streams import Stream


def filtered(stream: Stream, chosen: ShardFilter | None, now: float) -> list[Shard]:
    """API Reference, ShardFilter. Expired shards are never listed. Shards are in the order of their ids.

    ``AT_TRIM_HORIZON``: the shards that were open when the oldest record that is kept came, which are those
    without a parent that is kept. Both times of ``AT_TIMESTAMP`` are inclusive, so at the moment of a split it answers
    parent and children.
    """
    stream.trim(now)
    shards = sorted(stream.shards.values(), key=lambda shard: shard.index)
    if chosen is None or chosen.type == "FROM_TRIM_HORIZON":
        return shards
    return [shard for shard in shards if _test_of(stream, chosen)(shard)]


def _test_of(stream: Stream, chosen: ShardFilter) -> Callable[[Shard], bool]:
    if chosen.type == "AT_LATEST":
        return lambda shard: shard.closed is None
    if chosen.type == "AT_TRIM_HORIZON":
        return lambda shard: not any(parent in stream.shards for parent in shard.parents)
    if chosen.type == "AFTER_SHARD_ID":
        if chosen.shard_id is None:
            raise invalid("ShardId must be specified with ShardFilter type AFTER_SHARD_ID.")
        after = chosen.shard_id
        return lambda shard: shard.id > after
    if chosen.timestamp is None:
        raise invalid(f"Timestamp must be specified with ShardFilter type {chosen.type}.")
    time = chosen.timestamp
    if chosen.type == "FROM_TIMESTAMP":
        return lambda shard: shard.closed is None or round(shard.closed, 3) >= time
    return lambda shard: round(shard.opened, 3) <= time and (shard.closed is None or round(shard.closed, 3) >= time)
