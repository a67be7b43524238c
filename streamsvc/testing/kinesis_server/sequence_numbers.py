"""Sequence numbers: 56 decimal digits that grow within a shard and name the shard that gave them.

The layout is the one that kinesalite found in AWS's answers (github.com/mhart/kinesalite, ``db/index.js``, version 2).
In hexadecimal digits from the left: ``2``, creation of the shard in seconds (9), last digit of the shard's index (1),
count of the record in the shard (16), 0 (2), arrival in seconds (9), index of the shard (8), ``2``. AWS promises only
that they grow: a client must not take them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

LAST_COUNT = 0x7FFF_FFFF_FFFF_FFFF
"""Counted to the end: what a closed shard's ``EndingSequenceNumber`` says."""

_TIME = 9 * 4
_COUNT_SHIFT = (2 + 9 + 8 + 1) * 4
_BETWEEN_SHIFT = (9 + 8 + 1) * 4
_TIME_SHIFT = (8 + 1) * 4
_SHARD_SHIFT = 4
_NIBBLE_SHIFT = _COUNT_SHIFT + 16 * 4
_CREATED_SHIFT = _NIBBLE_SHIFT + 4
_VERSION_SHIFT = _CREATED_SHIFT + _TIME


@dataclass(frozen=True, slots=True)
class SequenceNumbers:
    """The sequence numbers of one shard. ``created_s`` is what its numbers begin with, in whole seconds."""

    shard: int
    created_s: int

    def of(self, count: int, time_s: float) -> int:
        """Of the record that is the ``count``-th of the shard, from 1. 0: where the shard starts."""
        return self._fixed() + (count << _COUNT_SHIFT) + (int(time_s) << _TIME_SHIFT)

    def behind(self, count: int, time_s: float) -> int:
        """Of no record: greater than the ``count``-th, less than the one after it."""
        return self.of(count, time_s) + (1 << _BETWEEN_SHIFT)

    def gave(self, number: int) -> bool:
        """Whether this number can be of this shard."""
        return (
            shard_of(number) == self.shard
            and number >> _NIBBLE_SHIFT == self._fixed() >> _NIBBLE_SHIFT
            and number & 0xF == 2
        )

    def _fixed(self) -> int:
        return (
            (2 << _VERSION_SHIFT)
            + (self.created_s << _CREATED_SHIFT)
            + ((self.shard & 0xF) << _NIBBLE_SHIFT)
            + (self.shard << _SHARD_SHIFT)
            + 2
        )


def shard_of(number: int) -> int | None:
    """Index of the shard that a number names; ``None`` for what no shard gives."""
    if number >> _VERSION_SHIFT != 2 or number & 0xF != 2:
        return None
    return (number >> _SHARD_SHIFT) & 0xFFFF_FFFF
