"""The MultiLang protocol: JSON, a message a line, between the KCL's MultiLangDaemon and one process a shard.

The daemon sends a message and waits until its ``status`` comes back. In between, and at no other time, a ``checkpoint``
may be sent, which the daemon answers with a ``checkpoint`` of its own before it goes on waiting (amazon-kinesis-client
3.1.3, ``MultiLangProtocol.waitForStatusMessage``). It has no checkpointer while it waits for ``initialize`` and
``leaseLost``. What it reads that is no message it skips; a child that ends makes the whole daemon end.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from streamsvc.errors import SourceUnavailable

LEASE_IS_GONE: Final = frozenset({"ShutdownException", "InvalidStateException"})
"""Errors of a checkpoint that no other try will mend: another worker has the lease, or its row is gone."""


class Record(msgspec.Struct, rename="camel", gc=False):
    """A record, or one user record of an aggregate: the KCL takes aggregates apart.

    data:                          base64 on the wire
    approximate_arrival_timestamp: milliseconds
    """

    sequence_number: str
    data: bytes | None = None
    partition_key: str | None = None
    sub_sequence_number: int | None = None
    approximate_arrival_timestamp: int | None = None


class Initialize(msgspec.Struct, rename="camel", tag_field="action", tag="initialize"):
    """The shard is ours. The numbers are the KCL's checkpoint: the last record before those that will come, or, without
    a record, TRIM_HORIZON, LATEST, AT_TIMESTAMP."""

    shard_id: str
    sequence_number: str | None = None
    sub_sequence_number: int | None = None


class ProcessRecords(msgspec.Struct, rename="camel", tag_field="action", tag="processRecords"):
    """The next records; none, where the shard had none (``callProcessRecordsEvenForEmptyRecordList``)."""

    records: list[Record]
    millis_behind_latest: int | None = None


class LeaseLost(msgspec.Struct, tag_field="action", tag="leaseLost"):
    """Another worker has the shard. The last message."""


class ShardEnded(msgspec.Struct, tag_field="action", tag="shardEnded"):
    """All records of the shard have come; its children are read once a checkpoint says so. The last message."""


class ShutdownRequested(msgspec.Struct, tag_field="action", tag="shutdownRequested"):
    """The shard is about to be given away, or the daemon about to end: the last chance for a checkpoint."""


class Checkpoint(msgspec.Struct, rename="camel", tag_field="action", tag="checkpoint"):
    """What became of our checkpoint. ``error``: the name of the Java exception."""

    sequence_number: str | None = None
    sub_sequence_number: int | None = None
    error: str | None = None


Message: TypeAlias = Initialize | ProcessRecords | LeaseLost | ShardEnded | ShutdownRequested | Checkpoint

_DECODER = msgspec.json.Decoder(Message)
_ACTIONS: Final[dict[type[Message], str]] = {
    Initialize: "initialize",
    ProcessRecords: "processRecords",
    LeaseLost: "leaseLost",
    ShardEnded: "shardEnded",
    ShutdownRequested: "shutdownRequested",
}


def read_message(line: bytes | bytearray) -> Message:
    """Raises ``SourceUnavailable`` for a line that is no message; it is not shown, because of what it may hold."""
    try:
        message: Message = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceUnavailable(
            f"the KCL's daemon has sent a line that is not of the MultiLang protocol: {error}",
            hint="streamsvc knows the protocol of KCL 3.1; which kclpy-ext is installed?",
            nbytes=len(line),
        ) from error
    return message


def status_of(message: Message) -> bytes:
    """The line that says that this message is dealt with."""
    return b'{"action":"status","responseFor":"%s"}\n' % _ACTIONS[type(message)].encode()


def checkpoint_at(sequence_number: str, sub_sequence_number: int) -> bytes:
    """The line that asks for a checkpoint: everything up to and with this record is processed."""
    return msgspec.json.encode(Checkpoint(sequence_number, sub_sequence_number)) + b"\n"


CHECKPOINT_AT_END: Final = msgspec.json.encode(Checkpoint()) + b"\n"
"""Without numbers, and while ``shardEnded`` is unanswered: the shard is processed to its end."""
