"""What happens to a pipeline: everything comes through its mailbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from streamsvc.contracts import Assigned, Revoked
from streamsvc.core.log_keys import Cursor
from streamsvc.records import Batch, Split
from streamsvc.runtime.windowing import Place


@dataclass(frozen=True, slots=True)
class Recovered:
    """The places of these splits in the log are known: reading can begin."""

    places: Mapping[Split, Place]
    ticket: int


@dataclass(frozen=True, slots=True)
class Moved:
    """These splits, which stood at these cursors, go on elsewhere: somebody has claimed their tails."""

    cursors: Mapping[Split, Cursor]


@dataclass(frozen=True, slots=True)
class Landed:
    """The segment that was landing has an outcome, or has failed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Land what is open, then end."""


Event: TypeAlias = Batch | Assigned | Revoked | Recovered | Moved | Landed | Stop
