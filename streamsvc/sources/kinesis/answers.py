"""What Kinesis answers to who reads a shard, parsed by us.

botocore signs, sends and knows errors, but its parser makes a dict of every record, in Python and on the event loop:
250 to 400 ms for a full answer. So its event ``before-parse`` takes the body away from it, whole and as it came.
"""

from __future__ import annotations

import asyncio
import struct
from binascii import crc32
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from botocore.eventstream import EventStreamBuffer

from streamsvc.errors import SourceUnavailable

SMALL_BYTES = 32 * 1024
"""Less is parsed at once: a thread would take longer to get to."""

PRELUDE_BYTES = 12
MAX_EVENT_BYTES = 32 * 1024 * 1024

_RAW = "streamsvc-raw"


class Record(msgspec.Struct, rename="pascal", gc=False):
    """AWS API reference, ``Record``. data: out of its base64. partition_key: empty if the stream chose the shard."""

    sequence_number: str
    data: bytes
    approximate_arrival_timestamp: float | None = None
    partition_key: str = ""


class Answer(msgspec.Struct, rename="pascal"):
    """One GetRecords answer (``GetRecordsOutput``) or one event of a subscription (``SubscribeToShardEvent``).

    next_shard_iterator, continuation_sequence_number: where to go on, by polling or in the next subscription
    child_shards:                                      known with the last answer of a closed shard
    """

    records: list[Record]
    millis_behind_latest: int | None = None
    next_shard_iterator: str | None = None
    continuation_sequence_number: str | None = None
    child_shards: list[dict[str, Any]] | None = None

    @property
    def ended(self) -> bool:
        """The shard is closed, and this was the last of it.

        AWS says so by leaving out where to go on; an emulator gives a continuation beside the children."""
        goes_on = self.next_shard_iterator is not None or self.continuation_sequence_number is not None
        return bool(self.child_shards) or not goes_on

    @property
    def at_tip(self) -> bool:
        return self.millis_behind_latest == 0

    def record_bytes(self) -> int:
        """As the shard counts them, but for partition keys."""
        return sum(len(record.data) for record in self.records)


_DECODER = msgspec.json.Decoder(Answer)


async def parse(body: bytes) -> Answer:
    """Raises ``SourceUnavailable`` for what is no answer: it came damaged, and is asked for again."""
    try:
        return _DECODER.decode(body) if len(body) < SMALL_BYTES else await asyncio.to_thread(_DECODER.decode, body)
    except msgspec.DecodeError as error:
        raise SourceUnavailable(f"an answer of Kinesis cannot be read: {error}", nbytes=len(body)) from None


def take_bodies(client: Any) -> None:
    """From now on ``get_records`` and ``subscribe_to_shard`` of this client answer what ``raw`` takes out of it."""
    client.meta.events.register("before-parse.kinesis.GetRecords", _keep_body)
    client.meta.events.register("before-parse.kinesis.SubscribeToShard", _keep_stream)


def raw(answer: dict[str, Any]) -> Any:
    """The body of GetRecords as bytes; of SubscribeToShard as aiohttp's response, whose content comes as it comes."""
    return answer[_RAW]


def _keep_body(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] == 200:
        customized_response_dict[_RAW] = response_dict["body"]
        response_dict["body"] = b"{}"


def _keep_stream(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] == 200:
        customized_response_dict[_RAW] = response_dict["body"]
        response_dict["body"] = _OnlyInitialResponse()


class _OnlyInitialResponse:
    """What botocore reads in place of the stream. It insists on the message that a stream begins with."""

    @property
    def content(self) -> _OnlyInitialResponse:
        return self

    async def iter_chunks(self) -> AsyncIterator[tuple[bytes, bool]]:
        yield _message({":message-type": "event", ":event-type": "initial-response"}, b"{}"), True

    def close(self) -> None:
        """Nothing is open."""


def _message(headers: dict[str, str], payload: bytes) -> bytes:
    """Smithy specification, "Amazon Event Stream Specification"; 7 is the type of a text."""
    block = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", PRELUDE_BYTES + len(block) + len(payload) + 4, len(block))
    checked = prelude + struct.pack("!I", crc32(prelude)) + block + payload
    return checked + struct.pack("!I", crc32(checked))


def message_bytes(prelude: bytes) -> int:
    """How long the message is that begins so. Raises ``SourceUnavailable`` for what is no message."""
    nbytes = int(struct.unpack("!I", prelude[:4])[0])
    if not PRELUDE_BYTES + 4 <= nbytes <= MAX_EVENT_BYTES:
        raise SourceUnavailable("an event stream is damaged", nbytes=nbytes)
    return nbytes


def read_message(message: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and payload. Raises ``botocore.eventstream.ParserError`` for a wrong checksum."""
    buffer = EventStreamBuffer()
    buffer.add_data(message)
    found: Any = next(buffer)
    return found.headers, found.payload
