"""``streamsvc decode``: any decoder as a Unix filter."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import orjson

from streamsvc.config import Decode, JsonDecode, RawDecode
from streamsvc.contracts import Decoder
from streamsvc.decoders.build import InvalidDecode, build
from streamsvc.decoders.lines import decode_lines
from streamsvc.errors import ConfigError

GZIP = b"\x1f\x8b"
"""How a compressed file begins (RFC 1952)."""


def decode(source: str, decoder: str, rejects: Path | None) -> int:
    """Answers the exit code. How many lines were rejected goes to standard error.

    Raises ``ConfigError``, and ``OSError`` for what can no longer be read or written."""
    built = _decoder(decoder)
    _check_streams(source, rejects)
    with ExitStack() as stack:
        try:
            whole = sys.stdin.fileno() if source == "-" else source
            stream = stack.enter_context(open(whole, "rb", closefd=source != "-"))
            refused = stack.enter_context(rejects.open("wb")) if rejects else None
        except OSError as error:
            raise ConfigError([f"{error.filename}: {error.strerror}"]) from None
        if stream.peek(2)[:2] == GZIP:
            raise ConfigError([f"{source}: is compressed; write gzip -dc FILE | streamsvc decode --as {decoder} -"])
        counts = decode_lines(built, stream, sys.stdout.buffer, refused)
    _let_go_of_a_closed_pipe()
    if counts.rejects:
        where = f"; they are in {rejects}" if rejects else "; --rejects FILE keeps them"
        print(f"{counts.rejects} of {counts.rows + counts.rejects} lines were rejected{where}", file=sys.stderr)
    return 0


def _check_streams(source: str, rejects: Path | None) -> None:
    """Raises ``ConfigError``: a stream is closed (Python has none then), or rejects would empty what is to be read."""
    if sys.stdout is None or (source == "-" and sys.stdin is None):
        raise ConfigError(["standard input or output is closed"])
    two_files = rejects is not None and source != "-" and rejects.exists() and Path(source).exists()
    if rejects is not None and two_files and rejects.samefile(source):
        raise ConfigError([f"--rejects {rejects}: that is the file to read"])


def _let_go_of_a_closed_pipe() -> None:
    """The interpreter flushes standard output once more at its end, and would complain that nobody reads it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _decoder(text: str) -> Decoder:
    """Raises ``ConfigError``."""
    try:
        return build(_options(text))
    except InvalidDecode as error:
        raise ConfigError([f"--as {text}: {what}" for _, what in error.problems]) from None


def _options(text: str) -> Decode:
    """``apache=combined``, ``json=FILE`` (a JSON object of column names and types), ``raw``, ``raw=string``."""
    kind, _, rest = text.partition("=")
    match kind, rest:
        case "apache", _:
            return Decode(apache=rest or "combined")
        case "json", _ if rest:
            return Decode(json=JsonDecode(schema=_columns(rest)))
        case "raw", "" | "binary" | "string":
            return Decode(raw=RawDecode(type="string" if rest == "string" else "binary"))
    raise ConfigError(
        [f"--as {text}: write apache=combined, apache='<LogFormat>', json=COLUMNS_FILE, raw or raw=string"]
    )


def _columns(file: str) -> dict[str, str]:
    """The columns of JSON objects, from a file. Raises ``ConfigError``."""
    try:
        columns = orjson.loads(Path(file).read_bytes())
    except OSError as error:
        raise ConfigError([f"--as json={file}: cannot be read: {error.strerror}"]) from None
    except orjson.JSONDecodeError as error:
        raise ConfigError([f"{file}:{error.lineno}:{error.colno}: not JSON: {error.msg}"]) from None
    if not isinstance(columns, dict) or not all(isinstance(kind, str) for kind in columns.values()):
        raise ConfigError([f'{file}:1:1: must be one JSON object of columns and types: {{"id": "int64", ...}}'])
    return columns
