"""How long to wait before the same is tried again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Twice as long after every failure, from ``first_s`` to ``longest_s`` seconds, and up to half less at random: so
    that those who failed together do not come again together."""

    first_s: float = 0.1
    longest_s: float = 10.0

    def wait_s(self, failures: int, dice: float) -> float:
        """failures: in a row, before the last one; dice: from 0 to 1"""
        return min(self.longest_s, self.first_s * 2.0 ** min(failures, 20)) * (0.5 + dice / 2)
