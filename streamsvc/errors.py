"""Everything that can go wrong, as one tree. Foreign exceptions are mapped to it where they enter.

StreamsvcError                what failed, where, and what to do next
├── ConfigError               the configuration is wrong: file, line, column (exit code 2)
├── Retryable                 it may pass by waiting; the runtime backs off and tries again, for ever
│   ├── StoreUnavailable      an object store did not answer, or answered with a fault
│   └── SourceUnavailable     a broker or stream did not answer
├── Fatal                     waiting will not mend it; the process stops and says why (exit code 1)
│   ├── StoreRefused          no permission, no such bucket, or creates that are not exclusive
│   ├── SourceRefused         no permission, no such topic, bad credentials
│   ├── PositionLost          a range that must be read is gone from the source; offers `seek`
│   ├── ForeignVersion        a pending segment was planned by another decode version
│   ├── WindowsChanged        the pipeline has begun with other windows than are configured
│   ├── ForeignState          the state belongs to another consumer group, or to other topics or another stream
│   └── LogCorrupt            an object of the segment log does not say what it must
└── Fenced                    another worker owns what this one held; the runtime recovers and goes on
"""

from __future__ import annotations

from typing import Any


class StreamsvcError(Exception):
    """What failed, where, and what to do next.

    ``where`` holds coordinates as plain data (split, position, key, url ...) for structured logs;
    ``hint`` is the next step for whoever reads it at night.
    """

    def __init__(self, what: str, *, hint: str = "", **where: Any) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        coordinates = ", ".join(f"{name}={value}" for name, value in self.where.items())
        text = f"{self.what} ({coordinates})" if coordinates else self.what
        return f"{text}\n  {self.hint}" if self.hint else text


class ConfigError(StreamsvcError):
    """The configuration is wrong. ``problems`` are complete lines, each ``file:line:column: what``."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Retryable(StreamsvcError):
    """It may pass by waiting."""


class StoreUnavailable(Retryable):
    """An object store did not answer, or answered with a fault. The effect of the call is unknown."""


class SourceUnavailable(Retryable):
    """A broker or stream did not answer."""


class Fatal(StreamsvcError):
    """Waiting will not mend it."""


class StoreRefused(Fatal):
    """No permission, no such bucket, or a store whose creates are not exclusive."""


class SourceRefused(Fatal):
    """No permission, no such topic, bad credentials."""


class PositionLost(Fatal):
    """A range that must be read is gone from the source."""


class ForeignVersion(Fatal):
    """A pending segment was planned under a decode version that this build does not have."""


class WindowsChanged(Fatal):
    """The pipeline has begun with other windows than are configured: two meanings cannot be in one result."""


class ForeignState(Fatal):
    """The state belongs to another consumer group, or holds other topics or another stream."""


class LogCorrupt(Fatal):
    """An object of the segment log does not say what it must."""


class Fenced(StreamsvcError):
    """Another worker owns what this one held."""
