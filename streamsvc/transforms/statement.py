"""A SELECT over ``input``, read as a tree, held to what is row-wise, and taken apart into columns and a condition.

Everything that is not known to be row-wise is refused, with what, why and what to do instead. Names are resolved here:
each reference is to a column of the input (or an element of a list, in a lambda), and aliases are put in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import duckdb

from streamsvc.records import ROW
from streamsvc.transforms.engine import Node, SqlProblems, SqlSyntaxError, noted, parse
from streamsvc.transforms.functions import NOT_OF_THE_RECORD, Functions

INPUT = "input"
MAX_NODES = 50_000
"""Aliases are replaced by what they stand for, which can double a statement with each one."""

_PRIVATE = re.compile(r"_row|_partition_.*", re.IGNORECASE)

_OF_THE_MOMENT = re.compile(r"current_\w+|local\w+|session_user|user", re.IGNORECASE)
"""Functions that SQL calls without parentheses."""

_EXPRESSIONS = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA",
    "OPERATOR", "TYPE",
}  # fmt: skip
_REFUSED_EXPRESSIONS = {
    "SUBQUERY": "a subquery: a step sees one record at a time, and no other table",
    "WINDOW": "a window function (OVER): it would depend on how records were batched; compute it in the query",
    "PARAMETER": "a parameter ($1, ?): nobody fills it; write the value, or ${VARIABLE} for one of the environment",
    "POSITIONAL_REFERENCE": "a column by its number (#1): write its name",
    "STAR": "* inside an expression, or COLUMNS(...): write the columns' names;"
    " only * with EXCLUDE, REPLACE or RENAME is understood",
    "DEFAULT": "DEFAULT: there is no table to take it from; write the value",
}
_REFUSED_OPERATORS = {
    "GROUPING_FUNCTION": "GROUPING(...): there are no groups in a step",
    "OPERATOR_UNPACK": "UNPACK(...): write the columns' names",
}
_REFUSED_MODIFIERS = {
    "LIMIT_MODIFIER": "LIMIT and OFFSET: which rows pass would depend on how records were batched; filter with WHERE",
    "LIMIT_PERCENT_MODIFIER": "LIMIT: which rows pass would depend on how records were batched; filter with WHERE",
    "DISTINCT_MODIFIER": "DISTINCT: it would see one batch at a time; remove duplicates where the data is read",
    "ORDER_MODIFIER": "ORDER BY: rows keep the order of their records; sort where the data is read",
}
_ONLY_INPUT = "FROM must be input, alone: a step reads no other table, file or function, and joins nothing"


@dataclass(frozen=True, slots=True)
class Output:
    """A column of the result: a column of the input as it is, or an expression."""

    name: str
    column: str | None = None
    expression: Node | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """What a SELECT says. Expressions name columns as ``input.<column>``."""

    outputs: tuple[Output, ...]
    condition: Node | None


def read_select(connection: duckdb.DuckDBPyConnection, sql: str, columns: Sequence[str]) -> Statement:
    """``columns``: those of the input. Raises ``ValueError``, ``SqlProblems`` where there are several."""
    query = _query(parse(connection, sql))
    scope = Scope(Functions(connection), columns, {INPUT, query["from_table"]["alias"].lower() or INPUT})
    outputs: list[Output] = []
    condition: Node | None = None
    problems: list[str] = []
    with bounded_depth():
        for item in query["select_list"]:
            with noted(problems):
                outputs.extend(scope.star(item) if _is_plain_star(item) else [scope.item(item)])
        with noted(problems):
            condition = scope.resolve(query["where_clause"]) if query["where_clause"] else None
    if problems:
        raise SqlProblems(problems)
    _check_names([output.name for output in outputs])
    return Statement(tuple(outputs), condition)


def read_expression(connection: duckdb.DuckDBPyConnection, sql: str, columns: Sequence[str]) -> Node:
    """One expression, as it stands between SELECT and FROM. Raises ``ValueError``."""
    try:
        query = _query(parse(connection, f"SELECT {sql}\nFROM {INPUT}"))
    except SqlSyntaxError as error:
        raise ValueError(f"not an expression: {error.what}") from error
    items = query["select_list"]
    if len(items) != 1 or items[0]["alias"] or query["where_clause"] or query["from_table"]["alias"]:
        raise ValueError("write one expression, without a name, FROM or WHERE")
    with bounded_depth():
        return Scope(Functions(connection), columns, {INPUT}).resolve(items[0])


def column_of(expression: Node) -> str | None:
    """The input column that a resolved expression is, if it is nothing else."""
    if expression["class"] != "COLUMN_REF" or len(expression["column_names"]) != 2:
        return None
    return str(expression["column_names"][1])


def references(expressions: Iterable[Node]) -> set[str]:
    """The input columns that resolved expressions read."""
    found: set[str] = set()

    def visit(tree: Any) -> None:
        if isinstance(tree, dict):
            if tree.get("class") == "COLUMN_REF" and tree["column_names"][0] == INPUT:
                found.add(tree["column_names"][1])
            for child in tree.values():
                visit(child)
        elif isinstance(tree, list):
            for child in tree:
                visit(child)

    visit(list(expressions))
    return found


@dataclass
class Scope:
    """What names stand for. Columns and aliases are found whatever their case, as in all of SQL."""

    functions: Functions
    columns: Sequence[str]
    tables: set[str]
    aliases: dict[str, Node] = field(default_factory=dict)
    elements: frozenset[str] = frozenset()
    """Parameters of the lambdas around."""
    nodes: int = 0
    refused: set[str] = field(default_factory=set)
    """Aliases of what is refused: what is made of them is no problem of its own."""

    def __post_init__(self) -> None:
        self._columns = {name.lower(): name for name in self.columns}

    def item(self, item: Node) -> Output:
        """One item of the select list that is no star."""
        try:
            expression = self.resolve(item)
        except ValueError:
            self.refused.add(item["alias"].lower())
            raise
        column = column_of(expression)
        name = item["alias"] or column or (item["column_names"][-1] if item["class"] == "COLUMN_REF" else "")
        if not name:
            shown = f"{item['function_name']}(...)" if _is_call(item) else "(...)"
            raise ValueError(f"a column has no name: write {shown} AS name")
        if item["alias"]:
            self.aliases[name.lower()] = expression
        return _output(name, expression)

    def star(self, star: Node) -> list[Output]:
        """``*``, with what is excluded, replaced and renamed."""
        if star["relation_name"] and star["relation_name"].lower() not in self.tables:
            raise ValueError(f"{star['relation_name']}.*: write the fields' names; only input.* is understood")
        if star["alias"]:
            raise ValueError(f"* AS {star['alias']}: only one column has a name")
        excluded = {self.column(name) for name in star["exclude_list"]}
        excluded |= {self.column(key["column"]) for key in star["qualified_exclude_list"]}
        replaced = {self.column(entry["key"]): self.resolve(entry["value"]) for entry in star["replace_list"]}
        renamed = {self.column(entry["key"]["column"]): entry["value"] for entry in star["rename_list"]}
        outputs = []
        for column in self.columns:
            if column in excluded:
                continue
            name = renamed.get(column, column)
            outputs.append(_output(name, replaced[column]) if column in replaced else Output(name, column))
        return outputs

    def column(self, name: str) -> str:
        """The input's column of that name. Raises ``ValueError``."""
        found = self._columns.get(name.lower())
        if found is not None:
            return found
        if name.lower() == ROW:
            raise ValueError(f"{ROW} is private: it leads from a row to its record, and goes through by itself")
        if name.lower() in self.refused:
            raise SqlProblems([])
        if _OF_THE_MOMENT.fullmatch(name):
            raise ValueError(f"{name} {NOT_OF_THE_RECORD}")
        close = get_close_matches(name.lower(), [*self._columns, *self.aliases], n=1)
        advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(self.columns)}"
        raise ValueError(f"there is no column {name}; {advice}")

    def resolve(self, node: Node) -> Node:
        """The expression with every name replaced by what it stands for. Raises ``ValueError``."""
        self._count()
        kind = node["class"]
        if kind not in _EXPRESSIONS:
            raise ValueError(_REFUSED_EXPRESSIONS.get(kind, f"{kind.lower()}: not known to depend on one record alone"))
        if kind == "OPERATOR" and node["type"] in _REFUSED_OPERATORS:
            raise ValueError(_REFUSED_OPERATORS[node["type"]])
        if kind == "COLUMN_REF":
            return self._reference(node)
        if kind == "LAMBDA" and node["syntax_type"] == "LAMBDA_KEYWORD":
            return self._lambda(node)
        if kind == "FUNCTION":
            self.functions.check(node)
        return {key: self._child(value) for key, value in node.items()}

    def _child(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self.resolve(value) if "class" in value else {key: self._child(v) for key, v in value.items()}
        if isinstance(value, list):
            return [self._child(entry) for entry in value]
        return value

    def _reference(self, node: Node) -> Node:
        names = node["column_names"]
        if names[0].lower() in self.elements:
            return node
        of_table = len(names) > 1 and names[0].lower() in self.tables
        if of_table and (names[1].lower() in self._columns or names[0].lower() not in self._columns):
            names = names[1:]
        alias = self.aliases.get(names[0].lower())
        if alias is not None and len(names) == 1 and names[0].lower() not in self._columns:
            self._count(alias)
            return deepcopy(alias) | {"alias": node["alias"]}
        return node | {"column_names": [INPUT, self.column(names[0]), *names[1:]]}

    def _lambda(self, node: Node) -> Node:
        sides = node["lhs"]
        parameters = [sides] if sides["class"] == "COLUMN_REF" else [a["expression"] for a in sides["arguments"]]
        names = frozenset(parameter["column_names"][0].lower() for parameter in parameters)
        if INPUT in names:
            raise ValueError(f"lambda {INPUT}: {INPUT} is the table; give the parameter another name")
        inner = Scope(self.functions, self.columns, self.tables, self.aliases, self.elements | names, self.nodes)
        body = inner.resolve(node["expr"])
        self.nodes = inner.nodes
        return node | {"expr": body}

    def _count(self, tree: Any = None) -> None:
        """A node, or all of a tree."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ValueError("the statement is too large once its aliases are replaced by what they stand for")
        if isinstance(tree, dict):
            for value in tree.values():
                self._count(value)
        elif isinstance(tree, list):
            for value in tree:
                self._count(value)


@contextmanager
def bounded_depth() -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise ValueError("the statement is nested too deeply") from None


def _output(name: str, expression: Node) -> Output:
    column = column_of(expression)
    return Output(name, expression=expression) if column is None else Output(name, column)


def _query(statements: list[Node]) -> Node:
    """The one plain SELECT from ``input`` that the text must be."""
    if len(statements) != 1:
        raise ValueError("write one SELECT statement" + (", not several" if statements else ""))
    query: Node = statements[0]["node"]
    if query["type"] != "SELECT_NODE":
        raise ValueError("UNION, INTERSECT, EXCEPT and the like: a step is one SELECT; write a pipeline for each part")
    if refused := [*_refused_clauses(query), *_refused_tables(query["from_table"])]:
        raise SqlProblems(refused)
    return query


def _refused_clauses(query: Node) -> Iterator[str]:
    for modifier in query["modifiers"]:
        yield _REFUSED_MODIFIERS.get(modifier["type"], f"{modifier['type']}: a step is one plain SELECT")
    if query["cte_map"]["map"]:
        yield "WITH: a step is one plain SELECT; write a second step for what comes after"
    if query["group_expressions"] or query["group_sets"] or query["aggregate_handling"] != "STANDARD_HANDLING":
        yield "GROUP BY: groups would depend on how records were batched; group where the data is read"
    for clause in ("having", "qualify", "sample"):
        if query[clause]:
            yield f"{clause.upper()}: it would depend on how records were batched; filter with WHERE"


def _refused_tables(table: Node) -> Iterator[str]:
    plain = table["type"] == "BASE_TABLE" and table["table_name"].lower() == INPUT
    if not plain or table["schema_name"] or table["catalog_name"] or table["at_clause"]:
        yield _ONLY_INPUT
        return
    if table["sample"]:
        yield (
            "TABLESAMPLE: which rows pass would be chance; filter with WHERE, on md5_number_lower(column::VARCHAR) % 10"
        )
    if table["column_name_alias"]:
        yield "input AS t(a, b): give columns names in the select list"


def _is_plain_star(item: Node) -> bool:
    return item["class"] == "STAR" and not item["columns"] and item["expr"] is None


def _check_names(names: list[str]) -> None:
    if not names:
        raise ValueError("no column is left")
    seen: dict[str, str] = {}
    for name in names:
        if _PRIVATE.fullmatch(name):
            raise ValueError(f"a column cannot be called {name}: {ROW} and _partition_... are private")
        other = seen.get(name.lower())
        if other is not None:
            same = "twice" if other == name else f"beside {other}, and case does not count"
            raise ValueError(f"there is a column {name} {same}: rename one, or leave it out: * EXCLUDE ({name})")
        seen[name.lower()] = name


def _is_call(item: Node) -> bool:
    return item["class"] == "FUNCTION" and not item["is_operator"]
