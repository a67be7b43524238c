"""What may be held in memory of all shards together, in bytes. The back-pressure of this source is this alone."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self


class Room:
    """First come, first served. Something larger than all of it gets in when nothing else is held."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.held_bytes = 0

    async def take(self, nbytes: int) -> None:
        """Waits until there is room. Cancelling takes nothing."""
        if not self._waiting and self._fits(nbytes):
            self.held_bytes += nbytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((nbytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(nbytes)
            self._let_in()
            raise

    def give(self, nbytes: int) -> None:
        self.held_bytes -= nbytes
        self._let_in()

    def hold(self, nbytes: int) -> None:
        """What is there already, whether or not there is room for it."""
        self.held_bytes += nbytes

    def _fits(self, nbytes: int) -> bool:
        return self.held_bytes == 0 or self.held_bytes + nbytes <= self._limit_bytes

    def _let_in(self) -> None:
        while self._waiting:
            nbytes, turn = self._waiting[0]
            if not turn.done():
                if not self._fits(nbytes):
                    return
                self.held_bytes += nbytes
                turn.set_result(None)
            self._waiting.popleft()


class Reservation:
    """Room for the next answer of one shard: taken before it is asked for, given back however its reader ends."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._nbytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    async def take(self, nbytes: int) -> None:
        """Instead of what was taken before."""
        self.give_back()
        await self._room.take(nbytes)
        self._nbytes = nbytes

    def give_back(self) -> None:
        nbytes, self._nbytes = self._nbytes, 0
        if nbytes:
            self._room.give(nbytes)
