"""What one MultiLangDaemon is told: its properties file, its log format, its command line and environment."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final

from streamsvc.errors import ConfigError
from streamsvc.sources.kinesis.kcl import child, launch

HANDOFF_S = 30.0
"""How long the KCL waits for a shard that it wants to give away (``gracefulLeaseHandoffTimeoutMillis``)."""

OURS: Final = MappingProxyType(
    {
        "executableName": "it starts the bridge",
        "applicationName": "it is `application`",
        "tableName": "it is `lease_table`",
        "retrievalMode": "it is `retrieval`",
        "streamName": "it is `stream`",
        "streamArn": "it is `stream`",
        "workerId": "each worker has its own",
        "workerIdentifier": "each worker has its own",
        "regionName": "it is `aws.region`",
        "initialPositionInStream": "it is `start`",
        "initialPositionInStreamExtended": "it is `start`",
        "callProcessRecordsEvenForEmptyRecordList": "checkpoints wait for it",
        "timeoutInSeconds": "it would end the daemon while the store is slow",
        "failoverTimeMillis": "it is `failover`",
        "gracefulLeaseHandoffTimeoutMillis": "the bridge counts on its value",
        "shutdownGraceMillis": "the bridge counts on its value",
    }
)
"""Properties of the KCL that a configuration may not set, and why."""


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """start:             ``trim_horizon``, or the time from which shards are read that the KCL has no row for
    endpoints:         service (``kinesis``, ``dynamodb``, ``cloudwatch``) to address, where it is not AWS's own
    credentials:       environment variables; empty: the SDK's default chain
    role_arn:          a role to assume with them
    heap:              ``-Xmx`` of the JVM
    properties:        more of the KCL's own
    """

    stream: str
    """Its name or ARN."""
    application: str
    table: str
    worker: str
    region: str
    start: datetime | None = None
    failover_s: float = 10.0
    endpoints: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)
    role_arn: str | None = None
    heap: str = "512m"
    retrieval: str = "polling"
    properties: Mapping[str, str] = field(default_factory=dict)

    def as_properties(self) -> dict[str, str]:
        """Names and values as in the KCL's ``multilang.properties``."""
        provider = f"KclStsAssumeRoleCredentialsProvider|{self.role_arn}|streamsvc|endpointRegion={self.region}"
        start = (
            {"initialPositionInStream": "TRIM_HORIZON"}
            if self.start is None
            else {"initialPositionInStreamExtended": str(int(self.start.timestamp()))}
        )
        return {
            # Our own metrics say the same; CloudWatch's cost money. `properties` turns them on.
            "metricsLevel": "NONE",
            "maxRecords": "5000",
            "idleTimeBetweenReadsInMillis": "1000",
            **self.properties,
            "executableName": "/bin/sh child.sh",
            "applicationName": self.application,
            "tableName": self.table,
            "streamArn" if self.stream.startswith("arn:") else "streamName": self.stream,
            "retrievalMode": self.retrieval.upper(),
            "workerId": self.worker,
            "regionName": self.region,
            "AwsCredentialsProvider": provider if self.role_arn else "DefaultCredentialsProvider",
            "failoverTimeMillis": str(int(self.failover_s * 1000)),
            "callProcessRecordsEvenForEmptyRecordList": "true",
            "gracefulLeaseHandoffTimeoutMillis": str(int(HANDOFF_S * 1000)),
            "shutdownGraceMillis": str(int(HANDOFF_S * 1000)),
            **start,
            **{_ENDPOINTS[service]: address for service, address in self.endpoints.items()},
        }


_ENDPOINTS = {
    "kinesis": "kinesisEndpoint",
    "dynamodb": "dynamoDBEndpoint",
    "cloudwatch": "cloudWatchClient.endpointOverride",
}


@dataclass(frozen=True, slots=True)
class Runtime:
    """A JVM and the KCL."""

    java: str
    jars: Path


def find_runtime() -> Runtime:
    """Raises ``ConfigError``: Java or the KCL is not installed here."""
    problems = []
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        where = f"JAVA_HOME ({home})" if home else "PATH"
        problems.append(
            f"engine kcl needs Java 8 or newer (17 is tested), and there is no `java` in {where}:"
            " install one (Debian: apt install openjdk-17-jre-headless), or use `engine: native`"
        )
    package = find_spec("amazon_kclpy")
    jars = Path(package.origin).parent / "jars" if package is not None and package.origin else None
    if jars is None or not any(jars.glob("amazon-kinesis-client-multilang-*.jar")):
        problems.append(
            "engine kcl needs the KCL: run pip install 'streamsvc[kcl]', or use `engine: native`, which needs neither"
        )
    if problems or java is None or jars is None:
        raise ConfigError(problems)
    return Runtime(java, jars)


def write_files(folder: Path, settings: DaemonSettings, *, debug: bool) -> None:
    """Properties, log format and the script that starts a child. No secret is among them."""
    lines = (f"{_escaped(name)}={_escaped(value)}\n" for name, value in settings.as_properties().items())
    (folder / "kcl.properties").write_text("".join(lines), "ascii")
    (folder / "logback.xml").write_text(_LOGBACK % ("INFO" if debug else "WARN"), "utf-8")
    # The KCL cuts the command at blanks, and knows no quotes. -I -S: nothing but the interpreter's own library.
    command = shlex.join([sys.executable, "-I", "-S", child.__file__])
    (folder / "child.sh").write_text(f"exec {command}\n", "utf-8")


def command_line(runtime: Runtime, settings: DaemonSettings) -> list[str]:
    """To be run in the folder of the files. Without ``file.encoding`` partition keys would be cut to the locale's
    characters; with ``ExitOnOutOfMemoryError`` a JVM without memory ends instead of standing still."""
    java = [
        runtime.java,
        f"-Xmx{settings.heap}",
        "-XX:+ExitOnOutOfMemoryError",
        "-Dfile.encoding=UTF-8",
        "-cp",
        f"{runtime.jars}/*",
        "software.amazon.kinesis.multilang.MultiLangDaemon",
        "--properties-file",
        "kcl.properties",
        "--log-configuration",
        "logback.xml",
    ]
    return [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *java]


def environment(settings: DaemonSettings, socket: Path, generation: int) -> dict[str, str]:
    return {
        **os.environ,
        **settings.credentials,
        "AWS_REGION": settings.region,
        child.SOCKET: str(socket),
        child.GENERATION: str(generation),
    }


def _escaped(text: str) -> str:
    """As ``java.util.Properties`` reads names and values: Latin-1, the rest as ``\\uXXXX`` of UTF-16."""
    units = text.encode("utf-16-be")
    codes = (int.from_bytes(units[place : place + 2], "big") for place in range(0, len(units), 2))
    return "".join(chr(code) if chr(code) in _PLAIN else f"\\u{code:04x}" for code in codes)


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/|^")

_LOGBACK = """<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%%level|%%logger{0}|%%.-1000replace(%%msg %%ex{1}){'\\s+',' '}%%nopex%%n</pattern></encoder>
  </appender>
  <root level="%s"><appender-ref ref="out"/></root>
</configuration>
"""
