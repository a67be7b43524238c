"""Results of windows as objects: one for each window and partition."""

from __future__ import annotations

import asyncio

import pyarrow as pa
import structlog

from streamsvc.core.json_text import json_objects
from streamsvc.core.windows.assignment import window_name
from streamsvc.records import ROW, DataObject, Finished, ObjectInfo, Window
from streamsvc.sinks.objects import ObjectSink

log = structlog.get_logger(__name__)


class ObjectResults:
    """A ``ResultSink``: ``<path>/<name=value>/.../<start of the window><suffix>``.

    Equal results make equal objects; one that exists is another's for the same window.

    sink: without a limit on partitions: a window cannot be cut
    """

    def __init__(self, sink: ObjectSink) -> None:
        self._sink = sink

    async def publish(self, window: Window, results: Finished) -> list[ObjectInfo]:
        """A result whose partition value has no place in a path is left out, and told."""
        if not results.rows.num_rows:
            return []
        return await self._sink.publish(await asyncio.to_thread(self._encoded, window, results))

    def _encoded(self, window: Window, results: Finished) -> list[DataObject]:
        opened = self._sink.open()
        for batch in results.rows.combine_chunks().to_batches():
            numbers = pa.array(range(batch.num_rows), pa.int32())
            written = opened.write(batch.append_column(pa.field(ROW, pa.int32()), numbers))
            assert written.excess_row is None, "results have no limit on partitions"
            for reject in written.rejects.to_pylist():
                log.error(
                    "a result has no place",
                    why=reject["error"],
                    result=json_objects(batch.slice(reject[ROW], 1))[0].as_py(),
                    hint="Change `sink.partition_by`; the result of this window is lost for this group.",
                )
        return opened.close(window_name(window.start_us))
