"""One budget for everything buffered. Over it segments are cut early, then the source waits; nothing is dropped."""

from __future__ import annotations

import asyncio


class MemoryBudget:
    """Bytes held by the pipelines of one process. All calls come from one event loop."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._held: dict[str, int] = {}
        self._listeners: dict[str, asyncio.Event] = {}
        self._freed = asyncio.Event()

    @property
    def held_bytes(self) -> int:
        return sum(self._held.values())

    def register(self, holder: str) -> asyncio.Event:
        """The event is set when this holder, being the largest, is asked to free what it can."""
        self._held[holder] = 0
        self._listeners[holder] = asyncio.Event()
        return self._listeners[holder]

    def hold(self, holder: str, nbytes: int) -> None:
        """This holder holds so many bytes now."""
        freed = nbytes < self._held[holder]
        self._held[holder] = nbytes
        if freed:
            self._freed.set()

    def has_room(self, nbytes: int) -> bool:
        """A holder that is alone may always take one more batch: a record larger than the budget must pass."""
        held = self.held_bytes
        return held == 0 or held + nbytes <= self.limit_bytes

    def ask_largest(self) -> str:
        """Ask the largest holder to free; answers who that is."""
        largest = max(self._held, key=self._held.__getitem__)
        self._listeners[largest].set()
        return largest

    async def freed(self) -> None:
        """Wait until anybody frees something. Cancelling is safe."""
        self._freed.clear()
        await self._freed.wait()
