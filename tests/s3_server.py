"""An S3 for tests: moto's server in a process of its own, on a free loopback port.

Its conditional creates are exclusive (moto checks and writes in two steps, so writes take turns here), and it
can fail calls before or after applying them, as a store behind a bad network does.

    with S3Server.start() as s3:
        url = s3.make_bucket("lake")            # s3://lake
        store = open_store(f"{url}/rows", s3.aws)
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import random
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Any, Self

from pydantic import SecretStr

from streamsvc.config import Aws

FAULTS = "/_faults"


@dataclass(frozen=True)
class S3Server:
    """A running server. ``fail_before`` and ``fail_after`` are the shares of object calls that answer 503,
    without having been applied and after it."""

    process: subprocess.Popen[str]
    endpoint_url: str

    @classmethod
    def start(cls, *, fail_before: float = 0.0, fail_after: float = 0.0, seed: int = 0) -> Self:
        command = [sys.executable, "-m", "tests.s3_server"]
        command += ["--fail-before", str(fail_before), "--fail-after", str(fail_after), "--seed", str(seed)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"the S3 server did not start: exit code {process.wait()}")
        return cls(process, address)

    @property
    def aws(self) -> Aws:
        secret = SecretStr("test")
        return Aws(region="us-east-1", endpoint_url=self.endpoint_url, access_key_id=secret, secret_access_key=secret)

    @property
    def environment(self) -> dict[str, str]:
        """What another process or client needs to find this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def make_bucket(self, name: str) -> str:
        request = urllib.request.Request(f"{self.endpoint_url}/{name}", method="PUT")
        with urllib.request.urlopen(request):
            return f"s3://{name}"

    def faults(self) -> dict[str, int]:
        """How many calls were made and how many failed: ``calls``, ``before``, ``after``."""
        with urllib.request.urlopen(self.endpoint_url + FAULTS) as answer:
            counts: dict[str, int] = json.load(answer)
            return counts

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class FaultyExclusive:
    """WSGI middleware: object writes one at a time, bodies read before the turn is taken; faults by share."""

    def __init__(self, app: WsgiApp, fail_before: float, fail_after: float, seed: int) -> None:
        self._app = app
        self._fail_before = fail_before
        self._fail_after = fail_after
        self._dice = random.Random(seed)
        self._turn = threading.Lock()
        self._counts: Counter[str] = Counter(calls=0, before=0, after=0)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == FAULTS:
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(self._counts).encode()]
        body: IO[bytes] = environ["wsgi.input"]
        environ["wsgi.input"] = io.BytesIO(body.read(int(environ.get("CONTENT_LENGTH") or 0)))
        with self._turn:
            fault = self._roll() if path.count("/") > 1 or environ["QUERY_STRING"] else None
            if fault == "before":
                return self._unavailable(start_response)
            answer = list(self._app(environ, (lambda *_: None) if fault else start_response))
            return self._unavailable(start_response) if fault else answer

    def _roll(self) -> str | None:
        roll = self._dice.random()
        fault = "before" if roll < self._fail_before else None
        if fault is None and roll < self._fail_before + self._fail_after:
            fault = "after"
        self._counts["calls"] += 1
        self._counts.update([fault] if fault else [])
        return fault

    @staticmethod
    def _unavailable(start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("503 Service Unavailable", [("Content-Length", "0")])
        return []


def serve(fail_before: float, fail_after: float, seed: int) -> None:
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = FaultyExclusive(DomainDispatcherApplication(create_backend_app), fail_before, fail_after, seed)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def _end_with_parent() -> None:
    """The pipe to our standard input closes when the process that started us is gone, however it went."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fail-before", type=float, default=0.0)
    parser.add_argument("--fail-after", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    serve(options.fail_before, options.fail_after, options.seed)
