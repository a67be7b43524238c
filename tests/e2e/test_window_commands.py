"""Commands over a windowed pipeline, whether or not it runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as dataset
import pytest
from confluent_kafka import Producer

from streamsvc.app import load, window_log_of
from streamsvc.commands.end_split import end_split
from streamsvc.commands.housekeeping import gc
from streamsvc.commands.preview import preview
from streamsvc.commands.rejects import rejects
from streamsvc.commands.status import status
from streamsvc.errors import ConfigError
from streamsvc.testing.mock_broker import MockBroker

FILE = """\
service: windows
state: file://{folder}/state
http: null
pipelines:
  p:
    source: {{kafka: {{brokers: "{brokers}", topics: [numbers], group: group-{life}}}}}
    decode: {{json: {{schema: {{at: int64, group: string}}}}}}
    window:
      tumble: {tumble}
      time: {{column: at, unit: s}}
      disorder: 0s
      lateness: 0s
      interval: 1s
      group_by: [group]
      aggregate: {{n: count(*)}}
    sink: {{path: "file://{folder}/lake"}}
"""

START = 1_790_000_000
RECORDS = 300


class Service:
    def __init__(self, folder: Path, brokers: str) -> None:
        self.file = folder / "pipeline.yaml"
        self.lake = folder / "lake"
        self._folder, self._brokers = folder, brokers
        self._life = 0
        self.tumble = "100s"
        self.configure()

    def configure(self) -> None:
        text = FILE.format(folder=self._folder, brokers=self._brokers, tumble=self.tumble, life=self._life)
        self.file.write_text(text)

    def run(self, *flags: str, code: int = 0) -> str:
        """In a group of its own, made the owner of the log: the mock cluster lets a static member in again only when
        its session is over."""
        self._life += 1
        self.configure()
        (self._folder / "state/p/owner.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "streamsvc", "run", str(self.file), *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        return done.stderr


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A record a second, of three groups in turn; the last one is none. All are in one partition."""
    with MockBroker() as broker:
        broker.make_topic("numbers")
        producer = Producer({"bootstrap.servers": broker.address, "log_level": 0})
        for number in range(RECORDS):
            value = json.dumps({"at": START + number, "group": "abc"[number % 3]})
            producer.produce("numbers", value.encode(), partition=0)
        producer.produce("numbers", b"{", partition=0)
        assert producer.flush(20) == 0
        yield Service(tmp_path, broker.address)


def windows_of(service: Service, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert status(service.file, None, as_json=True) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)["p"]
    return answer


def test_open_windows_in_status_before_and_after_they_are_folded(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert windows_of(service, capsys)["windows"] is None
    service.run("--until-end")
    before = windows_of(service, capsys)["windows"]
    assert before["provisional"] is True
    assert sum(row["n"] for window in before["windows"] for row in window["rows"]) == RECORDS
    assert gc(service.file, None) == 0
    assert "checkpoint 1 of 4 splits" in capsys.readouterr().out
    after = windows_of(service, capsys)["windows"]
    assert {**after, "as_of": ""} == {**before, "as_of": ""}
    status(service.file, None, as_json=False)
    shown = capsys.readouterr().out
    assert (
        f"{before['open']} windows are open with {before['groups']} groups, as far as committed: provisional" in shown
    )
    assert "group a, n " in shown
    service.run("--until-end", "--close-windows")
    assert windows_of(service, capsys)["windows"]["open"] == 0
    found = dataset.dataset(sorted(map(str, service.lake.rglob("*.parquet")))).to_table()
    assert sum(found["n"].to_pylist()) == RECORDS


def test_other_windows_are_told_by_every_command(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.run("--until-end")
    service.tumble = "50s"
    service.configure()
    answer = windows_of(service, capsys)
    assert answer["windows"] is None
    assert "not those that it began with" in answer["windows_problem"]
    assert "not those that it began with" in service.run("--until-end", code=1)


def test_preview_shows_results_and_writes_nothing(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert preview(service.file, None, rows=1_000, show=3) == 0
    shown = capsys.readouterr().out
    assert "250 records: 0 late rows; rejected: malformed 1" in shown
    assert "of the newest:" in shown
    assert "window_end" in shown
    assert not service.lake.exists()


def test_rejects_are_shown_and_not_replayed(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.run("--until-end")
    assert rejects(service.file, None, replay=False, limit=5, as_json=False) == 0
    assert "malformed" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="are not replayed"):
        rejects(service.file, None, replay=True, limit=5, as_json=False)


def test_a_split_that_is_gone_is_named_and_ended(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """As that of a topic that was deleted: it has joined, and nobody will ever read it."""
    service.run("--until-end")

    async def haunt() -> None:
        found = await window_log_of(load(service.file), "p")
        assert found is not None
        await found[0].join(["ghost"], ["ghost"], {})

    asyncio.run(haunt())
    assert windows_of(service, capsys)["windows"]["held_by"] == "ghost"
    assert status(service.file, None, as_json=False) == 0
    assert "which is that of ghost since it began" in capsys.readouterr().out
    [alive] = [row["split"] for row in windows_of(service, capsys)["splits"] if row["committed"].endswith("301")]
    for split, why in ((alive, "is still there"), ("unknown", "no split unknown counts for windows")):
        with pytest.raises(ConfigError, match=why):
            end_split(service.file, "p", splits=[split], reason="", give_up=False)
    assert end_split(service.file, "p", splits=["ghost"], reason="deleted", give_up=True) == 0
    assert "ghost ended; windows now wait for numbers" in capsys.readouterr().out
    service.run("--until-end", "--close-windows")
    assert windows_of(service, capsys)["windows"]["open"] == 0


def test_close_windows_goes_with_until_end(service: Service) -> None:
    assert "goes with --until-end" in service.run("--close-windows", code=2)
