"""From the configuration to the settings of Kafka clients; secrets stay where they belong."""

from __future__ import annotations

import base64
import logging
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.config import Aws
from streamsvc.config_sources import KafkaSource
from streamsvc.core.kafka_client import reason_to_refuse
from streamsvc.errors import SourceRefused, SourceUnavailable
from streamsvc.sources.kafka import failures
from streamsvc.sources.kafka.client_log import MAX_REMEMBERED, ClientLog, Repeats, topic_id_text
from streamsvc.sources.kafka.clients import Clients, connection
from streamsvc.sources.kafka.splits import Partition, SplitName, parse_split
from streamsvc.sources.kafka.topics import Described, Topics

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
PLAIN = {"mechanism": "PLAIN", "username": "me", "password": "hidden-password"}


def options(**more: Any) -> KafkaSource:
    return KafkaSource.model_validate({"brokers": "b-1:9092", "topics": ["t"], **more})


def clients(aws: Aws | None = None, **more: Any) -> Clients:
    return Clients(options(**more), "group", "host-0", aws, logging.getLogger("test"))


@pytest.mark.parametrize(
    ("given", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"tls": True}, "SSL"),
        ({"tls": {}}, "SSL"),
        ({"sasl": PLAIN}, "SASL_SSL"),
        ({"sasl": PLAIN, "tls": {"ca": "/ca.pem"}}, "SASL_SSL"),
        ({"sasl": PLAIN, "tls": False}, "SASL_PLAINTEXT"),
    ],
)
def test_credentials_go_over_tls_unless_told_otherwise(given: dict[str, Any], protocol: str) -> None:
    assert connection(options(**given))["security.protocol"] == protocol


def test_certificates_are_paths_or_the_text_itself() -> None:
    by_path = connection(options(tls={"ca": "/ca.pem", "certificate": "/c.pem", "key": "/k.pem", "key_password": "kp"}))
    assert {name: by_path[name] for name in by_path if name.startswith("ssl.")} == {
        "ssl.ca.location": "/ca.pem",
        "ssl.certificate.location": "/c.pem",
        "ssl.key.location": "/k.pem",
        "ssl.key.password": "kp",
    }
    by_text = connection(options(tls={"ca": PEM, "certificate": PEM, "key": PEM}))
    assert [name for name in by_text if name.startswith("ssl.")] == ["ssl.ca.pem", "ssl.certificate.pem", "ssl.key.pem"]


def test_scram_and_plain_log_in_by_name() -> None:
    settings = connection(options(sasl={**PLAIN, "mechanism": "SCRAM-SHA-512"}))
    assert settings["sasl.mechanism"] == "SCRAM-SHA-512"
    assert settings["sasl.username"] == "me"
    assert settings["sasl.password"] == "hidden-password"


def test_a_classic_member_is_static_and_cooperative() -> None:
    settings = clients().member().settings
    assert settings["group.instance.id"] == "host-0"
    assert settings["partition.assignment.strategy"] == "cooperative-sticky"
    assert settings["enable.auto.commit"] is False


def test_a_member_of_the_new_protocol_leaves_to_the_broker_what_is_the_brokers() -> None:
    settings = clients(group_protocol="consumer").member().settings
    assert settings["group.protocol"] == "consumer"
    assert not {"partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"} & settings.keys()


def test_the_reader_never_resets_a_position_and_never_joins() -> None:
    settings = clients(client={"debug": "cgrp", "fetch.wait.max.ms": 7}).reader(8 << 20).settings
    assert settings["auto.offset.reset"] == "error"
    assert settings["isolation.level"] == "read_committed"
    assert settings["enable.partition.eof"] is True
    assert "group.instance.id" not in settings
    assert settings["debug"] == "cgrp,topic"
    assert settings["fetch.wait.max.ms"] == 7
    assert int(settings["queued.max.messages.kbytes"]) * 1024 + int(settings["fetch.max.bytes"]) == 8 << 20


@pytest.mark.parametrize(
    "setting", ["group.id", "auto.offset.reset", "enable.auto.commit", "ssl.ca.pem", "sasl.password"]
)
def test_settings_that_are_ours_are_refused_with_the_reason(setting: str) -> None:
    reason = reason_to_refuse(setting, "classic")
    assert reason is not None
    with pytest.raises(ValueError, match="may not set") as refused:
        options(client={setting: "x"})
    assert reason in str(refused.value)


def test_no_repr_and_no_error_shows_a_secret() -> None:
    made = clients(sasl=PLAIN, tls={"key": "-----BEGIN hidden-password", "key_password": "hidden-password"})
    everything = f"{made.__dict__} {made.member()!r} {made.reader(1 << 20)!r} {made.member().log.__class__}"
    assert "hidden-password" not in everything
    with pytest.raises(ValueError, match="sasl") as refused:
        options(sasl={**PLAIN, "username": None})
    assert "hidden-password" not in str(refused.value)


def test_secrets_are_taken_out_of_what_the_client_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log = clients(sasl=PLAIN, client={"debug": "all"}).member().log
    log.log(logging.DEBUG, "%s [%s] %s", "CONF", "client", "sasl.password = hidden-password")
    assert "sasl.password = [redacted]" in caplog.text
    assert "hidden-password" not in caplog.text


def test_debug_lines_are_kept_back_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log = ClientLog(logging.getLogger("test"))
    log.log(
        logging.DEBUG,
        "%s",
        "[thrd:main]: Topic access changed id from NjosC64TSbeWQHqsAl2DEA to a+/osC64TSbeWQHqsAl2DE",
    )
    log.log(logging.WARNING, "%s", "a warning")
    assert [record.getMessage() for record in caplog.records] == ["a warning"]
    assert log.take_new_ids() == {"access": "a-_osC64TSbeWQHqsAl2DE"}
    assert log.take_new_ids() == {}


def test_a_token_for_msk_is_signed_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    brokers = "b-1.web.abc123.c2.kafka.eu-central-1.amazonaws.com:9098"
    recipe = clients(brokers=brokers, sasl={"mechanism": "AWS_MSK_IAM"}).member()
    assert recipe.settings["sasl.mechanism"] == "OAUTHBEARER"
    assert recipe.settings["security.protocol"] == "SASL_SSL"
    assert recipe.token is not None
    token, expires_s = recipe.token("")
    query = parse_qs(urlsplit(base64.urlsafe_b64decode(token + "==").decode()).query)
    assert "/eu-central-1/kafka-cluster/" in query["X-Amz-Credential"][0]
    assert 0 < expires_s - time.time() <= 900
    assert "hidden-secret" not in repr(recipe)


def test_a_token_that_cannot_be_signed_is_logged_by_the_name_of_the_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    recipe = clients(Aws(region="eu-west-1", profile="nobody"), sasl={"mechanism": "AWS_MSK_IAM"}).member()
    assert recipe.token is not None
    from botocore.exceptions import ProfileNotFound

    with pytest.raises(ProfileNotFound):
        recipe.token("")
    assert caplog.messages == ["no credentials for AWS_MSK_IAM: ProfileNotFound"]


def test_msk_without_a_region_is_refused() -> None:
    with pytest.raises(SourceRefused, match="region"):
        clients(sasl={"mechanism": "AWS_MSK_IAM"})


@given(
    st.from_regex(r"\A[a-zA-Z0-9._-]{1,40}\Z"),
    st.integers(0, 2**31 - 1),
    st.binary(min_size=16, max_size=16).map(lambda raw: base64.b64encode(raw).decode().rstrip("=")),
)
def test_a_split_name_tells_topic_partition_and_id(topic: str, number: int, topic_id: str) -> None:
    name = SplitName(Partition(topic, number), topic_id_text(topic_id))
    assert parse_split(name.text) == name
    assert "/" not in name.text


def test_a_fatal_error_is_known_by_librdkafkas_own_words() -> None:
    words = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()
    error = failures.unveiled(KafkaError(KafkaError._FATAL, f"Fatal error: {words}: Fatal consumer error"))
    assert error.code() == KafkaError.FENCED_INSTANCE_ID
    failure = failures.refused(error, was_connected=True)
    assert failure is not None
    assert "instance_id" in failure.hint


@pytest.mark.parametrize(("was_connected", "is_refused"), [(False, True), (True, False)])
def test_a_failed_log_in_is_final_only_if_none_ever_worked(was_connected: bool, is_refused: bool) -> None:
    error = KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error")
    assert (failures.refused(error, was_connected=was_connected) is not None) == is_refused


def test_a_line_that_comes_again_and_again_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    repeats = Repeats(lambda: now)
    logs = [ClientLog(logging.getLogger("test"), repeats=repeats) for _ in range(2)]
    for number in range(40):
        now += 2.0
        for client, log in enumerate(logs):
            line = f"rdkafka#consumer-{client}| [thrd:b:9092/bootstrap]: b:9092: Connect failed (after {number}ms)"
            log.log(logging.ERROR, "%s", line)
    logs[0].log(logging.WARNING, "%s", "something else")
    told = [message.partition("| ")[2].partition(": ")[2] for message in caplog.messages]
    assert told == [
        "b:9092: Connect failed (after 0ms)",
        "b:9092: Connect failed (after 30ms) (59 more like this before)",
        "",
    ]
    assert caplog.messages[-1] == "something else"


def test_what_is_remembered_of_lines_is_bounded() -> None:
    repeats = Repeats(lambda: 0.0)
    for number in range(10_000):
        assert repeats.left_out(number * "x") == 0
    assert len(repeats._known) <= MAX_REMEMBERED


async def test_no_broker_is_told_with_its_address_and_what_to_look_at() -> None:
    topics = Topics(clients(brokers="127.0.0.1:9").admin(), ["access"], "127.0.0.1:9", patience_s=0.1)
    with pytest.raises(SourceUnavailable, match=r"no broker answers at 127\.0\.0\.1:9") as failed:
        await topics.live()
    assert "KIP" not in str(failed.value)
    assert "`tls`" in failed.value.hint


async def test_a_topic_that_is_not_there_is_named_with_its_brokers() -> None:
    topics = Scarce(clients().admin(), ["access", "b", "a"], "b-1:9092")
    with pytest.raises(SourceUnavailable, match="there is no such topic: a, b") as failed:
        await topics.live()
    assert failed.value.where["brokers"] == "b-1:9092"
    assert "Create it" in failed.value.hint


class Scarce(Topics):
    """Brokers that have one topic."""

    async def describe(self) -> Described:
        return Described({Partition("access", 0): "access/0"}, frozenset({"a", "b"}))
