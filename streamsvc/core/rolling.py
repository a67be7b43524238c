"""When a segment is cut. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal["size", "interval", "memory", "partitions", "revoked", "end", "shutdown"]
"""Why a segment is cut, as metrics name it."""


@dataclass(frozen=True, slots=True)
class Rolling:
    """What an open segment may grow to: its largest object in bytes, its age in seconds."""

    size_bytes: int
    interval_s: float


@dataclass(frozen=True, slots=True)
class Pressure:
    """What can end a segment before it is full: somebody needs memory, a record needs one partition too many, a
    split is being taken, every split is at its end, the service stops."""

    memory: bool = False
    partitions: bool = False
    revoked: bool = False
    end: bool = False
    shutdown: bool = False


CALM = Pressure()


def should_cut(rolling: Rolling, *, largest_bytes: int, age_s: float, pressure: Pressure = CALM) -> Reason | None:
    """The reason to cut now, the most pressing first; ``None``: keep filling.

    age_s: since the first record came in; a segment without records is not cut for its age
    """
    if pressure.shutdown:
        return "shutdown"
    if pressure.revoked:
        return "revoked"
    if pressure.end:
        return "end"
    if pressure.partitions:
        return "partitions"
    if pressure.memory:
        return "memory"
    if largest_bytes >= rolling.size_bytes:
        return "size"
    return "interval" if age_s >= rolling.interval_s else None
