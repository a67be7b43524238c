"""A pipeline's aggregation: read from its configuration, made of rows, finished to results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from streamsvc.core.json_text import json_objects
from streamsvc.core.windows import states
from streamsvc.core.windows.aggregates import Call, check_argument, check_key
from streamsvc.core.windows.results import Results
from streamsvc.core.windows.states import Layout
from streamsvc.records import ROW, WINDOW, Finished, Partials, Problem, Window
from streamsvc.transforms.aggregation.calls import AGGREGATE_COLUMN, Reader, in_own_words
from streamsvc.transforms.aggregation.folding import Folding, OpenPartials
from streamsvc.transforms.aggregation.group_expressions import GroupExpressions
from streamsvc.transforms.aggregation.row_expressions import RowExpressions
from streamsvc.transforms.column_types import check_names
from streamsvc.transforms.engine import Node, SqlProblems, connect, noted
from streamsvc.transforms.sql import SqlTransform
from streamsvc.transforms.statement import references

WINDOW_START, WINDOW_END = "window_start", "window_end"
_TIME = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True)
class AggregationRules:
    """What decides results, as texts.

    group_by, aggregate: SQL by name
    having, then:        a condition over their results, and steps over what passes it
    max_groups:          of one split in one segment
    """

    group_by: Mapping[str, str]
    aggregate: Mapping[str, str]
    having: str | None = None
    then: Sequence[str] = ()
    max_groups: int = 100_000


class WindowAggregation:
    """See ``contracts.Aggregation``."""

    def __init__(self, rules: AggregationRules, input_schema: pa.Schema) -> None:
        """``input_schema``: the columns after all steps, without ``_row``.

        Raises ``SqlProblems``, each of which begins with its place: ``aggregate.requests: ...``, ``having: ...``."""
        check_names(input_schema)
        reader = Reader(connect(), input_schema.names)
        expressions = _Expressions.read(rules, reader)
        rows = RowExpressions(input_schema, reader.rows, reader.owners)
        self._columns = frozenset(references(reader.rows))
        self._calls = _typed(reader, rows.types)
        self._texts = reader.texts
        keys = _checked_keys(rules, expressions.keys, rows.types)
        self._layout = Layout(tuple(keys), tuple(dict.fromkeys(s for call in self._calls for s in call.states)))
        self._folding = _folding(reader, rows, self._layout, expressions.keys, rules.max_groups)
        self._group_names = list(rules.group_by)
        self._group_schema = self._schema_of_groups()
        kept = [WINDOW_START, WINDOW_END, *rules.group_by]
        self._outputs = GroupExpressions(
            self._group_schema, kept, expressions.outputs, expressions.having, input_schema.names
        )
        self._then = _steps(rules.then, self._outputs.schema)

    @property
    def columns(self) -> frozenset[str]:
        return self._columns

    @property
    def schema(self) -> pa.Schema:
        return self._then[-1].schema if self._then else self._outputs.schema

    def open(self) -> OpenPartials:
        return OpenPartials(self._folding)

    def merge(self, parts: Sequence[Partials]) -> Partials:
        return states.merge(self._layout, parts)

    def finish(self, partials: Partials, windows: Sequence[Window]) -> Finished:
        merged = self.merge([partials.only([window.start_us for window in windows])])
        groups, faults = self._groups(merged, windows)
        sound = pa.array([row not in faults for row in range(groups.num_rows)], pa.bool_())
        rows = groups.filter(sound)
        steps: list[GroupExpressions | SqlTransform] = [self._outputs, *self._then]
        for step in steps:
            sifted = step.apply(rows)
            rows = sifted.rows
            faults |= dict(zip(sifted.rejects[ROW].to_pylist(), sifted.rejects["error"].to_pylist(), strict=True))
        told = [f"{in_own_words(faults[row], self._texts)}: {self._shown(groups, row)}" for row in sorted(faults)]
        kept = groups.select([WINDOW_START, WINDOW_END, *self._group_names]).take(rows[ROW])
        return Finished(pa.Table.from_batches([rows.drop_columns([ROW])]), lambda: json_objects(kept), tuple(told))

    def _schema_of_groups(self) -> pa.Schema:
        names = [*self._group_names, *(f"{AGGREGATE_COLUMN}{number}" for number in range(len(self._calls)))]
        kinds = [*self._layout.keys, *(call.result_type for call in self._calls)]
        return pa.schema([(WINDOW_START, _TIME), (WINDOW_END, _TIME), *zip(names, kinds, strict=True)])

    def _groups(self, merged: Partials, windows: Sequence[Window]) -> tuple[pa.RecordBatch, dict[int, str]]:
        """A row for each window and group, with ``_row``; and why some have no result, by number of the row."""
        results = Results(self._layout, merged)
        values = [results.of(call) for call in self._calls]
        starts = merged.flat[WINDOW].combine_chunks()
        among = pc.index_in(starts, pa.array([window.start_us for window in windows], pa.int64()))
        ends = pa.array([window.end_us for window in windows], pa.int64()).take(among)
        keys = [merged.flat[name].combine_chunks() for name in self._layout.key_names[1:]]
        columns = [starts.cast(_TIME), ends.cast(_TIME), *keys, *(value.column for value in values)]
        numbers = pa.array(range(merged.groups), pa.int32())
        schema = self._group_schema.append(pa.field(ROW, pa.int32()))
        faults = {
            row: f"{text}: {fault}"
            for text, value in zip(self._texts, values, strict=True)
            for row, fault in value.faults.items()
        }
        return pa.RecordBatch.from_arrays([*columns, numbers], schema=schema), faults

    def _shown(self, groups: pa.RecordBatch, row: int) -> str:
        group = groups.drop_columns([ROW]).slice(row, 1)
        shown: str = json_objects(
            group.rename_columns([in_own_words(name, self._texts) for name in group.schema.names])
        )[0].as_py()
        return shown


@dataclass(frozen=True, slots=True)
class _Expressions:
    """``keys``: numbers of row expressions. ``outputs``, ``having``: see ``Reader.group_expression``."""

    keys: list[int]
    outputs: dict[str, Node]
    having: Node | None

    @classmethod
    def read(cls, rules: AggregationRules, reader: Reader) -> _Expressions:
        """Raises ``SqlProblems``."""
        problems: list[str] = []
        keys: list[int] = []
        outputs: dict[str, Node] = {}
        having: Node | None = None
        for name, sql in rules.group_by.items():
            with noted(problems, "group_by", name):
                keys.append(reader.row_expression(sql, ("group_by", name)))
        for name, sql in rules.aggregate.items():
            with noted(problems, "aggregate", name):
                outputs[name] = reader.group_expression(sql, ("aggregate", name))
        if rules.having is not None:
            with noted(problems, "having"):
                having = reader.group_expression(rules.having, ("having",))
        problems += _name_problems(rules)
        if problems:
            raise SqlProblems(problems)
        return cls(keys, outputs, having)


def _name_problems(rules: AggregationRules) -> list[str]:
    seen = {WINDOW_START: "the window's", WINDOW_END: "the window's"}
    problems: list[str] = []
    for part, names in (("group_by", rules.group_by), ("aggregate", rules.aggregate)):
        for name in names:
            other = seen.setdefault(name.lower(), f"{part}.{name}")
            if other != f"{part}.{name}":
                problems.append(Problem(f"there is a column of this name already ({other}); rename one", part, name))
            if name.startswith("_"):
                problems.append(Problem("names that begin with _ are private", part, name))
    return problems


def _sources(reader: Reader) -> list[tuple[int, int]]:
    """Argument and mask of each source."""
    return list(dict.fromkeys((call.argument, call.mask) for call in reader.calls if call.argument >= 0))


def _typed(reader: Reader, kinds: Sequence[pa.DataType]) -> list[Call]:
    """Raises ``SqlProblems``."""
    sources = _sources(reader)
    problems: list[str] = []
    calls = []
    for raw, place in zip(reader.calls, reader.places, strict=True):
        if raw.argument < 0:
            calls.append(Call(raw.function, -1, pa.int64()))
            continue
        kind = kinds[raw.argument]
        with noted(problems, *place):
            check_argument(raw.function, kind)
        if raw.mask >= 0 and not types.is_boolean(kinds[raw.mask]):
            what = f"FILTER is of type {kinds[raw.mask]}: write a comparison"
            problems.append(Problem(what, *place))
        calls.append(Call(raw.function, sources.index((raw.argument, raw.mask)), kind, raw.q))
    if problems:
        raise SqlProblems(problems)
    return calls


def _checked_keys(rules: AggregationRules, numbers: Sequence[int], kinds: Sequence[pa.DataType]) -> list[pa.DataType]:
    """Raises ``SqlProblems``."""
    problems: list[str] = []
    for name, number in zip(rules.group_by, numbers, strict=True):
        with noted(problems, "group_by", name):
            check_key(name, kinds[number])
    if problems:
        raise SqlProblems(problems)
    return [kinds[number] for number in numbers]


def _folding(reader: Reader, rows: RowExpressions, layout: Layout, keys: Sequence[int], max_groups: int) -> Folding:
    sources = _sources(reader)
    masks = {number: mask for number, (_, mask) in enumerate(sources) if mask >= 0}
    return Folding(rows, layout, keys, [argument for argument, _ in sources], masks, max_groups)


def _steps(then: Sequence[str], schema: pa.Schema) -> list[SqlTransform]:
    """Raises ``SqlProblems``."""
    steps: list[SqlTransform] = []
    for number, sql in enumerate(then):
        problems: list[str] = []
        with noted(problems, "then", number, "sql"):
            steps.append(SqlTransform(sql, schema))
        if problems:
            raise SqlProblems(problems)
        schema = steps[-1].schema
    return steps
