"""A prefix of a store, by nothing more than plain listing and reading: what a reader without a catalogue would see."""

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


class Folder:
    """prefix: ``file:///folder`` or ``s3://bucket/folder``. Keys are relative to it.

    Nothing is left out of a listing, whatever its name. Errors are those of ``boto3`` and of the file system.
    """

    def __init__(self, prefix: str, endpoint_url: str | None = None, session: boto3.Session | None = None) -> None:
        url = urlsplit(prefix)
        if url.scheme not in ("file", "s3"):
            raise ValueError(f"cannot list {prefix}: write file:///folder or s3://bucket/folder")
        self._root = Path(url.path) if url.scheme == "file" else None
        self._bucket = url.netloc
        self._prefix = url.path.strip("/") + "/" if url.path.strip("/") else ""
        if self._root is None:
            self._s3 = (session or boto3.Session()).client("s3", endpoint_url=endpoint_url)

    def listing(self, under: str = "") -> list[str]:
        """Keys in text order. under: a folder that ends in ``/``, or nothing."""
        if self._root is not None:
            found = [path for path in (self._root / under).rglob("*") if path.is_file()]
            return sorted(path.relative_to(self._root).as_posix() for path in found)
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + under)
        return sorted(entry["Key"].removeprefix(self._prefix) for page in pages for entry in page.get("Contents", ()))

    def read(self, key: str) -> bytes:
        if self._root is not None:
            return (self._root / key).read_bytes()
        body: bytes = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()
        return body

    def objects(self) -> Iterator[StoredObject]:
        """All of them, in text order."""
        with ThreadPoolExecutor(_PARALLEL_READS) as threads:
            keys = self.listing()
            for key, body in zip(keys, threads.map(self.read, keys), strict=True):
                yield StoredObject(key, body)
