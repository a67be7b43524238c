"""A real broker, a topic of 4 partitions, 1,000,000 access log lines with malformed ones among them -> ``streamsvc run
--until-end`` -> the audit.

``python -m loadtest.million``; the exit code is the audit's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtest.kafka_broker import KafkaBroker
from loadtest.stage import Stage, last_json, local_store, s3_store
from streamsvc.testing.access_logs import Form

_WITHIN_S = 900.0


def run(stage: Stage, records: int, workers: int, malformed_share: float) -> int:
    """Produce, land, audit; prints what each of them said."""
    producer = stage.producer(records=records, malformed_share=malformed_share)
    try:
        producer.wait(_WITHIN_S)
    finally:
        producer.end()
    print(f"produced: {last_json(producer.output)}", flush=True)
    landed = stage.finish(stage.configuration("service", workers=workers), _WITHIN_S)
    print(f"landed: {landed}", flush=True)
    code, text = stage.audit()
    print(text, end="", flush=True)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.million", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--form", choices=("combined", "json"), default="combined")
    parser.add_argument("--malformed-share", type=float, default=0.001)
    parser.add_argument("--s3", action="store_true", help="land in an S3 server instead of a local directory")
    parser.add_argument("--directory", type=Path, help="keep everything here; default: a temporary one")
    given = parser.parse_args(arguments)
    form: Form = given.form
    with tempfile.TemporaryDirectory(prefix="million-") as temporary, KafkaBroker() as broker:
        directory = given.directory or Path(temporary)
        broker.create_topic("access", given.partitions)
        with s3_store(directory) if given.s3 else local_store(directory) as store:
            stage = Stage(directory, broker.bootstrap, "access", store, form)
            return run(stage, given.records, given.workers, given.malformed_share)


if __name__ == "__main__":
    sys.exit(main())
