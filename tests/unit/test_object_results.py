"""Results of windows in objects: named after the window, the same whoever writes them, and none is lost in silence."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from streamsvc.app_sinks import object_sink
from streamsvc.config import ObjectSink
from streamsvc.sinks.results import ObjectResults
from streamsvc.stores.memory import MemoryStore
from tests.windows_results import WINDOW, finished


def results_in(store: MemoryStore, **options: object) -> ObjectResults:
    sink = ObjectSink.model_validate({"path": store.url, "max_partitions": 10_000, **options})
    return ObjectResults(object_sink(sink, finished(1).rows.schema, store, 1 << 20))


async def keys(store: MemoryStore) -> list[str]:
    return [entry.key async for entry in store.list("")]


@pytest.mark.parametrize("format_", ["parquet", "json"])
async def test_two_authors_write_the_same_objects_once(format_: str) -> None:
    bodies = []
    for name in ("one", "other"):
        store = MemoryStore(f"results-{format_}-{name}", "lake")
        sink = results_in(store, format=format_, partition_by={"response": "response"})
        written = await sink.publish(WINDOW, finished(200, 404))
        assert (
            await results_in(store, format=format_, partition_by={"response": "response"}).publish(
                WINDOW, finished(200, 404)
            )
            == written
        )
        bodies.append({key: await store.get(key) for key in await keys(store)})
        assert [item.rows for item in written] == [1, 1]
    assert bodies[0] == bodies[1]
    assert [key.partition(".")[0] for key in bodies[0]] == [
        "response=200/20261124T120000Z",
        "response=404/20261124T120000Z",
    ]


async def test_a_window_without_results_has_no_object() -> None:
    store = MemoryStore("results-none", "lake")
    assert await results_in(store).publish(WINDOW, finished()) == []
    assert await keys(store) == []


async def test_rows_are_in_the_order_of_results() -> None:
    store = MemoryStore("results-order", "lake")
    await results_in(store).publish(WINDOW, finished(*range(1_000)))
    [key] = await keys(store)
    body = await store.get(key)
    assert body is not None
    assert pq.read_table(pa.BufferReader(body))["response"].to_pylist() == list(range(1_000))


async def test_a_result_that_has_no_place_in_a_path_is_told_with_its_values() -> None:
    store = MemoryStore("results-misplaced", "lake")
    sink = results_in(store, partition_by={"text": "CASE WHEN response = 404 THEN error('no') ELSE text END"})
    with capture_logs() as told:
        written = await sink.publish(WINDOW, finished(200, 404))
    assert [item.rows for item in written] == [1]
    [entry] = told
    assert entry["event"] == "a result has no place"
    assert '"response":404' in entry["result"]
