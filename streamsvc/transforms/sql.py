"""A step in SQL, row by row."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import pyarrow as pa

from streamsvc.records import ROW, Sifted
from streamsvc.transforms.column_types import check_names, plain, plain_type
from streamsvc.transforms.engine import Node, SqlProblems, connect, noted
from streamsvc.transforms.evaluation import Evaluated, Evaluation, RowFault, sift
from streamsvc.transforms.statement import read_select

SQL = "sql"
"""Why a record is a reject: an expression of the step fails for it."""


class SqlTransform:
    """``SELECT ... FROM input [WHERE ...]`` over each batch.

    A row in is at most one row out, in the same order, and a function of that row alone. Columns that are only passed
    on never go through the SQL engine: it computes the others, and which rows pass. Types: see ``column_types``.
    """

    def __init__(self, sql: str, input_schema: pa.Schema) -> None:
        """``input_schema``: the columns before this step, without ``_row``.

        Raises ``ValueError``, ``SqlProblems`` where there are several: what in the statement is not understood or not
        row-wise, and what to do instead."""
        check_names(input_schema)
        connection = connect()
        statement = read_select(connection, sql, input_schema.names)
        self._outputs = statement.outputs
        expressions = {output.name: output.expression for output in statement.outputs if output.expression is not None}
        self._evaluation: Evaluation | None = None
        if expressions or statement.condition is not None:
            self._evaluation = _evaluation(connection, input_schema, expressions, statement.condition)
        columns = {output.column for output in self._outputs}
        passed = {field.name: plain_type(field.name, field.type) for field in input_schema if field.name in columns}
        computed = iter(self._evaluation.types if self._evaluation else [])
        self._schema = pa.schema(
            [
                (output.name, next(computed) if output.column is None else passed[output.column])
                for output in self._outputs
            ]
        )

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def apply(self, rows: pa.RecordBatch) -> Sifted:
        return sift(rows, self._select, [self._evaluation] if self._evaluation else [], SQL)

    def _select(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        evaluated = self._evaluation(rows) if self._evaluation else Evaluated(None, [])
        computed = iter(evaluated.columns)
        columns = []
        try:
            for output, field in zip(self._outputs, self._schema, strict=True):
                if output.column is None:
                    columns.append(next(computed))
                else:
                    columns.append(plain(evaluated.passed(rows.column(output.column)), field.type))
        except pa.ArrowInvalid as error:
            raise RowFault(str(error)) from error
        columns.append(evaluated.passed(rows.column(ROW)))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema.append(pa.field(ROW, pa.int32())))


def _evaluation(
    connection: duckdb.DuckDBPyConnection, schema: pa.Schema, expressions: Mapping[str, Node], condition: Node | None
) -> Evaluation:
    """Raises ``SqlProblems``: the SQL engine speaks of the first problem alone, so it is asked about each part."""
    try:
        return Evaluation(connection, schema, expressions, condition)
    except ValueError as error:
        problems: list[str] = []
        for name, expression in expressions.items():
            with noted(problems):
                Evaluation(connection, schema, {name: expression})
        if condition is not None:
            with noted(problems):
                Evaluation(connection, schema, {}, condition)
        raise SqlProblems(problems or [str(error)]) from error
