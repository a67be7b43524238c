"""What a producer is sure of: which records the broker has acknowledged, and which were malformed on purpose.

A file of JSON lines, only ever appended to. The first line says who produced what; then come
``{"split": 0, "malformed": [17, 405]}``, written before these are sent, and ``{"split": 0, "acked": [[0, 1000]]}``,
half-open ranges of seq, written after the acknowledgement. A last line that is cut off was not written.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Range = tuple[int, int]


class LedgerWriter:
    """Appends to a new ledger. Raises ``FileExistsError`` for one that is there."""

    def __init__(self, path: Path, producer: str, about: dict[str, Any]) -> None:
        self._file = path.open("x", encoding="utf-8")
        self._acked: dict[int, list[int]] = defaultdict(list)
        self._write({"producer": producer, **about})

    def malformed(self, split: int, seqs: Sequence[int]) -> None:
        """These are about to be sent."""
        self._write({"split": split, "malformed": list(seqs)})

    def acked(self, split: int, seq: int) -> None:
        """The broker has it. In the file after ``flush``."""
        self._acked[split].append(seq)

    def flush(self) -> None:
        for split, seqs in self._acked.items():
            if seqs:
                self._write({"split": split, "acked": ranges(seqs)})
                seqs.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()


def ranges(seqs: Iterable[int]) -> list[Range]:
    """Numbers as half-open ranges."""
    made: list[Range] = []
    for seq in sorted(seqs):
        if made and made[-1][1] == seq:
            made[-1] = (made[-1][0], seq + 1)
        else:
            made.append((seq, seq + 1))
    return made


@dataclass(frozen=True, slots=True)
class Ledger:
    """A ledger as it was read."""

    producer: str
    acked: dict[int, list[Range]] = field(default_factory=lambda: defaultdict(list))
    malformed: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, path: Path) -> Self:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        if not whole:
            raise ValueError(f"{path} is not a ledger: it has no first line")
        ledger = cls(whole[0]["producer"])
        for line in whole[1:]:
            ledger.acked[line["split"]] += [(first, end) for first, end in line.get("acked", ())]
            ledger.malformed[line["split"]] += line.get("malformed", ())
        return ledger
