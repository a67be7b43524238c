"""One child's connection: messages in, lines out. Lines may have any length, and are held only when they are wanted."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter

from streamsvc.sources.kinesis.kcl.protocol import Message, read_message

SHORT_BYTES = 64 * 1024
"""What is read of a line without asking whether there is room: every message but records fits in."""

_CHUNK = 1024 * 1024


class Connection:
    """``begins``, then ``message``, over and over. What is not read waits in the socket, the child, the daemon."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._held = bytearray()
        self._end = -1

    async def begins(self) -> bool:
        """Wait for the next message. False: the other side has hung up, perhaps in the middle of one."""
        self._end = self._held.find(b"\n")
        while self._end < 0 and len(self._held) < SHORT_BYTES:
            if not await self._read(SHORT_BYTES):
                return False
        return True

    @property
    def is_long(self) -> bool:
        """Of the message that begins, more is to come."""
        return self._end < 0

    async def message(self) -> Message | None:
        """The message that begins; ``None``: the other side has hung up in the middle of it."""
        return None if (line := await self.line()) is None else read_message(line)

    async def line(self) -> bytearray | None:
        while self._end < 0:
            if not await self._read(_CHUNK):
                return None
        line = self._held[: self._end]
        del self._held[: self._end + 1]
        return line

    async def _read(self, nbytes: int) -> bool:
        try:
            part = await self._reader.read(nbytes)
        except ConnectionError:
            return False
        found = part.find(b"\n")
        self._end = found if found < 0 else len(self._held) + found
        self._held += part
        return bool(part)

    def send(self, line: bytes) -> None:
        """Lines are short, and the child always reads: nothing to wait for."""
        self._writer.write(line)

    def close(self) -> None:
        self._writer.close()
