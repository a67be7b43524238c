"""A proxy in front of an S3 that fails a share of the calls, before or after they were applied.

``python -m loadtest.faulty_s3 --upstream http://127.0.0.1:5000 --log faults.json`` prints its own address and serves
until SIGTERM. Requests pass through byte by byte, ``Host`` too, so signatures hold. What fails is drawn from a seed, in
the order in which calls come. What each failure looks like to the client:

before-refused   503 at once; the call was not passed on
before-closed    the connection ends without an answer; the call was not passed on
after-refused    500; the call was applied
after-closed     the connection ends without an answer; the call was applied
after-silent     nothing for ``--silence-s``, then the connection ends; the call was applied
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

Fault: TypeAlias = Literal["before-refused", "before-closed", "after-refused", "after-closed", "after-silent"]
FAULTS: tuple[Fault, ...] = ("before-refused", "before-closed", "after-refused", "after-closed", "after-silent")

_HEAD_LIMIT = 64 * 1024
_PIECE = 256 * 1024
_WRITE_LOG_EVERY_S = 0.5
_BODILESS = {"204", "304"}
_REFUSALS: dict[Fault, bytes] = {
    "before-refused": b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n",
    "after-refused": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
}


class BadMessage(Exception):
    """Not HTTP/1.1 as S3 clients and servers speak it."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the headers of a request or an answer, as bytes and as what they mean."""

    raw: bytes
    first: list[str]
    headers: dict[str, str]

    @classmethod
    async def read(cls, reader: asyncio.StreamReader) -> Head | None:
        """``None`` at the end of the stream."""
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as end:
            if end.partial:
                raise BadMessage("the stream ended inside a head") from end
            return None
        first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return cls(raw, first.split(" ", 2), {name.strip().lower(): value.strip() for name, _, value in pairs})

    @property
    def keeps_alive(self) -> bool:
        return "HTTP/1.1" in self.first and self.headers.get("connection", "").lower() != "close"


class Faults:
    """Draws which calls fail and counts them."""

    def __init__(self, share: float, seed: int) -> None:
        self._share = share
        self._random = random.Random(seed)
        self.calls = 0
        self.counts: Counter[str] = Counter(dict.fromkeys(FAULTS, 0))

    def draw(self) -> Fault | None:
        self.calls += 1
        fails, kind = self._random.random() < self._share, self._random.choice(FAULTS)
        if not fails:
            return None
        self.counts[kind] += 1
        return kind

    def as_json(self) -> str:
        return json.dumps({"calls": self.calls, "faults": dict(self.counts)})


@dataclass(frozen=True, slots=True)
class Upstream:
    """The S3 behind, and how far away it is to seem."""

    host: str
    port: int
    delay_s: float
    silence_s: float


class Connection:
    """One client. Every call is passed on over a connection of its own, so none is sent twice by us."""

    def __init__(
        self,
        upstream: Upstream,
        faults: Faults,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._upstream = upstream
        self._faults = faults
        self._reader = reader
        self._writer = writer

    async def serve(self) -> None:
        """Until either side ends the connection."""
        try:
            while await self._serve_call():
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, BadMessage) as error:
            print(f"a connection ended: {error!r}", file=sys.stderr, flush=True)
        finally:
            self._writer.close()

    async def _serve_call(self) -> bool:
        """Whether the connection goes on after it."""
        request = await Head.read(self._reader)
        if request is None:
            return False
        fault = self._faults.draw()
        if request.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b"".join([piece async for piece in _body(self._reader, request, open_ended=False)])
        if fault is not None and fault.startswith("before"):
            return await self._fail(fault)
        answer = await self._pass_on(request, body, deliver=fault is None)
        if fault is not None:
            return await self._fail(fault)
        return request.keeps_alive and answer.keeps_alive

    async def _fail(self, fault: Fault) -> bool:
        if fault in _REFUSALS:
            self._writer.write(_REFUSALS[fault])
            await self._writer.drain()
            return True
        if fault == "after-silent":
            await asyncio.sleep(self._upstream.silence_s)
        self._writer.transport.abort()
        return False

    async def _pass_on(self, request: Head, body: bytes, *, deliver: bool) -> Head:
        """Let the upstream apply the call; its answer goes to the client, or nowhere."""
        await asyncio.sleep(self._upstream.delay_s)
        reader, writer = await asyncio.open_connection(self._upstream.host, self._upstream.port, limit=_HEAD_LIMIT)
        try:
            writer.write(_without_expect(request.raw) + body)
            await writer.drain()
            answer = await Head.read(reader)
            if answer is None:
                raise BadMessage("the upstream ended the connection instead of answering")
            if deliver:
                self._writer.write(answer.raw)
            if request.first[0] != "HEAD" and answer.first[1] not in _BODILESS:
                async for piece in _body(reader, answer, open_ended=True):
                    if deliver:
                        self._writer.write(piece)
                        await self._writer.drain()
            return answer
        finally:
            writer.close()


async def _body(reader: asyncio.StreamReader, head: Head, *, open_ended: bool) -> AsyncIterator[bytes]:
    """The bytes after a head, as they are on the wire (RFC 9112, section 6.3).

    open_ended: without a stated length the body goes on to the end of the stream, else there is none.
    """
    if "chunked" in head.headers.get("transfer-encoding", ""):
        async for piece in _chunks(reader):
            yield piece
        return
    stated = "content-length" in head.headers
    left = int(head.headers.get("content-length", sys.maxsize if open_ended else 0))
    while left:
        piece = await reader.read(min(left, _PIECE))
        if not piece and stated:
            raise BadMessage("the stream ended inside a body")
        if not piece:
            return
        left -= len(piece)
        yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    size = 1
    while size:
        line = await reader.readuntil(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        yield line + (await reader.readexactly(size + 2) if size else b"")
    trailer = b""
    while trailer != b"\r\n":
        trailer = await reader.readuntil(b"\r\n")
        yield trailer


def _without_expect(head: bytes) -> bytes:
    """We have told the client to go on ourselves."""
    return b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))


async def serve(upstream: Upstream, faults: Faults, log: Path, port: int = 0) -> None:
    """Print the address, then serve until SIGTERM or SIGINT; ``log`` holds the counts, whole at any time."""

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(upstream, faults, reader, writer).serve()

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = await asyncio.start_server(on_connect, "127.0.0.1", port, limit=_HEAD_LIMIT)
    host, bound = server.sockets[0].getsockname()
    print(f"http://{host}:{bound}", flush=True)
    while not stopped.is_set():
        _write(log, faults.as_json())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), _WRITE_LOG_EVERY_S)
    server.close()
    _write(log, faults.as_json())


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.faulty_s3", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--upstream", required=True, help="http://host:port of the S3")
    parser.add_argument("--log", required=True, type=Path, help="counts by kind, as JSON")
    parser.add_argument("--share", type=float, default=0.1, help="of the calls that fail; default 0.1")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--silence-s", type=float, default=2.0)
    parser.add_argument("--delay-s", type=float, default=0.0, help="before every call that is passed on")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    given = parser.parse_args(arguments)
    url = urlsplit(given.upstream)
    if url.hostname is None or url.port is None:
        parser.error(f"--upstream {given.upstream}: write http://host:port")
    upstream = Upstream(url.hostname, url.port, given.delay_s, given.silence_s)
    asyncio.run(serve(upstream, Faults(given.share, given.seed), given.log, given.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
