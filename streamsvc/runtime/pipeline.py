"""One pipeline of one worker: reads its splits into an open segment, cuts it, and reads on while it lands.

Everything that happens comes through one mailbox and is handled by one coroutine, in order; so there are no locks.
A batch is taken only where it goes on exactly at what is held of its split. What was read before a move never
does, and is dropped: the source was told where to read on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

import stamina

from streamsvc.contracts import Assigned, Revoked, Source
from streamsvc.core.log_keys import Cursor
from streamsvc.errors import Retryable
from streamsvc.log.segment_log import SegmentLog
from streamsvc.ops.health import OpenSegmentStatus, WindowsStatus
from streamsvc.records import Batch, Split
from streamsvc.runtime.closing import Progress
from streamsvc.runtime.destinations import Closings, destination_of
from streamsvc.runtime.events import Event, Landed, Moved, Recovered, Stop
from streamsvc.runtime.expiry import Expiry
from streamsvc.runtime.finishing import Finisher
from streamsvc.runtime.landing import Identity, Lander
from streamsvc.runtime.memory import MemoryBudget
from streamsvc.runtime.observer import Observer
from streamsvc.runtime.segment import Recipe
from streamsvc.runtime.splits import Splits
from streamsvc.runtime.stopping import unless
from streamsvc.runtime.until_end import UntilEnd
from streamsvc.runtime.windowing import Place

COMMITS_A_CHECKPOINT = 100
"""Walking a split costs a few reads a segment, so a worker folds the log now and then."""

LAG_EVERY_S = 10.0
LOOK_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Policy:
    """When to cut a segment, and whether to end."""

    size_bytes: int
    interval_s: float
    until_end: bool = False
    tick_s: float = 0.5
    look_s: float = LOOK_EVERY_S
    closings: Closings = field(default_factory=Closings)


class Pipeline:
    """``run`` returns when it was stopped and everything that was taken in is committed, or, with ``until_end``,
    when every split is committed up to where it ended at the start.

    It raises what is ``Fatal``. A cancelled ``run`` equals a crash: the log stays right, what was open is read again.
    """

    def __init__(
        self,
        identity: Identity,
        source: Source,
        log: SegmentLog,
        recipe: Recipe,
        finisher: Finisher,
        policy: Policy,
        budget: MemoryBudget,
        observer: Observer,
    ) -> None:
        self._name = identity.pipeline
        self._source = source
        self._log = log
        self._to = destination_of(recipe, log, source, finisher, observer, policy.closings)
        self._expiry = Expiry(source, log, finisher)
        self._policy = policy
        self._budget = budget
        self._observer = observer
        self._pressure = budget.register(self._name)
        budget.register(finishing := f"{self._name}: finishing")
        finisher.hold = partial(budget.hold, finishing)
        if recipe.window and recipe.window.results:
            budget.register(closing := f"{self._name}: closing windows")
            recipe.window.results.hold = partial(budget.hold, closing)
        self._mailbox: asyncio.Queue[Event] = asyncio.Queue()
        self._credit = asyncio.Semaphore(2)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix=f"{self._name}-columns")
        self._lander = Lander(identity, log, recipe, self._threads, observer)
        self._splits = Splits()
        self._open = self._to.open()
        self._opened_at = 0.0
        self._landing_opened_at = 0.0
        self._until_end: UntilEnd | None = None
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._commits = 0

    @property
    def splits(self) -> Splits:
        """What is assigned and where it stands; for ``status``."""
        return self._splits

    @property
    def landing(self) -> bool:
        return self._lander.busy

    def open_segment(self) -> OpenSegmentStatus | None:
        """What is taken in and not yet cut; ``None``: nothing."""
        if not self._open.ranges:
            return None
        return OpenSegmentStatus(
            records=self._open.tally.records,
            nbytes=self._open.memory_bytes,
            age_s=round(monotonic() - self._opened_at, 1),
        )

    def open_windows(self) -> WindowsStatus | None:
        """Of a windowed pipeline, as far as it was committed when it was last looked at."""
        return self._to.open_windows

    def windows_progress(self) -> Progress | None:
        return self._to.progress()

    def oldest_unlanded_s(self) -> float:
        """How long ago the first of the records was taken in that have not landed; 0 if there are none."""
        if self._lander.busy:
            return monotonic() - self._landing_opened_at
        return monotonic() - self._opened_at if self._open.ranges else 0.0

    def stop(self) -> None:
        """Stop reading, land what is open, then let ``run`` return. To be called from the event loop."""
        self._stopping.set()
        self._splits.stop_taking()
        self._mailbox.put_nowait(Stop())

    async def run(self) -> None:
        await unless(self._stopping, self._prepare())
        self._spawn(self._follow_assignments())
        self._spawn(self._pump())
        self._spawn(self._watch_lag())
        self._spawn(self._watch_silent_splits())
        self._spawn(self._to.run())
        try:
            while not await self._is_complete():
                await self._handle(await self._next_event())
                await self._cut_if_due()
        finally:
            for task in self._tasks:
                task.cancel()
            await self._lander.abandon()
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._budget.hold(self._name, 0)
            self._source.release(sorted(self._splits.assigned))

    async def _prepare(self) -> None:
        async for attempt in stamina.retry_context(on=self._is_worth_waiting, attempts=None, timeout=None):
            with attempt:
                await self._log.enter(self._source.group, self._source.reads)
                await self._log.begin(self._source.first_positions)
                await self._to.begin(await self._expiry.check())
                if self._policy.until_end:
                    ends, policy = await self._source.ends(), self._policy
                    self._until_end = UntilEnd(
                        self._source, self._log, ends, tick_s=policy.tick_s, look_s=policy.look_s
                    )

    def _is_worth_waiting(self, error: Exception) -> bool:
        """The source says of itself when it is well again; a failure here is told, and tried again for ever."""
        if isinstance(error, Retryable):
            self._observer.retrying("source", error)
        return isinstance(error, Retryable)

    async def _is_complete(self) -> bool:
        if self._open.ranges or self._lander.busy:
            return False
        if self._stopping.is_set():
            return True
        if self._until_end is None or not await self._until_end.is_committed(self._splits):
            return False
        return await self._to.is_complete()

    # Events

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        """A failed task is kept, and the loop woken to raise what it failed of."""
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)
        else:
            self._mailbox.put_nowait(Landed())

    def _raise_failures(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def _follow_assignments(self) -> None:
        async for event in self._source.assignments():
            self._mailbox.put_nowait(event)

    async def _pump(self) -> None:
        while True:
            await self._credit.acquire()
            self._mailbox.put_nowait(await self._source.read())

    async def _watch_lag(self) -> None:
        while True:
            with suppress(Retryable):
                self._observer.lag(await self._source.lag(self._splits.landed))
            await asyncio.sleep(LAG_EVERY_S)

    async def _watch_silent_splits(self) -> None:
        """A seek is met where the next claim of its split is lost. A split without new records claims nothing, so
        the log is asked now and then."""
        while True:
            await asyncio.sleep(self._policy.look_s)
            known = self._silent()
            standings = await self._log.standings(known)
            moved = {
                split: known[split]
                for split, standing in standings.items()
                if standing.pending is not None or standing.cursor != known[split]
            }
            if moved:
                self._mailbox.put_nowait(Moved(moved))

    def _silent(self) -> dict[Split, Cursor]:
        """Splits that are read and of which nothing is held, and where they stand."""
        held = self._open.ranges.keys() | self._lander.ranges.keys()
        return {split: self._splits.cursors[split] for split in self._splits.reached if split not in held}

    async def _next_event(self) -> Event | None:
        """The next event, or ``None`` when it is time to look at the clock."""
        wait_s = self._policy.tick_s
        if self._open.ranges:
            wait_s = min(wait_s, max(0.0, self._opened_at + self._policy.interval_s - monotonic()))
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                return await self._mailbox.get()
        return None

    async def _handle(self, event: Event | None) -> None:
        self._raise_failures()
        match event:
            case Batch():
                await self._take(event)
                self._credit.release()
            case Assigned():
                await self._take_over(event.splits)
            case Recovered():
                self._start(event.places, event.ticket)
            case Moved():
                self._follow(event.cursors)
            case Revoked():
                await self._hand_over(event)
            case Landed():
                if self._lander.done:
                    await self._settle()
            case Stop():
                self._source.stop_reading(sorted(self._splits.assigned))
            case None:
                pass

    # Records in

    async def _take(self, batch: Batch) -> None:
        self._observer.read(batch)
        rest: Batch | None = self._splits.continuing(batch)
        while rest is not None and rest.spans:
            await self._wait_for_room(rest.nbytes)
            rest = self._splits.continuing(rest)
            if not rest.spans:
                return
            if not self._open.ranges:
                self._opened_at = monotonic()
            rest = await self._in_thread(self._open.add, rest)
            self._splits.took(self._open.ranges)
            self._account()
            if rest is not None:
                await self._cut("partitions")
            elif self._open.largest_bytes >= self._policy.size_bytes:
                await self._cut("size")

    async def _wait_for_room(self, nbytes: int) -> None:
        began = monotonic()
        await self._make_room(nbytes)
        self._observer.waited_for_memory(monotonic() - began)

    async def _make_room(self, nbytes: int) -> None:
        while not self._budget.has_room(nbytes) and not self._stopping.is_set():
            if self._budget.ask_largest() != self._name:
                await self._wait_for_others()
                continue
            self._pressure.clear()
            if self._open.ranges:
                await self._cut("memory")
            if await self._settle() is None:
                return

    async def _wait_for_others(self) -> None:
        """They may take long, when their store is down; what is open here becomes due all the same."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._policy.tick_s):
                await self._budget.freed()
        self._raise_failures()
        if self._lander.done:
            await self._settle()
        await self._cut_if_due()

    def _account(self) -> None:
        self._budget.hold(self._name, self._open.memory_bytes + self._lander.held_bytes)

    async def _in_thread(self, call: Callable[[Batch], Batch | None], batch: Batch) -> Batch | None:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, batch)

    # Segments out

    async def _cut_if_due(self) -> None:
        if not self._open.ranges:
            self._pressure.clear()
            if self._to.is_due(self._splits, self._policy.interval_s):
                await self._cut("idle")
        elif self._pressure.is_set():
            self._pressure.clear()
            await self._cut("memory")
        elif monotonic() - self._opened_at >= self._policy.interval_s:
            await self._cut("interval")
        elif self._stopping.is_set():
            await self._cut("shutdown")
        elif self._until_end is not None and self._until_end.is_taken_in(self._splits):
            await self._cut("end")

    async def _cut(self, reason: str) -> None:
        """Begin to land what is open. Waits for the segment before it, which, if aborted, takes this one with it."""
        if await self._settle() is False:
            return
        ranges = self._to.plan(self._open, self._splits)
        if not ranges:
            return
        segment, self._open = self._open, self._to.open()
        self._landing_opened_at = self._opened_at if segment.ranges else monotonic()
        self._observer.cut(reason)
        self._lander.begin(segment, ranges, reason, lambda: self._mailbox.put_nowait(Landed()))
        self._account()

    async def _settle(self) -> bool | None:
        """Wait for the segment that is landing. True: committed. False: aborted, and what was open is dropped,
        since it went on where the aborted one ended. None: nothing was landing."""
        landed = await self._lander.result()
        if landed is None:
            return None
        outcome, ranges = landed
        if not outcome.committed:
            self._start_over()
            return False
        self._splits.committed(outcome)
        self._source.acknowledge({split: to for split, (_, to) in ranges.items()})
        self._account()
        self._to.committed()
        self._commits += 1
        if self._commits % COMMITS_A_CHECKPOINT == 0:
            self._spawn(self._keep_house())
        return True

    async def _keep_house(self) -> None:
        await self._log.checkpoint()
        await self._log.gc()

    async def _land_all(self, reason: str) -> None:
        await self._cut(reason)
        await self._settle()

    # Splits that come and go

    def _start_over(self) -> None:
        """A claim was lost: another worker has had one of our splits. Ask the log again where each of them stands."""
        self._observer.fenced()
        self._open = self._to.open()
        self._account()
        self._source.stop_reading(sorted(self._splits.assigned))
        self._recover(self._splits.assigned)

    async def _take_over(self, splits: Iterable[Split]) -> None:
        self._splits.assigned.update(splits)
        self._observer.assigned(len(self._splits.assigned), "assigned", sorted(splits))
        if any(split in self._open.ranges or split in self._lander.ranges for split in splits):
            await self._land_all("assigned")
        self._recover(splits)

    def _start(self, places: Mapping[Split, Place], ticket: int) -> None:
        if not self._stopping.is_set():
            positions = self._splits.start({split: place.cursor for split, place in places.items()}, ticket)
            self._to.start({split: places[split] for split in positions})
            self._source.start_at(positions)

    def _follow(self, moved: Mapping[Split, Cursor]) -> None:
        """Ask the log for their places, unless they have moved by our own doing since it was asked."""
        silent = self._silent()
        splits = [split for split, cursor in moved.items() if silent.get(split) == cursor]
        self._source.stop_reading(splits)
        self._recover(splits)

    def _recover(self, splits: Iterable[Split]) -> None:
        wanted = sorted(splits)
        self._spawn(self._find_places(wanted, self._splits.seek_place(wanted)))

    async def _find_places(self, splits: list[Split], ticket: int) -> None:
        """Ask the log where each split goes on; that may mean to finish a segment of another worker first."""
        async for attempt in stamina.retry_context(on=self._is_worth_waiting, attempts=None, timeout=None):
            with attempt:
                gone = await self._expiry.check(splits)
                places = await self._to.places([split for split in splits if split not in gone])
                ended = {split: Place(gone[split]) for split in splits if split in gone}
                self._mailbox.put_nowait(Recovered({**places, **ended}, ticket))

    async def _hand_over(self, event: Revoked) -> None:
        """Land what is held of the leaving splits while there is time, then let them go."""
        self._source.stop_reading(event.splits)
        held = any(split in self._open.ranges or split in self._lander.ranges for split in event.splits)
        if held and event.deadline_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(event.deadline_s):
                    await self._land_all("revoked")
        self._splits.drop(event.splits)
        self._observer.assigned(len(self._splits.assigned), "revoked", sorted(event.splits))
        self._source.release(event.splits)
