"""Expressions with aggregates in them, taken apart: what is computed for each row, what is aggregated, what follows.

``sum(bytes) / count(*)`` is two calls, and an expression over their results. What stands inside a call sees the rows,
as a step of a pipeline does; what stands outside sees the group.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from streamsvc.core.windows.aggregates import FUNCTIONS
from streamsvc.transforms.engine import Node, Place, SqlSyntaxError, parse, unparse
from streamsvc.transforms.functions import Functions
from streamsvc.transforms.statement import INPUT, Scope, bounded_depth

AGGREGATE_COLUMN = "_aggregate_"
"""How the results of calls are called among the columns of a group."""

_INSTEAD = {
    "any_value": "write first(x) or min(x): any value would be chance",
    "arbitrary": "write first(x) or min(x): any value would be chance",
    "approx_top_k": "group by the value, count, and take the greatest counts in the query",
    "bool_and": "write min(x)",
    "bool_or": "write max(x)",
    "count_if": "write count(*) FILTER (WHERE condition)",
    "countif": "write count(*) FILTER (WHERE condition)",
    "favg": "write avg(x), which is exact",
    "fsum": "write sum(x), which is exact",
    "kahan_sum": "write sum(x), which is exact",
    "median": "write approx_quantile(x, 0.5)",
    "mode": "group by the value, and count",
    "quantile": "write approx_quantile(x, q)",
    "quantile_cont": "write approx_quantile(x, q)",
    "quantile_disc": "write approx_quantile(x, q)",
    "reservoir_quantile": "write approx_quantile(x, q)",
    "sumkahan": "write sum(x), which is exact",
}
_LISTS = {"array_agg", "group_concat", "histogram", "list", "listagg", "string_agg"}
_BY = {"arg_max", "arg_min", "argmax", "argmin", "max_by", "min_by"}


@dataclass(frozen=True, slots=True)
class RawCall:
    """A call whose argument has no type yet. ``argument`` and ``mask``: numbers of row expressions, -1: none.

    Where a filter does not hold, the argument is null, and is not computed; only ``first`` and ``last``, which take
    null for a value, need a mask."""

    function: str
    argument: int
    mask: int
    q: float


@dataclass
class Reader:
    """Collects what the expressions of one aggregation have in common: each distinct part is computed once.

    rows:   expressions over the columns of the input, with who first asked for each
    calls:  the aggregates, in the order of their ``_aggregate_<n>``
    texts:  what people wrote for each of them, and at which ``places``
    """

    connection: duckdb.DuckDBPyConnection
    columns: Sequence[str]
    rows: list[Node] = field(default_factory=list)
    owners: list[Place] = field(default_factory=list)
    calls: list[RawCall] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.functions = Functions(self.connection)

    def row_expression(self, sql: str, owner: Place) -> int:
        """The number of an expression without aggregates. Raises ``ValueError``."""
        return self._row(parse_expression(self.connection, sql), owner)

    def group_expression(self, sql: str, owner: Place) -> Node:
        """An expression with its calls replaced by their columns; other names are as they were. Raises
        ``ValueError``."""
        with bounded_depth():
            replaced: Node = self._replaced(parse_expression(self.connection, sql), owner)
        return replaced

    def _row(self, node: Node, owner: Place) -> int:
        with bounded_depth():
            resolved = Scope(self.functions, self.columns, {INPUT}).resolve(node)
        bare = without_places(resolved)
        for number, known in enumerate(self.rows):
            if without_places(known) == bare:
                return number
        self.rows.append(resolved)
        self.owners.append(owner)
        return len(self.rows) - 1

    def _replaced(self, tree: Any, owner: Place) -> Any:
        if isinstance(tree, list):
            return [self._replaced(entry, owner) for entry in tree]
        if not isinstance(tree, dict):
            return tree
        if tree.get("class") == "FUNCTION" and self.functions.is_aggregate(tree):
            column = f"{AGGREGATE_COLUMN}{self._call(tree, owner)}"
            return column_reference(column) | {"alias": tree["alias"]}
        if tree.get("class") == "COLUMN_REF" and tree["column_names"][-1].lower().startswith(AGGREGATE_COLUMN):
            raise ValueError(f"there is no column {tree['column_names'][-1]}: names that begin with _ are private")
        return {key: self._replaced(value, owner) for key, value in tree.items()}

    def _call(self, call: Node, owner: Place) -> int:
        self._check_form(call)
        name = call["function_name"].lower()
        arguments = [argument["expression"] for argument in call["arguments"]]
        q = _quantile(arguments) if name == "approx_quantile" else 0.0
        if name == "count" and not arguments:
            name = "count_star"
        if len(arguments) != (0 if name == "count_star" else 2 if name == "approx_quantile" else 1):
            raise ValueError(f"{name}(...) takes {'x and q' if name == 'approx_quantile' else 'one argument'}")
        found = self._raw(FUNCTIONS[name], arguments, call["filter"], q, owner)
        if found not in self.calls:
            self.calls.append(found)
            self.texts.append(expression_text(self.connection, call))
            self.places.append(owner)
        return self.calls.index(found)

    def _raw(self, function: str, arguments: Sequence[Node], condition: Node | None, q: float, owner: Place) -> RawCall:
        if condition is None:
            return RawCall(function, self._row(arguments[0], owner) if arguments else -1, -1, q)
        if function in {"first", "last"}:
            return RawCall(function, self._row(arguments[0], owner), self._row(condition, owner), q)
        case = parse_expression(self.connection, "CASE WHEN TRUE THEN TRUE END")
        case["case_checks"][0]["when_expr"] = condition
        if arguments:
            case["case_checks"][0]["then_expr"] = arguments[0]
        return RawCall("count" if function == "count_star" else function, self._row(case, owner), -1, q)

    def _check_form(self, call: Node) -> None:
        """Raises ``ValueError`` for what cannot be merged, or is no function of the rows alone."""
        name = call["function_name"].lower()
        if call["schema"] or call["catalog"]:
            raise ValueError(f"{call['schema']}.{name}(...): write it as {name}({call['schema']}, ...)")
        if call["distinct"] and name == "count":
            raise ValueError(
                "count(DISTINCT x) would have to keep every value it met: write approx_count_distinct(x), within 1.6 %"
            )
        if call["distinct"]:
            raise ValueError(f"{name}(DISTINCT x) would have to keep every value it met: leave DISTINCT out")
        if name not in FUNCTIONS:
            raise ValueError(f"{name}(...) {_why_not(name)}")
        if call["order_bys"]["orders"]:
            raise ValueError(f"{name}(... ORDER BY ...): first and last go by event time, the others have no order")
        inner = [*(argument["expression"] for argument in call["arguments"]), call["filter"]]
        if any(self.functions.is_aggregate(node) for node in calls_in(inner)):
            raise ValueError(f"an aggregate inside {name}(...): a window has one level of groups")


def parse_expression(connection: duckdb.DuckDBPyConnection, sql: str) -> Node:
    """One expression, as it stands between SELECT and FROM; nothing in it is resolved. Raises ``ValueError``."""
    try:
        statements = parse(connection, f"SELECT {sql}\nFROM {INPUT}")
    except SqlSyntaxError as error:
        raise ValueError(f"not an expression: {error.what}") from error
    query: Node = statements[0]["node"] if len(statements) == 1 else {}
    plain = query.get("type") == "SELECT_NODE" and len(query["select_list"]) == 1 and not query["modifiers"]
    if not plain or query["select_list"][0]["alias"] or not _is_bare(query):
        raise ValueError("write one expression, without a name, FROM or WHERE")
    item: Node = query["select_list"][0]
    return item


def expression_text(connection: duckdb.DuckDBPyConnection, node: Node) -> str:
    """As SQL, without a name."""
    template: Node = parse(connection, "SELECT 1 FROM input")[0]["node"]
    before, _, after = unparse(connection, template).partition("1")
    sql = unparse(connection, template | {"select_list": [node | {"alias": ""}]})
    return sql.removeprefix(before).removesuffix(after).replace("count_star()", "count(*)")


def in_own_words(told: str, texts: Sequence[str]) -> str:
    """What is told of a group, with its aggregates as people wrote them. ``texts``: see ``Reader``. What is told may
    quote a value, which may look like anything."""
    named = {f"{AGGREGATE_COLUMN}{number}": text for number, text in enumerate(texts)}
    return re.sub(rf"\b{AGGREGATE_COLUMN}\d+\b", lambda column: named.get(column[0], column[0]), told)


def _is_bare(query: Node) -> bool:
    clauses = ("where_clause", "group_expressions", "group_sets", "having", "qualify", "sample")
    table = query["from_table"]
    return not any(query[clause] for clause in clauses) and table["type"] == "BASE_TABLE" and not table["alias"]


def column_reference(name: str) -> Node:
    return {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": 0, "column_names": [name]}


def without_places(tree: Any) -> Any:
    """What an expression says, wherever it stands."""
    if isinstance(tree, dict):
        dropped = {"query_location", "query_location_length", "alias"}
        return {key: without_places(value) for key, value in tree.items() if key not in dropped}
    return [without_places(entry) for entry in tree] if isinstance(tree, list) else tree


def calls_in(tree: Any) -> list[Node]:
    """Of functions, aggregates and operators."""
    if isinstance(tree, dict):
        own = [tree] if tree.get("class") == "FUNCTION" else []
        return [*own, *(call for child in tree.values() for call in calls_in(child))]
    return [call for child in tree for call in calls_in(child)] if isinstance(tree, list) else []


def _quantile(arguments: Sequence[Node]) -> float:
    literal = arguments[1].get("literal") if len(arguments) == 2 else None
    try:
        q = float(literal["text"]) if literal else -1.0
    except (KeyError, ValueError):
        q = -1.0
    if not 0 <= q <= 1:
        raise ValueError("approx_quantile(x, q): write q as a number from 0 to 1; for several, one call each")
    return q


def _why_not(name: str) -> str:
    if name in _INSTEAD:
        return f"cannot be merged from parts of a window: {_INSTEAD[name]}"
    if name in _LISTS:
        return "would keep every value of the window: land the rows, and collect them when you query"
    if name in _BY:
        return "is not known here: write first(x) or last(x), by event time"
    return f"is not known here; there are {', '.join(sorted({*FUNCTIONS.values()} - {'count_star'}))}"
