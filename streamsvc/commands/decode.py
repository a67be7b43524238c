"""``streamsvc decode``: any decoder as a Unix filter."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import orjson
from pydantic import ValidationError

from streamsvc.config import Decode
from streamsvc.decoders.build import build
from streamsvc.decoders.lines import decode_lines
from streamsvc.errors import ConfigError


def decode(source: str, decoder: str, rejects: Path | None) -> int:
    """Answers the exit code. How many lines were rejected goes to standard error. Raises ``ConfigError``."""
    try:
        built = build(_options(decoder))
    except (ValueError, ValidationError) as error:
        raise ConfigError([f"--as {decoder}: {error}"]) from None
    with ExitStack() as stack:
        try:
            whole = sys.stdin.fileno() if source == "-" else source
            stream = stack.enter_context(open(whole, "rb", closefd=source != "-"))
            refused = stack.enter_context(rejects.open("wb")) if rejects else None
        except OSError as error:
            raise ConfigError([f"{error.filename}: {error.strerror}"]) from None
        counts = decode_lines(built, stream, sys.stdout.buffer, refused)
    _let_go_of_a_closed_pipe()
    if counts.rejects:
        where = f"; they are in {rejects}" if rejects else "; --rejects FILE keeps them"
        print(f"{counts.rejects} of {counts.rows + counts.rejects} lines were rejected{where}", file=sys.stderr)
    return 0


def _let_go_of_a_closed_pipe() -> None:
    """The interpreter flushes standard output once more at its end, and would complain that nobody reads it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _options(text: str) -> Decode:
    """``apache=combined``, ``json=FILE`` (a JSON object of column names and types), ``raw``, ``raw=string``."""
    kind, _, rest = text.partition("=")
    match kind:
        case "apache":
            return Decode(apache=rest or "combined")
        case "json" if rest:
            return Decode.model_validate({"json": {"schema": orjson.loads(Path(rest).read_bytes())}})
        case "raw":
            return Decode.model_validate({"raw": {"type": rest} if rest else {}})
    raise ConfigError([f"--as {text}: write apache=combined, apache='<LogFormat>', json=COLUMNS_FILE or raw"])
