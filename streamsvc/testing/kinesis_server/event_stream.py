"""Messages of ``application/vnd.amazon.eventstream`` (Smithy specification, "Amazon Event Stream Specification").

    length of all (4) | length of headers (4) | CRC-32 of those (4) | headers | payload | CRC-32 of all before (4)

A header: length of its name (1), the name, 7 for "string" (1), length of the value (2), the value. Big-endian.
"""

from __future__ import annotations

import struct
from binascii import crc32

import orjson

from streamsvc.testing.kinesis_server.errors import KinesisError

_STRING = 7
_JSON = "application/json"
_INITIAL = {":message-type": "event", ":event-type": "initial-response", ":content-type": "application/x-amz-json-1.1"}


def message(headers: dict[str, str], payload: bytes) -> bytes:
    block = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack("!II", 16 + len(block) + len(payload), len(block))
    checked = prelude + struct.pack("!I", crc32(prelude)) + block + payload
    return checked + struct.pack("!I", crc32(checked))


def initial_response() -> bytes:
    """What botocore asks every stream of an RPC protocol to begin with (``botocore/eventstream.py``)."""
    return message(_INITIAL, b"{}")


def event(kind: str, payload: bytes) -> bytes:
    return message({":message-type": "event", ":event-type": kind, ":content-type": _JSON}, payload)


def exception(error: KinesisError) -> bytes:
    headers = {":message-type": "exception", ":exception-type": error.kind, ":content-type": _JSON}
    return message(headers, orjson.dumps({"message": error.message}))


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack("!B", len(key)) + key + struct.pack("!BH", _STRING, len(text)) + text
