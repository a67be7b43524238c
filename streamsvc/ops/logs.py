"""Logs: one event a line, on standard error; for people on a terminal, JSON otherwise.

What libraries log through ``logging`` (librdkafka's client, the HTTP server) comes out the same way. Errors of ours
become fields (``error``, ``error_kind``, their coordinates, ``hint``, ``cause``); a foreign error keeps its traceback,
without local variables. Secrets are taken out by key and inside text.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Literal, TextIO, TypeAlias

import structlog
from pydantic import SecretBytes, SecretStr
from structlog.typing import EventDict, Processor, WrappedLogger

from streamsvc.errors import StreamsvcError

Level: TypeAlias = Literal["debug", "info", "warning", "error"]

REDACTED = "[redacted]"

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)|secret|token|credential|authorization|signature"
    r"|(access|private|api)[_.-]?key|sasl\.(?!mechanism)",
    re.IGNORECASE,
)

_SECRETS_IN_TEXT = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(://[^/\s:@]{0,256}:)[^/\s@]{1,2048}(?=@)",
        r"(authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:(?:basic|bearer)\s)?)[^\s\"']+",
        r"((?:password|passwd|secret|token|signature|credential|access_?key)[\w.-]{0,64}\s{0,4}=\s{0,4}[\"']?)[^\s\"'&,;)}]+",
        r"([\"'][\w.-]{0,64}(?:password|passwd|secret|token|access_?key)[\w.-]{0,64}[\"']\s{0,4}:\s{0,4}[\"'])[^\"']+",
    )
)

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# At debug level these write signatures and whole requests.
_QUIET = ("aiobotocore", "asyncio", "boto3", "botocore", "urllib3")


def configure(
    level: Level = "info",
    *,
    json: bool | None = None,
    stream: TextIO | None = None,
    fields: Mapping[str, object] | None = None,
) -> None:
    """Set up all logging of this process; may be called again.

    json:   ``None`` is JSON unless ``stream`` is a terminal
    stream: standard error
    fields: added to every line, such as the worker's number
    """
    stream = stream or sys.stderr
    as_json = not stream.isatty() if json is None else json
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_fields(fields or {}),
        _unfold_error,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _redact,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *before,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(stream, as_json)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    # What is tried again is told by whoever tries it, with the name of what failed.
    logging.getLogger("stamina").setLevel(logging.ERROR)
    logging.captureWarnings(True)


def _rendering(stream: TextIO, as_json: bool) -> list[Processor]:
    if as_json:
        return [structlog.processors.EventRenamer("message"), _in_order, structlog.processors.JSONRenderer()]
    plain = structlog.dev.plain_traceback
    return [_escape, structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]


def _in_order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """When, how bad and what first: people read this too, at night."""
    first = ("timestamp", "level", "message", "pipeline")
    return {**{name: event[name] for name in first if name in event}, **event}


def _with_fields(fields: Mapping[str, object]) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        for name, value in fields.items():
            event.setdefault(name, value)
        return event

    return add


def _unfold_error(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """``exc_info`` or ``error=`` that is an error of ours, as fields. Its text is complete: no traceback."""
    given = event.get("error")
    error = given if isinstance(given, BaseException) else _raised(event.get("exc_info"))
    if isinstance(error, StreamsvcError):
        event.pop("exc_info", None)
        event["error"] = error.what
        event["error_kind"] = type(error).__name__
        coordinates = {**error.where, "hint": error.hint} if error.hint else error.where
        for name, value in coordinates.items():
            event.setdefault(name, value)
        if error.__cause__ is not None:
            event["cause"] = _in_words(error.__cause__)
    elif isinstance(given, BaseException):
        event["error"] = _in_words(given)
    return event


def _raised(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if isinstance(exc_info[1], BaseException) else None
    return sys.exc_info()[1] if exc_info else None


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {name: _without_secrets(name, value) for name, value in event.items()}


def _without_secrets(name: object, value: object) -> object:
    if isinstance(value, SecretStr | SecretBytes) or _SECRET_KEY.search(str(name)):
        return REDACTED
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {key: _without_secrets(key, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_without_secrets("", inner) for inner in value]
    return value


def redact_text(text: str) -> str:
    """Text of others (an exception's, a library's) without passwords, tokens and signatures."""
    for pattern in _SECRETS_IN_TEXT:
        text = pattern.sub(rf"\1{REDACTED}", text)
    return text


def _escape(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Bytes of a record must not move the reader's cursor or recolour the terminal."""
    return {
        name: _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value) if isinstance(value, str) else value
        for name, value in event.items()
    }
