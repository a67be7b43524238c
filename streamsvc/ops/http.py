"""``http.listen``: is it alive, is it ready, its metrics, its status for programs and for people.

Runs inside the event loop that it reports on, so an answer of ``/livez`` says that the loop turns. Read-only, without
authentication: it listens on this machine only unless it is told otherwise.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from streamsvc.errors import Fatal
from streamsvc.ops import metrics
from streamsvc.ops.health import Health, Problems, open_windows
from streamsvc.ops.page import status_page

log = structlog.get_logger(__name__)

SHUTDOWN_S = 1
"""How long an answer under way may keep the server from ending."""

EVENT_STREAM = "text/event-stream"
LOOK_EVERY_S = 1.0
KEEP_ALIVE_S = 15.0

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def application(health: Health) -> Starlette:
    """``/livez /readyz /metrics /status /windows /``, each a GET, each answered from ``health``."""

    def page() -> Response:
        body = status_page(health.status(), {**health.live(), **health.ready()}, datetime.now(UTC))
        return Response(body.encode(errors="replace"), media_type="text/html", headers=_HEADERS)

    answers: dict[str, Callable[[], Response]] = {
        "/": page,
        "/livez": lambda: _verdict(health.live()),
        "/readyz": lambda: _verdict({**health.live(), **health.ready()}),
        "/metrics": lambda: Response(health.metrics(), media_type=metrics.CONTENT_TYPE, headers=_HEADERS),
        "/status": lambda: _json(health.status()),
    }
    routes = [Route(path, _endpoint(answer)) for path, answer in answers.items()]
    return Starlette(routes=[*routes, Route("/windows", _windows(health))])


def _endpoint(answer: Callable[[], Response]) -> Callable[[Request], object]:
    async def endpoint(_: Request) -> Response:
        return answer()

    return endpoint


def _windows(health: Health) -> Callable[[Request], object]:
    """Open windows, once, or as they change to who asks for a stream of events (HTML Standard, server-sent events)."""

    async def endpoint(request: Request) -> Response:
        if EVENT_STREAM in request.headers.get("accept", ""):
            return StreamingResponse(_events(health), media_type=EVENT_STREAM, headers=_HEADERS)
        return _json(open_windows(health.status()))

    return endpoint


async def _events(health: Health) -> AsyncIterator[str]:
    """An event whenever something has changed, and a comment now and then, so that who has gone is noticed."""
    last, quiet_s = "", 0.0
    while True:
        now = json.dumps(open_windows(health.status()))
        if now != last:
            yield f"event: windows\ndata: {now}\n\n"
        elif quiet_s >= KEEP_ALIVE_S:
            yield ": nothing new\n\n"
        quiet_s = 0.0 if now != last or quiet_s >= KEEP_ALIVE_S else quiet_s + LOOK_EVERY_S
        last = now
        await asyncio.sleep(LOOK_EVERY_S)


def _verdict(problems: Problems) -> Response:
    return _json({"ok": not problems, "problems": dict(problems)}, 503 if problems else 200)


def _json(body: object, status_code: int = 200) -> Response:
    return Response(json.dumps(body), status_code, media_type="application/json", headers=_HEADERS)


@asynccontextmanager
async def serving(health: Health, listen: str | None) -> AsyncIterator[str | None]:
    """Serve until the block ends; gives the base address, with the port that was taken for port 0.

    ``listen`` is ``host:port``, ``[IPv6]:port`` or ``:port`` for every address of this machine; ``None`` serves
    nothing. Raises ``Fatal`` where it cannot listen. Installs no signal handlers.
    """
    if listen is None:
        yield None
        return
    bound = await _bind(listen)
    server = _Server(
        uvicorn.Config(
            application(health),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=500,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[bound]))
    host, port = bound.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log.info("listening", address=address)
    try:
        yield address
    finally:
        server.should_exit = True
        try:
            await task
        finally:
            bound.close()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the service's: it drains first."""
        yield


async def _bind(listen: str) -> socket.socket:
    host, colon, port_text = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port_text.isdecimal() or int(port_text) > 65535:
        raise Fatal(
            "http.listen is not an address",
            listen=listen,
            hint="Write host:port, [IPv6]:port or :port, or null for none.",
        )
    port = int(port_text)
    try:
        if not host:
            return _bind_every_address(port)
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(found[0][4][:2], family=found[0][0])
    except OSError as error:
        raise Fatal(f"http.listen: {_reason(error)}", listen=listen, hint=_next_step(error)) from error


def _bind_every_address(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("0.0.0.0", port))  # noqa: S104  # asked for, by an empty host


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "the port is taken"
        case errno.EADDRNOTAVAIL:
            return "this machine does not have that address"
        case errno.EACCES:
            return "no permission to listen there"
        case _:
            return error.strerror or str(error)


def _next_step(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "Another process listens there, perhaps this service twice. Choose another port, or null for no server."
    if error.errno == errno.EACCES:
        return "Ports below 1024 need a privilege; choose a higher one."
    return "Change http.listen, or set it to null for no server."
