"""What goes wrong, as data: for each operation a script, or faults drawn by a seed.

KinesisServer(faults={
    "GetRecords": random_faults(7, {Fault.THROTTLE: 0.1, Fault.RESET_AFTER: 0.02}),
    "PutRecords": [None, Fault.PARTIAL, Fault.PARTIAL],
})
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum

from streamsvc.testing.kinesis_server.errors import KinesisError, internal, throttled


class Fault(Enum):
    THROTTLE = "throttle"
    """Not applied; ProvisionedThroughputExceededException, or LimitExceededException where there is no such answer."""
    INTERNAL = "internal"
    """Not applied; InternalFailure, 500."""
    UNAVAILABLE = "unavailable"
    """Not applied; 503 and no body that a client knows, as a balancer answers."""
    RESET_BEFORE = "reset_before"
    """Not applied; the connection is reset."""
    RESET_AFTER = "reset_after"
    """Applied; the connection is reset, the acknowledgement is lost."""
    ERROR_AFTER = "error_after"
    """Applied; answered with InternalFailure."""
    SLOW = "slow"
    """Applied and answered after ``slow_s``."""
    EXPIRED = "expired"
    """GetRecords: the iterator has expired, however young it is."""
    EMPTY = "empty"
    """GetRecords: no records though there are some (Developer Guide, "GetRecords returns empty records array even
    when there is data in the stream")."""
    PARTIAL = "partial"
    """PutRecords: some records fail, throttled or with InternalFailure; at least one."""
    CUT = "cut"
    """SubscribeToShard: the connection is closed in the middle of an event, at the latest the third."""


_ONLY_OF = {
    Fault.EXPIRED: "GetRecords",
    Fault.EMPTY: "GetRecords",
    Fault.PARTIAL: "PutRecords",
    Fault.CUT: "SubscribeToShard",
}

_THROTTLED_BY_THROUGHPUT = {"GetRecords", "GetShardIterator", "PutRecord", "PutRecords"}


def random_faults(seed: int, rates: Mapping[Fault, float]) -> Iterator[Fault | None]:
    """One fault, or none, a call, endlessly, with these probabilities."""
    dice = random.Random(seed)  # noqa: S311 - repeatable on purpose
    faults = [*rates, None]
    weights = [*rates.values(), 1.0 - sum(rates.values())]
    while True:
        yield dice.choices(faults, weights)[0]


class Faults:
    """The n-th call of an operation meets the n-th fault of its script; after the last there are none.

    ``calls`` and ``fired`` count by operation, and by operation and fault: ``GetRecords``, ``GetRecords.throttle``.
    """

    def __init__(self, scripts: Mapping[str, Iterable[Fault | None]]) -> None:
        self._scripts: dict[str, Iterator[Fault | None]] = {}
        self.calls: Counter[str] = Counter()
        self.fired: Counter[str] = Counter()
        self.replace(scripts)

    def replace(self, scripts: Mapping[str, Iterable[Fault | None]]) -> None:
        """Other faults from the next call on."""
        self._scripts = {operation: iter(script) for operation, script in scripts.items()}

    def next(self, operation: str) -> Fault | None:
        """Raises ``ValueError`` for a fault that the operation cannot have."""
        self.calls[operation] += 1
        fault = next(self._scripts[operation], None) if operation in self._scripts else None
        if fault is not None:
            if _ONLY_OF.get(fault, operation) != operation:
                raise ValueError(f"{fault} is a fault of {_ONLY_OF[fault]}, not of {operation}")
            self.fired[f"{operation}.{fault.value}"] += 1
        return fault


def raise_before(operation: str, fault: Fault | None) -> None:
    """Raises what a client gets that was refused before anything was done."""
    if fault is Fault.THROTTLE:
        message = "Rate exceeded, on purpose."
        if operation in _THROTTLED_BY_THROUGHPUT:
            raise throttled(message)
        raise KinesisError("LimitExceededException", message)
    if fault is Fault.INTERNAL:
        raise internal()
    if fault is Fault.UNAVAILABLE:
        raise internal(503)
    if fault is Fault.EXPIRED:
        raise KinesisError("ExpiredIteratorException", "Iterator expired, on purpose.")


def raise_after(fault: Fault | None) -> None:
    """Raises what a client gets although its call was applied."""
    if fault is Fault.ERROR_AFTER:
        raise internal()
