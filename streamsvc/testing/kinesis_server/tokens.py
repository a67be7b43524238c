"""Tokens that carry something from one call to the next, which only this server can make, and which expire."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable
from typing import Any, cast

import orjson

from streamsvc.testing.kinesis_server.errors import KinesisError

_VERSION = bytes([0, 0, 0, 0, 0, 0, 0, 1])
_HEAD_BYTES = len(_VERSION) + 16


class Tokens:
    """``wrong`` and ``expired`` make the errors; ``expired`` is told the age in seconds."""

    def __init__(
        self, lifetime_s: float, wrong: Callable[[], KinesisError], expired: Callable[[float], KinesisError]
    ) -> None:
        self._lifetime_s = lifetime_s
        self._wrong = wrong
        self._expired = expired
        self._key = secrets.token_bytes(16)

    def write(self, carried: list[Any], now: float) -> str:
        """``carried`` is anything that JSON has."""
        text = orjson.dumps([round(now * 1000), *carried])
        return b64encode(self._head(text) + text).decode()

    def read(self, token: str, now: float) -> list[Any]:
        try:
            raw = b64decode(token, validate=True)
        except NotBase64:
            raise self._wrong() from None
        text = raw[_HEAD_BYTES:]
        if not hmac.compare_digest(raw[:_HEAD_BYTES], self._head(text)):
            raise self._wrong()
        made, *carried = cast("list[Any]", orjson.loads(text))
        age_s = now - made / 1000
        if age_s > self._lifetime_s:
            raise self._expired(age_s)
        return carried

    def _head(self, text: bytes) -> bytes:
        return _VERSION + hashlib.blake2b(text, key=self._key, digest_size=16).digest()


def iterator_tokens(lifetime_s: float) -> Tokens:
    """API Reference, GetShardIterator and GetRecords: a shard iterator expires 5 minutes after it is returned."""
    return Tokens(
        lifetime_s,
        lambda: KinesisError("InvalidArgumentException", "Invalid ShardIterator."),
        lambda age_s: KinesisError(
            "ExpiredIteratorException",
            f"Iterator expired. It was created {age_s:.0f} seconds ago, which is further in the past than the "
            f"tolerated delay of {lifetime_s * 1000:.0f} milliseconds.",
        ),
    )


def next_tokens(lifetime_s: float) -> Tokens:
    """API Reference, ListShards: a NextToken expires after 300 seconds."""
    return Tokens(
        lifetime_s,
        lambda: KinesisError("InvalidArgumentException", "NextToken is invalid."),
        lambda age_s: KinesisError("ExpiredNextTokenException", f"NextToken expired; it is {age_s:.0f} seconds old."),
    )
