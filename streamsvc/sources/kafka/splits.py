"""Names of splits: ``topic@partition.<topic id>``, so that a topic created anew has other splits than the old one.

A broker that gives topics no id (Kafka before 2.8) has splits without the last part.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from streamsvc.records import Split


class Partition(NamedTuple):
    """A partition as Kafka's protocol names it."""

    topic: str
    number: int


class SplitName(NamedTuple):
    partition: Partition
    topic_id: str

    @property
    def text(self) -> Split:
        suffix = f".{self.topic_id}" if self.topic_id else ""
        return f"{self.partition.topic}@{self.partition.number}{suffix}"


def parse_split(split: Split) -> SplitName:
    topic, _, rest = split.rpartition("@")
    number, _, topic_id = rest.partition(".")
    return SplitName(Partition(topic, int(number)), topic_id)


_SPLIT = re.compile(r"([^@]+)@\d+(\.[\w-]+)?")


def topic_of(split: Split) -> str | None:
    """``None``: it is no split of a topic."""
    match = _SPLIT.fullmatch(split)
    return match[1] if match else None
