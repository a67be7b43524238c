"""Coroutines under a seeded scheduler: no clock, no threads; what happens next is drawn from the seed.

Each operation of an actor on its store waits until the scheduler chooses it. Then it takes effect, or fails before or
after its effect, or takes effect and is answered later. Between two choices everything runs that can run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, MutableMapping
from random import Random
from types import TracebackType
from typing import Any, Self

from streamsvc.errors import StoreUnavailable
from streamsvc.testing.scripted_store import Operation


class BareLoop(asyncio.BaseEventLoop):
    """An event loop that has no clock and no files; it runs what is ready when it is told to."""

    _ready: deque[asyncio.Handle]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise AssertionError(context)

    def run_ready(self) -> None:
        while self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()


class Pending:
    """An operation that its actor waits for; without an operation, a sleep."""

    __slots__ = ("answer", "applied", "future", "operation")

    def __init__(self, operation: Operation | None, future: asyncio.Future[Any]) -> None:
        self.operation = operation
        self.future = future
        self.applied = False
        self.answer: Any = None

    def apply(self) -> Any:
        if self.operation is not None and not self.applied:
            self.applied = True
            self.answer = self.operation.apply()
        return self.answer


class Actor:
    """A coroutine and the operations it waits for. One that is never chosen again has crashed, or hangs."""

    def __init__(self, loop: BareLoop, name: str, run: Callable[[Actor], Coroutine[Any, Any, None]]) -> None:
        self.name = name
        self.pending: list[Pending] = []
        self._loop = loop
        self.task = loop.create_task(run(self))
        loop.run_ready()

    async def script(self, operation: Operation) -> Any:
        return await self._wait(operation)

    async def sleep(self, seconds: float) -> None:
        await self._wait(None)

    async def _wait(self, operation: Operation | None) -> Any:
        pending = Pending(operation, self._loop.create_future())
        self.pending.append(pending)
        return await pending.future

    @property
    def done(self) -> bool:
        return self.task.done()


class Scheduler:
    """Draws what happens. Use it as a context, at the end of which every coroutine is ended.

    faults: the share of operations that do not go as they should
    late:   the share of operations that are answered at a later choice than the one at which they take effect
    trace:  what happened: actor, operation, key, and how it failed
    """

    def __init__(self, seed: int, *, faults: float, late: float) -> None:
        self.random = Random(seed)
        self.loop = BareLoop()
        self.faults = faults
        self.late = late
        self.trace: list[tuple[str, str, str, str]] = []
        self._actors: list[Actor] = []

    def __enter__(self) -> Self:
        asyncio._set_running_loop(self.loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for actor in self._actors:
                actor.task.cancel()
            self.loop.run_ready()
            assert all(actor.done for actor in self._actors), "a coroutine does not end when it is cancelled"
        finally:
            asyncio._set_running_loop(None)
            self.loop.close()

    def start(self, name: str, run: Callable[[Actor], Coroutine[Any, Any, None]]) -> Actor:
        actor = Actor(self.loop, name, run)
        self._actors.append(actor)
        return actor

    def step(self, actor: Actor) -> None:
        """One of the actor's operations goes on."""
        pending = actor.pending
        chosen = pending[0] if len(pending) == 1 else self.random.choice(pending)
        self._advance(actor, chosen)
        self.loop.run_ready()
        if actor.done and not actor.task.cancelled():
            actor.task.result()

    def _advance(self, actor: Actor, chosen: Pending) -> None:
        dice = self.random.random()
        operation = chosen.operation
        if operation is not None and not chosen.applied and dice < self.faults + self.late:
            if dice >= self.faults:
                self._note(actor, operation, "late")
                chosen.apply()
                return
            self._fail(actor, chosen, operation)
        else:
            if operation is not None:
                self._note(actor, operation, "")
            answer = chosen.apply()
            if not chosen.future.done():
                chosen.future.set_result(answer)
        actor.pending.remove(chosen)

    def _fail(self, actor: Actor, chosen: Pending, operation: Operation) -> None:
        kinds = ["before", "after"] + (["conflict", "reply lost"] * 2 if operation.kind == "create" else [])
        fault = self.random.choice(kinds)
        self._note(actor, operation, fault)
        if fault in {"after", "reply lost"}:
            chosen.apply()
        if chosen.future.done():
            return
        if fault in {"conflict", "reply lost"}:
            chosen.future.set_result(False)
        else:
            chosen.future.set_exception(StoreUnavailable("scripted"))

    def _note(self, actor: Actor, operation: Operation, fault: str) -> None:
        self.trace.append((actor.name, operation.kind, operation.key, fault))

    def run_alone(self, actor: Actor, limit: int) -> bool:
        """Only this actor goes on. Answers whether it came to its end."""
        while not actor.done and limit > 0:
            self.step(actor)
            limit -= 1
        return actor.done

    def crash(self, actor: Actor) -> None:
        """The actor is thrown away. What it had asked of the store may still happen, as a request under way may."""
        self._leave(actor)
        actor.pending.clear()

    def cancel(self, actor: Actor) -> None:
        """The actor is ended in good order; what it had asked of the store may still happen."""
        actor.task.cancel()
        self.loop.run_ready()
        assert actor.done, "a coroutine does not end when it is cancelled"
        self._leave(actor)

    def _leave(self, actor: Actor) -> None:
        for pending in actor.pending:
            if self.random.random() < 0.5:
                pending.apply()


class Remembering(dict[str, bytes], MutableMapping[str, bytes]):
    """The objects of a store, and every object that was ever created, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.created: list[tuple[str, bytes]] = []

    def __setitem__(self, key: str, body: bytes) -> None:
        self.created.append((key, body))
        super().__setitem__(key, body)
