"""Rows to objects: one for each segment and partition, encoded as they fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from streamsvc.config import ObjectSink as Options
from streamsvc.contracts import Format, ObjectStore, Transform, Written
from streamsvc.core.partitioning import MAX_SEGMENT_BYTES, Key, Keyed, can_partition_by, grouped, keyed, prefix_of
from streamsvc.errors import ConfigError
from streamsvc.records import NO_REJECTS, REJECTED, ROW, DataObject, ObjectInfo, Problem
from streamsvc.sinks.formats.json import JsonLines
from streamsvc.sinks.formats.parquet import Parquet
from streamsvc.sinks.open_object import OpenObject, held_bytes
from streamsvc.sinks.publishing import publish

PARTITION = "_partition_"
"""How the columns of ``place`` begin: ``_partition_date`` holds the values of the partition column ``date``."""

KEY_TOO_LONG = "partition_key_too_long"

WAITING_BYTES = 128 * 1024 * 1024
_UNGROUPED_BYTES = 16 * 1024 * 1024
_UNGROUPED_BATCHES = 1000
_MAX_KEY_BYTES = 1024
_FILE_NAME_BYTES = 128
_UNKNOWN_RATIO = 0.25
_GZIP_LEVEL = 6  # Arrow's default, 9, takes five times as long


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of a sink lie in objects. ``schema``: the columns of a file; ``names``: those of the path."""

    schema: pa.Schema
    names: tuple[str, ...]
    place: Transform | None
    format: Format
    max_partitions: int
    max_prefix_bytes: int
    max_waiting_bytes: int


class ObjectSink:
    """A ``Sink``: ``<path>/<name=value>/.../<segment><suffix>``, Parquet or JSON lines.

    The path of an object is made from its partition and the segment's id; its rows are a function of the segment's
    ranges, in no particular order (``sort_by`` orders them within a row group). A column of the rows that has the name
    of a partition column is left out of the file, as Hive and Spark do: its value is in the path. One whose name
    differs only in case is refused: readers would take both for one column, and the path need not say all of it.
    """

    def __init__(
        self,
        store: ObjectStore,
        options: Options,
        schema: pa.Schema,
        place: Transform | None = None,
        *,
        max_waiting_bytes: int = WAITING_BYTES,
    ) -> None:
        """schema: the columns of the rows, without ``_row``

        place: given rows, makes ``_row`` and a column ``_partition_<name>`` for each name of ``partition_by``, of any
        scalar type, one row for each row in the same order; records whose expressions fail are its rejects. Other
        columns that it makes are not looked at. ``None`` where there are no partitions.

        max_waiting_bytes: of rows that fill no row group yet; beyond it the largest of them is encoded all the same

        Raises ``ConfigError`` for columns that are missing or have no place in the format.
        """
        self._store = store
        names = tuple(options.partition_by)
        kept = pa.schema([field for field in schema if field.name not in names])
        format_ = format_of(options)
        max_prefix_bytes = _MAX_KEY_BYTES - _FILE_NAME_BYTES - len(store.url.encode())
        problems = [
            *_path_problems(names, place, max_prefix_bytes),
            *_case_problems(names, kept),
            *_file_problems(options, kept, format_),
        ]
        if problems:
            raise ConfigError(problems)
        self._layout = Layout(
            schema=kept,
            names=names,
            place=place,
            format=format_,
            max_partitions=options.max_partitions,
            max_prefix_bytes=max_prefix_bytes,
            max_waiting_bytes=max_waiting_bytes,
        )

    def open(self) -> OpenObjects:
        return OpenObjects(self._layout)

    @property
    def url(self) -> str:
        return self._store.url

    async def publish(self, objects: Sequence[DataObject]) -> list[ObjectInfo]:
        return await publish(self._store, objects)


def format_of(options: Options) -> Format:
    level = options.compression_level
    if level is None and options.compression == "gzip":
        level = _GZIP_LEVEL
    if options.format == "json":
        return JsonLines(options.compression, level)
    return Parquet(options.parquet, options.compression, level)


def _path_problems(names: Sequence[str], place: Transform | None, max_prefix_bytes: int) -> list[str]:
    if max_prefix_bytes <= MAX_SEGMENT_BYTES:
        return ["sink.path: it leaves no room for the names of objects: keys end at 1,024 bytes"]
    made = place.schema if place is not None else pa.schema([])
    problems: list[str] = []
    for at, name in enumerate(names):
        if wrong := _name_problem(name, names[:at]):
            problems.append(Problem(wrong, "sink", "partition_by", name))
        index = made.get_field_index(PARTITION + name)
        if index < 0:
            problems.append(Problem("nothing makes its values", "sink", "partition_by", name))
        elif not can_partition_by(made.field(index).type):
            kind = made.field(index).type
            what = f"a value of type {kind} has no place in a path: write its text, for example with hex or ::VARCHAR"
            problems.append(Problem(what, "sink", "partition_by", name))
    return problems


def _name_problem(name: str, before: Sequence[str]) -> str | None:
    if not name:
        return "a partition column needs a name"
    if name[0] in "._":
        return f"Arrow, Hive and others pass over folders that begin with {name[0]}: choose another name"
    same = [other for other in before if other.lower() == name.lower()]
    return f"{same[0]} is there already, and case does not count for those who read it" if same else None


def _case_problems(names: Sequence[str], kept: pa.Schema) -> list[str]:
    columns = {column.lower(): column for column in kept.names}
    return [
        Problem(
            f"the rows have a column {columns[name.lower()]}, and case does not count for those who read {name}:"
            f" choose another name, or {columns[name.lower()]} if the path says all of it",
            "sink",
            "partition_by",
            name,
        )
        for name in names
        if name.lower() in columns
    ]


def _file_problems(options: Options, schema: pa.Schema, format_: Format) -> list[str]:
    if not schema.names:
        return ["sink.partition_by: every column is in the path, and none is left for the files"]
    parquet = options.parquet
    columns = {"sort_by": parquet.sort_by, "dictionary": parquet.dictionary, "statistics": parquet.statistics}
    problems = [
        f"sink.parquet.{option}: there is no column {name} in the files"
        for option, wanted in columns.items()
        for name in (wanted if isinstance(wanted, list) else [])
        if options.format == "parquet" and name not in schema.names
    ]
    problems += [
        f"sink.parquet.sort_by: there is no order of {name}, of type {schema.field(name).type}"
        for name in parquet.sort_by
        if options.format == "parquet" and name in schema.names and types.is_nested(schema.field(name).type)
    ]
    if problems:
        return problems
    try:
        writer = format_.open(schema)
        writer.write(schema.empty_table())
        writer.close()
    except pa.ArrowNotImplementedError as error:
        return [f"sink.format: {options.format} has no place for one of the columns: {error}"]
    return []


class OpenObjects:
    """The objects of one segment, by partition.

    Batches are first collected as they are; every 16 MiB they are dealt out to their partitions at once, which costs
    less for each row than dealing out small batches.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._objects: list[OpenObject] = []
        self._codes: dict[Key, int] = {}
        self._ungrouped: list[tuple[pa.RecordBatch, pa.Array]] = []
        self._ungrouped_bytes = 0
        self._encoded_from_bytes = 0
        self.rows = 0

    @property
    def largest_bytes(self) -> int:
        """The largest object so far. Rows that wait are counted by the ratio of those that are encoded."""
        if not self._objects:
            return 0
        encoded = sum(object_.encoded_bytes for object_ in self._objects)
        ratio = encoded / self._encoded_from_bytes if self._encoded_from_bytes else _UNKNOWN_RATIO
        sizes = [object_.encoded_bytes + object_.waiting_bytes * ratio for object_ in self._objects]
        share = max(sizes) / sum(sizes) if sum(sizes) else 1 / len(sizes)
        return int(max(sizes) + self._ungrouped_bytes * ratio * share)

    @property
    def memory_bytes(self) -> int:
        writers = sum(object_.writer_bytes for object_ in self._objects)
        return self._ungrouped_bytes + self._waiting_bytes + writers

    @property
    def _waiting_bytes(self) -> int:
        return sum(object_.waiting_bytes for object_ in self._objects)

    def write(self, rows: pa.RecordBatch) -> Written:
        """rows: the columns of the sink's schema and ``_row``"""
        if not rows.num_rows:
            return Written(NO_REJECTS)
        rows, keys, rejects = self._placed(rows)
        codes, excess = self._codes_of(keys)
        if excess is not None:
            return Written(NO_REJECTS, excess_row=int(rows[ROW][excess].as_py()))
        fits = pc.greater_equal(codes, 0)
        if not pc.all(fits).as_py():
            rejects = pa.concat_batches([rejects, self._too_long(rows.filter(pc.invert(fits)))])
            rows, codes = rows.filter(fits), codes.filter(fits)
        columns = [rows[name] for name in self._layout.schema.names]
        self._collect(pa.RecordBatch.from_arrays(columns, schema=self._layout.schema), codes)
        return Written(rejects)

    def close(self, segment: str) -> list[DataObject]:
        self._deal_out()
        closed = [object_.close(segment) for object_ in self._objects if object_.rows]
        return sorted(closed, key=lambda object_: object_.key)

    def _placed(self, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, Keyed, pa.RecordBatch]:
        """The rows that have partition values, and their keys; the records that have none."""
        place = self._layout.place
        if place is None or not self._layout.names:
            return rows, Keyed([()], pa.repeat(pa.scalar(0, pa.int32()), rows.num_rows)), NO_REJECTS
        sifted = place.apply(rows)
        if sifted.rows.num_rows < rows.num_rows:
            rows = rows.filter(pc.is_in(rows[ROW], value_set=sifted.rows[ROW]))
        return rows, keyed([sifted.rows[PARTITION + name] for name in self._layout.names]), sifted.rejects

    def _codes_of(self, keys: Keyed) -> tuple[pa.Array, int | None]:
        """int32, each row's object, -1 where the key is too long; or the first row that needs one object too many,
        and nothing is changed."""
        layout = self._layout
        codes = dict(self._codes)
        prefixes: list[str] = []
        for number, key in enumerate(keys.keys):
            if key in codes:
                continue
            prefix = prefix_of(layout.names, key, layout.max_prefix_bytes)
            if prefix is None:
                codes[key] = -1
            elif len(self._objects) + len(prefixes) == layout.max_partitions:
                return keys.codes, keys.first_row(number)
            else:
                codes[key] = len(self._objects) + len(prefixes)
                prefixes.append(prefix)
        self._objects += [OpenObject(prefix, layout.format, layout.schema) for prefix in prefixes]
        self._codes = {key: code for key, code in codes.items() if code >= 0}
        return pa.array([codes[key] for key in keys.keys], pa.int32()).take(keys.codes), None

    def _too_long(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        limits = f"{MAX_SEGMENT_BYTES} bytes for name=value, {self._layout.max_prefix_bytes} for all of them"
        texts = [KEY_TOO_LONG, f"escaped partition values are too long for a path: at most {limits}"]
        repeated = [pa.repeat(pa.scalar(text), rows.num_rows) for text in texts]
        return pa.RecordBatch.from_arrays([rows[ROW], *repeated], schema=REJECTED)

    def _collect(self, rows: pa.RecordBatch, codes: pa.Array) -> None:
        self.rows += rows.num_rows
        self._ungrouped.append((rows, codes))
        self._ungrouped_bytes += held_bytes(rows)
        if self._ungrouped_bytes >= _UNGROUPED_BYTES or len(self._ungrouped) >= _UNGROUPED_BATCHES:
            self._deal_out()

    def _deal_out(self) -> None:
        """What was collected goes to its objects; whole pieces are encoded, and what is too much to wait."""
        if not self._ungrouped:
            return
        rows = pa.concat_batches([batch for batch, _ in self._ungrouped])
        codes = pa.concat_arrays([codes for _, codes in self._ungrouped])
        self._ungrouped, self._ungrouped_bytes = [], 0
        for code, indices in grouped(codes):
            object_ = self._objects[code]
            object_.add(rows if len(indices) == rows.num_rows else rows.take(indices))
            if object_.is_due:
                self._encode(object_)
        while self._waiting_bytes > self._layout.max_waiting_bytes:
            self._encode(max(self._objects, key=lambda object_: object_.waiting_bytes))

    def _encode(self, object_: OpenObject) -> None:
        self._encoded_from_bytes += object_.waiting_bytes
        object_.encode()
