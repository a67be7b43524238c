"""Objects in this process, by name: for tests, simulations and trying things out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

import pyarrow as pa

from streamsvc.contracts import Entry
from streamsvc.stores.arguments import body_parts, check_key

_STORES: defaultdict[str, dict[str, bytes]] = defaultdict(dict)


class MemoryStore:
    """An ``ObjectStore``. Calls never fail and never suspend; all from one event loop."""

    def __init__(self, name: str, prefix: str = "") -> None:
        self._objects = _STORES[name]
        self._prefix = f"{prefix}/" if prefix else ""
        self._url = f"memory://{name}/{prefix}" if prefix else f"memory://{name}"

    @property
    def url(self) -> str:
        return self._url

    async def create(self, key: str, body: bytes | Sequence[pa.Buffer | bytes]) -> bool:
        path = self._path(key)
        if path in self._objects:
            return False
        self._objects[path] = b"".join(body_parts(body))
        return True

    async def get(self, key: str) -> bytes | None:
        return self._objects.get(self._path(key))

    async def size(self, key: str) -> int | None:
        body = self._objects.get(self._path(key))
        return None if body is None else len(body)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Entry]:
        start = len(self._prefix)
        within = [path[start:] for path in self._objects if path.startswith(self._prefix + prefix)]
        for key in sorted(key for key in within if key > after):
            body = self._objects.get(self._prefix + key)
            if body is not None:
                yield Entry(key, len(body))

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._objects.pop(self._path(key), None)

    def _path(self, key: str) -> str:
        return self._prefix + check_key(key, prefix=self._prefix)
