"""What the KCL's daemon is told, and what is said when there is none."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from streamsvc.config import Aws
from streamsvc.config_sources import KinesisSource as Options
from streamsvc.errors import ConfigError, SourceUnavailable
from streamsvc.sources.kinesis.kcl import settings as kcl
from streamsvc.sources.kinesis.kcl.protocol import (
    Checkpoint,
    LeaseLost,
    ProcessRecords,
    checkpoint_at,
    read_message,
    status_of,
)
from streamsvc.sources.kinesis.kcl.settings import DaemonSettings, find_runtime, settings_for, write_files

ARN = "arn:aws:kinesis:eu-central-1:123456789012:stream/access"


def properties(**options: object) -> dict[str, str]:
    made = Options.model_validate({"stream": "access", "engine": "kcl"} | options)
    return settings_for(made, Aws(region="us-east-1"), "app", "app", "w").as_properties()


def test_a_configuration_becomes_properties() -> None:
    more = {"maxRecords": 100, "skipShardSyncAtWorkerInitialization": True}
    made = properties(failover="20s", kcl={"properties": more})
    assert (
        made.items()
        >= {
            "applicationName": "app",
            "tableName": "app",
            "streamName": "access",
            "regionName": "us-east-1",
            "failoverTimeMillis": "20000",
            "initialPositionInStream": "TRIM_HORIZON",
            "retrievalMode": "POLLING",
            "callProcessRecordsEvenForEmptyRecordList": "true",
            "AwsCredentialsProvider": "DefaultCredentialsProvider",
            "maxRecords": "100",
            "skipShardSyncAtWorkerInitialization": "true",
        }.items()
    )


def test_a_stream_of_another_account_is_named_by_its_arn() -> None:
    made = properties(stream=None, stream_arn=ARN)
    assert (made["streamArn"], made["regionName"], "streamName" in made) == (ARN, "eu-central-1", False)


def test_fan_out_has_its_consumer() -> None:
    made = properties(retrieval="fanout", consumer_name="reader")
    assert (made["retrievalMode"], made["fanoutConfig.consumerName"]) == ("FANOUT", "reader")


def test_a_kcl_without_rows_begins_before_the_pipeline() -> None:
    assert properties(start="2026-01-31T06:00:00Z")["initialPositionInStreamExtended"] == "1769839200"
    latest = datetime.fromtimestamp(int(properties(start="latest")["initialPositionInStreamExtended"]), UTC)
    assert latest < datetime.now(UTC) - timedelta(seconds=30)


def test_secrets_and_roles_go_by_the_environment() -> None:
    aws = Aws.model_validate(
        {
            "region": "us-east-1",
            "access_key_id": "id",
            "secret_access_key": "geheim",
            "role_arn": "arn:aws:iam::1:role/r",
        }
    )
    made = settings_for(Options(stream="access", engine="kcl"), aws, "app", "app", "w")
    assert made.credentials == {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "geheim"}
    assert made.as_properties()["AwsCredentialsProvider"] == (
        "KclStsAssumeRoleCredentialsProvider|arn:aws:iam::1:role/r|streamsvc|endpointRegion=us-east-1"
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"engine": "kcl", "kcl": {"properties": {"WorkerId": "x"}}}, "may not set WorkerId: each worker has its own"),
        ({"engine": "kcl", "kcl": {"properties": {"AWSCredentialsProvider": "x"}}}, "say `aws.role_arn`"),
        ({"kcl": {"heap": "1GiB"}}, "`kcl` is for `engine: kcl`"),
        ({"engine": "kcl", "kpl": {"out_of_range": "keep"}}, "by the KCL's rules"),
        ({"engine": "kcl", "leases": "none"}, "leave out `leases: none`"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Options.model_validate({"stream": "access"} | options)


def test_files_hold_no_secret_and_any_character(tmp_path: Path) -> None:
    settings = DaemonSettings(
        stream="access",
        application="app",
        table="table",
        worker="ho:st=0 \u00fc",
        region="us-east-1",
        credentials={"AWS_SECRET_ACCESS_KEY": "geheim"},
        endpoints={"kinesis": "http://127.0.0.1:4567"},
    )
    write_files(tmp_path, settings, debug=False)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert "geheim" not in "".join(written.values())
    assert written["kcl.properties"].splitlines()[-1] == r"kinesisEndpoint=http\u003a//127.0.0.1\u003a4567"
    assert r"workerId=ho\u003ast\u003d0\u0020\u00fc" in written["kcl.properties"].splitlines()


def test_a_missing_java_and_a_missing_kcl_are_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(kcl, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as refused:
        find_runtime()
    java, jars = refused.value.problems
    assert "openjdk-17-jre-headless" in java
    assert "pip install 'streamsvc[kcl]'" in jars


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java here")
def test_a_java_home_without_java_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=str(tmp_path)):
        find_runtime()


def test_messages_and_answers() -> None:
    line = (
        b'{"action":"processRecords","millisBehindLatest":5,"records":[{"action":"record","data":"/w==",'
        b'"partitionKey":"\\u00fc","sequenceNumber":"12","subSequenceNumber":3,"approximateArrivalTimestamp":17}]}'
    )
    message = read_message(line)
    assert isinstance(message, ProcessRecords)
    assert message.millis_behind_latest == 5
    (record,) = message.records
    assert (record.data, record.partition_key, record.sequence_number) == (b"\xff", "\u00fc", "12")
    assert (record.sub_sequence_number, record.approximate_arrival_timestamp) == (3, 17)
    assert status_of(message) == b'{"action":"status","responseFor":"processRecords"}\n'
    assert status_of(read_message(b'{"action":"leaseLost"}')) == status_of(LeaseLost())
    assert read_message(checkpoint_at("12", 3)) == Checkpoint("12", 3)


@pytest.mark.parametrize("line", [b"", b"nonsense", b'{"action":"other"}', b'{"action":"initialize"}', b"\xff", b"[1]"])
def test_a_line_that_is_no_message_is_not_shown(line: bytes) -> None:
    with pytest.raises(SourceUnavailable, match="not of the MultiLang protocol"):
        read_message(line)
