"""Why nothing may be coming, by part: one shard may be throttled while the others flow."""

from __future__ import annotations

import logging

from streamsvc.errors import Retryable

_LOG = logging.getLogger("streamsvc.kinesis")


class Health:
    def __init__(self) -> None:
        self._problems: dict[str, str] = {"stream": "not connected yet"}

    @property
    def problem(self) -> str | None:
        return next(iter(self._problems.values()), None)

    def failed(self, part: str, error: Retryable) -> None:
        """part: ``stream``, or a shard"""
        text = f"{error.what} ({part})"
        if self._problems.get(part) != text:
            _LOG.warning("%s: %s", part, error)
        self._problems[part] = text

    def well(self, part: str) -> None:
        if self._problems.pop(part, None) is not None and part != "stream":
            _LOG.info("%s is read again", part)
