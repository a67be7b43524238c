"""The keys of the objects of a segment log, and the cursor that a claim's key is made of. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from streamsvc.records import Position, Split

OWNER_KEY = "owner.json"
START_KEY = "start.json"
PLANS = "plans/"
CLAIMS = "log/"
OUTCOMES = "outcomes/"
LOSSES = "losses/"
CONFIGS = "configs/"
CHECKPOINTS = "checkpoints/"
PARTIALS = "partials/"
OPEN_WINDOWS = "open-windows/"
CONTROL = "control/"
RESULTS = "results/"

PATH_PART = 200
"""A local file system takes 255 bytes for a name, so longer split names are several parts of a key."""


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """Where a split's next claim goes. Cursors of one split are ordered; the chain of claims only goes up."""

    epoch: int
    position: Position
    attempt: int = 0

    @property
    def retried(self) -> Cursor:
        return replace(self, attempt=self.attempt + 1)


def _encode(text: str) -> str:
    """``~`` ends a position, ``/`` a part, and ``%`` begins an escape; nothing else needs to be hidden."""
    return quote(text, safe="@").replace("~", "%7E")


def claim_key(split: Split, cursor: Cursor) -> str:
    """``log/<epoch>/<split>/<from>~<attempt>``: numbers are padded, so that text order is the order of cursors."""
    name = _encode(split)
    parts = [name[at : at + PATH_PART] for at in range(0, len(name), PATH_PART)]
    safe = [f"%2E{part[1:]}" if part.startswith(".") else part for part in parts]
    return f"{CLAIMS}{cursor.epoch:06d}/{'/'.join(safe)}/{_encode(cursor.position)}~{cursor.attempt:010d}"


_CLAIM_KEY = re.compile(rf"{CLAIMS}(\d+)/(.+)/([^/~]*)~(\d+)")


def parse_claim_key(key: str) -> tuple[Split, Cursor] | None:
    """``None``: it is no claim of ours."""
    match = _CLAIM_KEY.fullmatch(key)
    if match is None:
        return None
    epoch, parts, position, attempt = match.groups()
    return unquote(parts.replace("/", "")), Cursor(int(epoch), unquote(position), int(attempt))


def plan_key(segment: str) -> str:
    return f"{PLANS}{segment}.json"


def outcome_key(segment: str) -> str:
    return f"{OUTCOMES}{segment}.json"


def loss_key(segment: str) -> str:
    return f"{LOSSES}{segment}.json"


def partials_key(segment: str) -> str:
    return f"{PARTIALS}{segment}.arrow"


def segment_of(key: str) -> str:
    """The segment of a plan's, outcome's, loss's or partials' key."""
    return key.rpartition("/")[2].removesuffix(".json").removesuffix(".arrow")


def config_key(digest: str) -> str:
    return f"{CONFIGS}{digest}.json"


def checkpoint_key(number: int) -> str:
    return f"{CHECKPOINTS}{number:012d}.json"


_CHECKPOINT_KEY = re.compile(rf"{CHECKPOINTS}(\d+)\.json")


def checkpoint_number(key: str) -> int | None:
    """``None``: it is no checkpoint of ours."""
    match = _CHECKPOINT_KEY.fullmatch(key)
    return int(match[1]) if match else None
