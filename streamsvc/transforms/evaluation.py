"""Expressions over the columns of a batch, row by row, by DuckDB; and which rows are at fault when one fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from streamsvc.errors import Fatal
from streamsvc.records import NO_REJECTS, REJECTED, ROW, Sifted
from streamsvc.transforms.column_types import check_sql_type, plain, plain_type, sample
from streamsvc.transforms.engine import MEMORY_LIMIT_MB, Node, parse, unparse
from streamsvc.transforms.statement import INPUT, references

MAX_ERROR_CHARACTERS = 300

_ONE_TO_ONE = {"PROJECTION", "FILTER", "PYTHON_ARROW_SCAN"}
"""The steps of a plan that make at most one row of a row, whatever its neighbours."""

_NO_SUCH_CAST = "Unimplemented type for cast"
"""A cast that DuckDB does not have, which it notices when it meets the first value."""

_BROKEN = (duckdb.InternalError, duckdb.FatalException, duckdb.InterruptException, duckdb.ConnectionException)


class RowFault(Exception):
    """An expression fails for at least one row of a batch; the message is that of any such row."""


class MemoryFault(RowFault):
    """A row, or all rows together, need more memory than there is."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """``rows``: int32, the indices of the rows that passed, ascending; ``None``: all did. ``columns``: their values."""

    rows: pa.Array | None
    columns: Sequence[pa.Array]

    def passed(self, column: pa.Array) -> pa.Array:
        """What a column of the input is for the rows that passed."""
        return column if self.rows is None else column.take(self.rows)


class Evaluation:
    """A condition and some expressions, prepared once and executed over batch after batch.

    ``types`` are those of the columns. Calls come one at a time for all evaluations of one connection.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        input_schema: pa.Schema,
        expressions: Mapping[str, Node],
        condition: Node | None = None,
    ) -> None:
        """``expressions`` by the names under which errors speak of them.

        Raises ``ValueError`` when one does not fit the columns, is not row-wise after all, would fail for every value,
        or has a type that no column can have."""
        self._connection = connection
        read = references([*expressions.values(), *([condition] if condition else [])])
        self._columns = [name for name in input_schema.names if name in read]
        fields = [input_schema.field(name) for name in self._columns]
        self._feed = _Feed(pa.schema([*fields, pa.field(ROW, pa.int32())]))
        self.types = self._checked_types(expressions, condition)
        self._relation = self._prepare(self._query(list(expressions.values()), condition))
        self._probe = self._prepared_probe(list(expressions.values()), condition)

    def __call__(self, rows: pa.RecordBatch) -> Evaluated:
        """Raises ``RowFault``."""
        table = self._execute(self._relation, rows)
        passed = None if table.num_rows == rows.num_rows else plain(table.column(0), pa.int32())
        try:
            columns = [plain(column, kind) for column, kind in zip(table.columns[1:], self.types, strict=True)]
        except pa.ArrowInvalid as error:
            raise RowFault(str(error)) from error
        return Evaluated(passed, columns)

    def suspects(self, rows: pa.RecordBatch) -> list[int]:
        """Rows that are likely at fault; empty if that cannot be told at once."""
        if self._probe is None:
            return []
        try:
            return self._execute(self._probe, rows).column(0).to_pylist()
        except RowFault:
            return []

    def _execute(self, relation: duckdb.DuckDBPyRelation, rows: pa.RecordBatch) -> pa.Table:
        numbers = pa.arange(0, rows.num_rows).cast(pa.int32())
        columns = [*(rows.column(name) for name in self._columns), numbers]
        self._feed.rows = pa.RecordBatch.from_arrays(columns, schema=self._feed.nothing.schema)
        try:
            table: pa.Table = relation.to_arrow_table()
        except _BROKEN as error:
            raise Fatal("the SQL engine failed", hint="Report it with the statement.", error=str(error)) from error
        except duckdb.OutOfMemoryException as error:
            raise MemoryFault(f"it needs more than {MEMORY_LIMIT_MB} MB of memory") from error
        except duckdb.Error as error:
            raise RowFault(_message(error)) from error
        finally:
            self._feed.rows = self._feed.nothing
        return table

    def _prepare(self, query: Node) -> duckdb.DuckDBPyRelation:
        """Raises ``ValueError``."""
        sql = unparse(self._connection, query)
        try:
            self._connection.register(INPUT, self._feed)
            plan = self._connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()
            relation = self._connection.sql(sql)
        except duckdb.Error as error:
            raise ValueError(_message(error)) from error
        others = _steps(orjson.loads(plan[0][1])) - _ONE_TO_ONE
        if others:
            raise ValueError(f"not row by row: it would need the step {', '.join(sorted(others)).lower()}")
        return relation

    def _checked_types(self, expressions: Mapping[str, Node], condition: Node | None) -> list[pa.DataType]:
        """Raises ``ValueError``."""
        tested = [*expressions.values(), *([condition] if condition else [])]
        relation = self._prepare(self._query(tested, None))
        types = []
        try:
            arrow = self._execute(relation, self._feed.nothing).schema.types
        except RowFault as error:
            raise ValueError(str(error)) from error
        for name, kind, arrow_kind in zip(expressions, relation.types[1:], arrow[1:], strict=False):
            check_sql_type(name, kind)
            types.append(plain_type(name, arrow_kind))
        if condition and relation.types[-1].id != "boolean":
            raise ValueError(f"WHERE is of type {relation.types[-1].id.upper()}: write a comparison")
        try:
            self._execute(relation, self._feed.sample)
        except RowFault as error:
            if _NO_SUCH_CAST in str(error):
                raise ValueError(f"{error}; cast it by way of another type") from error
        return types

    def _query(self, expressions: Sequence[Node], condition: Node | None) -> Node:
        """SELECT _row, <expressions> FROM input WHERE <condition>"""
        query = self._template("SELECT _row FROM input")
        named = [expression | {"alias": f"_{n}"} for n, expression in enumerate(expressions)]
        return query | {"select_list": [*query["select_list"], *named], "where_clause": condition}

    def _prepared_probe(self, expressions: Sequence[Node], condition: Node | None) -> duckdb.DuckDBPyRelation | None:
        """The rows for which the condition fails, or an expression where the condition holds.

        Without a probe, ``sift`` looks for them by halves. ``error(...)``, which TRY refuses, is another failure here.
        """
        query = self._template(
            "SELECT _row FROM input WHERE TRY(CASE WHEN _condition THEN row(_expression) IS NULL ELSE TRUE END) IS NULL"
        )
        if not expressions:
            query = self._template("SELECT _row FROM input WHERE TRY(_condition IS NULL) IS NULL")
        always, failure = self._template("SELECT TRUE, CASE WHEN CAST('!' AS INT) IS NULL THEN NULL END")["select_list"]
        query = _replaced(query, _is_column("_condition"), [condition or always])
        query = _replaced(query, _is_column("_expression"), expressions)
        try:
            return self._prepare(_replaced(query, _is_error, [failure]))
        except ValueError:
            return None

    def _template(self, sql: str) -> Node:
        query: Node = parse(self._connection, sql)[0]["node"]
        return query


def sift(
    rows: pa.RecordBatch,
    evaluate: Callable[[pa.RecordBatch], pa.RecordBatch],
    evaluations: Sequence[Evaluation],
    reason: str,
) -> Sifted:
    """What ``evaluate`` makes of the rows; a row for which it raises ``RowFault`` on its own is a reject.

    So whether a row passes does not depend on its neighbours. ``evaluations``: those that it uses, to find such rows
    sooner than by halves.
    """
    try:
        return Sifted(evaluate(rows), NO_REJECTS)
    except RowFault as fault:
        if rows.num_rows <= 1:
            return Sifted(evaluate(rows.slice(0, 0)), _rejected(rows, {0: str(fault)}, reason))
        found = [] if isinstance(fault, MemoryFault) else [e.suspects(rows) for e in evaluations]
    suspects = sorted(set(chain.from_iterable(found)))
    faults = {row: error for row in suspects if (error := _fault(rows.slice(row, 1), evaluate))}
    if faults:
        others = [row for row in range(rows.num_rows) if row not in faults]
        parts = [rows.take(pa.array(others, pa.int32()))]
    else:
        middle = rows.num_rows // 2
        parts = [rows.slice(0, middle), rows.slice(middle)]
    sifted = [sift(part, evaluate, evaluations, reason) for part in parts]
    rejects = pa.concat_batches([_rejected(rows, faults, reason), *(part.rejects for part in sifted)])
    return Sifted(pa.concat_batches([part.rows for part in sifted]), rejects)


def _fault(row: pa.RecordBatch, evaluate: Callable[[pa.RecordBatch], pa.RecordBatch]) -> str:
    """Why the row fails on its own; empty if it does not."""
    try:
        evaluate(row)
    except RowFault as fault:
        return str(fault)
    return ""


def _rejected(rows: pa.RecordBatch, faults: Mapping[int, str], reason: str) -> pa.RecordBatch:
    """``faults``: index in ``rows`` -> error."""
    records = rows.column(ROW).take(pa.array(list(faults), pa.int32()))
    reasons = pa.repeat(pa.scalar(reason, pa.string()), len(faults))
    return pa.RecordBatch.from_arrays([records, reasons, pa.array(faults.values(), pa.string())], schema=REJECTED)


class _Feed:
    """A table whose rows change from one execution to the next: DuckDB asks for the stream each time."""

    def __init__(self, schema: pa.Schema) -> None:
        self.nothing = pa.RecordBatch.from_pylist([], schema=schema)
        self.sample = pa.RecordBatch.from_arrays(
            [pa.array([sample(kind)], kind) for kind in schema.types], schema=schema
        )
        self.rows = self.nothing

    def __arrow_c_schema__(self) -> object:
        return self.nothing.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        reader = pa.RecordBatchReader.from_batches(self.rows.schema, [self.rows])
        return reader.__arrow_c_stream__(requested_schema)


def _replaced(tree: Any, meant: Callable[[Node], bool], expressions: Sequence[Node]) -> Any:
    """The tree with each node that is meant replaced; an argument that is one becomes one argument an expression."""
    if isinstance(tree, dict):
        if meant(tree):
            return expressions[0]
        return {key: _replaced(value, meant, expressions) for key, value in tree.items()}
    if isinstance(tree, list):
        found: list[Any] = []
        for entry in tree:
            if isinstance(entry, dict) and meant(entry.get("expression", {})):
                found.extend(entry | {"expression": expression} for expression in expressions)
            else:
                found.append(_replaced(entry, meant, expressions))
        return found
    return tree


def _is_column(name: str) -> Callable[[Node], bool]:
    return lambda node: node.get("column_names") == [name]


def _is_error(node: Node) -> bool:
    return str(node.get("function_name")).lower() == "error"


def _steps(plan: list[Node]) -> set[str]:
    names: set[str] = set()
    for step in plan:
        names |= {step["name"].strip()} | _steps(step["children"])
    return names


def _message(error: duckdb.Error) -> str:
    """DuckDB's, without its excerpt of a statement that nobody wrote, its advice on settings, and the long list of
    what else it has."""
    text = re.split(r"\n\n|\s+Candidate (?:functions|macros):", str(error))[0]
    text = re.sub(r"^[A-Z][A-Za-z ]+ Error: ", "", text).replace("\n", " ").strip()
    return text if len(text) <= MAX_ERROR_CHARACTERS else f"{text[:MAX_ERROR_CHARACTERS]}..."
