"""Two workers are killed at random while a producer produces and the store fails a tenth of its calls; then the audit.

``python -m loadtest.chaos --kills 50``
    Kills (SIGKILL, restarted each time) and faults; then ``run --until-end`` without either; then the audit, whose exit
    code this is.
``python -m loadtest.chaos --sigstop``
    Stops one worker (SIGSTOP) while its segment is claimed and undecided, for longer than its session, and continues it
    once the other worker has decided the segment. Then the same, and a look for anything that it published after.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtest.kafka_broker import KafkaBroker
from loadtest.ledger import Ledger
from loadtest.processes import Child, ProcessFailed
from loadtest.segments import Visible
from loadtest.stage import Stage, last_json, s3_store

INSTANCES = ("left", "right")

_DRAIN_WITHIN_S = 60.0
_STOP_FOR_S = 9.0
_CALLS_UNDER_WAY_S = 1.0


@dataclass(frozen=True)
class Scenario:
    """How much of what.

    records:  the least that is produced; producing goes on while there are kills to come
    rate:     records a second
    pause_s:  between two kills, from and to
    limit_s:  for each part of the run
    """

    kills: int = 50
    records: int = 400_000
    rate: float = 4_000.0
    pause_s: tuple[float, float] = (1.0, 8.0)
    interval: str = "1s"
    seed: int = 1
    limit_s: float = 900.0


class TooLong(Exception):
    """A part of the run did not end in its time."""


def wait_until(what: str, limit_s: float, is_so: Callable[[], bool], every_s: float = 0.2) -> None:
    """Raises ``TooLong``."""
    give_up_at = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > give_up_at:
            raise TooLong(f"not within {limit_s:.0f} s: {what}")
        time.sleep(every_s)


class Workers:
    """Separately started processes of one service, each a static member of the group."""

    def __init__(self, stage: Stage, configuration: Path) -> None:
        self._stage = stage
        self._configuration = configuration
        self._children: dict[str, Child] = {}

    def start(self, instance: str) -> None:
        self._children[instance] = self._stage.worker(self._configuration, instance)

    def __getitem__(self, instance: str) -> Child:
        return self._children[instance]

    def check(self) -> None:
        """Raises ``ProcessFailed`` if one has ended by itself."""
        for child in self._children.values():
            child.check_running()

    def drain(self) -> None:
        """Raises ``ProcessFailed`` unless each lands what is open and ends well.

        One that was restarted this moment does not listen to SIGTERM yet, and has nothing open."""
        for child in self._children.values():
            child.signal(signal.SIGTERM)
        for child in self._children.values():
            child.wait(_DRAIN_WITHIN_S, expected=(0, -signal.SIGTERM, 128 + signal.SIGTERM))

    def end(self) -> None:
        for child in self._children.values():
            child.end(0.0)


@contextmanager
def at_work(stage: Stage, scenario: Scenario) -> Iterator[tuple[Workers, Child]]:
    """Both workers and the producer; all have ended after the block, however it went."""
    configuration = stage.configuration("workers", faulty=True, interval=scenario.interval)
    workers = Workers(stage, configuration)
    producer = stage.producer(rate=scenario.rate, seed=scenario.seed)
    try:
        for instance in INSTANCES:
            workers.start(instance)
        yield workers, producer
    finally:
        producer.end()
        workers.end()


def acked(stage: Stage) -> int:
    """How many records the producer is sure of."""
    ledger = Ledger.read(stage.ledger) if stage.ledger.exists() else None
    return 0 if ledger is None else sum(end - first for pairs in ledger.acked.values() for first, end in pairs)


def kill_at_random(stage: Stage, scenario: Scenario) -> dict[str, int]:
    """The noisy part; how often each worker was killed."""
    chance = random.Random(scenario.seed)
    kills = dict.fromkeys(INSTANCES, 0)
    with at_work(stage, scenario) as (workers, producer):
        wait_until("some records are produced", 60.0, lambda: acked(stage) > 0)
        while sum(kills.values()) < scenario.kills:
            time.sleep(chance.uniform(*scenario.pause_s))
            workers.check()
            producer.check_running()
            instance = chance.choice(INSTANCES)
            workers[instance].kill()
            kills[instance] += 1
            workers.start(instance)
        wait_until("enough records are produced", scenario.limit_s, lambda: acked(stage) >= scenario.records)
        producer.signal(signal.SIGTERM)
        producer.wait(60.0)
        workers.drain()
    return kills


def chaos(stage: Stage, scenario: Scenario) -> int:
    """The whole run; prints what happened. The audit's exit code."""
    began = time.monotonic()
    kills = kill_at_random(stage, scenario)
    print(f"kills: {sum(kills.values())} {kills}", flush=True)
    print(f"faults: {stage.store.faults()}", flush=True)
    print(f"produced: {last_json(stage.directory / 'producer.log')}", flush=True)
    print(f"finished: {stage.finish(stage.configuration('finish'), scenario.limit_s)}", flush=True)
    print(f"segments: {stage.store.visible.census()}", flush=True)
    print(f"found claimed and undecided, and finished: {stage.said('finishing a segment')}", flush=True)
    code, text = stage.audit()
    print(text, end="")
    print(f"{time.monotonic() - began:.0f} s in all", flush=True)
    return code


def stop_in_mid_landing(stage: Stage, scenario: Scenario) -> int:
    """The audit's exit code, or 1 if the stopped worker published anything after it was continued."""
    visible = stage.store.visible
    with at_work(stage, scenario) as (workers, producer):
        wait_until("some records are produced", 60.0, lambda: acked(stage) > 0)
        instance, segment = stop_one(visible, workers, scenario.limit_s)
        print(f"stopped {instance}; its segment {segment} is claimed and undecided", flush=True)
        time.sleep(_STOP_FOR_S)
        wait_until("the other worker decides it", 120.0, lambda: visible.outcome(segment) is not None)
        outcome, before = visible.outcome(segment), visible.published(segment)
        assert outcome is not None
        print(f"{outcome.state} by {outcome.worker} with {len(before)} objects; continuing {instance}", flush=True)
        workers[instance].signal(signal.SIGCONT)
        enough = acked(stage) + int(10 * scenario.rate)
        wait_until("producing goes on for ten seconds", 120.0, lambda: acked(stage) >= enough)
        workers.check()
        producer.signal(signal.SIGTERM)
        producer.wait(60.0)
        workers.drain()
    print(f"finished: {stage.finish(stage.configuration('finish'), scenario.limit_s)}", flush=True)
    new = sorted(set(visible.published(segment)) - set(before))
    strays = visible.strays()
    print(f"published of that segment after it was decided: {new or 'nothing'}", flush=True)
    print(f"objects of segments that were not committed: {strays or 'none'}", flush=True)
    code, text = stage.audit()
    print(text, end="", flush=True)
    return 1 if new or strays else code


def stop_one(visible: Visible, workers: Workers, limit_s: float) -> tuple[str, str]:
    """SIGSTOP a worker whose segment is claimed and has no outcome, also not once the worker stands still.

    The instance and its segment."""
    give_up_at = time.monotonic() + limit_s
    while time.monotonic() < give_up_at:
        workers.check()
        plans = [plan for plan in map(visible.claimed, visible.undecided()) if plan is not None]
        for instance in INSTANCES:
            mine = [plan.segment for plan in plans if plan.worker.startswith(instance)]
            if mine:
                workers[instance].signal(signal.SIGSTOP)
                time.sleep(_CALLS_UNDER_WAY_S)
                if visible.claimed(mine[0]) is not None:
                    return instance, mine[0]
                workers[instance].signal(signal.SIGCONT)
    raise TooLong(f"no worker was caught in mid-landing within {limit_s:.0f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kills", type=int, default=Scenario.kills)
    parser.add_argument("--records", type=int, default=Scenario.records, help="at least so many are produced")
    parser.add_argument("--rate", type=float, default=Scenario.rate, help="records a second")
    parser.add_argument("--fault-share", type=float, default=0.1, help="of the store's calls")
    parser.add_argument("--delay-s", type=float, help="of every call to the store; default 0.05, 0.1 with --sigstop")
    parser.add_argument("--seed", type=int, default=Scenario.seed)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--sigstop", action="store_true", help="stop one worker in mid-landing instead of killing")
    parser.add_argument("--directory", type=Path, help="keep everything here; default: a temporary one")
    given = parser.parse_args(arguments)
    scenario = Scenario(given.kills, given.records, given.rate, seed=given.seed)
    delay_s = given.delay_s if given.delay_s is not None else 0.1 if given.sigstop else 0.05
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary, KafkaBroker() as broker:
        directory = given.directory or Path(temporary)
        broker.create_topic("access", given.partitions)
        with s3_store(directory, fault_share=given.fault_share, delay_s=delay_s, seed=given.seed) as store:
            stage = Stage(directory, broker.bootstrap, "access", store)
            try:
                return stop_in_mid_landing(stage, scenario) if given.sigstop else chaos(stage, scenario)
            except (ProcessFailed, TooLong) as failure:
                print(failure, file=sys.stderr)
                return 1


if __name__ == "__main__":
    sys.exit(main())
