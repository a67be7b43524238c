"""``streamsvc put``: lines into a Kinesis stream, one record a line."""

from __future__ import annotations

import asyncio
import random
import select
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic
from typing import BinaryIO, TypeAlias

import orjson

from streamsvc.app_kinesis import RecordWriter, open_record_writer
from streamsvc.config import Aws, Endpoints
from streamsvc.core.kpl import Put
from streamsvc.errors import ConfigError, Fatal, SourceRefused

MAX_KEY_CHARACTERS = 256
"""Of a partition key (API Reference, PutRecordsRequestEntry)."""

_CHUNK_BYTES = 1024 * 1024

KeyOf: TypeAlias = Callable[[bytes], str]
"""The partition key of a line. Raises ``ValueError`` with what is wrong with the line."""


@dataclass(frozen=True, slots=True)
class Destination:
    """``aggregate``: packed as the KPL does. What is ``None`` is what AWS's own tools would find."""

    stream: str
    region: str | None
    endpoint_url: str | None
    aggregate: bool


def put(source: str, destination: Destination, key: str | None, key_column: str | None) -> int:
    """Answers the exit code. What was put goes to standard output, also when it ends with an error.

    A line that cannot be a record ends it, when all lines before it are put. Raises ``ConfigError``, ``Fatal`` and what
    the writer raises, and ``OSError`` for what can no longer be read.
    """
    key_of = _key_of(key, key_column)
    if source == "-" and sys.stdin is None:
        raise ConfigError(["standard input is closed"])
    with ExitStack() as stack:
        try:
            whole = sys.stdin.fileno() if source == "-" else source
            file = stack.enter_context(open(whole, "rb", buffering=0, closefd=source != "-"))
        except OSError as error:
            raise ConfigError([f"{error.filename}: {error.strerror}"]) from None
        try:
            asyncio.run(_put(file, "standard input" if source == "-" else source, destination, key_of))
        except SourceRefused as error:
            if error.where.get("cause") != "NoRegion":
                raise
            raise ConfigError(["--region: no AWS region is known; give it, or set AWS_REGION"]) from None
    return 0


async def _put(file: BinaryIO, name: str, destination: Destination, key_of: KeyOf) -> None:
    aws = Aws(region=destination.region, endpoints=Endpoints(kinesis=destination.endpoint_url))
    began = monotonic()
    async with open_record_writer(aws, destination.stream, aggregate=destination.aggregate) as writer:
        lines = _Lines(name, key_of, writer.max_record_bytes)
        try:
            async for piece, more in _pieces(file):
                await writer.put(list(lines.records(piece)))
                if lines.problem is not None:
                    break
                if not more:
                    await writer.flush()
            else:
                await writer.put(list(lines.last()))
            await writer.flush()
        finally:
            print(_summary(writer, destination.stream, monotonic() - began))
    if lines.problem is not None:
        raise lines.problem


async def _pieces(file: BinaryIO) -> AsyncIterator[tuple[bytes, bool]]:
    """What there is, up to about a MiB at once, and whether there is more already. Waits only if there is nothing."""
    descriptor = file.fileno()
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    while True:
        ready.clear()
        try:
            loop.add_reader(descriptor, ready.set)
        except PermissionError:  # a regular file is always ready
            ready.set()
        try:
            await ready.wait()
        finally:
            loop.remove_reader(descriptor)
        piece = bytearray()
        more = True
        while more and len(piece) < _CHUNK_BYTES:
            read = file.read(_CHUNK_BYTES)
            if not read:
                if piece:
                    yield bytes(piece), False
                return
            piece += read
            more = bool(select.select([descriptor], [], [], 0)[0])
        yield bytes(piece), more


class _Lines:
    """Cuts what is read into lines, which end with a newline that is no part of them, and makes records of them.

    ``problem`` is what the first line that cannot be a record is refused for; no record comes after it.
    """

    def __init__(self, name: str, key_of: KeyOf, max_record_bytes: int) -> None:
        self._name = name
        self._key_of = key_of
        self._max_record_bytes = max_record_bytes
        self._rest = b""
        self._number = 0
        self.problem: Fatal | None = None

    def records(self, piece: bytes) -> Iterator[Put]:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        yield from self._records(lines)
        if self.problem is None and len(self._rest) > self._max_record_bytes:
            self._number += 1
            self._refuse(self._too_large(len(self._rest)))

    def last(self) -> Iterator[Put]:
        """The line at the end that no newline ends."""
        if self._rest:
            yield from self._records([self._rest])

    def _records(self, lines: list[bytes]) -> Iterator[Put]:
        for line in lines:
            self._number += 1
            try:
                key = self._key_of(line)
            except ValueError as error:
                self._refuse(str(error))
                return
            nbytes = len(line) + len(key.encode())
            if nbytes > self._max_record_bytes:
                self._refuse(self._too_large(nbytes))
                return
            yield Put(key, None, line)

    def _too_large(self, nbytes: int) -> str:
        return f"{nbytes} bytes with its key, and the stream takes {self._max_record_bytes} (MaxRecordSizeInKiB)"

    def _refuse(self, what: str) -> None:
        self.problem = Fatal(
            f"{self._name}:{self._number}: this line cannot be a record: {what}",
            hint="The lines before it are put; neither it nor any line after it is.",
        )


def _key_of(key: str | None, column: str | None) -> KeyOf:
    """Raises ``ConfigError``."""
    if key is not None and column is not None:
        raise ConfigError(["--partition-key and --key-column: one of them"])
    if key is not None:
        try:
            _checked(key)
        except ValueError as error:
            raise ConfigError([f"--partition-key: {error}"]) from None
        return lambda _: key
    if column is None:
        return lambda _: f"{random.getrandbits(64):016x}"
    if column.isdecimal():
        number = int(column)
        if number < 1:
            raise ConfigError(["--key-column: columns are counted from 1"])
        return lambda line: _word(line, number)
    return lambda line: _member(line, column)


def _word(line: bytes, number: int) -> str:
    words = line.split(None, number)
    if len(words) < number:
        raise ValueError(f"it has no column {number}")
    try:
        return _checked(words[number - 1].decode())
    except UnicodeDecodeError:
        raise ValueError(f"column {number} is not UTF-8") from None


def _member(line: bytes, name: str) -> str:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ValueError("it is no JSON") from None
    value = document.get(name) if isinstance(document, dict) else None
    if isinstance(value, str):
        return _checked(value)
    if isinstance(value, int | float):
        return orjson.dumps(value).decode()
    raise ValueError(f"it has no text or number {name!r}")


def _checked(key: str) -> str:
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise ValueError(f"a partition key has 1 to {MAX_KEY_CHARACTERS} characters, not {len(key)}")
    return key


def _summary(writer: RecordWriter, stream: str, seconds: float) -> str:
    counts = writer.counts
    packed = f" in {counts.puts:,} aggregates or single records" if counts.puts != counts.records else ""
    again = f", {counts.retries:,} sent again" if counts.retries else ""
    return (
        f"{counts.records:,} records ({counts.nbytes:,} bytes) put into {stream}{packed}: "
        f"{counts.requests:,} requests{again}, {seconds:.1f} s"
    )
