"""A MultiLangDaemon whose lines a test says: real children on real pipes, and no KCL behind them.

    async with ScriptedKcl() as kcl, KclSource(stream, settings, kcl.command, queue_bytes=...) as source:
        shard = await kcl.start("shardId-000000000000", "TRIM_HORIZON")
        await shard.process([("4957...", 0, b"value")])       # returns once `status` came
        assert shard.checkpoints == [("4957...", 0)]

Run as a program it is the daemon's process: it starts children as the properties file says, and ends when a child ends
by itself, as the real one does (amazon-kinesis-client 3.1.3, ``MultiLangShardRecordProcessor.stopProcessing``).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

LINE_LIMIT = 64 * 1024 * 1024
CONTROL = "control"

UserRecord: TypeAlias = tuple[str, int, bytes]
"""Sequence number, sub-sequence number, value."""


class ScriptedShard:
    """What the daemon says about one shard. Each call is a message, and returns when its ``status`` has come; it raises
    ``ConnectionResetError`` when the child, or the daemon, has ended."""

    def __init__(self, kcl: ScriptedKcl, child: str) -> None:
        self._kcl = kcl
        self._child = child
        self.pid = 0
        """Of the child."""
        self.said: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.checkpoints: list[tuple[str | None, int | None]] = []
        self.refusals: list[str] = []
        """Java exceptions for the next checkpoints."""

    async def process(self, records: Iterable[UserRecord], *, behind_ms: int = 0) -> None:
        rows = [
            {
                "action": "record",
                "data": base64.b64encode(value).decode(),
                "partitionKey": f"key-{sequence}",
                "sequenceNumber": sequence,
                "subSequenceNumber": sub,
                "approximateArrivalTimestamp": arrival_ms(sequence),
            }
            for sequence, sub, value in records
        ]
        await self.ask({"action": "processRecords", "records": rows, "millisBehindLatest": behind_ms})

    async def ask(self, message: dict[str, Any]) -> None:
        self.send(message)
        await self.answered(message["action"])

    def send(self, message: dict[str, Any] | str) -> None:
        line = message if isinstance(message, str) else json.dumps(message, separators=(",", ":"))
        self._kcl.order(do="send", child=self._child, line=line)

    async def answered(self, action: str) -> None:
        """As the daemon waits for a status: takes checkpoints meanwhile, or refuses them."""
        while (said := await self.said.get()) is not None:
            if said["action"] == "status":
                assert said["responseFor"] == action, said
                return
            assert said["action"] == "checkpoint", said
            error = self.refusals.pop(0) if self.refusals else None
            if error is None:
                self.checkpoints.append((said["sequenceNumber"], said["subSequenceNumber"]))
            self.send({**said, "error": error})
        raise ConnectionResetError(f"the child of {self._child} has ended")

    def hang_up(self) -> None:
        """The child's standard input is closed, as after its last message."""
        self._kcl.order(do="close", child=self._child)


def arrival_ms(sequence: str) -> int:
    """When a scripted record arrived: a function of its sequence number, so that two readers agree."""
    return 1_764_300_000_000 + int(sequence[-9:])


class ScriptedKcl:
    """Waits for the daemon's process to call; a daemon that is started anew calls again."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[int] = asyncio.Queue()
        """The process ids of daemons, one a life."""
        self.obeys = True
        """It ends when it is asked to; False: when the test says so."""
        self._shards: dict[str, ScriptedShard] = {}
        self._writer: StreamWriter | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._terminated = asyncio.Event()
        self.daemon = 0

    async def __aenter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="kcl-")
        self._socket = Path(self._folder.name) / CONTROL
        self._server = await asyncio.start_unix_server(self._on_daemon, self._socket, limit=LINE_LIMIT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        self._folder.cleanup()

    @property
    def command(self) -> Sequence[str]:
        """Run this instead of the JVM."""
        return [sys.executable, "-m", "streamsvc.testing.scripted_kcl", str(self._socket)]

    async def start(self, shard: str, sequence: str | None, sub: int = 0) -> ScriptedShard:
        """A child, told ``initialize``, and its answer."""
        child = f"{shard}#{len(self._shards)}"
        scripted = self._shards[child] = ScriptedShard(self, child)
        self.order(do="start", child=child)
        await scripted.ask(
            {"action": "initialize", "shardId": shard, "sequenceNumber": sequence, "subSequenceNumber": sub}
        )
        return scripted

    async def restarted(self) -> int:
        """The process id of a daemon that has called and was not waited for."""
        self.daemon = await self.calls.get()
        return self.daemon

    async def asked_to_end(self) -> None:
        """The daemon got SIGTERM: now it would hand its shards over, and ``end``."""
        await self._terminated.wait()

    def end(self) -> None:
        self.order(do="end", child="")

    def order(self, **order: object) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(order).encode() + b"\n")

    def _on_daemon(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._writer = writer
        task = asyncio.create_task(self._serve(reader))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        task.add_done_callback(lambda _: writer.close())
        if not self._server.is_serving():
            task.cancel()

    async def _serve(self, reader: StreamReader) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                self._hear(json.loads(line))
        for shard in self._shards.values():
            shard.said.put_nowait(None)

    def _hear(self, event: dict[str, Any]) -> None:
        match event["it"]:
            case "called":
                self.calls.put_nowait(event["pid"])
            case "terminated":
                self._terminated.set()
                if self.obeys:
                    self.end()
            case "started":
                self._shards[event["child"]].pid = event["pid"]
            case _:
                self._shards[event["child"]].said.put_nowait(event["line"] and json.loads(event["line"]))


class _DaemonProcess:
    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._children: dict[str, Process] = {}
        self._closed: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        self._tell(it="called", pid=os.getpid())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: self._tell(it="terminated"))
        while line := await self._reader.readline():
            order = json.loads(line)
            child = self._children.get(order["child"])
            if order["do"] == "end":
                return 0
            if order["do"] == "start":
                await self._start(order["child"])
            elif child is not None and child.stdin is not None:
                if order["do"] == "send":
                    child.stdin.write(order["line"].encode() + b"\n")
                else:
                    self._closed.add(order["child"])
                    child.stdin.close()
        return 0

    async def _start(self, name: str) -> None:
        properties = await asyncio.to_thread(Path("kcl.properties").read_text)
        command = next(line for line in properties.splitlines() if line.startswith("executableName="))
        # What properties files escape is not in this command but for its blanks.
        words = command.partition("=")[2].replace("\\u0020", " ").split()
        child = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE, limit=LINE_LIMIT)
        self._children[name] = child
        self._closed.discard(name)
        self._tell(it="started", child=name, pid=child.pid)
        task = asyncio.create_task(self._listen(name, child))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, name: str, child: Process) -> None:
        assert child.stdout is not None
        while line := await child.stdout.readline():
            self._tell(it="said", child=name, line=line.decode())
        self._tell(it="said", child=name, line=None)
        await child.wait()
        if name not in self._closed:
            sys.stderr.write("ERROR|Daemon|a child has ended\n")
            await self._writer.drain()
            os._exit(1)

    def _tell(self, **event: object) -> None:
        self._writer.write(json.dumps(event).encode() + b"\n")


async def _main(path: str) -> int:
    reader, writer = await asyncio.open_unix_connection(path, limit=LINE_LIMIT)
    return await _DaemonProcess(reader, writer).run()


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(sys.argv[1])))
