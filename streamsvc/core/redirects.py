"""The decision to write the objects of a pending segment elsewhere: its destination cannot be written any more."""

from __future__ import annotations

from dataclasses import dataclass

from streamsvc.core.segments import Stored

REDIRECTS = "redirects/"


@dataclass(frozen=True, slots=True)
class Redirect(Stored):
    """Made once for a segment, by a person, before anything is written elsewhere; whoever finishes the segment obeys.

    to:     address of a former destination -> the one in its place
    gone:   what may be at the former destination counts for nothing; else objects that are there stay, and count
    reason: for people
    """

    segment: str
    to: dict[str, str]
    gone: bool = False
    reason: str = ""

    @property
    def note(self) -> str:
        places = ", ".join(f"{former} to {place}" for former, place in self.to.items())
        what = f"redirected from {places}{', where nothing counts' if self.gone else ''}"
        return f"{what}: {self.reason}" if self.reason else what


def redirect_key(segment: str) -> str:
    return f"{REDIRECTS}{segment}.json"
