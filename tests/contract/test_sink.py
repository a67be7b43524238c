"""The object sink over every format: written in any batches, read back by another engine."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import parquet as pq
from pydantic import ValidationError

from streamsvc.config import Aws, ParquetOptions
from streamsvc.config import ObjectSink as Options
from streamsvc.contracts import ObjectStore
from streamsvc.errors import ConfigError, StoreRefused, StoreUnavailable
from streamsvc.records import REJECTED, ROW, DataObject, ObjectInfo, Sifted
from streamsvc.sinks.objects import KEY_TOO_LONG, ObjectSink, OpenObjects
from streamsvc.sinks.publishing import CONCURRENT_CREATES, publish
from streamsvc.stores.objects import open_store
from streamsvc.testing.faulty_store import Fault, FaultyStore
from streamsvc.transforms.placement import Placement

SEGMENT = "20261124T120000Z-0123456789ab"
NOON = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)
BY = {"date": "strftime(seen, '%Y-%m-%d')", "tag": "tag"}
TAGS = [None, "", "plain", "a/b=c", "../..", "%2F", "null", "__HIVE_DEFAULT_PARTITION__", "grün 日本", "\0", ".", " "]

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("seen", pa.timestamp("us", "UTC")),
        ("tag", pa.string()),
        ("text", pa.string()),
        ("size", pa.int16()),
        ("share", pa.float64()),
        ("flag", pa.bool_()),
        ("items", pa.list_(pa.int32())),
    ]
)

FORMATS = {
    "parquet": Options(path="memory://x", partition_by=BY),
    "parquet-sorted": Options(
        path="memory://x",
        partition_by=BY,
        compression="snappy",
        parquet=ParquetOptions(row_group_rows=7, sort_by=["size", "id"], dictionary=["text"], statistics=False),
    ),
    "json": Options(path="memory://x", partition_by=BY, format="json", compression="none"),
    "json-gzip": Options(path="memory://x", partition_by=BY, format="json", compression="gzip"),
    "json-zstd": Options(path="memory://x", partition_by=BY, format="json", compression="zstd", compression_level=3),
}
JSON_COLUMNS = (
    "{id: 'BIGINT', seen: 'TIMESTAMPTZ', text: 'VARCHAR', size: 'SMALLINT', share: 'DOUBLE', flag: 'BOOLEAN',"
    " items: 'INTEGER[]'}"
)


@pytest.fixture(params=FORMATS)
def options(request: pytest.FixtureRequest) -> Options:
    return FORMATS[request.param]


@pytest.fixture
def lake(tmp_path: Path) -> ObjectStore:
    return open_store(f"{tmp_path.as_uri()}/lake", Aws())


def some_rows(count: int, seed: int = 1) -> pa.RecordBatch:
    dice = random.Random(seed)
    texts = ['quoted "text"', "back\\slash", "tab\tline\n", "ü 日本 😀", "", None, "\x01\x1f\x7f"]
    rows = [
        {
            "id": number,
            "seen": NOON + dt.timedelta(hours=dice.randrange(72), microseconds=dice.randrange(10**6)),
            "tag": dice.choice(TAGS),
            "text": dice.choice(texts),
            "size": dice.choice([None, -32768, 0, 200, 32767]),
            "share": dice.choice([None, 0.5, -0.0, 1e300, 1 / 3]),
            "flag": dice.choice([None, True, False]),
            "items": dice.choice([None, [], [1, None, 3]]),
        }
        for number in range(count)
    ]
    return with_row(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))


def with_row(rows: pa.RecordBatch) -> pa.RecordBatch:
    return rows.append_column(ROW, pa.array(range(rows.num_rows), pa.int32()))


def sink_of(store: ObjectStore, options: Options, schema: pa.Schema = SCHEMA, **limits: int) -> ObjectSink:
    place = Placement(options.partition_by, schema) if options.partition_by else None
    return ObjectSink(store, options, schema, place, **limits)


def cut(rows: pa.RecordBatch, seed: int) -> list[pa.RecordBatch]:
    """The rows in batches of random sizes, each numbered anew."""
    dice = random.Random(seed)
    batches, start = [], 0
    while start < rows.num_rows:
        size = dice.randrange(rows.num_rows // 3)
        batches.append(with_row(rows.slice(start, size).drop_columns([ROW])))
        start += size
    return batches


def fill(sink: ObjectSink, batches: Sequence[pa.RecordBatch]) -> OpenObjects:
    objects = sink.open()
    for batch in batches:
        written = objects.write(batch)
        assert written.excess_row is None
        assert written.rejects.num_rows == 0
    return objects


def read_back(folder: Path, options: Options) -> list[tuple[Any, ...]]:
    """Every column by DuckDB, the partition columns from the path, in the order of ids."""
    pattern = f"'{folder}/**/*.{'parquet' if options.format == 'parquet' else 'json*'}'"
    hive = "hive_partitioning=true, hive_types={date: 'DATE', tag: 'VARCHAR'}"
    how = "read_parquet" if options.format == "parquet" else "read_json"
    columns = "" if options.format == "parquet" else f", format='newline_delimited', columns={JSON_COLUMNS}"
    select = "id, epoch_us(seen), date, tag, text, size, share, flag, items"
    return duckdb.execute(f"SELECT {select} FROM {how}({pattern}, {hive}{columns}) ORDER BY id").fetchall()


def expected(rows: pa.RecordBatch) -> list[tuple[Any, ...]]:
    micros = rows["seen"].cast(pa.int64()).to_pylist()
    return [
        (row["id"], micro, row["seen"].date(), row["tag"], *(row[name] for name in SCHEMA.names[3:]))
        for row, micro in zip(rows.to_pylist(), micros, strict=True)
    ]


class TestEveryFormat:
    async def test_another_engine_reads_what_was_written(
        self, options: Options, lake: ObjectStore, tmp_path: Path
    ) -> None:
        rows = some_rows(2000)
        sink = sink_of(lake, options)
        objects = fill(sink, cut(rows, seed=2))
        assert objects.rows == 2000
        closed = objects.close(SEGMENT)
        published = await sink.publish(closed)
        assert [info.url for info in published] == [f"{lake.url}/{item.key}" for item in closed]
        assert [info.nbytes for info in published] == [await lake.size(item.key) for item in closed]
        assert sum(info.rows for info in published) == 2000
        assert read_back(tmp_path / "lake", options) == expected(rows)

    async def test_rows_of_an_object_do_not_depend_on_batches(self, options: Options, lake: ObjectStore) -> None:
        rows = some_rows(600)
        sink = sink_of(lake, options, max_waiting_bytes=20_000)
        layouts = [fill(sink, cut(rows, seed)).close(SEGMENT) for seed in range(3)]
        assert len({tuple((item.key, item.rows) for item in closed) for closed in layouts}) == 1

    def test_the_same_batches_give_the_same_bytes(self, options: Options, lake: ObjectStore) -> None:
        batches = cut(some_rows(600), seed=1)
        first, second = (fill(sink_of(lake, options), batches).close(SEGMENT) for _ in range(2))
        assert [whole(item) for item in first] == [whole(item) for item in second]

    def test_memory_and_size_are_told_as_they_are(self, options: Options, lake: ObjectStore) -> None:
        few = some_rows(1000)
        before = pa.total_allocated_bytes()
        batches = [pa.concat_batches([few] * 20) for _ in range(20)]
        plain = options.model_copy(update={"partition_by": {"tag": "tag"}, "parquet": ParquetOptions()})
        objects = sink_of(lake, plain, max_waiting_bytes=1 << 20).open()
        while batches:
            objects.write(batches.pop())
        held = pa.total_allocated_bytes() - before
        assert held <= objects.memory_bytes * 2 + (2 << 20)
        told = objects.largest_bytes
        assert told == pytest.approx(max(item.nbytes for item in objects.close(SEGMENT)), rel=0.5)

    def test_little_waits_unencoded(self, options: Options, lake: ObjectStore) -> None:
        plain = options.model_copy(update={"partition_by": {"id": "id"}, "parquet": ParquetOptions()})
        objects = sink_of(lake, plain, max_waiting_bytes=1 << 20).open()
        rows = pa.concat_batches([some_rows(400)] * 50)
        for _ in range(24):
            objects.write(rows)
        assert 0 < sum(each.waiting_bytes for each in objects._objects) <= 1 << 20
        assert objects.rows == sum(item.rows for item in objects.close(SEGMENT)) == 480_000

    def test_nothing_written_is_no_object(self, options: Options, lake: ObjectStore) -> None:
        objects = sink_of(lake, options).open()
        objects.write(some_rows(0))
        assert objects.close(SEGMENT) == []
        assert objects.largest_bytes == objects.memory_bytes == 0

    async def test_without_partitions_there_is_one_object(
        self, options: Options, lake: ObjectStore, tmp_path: Path
    ) -> None:
        sink = sink_of(lake, options.model_copy(update={"partition_by": {}}))
        (only,) = fill(sink, cut(some_rows(100), seed=1)).close(SEGMENT)
        assert only.key == SEGMENT + Path(only.key).name.removeprefix(SEGMENT)
        assert only.rows == 100
        await sink.publish([only])
        found = duckdb.execute(f"SELECT count(*), count(DISTINCT id) FROM '{tmp_path}/lake/{only.key}'").fetchone()
        assert found == (100, 100)


def whole(item: DataObject) -> tuple[str, bytes]:
    return item.key, b"".join(bytes(part) for part in item.body)


class Scripted:
    """A ``Transform`` that makes given partition values, and rejects rows without one."""

    def __init__(self, values: pa.Array) -> None:
        self._values = values
        self.schema = pa.schema([("_partition_tag", values.type)])

    def apply(self, rows: pa.RecordBatch) -> Sifted:
        placed = pa.record_batch({"_partition_tag": self._values, ROW: rows[ROW]})
        missing = pc.is_null(self._values)
        refused = [
            {ROW: row, "reason": "scripted", "error": "no value"} for row in rows[ROW].filter(missing).to_pylist()
        ]
        return Sifted(placed.filter(pc.invert(missing)), pa.RecordBatch.from_pylist(refused, schema=REJECTED))


class TestPlacing:
    def test_a_partition_column_is_in_the_path_only(self, lake: ObjectStore) -> None:
        sink = sink_of(lake, FORMATS["parquet"])
        closed = fill(sink, [some_rows(50)]).close(SEGMENT)
        for item in closed:
            assert item.key.startswith("date=2026-11-2")
            assert "/tag=" in item.key
            columns = pq.read_schema(pa.py_buffer(whole(item)[1])).names
            assert columns == ["id", "seen", "text", "size", "share", "flag", "items"]

    def test_what_has_no_place_is_rejected_and_no_neighbour(self, lake: ObjectStore) -> None:
        tags = ["a", "x" * 256, None, "ü" * 120, "/" * 90, "b"]
        rows = some_rows(6)
        sink = ObjectSink(
            lake, Options(path="memory://x", partition_by={"tag": "tag"}), SCHEMA, Scripted(pa.array(tags))
        )
        objects = sink.open()
        written = objects.write(rows)
        reasons = dict(zip(written.rejects[ROW].to_pylist(), written.rejects["reason"].to_pylist(), strict=True))
        assert reasons == {1: KEY_TOO_LONG, 2: "scripted", 4: KEY_TOO_LONG}
        closed = {item.key.split("/")[0]: item for item in objects.close(SEGMENT)}
        assert sorted(closed) == ["tag=a", "tag=b", f"tag={'ü' * 120}"]
        ids = {tag: pq.read_table(pa.py_buffer(whole(item)[1]))["id"].to_pylist() for tag, item in closed.items()}
        assert ids == {"tag=a": [0], "tag=b": [5], f"tag={'ü' * 120}": [3]}

    def test_all_rows_may_be_rejects(self, lake: ObjectStore) -> None:
        options = Options(path="memory://x", partition_by={"tag": "tag"})
        for tags in (["x" * 256] * 3, [None] * 3):
            objects = ObjectSink(lake, options, SCHEMA, Scripted(pa.array(tags, pa.string()))).open()
            assert objects.write(some_rows(3)).rejects.num_rows == 3
            assert objects.close(SEGMENT) == []

    def test_a_key_that_would_pass_1024_bytes_is_a_reject(self, lake: ObjectStore) -> None:
        by = dict.fromkeys(["a", "b", "c", "d"], "text")
        schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
        texts = ["x" * 250, "y" * 100]
        rows = with_row(pa.RecordBatch.from_pylist([{"id": 1, "text": text} for text in texts], schema=schema))
        objects = sink_of(lake, Options(path="memory://x", partition_by=by), schema).open()
        assert objects.write(rows).rejects["reason"].to_pylist() == [KEY_TOO_LONG]
        (only,) = objects.close(SEGMENT)
        assert len(f"{lake.url}/{only.key}") < 1024

    def test_one_partition_too_many_cuts_before_its_record(self, lake: ObjectStore) -> None:
        options = Options(path="memory://x", partition_by={"size": "size"}, max_partitions=2)
        schema = pa.schema([("id", pa.int64()), ("size", pa.int16())])

        def rows(*sizes: int) -> pa.RecordBatch:
            made = [{"id": number, "size": size} for number, size in enumerate(sizes)]
            return with_row(pa.RecordBatch.from_pylist(made, schema=schema))

        objects = sink_of(lake, options, schema).open()
        assert objects.write(rows(1, 1)).excess_row is None
        numbered = rows(2, 1, 3, 2, 4, 3)
        apart = numbered.set_column(2, ROW, pa.array([10, 20, 30, 40, 50, 60], pa.int32()))
        refused = objects.write(apart)
        assert refused.excess_row == 30
        assert refused.rejects.num_rows == 0
        assert objects.rows == 2
        assert objects.write(apart.slice(0, 2)).excess_row is None
        assert objects.write(rows(3)).excess_row == 0
        assert [(item.key.split("/")[0], item.rows) for item in objects.close(SEGMENT)] == [
            ("size=1", 3),
            ("size=2", 1),
        ]


class TestParquet:
    def test_options_are_kept(self, lake: ObjectStore) -> None:
        options = FORMATS["parquet-sorted"].model_copy(update={"partition_by": {}})
        (only,) = fill(sink_of(lake, options), [some_rows(20)]).close(SEGMENT)
        file = pq.ParquetFile(pa.py_buffer(whole(only)[1]))
        assert [file.metadata.row_group(group).num_rows for group in range(3)] == [7, 7, 6]
        text, size = file.metadata.row_group(0).column(3), file.metadata.row_group(0).column(4)
        assert (text.has_dictionary_page, size.has_dictionary_page) == (True, False)
        assert text.statistics is None
        assert text.compression == "SNAPPY"
        assert len(file.metadata.row_group(0).sorting_columns) == 2
        table = file.read()
        assert table.equals(table.sort_by([("size", "ascending"), ("id", "ascending")]))
        assert file.schema_arrow.field("seen").type == pa.timestamp("us", "UTC")

    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    def test_timestamps_are_microseconds(self, lake: ObjectStore, unit: Any) -> None:
        schema = pa.schema([("at", pa.timestamp(unit))])
        rows = with_row(pa.record_batch([pa.array([1_000_000_001], pa.int64()).cast(schema.types[0])], schema=schema))
        (only,) = fill(sink_of(lake, Options(path="memory://x"), schema), [rows]).close(SEGMENT)
        written = pq.read_table(pa.py_buffer(whole(only)[1]))["at"]
        assert written.type == pa.timestamp("us")
        scale = {"s": 10**6, "ms": 10**3, "us": 1, "ns": 1 / 1000}[unit]
        assert written.cast(pa.int64()).to_pylist() == [int(1_000_000_001 * scale)]


class TestConfiguration:
    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"parquet": ParquetOptions(sort_by=["nope"])}, "sink.parquet.sort_by: there is no column nope"),
            ({"parquet": ParquetOptions(dictionary=["nope"])}, "sink.parquet.dictionary: there is no column nope"),
            ({"partition_by": {"tag": "tag"}, "parquet": ParquetOptions(sort_by=["tag"])}, "no column tag"),
            ({"partition_by": {"items": "items"}}, "sink.partition_by.items: a value of type list<"),
            ({"partition_by": {"tag": "encode(tag)"}}, "sink.partition_by.tag: a value of type binary has no place"),
            ({"partition_by": {"_tag": "tag"}}, "sink.partition_by._tag: .* pass over folders"),
            ({"partition_by": {"": "tag"}}, "a partition column needs a name"),
            ({"partition_by": {"a": "tag", "A": "id"}}, "sink.partition_by.A: a is there already"),
            ({"partition_by": {"TAG": "'a'"}}, "sink.partition_by.TAG: the rows have a column tag, .* another name"),
            ({"partition_by": dict.fromkeys(SCHEMA.names, "id")}, "sink.partition_by: every column is in the path"),
            ({"parquet": ParquetOptions(sort_by=["items"])}, "sink.parquet.sort_by: there is no order of items"),
        ],
    )  # fmt: skip
    def test_what_cannot_work_is_refused_at_once(
        self, lake: ObjectStore, options: dict[str, Any], problem: str
    ) -> None:
        with pytest.raises(ConfigError, match=problem):
            sink_of(lake, Options(path="memory://x", **options))

    @pytest.mark.parametrize("format_", ["parquet", "json"])
    def test_types_without_a_place_are_refused(self, lake: ObjectStore, format_: Any) -> None:
        schema = pa.schema([("id", pa.int64()), ("gap", pa.type_for_alias("month_day_nano_interval"))])
        with pytest.raises(ConfigError, match="has no place for one of the columns"):
            sink_of(lake, Options(path="memory://x", format=format_), schema)

    def test_a_column_of_the_path_is_left_out_of_the_file(self, lake: ObjectStore) -> None:
        (only,) = fill(sink_of(lake, Options(path="memory://x", partition_by={"tag": "'a'"})), [some_rows(3)]).close(
            SEGMENT
        )
        assert pq.read_schema(pa.py_buffer(whole(only)[1])).names == [name for name in SCHEMA.names if name != "tag"]

    def test_a_path_without_room_is_refused(self) -> None:
        store = open_store(f"memory://lake/{'/'.join(['x' * 100] * 7)}", Aws())
        with pytest.raises(ConfigError, match=r"sink\.path"):
            sink_of(store, Options(path="memory://x"))

    def test_nothing_makes_the_values(self, lake: ObjectStore) -> None:
        with pytest.raises(ConfigError, match=r"sink\.partition_by\.tag: nothing makes its values"):
            ObjectSink(lake, Options(path="memory://x", partition_by={"tag": "tag"}), SCHEMA)

    @pytest.mark.parametrize(
        "options",
        [
            {"format": "json", "compression": "snappy"},
            {"compression": "snappy", "compression_level": 3},
            {"compression": "zstd", "compression_level": 23},
            {"compression": "gzip", "compression_level": 0},
        ],
    )
    def test_codecs_and_levels_that_do_not_fit(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match="compress"):
            Options(path="x", **options)


class CountingStore(FaultyStore):
    """Remembers the most creates under way at once."""

    under_way = 0
    most = 0

    async def create(self, key: str, body: Any) -> bool:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            return await super().create(key, body)
        finally:
            self.under_way -= 1


def data_objects(count: int) -> list[DataObject]:
    return [
        DataObject(f"{number:03}", [b"body", b" of ", str(number).encode()], rows=number) for number in range(count)
    ]


class TestPublishing:
    async def test_some_at_a_time_in_order(self, lake: ObjectStore) -> None:
        store = CountingStore(lake, [])
        published = await publish(store, data_objects(50), kind="rejects")
        assert store.most == CONCURRENT_CREATES
        assert published[49] == ObjectInfo(f"{lake.url}/049", rows=49, nbytes=10, kind="rejects")
        assert await lake.get("049") == b"body of 49"

    async def test_what_exists_counts_as_it_is(self, lake: ObjectStore) -> None:
        await lake.create("001", b"written by who finished the segment")
        published = await publish(lake, data_objects(2))
        assert [info.nbytes for info in published] == [9, 35]
        assert [info.rows for info in published] == [0, 1]

    async def test_refused_for_a_create_under_way(self, lake: ObjectStore) -> None:
        answers = iter([False, False])

        class Conflicting(FaultyStore):
            async def create(self, key: str, body: Any) -> bool:
                return next(answers, True) and await super().create(key, body)

        (info,) = await publish(Conflicting(lake, []), data_objects(1))
        assert await lake.size("000") == info.nbytes

    @pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
    async def test_a_failure_can_be_tried_again(self, lake: ObjectStore, fault: Fault) -> None:
        store = CountingStore(lake, [None, fault])
        with pytest.raises(StoreUnavailable):
            await publish(store, data_objects(40))
        assert store.under_way == 0
        assert len(await publish(store, data_objects(40))) == 40

    async def test_refusal_is_raised_as_it_is(self) -> None:
        store = open_store("file:///dev/null/lake", Aws())
        with pytest.raises(StoreRefused):
            await publish(store, data_objects(3))

    async def test_cancelling_leaves_nothing_under_way(self, lake: ObjectStore) -> None:
        store = CountingStore(lake, [Fault.HANG] * 100)
        call = asyncio.create_task(publish(store, data_objects(40)))
        while not store.fired[Fault.HANG]:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert store.under_way == 0
