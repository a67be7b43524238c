"""What a run needs around the service: a topic, a store (faulty, if wanted), a configuration, a producer, the audit.

Everything is a process of its own, its output a file in one directory, which is all that a run leaves behind.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3

from loadtest.lake import Folder
from loadtest.processes import STREAMSVC, Child, running
from loadtest.segments import Visible
from streamsvc.testing.access_logs import JSON_COLUMNS, Form
from tests.s3_server import S3Server

PIPELINE = "access"

_PARTITION_BY = {"date": "strftime(datetime, '%Y-%m-%d')", "response": "response"}


@dataclass(frozen=True)
class Store:
    """Where the lake, the rejects and the state are.

    url:           ``s3://bucket`` or ``file:///folder``
    endpoint_url:  of the S3 itself; ``None`` for a local directory
    faulty_url:    of the proxy before it that fails calls, if there is one
    environment:   credentials, for every process that touches it
    """

    url: str
    endpoint_url: str | None = None
    faulty_url: str | None = None
    faults_log: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def lake(self) -> str:
        return f"{self.url}/access"

    @property
    def rejects(self) -> str:
        return f"{self.url}/_rejects/access"

    @property
    def state(self) -> str:
        return f"{self.url}/_streamsvc"

    @property
    def visible(self) -> Visible:
        """Log, lake and rejects, read past the proxy."""
        session = boto3.Session(
            aws_access_key_id=self.environment.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=self.environment.get("AWS_SECRET_ACCESS_KEY"),
            region_name=self.environment.get("AWS_REGION"),
        )
        prefixes = (f"{self.state}/{PIPELINE}", self.lake, self.rejects)
        return Visible(*(Folder(prefix, self.endpoint_url, session) for prefix in prefixes))

    def faults(self) -> str:
        """How many calls failed, of how many, and how."""
        if self.faults_log is None:
            return "none"
        counted: dict[str, Any] = json.loads(self.faults_log.read_bytes())
        return f"{sum(counted['faults'].values())} of {counted['calls']} calls {counted['faults']}"


@contextmanager
def local_store(directory: Path) -> Iterator[Store]:
    """A lake on this machine's disk."""
    folder = directory / "lake"
    folder.mkdir()
    yield Store(folder.resolve().as_uri())


@contextmanager
def s3_store(directory: Path, *, fault_share: float = 0.0, delay_s: float = 0.0, seed: int = 1) -> Iterator[Store]:
    """An S3 server; with a fault share or a delay, behind a proxy that has them."""
    with ExitStack() as parts:
        s3 = parts.enter_context(S3Server.start())
        credentials = {name: value for name, value in s3.environment.items() if "URL" not in name}
        store = Store(s3.make_bucket("lake"), s3.endpoint_url, environment=credentials)
        if fault_share or delay_s:
            log = directory / "faults.json"
            options = {"upstream": s3.endpoint_url, "log": log, "share": fault_share, "delay-s": delay_s, "seed": seed}
            proxy = parts.enter_context(running(module("faulty_s3", options), directory / "faulty_s3.log"))
            store = replace(store, faulty_url=proxy.first_line(), faults_log=log)
        yield store


def module(name: str, options: Mapping[str, object], *flags: str) -> list[str]:
    """The command that runs a module of this package."""
    pairs = [part for option, value in options.items() for part in (f"--{option}", str(value))]
    return [sys.executable, "-m", f"loadtest.{name}", *pairs, *flags]


@dataclass(frozen=True)
class Stage:
    """One source, one store, one directory. Of a Kafka topic; others say what is different."""

    directory: Path
    brokers: str
    topic: str
    store: Store
    form: Form = "combined"
    include: tuple[str, ...] = ()

    def source(self) -> dict[str, Any]:
        """The source of the pipeline."""
        client = {"session.timeout.ms": 6000, "fetch.queue.backoff.ms": 1}
        return {"kafka": {"brokers": self.brokers, "topics": [self.topic], "client": client}}

    def aws(self, *, faulty: bool) -> dict[str, Any]:
        """Where the services of AWS are."""
        endpoint_url = self.store.faulty_url if faulty else self.store.endpoint_url
        return {"endpoint_url": endpoint_url} if endpoint_url else {}

    def pipeline(self, interval: str) -> dict[str, Any]:
        """The pipeline; interval: of its buffer."""
        columns = {"json": {"schema": JSON_COLUMNS}} if self.form == "json" else {"apache": "combined"}
        return {
            "source": self.source(),
            "decode": columns,
            "include": list(self.include),
            "sink": {
                "path": self.store.lake,
                "compression": "zstd",
                "partition_by": _PARTITION_BY,
                "buffer": {"size": "128MiB", "interval": interval},
            },
            "rejects": {"path": self.store.rejects},
        }

    def configuration(self, name: str, *, faulty: bool = False, interval: str = "5m", **service: Any) -> Path:
        """A configuration file; ``service`` are settings of its top level. ``faulty``: by way of the proxy."""
        whole = {
            "service": f"loadtest-{self.topic}",
            "state": self.store.state,
            "http": None,
            "aws": self.aws(faulty=faulty),
            **service,
            "pipelines": {PIPELINE: self.pipeline(interval)},
        }
        path = self.directory / f"{name}.yaml"
        path.write_text(json.dumps(whole, indent=2), encoding="utf-8")
        return path

    def worker(self, configuration: Path, instance: str, *flags: str) -> Child:
        """``streamsvc run`` as a static member of that name."""
        environment = {**self.store.environment, "STREAMSVC_INSTANCE": instance}
        command = [STREAMSVC, "run", str(configuration), *flags]
        return Child(command, self.directory / f"worker-{instance}.log", environment)

    def finish(self, configuration: Path, within_s: float, *flags: str) -> dict[str, Any]:
        """``run --until-end``: its summary. Raises ``ProcessFailed``."""
        summary = self.directory / "summary.json"
        child = self.worker(configuration, "finisher", "--until-end", "--summary", str(summary), *flags)
        try:
            child.wait(within_s)
        finally:
            child.end()
        done: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
        return done

    def said(self, message: str) -> int:
        """How often the workers have logged this message."""
        logs = self.directory.glob("worker-*.log")
        return sum(log.read_text(encoding="utf-8", errors="replace").count(f'"message": "{message}"') for log in logs)

    @property
    def ledger(self) -> Path:
        return self.directory / "p0.ledger"

    def producer(self, **options: object) -> Child:
        """The stamping producer of the run; ``options`` are those of ``loadtest.produce``, ``_`` for ``-``."""
        given = {"brokers": self.brokers, "topic": self.topic, "ledger": self.ledger, "form": self.form}
        given |= {name.replace("_", "-"): value for name, value in options.items()}
        return Child(module("produce", given), self.directory / "producer.log")

    def audit(self, *flags: str) -> tuple[int, str]:
        """Exit code and what it printed."""
        given: dict[str, object] = {"lake": self.store.lake, "rejects": self.store.rejects, "form": self.form}
        given["ledger"] = self.ledger
        if self.store.endpoint_url is not None:
            given["endpoint-url"] = self.store.endpoint_url
        if self.store.faults_log is not None:
            given["faults-log"] = self.store.faults_log
        output = self.directory / "audit.txt"
        child = Child(module("audit", given, *flags), output, self.store.environment)
        code = child.wait(600.0, expected=(0, 1, 2))
        return code, output.read_text(encoding="utf-8")


def last_json(path: Path) -> dict[str, Any]:
    """The last line of a file of output, which is JSON."""
    last: dict[str, Any] = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    return last
