"""What a person meets who types something wrong: one line that says what and what next, and never a traceback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from streamsvc.cli import main
from streamsvc.commands.housekeeping import effect
from streamsvc.commands.validate import validate
from streamsvc.core.kinesis_positions import END, position_after
from streamsvc.core.offsets import position_of

CONFIGURATION = """\
service: s
state: file://{folder}/state
workers: 2
http: null
pipelines:
  access:
    source: {{kafka: {{brokers: "127.0.0.1:1", topics: [access]}}}}
    decode: {{apache: combined}}
    sink: {{path: "file://{folder}/lake"}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "pipeline.yaml"
    file.write_text(CONFIGURATION.format(folder=tmp_path))
    return file


def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """The exit code of a command line, and what it said on standard error."""
    monkeypatch.setattr(sys, "argv", ["streamsvc", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return int(end.value.code or 0), said


def test_what_fails_is_not_taken_down() -> None:
    """A thread of a native client that comes back to an interpreter at its end aborts the process."""
    code = "import atexit, os, sys; atexit.register(os.abort); from streamsvc.__main__ import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "validate", "none.yaml"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("none.yaml:1:1: cannot be read")


def test_a_pipeline_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    """Also with several workers: it is said once, before any of them is started."""
    code, said = typed(monkeypatch, capsys, "run", file, "-p", "acess")
    assert (code, said) == (2, "no pipeline 'acess'; there are: access\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_ends_run_is_a_line_of_its_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path, workers: int
) -> None:
    """Where the log is JSON, whoever collects it parses every line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = file.read_text().replace("http: null", f"http: {{listen: '{address}'}}")
        file.write_text(text.replace("workers: 2", f"workers: {workers}"))
        code, said = typed(monkeypatch, capsys, "run", file)
    last = json.loads(said.splitlines()[-1])
    assert code == 1
    assert (last["level"], last["error"], last["listen"]) == ("error", "http.listen: the port is taken", address)


def test_a_summary_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    """It is said before the work, not after it."""
    code, said = typed(monkeypatch, capsys, "run", file, "--summary", tmp_path / "no" / "summary.json")
    assert code == 2
    assert said.endswith("summary.json: cannot be written: No such file or directory\n")


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("5", "an offset is a place in one split: name it with --split"),
        ("tomorrow", "write earliest, latest, an offset, or a time"),
        ("committed", "write earliest, latest, an offset, or a time"),
        ("--", "write earliest, latest, an offset, or a time"),
        ("٣", "write earliest, latest, an offset, or a time"),
        ("2026-13-01T00:00:00Z", "write earliest, latest, an offset, or a time"),
        ("2026-01-01T00:00:00", "the time has no zone"),
        ("0001-01-01T00:00:00Z", "before 1970"),
    ],
)
def test_a_place_to_seek_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path, to: str, says: str
) -> None:
    """Before the broker is asked: there is none here."""
    code, said = typed(monkeypatch, capsys, "seek", file, "-p", "access", f"--to={to}")
    assert code == 2
    assert said.startswith(f"--to {to}: ")
    assert says in said


@pytest.mark.parametrize(
    ("decoder", "says"),
    [
        ("jsn", "--as jsn: write apache=combined, "),
        ("json", "--as json: write apache=combined, "),
        ("raw=strin", "--as raw=strin: write apache=combined, "),
        ("apache=combind", "--as apache=combind: no Apache log format is called 'combind'; did you mean combined?"),
        ("json=nowhere.json", "--as json=nowhere.json: cannot be read: No such file or directory"),
    ],
)
def test_a_decoder_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], decoder: str, says: str
) -> None:
    code, said = typed(monkeypatch, capsys, "decode", "-", "--as", decoder)
    assert code == 2
    assert said.startswith(says)
    assert "pydantic" not in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": "int64",}', ":1:14: not JSON: "),
        ('["a"]', ":1:1: must be one JSON object of columns and types"),
        ('{"a": 1}', ":1:1: must be one JSON object of columns and types"),
        ('{"a": "intt", "b": "strin"}', "column 'b': type 'strin'"),
    ],
)
def test_a_file_of_columns_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, says: str
) -> None:
    columns = tmp_path / "columns.json"
    columns.write_text(text)
    code, said = typed(monkeypatch, capsys, "decode", "-", "--as", f"json={columns}")
    assert code == 2
    assert says in said


def test_a_demo_where_no_folder_can_be(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = typed(monkeypatch, capsys, "demo", "--lake", "/proc/nowhere")
    assert code == 1
    assert said.startswith("Fatal: this folder cannot be made: No such file or directory (folder=/proc/nowhere)")


@pytest.mark.parametrize("words", [("demo", "--seconds", "-5"), ("demo", "--rate", "0"), ("preview", "f", "--rows=-1")])
def test_a_number_that_makes_no_sense(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code, said = typed(monkeypatch, capsys, *words)
    assert code == 2
    assert "Invalid value" in said


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(monkeypatch, capsys, "--version") == (0, "")


def test_an_interrupt_while_modules_are_loaded(tmp_path: Path) -> None:
    """Somebody changes their mind at once."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-m", "streamsvc", "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize(
    ("now", "then", "says"),
    [
        (position_of(1160), position_of(0), "from 1,160 to 0: 1,160 offsets are read again, and what of them has"),
        (position_of(5), position_of(9), "from 5 to 9: 4 offsets never land"),
        (position_of(5), position_of(5), "stays at 5"),
        (
            position_after("49657018034567890123456789012345678901234567890123456789"),
            END,
            "has not landed of it never will",
        ),
    ],
)
def test_a_seek_says_what_it_does_to_the_lake(now: str, then: str, says: str) -> None:
    assert says in effect(now, then)


def test_a_size_that_lacks_its_unit_is_noticed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(file.read_text().replace('/lake"}', '/lake", buffer: {size: 128}}'))
    assert validate(file, online=False) == 0
    assert "warning: pipelines.access.sink.buffer.size is 128 bytes" in capsys.readouterr().out
