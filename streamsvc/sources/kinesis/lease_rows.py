"""Rows of the lease table as the KCL writes them, and as leases.

Names and types are those of amazon-kinesis-client, ``DynamoDBLeaseSerializer``. What other attributes a row has stays
as it is. Two are ours, and a KCL neither reads nor removes them:

``streamsvcStreamCreated`` (N, seconds since the epoch): which stream of this name. One that is deleted and created anew
has the same shard ids, and by its old rows some of them would be read to their ends already.

``streamsvcWantedBy`` (S): which worker asked the owner for the lease. The KCL 3's own way to ask is not used: it names
the next worker as ``leaseOwner`` and the one that still reads as ``checkpointOwner``, and a KCL 2, which does not know
the second, believes the first. Where a KCL has left it, it goes, as with the KCL, when the lease is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from streamsvc.core.kinesis_positions import KclCheckpoint
from streamsvc.core.kpl import HashRange
from streamsvc.core.leases import Lease
from streamsvc.errors import SourceRefused

Row: TypeAlias = Mapping[str, Mapping[str, Any]]
"""DynamoDB's own notation: ``{"leaseCounter": {"N": "7"}}``."""

KEY = "leaseKey"
OWNER = "leaseOwner"
COUNTER = "leaseCounter"
CHECKPOINT = "checkpoint"
SUB_SEQUENCE = "checkpointSubSequenceNumber"
SWITCHES = "ownerSwitchesSinceCheckpoint"
PARENTS = "parentShardId"
CHILDREN = "childShardIds"
FIRST_HASH = "startingHashKey"
LAST_HASH = "endingHashKey"
CHECKPOINT_OWNER = "checkpointOwner"
PENDING = ("pendingCheckpoint", "pendingCheckpointSubSequenceNumber", "pendingCheckpointState")
WANTED_BY = "streamsvcWantedBy"
STREAM = "streamsvcStreamCreated"

_ENTITY = "entityType"


def lease_of(row: Row, table: str) -> Lease | None:
    """``None`` for what is no lease: newer KCLs keep other things in the same table (``EntityType``).

    Raises ``SourceRefused`` for a row that is none of the KCL's."""
    if row.get(_ENTITY, {"S": "LEASE"}) != {"S": "LEASE"}:
        return None
    try:
        return Lease(
            shard=row[KEY]["S"],
            owner=_text(row, OWNER),
            counter=int(row[COUNTER]["N"]),
            checkpoint=KclCheckpoint(row[CHECKPOINT]["S"], int(row.get(SUB_SEQUENCE, {"N": "0"})["N"])),
            wanted_by=_text(row, WANTED_BY),
            parents=frozenset(row.get(PARENTS, {"SS": ()})["SS"]),
            children=frozenset(row.get(CHILDREN, {"SS": ()})["SS"]),
            hashes=HashRange(int(row[FIRST_HASH]["S"]), int(row[LAST_HASH]["S"])) if FIRST_HASH in row else None,
            stream_created_s=int(row[STREAM]["N"]) if STREAM in row else None,
        )
    except (KeyError, ValueError):
        hint = "Is this table the lease table of a KCL application? Name another `application`, or mend the row."
        raise SourceRefused(
            "a row of the lease table is no lease", hint=hint, table=table, row=row.get(KEY, {}).get("S")
        ) from None


def row_of(lease: Lease) -> dict[str, dict[str, Any]]:
    """A new row."""
    row: dict[str, dict[str, Any]] = {
        KEY: {"S": lease.shard},
        COUNTER: {"N": str(lease.counter)},
        SWITCHES: {"N": "0"},
        CHECKPOINT: {"S": lease.checkpoint.sequence},
        SUB_SEQUENCE: {"N": str(lease.checkpoint.sub)},
    }
    if lease.parents:
        row[PARENTS] = {"SS": sorted(lease.parents)}
    if lease.hashes is not None:
        row[FIRST_HASH] = {"S": str(lease.hashes.first)}
        row[LAST_HASH] = {"S": str(lease.hashes.last)}
    if lease.stream_created_s is not None:
        row[STREAM] = {"N": str(lease.stream_created_s)}
    return row


def _text(row: Row, name: str) -> str | None:
    """DynamoDB has no ``null`` in an index, and the KCL has an index of owners: what is not there is not set."""
    text: str | None = row.get(name, {}).get("S")
    return text or None
