"""The Kinesis source that reads through the KCL: which shards are ours, and what is in them, its daemon says.

The KCL shares shards between workers by its own leases and opens children when their parents are checkpointed at their
end, which happens when that has landed. Everything that is not about being given records, the first start, ends,
ranges to be read again, is asked of the stream without it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from streamsvc.contracts import Assigned, Lag, Source, SplitEvent
from streamsvc.core.kinesis_positions import BEGINNING, END
from streamsvc.errors import Retryable, SourceRefused, SourceUnavailable
from streamsvc.records import Batch, Position, Ranges, Split
from streamsvc.sources.kinesis.kcl.bridge import Bridge, Inbox
from streamsvc.sources.kinesis.kcl.connection import SHORT_BYTES, Connection
from streamsvc.sources.kinesis.kcl.daemon import Daemon
from streamsvc.sources.kinesis.kcl.protocol import Initialize
from streamsvc.sources.kinesis.kcl.settings import HANDOFF_S, DaemonSettings, environment, write_files
from streamsvc.sources.kinesis.kcl.shard import Shard
from streamsvc.sources.kinesis.splits import SplitName, parse_split

log = structlog.get_logger(__name__)

RETRY_S = 1.0
SOCKET_PATH_BYTES = 100
"""Linux takes 107 (unix(7)), others less."""

STOP_S = 10.0
"""How long the daemon may take to hand over its shards."""


class KclSource:
    """Implements ``contracts.Source``.

    stream:      the same stream as a source of its own that joins no group; entered and left with this one
    settings:    what the daemon is told
    command:     the daemon's, see ``command_line``; run in a folder with the files of ``write_files``
    on_behind:   told how far the reading of a split is behind, in milliseconds; ``None``: it is read no longer
    on_trimmed:  told when what was read last of a split is gone by retention
    hold_s:      how long the KCL is kept from giving a shard away while its segment lands
    queue_bytes: what may wait for the pipeline. Beside it one long message is in hand at a time, and the JVM has a
                 heap of its own
    """

    def __init__(
        self,
        stream: Source,
        settings: DaemonSettings,
        command: Sequence[str],
        *,
        queue_bytes: int,
        hold_s: float = 0.8 * HANDOFF_S,
        restart_s: float = 1.0,
        on_behind: Callable[[Split, int | None], None] = lambda _split, _milliseconds: None,
        on_trimmed: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._command = command
        self._restart_s = restart_s
        self._bridge = Bridge(stream, Inbox(queue_bytes), hold_s, on_behind, on_trimmed)
        self._stream = stream
        self._shards: dict[Split, Shard] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._stream_name: SplitName | None = None

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        # Only we may enter it: it has the socket.
        self._folder = Path(tempfile.mkdtemp(prefix="kcl-"))
        socket = self._folder / "s"
        if len(os.fsencode(socket)) > SOCKET_PATH_BYTES:
            raise SourceRefused("the path of a socket would be too long", hint="Set TMPDIR=/tmp.", path=str(socket))
        write_files(self._folder, self._settings, debug=log.is_enabled_for(logging.DEBUG))
        self._server = await asyncio.start_unix_server(self._on_child, socket, limit=SHORT_BYTES)
        self._daemon = Daemon(
            self._command,
            self._folder,
            lambda generation: environment(self._settings, socket, generation),
            first_pause_s=self._restart_s,
        )
        self._running = self._spawn(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bridge.closing = True
        self._bridge.changes.tell()
        if kind is None and self._failure is None:
            self._daemon.stop()
            giving = self._spawn(self._shards_given())
            await asyncio.wait([self._running, giving], timeout=STOP_S, return_when=asyncio.FIRST_COMPLETED)
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        await self._stream.__aexit__(kind, error, trace)

    @property
    def group(self) -> str:
        return self._stream.group

    def reads(self, split: Split) -> bool:
        return self._stream.reads(split)

    @property
    def problem(self) -> str | None:
        """Why nothing may be coming, in words; ``None`` while the KCL brings records."""
        if self._failure is not None:
            return str(self._failure)
        return self._bridge.problem or self._daemon.problem or self._stream.problem

    @property
    def first_position(self) -> Position:
        return BEGINNING

    @property
    def daemon_pid(self) -> int | None:
        """``None`` while it is not running."""
        return self._daemon.pid

    async def assignments(self) -> AsyncIterator[SplitEvent]:
        while True:
            event = self._failure or await self._bridge.events.get()
            if isinstance(event, BaseException):
                raise event
            yield event

    def start_at(self, positions: Mapping[Split, Position]) -> None:
        for split, position in positions.items():
            if split in self._shards:
                self._bridge.landed[split] = position
                self._shards[split].start_at(position)

    def stop_reading(self, splits: Sequence[Split]) -> None:
        for split in splits:
            if split in self._shards:
                self._shards[split].stop_reading()

    def release(self, splits: Sequence[Split]) -> None:
        for split in splits:
            if split in self._shards:
                self._shards[split].release()

    async def read(self) -> Batch:
        while True:
            if self._failure is not None:
                raise self._failure
            batch = self._bridge.inbox.take()
            if batch is not None:
                self._bridge.changes.tell()
                return batch
            await self._bridge.changes.wait()

    def acknowledge(self, positions: Mapping[Split, Position]) -> None:
        self._bridge.landed.update(positions)
        self._bridge.changes.tell()

    # Of the stream, whoever reads it

    def read_range(self, ranges: Ranges) -> AsyncIterator[Batch]:
        return self._stream.read_range(ranges)

    async def splits(self) -> Sequence[Split]:
        return await self._stream.splits()

    async def first_positions(self) -> Mapping[Split, Position]:
        return await self._stream.first_positions()

    async def ends(self) -> Mapping[Split, Position]:
        return await self._stream.ends()

    def parents(self) -> Mapping[Split, frozenset[Split]]:
        return self._stream.parents()

    async def expired(self, places: Mapping[Split, Position]) -> frozenset[Split]:
        return await self._stream.expired(places)

    async def lag(self, places: Mapping[Split, Position]) -> Mapping[Split, Lag]:
        """Of a split that is being read, how far the KCL is behind; of others, the stream is asked."""
        told = {split: self._shards[split].behind_ms for split in places if split in self._shards}
        known = {split: Lag(milliseconds=behind_ms) for split, behind_ms in told.items() if behind_ms is not None}
        asked = {split: place for split, place in places.items() if split not in known}
        return known | dict(await self._stream.lag(asked))

    def at_end(self, places: Mapping[Split, Position]) -> frozenset[Split]:
        return frozenset(
            split
            for split, place in places.items()
            if place == END or (split in self._shards and self._shards[split].is_at_end(place))
        )

    # The daemon and its children

    async def _shards_given(self) -> None:
        """The daemon has had its last word with each shard: what has landed is checkpointed, and it may be ended.

        It would go on for as long as it may where a shard of its has ended: it waits for that one too, in vain, and
        takes the others back meanwhile (amazon-kinesis-client 3.1.3, ``GracefulShutdownCoordinator``)."""
        while self._shards:
            await self._bridge.changes.wait()

    async def _run(self) -> None:
        splits = await self._patiently(self._stream.splits)
        # A stream has a shard at all times, and its creation is in every name.
        self._stream_name = parse_split(splits[0])
        await self._daemon.run()

    async def _patiently(self, ask: Callable[[], Coroutine[Any, Any, Sequence[Split]]]) -> Sequence[Split]:
        while True:
            try:
                answer = await ask()
            except Retryable as error:
                self._bridge.problem = error.what
                await asyncio.sleep(RETRY_S)
            else:
                self._bridge.problem = None
                return answer

    def _on_child(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Some may have been accepted when the server closed."""
        connection = Connection(reader, writer)
        if self._server.is_serving():
            serving = self._spawn(self._serve(connection))
            # A task that is cancelled before its first step runs none of its ``finally``.
            serving.add_done_callback(lambda _: connection.close())
        else:
            connection.close()

    async def _serve(self, connection: Connection) -> None:
        try:
            generation = await connection.line()
            # A child of a daemon that is no more, or is about to be: nobody hears it.
            if generation is not None and int(generation) == self._daemon.generation:
                await self._talk(connection)
        except (SourceUnavailable, ValueError) as error:
            self._bridge.problem = str(error)
            log.error("the KCL's daemon is started anew", error=error)
            self._daemon.kill()

    async def _talk(self, connection: Connection) -> None:
        generation = self._daemon.generation
        start = await connection.message() if await connection.begins() else None
        if not isinstance(start, Initialize) or self._stream_name is None or self._bridge.closing:
            return
        split = self._stream_name._replace(shard=start.shard_id).text
        if split in self._shards:
            self._shards[split].fence()
        shard = self._shards[split] = Shard(split, start, connection, self._bridge)
        log.info("the KCL brings a shard", split=split, checkpoint=start.sequence_number, generation=generation)
        self._daemon.works()
        self._bridge.events.put_nowait(Assigned((split,)))
        try:
            await shard.converse()
        finally:
            if self._shards.get(split) is shard:
                del self._shards[split]
                self._bridge.on_behind(split, None)
            self._bridge.changes.tell()
        if not shard.is_over and generation == self._daemon.generation and not self._bridge.closing:
            # The daemon ends when it misses a child; should it not have noticed, nothing would come of this shard.
            self._daemon.kill()

    # Tasks

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._failure is None:
            self._failure = error
            self._bridge.events.put_nowait(error)
            self._bridge.changes.tell()
            self._daemon.stop()
