"""Values of a configuration as people write them: durations, sizes, secrets, addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, WithJsonSchema

from streamsvc.core.units import parse_bytes, parse_seconds

MAX_SECRET_BYTES = 64 * 1024

NAME = r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,100}$"
TOPIC = r"^[a-zA-Z0-9._-]{1,249}$"
KINESIS_NAME = r"^[a-zA-Z0-9_.-]{1,128}$"
TABLE_NAME = r"^[a-zA-Z0-9_.-]{3,255}$"
STREAM_ARN = r"^arn:aws[a-z-]*:kinesis:[a-z0-9-]+:\d{12}:stream/[a-zA-Z0-9_.-]{1,128}$"
LISTEN = r"^(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]*):\d{1,5}$"
URL = r"^https?://[^/\s]+"

IN_WORDS: Mapping[str, str] = {
    NAME: "letters, digits, `.`, `_` and `-`, the first a letter or digit, at most 101",
    TOPIC: "letters, digits, `.`, `_` and `-`, at most 249",
    KINESIS_NAME: "letters, digits, `.`, `_` and `-`, at most 128",
    TABLE_NAME: "letters, digits, `.`, `_` and `-`, 3 to 255",
    STREAM_ARN: "like arn:aws:kinesis:REGION:ACCOUNT:stream/NAME",
    LISTEN: "host:port, [IPv6]:port, or :port for every address of this machine",
    URL: "like https://host or http://host:port",
}
"""What a pattern asks for."""

_BROKER = re.compile(r"(?:[A-Za-z_]+://)?(?:\[[0-9a-fA-F:.%]+\]|[a-zA-Z0-9._-]+)(?::\d{1,5})?")


class Model(BaseModel):
    """Unknown keys are errors; nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False, hide_input_in_errors=True)


def about(model: type[BaseModel]) -> str:
    """Its documentation, in one line."""
    return " ".join((model.__doc__ or "").split()).replace("``", "`")


def _secret(value: object) -> object:
    """The text itself, or ``{file: PATH}``."""
    if not isinstance(value, Mapping):
        return value
    if list(value) != ["file"] or not isinstance(value["file"], str):
        raise ValueError("write the text, ${VARIABLE}, or {file: PATH}")
    try:
        with Path(value["file"]).open("rb") as stream:
            text = stream.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None
    if len(text) > MAX_SECRET_BYTES:
        raise ValueError(f"the file is larger than {MAX_SECRET_BYTES} bytes: not a secret")
    try:
        return text.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8") from None


def _brokers(value: str) -> str:
    """As librdkafka reads them: it passes over what is empty between commas."""
    brokers = [broker for broker in value.split(",") if broker.strip()]
    if not brokers:
        raise ValueError("must be host:port, several with commas between them")
    for broker in brokers:
        if broker.strip().startswith("$"):
            raise ValueError("an environment variable is written ${NAME}, with braces")
        if not _BROKER.fullmatch(broker.strip()):
            raise ValueError("must be host:port, several with commas between them")
    return ",".join(brokers)


def _digits(value: object) -> object:
    """Environment variables are texts."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value


Whole = Annotated[int, Field(strict=True, ge=1), BeforeValidator(_digits)]
"""A count: not ``true``, not ``1.0``."""

Seconds = Annotated[
    float,
    BeforeValidator(parse_seconds),
    BeforeValidator(_digits),
    Field(ge=0, allow_inf_nan=False),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}),
]
"""A duration: ``300``, ``5m``, ``250ms``, ``1h30m``."""

ByteSize = Annotated[
    int,
    BeforeValidator(parse_bytes),
    BeforeValidator(_digits),
    Field(ge=1),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]}),
]
"""A size: ``1048576``, ``128MiB``, ``1GB``."""

Secret = Annotated[
    SecretStr,
    BeforeValidator(_secret),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"file": {"type": "string"}},
                    "required": ["file"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""Never printed. In the file: ``${VARIABLE}``, or ``{file: /run/secrets/name}``, whose last line end does not count."""

Brokers = Annotated[str, Field(min_length=1), AfterValidator(_brokers)]
"""Where a Kafka cluster is: ``host:port``, several with commas between them."""

Address = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^(s3|file|memory)://"})]
"""A prefix of an object store: ``s3://bucket/prefix``, ``file:///absolute/directory``, ``memory://name/prefix``."""


class SqlStep(Model):
    """A step of a pipeline, row by row."""

    sql: str = Field(
        min_length=1,
        description="SELECT ... FROM input [WHERE ...]. Aggregates, joins, DISTINCT, LIMIT and whatever else looks"
        " beyond one record is refused. A record for which it fails is a reject.",
    )
