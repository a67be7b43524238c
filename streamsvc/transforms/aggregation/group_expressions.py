"""What is computed for each group, over its keys and aggregates; and which groups have a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import types

from streamsvc.records import ROW, Sifted
from streamsvc.transforms.aggregation.calls import AGGREGATE_COLUMN
from streamsvc.transforms.engine import Node, SqlProblems, connect, noted
from streamsvc.transforms.evaluation import Evaluated, Evaluation, sift
from streamsvc.transforms.functions import Functions
from streamsvc.transforms.statement import INPUT, Scope, column_of

FAULT = "group"


@dataclass
class _GroupScope(Scope):
    """Names outside of aggregates."""

    of_rows: frozenset[str] = frozenset()

    def column(self, name: str) -> str:
        if name.lower() in self.of_rows and name.lower() not in {column.lower() for column in self.columns}:
            raise ValueError(
                f"{name} is neither a group nor inside an aggregate: group by it, or write for example max({name})"
            )
        try:
            return super().column(name)
        except ValueError:
            known = [column for column in self.columns if not column.startswith(AGGREGATE_COLUMN)]
            raise ValueError(f"there is no column {name}; there are {', '.join([*known, *self.aliases])}") from None


class GroupExpressions:
    """``SELECT <kept columns>, <outputs> ... HAVING <condition>``, a group a row."""

    def __init__(
        self,
        groups: pa.Schema,
        kept: Sequence[str],
        outputs: Mapping[str, Node],
        having: Node | None,
        of_rows: Sequence[str],
    ) -> None:
        """groups: the columns of a group: window, keys, and a column for each call; ``kept``: those that results have
        outputs: by the names of their columns; in ``having`` they can be called by these
        of_rows: columns that are there before rows are grouped

        Raises ``SqlProblems``, which begin with the place."""
        problems: list[str] = []
        connection = connect()
        lower = frozenset(name.lower() for name in of_rows)
        scope = _GroupScope(Functions(connection), groups.names, {INPUT}, of_rows=lower)
        resolved: dict[str, Node] = {}
        for name, node in outputs.items():
            with noted(problems, "aggregate", name):
                resolved[name] = scope.resolve(node)
                if column_of(resolved[name]) is None:
                    Evaluation(connection, groups, {"this": resolved[name]})
        condition: Node | None = None
        if having is not None and not problems:
            with noted(problems, "having"):
                scope.aliases.update({name.lower(): node for name, node in resolved.items()})
                condition = scope.resolve(having)
                [kind] = Evaluation(connection, groups, {"this": condition}).types
                if not types.is_boolean(kind):
                    raise ValueError(f"it is of type {kind}: write a comparison")
        if problems:
            raise SqlProblems(problems)
        self._passed = [*kept, *(column_of(node) for node in resolved.values())]
        computed = {name: node for name, node in resolved.items() if column_of(node) is None}
        self._evaluation = Evaluation(connection, groups, computed, condition) if computed or condition else None
        kinds = iter(self._evaluation.types if self._evaluation else [])
        fields = zip([*kept, *outputs], self._passed, strict=True)
        self.schema = pa.schema(
            [(name, next(kinds) if column is None else groups.field(column).type) for name, column in fields]
        )

    def apply(self, rows: pa.RecordBatch) -> Sifted:
        """``_row`` goes through; a group for which an expression fails is a reject."""
        return sift(rows, self._select, [self._evaluation] if self._evaluation else [], FAULT)

    def _select(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        evaluated = self._evaluation(rows) if self._evaluation else Evaluated(None, [])
        computed = iter(evaluated.columns)
        columns = [
            next(computed) if column is None else evaluated.passed(rows.column(column)) for column in self._passed
        ]
        columns.append(evaluated.passed(rows.column(ROW)))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema.append(pa.field(ROW, pa.int32())))
