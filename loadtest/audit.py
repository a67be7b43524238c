"""The audit: is every acknowledged record in the lake or among the rejects, once, whole, and where it belongs?

``python -m loadtest.audit --lake s3://lake/access/ --rejects s3://lake/_rejects/access/ --ledger run.ledger``

It reads every object that a plain listing shows, knows each record by its stamp (``loadtest.stamps``), and compares
with what the producers' ledgers say. Exit code 0: nothing is wrong; 1: something is; 2: the run is void, because it was
too small, or because faults were to be injected and none was.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from loadtest.lake import Folder, StoredObject
from loadtest.landed import (
    NULL_PARTITION,
    Rows,
    Unreadable,
    check,
    in_chunks,
    place_of,
    read_rows,
    values_of,
    without_an_intact_row,
)
from loadtest.ledger import Ledger
from loadtest.stamps import read_stamp
from streamsvc.testing.access_logs import Form

FINE, WRONG, VOID = 0, 1, 2
PARTITIONS = {"date": "strftime(datetime, '%Y-%m-%d')", "response": "response"}

_NONE = pa.array([], pa.int32())
_FEWEST_RECORDS_A_SPLIT = 1_000
_EXAMPLES = 5
_MANY_SPLITS = 16
_REJECT_FIELDS = ("position", "arrival", "reason", "error")

_TABLES = """
    SET TimeZone = 'UTC';
    CREATE TABLE objects (object INTEGER, key VARCHAR, place VARCHAR);
    CREATE TABLE found (object INTEGER, landed BOOLEAN, producer VARCHAR, split INTEGER, seq BIGINT, intact BOOLEAN);
    CREATE TABLE misplaced (key VARCHAR, belongs VARCHAR);
    CREATE TABLE acked_ranges (producer VARCHAR, split INTEGER, first BIGINT, beyond BIGINT);
    CREATE TABLE malformed (producer VARCHAR, split INTEGER, seq BIGINT);
    CREATE VIEW acked AS SELECT producer, split, unnest(range(first, beyond)) AS seq FROM acked_ranges;
    CREATE VIEW known AS SELECT * FROM found WHERE producer IN (SELECT producer FROM acked_ranges);
"""

_RECORD = "producer || '/' || split || '/' || seq"
_WITH_KEY = f"coalesce({_RECORD}, 'no stamp') || ' in ' || key"

# What is wrong, as a query over the tables above: one row for each case, which says what and where.
_VIOLATIONS = {
    "lost": f"SELECT {_RECORD} FROM acked ANTI JOIN found USING (producer, split, seq)",
    "duplicated": f"""
        SELECT {_RECORD} || ' in ' || string_agg(key, ', ') OVER (PARTITION BY producer, split, seq)
        FROM known JOIN objects USING (object)
        QUALIFY row_number() OVER (PARTITION BY producer, split, seq ORDER BY key) > 1""",
    "corrupt": f"""
        SELECT {_WITH_KEY} FROM found JOIN objects USING (object)
        WHERE NOT intact OR producer IS NULL OR producer NOT IN (SELECT producer FROM acked_ranges)""",
    "misplaced": "SELECT 'a row of ' || belongs || ' in ' || key FROM misplaced",
    "rejected unexpectedly": f"""
        SELECT {_WITH_KEY} FROM known ANTI JOIN malformed USING (producer, split, seq) JOIN objects USING (object)
        WHERE NOT landed""",
    "landed though malformed": f"""
        SELECT {_WITH_KEY} FROM known SEMI JOIN malformed USING (producer, split, seq) JOIN objects USING (object)
        WHERE landed""",
}

_SPLITS = """
    SELECT split, acked, coalesce(landed, 0), coalesce(rejected, 0)
    FROM (SELECT split, sum(beyond - first)::BIGINT AS acked FROM acked_ranges GROUP BY split)
    LEFT JOIN (SELECT split, count(*) FILTER (landed) AS landed, count(*) FILTER (NOT landed) AS rejected
               FROM known GROUP BY split) USING (split)
    ORDER BY split
"""


@dataclass(frozen=True)
class Verdict:
    """What the audit found. ``examples`` names some cases of each violation."""

    violations: dict[str, int]
    examples: dict[str, list[str]]
    unreadable: list[str]
    acked: int
    landed: int
    rejected: int
    malformed: int
    unacknowledged: int
    objects: int
    splits: list[dict[str, int]]
    void: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        if any(self.violations.values()) or self.unreadable:
            return WRONG
        return VOID if self.void else FINE

    def __str__(self) -> str:
        totals = f"acked {self.acked}, landed {self.landed}, rejected {self.rejected} (malformed {self.malformed})"
        lines = [
            f"{totals}, sent but not acknowledged {self.unacknowledged}, objects {self.objects}",
            *self._by_split(),
            ", ".join(f"{name} {count}" for name, count in self.violations.items()),
            *(f"  {name}: {example}" for name, examples in self.examples.items() for example in examples),
            *(f"  unreadable: {key}" for key in self.unreadable),
            *(f"VOID: {reason}" for reason in self.void),
            {FINE: "PASSED", WRONG: "FAILED", VOID: "VOID"}[self.exit_code],
        ]
        return "\n".join(lines)

    def _by_split(self) -> list[str]:
        if len(self.splits) > _MANY_SPLITS:
            fewest, most = (choose(split["acked"] for split in self.splits) for choose in (min, max))
            return [f"{len(self.splits)} splits with {fewest} to {most} acknowledged records"]
        return [" ".join(f"{name} {value}" for name, value in split.items()) for split in self.splits]

    def as_json(self) -> dict[str, Any]:
        return {**self.__dict__, "exit_code": self.exit_code}


class Audit:
    """Takes ledgers, rows and rejects in, then answers a verdict."""

    def __init__(self, form: Form = "combined", partitions: dict[str, str] | None = None) -> None:
        self._form = form
        self._partitions = PARTITIONS if partitions is None else partitions
        self._sql = duckdb.connect()
        self._sql.execute(_TABLES)
        self._objects = 0
        self._unreadable: list[str] = []

    def add_ledger(self, ledger: Ledger) -> None:
        acked = [(ledger.producer, split, *pair) for split, pairs in ledger.acked.items() for pair in pairs]
        malformed = [(ledger.producer, split, seq) for split, seqs in ledger.malformed.items() for seq in seqs]
        self._insert("acked_ranges", ("producer", "split", "first", "beyond"), acked)
        self._insert("malformed", ("producer", "split", "seq"), malformed)

    def add_rows(self, objects: Iterable[StoredObject]) -> None:
        """Parquet objects of the sink."""
        strange: list[Rows] = []
        for rows in in_chunks(self._read(objects)):
            checked = check(self._sql, rows, self._form)
            suspects = without_an_intact_row(checked) if rows.from_path else _NONE
            if len(suspects):
                strange.append(rows.of(suspects))
                checked = checked.filter(pc.invert(pc.is_in(checked["object"], value_set=suspects)))
            self._note_landed(checked)
            self._check_places(rows)
        for rows in strange:
            self._find_home(rows)

    def add_rejects(self, objects: Iterable[StoredObject]) -> None:
        """Reject objects: gzipped JSON lines."""
        for stored in objects:
            number = self._note_object(stored.key)
            try:
                lines = gzip.decompress(stored.body).splitlines()
                found = [self._check_reject(number, json.loads(line)) for line in lines]
            except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
                self._unreadable.append(f"{stored.key}: {error}")
                continue
            self._insert("found", ("object", "landed", "producer", "split", "seq", "intact"), found)

    def verdict(self, faults: dict[str, int] | None = None) -> Verdict:
        """faults: how many were injected, by kind; ``None`` if none were to be."""
        violations, examples = {}, {}
        for name, query in _VIOLATIONS.items():
            violations[name] = self._count(query)
            if violations[name]:
                some = self._sql.execute(f"SELECT * FROM ({query}) LIMIT {_EXAMPLES}").fetchall()
                examples[name] = [str(row[0]) for row in some]
        rows = self._sql.execute(_SPLITS).fetchall()
        splits = [dict(zip(("split", "acked", "landed", "rejected"), row, strict=True)) for row in rows]
        return Verdict(
            violations=violations,
            examples=examples,
            unreadable=self._unreadable,
            acked=self._count("FROM acked"),
            landed=self._count("FROM found WHERE landed"),
            rejected=self._count("FROM found WHERE NOT landed"),
            malformed=self._count("FROM malformed"),
            unacknowledged=self._count("FROM known ANTI JOIN acked USING (producer, split, seq)"),
            objects=self._objects,
            splits=splits,
            void=self._reasons_for_void(splits, faults),
        )

    @staticmethod
    def _reasons_for_void(splits: list[dict[str, int]], faults: dict[str, int] | None) -> list[str]:
        reasons = [
            f"split {split['split']} has {split['acked']} acknowledged records, fewer than {_FEWEST_RECORDS_A_SPLIT}"
            for split in splits
            if split["acked"] < _FEWEST_RECORDS_A_SPLIT
        ]
        if not splits:
            reasons.append("no records")
        if faults is not None and not sum(faults.values()):
            reasons.append("no fault was injected")
        return reasons

    def _count(self, query: str) -> int:
        counted = self._sql.execute(f"SELECT count(*) FROM ({query})").fetchone()
        assert counted is not None
        return int(counted[0])

    def _insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        if rows:
            values = pa.table(
                {name: pa.array(column) for name, column in zip(columns, zip(*rows, strict=True), strict=True)}
            )
            self._sql.register("new", values)
            self._sql.execute(f"INSERT INTO {table} SELECT * FROM new")

    def _note_object(self, key: str) -> int:
        number, self._objects = self._objects, self._objects + 1
        self._sql.execute("INSERT INTO objects VALUES (?, ?, ?)", (number, key, place_of(key)))
        return number

    def _read(self, objects: Iterable[StoredObject]) -> Iterator[Rows]:
        for stored in objects:
            number = self._note_object(stored.key)
            try:
                yield read_rows(stored, number, self._form)
            except Unreadable as error:
                self._unreadable.append(str(error))

    def _note_landed(self, checked: pa.Table) -> None:
        self._sql.register("checked", checked)
        self._sql.execute("""
            INSERT INTO found SELECT object, true, nullif(producer, ''), split, seq, intact FROM checked""")

    def _check_places(self, rows: Rows) -> None:
        """By what the rows themselves say; values that are only in the path are for ``_find_home``."""
        if not self._partitions:
            return
        parts = [
            f"'{name}=' || coalesce(({value})::VARCHAR, '{NULL_PARTITION}')" for name, value in self._partitions.items()
        ]
        self._sql.register("rows_to_place", rows.table)
        self._sql.execute(f"""
            INSERT INTO misplaced SELECT key, belongs
            FROM (SELECT object, {" || '/' || ".join(parts)} AS belongs FROM rows_to_place)
            JOIN objects USING (object) WHERE place != belongs""")

    def _find_home(self, rows: Rows) -> None:
        """Objects without an intact row: in which other place would they have one? In none: they are corrupt."""
        places = self._sql.execute("SELECT DISTINCT place FROM objects ORDER BY ALL").fetchall()
        for (place,) in places:
            if not len(rows.table):
                return
            checked = check(self._sql, rows.moved_to(values_of(place)), self._form)
            strangers = without_an_intact_row(checked)
            at_home = checked.filter(pc.invert(pc.is_in(checked["object"], value_set=strangers)))
            self._note_landed(at_home)
            self._sql.execute("INSERT INTO misplaced SELECT key, ? FROM checked JOIN objects USING (object)", (place,))
            rows = rows.of(strangers)
        self._note_landed(check(self._sql, rows, self._form))

    @staticmethod
    def _check_reject(number: int, reject: dict[str, Any]) -> tuple[object, ...]:
        stamp = read_stamp(base64.b64decode(reject["raw_base64"], validate=True))
        if stamp is None:
            return number, False, None, None, None, False
        partition = re.search(r"@(\d+|shardId)", reject["split"])
        at_home = partition is not None and partition[1] in ("shardId", str(stamp.split))
        told = all(reject.get(name) for name in _REJECT_FIELDS)
        return number, False, stamp.producer, stamp.split, stamp.seq, stamp.intact and at_home and told


def read_faults(path: Path) -> dict[str, int]:
    """Counts by kind as ``loadtest.faulty_s3`` writes them."""
    faults: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["faults"]
    return faults


def audit(
    lake: str,
    rejects: str | None,
    ledgers: Iterable[Path],
    *,
    form: Form = "combined",
    partitions: dict[str, str] | None = None,
    endpoint_url: str | None = None,
    faults: dict[str, int] | None = None,
) -> Verdict:
    """The whole audit. lake, rejects: prefixes, ``file:///folder`` or ``s3://bucket/folder``."""
    running = Audit(form, partitions)
    for ledger in ledgers:
        running.add_ledger(Ledger.read(ledger))
    running.add_rows(Folder(lake, endpoint_url).objects())
    if rejects is not None:
        running.add_rejects(Folder(rejects, endpoint_url).objects())
    return running.verdict(faults)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.audit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--lake", required=True, help="prefix of the sink: file:///folder or s3://bucket/folder")
    parser.add_argument("--rejects", help="prefix of the rejects")
    parser.add_argument("--ledger", required=True, type=Path, nargs="+", help="every producer's")
    parser.add_argument("--form", choices=("combined", "json"), default="combined")
    parser.add_argument(
        "--partition", action="append", metavar="NAME=SQL", help="as in the sink; default date, response"
    )
    parser.add_argument("--endpoint-url", help="of the S3")
    parser.add_argument("--faults-log", type=Path, help="counts by loadtest.faulty_s3; a run without a fault is void")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    partitions = None if given.partition is None else dict(pair.split("=", 1) for pair in given.partition if pair)
    verdict = audit(
        given.lake,
        given.rejects,
        given.ledger,
        form=given.form,
        partitions=partitions,
        endpoint_url=given.endpoint_url,
        faults=None if given.faults_log is None else read_faults(given.faults_log),
    )
    print(json.dumps(verdict.as_json(), indent=2) if given.json else verdict)
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
