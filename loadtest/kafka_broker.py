"""One real Apache Kafka broker (KRaft, a single JVM on loopback), for tests, load tests and trying things out.

``python -m loadtest.kafka_broker`` runs one in the foreground and prints its address. Needs Java 17 and Maven: the
jars come from Maven once and stay in ``.cache/kafka`` of the repository.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import OFFSET_SPEC_LATEST, NewPartitions, NewTopic

Setting: TypeAlias = str | int | float | bool

_REPOSITORY = Path(__file__).resolve().parent.parent
_POM = Path(__file__).resolve().parent / "broker" / "pom.xml"
_READY_WITHIN_S = 90.0
_ADMIN_TIMEOUT_S = 30.0

# Small and quick: every internal topic has one partition and one replica, groups do not wait for more members.
_SETTINGS: dict[str, Setting] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": False,
    "offsets.topic.num.partitions": 1,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "group.initial.rebalance.delay.ms": 0,
    "group.consumer.min.session.timeout.ms": 1000,
    "group.consumer.min.heartbeat.interval.ms": 500,
    "group.min.session.timeout.ms": 1000,
    "log.initial.task.delay.ms": 500,
    "log.retention.check.interval.ms": 500,
    "log.cleaner.backoff.ms": 200,
    "log.cleaner.dedupe.buffer.size": 4_194_304,
    # A restarted broker may register only when the session of its last life is over.
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
}


_CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAQ"


class BrokerMissing(Exception):
    """Java or Maven is not installed, so there can be no broker. The message says which."""


class BrokerFailed(Exception):
    """The broker, or Maven, ended or never became ready. The message holds the end of its output."""


class KafkaBroker:
    """A broker with its data in a temporary directory, gone with the ``with`` block.

    ``settings`` are broker properties laid over the defaults. Address and data outlast ``stop`` and ``kill``. With
    ``users``, name to password, there is a second listener: TLS, and SASL with SCRAM-SHA-512 or PLAIN.
    """

    def __init__(
        self,
        settings: Mapping[str, Setting] | None = None,
        *,
        users: Mapping[str, str] | None = None,
        heap_mb: int = 512,
    ) -> None:
        self._settings = dict(settings or {})
        self._users = dict(users or {})
        self._heap_mb = heap_mb
        self._port, self._controller_port, self._secure_port = _free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def secure_bootstrap(self) -> str:
        """The listener for ``users``."""
        return f"127.0.0.1:{self._secure_port}"

    @property
    def certificate(self) -> Path:
        """PEM file of the certificate that the secure listener shows; it is its own CA."""
        return self._directory / "certificate.pem"

    def partition_files(self, topic: str, partition: int) -> Path:
        """The folder in which the broker keeps a partition."""
        return self._directory / "data" / f"{topic}-{partition}"

    @property
    def pid(self) -> int:
        """Process id of the running JVM."""
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    def __enter__(self) -> Self:
        self._classpath = f"{broker_jars()}/*"
        self._directory = Path(tempfile.mkdtemp(prefix="kafka-broker-"))
        try:
            self._format()
            self.start()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def start(self) -> None:
        """Start the JVM and wait until it answers clients."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._properties)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # An interrupt typed at the terminal is for the owner, who then stops the broker.
                start_new_session=True,
            )
        self._wait_until_ready()

    def stop(self) -> None:
        """An orderly end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """The end without a goodbye."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """An orderly end and a new start."""
        self.stop()
        self.start()

    def create_topic(self, name: str, partitions: int = 1, **config: Setting) -> None:
        """``config`` are topic settings with ``_`` for ``.``: ``cleanup_policy="compact"``.

        Returns when the topic can be used."""
        settings = {key.replace("_", "."): _property(value) for key, value in config.items()}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings)
        with self._admin() as admin:
            admin.create_topics([topic])[name].result(_ADMIN_TIMEOUT_S)
            _wait_until_served(admin, name, partitions)

    def delete_topic(self, name: str) -> None:
        with self._admin() as admin:
            admin.delete_topics([name])[name].result(_ADMIN_TIMEOUT_S)

    def grow_topic(self, name: str, partitions: int) -> None:
        """Add partitions up to this many."""
        with self._admin() as admin:
            admin.create_partitions([NewPartitions(name, partitions)])[name].result(_ADMIN_TIMEOUT_S)
            _wait_until_served(admin, name, partitions)

    @property
    def _log(self) -> Path:
        return self._directory / "broker.log"

    @property
    def _properties(self) -> Path:
        return self._directory / "server.properties"

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def _java(self, main: str, *arguments: str) -> list[str]:
        heap = [f"-Xms{self._heap_mb // 2}m", f"-Xmx{self._heap_mb}m", "-XX:+UseSerialGC", "-Xshare:auto"]
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return ["java", *heap, quiet, "-cp", self._classpath, main, *arguments]

    def _format(self) -> None:
        controller = f"127.0.0.1:{self._controller_port}"
        listeners = [f"PLAINTEXT://{self.bootstrap}", f"CONTROLLER://{controller}"]
        settings = {**_SETTINGS, "controller.quorum.voters": f"1@{controller}", "log.dirs": f"{self._directory}/data"}
        if self._users:
            listeners.append(f"SECURE://{self.secure_bootstrap}")
            settings |= self._security()
        settings |= {"listeners": ",".join(listeners), **self._settings}
        lines = [f"{key}={_property(value)}\n" for key, value in settings.items()]
        self._properties.write_text("".join(lines), encoding="utf-8")
        command = self._java("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(self._properties))
        for name, password in self._users.items():
            command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        _run(command)

    def _security(self) -> dict[str, Setting]:
        store = self._directory / "key.p12"
        access = ["-keystore", str(store), "-storepass", "changeit"]
        about = ["-alias", "broker", "-dname", "CN=broker", "-keyalg", "EC", "-ext", "san=ip:127.0.0.1"]
        _run(["keytool", "-genkeypair", *about, *access])
        _run(["keytool", "-exportcert", "-rfc", "-alias", "broker", "-file", str(self.certificate), *access])
        users = " ".join(f'user_{name}="{password}"' for name, password in self._users.items())
        modules = "org.apache.kafka.common.security"
        return {
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
            "listener.name.secure.ssl.keystore.location": str(store),
            "listener.name.secure.ssl.keystore.password": "changeit",
            "listener.name.secure.plain.sasl.jaas.config": f"{modules}.plain.PlainLoginModule required {users};",
            "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{modules}.scram.ScramLoginModule required;",
        }

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        admin = self._admin()
        give_up_at = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < give_up_at:
            if self._process.poll() is not None:
                raise BrokerFailed(f"the broker ended with code {self._process.returncode}:\n{self._last_lines()}")
            try:
                if admin.list_topics(timeout=0.5).brokers:
                    return
            except KafkaException:
                continue
        raise BrokerFailed(f"the broker did not answer within {_READY_WITHIN_S:.0f} s:\n{self._last_lines()}")

    def _last_lines(self) -> str:
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:])

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def _clear(self) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


def broker_jars() -> Path:
    """The folder of jars, made by Maven if need be. Raises ``BrokerMissing`` and ``BrokerFailed``."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise BrokerMissing(f"a Kafka broker needs Java 17 and Maven: there is no `{program}` on the PATH")
    digest = hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]
    folder = _REPOSITORY / ".cache" / "kafka" / digest
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            pom = ["-f", str(_POM)]
            _run(["mvn", "-q", "-B", *pom, "dependency:copy-dependencies", f"-DoutputDirectory={partial}"])
            partial.rename(folder)
    return folder


def _wait_until_served(admin: AdminClient, topic: str, partitions: int) -> None:
    """The controller answers before the broker knows of a new topic, and that before it leads its partitions."""
    where = {
        TopicPartition(topic, number): OffsetSpec.for_timestamp(OFFSET_SPEC_LATEST) for number in range(partitions)
    }
    give_up_at = time.monotonic() + _ADMIN_TIMEOUT_S
    while True:
        try:
            for answer in admin.list_offsets(where).values():
                answer.result(_ADMIN_TIMEOUT_S)
        except KafkaException:
            if time.monotonic() > give_up_at:
                raise
        else:
            return


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BrokerFailed(f"`{command[0]}` ended with code {done.returncode}:\n{done.stdout}{done.stderr}")


def _property(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def main() -> None:
    """Run a broker until interrupted; arguments are broker settings, ``name=value``."""
    settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), KafkaBroker(settings) as broker:
        print(broker.bootstrap, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
