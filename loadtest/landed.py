"""Rows of Parquet objects, known by their stamps and checked by their checksums.

A column that the files do not have, since they are partitioned by it, is read from the path, as query engines do. Then
a file in the wrong place has no intact row where it is; it is told from a corrupt one by trying the other places.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from loadtest.lake import StoredObject
from loadtest.stamps import AGENT, COLUMNS, SIGNED
from streamsvc.testing.access_logs import Form

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

_ROWS_AT_ONCE = 200_000


class Unreadable(Exception):
    """No Parquet, or not with the columns that are needed."""


def place_of(key: str) -> str:
    """The folder of an object, its values as they were before they were encoded: ``date=2026-11-24/response=200``."""
    return "/".join(unquote(part) for part in key.split("/")[:-1])


def values_of(place: str) -> dict[str, str | None]:
    """Column values in a place."""
    pairs = (part.partition("=") for part in place.split("/") if "=" in part)
    return {name: None if value == NULL_PARTITION else value for name, _, value in pairs}


@dataclass(frozen=True)
class Rows:
    """Some objects' rows. ``table``: the columns of the form and ``object``, a number; ``from_path``: which of the
    columns, as text, are the path's."""

    table: pa.Table
    from_path: frozenset[str]

    def of(self, objects: pa.Array) -> Rows:
        return Rows(self.table.filter(pc.is_in(self.table["object"], value_set=objects)), self.from_path)

    def moved_to(self, values: Mapping[str, str | None]) -> Rows:
        """As if all of them were in a place with these values."""
        table = self.table
        for name in self.from_path & values.keys():
            constant = pa.repeat(pa.scalar(values[name], pa.string()), len(table))
            table = table.set_column(table.schema.get_field_index(name), name, constant)
        return Rows(table, self.from_path)


def read_rows(stored: StoredObject, number: int, form: Form) -> Rows:
    """The rows of one object. Raises ``Unreadable``."""
    try:
        file = pq.ParquetFile(pa.BufferReader(stored.body))
        present = [name for name in COLUMNS[form] if name in file.schema_arrow.names]
        table = file.read(columns=present)
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"{stored.key}: {error}") from error
    values = values_of(place_of(stored.key))
    for name in COLUMNS[form]:
        if name in present:
            continue
        if name not in values:
            raise Unreadable(f"{stored.key}: there is no column {name}, neither in the file nor in its path")
        table = table.append_column(name, pa.repeat(pa.scalar(values[name], pa.string()), len(table)))
    table = table.append_column("object", pa.repeat(pa.scalar(number, pa.int32()), len(table)))
    return Rows(table.select([*COLUMNS[form], "object"]), frozenset(COLUMNS[form]) - frozenset(present))


def in_chunks(some: Iterable[Rows]) -> Iterator[Rows]:
    """Small tables as larger ones."""
    chunk: list[Rows] = []
    for rows in some:
        if chunk and (rows.from_path != chunk[0].from_path or sum(len(c.table) for c in chunk) >= _ROWS_AT_ONCE):
            yield _joined(chunk)
            chunk = []
        chunk.append(rows)
    if chunk:
        yield _joined(chunk)


def _joined(chunk: list[Rows]) -> Rows:
    tables = [rows.table for rows in chunk]
    return Rows(pa.concat_tables(tables, promote_options="permissive"), chunk[0].from_path)


def check(sql: duckdb.DuckDBPyConnection, rows: Rows, form: Form) -> pa.Table:
    """One row each: ``object, producer, split, seq, intact``; producer is empty where there is no stamp."""
    sql.register("rows_to_check", rows.table)
    checked: pa.Table | None = sql.sql(f"""
        SELECT object, stamp.producer, try_cast(stamp.split AS INTEGER) AS split,
               try_cast(stamp.seq AS BIGINT) AS seq, stamp.crc, encode({SIGNED[form]}) AS signed
        FROM (SELECT *, regexp_extract(agent, '{AGENT}', ['agent', 'producer', 'split', 'seq', 'crc']) AS stamp
              FROM rows_to_check)""").to_arrow_table()
    assert checked is not None
    pairs = zip(checked["signed"].to_pylist(), checked["crc"].to_pylist(), strict=True)
    intact = [bool(crc) and signed is not None and zlib.crc32(signed) == int(crc, 16) for signed, crc in pairs]
    return checked.drop_columns(["signed", "crc"]).append_column("intact", pa.array(intact, pa.bool_()))


def without_an_intact_row(checked: pa.Table) -> pa.Array:
    """The objects of which no row is as it was produced."""
    intact = checked.filter(checked["intact"])["object"]
    objects = checked["object"].unique()
    return objects.filter(pc.invert(pc.is_in(objects, value_set=intact.unique())))
