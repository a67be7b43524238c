"""The one protobuf message that is read and written by hand: the AggregatedRecord of the KPL (see ``core/kpl.py``).

A general reader makes an object for each user record; this one makes its data and nothing else. It goes once over the
bytes, without recursion, and allocates no more than they say they hold and do hold.
(Protocol Buffers documentation, "Encoding": fields are tag and content; a tag is ``number << 3 | wire type``.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_KEY_TABLE = 1 << 3 | _BYTES
_HASH_TABLE = 2 << 3 | _BYTES
_RECORD = 3 << 3 | _BYTES
_KEY_INDEX = 1 << 3 | _VARINT
_HASH_INDEX = 2 << 3 | _VARINT
_DATA = 3 << 3 | _BYTES

NO_INDEX = -1
_MAX_VARINT_BYTES = 10


class Undecodable(ValueError):
    """These bytes are not that message."""


@dataclass(slots=True)
class Aggregate:
    """Tables, and one entry a user record in each of the other lists. ``hash_indexes``: ``NO_INDEX`` where a record
    has no explicit hash key. Indexes are as they were read: perhaps beyond their table."""

    key_table: list[str] = field(default_factory=list)
    hash_table: list[str] = field(default_factory=list)
    key_indexes: list[int] = field(default_factory=list)
    hash_indexes: list[int] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)


def read_aggregate(body: bytes) -> Aggregate:
    """Raises ``Undecodable``: it is cut short, a length leads out of it, a required field is missing, a key is not
    UTF-8, or it holds groups (which proto2 had before 2010 and the KPL never writes)."""
    aggregate = Aggregate()
    try:
        _read_fields(body, aggregate)
    except (IndexError, UnicodeDecodeError):
        raise Undecodable from None
    return aggregate


def _read_fields(body: bytes, into: Aggregate) -> None:
    at, end = 0, len(body)
    while at < end:
        tag, at = _read_varint(body, at)
        if tag not in (_RECORD, _KEY_TABLE, _HASH_TABLE):
            at = _skip(body, at, end, tag)
            continue
        size = body[at]
        at += 1
        if size > 127:
            size, at = _read_varint(body, at - 1)
        stop = at + size
        if stop > end:
            raise Undecodable
        if tag == _RECORD:
            _read_record(body, at, stop, into)
        elif tag == _KEY_TABLE:
            into.key_table.append(body[at:stop].decode())
        else:
            into.hash_table.append(body[at:stop].decode())
        at = stop


def _read_record(body: bytes, at: int, stop: int, into: Aggregate) -> None:
    key_index = hash_index = NO_INDEX
    data: bytes | None = None
    while at < stop:
        tag, at = _read_varint(body, at)
        if tag not in (_DATA, _KEY_INDEX, _HASH_INDEX):
            at = _skip(body, at, stop, tag)
            continue
        number = body[at]
        at += 1
        if number > 127:
            number, at = _read_varint(body, at - 1)
        if tag == _DATA:
            data = body[at : at + number]
            at += number
        elif tag == _KEY_INDEX:
            key_index = number
        else:
            hash_index = number
    if at != stop or data is None or key_index == NO_INDEX:
        raise Undecodable
    into.key_indexes.append(key_index)
    into.hash_indexes.append(hash_index)
    into.data.append(data)


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    """The number and where it ends. Of its bits, 64 count."""
    byte = body[at]
    if byte < 128:
        return byte, at + 1
    number = 0
    for place in range(_MAX_VARINT_BYTES):
        byte = body[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at + place + 1
    raise Undecodable


def _skip(body: bytes, at: int, stop: int, tag: int) -> int:
    """Behind a field that is not known, or has another type than it should."""
    kind = tag & 7
    if tag >> 3 == 0:
        raise Undecodable
    if kind == _VARINT:
        _, at = _read_varint(body, at)
    elif kind == _BYTES:
        size, at = _read_varint(body, at)
        at += size
    elif kind in (_FIXED64, _FIXED32):
        at += 8 if kind == _FIXED64 else 4
    else:
        raise Undecodable
    if at > stop:
        raise Undecodable
    return at


def varint(number: int) -> bytes:
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)


def key_table_entry(key: bytes) -> bytes:
    return bytes([_KEY_TABLE]) + varint(len(key)) + key


def hash_table_entry(key: bytes) -> bytes:
    return bytes([_HASH_TABLE]) + varint(len(key)) + key


def record_entry(key_index: int, hash_index: int, data: bytes) -> bytes:
    """hash_index: ``NO_INDEX`` for none."""
    content = bytes([_KEY_INDEX]) + varint(key_index)
    if hash_index != NO_INDEX:
        content += bytes([_HASH_INDEX]) + varint(hash_index)
    content += bytes([_DATA]) + varint(len(data)) + data
    return bytes([_RECORD]) + varint(len(content)) + content
