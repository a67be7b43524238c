"""Kinesis positions: where to read on in a shard, as text whose order is read order.

A sequence number is a decimal number of at most 129 digits (AWS API reference, ``SequenceNumber``:
``0|([1-9]\\d{0,128})``), so its length goes in front. Behind it stands the sub-sequence number: which user record of a
KPL aggregate; 0 for a record that is none.

    0010.00000000            before every record (TRIM_HORIZON)
    0010@01764300000000      the first record that arrived at or after these ms since the epoch (AT_TIMESTAMP)
    056<56 digits>.00000003  before user record 3 of that sequence number
    END                      the shard is closed, and wholly read
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.records import Position

BEGINNING: Position = "0010.00000000"
END: Position = "END"
MAX_SUB_SEQUENCE = 10**8 - 1

_SUB_DIGITS = 8
_TIME_DIGITS = 14
_FROM_RECORD = re.compile(r"([0-9]{3})([0-9]{1,129})\.([0-9]{8})")
_FROM_TIME = re.compile(r"0010@([0-9]{14})")


@dataclass(frozen=True, slots=True)
class FromBeginning:
    """The oldest record that the shard still has."""


@dataclass(frozen=True, slots=True)
class FromTime:
    """The first record that arrived at this time (ms since the epoch) or later."""

    ms: int


@dataclass(frozen=True, slots=True)
class FromRecord:
    """The record with this sequence number, from user record ``sub`` on. It may have fewer: then the next record."""

    sequence: str
    sub: int


@dataclass(frozen=True, slots=True)
class AtEnd:
    """Nothing: the shard is closed, and wholly read."""


Place: TypeAlias = FromBeginning | FromTime | FromRecord | AtEnd


def position_before(sequence: str, sub: int = 0) -> Position:
    """The boundary before user record ``sub`` of this sequence number.

    Digits are kept as the stream writes them. Raises ``ValueError`` for what is no sequence number."""
    if not (sequence.isascii() and sequence.isdigit() and len(sequence) <= 129 and 0 <= sub <= MAX_SUB_SEQUENCE):
        raise ValueError(f"not a sequence number: {sequence!r}, sub-sequence number {sub}")
    return f"{len(sequence):03}{sequence}.{sub:0{_SUB_DIGITS}}"


def position_after(sequence: str, sub: int = 0) -> Position:
    """The boundary after user record ``sub`` of this sequence number."""
    return position_before(sequence, sub + 1)


def position_at_time(ms: int) -> Position:
    """Before the first record that arrives at this time (ms since the epoch) or later. It sorts before any record."""
    if not 0 <= ms < 10**_TIME_DIGITS:
        raise ValueError(f"not a time in ms since the epoch: {ms}")
    return f"0010@{ms:0{_TIME_DIGITS}}"


def parse_position(position: Position) -> Place:
    """Raises ``ValueError`` for a text that none of the functions here makes."""
    if position == BEGINNING:
        return FromBeginning()
    if position == END:
        return AtEnd()
    if at_time := _FROM_TIME.fullmatch(position):
        return FromTime(int(at_time[1]))
    found = _FROM_RECORD.fullmatch(position)
    if found is None or int(found[1]) != len(found[2]):
        raise ValueError(f"not a position in a Kinesis shard: {position!r}")
    return FromRecord(found[2], int(found[3]))


def positions_before(sequences: pa.Array, subs: pa.Array) -> pa.Array:
    """``position_before`` of every row. sequences: string, subs: an integer type. Answers string; checks nothing."""
    digits = pc.utf8_lpad(pc.cast(pc.utf8_length(sequences), pa.string()), 3, "0")
    sub_digits = pc.utf8_lpad(pc.cast(subs, pa.string()), _SUB_DIGITS, "0")
    records = pc.binary_join_element_wise(digits, sequences, "")
    return pc.binary_join_element_wise(records, sub_digits, ".")


TRIM_HORIZON = "TRIM_HORIZON"
LATEST = "LATEST"
AT_TIMESTAMP = "AT_TIMESTAMP"
SHARD_END = "SHARD_END"


@dataclass(frozen=True, slots=True)
class KclCheckpoint:
    """What a lease row of the KCL says: everything up to and with this record is processed.

    ``sequence`` is a sequence number or one of the KCL's words (``TRIM_HORIZON``, ``LATEST``, ``AT_TIMESTAMP``: nothing
    is processed, and the reader was configured to begin there; ``SHARD_END``: all of it)."""

    sequence: str
    sub: int = 0

    @property
    def ended(self) -> bool:
        return self.sequence == SHARD_END


def kcl_checkpoint(position: Position) -> KclCheckpoint | None:
    """What to write into a lease row for a boundary; ``None`` where the KCL has no word for it: before the first
    record, a time, and the boundary between two sequence numbers as it is seen from the second."""
    match parse_position(position):
        case AtEnd():
            return KclCheckpoint(SHARD_END)
        case FromRecord(sequence, sub) if sub > 0:
            return KclCheckpoint(sequence, sub - 1)
        case _:
            return None


def position_of_checkpoint(checkpoint: KclCheckpoint) -> Position | None:
    """Where a KCL that left this checkpoint would read on; ``None`` for ``LATEST`` and ``AT_TIMESTAMP``: it never
    processed a record, and the row does not say which time was meant.

    Raises ``ValueError`` for a checkpoint that no KCL writes."""
    if checkpoint.sequence in (LATEST, AT_TIMESTAMP):
        return None
    if checkpoint.sequence == TRIM_HORIZON:
        return BEGINNING
    return END if checkpoint.ended else position_after(checkpoint.sequence, checkpoint.sub)
