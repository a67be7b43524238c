"""``streamsvc decode`` through real pipes."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

GOOD = b'::1 - bob [24/Nov/2026:10:00:00 +0100] "GET /a HTTP/1.1" 200 12 "-" "curl"'
COMMAND = [sys.executable, "-m", "streamsvc", "decode", "--as", "apache=combined"]


def test_a_line_is_printed_when_it_comes() -> None:
    with subprocess.Popen([*COMMAND, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(GOOD + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["response"] == 200
        process.stdin.close()
        assert process.wait(20) == 0


def test_nobody_reads_on(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    file.write_bytes((GOOD + b"\n") * 50_000)
    reading, writing = os.pipe()
    with subprocess.Popen([*COMMAND, str(file)], stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        os.read(reading, 100)
        os.close(reading)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, b"")


def test_rejects_are_counted_and_kept_where_they_are_wanted(tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.json"
    done = subprocess.run(
        [*COMMAND, "-", "--rejects", str(rejects)], input=b"nonsense\n" + GOOD, capture_output=True, check=True
    )
    assert b"1 of 2 lines were rejected" in done.stderr
    assert len(rejects.read_bytes().splitlines()) == len(done.stdout.splitlines()) == 1


def test_what_cannot_be_read_is_told() -> None:
    for arguments in (["no-such-file", "--as", "raw"], ["-", "--as", "apache=%{"], ["-", "--as", "cvs"]):
        done = subprocess.run([*COMMAND[:4], *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert done.returncode == 2, done
        assert b"Traceback" not in done.stderr


def test_a_compressed_file_is_named_as_such(tmp_path: Path) -> None:
    file = tmp_path / "access.log.gz"
    file.write_bytes(gzip.compress(GOOD + b"\n"))
    done = subprocess.run([*COMMAND, str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is compressed; write gzip -dc FILE | streamsvc decode --as apache=combined -" in done.stderr


def test_a_full_disk_is_told() -> None:
    """Every write to this device fails as on a full disk."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, "-"], input=GOOD, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"No space left on device: standard input or output\n")
    done = subprocess.run(
        [*COMMAND, "-", "--rejects", "/dev/full"], input=b"nonsense", capture_output=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"No space left on device: ")
    assert b"Traceback" not in done.stderr


def test_closed_streams_are_told() -> None:
    for closed in ("<&-", ">&-"):
        done = subprocess.run(
            ["bash", "-c", f'"$@" {closed}', "bash", *COMMAND, "-"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (2, b"standard input or output is closed\n")


def test_rejects_never_empty_what_is_to_be_read(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    file.write_bytes(b"nonsense\n")
    done = subprocess.run([*COMMAND, str(file), "--rejects", str(file)], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(b": that is the file to read\n")
    assert file.read_bytes() == b"nonsense\n"
