"""Every object under a prefix, by nothing more than a plain listing: what a reader without a catalogue would see."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import boto3

_PARALLEL_READS = 8


@dataclass(frozen=True, slots=True)
class StoredObject:
    """``key`` is relative to the prefix."""

    key: str
    body: bytes


def keys_under(prefix: str, endpoint_url: str | None = None) -> list[str]:
    """The keys, relative to ``prefix``, in text order. Nothing is left out, whatever its name."""
    return [key for key, _ in _list(prefix, endpoint_url)]


def objects_under(prefix: str, endpoint_url: str | None = None) -> Iterator[StoredObject]:
    """The objects, in text order. prefix: ``file:///folder`` or ``s3://bucket/folder``."""
    url = urlsplit(prefix)
    if url.scheme == "file":
        for key, address in _list(prefix, endpoint_url):
            yield StoredObject(key, Path(address).read_bytes())
        return
    s3 = boto3.client("s3", endpoint_url=endpoint_url)

    def read(entry: tuple[str, str]) -> StoredObject:
        return StoredObject(entry[0], s3.get_object(Bucket=url.netloc, Key=entry[1])["Body"].read())

    with ThreadPoolExecutor(_PARALLEL_READS) as threads:
        yield from threads.map(read, _list(prefix, endpoint_url))


def _list(prefix: str, endpoint_url: str | None) -> list[tuple[str, str]]:
    """Key under the prefix, and the store's own name for it."""
    url = urlsplit(prefix)
    if url.scheme == "file":
        root = Path(url.path)
        found = [(path.relative_to(root).as_posix(), str(path)) for path in root.rglob("*") if path.is_file()]
    elif url.scheme == "s3":
        folder = url.path.strip("/") + "/" if url.path.strip("/") else ""
        pages = boto3.client("s3", endpoint_url=endpoint_url).get_paginator("list_objects_v2")
        listed = [
            entry for page in pages.paginate(Bucket=url.netloc, Prefix=folder) for entry in page.get("Contents", ())
        ]
        found = [(entry["Key"].removeprefix(folder), entry["Key"]) for entry in listed]
    else:
        raise ValueError(f"cannot list {prefix}: write file:///folder or s3://bucket/folder")
    return sorted(found)
