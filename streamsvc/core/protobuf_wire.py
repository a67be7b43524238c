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
    while (at := _read_usual_records(body, _read_short_keys(body, at, end, into), end, into)) < end:
        tag, content = _read_varint(body, at)
        if tag not in (_RECORD, _KEY_TABLE, _HASH_TABLE):
            at = _skip(body, at, end)
            continue
        size, at = _read_varint(body, content)
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


def _read_short_keys(body: bytes, at: int, end: int, into: Aggregate) -> int:
    """Partition keys of less than 128 bytes, one after another. Answers where the first thing begins that is none."""
    add = into.key_table.append
    while at < end and body[at] == _KEY_TABLE:
        size = body[at + 1]
        stop = at + 2 + size
        if size > 127 or stop > end:
            break
        add(body[at + 2 : stop].decode())
        at = stop
    return at


def _read_usual_records(body: bytes, at: int, end: int, into: Aggregate) -> int:
    """Records as nearly all are: key index, then data; no number of more than 14 bits. Answers where the first thing
    begins that is none, for those who know more. Half of the time that reading an aggregate takes is saved here."""
    add_key, add_data = into.key_indexes.append, into.data.append
    while at < end and body[at] == _RECORD:
        size, inner = body[at + 1], at + 2
        if size > 127:
            size, inner = size - 128 | body[inner] << 7, inner + 1
        stop = inner + size
        key, place = body[inner + 1], inner + 2
        if key > 127:
            key, place = key - 128 | body[place] << 7, place + 1
        length, start = body[place + 1], place + 2
        if length > 127:
            length, start = length - 128 | body[start] << 7, start + 1
        if body[inner] != _KEY_INDEX or body[place] != _DATA or start + length != stop or stop > end:
            break
        if max(size, key, length) >= 1 << 14:
            break
        add_key(key)
        add_data(body[start:stop])
        at = stop
    into.hash_indexes += [NO_INDEX] * (len(into.data) - len(into.hash_indexes))
    return at


def _read_record(body: bytes, at: int, stop: int, into: Aggregate) -> None:
    key_index = hash_index = NO_INDEX
    data: bytes | None = None
    while at < stop:
        field_start = at
        tag = body[at]
        number = body[at + 1]
        at += 2
        if tag > 127:
            tag, at = _read_varint(body, field_start)
            number, at = body[at], at + 1
        if tag not in (_DATA, _KEY_INDEX, _HASH_INDEX):
            at = _skip(body, field_start, stop)
            continue
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
    number = 0
    for place in range(_MAX_VARINT_BYTES):
        byte = body[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at + place + 1
    raise Undecodable


def _skip(body: bytes, at: int, stop: int) -> int:
    """Behind the field that begins here, which is not known or has another type than it should."""
    tag, at = _read_varint(body, at)
    kind = tag & 7
    if kind == _VARINT:
        _, at = _read_varint(body, at)
    elif kind == _BYTES:
        size, at = _read_varint(body, at)
        at += size
    elif kind in (_FIXED64, _FIXED32):
        at += 8 if kind == _FIXED64 else 4
    else:
        raise Undecodable
    if at > stop or tag >> 3 == 0:
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
