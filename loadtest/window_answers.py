"""What is asked of windows: DuckDB's answer over a file of lines, and the answer that lies in a lake."""

from __future__ import annotations

import gzip
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa

from loadtest.stage import Store

WINDOW_S = 300

Key: TypeAlias = tuple[str, int]
"""The start of a window, and a response."""
Value: TypeAlias = tuple[int, int]
"""Requests and bytes."""

_FIELDS = ("host", "ident", "authuser", "time", "request", "response", "bytes", "referer", "agent")
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_PATTERN = rf"^(\S+) (\S+) (\S+) \[([^\]]+)\] {_QUOTED} (\d+) (\d+|-) {_QUOTED} {_QUOTED}$"

_ORACLE = f"""
    SELECT strftime(time_bucket(INTERVAL {WINDOW_S} SECONDS, moment, TIMESTAMP '1970-01-01'), '%Y-%m-%dT%H:%M:%S'),
           response, count(*), coalesce(sum(bytes), 0)::BIGINT
    FROM (SELECT try_strptime(part.time, '%d/%b/%Y:%H:%M:%S %z') AT TIME ZONE 'UTC' AS moment,
                 try_cast(part.response AS SMALLINT) AS response,
                 try_cast(nullif(part.bytes, '-') AS BIGINT) AS bytes
          FROM (SELECT regexp_extract(line, '{_PATTERN}', {list(_FIELDS)}) AS part FROM lines)
          WHERE part.host != '')
    WHERE moment IS NOT NULL AND response IS NOT NULL
    GROUP BY ALL
"""

_RESULTS = """
    SELECT strftime(window_start AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S'), response, requests,
           coalesce(bytes, 0)::BIGINT
    FROM read_parquet(?, union_by_name = true)
"""


@dataclass(frozen=True)
class Answers:
    """values: by window and response; repeated: pairs that have more than one row; late, rejected: records"""

    values: dict[Key, Value]
    repeated: int = 0
    late: int = 0
    rejected: int = 0

    @property
    def rows(self) -> int:
        """Lines that were counted."""
        return sum(requests for requests, _ in self.values.values())

    @property
    def windows(self) -> set[str]:
        return {start for start, _ in self.values}

    def differences(self, found: Answers) -> list[str]:
        """Where an answer differs from this one."""
        keys = sorted(self.values.keys() | found.values.keys())
        return [
            f"{key}: expected {self.values.get(key)}, found {found.values.get(key)}"
            for key in keys
            if self.values.get(key) != found.values.get(key)
        ]


def oracle(file: Path) -> Answers:
    """DuckDB's answer over a file of combined lines. A line that is none has no place in it."""
    lines = [line.decode(errors="replace") for line in file.read_bytes().splitlines()]
    sql = duckdb.connect()
    sql.execute("SET TimeZone = 'UTC'")
    sql.register("lines", pa.table({"line": lines}))
    rows = sql.execute(_ORACLE).fetchall()
    return Answers({(str(start), int(response)): (int(n), int(total)) for start, response, n, total in rows})


def answers_of(store: Store) -> Answers:
    """What is visible in the lake, and beside it."""
    files = [str(path) for path in _folder(store.lake).rglob("*.parquet")]
    rows = duckdb.connect().execute(_RESULTS, [files]).fetchall() if files else []
    values: dict[Key, Value] = {}
    seen: Counter[Key] = Counter()
    for start, response, requests, total in rows:
        key = (str(start), int(response))
        seen[key] += 1
        values[key] = (int(requests), int(total))
    late = [str(path) for path in _folder(f"{store.url}/late").rglob("*.parquet")]
    counted = duckdb.connect().execute("SELECT count(*) FROM read_parquet(?)", [late]).fetchall() if late else [(0,)]
    rejects = _folder(store.rejects).rglob("*.gz")
    return Answers(
        values,
        repeated=sum(count > 1 for count in seen.values()),
        late=int(counted[0][0]),
        rejected=sum(len(gzip.decompress(path.read_bytes()).splitlines()) for path in rejects),
    )


def _folder(url: str) -> Path:
    return Path(urlsplit(url).path)
