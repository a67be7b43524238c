"""What every store does with its arguments: keys are checked, bodies become views of bytes."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

MAX_KEY_BYTES = 1024
"""Prefix and key together, in UTF-8 (Amazon S3 user guide, "Naming Amazon S3 objects")."""

_LAST_CONTROL = 0x1F
_DELETE = "\x7f"
_NOT_IN_XML = ("\ufffe", "\uffff")


def check_key(key: str, *, prefix: str = "") -> str:
    """The key, if every store can hold it and list it under exactly this name.

    Raises ``ValueError``: keys are made by this program, so a bad one is a fault in it.
    """
    if any(part in {"", ".", ".."} for part in key.split("/")):
        raise ValueError(f"an object key with an empty or relative part: {key!r}")
    if any(ord(char) <= _LAST_CONTROL or char == _DELETE or char in _NOT_IN_XML for char in key):
        raise ValueError(f"an object key with a control character: {key!r}")
    if len(prefix.encode()) + len(key.encode()) > MAX_KEY_BYTES:
        raise ValueError(f"an object key longer than {MAX_KEY_BYTES} bytes: {prefix + key!r}")
    return key


def body_parts(body: bytes | Sequence[pa.Buffer | bytes]) -> list[memoryview]:
    """The body as views of unsigned bytes (Arrow exports its buffers as signed ones)."""
    parts = [body] if isinstance(body, bytes) else body
    return [memoryview(part).cast("B") for part in parts]
