"""The segment log of a running service, read from outside: what is undecided, and what is visible of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from botocore.exceptions import ClientError

from loadtest.lake import Folder
from streamsvc.core.log_keys import OUTCOMES, PLANS, outcome_key, plan_key, segment_of
from streamsvc.core.segments import Claim, Outcome, Plan


@dataclass(frozen=True)
class Visible:
    """The log, and the folders that its segments publish to."""

    log: Folder
    lake: Folder
    rejects: Folder

    def undecided(self) -> list[str]:
        """Segments with a plan and without an outcome, oldest first."""
        decided = set(map(segment_of, self.log.listing(OUTCOMES)))
        return [segment for segment in map(segment_of, self.log.listing(PLANS)) if segment not in decided]

    def claimed(self, segment: str) -> Plan | None:
        """Its plan, if it holds every key of it and has no outcome."""
        plan = self._plan(segment)
        if plan is None or not all(self._holds(segment, key) for key in plan.claim_keys()):
            return None
        return plan if self.outcome(segment) is None else None

    def outcome(self, segment: str) -> Outcome | None:
        body = self._read(outcome_key(segment))
        return None if body is None else Outcome.from_json(body)

    def published(self, segment: str) -> list[str]:
        """Every visible object with the name of the segment in it."""
        keys = [f"lake/{key}" for key in self.lake.listing()] + [f"rejects/{key}" for key in self.rejects.listing()]
        return [key for key in keys if segment in key]

    def census(self) -> dict[str, int]:
        """How the segments ended that the log still tells of; planned: their worker was gone before the claims."""
        counts = Counter(dict.fromkeys(("committed", "aborted", "planned"), 0))
        for segment in map(segment_of, self.log.listing(PLANS)):
            outcome = self.outcome(segment)
            counts["planned" if outcome is None else outcome.state] += 1
        return dict(counts)

    def strays(self) -> list[str]:
        """Visible objects of segments that were aborted or never decided."""
        ended = [self.outcome(segment_of(key)) for key in self.log.listing(OUTCOMES)]
        aborted = [outcome.segment for outcome in ended if outcome is not None and not outcome.committed]
        return [key for segment in (*aborted, *self.undecided()) for key in self.published(segment)]

    def _plan(self, segment: str) -> Plan | None:
        body = self._read(plan_key(segment))
        return None if body is None else Plan.from_json(body)

    def _holds(self, segment: str, key: str) -> bool:
        body = self._read(key)
        return body is not None and Claim.from_json(body).segment == segment

    def _read(self, key: str) -> bytes | None:
        try:
            return self.log.read(key)
        except FileNotFoundError:
            return None
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise
