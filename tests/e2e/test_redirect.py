"""A sink that can never be written again, from the first failure to the last row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streamsvc.commands.redirect import redirect
from streamsvc.commands.run import run
from streamsvc.errors import StoreRefused
from streamsvc.runtime.supervisor import FAILED
from streamsvc.testing.mock_broker import MockBroker

FILE = """
service: redirect
state: file://{folder}/state
http: null
pipelines:
  numbers:
    source: {{kafka: {{brokers: "{brokers}", topics: [numbers], group: "{group}"}}}}
    decode: {{json: {{schema: {{n: int64}}}}}}
    sink:
      path: "{sink}"
      format: json
      compression: none
      partition_by: {{odd: n % 2}}
    rejects: {{path: "{rejects}"}}
"""


@pytest.fixture
def broker() -> Iterator[MockBroker]:
    with MockBroker() as broker:
        broker.make_topic("numbers")
        yield broker


class Bench:
    """Each run is of another group, and is made the owner of the log: the mock cluster waits out the sessions of
    members that are gone."""

    def __init__(self, folder: Path, broker: MockBroker) -> None:
        self._place, self._runs = "", 0
        self.folder = folder
        self.file = folder / "pipeline.yaml"
        self._broker = broker

    def produce(self, numbers: range) -> None:
        producer = Producer({"bootstrap.servers": self._broker.address, "log_level": 0})
        for number in numbers:
            producer.produce("numbers", json.dumps({"n": number}).encode() if number % 5 else b"no JSON", partition=0)
        assert producer.flush(20) == 0

    def configure(self, place: str) -> None:
        self._place = place
        text = FILE.format(
            folder=self.folder,
            brokers=self._broker.address,
            group=f"group-{self._runs}",
            sink=f"file://{self.folder}/{place}/lake",
            rejects=f"file://{self.folder}/{place}/rejects",
        )
        self.file.write_text(text)

    def run(self) -> int:
        self._runs += 1
        self.configure(self._place)
        (self.folder / "state/numbers/owner.json").unlink(missing_ok=True)
        return run(self.file, None, until_end=True, fail_on_rejects=False, summary=None)

    def refused(self, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
        """What the log says last of a run that has failed."""
        assert self.run() == FAILED
        failure = json.loads(capsys.readouterr().err.splitlines()[-1])
        assert failure["error_kind"] == "StoreRefused"
        return dict(failure)

    def redirect(self, **more: bool) -> int:
        return redirect(self.file, "numbers", gone=more.get("gone", False), reason="the disk is gone")

    def landed(self, *places: str) -> list[int]:
        files = [path for place in places for path in (self.folder / place).rglob("odd=*/*.json")]
        return sorted(json.loads(line)["n"] for path in files for line in path.read_text().splitlines())


@pytest.fixture
def bench(tmp_path: Path, broker: MockBroker) -> Bench:
    return Bench(tmp_path, broker)


def test_a_place_that_was_never_one(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    (bench.folder / "file").write_bytes(b"")
    bench.produce(range(100))
    bench.configure("file")
    assert "the file system said" in bench.refused(capsys)["error"]
    bench.configure("new")
    refused = bench.refused(capsys)
    assert "a pending segment cannot be written to where it was to go" in refused["error"]
    assert "streamsvc redirect" in refused["hint"]
    assert bench.redirect() == 0
    assert "the disk is gone" in capsys.readouterr().out
    bench.produce(range(100, 150))
    assert bench.run() == 0
    assert bench.landed("new") == [number for number in range(150) if number % 5]
    assert bench.redirect() == 0
    assert "no segment is pending" in capsys.readouterr().out


def test_what_had_landed_before_stays_where_it_is(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """One partition of the segment is visible when its neighbour is refused: a file is in the place of its folder."""
    (bench.folder / "old" / "lake").mkdir(parents=True)
    (bench.folder / "old" / "lake" / "odd=1").write_bytes(b"")
    bench.produce(range(100))
    bench.configure("old")
    bench.refused(capsys)
    assert bench.landed("old") == [number for number in range(0, 100, 2) if number % 5]
    bench.configure("new")
    assert bench.redirect() == 0
    assert bench.landed("new") == [number for number in range(1, 100, 2) if number % 5]
    assert bench.run() == 0
    assert bench.landed("old", "new") == [number for number in range(100) if number % 5]


def test_what_is_gone_counts_for_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    (bench.folder / "old" / "lake").mkdir(parents=True)
    (bench.folder / "old" / "lake" / "odd=1").write_bytes(b"")
    bench.produce(range(20))
    bench.configure("old")
    bench.refused(capsys)
    bench.configure("new")
    assert bench.redirect(gone=True) == 0
    assert bench.landed("new") == [number for number in range(20) if number % 5]


def test_where_it_goes_must_be_writable_before_it_is_decided(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    (bench.folder / "file").write_bytes(b"")
    (bench.folder / "other").write_bytes(b"")
    bench.produce(range(20))
    bench.configure("file")
    bench.refused(capsys)
    bench.configure("other")
    with pytest.raises(StoreRefused, match="the file system said"):
        bench.redirect()
    (bench.folder / "other").unlink()
    assert bench.redirect() == 0
    assert bench.landed("other") == [number for number in range(20) if number % 5]
    assert list((bench.folder / "other").rglob(".streamsvc-redirect*")) == []
