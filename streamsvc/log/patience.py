"""The object store as the log needs it: a call is made until its effect is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias, TypeVar

from streamsvc.contracts import ObjectStore
from streamsvc.errors import StoreUnavailable

Sleep: TypeAlias = Callable[[float], Awaitable[None]]

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
CALLS_AT_ONCE = 32

_A = TypeVar("_A")
_T = TypeVar("_T")


class PatientStore:
    """Waits out every ``StoreUnavailable``, ever longer. Cancelling leaves the last call's effect unknown."""

    def __init__(self, store: ObjectStore, sleep: Sleep) -> None:
        self._store = store
        self._sleep = sleep

    async def create(self, key: str, body: bytes) -> bytes:
        """What stands under the key from now on: ``body``, or what somebody else, or we, put there before.

        A create that fails says nothing: clients repeat a create whose reply was lost, and then meet their own
        object; and a store that is handling two creates at once may refuse both. So the key is read; if nothing
        is there, it is created again.
        """

        async def attempt() -> bytes | None:
            return body if await self._store.create(key, body) else await self._store.get(key)

        tries = 0
        while (standing := await self.until_known(attempt)) is None:
            await self._pause(tries)
            tries += 1
        return standing

    async def get(self, key: str) -> bytes | None:
        return await self.until_known(lambda: self._store.get(key))

    async def keys(self, prefix: str, *, after: str = "") -> list[str]:
        """Keys under a folder, in text order. What came or went while it was listed may be there or not."""
        found: list[str] = []

        async def collect() -> None:
            last = found[-1] if found else after
            found.extend([entry.key async for entry in self._store.list(prefix, after=last)])

        await self.until_known(collect)
        return found

    async def delete(self, keys: Sequence[str]) -> None:
        if keys:
            await self.until_known(lambda: self._store.delete(keys))

    async def until_known(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """``call`` again and again until it does not raise ``StoreUnavailable``."""
        tries = 0
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await self._pause(tries)
                tries += 1

    async def _pause(self, tries: int) -> None:
        await self._sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(tries, 10)))


async def concurrently(call: Callable[[_A], Awaitable[_T]], arguments: Iterable[_A]) -> list[_T]:
    """The results, in the order of the arguments. The first failure cancels the other calls and is raised as it is."""
    waiting = list(arguments)
    if len(waiting) == 1:
        return [await call(waiting[0])]
    gate = asyncio.Semaphore(CALLS_AT_ONCE)

    async def pass_gate(argument: _A) -> _T:
        async with gate:
            return await call(argument)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(pass_gate(argument)) for argument in waiting]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
