"""The processes of the KCL bridge when others are gone: the relay a shard, and the daemon's start."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamsvc.sources.kinesis.kcl import child, launch

PARENT = """
import subprocess, sys, os, time
process = subprocess.Popen([sys.executable, {launch!r}, str(os.getpid()), "/bin/sleep", "600"])
print(process.pid, flush=True)
time.sleep(600)
"""


async def start_child(socket: Path) -> Process:
    environment = {**os.environ, child.SOCKET: str(socket), child.GENERATION: "7"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", child.__file__, env=environment, stdin=PIPE, stdout=PIPE
    )


@pytest.fixture
async def connections(
    tmp_path: Path,
) -> AsyncIterator[asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    queue: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_unix_server(lambda *both: queue.put_nowait(both), tmp_path / "s")
    yield queue
    server.close()
    await server.wait_closed()


async def ended(process: Process) -> int:
    """The daemon has closed the child's standard input."""
    assert process.stdin is not None
    process.stdin.close()
    return await process.wait()


async def test_lines_of_any_length_are_relayed_both_ways(
    tmp_path: Path, connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
) -> None:
    process = await start_child(tmp_path / "s")
    assert process.stdin is not None
    assert process.stdout is not None
    reader, writer = await connections.get()
    assert await reader.readline() == b"7\n"
    line = b"x" * 15_000_000 + b"\n"
    process.stdin.write(line)
    assert await reader.readexactly(len(line)) == line
    writer.write(b"answer\n")
    assert await process.stdout.readline() == b"answer\n"
    assert await ended(process) == 0
    assert await reader.read() == b""
    writer.close()


async def test_a_child_waits_for_the_service(tmp_path: Path) -> None:
    process = await start_child(tmp_path / "s")
    assert process.stdin is not None
    process.stdin.write(b"initialize\n")
    await process.stdin.drain()
    came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set_result(await reader.readline() + await reader.readline())
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    assert await came == b"7\ninitialize\n"
    assert await ended(process) == 0
    server.close()


async def test_a_child_without_service_ends_with_its_daemon(tmp_path: Path) -> None:
    process = await start_child(tmp_path / "s")
    assert await ended(process) == 0


async def test_a_child_outlives_the_service_and_signals(
    tmp_path: Path, connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
) -> None:
    """If it ended, the daemon would end with all its shards."""
    process = await start_child(tmp_path / "s")
    assert process.stdin is not None
    assert process.stdout is not None
    reader, writer = await connections.get()
    await reader.readline()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    writer.close()
    process.stdin.write(b"records\n" * 1_000_000)
    await process.stdin.drain()
    assert process.returncode is None
    assert await ended(process) == 0
    assert await process.stdout.read() == b"", "what nobody answered is not answered"


@pytest.mark.skipif(sys.platform != "linux", reason="the wish to die with the parent is Linux's")
async def test_the_daemon_dies_with_the_service() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT.format(launch=launch.__file__), stdout=PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
        await asyncio.sleep(0.01)
    parent.kill()
    await parent.wait()
    while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        await asyncio.sleep(0.01)


async def test_a_daemon_whose_parent_is_gone_already_is_not_started() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, launch.__file__, "1", "/bin/sleep", "600")
    assert await process.wait() == 1
