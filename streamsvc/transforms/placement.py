"""The values of partition columns, one expression each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from streamsvc.records import ROW, Sifted
from streamsvc.transforms.column_types import check_names, plain, plain_type
from streamsvc.transforms.engine import SqlProblems, connect, noted
from streamsvc.transforms.evaluation import Evaluation, RowFault, sift
from streamsvc.transforms.statement import column_of, read_expression
from streamsvc.transforms.time_text import TimeText, time_format

PARTITION_EXPRESSION = "partition_expression"
"""Why a record is a reject: the expression of a partition column fails for it."""

PREFIX = "_partition_"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the rows, as it is."""

    name: str
    kind: pa.DataType

    def __call__(self, rows: pa.RecordBatch) -> pa.Array:
        try:
            return plain(rows.column(self.name), self.kind)
        except pa.ArrowInvalid as error:
            raise RowFault(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Computed:
    """The value of an expression, by the SQL engine."""

    evaluation: Evaluation

    @property
    def kind(self) -> pa.DataType:
        return self.evaluation.types[0]

    def __call__(self, rows: pa.RecordBatch) -> pa.Array:
        return self.evaluation(rows).columns[0]


class Placement:
    """A ``Transform``: ``_partition_<name>`` for each expression, and ``_row``; one row for each row, in their order.

    What most people write is not left to the SQL engine: a column is that column, and ``strftime`` with a format of
    days, hours or minutes is computed once for each of them that occurs (and is a dictionary column).
    """

    def __init__(self, expressions: Mapping[str, str], input_schema: pa.Schema) -> None:
        """expressions: SQL over the columns of ``input_schema`` (without ``_row``), by the partition column's name.

        Raises ``SqlProblems``, each of which begins with that name: what is not understood or not row-wise, and what
        to do; or ``ValueError`` for columns that SQL cannot tell apart."""
        check_names(input_schema)
        self._makers: list[_Column | TimeText | _Computed] = []
        problems: list[str] = []
        for name, sql in expressions.items():
            with noted(problems, name):
                self._makers.append(_maker(name, sql, input_schema))
        if problems:
            raise SqlProblems(problems)
        fields = [pa.field(PREFIX + name, maker.kind) for name, maker in zip(expressions, self._makers, strict=True)]
        self._schema = pa.schema(fields)
        self._schema_with_row = self._schema.append(pa.field(ROW, pa.int32()))

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def apply(self, rows: pa.RecordBatch) -> Sifted:
        return sift(
            rows,
            self._place,
            [maker.evaluation for maker in self._makers if isinstance(maker, _Computed)],
            PARTITION_EXPRESSION,
        )

    def _place(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        columns = [*(maker(rows) for maker in self._makers), rows.column(ROW)]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema_with_row)


def _maker(name: str, sql: str, schema: pa.Schema) -> _Column | TimeText | _Computed:
    connection = connect()
    expression = read_expression(connection, sql, schema.names)
    column = column_of(expression)
    if column is not None:
        return _Column(column, plain_type(column, schema.field(column).type))
    time = time_format(expression, schema)
    evaluation = Evaluation(connection, schema, {name: expression})
    return TimeText(evaluation, time) if time else _Computed(evaluation)
