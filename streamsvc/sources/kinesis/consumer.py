"""The registered consumer of enhanced fan-out: one for an application, shared by its workers."""

from __future__ import annotations

import asyncio

from streamsvc.errors import SourceRefused, SourceUnavailable
from streamsvc.sources.kinesis import failures
from streamsvc.sources.kinesis.stream import Stream

ACTIVE_POLL_S = 0.5
ACTIVE_TRIES = 60
"""It takes seconds. After so many looks it is said that nothing comes, before there are others."""

TRIES = 4
"""A limit that is met so often in a row is the one on consumers (20 a stream), not the one on calls."""


class Consumer:
    """``arn`` registers it when it is first asked for. It stays registered: other workers may use it."""

    def __init__(self, stream: Stream, name: str) -> None:
        self.name = name
        self._stream = stream
        self._arn: str | None = None
        self._registering = asyncio.Lock()

    async def arn(self) -> str:
        """Of the consumer, active. Raises ``SourceRefused``: no permission, or as many consumers as a stream may have;
        and ``SourceUnavailable``."""
        async with self._registering:
            if self._arn is None:
                self._arn = await self._active()
            return self._arn

    def forget(self) -> None:
        """Somebody has deregistered it: look again."""
        self._arn = None

    async def _active(self) -> str:
        stream_arn = (await self._stream.summary()).arn
        for _ in range(ACTIVE_TRIES):
            try:
                found = await self._stream.call("DescribeStreamConsumer", StreamARN=stream_arn, ConsumerName=self.name)
            except SourceRefused as error:
                if error.where.get("cause") != failures.NOT_FOUND:
                    raise
                await self._register(stream_arn)
                continue
            description = found["ConsumerDescription"]
            if description["ConsumerStatus"] == "ACTIVE":
                return str(description["ConsumerARN"])
            await asyncio.sleep(ACTIVE_POLL_S)
        raise SourceUnavailable("the registered consumer does not become active", consumer=self.name)

    async def _register(self, stream_arn: str) -> None:
        for left in reversed(range(TRIES)):
            try:
                await self._stream.call("RegisterStreamConsumer", StreamARN=stream_arn, ConsumerName=self.name)
            except SourceUnavailable as error:
                if error.where.get("cause") == failures.IN_USE:
                    return
                if left:
                    await asyncio.sleep(ACTIVE_POLL_S)
                elif error.where.get("cause") == failures.LIMIT:
                    raise SourceRefused(
                        "the stream has as many registered consumers as it may have",
                        hint="Deregister one, ask for more, or set `retrieval: polling`.",
                        **error.where,
                    ) from None
                else:
                    raise
            else:
                return
