"""The server: JSON 1.1 over HTTP/1.1, on a loopback port.

    async with KinesisServer() as server:
        async with session.create_client("kinesis", endpoint_url=server.endpoint_url, ...) as client:
            ...

Signatures are not looked at. ``GET /_faults`` answers how many calls were made and which faults fired, as JSON.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import orjson

from streamsvc.testing.kinesis_server.account import Account
from streamsvc.testing.kinesis_server.errors import KinesisError
from streamsvc.testing.kinesis_server.fan_out import OpenSubscription
from streamsvc.testing.kinesis_server.faults import Fault, Faults, raise_after, raise_before
from streamsvc.testing.kinesis_server.limits import Limits
from streamsvc.testing.kinesis_server.operations import OPERATIONS, unknown

_JSON = "application/x-amz-json-1.1"
_EVENTS = "application/vnd.amazon.eventstream"
_BUFFER_BYTES = 4 * 1024 * 1024
_LAST_CUT = 3


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class KinesisServer:
    """An async context manager: the server, and its ``account``, live as long as it is open.

    ``limits`` are AWS's own unless given; ``clock`` gives seconds since the epoch; ``faults`` holds a script of faults
    for each operation that is to have some. Port 0 is a free one. A bug of the server, or a script with a fault that
    its operation cannot have, drops the connection and is raised when the context ends.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        faults: Mapping[str, Iterable[Fault | None]] | None = None,
        clock: Callable[[], float] = time.time,
        port: int = 0,
        slow_s: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.account = Account(limits or Limits(), clock, seed=seed)
        self.faults = Faults(faults or {})
        self._port = port
        self._slow_s = slow_s
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._bugs: list[BaseException] = []

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, limit=_BUFFER_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        if self._bugs and error is None:
            raise self._bugs[0]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._forget)

    def _forget(self, connection: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        if not connection.cancelled() and (bug := connection.exception()) is not None:
            self._bugs.append(bug)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read(reader)) is not None:
                if not await self._answer(request, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(self, request: HttpRequest, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection can be used for another request."""
        if request.method == "GET":
            counts = {"calls": self.faults.calls, "fired": self.faults.fired}
            await _send(writer, 200, orjson.dumps(counts))
            return True
        operation = request.headers.get("x-amz-target", "").rpartition(".")[2]
        fault = self.faults.next(operation)
        if fault is Fault.RESET_BEFORE:
            _reset(writer)
            return False
        if fault is Fault.SLOW:
            await asyncio.sleep(self._slow_s)
        try:
            raise_before(operation, fault)
            answer = OPERATIONS.get(operation, unknown)(self.account, request.body, fault)
            raise_after(fault)
        except KinesisError as error:
            await _send(writer, error.status, orjson.dumps({"__type": error.kind, "message": error.message}))
            return True
        if fault is Fault.RESET_AFTER:
            _reset(writer)
            return False
        if isinstance(answer, OpenSubscription):
            cut = self.account.dice.randint(1, _LAST_CUT) if fault is Fault.CUT else None
            return await _send_events(writer, answer, cut)
        await _send(writer, 200, answer)
        return True


def _reset(writer: asyncio.StreamWriter) -> None:
    """Without lingering, closing sends a reset."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> HttpRequest | None:
    """``None``: the client has closed the connection between two requests."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return HttpRequest(method, path, headers, body)


def _head(status: int, kind: str, length: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}",
        f"x-amzn-RequestId: {uuid.uuid4()}",
        f"Content-Type: {kind}",
        length,
        "\r\n",
    ]
    return "\r\n".join(lines).encode()


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    writer.writelines([_head(status, _JSON, f"Content-Length: {len(body)}"), body])
    await writer.drain()


async def _send_events(writer: asyncio.StreamWriter, opened: OpenSubscription, cut: int | None) -> bool:
    """``cut``: the connection is closed in the middle of this event, counted from 1 after the initial response."""
    writer.write(_head(200, _EVENTS, "Transfer-Encoding: chunked"))
    number = 0
    async with aclosing(opened.events()) as messages:
        async for message in messages:
            if number == cut:
                writer.write(b"%x\r\n%s" % (len(message), message[: len(message) // 2]))
                return False
            writer.writelines([b"%x\r\n" % len(message), message, b"\r\n"])
            await writer.drain()
            number += 1
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True
