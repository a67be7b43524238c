"""What the service allows, as data, and the accounts that hold a shard to it."""

from __future__ import annotations

from dataclasses import dataclass, replace

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """AWS's own by default (Developer Guide, "Quotas and limits"; API Reference). ``None`` is without limit.

    reads_per_s:          GetRecords calls of a shard, and GetShardIterator calls
    read_bytes_per_s:     GetRecords, of a shard
    write_records_per_s:  of a shard
    write_bytes_per_s:    of a shard; a larger record passes and is then paid off (Developer Guide, "Handle large
                          records": the tank is drained and fills again)
    fanout_bytes_per_s:   of a consumer and shard
    answer_records, answer_bytes: of one GetRecords answer
    request_bytes:        of one PutRecords request, partition keys included
    iterator_s, token_s:  after which a shard iterator and a NextToken have expired
    subscription_s:       after which a subscription ends by itself
    resubscribe_s:        within which a second subscription is refused; later it takes over
    idle_event_s:         between events without records
    transition_s:         how long a stream or consumer is CREATING, a stream UPDATING
    retention_s:          overrides every stream's retention period, for tests that cannot wait 24 hours
    ends_with_records:    whether the answer with the last records of a closed shard already has no next iterator;
                          otherwise an empty answer follows. Clients must take both.
    """

    reads_per_s: float | None = 5
    read_bytes_per_s: float | None = 2 * MIB
    write_records_per_s: float | None = 1000
    write_bytes_per_s: float | None = MIB
    fanout_bytes_per_s: float | None = 2 * MIB
    answer_records: int = 10_000
    answer_bytes: int = 10 * MIB
    request_bytes: int = 10 * MIB
    iterator_s: float = 300.0
    token_s: float = 300.0
    subscription_s: float = 300.0
    resubscribe_s: float = 5.0
    idle_event_s: float = 5.0
    transition_s: float = 0.0
    retention_s: float | None = None
    ends_with_records: bool = False

    def unthrottled(self) -> Limits:
        """No rates; everything else as it is. For throughput, and for tests about something else."""
        return replace(
            self,
            reads_per_s=None,
            read_bytes_per_s=None,
            write_records_per_s=None,
            write_bytes_per_s=None,
            fanout_bytes_per_s=None,
        )


class Meter:
    """Holds something to so much a second. What exceeds a second's share is paid off by as many seconds of refusal.

    So five calls a second pass and the sixth is refused until the second is over, and an answer of 10 MiB at 2 MiB/s is
    followed by five seconds of refusals (API Reference, GetRecords).
    """

    def __init__(self, per_s: float | None) -> None:
        self._per_s = per_s
        self._began = 0.0
        self._spent = 0.0

    def allows(self, now: float) -> bool:
        if self._per_s is None:
            return True
        if now >= self._began + max(1.0, self._spent / self._per_s):
            self._began, self._spent = now, 0.0
        return self._spent < self._per_s

    def spend(self, amount: float) -> None:
        self._spent += amount
