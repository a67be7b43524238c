"""Object stores by address."""

from __future__ import annotations

from pathlib import PurePosixPath

from streamsvc.config import Aws
from streamsvc.contracts import ObjectStore
from streamsvc.errors import StoreRefused
from streamsvc.stores.local import LocalStore
from streamsvc.stores.memory import MemoryStore
from streamsvc.stores.s3 import S3Store


def open_store(url: str, aws: Aws) -> ObjectStore:
    """The store at an address. Touches neither network nor disk; the first call does.

    ``s3://bucket/prefix``    any S3 with conditional writes, at ``aws.endpoint_url`` if that is set
    ``file:///absolute/dir``  a local directory; created objects are durable
    ``memory://name/prefix``  one store for each name, for the life of the process

    What follows the bucket is taken as it is, without percent-decoding; a slash at the end does not matter.
    Raises ``StoreRefused`` for any other address.
    """
    scheme, separator, rest = url.partition("://")
    place, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    parts = prefix.split("/") if prefix else []
    if separator and not any(part in {"", ".", ".."} for part in parts):
        if scheme == "s3" and place:
            return S3Store(place, prefix, aws)
        if scheme == "file" and not place and parts:
            return LocalStore(PurePosixPath("/", *parts))
        if scheme == "memory" and place:
            return MemoryStore(place, prefix)
    raise StoreRefused(
        "not the address of an object store",
        hint="Write s3://bucket/prefix, file:///absolute/directory or memory://name.",
        url=url,
    )
