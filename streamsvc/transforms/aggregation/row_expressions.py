"""What is computed for each row before rows are grouped: keys, arguments, filters."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from streamsvc.records import ROW, Sifted
from streamsvc.transforms.column_types import plain, plain_type
from streamsvc.transforms.engine import Node, Place, SqlProblems, connect, noted
from streamsvc.transforms.evaluation import Evaluation, RowFault, sift
from streamsvc.transforms.statement import column_of

AGGREGATE = "aggregate"
"""Why a record is a reject: an expression inside an aggregate, or of a group, fails for it."""


class RowExpressions:
    """Columns by number. What is a column of the input never goes through the SQL engine."""

    def __init__(self, schema: pa.Schema, nodes: Sequence[Node], owners: Sequence[Place]) -> None:
        """``owners``: where each expression stands in the configuration. Raises ``SqlProblems``, which begin with
        that."""
        problems: list[str] = []
        self.types: list[pa.DataType] = []
        self._columns = [column_of(node) for node in nodes]
        computed: dict[str, Node] = {}
        connection = connect()
        for number, (node, owner, column) in enumerate(zip(nodes, owners, self._columns, strict=True)):
            with noted(problems, *owner):
                if column is None:
                    computed[f"#{number}"] = node
                    self.types += Evaluation(connection, schema, {"this": node}).types
                else:
                    self.types.append(plain_type(column, schema.field(column).type))
        if problems:
            raise SqlProblems(problems)
        self._evaluation = Evaluation(connection, schema, computed) if computed else None
        fields = [pa.field(f"_{number}", kind) for number, kind in enumerate(self.types)]
        self._schema = pa.schema([*fields, pa.field(ROW, pa.int32())])

    def apply(self, rows: pa.RecordBatch) -> Sifted:
        """A column for each expression, and ``_row``; a row for which one fails is a reject."""
        return sift(rows, self._evaluate, [self._evaluation] if self._evaluation else [], AGGREGATE)

    def _evaluate(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        computed = iter(self._evaluation(rows).columns if self._evaluation else [])
        try:
            columns = [
                next(computed) if column is None else plain(rows.column(column), kind)
                for column, kind in zip(self._columns, self.types, strict=True)
            ]
        except pa.ArrowInvalid as error:
            raise RowFault(str(error)) from error
        return pa.RecordBatch.from_arrays([*columns, rows.column(ROW)], schema=self._schema)
