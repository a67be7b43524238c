import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from streamsvc.errors import ConfigError, StoreUnavailable
from streamsvc.ops.logs import Level, configure, redact_text


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(output: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def unanswered() -> StoreUnavailable:
    error = StoreUnavailable("the store did not answer", hint="It is tried again.", key="a/b")
    error.__cause__ = OSError("reset by peer: https://me:hunter2@store/x?X-Amz-Signature=abcdef&part=1")
    return error


def test_json_off_a_terminal(output: io.StringIO) -> None:
    configure(stream=output, fields={"worker": 2})
    structlog.get_logger("streamsvc.x").info("segment committed", rows=3, raw=b"\x00\xff")
    structlog.get_logger("streamsvc.x").debug("not at this level")
    (line,) = lines(output)
    assert list(line)[:3] == ["timestamp", "level", "message"], "which is how far people read"
    assert line["message"] == "segment committed"
    assert (line["level"], line["logger"], line["worker"], line["rows"]) == ("info", "streamsvc.x", 2, 3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line["timestamp"])


def test_logging_of_libraries_takes_the_same_way(output: io.StringIO) -> None:
    configure(stream=output)
    logging.getLogger("librdkafka").error("%s [thrd]: sasl.password=hunter2", "rdkafka#1")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful", stacklevel=1)
    first, second = lines(output)
    assert first["message"] == "rdkafka#1 [thrd]: sasl.password=[redacted]"
    assert "careful" in second["message"]


def test_libraries_that_write_requests_stay_quiet(output: io.StringIO) -> None:
    configure("debug", stream=output)
    logging.getLogger("botocore.auth").debug("signature")
    structlog.get_logger().debug("seen")
    assert [line["message"] for line in lines(output)] == ["seen"]


@pytest.mark.parametrize("how", ["error", "exc_info"])
def test_an_error_of_ours_becomes_fields(output: io.StringIO, how: str) -> None:
    configure(stream=output)
    structlog.get_logger().warning("retrying", **{how: unanswered()})
    (line,) = lines(output)
    assert line["error"] == "the store did not answer"
    assert line["error_kind"] == "StoreUnavailable"
    assert (line["key"], line["hint"]) == ("a/b", "It is tried again.")
    assert line["cause"] == "OSError: reset by peer: https://me:[redacted]@store/x?X-Amz-Signature=[redacted]&part=1"
    assert "exception" not in line


def test_coordinates_do_not_hide_the_line(output: io.StringIO) -> None:
    configure(stream=output)
    structlog.get_logger().error("failed", error=StoreUnavailable("x", level="mine", event="mine", split="t@0"))
    (line,) = lines(output)
    assert (line["level"], line["message"], line["split"]) == ("error", "failed", "t@0")


def test_a_configuration_error_is_whole(output: io.StringIO) -> None:
    configure(stream=output)
    structlog.get_logger().error("bad configuration", error=ConfigError(["a.yaml:1:2: x", "a.yaml:3:4: y"]))
    assert lines(output)[0]["error"] == "a.yaml:1:2: x\na.yaml:3:4: y"


def test_a_foreign_error_keeps_its_traceback_without_locals(output: io.StringIO) -> None:
    configure(stream=output)
    hidden = "".join(("hunter", "2"))
    try:
        len(hidden) / 0
    except ZeroDivisionError:
        structlog.get_logger().exception("crashed")
    (line,) = lines(output)
    assert "ZeroDivisionError: division by zero" in line["exception"]
    assert "test_ops_logs.py" in line["exception"]
    assert hidden not in line["exception"]


def test_secrets_are_taken_out_by_key(output: io.StringIO) -> None:
    configure(stream=output)
    client = {"sasl.password": "hunter2", "sasl.mechanism": "PLAIN", "inner": [{"accessKey": "hunter2"}]}
    structlog.get_logger().info(
        "started", password="hunter2", aws_session_token="hunter2", client=client, s=SecretStr("hunter2")
    )
    (line,) = lines(output)
    assert "hunter2" not in output.getvalue()
    assert line["client"] == {
        "sasl.password": "[redacted]",
        "sasl.mechanism": "PLAIN",
        "inner": [{"accessKey": "[redacted]"}],
    }


@pytest.mark.parametrize(
    "text",
    [
        "kafka://user:hunter2@broker:9092",
        "Authorization: Bearer hunter2",
        "authorization: AWS4-HMAC-SHA256/hunter2",
        'body {"secretAccessKey": "hunter2"}',
        "{'session_token': 'hunter2'}",
        "password = 'hunter2'",
        "?X-Amz-Security-Token=hunter2&x=1",
        "ssl.key.password=hunter2;",
    ],
)
def test_secrets_are_taken_out_of_text(text: str) -> None:
    assert "hunter2" not in redact_text(text)


@pytest.mark.parametrize(
    "text", ["partition key=abc", "s3://lake/a:b@c/d", "expired token: ask again", "http://[::1]:8080/livez"]
)
def test_other_text_stays(text: str) -> None:
    assert redact_text(text) == text


def test_long_hostile_text_is_cheap() -> None:
    text = "token" * 200_000 + "://" * 100_000 + '"' * 100_000
    assert redact_text(text) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_terminal_gets_text_that_cannot_move_its_cursor(output: io.StringIO, level: Level) -> None:
    terminal = Terminal()
    configure(level, stream=terminal)
    structlog.get_logger().warning("bad\x1b[2J record", value="\x1b]0;owned\x07", path="a\x9b31m")
    text = re.sub(r"\x1b\[\d*m", "", terminal.getvalue())
    assert "bad\\x1b[2J record" in text
    assert not set(text) & {"\x1b", "\x07", "\x9b"}
