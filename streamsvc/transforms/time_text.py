"""``strftime`` of a timestamp column, computed once for each day, hour or minute that occurs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from streamsvc.transforms.engine import Node
from streamsvc.transforms.evaluation import Evaluation
from streamsvc.transforms.statement import column_of

_FORMAT = re.compile(r"(?:[^%]|%[YmdHM])+")
"""Formats whose text is the same at the beginning of a minute as anywhere in it, and so with hours and days."""

_SECONDS = (("%M", 60), ("%H", 3_600), ("", 86_400))
_TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000}
_KINDS = {("us", None), ("us", "UTC"), ("ms", "UTC"), ("s", "UTC")}
"""What is in microseconds for the SQL engine. (It takes other columns without a zone to be in nanoseconds here.)"""

_FIRST_S, _END_S = -62_135_596_800, 253_402_300_800
"""Years 1 to 9999: beyond them are infinities, and times that other engines cannot read."""

_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """``strftime`` over a column: ``seconds`` is the longest period in which the text stays the same."""

    column: str
    kind: pa.TimestampType
    seconds: int


def time_format(expression: Node, schema: pa.Schema) -> TimeFormat | None:
    """What a resolved expression says, if it is ``strftime`` over a timestamp column in such a format."""
    if expression["class"] != "FUNCTION" or expression["function_name"].lower() != "strftime":
        return None
    arguments = [argument["expression"] for argument in expression["arguments"]]
    columns = [column for argument in arguments if (column := column_of(argument))]
    formats = [argument["literal"]["text"] for argument in arguments if _is_text(argument)]
    if len(columns) != 1 or len(formats) != 1 or not _FORMAT.fullmatch(formats[0]):
        return None
    kind = schema.field(columns[0]).type
    if not isinstance(kind, pa.TimestampType) or (kind.unit, kind.tz) not in _KINDS:
        return None
    return TimeFormat(columns[0], kind, next(seconds for code, seconds in _SECONDS if code in formats[0]))


class TimeText:
    """The texts of such an expression. The SQL engine makes them, from the beginnings of the periods."""

    kind = pa.dictionary(pa.int32(), pa.string())

    def __init__(self, evaluation: Evaluation, time: TimeFormat) -> None:
        """``evaluation``: of the expression alone."""
        self._column, self._kind = time.column, time.kind
        ticks = _TICKS[time.kind.unit]
        self._period = time.seconds * ticks
        self._first, self._end = _FIRST_S * ticks, _END_S * ticks
        self._evaluation = evaluation
        self._texts: dict[int, str] = {}

    def __call__(self, rows: pa.RecordBatch) -> pa.DictionaryArray:
        """Of type ``kind``. Raises ``RowFault``."""
        ticks = rows.column(self._column).cast(pa.int64())
        bounds = pc.min_max(ticks)
        low, high = bounds["min"].as_py(), bounds["max"].as_py()
        if low is None:
            return pa.DictionaryArray.from_arrays(pa.nulls(len(ticks), pa.int32()), pa.array([], pa.string()))
        if low < self._first or high >= self._end:
            return self._evaluation(rows).columns[0].dictionary_encode()
        start = low // self._period
        periods = pc.divide(pc.subtract(ticks, start * self._period), self._period).dictionary_encode()
        texts = self._texts_of([start + offset for offset in periods.dictionary.to_pylist()])
        column = pa.DictionaryArray.from_arrays(periods.indices, pa.array(texts, pa.string()))
        return column if len(set(texts)) == len(texts) else column.cast(pa.string()).dictionary_encode()

    def _texts_of(self, periods: list[int]) -> list[str]:
        unknown = [period for period in periods if period not in self._texts]
        if unknown:
            starts = pa.array([period * self._period for period in unknown], pa.int64()).cast(self._kind)
            rows = pa.RecordBatch.from_arrays([starts], names=[self._column])
            self._texts.update(zip(unknown, self._evaluation(rows).columns[0].to_pylist(), strict=True))
        texts = [self._texts[period] for period in periods]
        if len(self._texts) > _REMEMBERED:
            self._texts.clear()
        return texts


def _is_text(node: Node) -> bool:
    return node["class"] == "CONSTANT" and bool(node["literal"]["kind"] == "STRING")
