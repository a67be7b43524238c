"""Where reading begins: the five kinds of start."""

from __future__ import annotations

from streamsvc.testing.kinesis_server.errors import invalid
from streamsvc.testing.kinesis_server.requests import Start
from streamsvc.testing.kinesis_server.sequence_numbers import shard_of
from streamsvc.testing.kinesis_server.shards import Shard


def place_of(shard: Shard, start: Start, number: str | None, time: float | None, now: float) -> int:
    """The place in the shard that a start means. Raises ``InvalidArgumentException``.

    A sequence number whose record was trimmed means the oldest record that is kept; so does a time before it. LATEST
    of a closed shard is its end. (API Reference, GetShardIterator and StartingPosition; the conditions on sequence
    numbers are kinesalite's, ``getShardIterator``.)
    """
    if (number is not None) != (start in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER")):
        raise invalid(
            "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or "
            f"(2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {start}."
        )
    if (time is not None) != (start == "AT_TIMESTAMP"):
        raise invalid(f"AT_TIMESTAMP and a Timestamp go together. Request specified {start}.")
    if start == "TRIM_HORIZON":
        return shard.first_place
    if start == "LATEST":
        return shard.end
    if time is not None:
        if time > now:
            raise invalid("The timestampInMillis parameter cannot be greater than the currentTimestampInMillis.")
        return shard.place_at_time(time)
    assert number is not None
    at = _checked(shard, int(number))
    return shard.place_at(at) if start == "AT_SEQUENCE_NUMBER" else shard.place_after(at)


def _checked(shard: Shard, number: int) -> int:
    if not shard.numbers.gave(number):
        named = shard_of(number)
        if named is not None and named != shard.index:
            raise invalid(
                f"Invalid StartingSequenceNumber. It encodes shardId-{named:012}, while it was used in a call to a "
                f"shard with {shard.id}"
            )
        raise invalid(f"StartingSequenceNumber {number} used on shard {shard.id} is invalid.")
    return number
