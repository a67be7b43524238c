"""How often one shard may be asked, and how long is waited after a failure. Pure: the clock is an argument, in seconds.

A throttle is an answer, and others read the shard as well: it is waited out for two seconds at most. Where nothing
answers, waits grow to ten. One success ends either.

A shard answers five GetRecords calls and 2 MiB a second, all consumers together, and refuses more (AWS API reference,
GetRecords: after 10 MiB, calls within the next five seconds are refused).
"""

from __future__ import annotations

CALLS_PER_S = 5.0
BYTES_PER_S = 2.0 * 1024 * 1024
TIP_INTERVAL_S = 0.22
"""Between calls at the tip: a little less than is allowed, so that a record waits 0.11 s at the median."""

THROTTLED_S = 2.0
OUTAGE_S = 10.0
RETRY_S = 0.25
LONG = 6
"""So many failures in a row are told, also where one is nothing to speak of."""

BURST_S = 1.0
MENDS = 0.7
"""So the interval stays bounded while fewer than one in three of the calls that a shard decides on is refused: whatever
else becomes of a call must not count as refused, and what is let through must mend, also where it fails."""


class Pace:
    """Of one shard. While behind, calls follow one another as the two limits allow; at the tip at an even interval.
    Other consumers take their share: a refusal doubles the interval, each call that is let through mends it."""

    def __init__(self) -> None:
        self._interval_s = 0.0
        self._last_call = float("-inf")
        self._calls = CALLS_PER_S * BURST_S
        self._bytes = BYTES_PER_S * BURST_S
        self._filled_at = 0.0
        self._at_tip = False

    def wait_s(self, now: float) -> float:
        """How long from now until the next call may be made; 0: it may be now."""
        self._fill(now)
        interval_s = max(self._interval_s, TIP_INTERVAL_S if self._at_tip else 0.0)
        return max(
            0.0,
            self._last_call + interval_s - now,
            (1.0 - self._calls) / CALLS_PER_S,
            -self._bytes / BYTES_PER_S,
        )

    def calls(self, now: float) -> None:
        """A call is made now."""
        self._fill(now)
        self._calls -= 1.0
        self._last_call = now

    def answered(self, nbytes: int, *, at_tip: bool) -> None:
        """nbytes: of records, as the shard counts them; more than a second's share is paid off before the next call"""
        self._bytes -= nbytes
        self._at_tip = at_tip
        self.let_through()

    def let_through(self) -> None:
        """Not refused, whether or not anything came of it."""
        self._interval_s *= MENDS

    def refused(self) -> None:
        """Too many calls or bytes: somebody else reads this shard, too."""
        self._interval_s = min(THROTTLED_S, max(2.0 * self._interval_s, 2.0 * TIP_INTERVAL_S))

    def _fill(self, now: float) -> None:
        passed_s = now - self._filled_at
        self._filled_at = now
        self._calls = min(CALLS_PER_S * BURST_S, self._calls + passed_s * CALLS_PER_S)
        self._bytes = min(BYTES_PER_S * BURST_S, self._bytes + passed_s * BYTES_PER_S)


class Backoff:
    """After failures in a row; throttles and outages, which end one another, each have a row of their own. Who fails
    together does not come back together: their names differ."""

    def __init__(self, name: str) -> None:
        self._spread = 1.0 - (sum(name.encode()) % 16) / 32
        self.reset()

    def reset(self) -> None:
        """A call has succeeded."""
        self._failures = 0
        self._wait_s = 0.0
        self._throttled = False

    def failed(self, *, throttled: bool = False) -> float:
        """How long to wait now. throttled: the service has answered, and does not want to be asked so often"""
        self._failures += 1
        in_a_row = throttled == self._throttled
        self._throttled = throttled
        self._wait_s = min(THROTTLED_S if throttled else OUTAGE_S, max(RETRY_S, 2.0 * self._wait_s * in_a_row))
        return self._wait_s * self._spread

    @property
    def is_long(self) -> bool:
        return self._failures >= LONG
