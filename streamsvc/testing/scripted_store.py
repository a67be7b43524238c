"""An object store whose every operation takes effect, or fails, when a script says so.

    store = ScriptedStore(script)
    async def script(operation: Operation) -> object:
        return operation.apply()        # at once; or later, or never, or twice; or raise StoreUnavailable

The objects live in a plain dict, which several stores may share: one store for each worker of a simulation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from streamsvc.contracts import Entry


@dataclass(frozen=True, slots=True)
class Operation:
    """One call as the script sees it. ``apply`` makes its effect and returns the answer to the caller.

    A script that answers ``False`` to a create has refused it, whether or not it applied it before.
    """

    kind: Literal["create", "get", "size", "list", "delete"]
    key: str
    apply: Callable[[], Any]


Script: TypeAlias = Callable[[Operation], Awaitable[Any]]


async def at_once(operation: Operation) -> Any:
    """The script of a store without faults."""
    return operation.apply()


class ScriptedStore:
    """An ``ObjectStore`` that is as unhelpful as the contract allows.

    A ``list`` is two operations: what was deleted between them is not answered, nor is what was created; a
    ``delete`` of several keys is one operation for each.
    """

    def __init__(self, script: Script = at_once, objects: MutableMapping[str, bytes] | None = None) -> None:
        self._script = script
        self.objects: MutableMapping[str, bytes] = {} if objects is None else objects

    @property
    def url(self) -> str:
        return "scripted://"

    async def create(self, key: str, body: bytes | Sequence[pa.Buffer | bytes]) -> bool:
        whole = body if isinstance(body, bytes) else b"".join(bytes(part) for part in body)
        created: bool = await self._script(Operation("create", key, partial(self._create, key, whole)))
        return created

    async def get(self, key: str) -> bytes | None:
        body: bytes | None = await self._script(Operation("get", key, partial(self.objects.get, key)))
        return body

    async def size(self, key: str) -> int | None:
        body: bytes | None = await self._script(Operation("size", key, partial(self.objects.get, key)))
        return None if body is None else len(body)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Entry]:
        keys = await self._script(Operation("list", prefix, partial(self._keys, prefix, after)))
        for entry in await self._script(Operation("list", prefix, partial(self._entries, keys))):
            yield entry

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            await self._script(Operation("delete", key, partial(self.objects.pop, key, None)))

    def _create(self, key: str, body: bytes) -> bool:
        if key in self.objects:
            return False
        self.objects[key] = body
        return True

    def _keys(self, prefix: str, after: str) -> Sequence[str]:
        return sorted(key for key in self.objects if key.startswith(prefix) and key > after)

    def _entries(self, keys: Sequence[str]) -> Sequence[Entry]:
        return [Entry(key, len(self.objects[key])) for key in keys if key in self.objects]
