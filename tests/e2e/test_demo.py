"""``streamsvc demo`` as a newcomer sees it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen


def test_the_demo_serves_its_status_page_and_says_where(tmp_path: Path) -> None:
    demo = ["-u", "-m", "streamsvc", "demo", "--seconds", "3", "--rate", "200", "--lake"]
    command = [sys.executable, *demo, str(tmp_path / "demo")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(2)]
            address = re.search(r"http://127\.0\.0\.1:\d+", said[1])
            assert address is not None, said
            with urlopen(address[0]) as answer:
                assert b"<title>demo</title>" in answer.read()
            out, err = process.communicate()
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert "lines in. Where they are" in out
    assert "The lake, asked by DuckDB" in out
