"""What one MultiLangDaemon is told: its properties file, its log format, its command line and environment."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

from streamsvc.config import Aws
from streamsvc.config_sources import KinesisSource
from streamsvc.errors import ConfigError
from streamsvc.sources.kinesis.kcl import child, launch

HANDOFF_S = 30.0
"""How long the KCL waits for a shard that it wants to give away (``gracefulLeaseHandoffTimeoutMillis``)."""


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """start:             ``trim_horizon``, or the time from which shards are read that the KCL has no row for
    endpoints:         service (``kinesis``, ``dynamodb``, ``sts``) to address, where it is not AWS's own
    credentials:       environment variables; empty: the SDK's default chain
    role_arn:          a role to assume with them
    heap_bytes:        of the JVM
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
    heap_bytes: int = 512 * 1024 * 1024
    retrieval: str = "polling"
    properties: Mapping[str, str] = field(default_factory=dict)

    def as_properties(self) -> dict[str, str]:
        """Names and values as in the KCL's ``multilang.properties``."""
        sts = self.endpoints.get("sts")
        where = f"endpoint={sts}^{self.region}" if sts else f"endpointRegion={self.region}"
        provider = f"KclStsAssumeRoleCredentialsProvider|{self.role_arn}|streamsvc|{where}"
        start = (
            {"initialPositionInStream": "TRIM_HORIZON"}
            if self.start is None
            else {"initialPositionInStreamExtended": str(int(self.start.timestamp()))}
        )
        return {
            # Our own metrics say the same; CloudWatch's cost money. `properties` turns them on.
            "metricsLevel": "NONE",
            "maxRecords": "5000",
            # How long it waits after it has made its table; its default of a minute is for fleets.
            "shardSyncIntervalMillis": "5000",
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
            **{name: self.endpoints[service] for service, name in _ENDPOINTS.items() if service in self.endpoints},
        }


def settings_for(options: KinesisSource, aws: Aws, application: str, table: str, worker: str) -> DaemonSettings:
    """What the configuration says. Raises ``ConfigError``: a region is needed."""
    region = options.stream_arn.split(":")[3] if options.stream_arn else aws.region
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        raise ConfigError(["engine kcl needs a region: set `aws.region`, or AWS_REGION in the environment"])
    keys = {
        "AWS_ACCESS_KEY_ID": aws.access_key_id,
        "AWS_SECRET_ACCESS_KEY": aws.secret_access_key,
        "AWS_SESSION_TOKEN": aws.session_token,
    }
    credentials = {name: secret.get_secret_value() for name, secret in keys.items() if secret is not None}
    endpoints = {"kinesis": aws.endpoints.kinesis, "dynamodb": aws.endpoints.dynamodb, "sts": aws.endpoints.sts}
    return DaemonSettings(
        stream=options.stream_arn or options.name,
        application=application,
        table=table,
        worker=worker,
        region=region,
        start=_start(options.start),
        retrieval=options.retrieval,
        failover_s=options.failover,
        endpoints={service: address for service, address in endpoints.items() if address is not None},
        credentials=credentials | ({"AWS_PROFILE": aws.profile} if aws.profile else {}),
        role_arn=aws.role_arn,
        heap_bytes=options.kcl.heap,
        properties={name: _text(value) for name, value in options.kcl.properties.items()}
        | ({"fanoutConfig.consumerName": options.consumer_name} if options.consumer_name else {}),
    )


def _text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _start(start: str) -> datetime | None:
    """Where a KCL without a row begins: never behind the pipeline's place. What comes from before that is skipped."""
    match start:
        case "trim_horizon" | "committed":
            return None
        case "latest":
            return datetime.now(UTC) - timedelta(minutes=1)
        case moment:
            return datetime.fromisoformat(moment)


_ENDPOINTS = {"kinesis": "kinesisEndpoint", "dynamodb": "dynamoDBEndpoint"}


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
        f"-Xmx{settings.heap_bytes // 1024}k",
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
