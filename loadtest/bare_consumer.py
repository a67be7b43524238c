"""The least that reading can cost: a ``consume(20000)`` loop over a whole topic that looks at nothing.

Prints ``records, seconds, cpu_seconds, peak_rss_bytes`` as JSON, both times from the first record to the last.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

_BATCH = 20_000


def consume(brokers: str, topic: str, records: int) -> dict[str, float]:
    """Read ``records`` records of all partitions, from their beginning. Hangs if there are fewer."""
    settings = {
        "bootstrap.servers": brokers,
        "group.id": "bare-consumer",
        "enable.auto.commit": False,
        "fetch.queue.backoff.ms": 1,
    }
    consumer = Consumer(settings)
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    count = len(consumer.consume(1, 30.0))
    began, cpu_before = time.perf_counter(), _cpu_seconds()
    while count < records:
        count += len(consumer.consume(_BATCH, 1.0))
    seconds, cpu_seconds = time.perf_counter() - began, _cpu_seconds() - cpu_before
    consumer.close()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"records": count, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_bytes": rss}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bare_consumer", description=__doc__)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--records", required=True, type=int)
    given = parser.parse_args(arguments)
    print(json.dumps(consume(given.brokers, given.topic, given.records)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
