"""How fast decoders are, per core: ``python -m loadtest.decode_speed``.

Process CPU time, one thread, batches of 20,000 records that are held in memory. The machine is calibrated by a
kernel of Arrow that looks at each of the same bytes once (``count_substring``), so that figures from different machines
can be compared: ``passes`` says how many such passes a decoder costs.

``regular`` lines hold no escapes and nothing malformed; ``lifelike`` ones are the generator's: 10 % with escapes, odd
requests, 0.1 % malformed.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.contracts import Decoder
from streamsvc.decoders.apache import apache_decoder
from streamsvc.decoders.json import JsonDecoder
from streamsvc.decoders.json_types import parse_type
from streamsvc.testing.access_logs import JSON_COLUMNS, AccessLogs, Form

BATCH_ROWS = 20_000
BATCHES = 5
ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    decoder: Decoder
    batches: list[pa.Array]


def main() -> None:
    pa.set_cpu_count(1)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, pyarrow {pa.__version__}, batches of {BATCH_ROWS}"
    )
    print(f"{'':34}{'bytes':>7}{'ns a record':>13}{'M records/s':>13}{'passes':>8}")
    for case in cases():
        records = sum(map(len, case.batches))
        nbytes = sum(batch.nbytes for batch in case.batches) / records
        decode_s, calibration_s = measured(case)
        rate = f"{1e9 * decode_s / records:13.0f}{records / decode_s / 1e6:13.2f}{decode_s / calibration_s:8.1f}"
        print(f"{case.name:34}{nbytes:7.0f}{rate}")


def cases() -> list[Case]:
    combined = apache_decoder("combined")
    custom = apache_decoder('%h %l %u %t "%m %U%q %H" %>s %b "%{Referer}i" "%{User-Agent}i"')
    columns = {name: parse_type(text) for name, text in JSON_COLUMNS.items()}
    json, keep = JsonDecoder(columns), JsonDecoder(columns, "keep")
    lines, records = generated("combined"), generated("json")
    regular = [line for line in generated("combined", malformed_share=0.0) if b"\\" not in line]
    return [
        Case("apache combined, regular", combined, batched(regular)),
        Case("apache combined, lifelike", combined, batched(lines)),
        Case("apache custom LogFormat, lifelike", custom, batched(lines)),
        Case("json 11 fields, regular", json, batched(generated("json", malformed_share=0.0))),
        Case("json 11 fields, lifelike", json, batched(records)),
        Case("json 11 fields, keep new fields", keep, batched(generated("json", malformed_share=0.0))),
    ]


def generated(form: Form, malformed_share: float = 0.001) -> list[bytes]:
    start = datetime(2026, 11, 24, tzinfo=UTC)
    return AccessLogs(seed=7, start=start, form=form, malformed_share=malformed_share).lines(BATCH_ROWS * BATCHES)


def batched(values: list[bytes]) -> list[pa.Array]:
    return [pa.array(values[at : at + BATCH_ROWS], pa.binary()) for at in range(0, len(values), BATCH_ROWS)]


def measured(case: Case) -> tuple[float, float]:
    """CPU seconds for all batches, decoded and calibrated, in turns: the least of some rounds."""
    decoded, calibrated = [], []
    for _ in range(ROUNDS):
        decoded.append(cpu_seconds(lambda: [case.decoder.decode(batch) for batch in case.batches]))
        calibrated.append(cpu_seconds(lambda: [pc.count_substring(batch, b'"') for batch in case.batches]))
    return min(decoded), min(calibrated)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
