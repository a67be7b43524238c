"""The audit must catch every kind of damage, and nothing where there is none."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtest.audit import FINE, VOID, WRONG, Verdict, audit, main
from loadtest.ledger import Ledger, LedgerWriter, ranges
from loadtest.stamps import read_stamp, seq_of, stamped
from streamsvc.testing.access_logs import AccessLogs, Form
from tests.unit.test_access_logs import combined_fields, json_fields

START = datetime(2026, 11, 24, 23, 59, 50, tzinfo=UTC)
SPLITS = 2
RECORDS = 4_000


@dataclass(frozen=True)
class Run:
    """A lake as a faultless service leaves it."""

    root: Path

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    @property
    def rejects(self) -> Path:
        return self.root / "rejects"

    def audit(self, form: Form = "combined", faults: dict[str, int] | None = None) -> Verdict:
        ledgers = sorted(self.root.glob("*.ledger"))
        return audit(self.lake.as_uri(), self.rejects.as_uri(), ledgers, form=form, faults=faults)

    def a_file(self) -> Path:
        """A data file with rows of more than one record."""
        return max(self.lake.rglob("*.parquet"), key=lambda path: path.stat().st_size)


def combined_row(line: bytes) -> dict[str, Any] | None:
    fields = combined_fields(line)
    if fields is None:
        return None

    def text(field: bytes) -> str | None:
        return None if field == b"-" else field.decode().replace('\\"', '"').replace("\\\\", "\\")

    host, ident, user, time, request, response, nbytes, referer, agent = fields
    return {
        "host": text(host),
        "ident": text(ident),
        "authuser": text(user),
        "datetime": datetime.strptime(time.decode(), "%d/%b/%Y:%H:%M:%S %z"),
        "request": text(request),
        "response": int(response),
        "bytes": None if nbytes == b"-" else int(nbytes),
        "referer": text(referer),
        "agent": text(agent),
    }


def json_row(line: bytes) -> dict[str, Any] | None:
    record = json_fields(line)
    return record and {**record, "datetime": datetime.fromisoformat(str(record["datetime"]))}


def make_run(root: Path, form: Form = "combined", *, whole_rows: bool = True) -> Run:
    """Produce and land without a service: by regular expressions and ``json``, a file for each partition.

    whole_rows: whether the files have the column ``response``, which is in their path, too.
    """
    run = Run(root)
    logs = AccessLogs(11, START, form=form, malformed_share=0.01)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    refused: list[dict[str, Any]] = []
    with LedgerWriter(root / "p0.ledger", "p0", {}) as ledger:
        for number, line in enumerate(logs.lines(RECORDS)):
            seq, split = divmod(number, SPLITS)
            value = stamped(line, "p0", split, seq)
            if number in logs.malformed:
                ledger.malformed(split, [seq])
            ledger.acked(split, seq)
            row = combined_row(value) if form == "combined" else json_row(value)
            if row is None:
                raw = base64.b64encode(value).decode()
                refused.append(reject(split, raw))
            else:
                rows[f"date={row['datetime']:%Y-%m-%d}/response={row['response']}"].append(row)
    for place, members in rows.items():
        path = run.lake / place / "segment.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(
            pa.Table.from_pylist(members), path, compression="none", use_dictionary=False, write_statistics=False
        )
    write_rejects(run, refused)
    return run


def reject(split: int, raw: str) -> dict[str, Any]:
    why = {"reason": "shape", "error": "not a combined line"}
    where = {"split": f"access@{split}.topic-id", "position": "00000000000000000007", "arrival": "2026-11-24T23:59:51Z"}
    return {**where, **why, "raw_base64": raw}


def write_rejects(run: Run, refused: list[dict[str, Any]]) -> None:
    run.rejects.mkdir(exist_ok=True)
    body = "".join(json.dumps(reject) + "\n" for reject in refused)
    (run.rejects / "segment.json.gz").write_bytes(gzip.compress(body.encode()))


def read_rejects(run: Run) -> list[dict[str, Any]]:
    lines = gzip.decompress((run.rejects / "segment.json.gz").read_bytes()).splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module", params=["whole rows", "a column in the path"])
def pristine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("pristine"), whole_rows=request.param == "whole rows").root


@pytest.fixture
def run(pristine: Path, tmp_path: Path) -> Run:
    shutil.copytree(pristine, tmp_path / "run")
    return Run(tmp_path / "run")


def wrong(verdict: Verdict) -> dict[str, int]:
    return {name: count for name, count in verdict.violations.items() if count}


@pytest.mark.parametrize("form", ["combined", "json"])
def test_a_whole_lake_passes(tmp_path: Path, form: Form) -> None:
    verdict = make_run(tmp_path, form).audit(form)
    assert verdict.exit_code == FINE, str(verdict)
    assert verdict.acked == RECORDS
    assert verdict.rejected == verdict.malformed > 20
    assert verdict.landed + verdict.rejected == RECORDS
    assert [split["acked"] for split in verdict.splits] == [RECORDS // SPLITS] * SPLITS
    assert {path.name for path in (tmp_path / "lake").iterdir()} == {"date=2026-11-24", "date=2026-11-25"}


def test_a_deleted_file_is_loss(run: Run) -> None:
    rows = pq.read_metadata(run.a_file()).num_rows
    run.a_file().unlink()
    verdict = run.audit()
    assert wrong(verdict) == {"lost": rows}
    assert verdict.exit_code == WRONG


def test_a_copied_file_is_duplication(run: Run) -> None:
    rows = pq.read_metadata(run.a_file()).num_rows
    shutil.copy(run.a_file(), run.a_file().with_name("again.parquet"))
    assert wrong(run.audit()) == {"duplicated": rows}


def test_a_file_that_a_careless_listing_would_skip_counts_too(run: Run) -> None:
    rows = pq.read_metadata(run.a_file()).num_rows
    shutil.copy(run.a_file(), run.a_file().with_name("_hidden.parquet#1"))
    assert wrong(run.audit()) == {"duplicated": rows}


def test_a_row_that_is_also_a_reject_is_duplicated(run: Run) -> None:
    line = AccessLogs(11, START, malformed_share=0.01).lines(1)[0]
    raw = base64.b64encode(stamped(line, "p0", 0, 0)).decode()
    write_rejects(run, [*read_rejects(run), reject(0, raw)])
    assert wrong(run.audit()) == {"duplicated": 1, "rejected unexpectedly": 1}


def test_a_moved_file_is_misplaced(run: Run) -> None:
    rows = pq.read_metadata(run.a_file()).num_rows
    target = run.lake / "date=2026-11-24" / "response=999"
    target.mkdir()
    run.a_file().rename(target / "segment.parquet")
    assert wrong(run.audit()) == {"misplaced": rows}


def flip(path: Path, bits: int) -> None:
    """In the first request of a file."""
    body = bytearray(path.read_bytes())
    body[body.index(b"GET /") + 5] ^= bits
    path.write_bytes(body)


def test_a_flipped_byte_that_is_no_longer_text_makes_the_file_unreadable(run: Run) -> None:
    flip(run.a_file(), 0x80)
    verdict = run.audit()
    assert verdict.exit_code == WRONG
    assert len(verdict.unreadable) == 1


def test_a_flipped_byte_is_corruption(run: Run) -> None:
    path = run.a_file()
    flip(path, 0x02)
    verdict = run.audit()
    assert wrong(verdict) == {"corrupt": 1}
    assert path.name in verdict.examples["corrupt"][0]


def test_a_flipped_byte_in_a_number_is_corruption(run: Run) -> None:
    path = run.a_file()
    rows = pq.read_table(path, partitioning=None).to_pylist()
    rows[0]["bytes"] = (rows[0]["bytes"] or 0) ^ 1
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert wrong(run.audit()) == {"corrupt": 1}


def test_a_torn_file_is_named(run: Run) -> None:
    rows = pq.read_metadata(run.a_file()).num_rows
    path = run.a_file()
    path.write_bytes(path.read_bytes()[:-9])
    verdict = run.audit()
    assert wrong(verdict) == {"lost": rows}
    assert [path.name in entry for entry in verdict.unreadable] == [True]


def test_a_dropped_reject_is_loss(run: Run) -> None:
    write_rejects(run, read_rejects(run)[1:])
    assert wrong(run.audit()) == {"lost": 1}


def test_a_reject_with_a_changed_byte_or_another_split_or_no_reason_is_corrupt(run: Run) -> None:
    first, second, third, *rest = read_rejects(run)
    raw = bytearray(base64.b64decode(first["raw_base64"]))
    raw[0] ^= 1
    first["raw_base64"] = base64.b64encode(raw).decode()
    second["split"] = "access@7.topic-id"
    third["reason"] = ""
    write_rejects(run, [first, second, third, *rest])
    assert wrong(run.audit()) == {"corrupt": 3}


def test_a_malformed_record_that_landed_is_wrong(run: Run) -> None:
    ledger = run.root / "p0.ledger"
    ledger.write_text(ledger.read_text() + '{"split":0,"malformed":[0]}\n')
    assert wrong(run.audit()) == {"landed though malformed": 1}


def test_records_of_an_unknown_producer_are_corrupt(run: Run) -> None:
    (run.root / "p0.ledger").write_text('{"producer":"other"}\n{"split":0,"acked":[[0,1]]}\n')
    assert wrong(run.audit()) == {"lost": 1, "corrupt": RECORDS}


def test_what_was_sent_but_not_acknowledged_may_be_there_once(run: Run) -> None:
    ledger = run.root / "p0.ledger"
    whole = ledger.read_text()
    ledger.write_text(whole.replace(f'"acked":[[0,{RECORDS // SPLITS}]]', f'"acked":[[0,{RECORDS // SPLITS - 10}]]'))
    verdict = run.audit()
    assert (verdict.exit_code, verdict.unacknowledged) == (FINE, 10 * SPLITS)


def test_a_run_without_its_faults_is_void(run: Run) -> None:
    assert run.audit(faults={"before": 0, "after": 0}).exit_code == VOID
    assert run.audit(faults={"before": 0, "after": 3}).exit_code == FINE


def test_a_run_with_few_records_in_a_split_is_void(run: Run) -> None:
    (run.root / "p1.ledger").write_text('{"producer":"p1"}\n{"split":5,"acked":[[0,0]]}\n')
    verdict = run.audit()
    assert verdict.exit_code == VOID
    assert verdict.void == ["split 5 has 0 acknowledged records, fewer than 1000"]


def test_a_run_of_nothing_is_void(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.lake.mkdir()
    run.rejects.mkdir()
    assert run.audit().void == ["no records"]


def test_the_command_prints_the_verdict(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--lake", run.lake.as_uri(), "--rejects", run.rejects.as_uri()]
    arguments += ["--ledger", str(run.root / "p0.ledger")]
    assert main(arguments) == FINE
    assert "lost 0, duplicated 0, corrupt 0, misplaced 0" in capsys.readouterr().out
    run.a_file().unlink()
    assert main([*arguments, "--json"]) == WRONG
    assert json.loads(capsys.readouterr().out)["violations"]["lost"] > 0


@pytest.mark.parametrize("form", ["combined", "json"])
def test_every_record_is_known_by_its_stamp(form: Form) -> None:
    logs = AccessLogs(5, START, form=form, malformed_share=0.2)
    for seq, line in enumerate(logs.lines(5_000)):
        raw = stamped(line, "p7", 3, seq)
        stamp = read_stamp(raw)
        assert stamp is not None
        assert (stamp.producer, stamp.split, stamp.seq, stamp.intact) == ("p7", 3, seq, True)
        assert seq_of(raw) == seq
        changed = read_stamp(bytes([raw[0] ^ 1]) + raw[1:])
        assert changed is not None
        assert not changed.intact


def test_a_ledger_reads_back_without_its_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "p0.ledger"
    with LedgerWriter(path, "p0", {"topic": "access"}) as writer:
        writer.malformed(1, [3])
        for seq in (0, 1, 2, 5):
            writer.acked(1, seq)
    path.write_text(path.read_text() + '{"split":1,"acked":[[6,')
    ledger = Ledger.read(path)
    assert (ledger.producer, ledger.acked[1], ledger.malformed[1]) == ("p0", [(0, 3), (5, 6)], [3])
    assert ranges([]) == []
    with pytest.raises(FileExistsError):
        LedgerWriter(path, "p0", {})
