"""What stands in for AWS on one machine: our own server and kinesis-local for Kinesis, moto for DynamoDB.

Each is a process of its own on a free loopback port, gone with its ``with`` block:

    with KinesisLocal() as kinesis, DynamoDb() as dynamodb:
        async with client("kinesis", kinesis.endpoint_url) as ...

``python -m tests.kinesis_emulators dynamodb`` is what ``DynamoDb`` runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, Self

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

_REPOSITORY = Path(__file__).resolve().parent.parent
_PACKAGE = Path(__file__).resolve().parent / "kinesis_local"
_READY_WITHIN_S = 30.0


class EmulatorMissing(Exception):
    """node or npm is not installed, so there can be no kinesis-local. The message says which."""


class EmulatorFailed(Exception):
    """An emulator ended, or never became ready. The message holds the end of its output."""


def client(service: str, endpoint_url: str, **config: Any) -> Any:
    """An aiobotocore client, as an async context manager, that asks once: what goes wrong is what a test sees."""
    return _session().create_client(
        service,
        region_name="us-east-1",
        endpoint_url=endpoint_url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=AioConfig(**{"retries": {"total_max_attempts": 1}, **config}),
    )


@cache
def _session() -> AioSession:
    """A session reads the models of its services once."""
    return AioSession()


class OwnProcess:
    """A server that prints its address when it is ready and ends when its standard input is closed."""

    def __init__(self, *command: str) -> None:
        self._command = [sys.executable, "-m", *command]
        self.endpoint_url = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.endpoint_url = self.process.stdout.readline().strip()
        if not self.endpoint_url:
            raise EmulatorFailed(f"`{' '.join(self._command)}` ended with code {self.process.wait()}")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class KinesisProcess(OwnProcess):
    """``streamsvc.testing.kinesis_server`` in a process of its own; ``arguments`` are its command line."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("streamsvc.testing.kinesis_server", "--with-parent", *arguments)


class DynamoDb(OwnProcess):
    """moto's DynamoDB. Its calls take turns, so that a conditional write is as exclusive as in AWS."""

    def __init__(self) -> None:
        super().__init__("tests.kinesis_emulators", "dynamodb")


class KinesisLocal:
    """kinesis-local under node. Streams are made and resharded at once, or after ``transition_ms``."""

    def __init__(self, *, transition_ms: int = 0) -> None:
        self._transition_ms = transition_ms
        self._port, self._secure_port = _free_ports(2)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        folder = kinesis_local()
        self._log = Path(tempfile.mkdtemp(prefix="kinesis-local-")) / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["node", "--require", str(_PACKAGE / "preload.js"), "main.js"],
                cwd=folder,  # it reads its certificate from there
                env={**os.environ, **self._settings()},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        shutil.rmtree(self._log.parent, ignore_errors=True)

    def _settings(self) -> dict[str, str]:
        changes = ["CREATE_STREAM", "DELETE_STREAM", "REGISTER_STREAM_CONSUMER", "DEREGISTER_STREAM_CONSUMER"]
        changes += ["SPLIT_SHARD", "MERGE_SHARDS"]
        return {
            "KINESIS_MOCK_PLAIN_PORT": str(self._port),
            "KINESIS_MOCK_TLS_PORT": str(self._secure_port),
            "LOG_LEVEL": "ERROR",
            **{f"{change}_DURATION": f"{self._transition_ms}ms" for change in changes},
        }

    def _wait_until_ready(self) -> None:
        give_up_at = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < give_up_at:
            if self.process.poll() is not None:
                raise EmulatorFailed(f"kinesis-local ended with code {self.process.returncode}:\n{self._last_lines()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=0.5):
                return
            time.sleep(0.05)
        raise EmulatorFailed(f"kinesis-local did not answer within {_READY_WITHIN_S:.0f} s:\n{self._last_lines()}")

    def _last_lines(self) -> str:
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


def kinesis_local() -> Path:
    """The folder of the package, fetched by npm once. Raises ``EmulatorMissing`` and ``EmulatorFailed``."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise EmulatorMissing(f"kinesis-local needs node and npm: there is no `{program}` on the PATH")
    lock_file = _PACKAGE / "package-lock.json"
    folder = _REPOSITORY / ".cache" / "kinesis-local" / hashlib.sha256(lock_file.read_bytes()).hexdigest()[:12]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(_PACKAGE / name, partial)
            _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], partial)
            partial.rename(folder)
    return folder / "node_modules" / "kinesis-local"


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EmulatorFailed(f"`{command[0]}` ended with code {done.returncode}:\n{done.stdout}{done.stderr}")


def _free_ports(count: int) -> Sequence[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def _one_at_a_time(app: WsgiApp) -> WsgiApp:
    """Bodies are read before the turn is taken."""
    turn = threading.Lock()

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body: IO[bytes] = environ["wsgi.input"]
        environ["wsgi.input"] = io.BytesIO(body.read(int(environ.get("CONTENT_LENGTH") or 0)))
        with turn:
            return list(app(environ, start_response))

    return call


def _serve_dynamodb() -> None:
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = _one_at_a_time(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def _end_with_parent() -> None:
    """The pipe to our standard input closes when the process that started us is gone, however it went."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    assert sys.argv[1:] == ["dynamodb"], sys.argv
    _serve_dynamodb()
