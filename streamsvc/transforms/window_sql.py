"""Windows as one statement, taken apart into what ``window:`` says otherwise.

    SELECT window_start, response, count(*) AS requests
    FROM TUMBLE(input, datetime, INTERVAL 5 MINUTE) GROUP BY window_start, response HAVING requests > 10

It is read by the SQL engine's own parser, as steps are, so a word means here what it means there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from streamsvc.config_types import SqlStep
from streamsvc.config_window import Window, shape_faults
from streamsvc.transforms.aggregation.calls import calls_in, column_reference, expression_text, without_places
from streamsvc.transforms.engine import Node, SqlProblems, connect, parse
from streamsvc.transforms.functions import Functions
from streamsvc.transforms.statement import INPUT, Scope, bounded_depth

_TABLES = {"tumble": ("time", "size"), "hop": ("time", "size", "every")}
_OF_WINDOW = ("window_start", "window_end")
_FROM = (
    "FROM must be TUMBLE(input, time, INTERVAL 5 MINUTE) or HOP(input, time, INTERVAL 1 HOUR, INTERVAL 5 MINUTE),"
    " alone: a window reads no other table, and joins nothing"
)
MAX_TREE_CHARACTERS = 1_000_000

_REFUSED_MODIFIERS = {
    "LIMIT_MODIFIER": "LIMIT and OFFSET: which groups are first is known only where all results are read",
    "LIMIT_PERCENT_MODIFIER": "LIMIT: which groups are first is known only where all results are read",
    "DISTINCT_MODIFIER": "DISTINCT: groups are distinct already; leave it out",
    "ORDER_MODIFIER": "ORDER BY: results are in the order of their groups; sort where they are read",
}


@dataclass(frozen=True, slots=True)
class WindowStatement:
    """``where``: a condition that comes before windows. ``window``: without ``sql``, all else is what it says."""

    where: str | None
    window: Window


def read_window_sql(window: Window, columns: Sequence[str]) -> WindowStatement:
    """``window``: one with ``sql``; ``columns``: those of the input. Raises ``ValueError``, ``SqlProblems`` where
    there are several problems."""
    assert window.sql is not None
    connection = connect()
    query = _query(parse(connection, window.sql))
    with bounded_depth():
        reading = _Reading(connection, columns, _unqualified(query, _names_of_table(query["from_table"])))
        return reading.statement(window)


@dataclass
class _Reading:
    connection: duckdb.DuckDBPyConnection
    columns: Sequence[str]
    query: Node

    def __post_init__(self) -> None:
        self._lower = {*_OF_WINDOW, *(column.lower() for column in self.columns)}
        self._functions = Functions(self.connection)
        self._items = self._without_aliases(self.query["select_list"])

    def statement(self, window: Window) -> WindowStatement:
        groups = self._groups()
        outputs = self._outputs(groups)
        having = self.query["having"]
        natural = [*_OF_WINDOW, *(group.name for group in groups), *(o.name for o in outputs if not o.of_group)]
        shown = [(o.source, o.name) for o in outputs]
        then = list(window.then)
        if [name for _, name in shown] != natural:
            selected = ", ".join(f"{_quoted(source)} AS {_quoted(name)}" for source, name in shown)
            then.insert(0, SqlStep(sql=f"SELECT {selected} FROM input"))  # noqa: S608 - is checked as every step
        where = self.query["where_clause"]
        taken = window.model_copy(
            update={
                **self._shape(),
                "sql": None,
                "group_by": {group.name: self._text(group.node) for group in groups},
                "aggregate": {o.name: self._text(self._replaced(o.node, groups)) for o in outputs if not o.of_group},
                "having": self._text(self._replaced(having, groups)) if having else None,
                "then": then,
            }
        )
        problems = [f"{'.'.join(keys)}: {what}" for keys, what in shape_faults(taken)]
        if problems:
            raise SqlProblems(problems)
        return WindowStatement(self._text(where) if where else None, taken)

    def _shape(self) -> dict[str, object]:
        """``tumble``, ``hop`` and ``time``."""
        call = self.query["from_table"]["function"]
        arguments = [argument["expression"] for argument in call["arguments"]]
        named = dict(zip(_TABLES[call["function_name"].lower()], arguments[1:], strict=True))
        time = named["time"]
        if time["class"] != "COLUMN_REF" or len(time["column_names"]) != 1:
            raise ValueError("the time of a window is a column: make one in a step of `transform`")
        name = time["column_names"][0]
        known = next((column for column in self.columns if column.lower() == name.lower()), name)
        every = self._seconds(named["every"]) if "every" in named else None
        return {"time": known, "tumble": self._seconds(named["size"]), "hop": every}

    def _seconds(self, node: Node) -> float:
        """A constant interval."""
        if node["class"] == "CONSTANT":
            raise ValueError("the length of a window is an interval: write INTERVAL 5 MINUTE")
        checked = Scope(self._functions, [], {INPUT}).resolve(node)
        text = self._text(checked)
        try:
            parts = ", ".join(f"datepart('{part}', {text})" for part in ("month", "year"))
            [(ticks, months, years)] = self.connection.execute(f"SELECT epoch_us({text}), {parts}").fetchall()
        except duckdb.Error as error:
            raise ValueError(f"the length of a window is an interval: write INTERVAL 5 MINUTE ({error})") from error
        if months or years:
            raise ValueError("months and years differ in length: write days, hours, minutes or seconds")
        return float(ticks) / 1_000_000

    def _groups(self) -> list[_Group]:
        """What rows are grouped by, besides the window."""
        items = self._items
        nodes = [self._meant(node, items) for node in self.query["group_expressions"]]
        if self.query["aggregate_handling"] == "FORCE_AGGREGATES":
            nodes = [item for item in items if not self._aggregates(item)]
        if not any(_is_of_window(node) for node in nodes):
            raise ValueError("GROUP BY must name window_start: each result is of one window")
        groups: list[_Group] = []
        for node in nodes:
            if _is_of_window(node) or any(group.is_(node) for group in groups):
                continue
            alias = next((item["alias"] for item in items if _same(item, node) and item["alias"]), "")
            name = alias or (node["column_names"][-1] if node["class"] == "COLUMN_REF" else f"group_{len(groups)}")
            groups.append(_Group(name, node))
        return groups

    def _meant(self, node: Node, items: Sequence[Node]) -> Node:
        """A number or an alias in GROUP BY stands for an item of the select list; a column goes before an alias."""
        if node["class"] == "CONSTANT":
            text = str(node["literal"].get("text"))
            if text.isdecimal() and 1 <= int(text) <= len(items):
                return items[int(text) - 1]
            raise ValueError(f"GROUP BY {text}: there are {len(items)} columns in SELECT")
        if node["class"] == "COLUMN_REF" and node["column_names"][0].lower() not in self._lower:
            name = node["column_names"][-1].lower()
            return next((item for item in items if item["alias"].lower() == name), node)
        return node

    def _without_aliases(self, items: Sequence[Node]) -> list[Node]:
        """The select list with aliases of items before it in their place; a column goes before an alias."""
        known: dict[str, Node] = {}
        found = []
        for item in items:
            found.append(_rewritten(item, lambda node: known.get(_bare_name(node))) | {"alias": item["alias"]})
            if len(str(found[-1])) > MAX_TREE_CHARACTERS:
                raise ValueError("the statement is too large once its aliases are replaced by what they stand for")
            if item["alias"] and item["alias"].lower() not in self._lower:
                known[item["alias"].lower()] = found[-1]
        return found

    def _outputs(self, groups: Sequence[_Group]) -> list[_Output]:
        outputs = []
        for item in self._items:
            if item["class"] == "STAR":
                raise ValueError("*: write the columns: window_start, the groups, and aggregates with their names")
            group = next((group for group in groups if group.is_(item)), None)
            if _is_of_window(item):
                source = item["column_names"][0].lower()
                outputs.append(_Output(item["alias"] or source, source, item, of_group=True))
            elif group is not None:
                outputs.append(_Output(item["alias"] or group.name, group.name, item, of_group=True))
            elif not item["alias"]:
                shown = f"{item['function_name']}(...)" if item["class"] == "FUNCTION" else "(...)"
                raise ValueError(f"a column has no name: write {shown.replace('count_star(...)', 'count(*)')} AS name")
            else:
                outputs.append(_Output(item["alias"], item["alias"], item, of_group=False))
        return outputs

    def _aggregates(self, node: Node) -> bool:
        return any(self._functions.is_aggregate(call) for call in calls_in(node))

    def _replaced(self, tree: Node, groups: Sequence[_Group]) -> Node:
        """The expression with what rows are grouped by as columns, outside of aggregates, which see rows."""

        def replacement(node: Node) -> Node | None:
            for group in groups:
                if group.is_(node):
                    return column_reference(group.name) | {"alias": node["alias"]}
            return node if node["class"] == "FUNCTION" and self._functions.is_aggregate(node) else None

        replaced: Node = _rewritten(tree, replacement)
        return replaced

    def _text(self, node: Node) -> str:
        return expression_text(self.connection, node)


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    node: Node

    def is_(self, node: Node) -> bool:
        return _same(self.node, node)


@dataclass(frozen=True, slots=True)
class _Output:
    """A column of the result: ``source`` is what it is called before the last step."""

    name: str
    source: str
    node: Node
    of_group: bool


def _query(statements: list[Node]) -> Node:
    """The one SELECT over windows that the text must be."""
    if len(statements) != 1:
        raise ValueError("write one SELECT statement")
    query: Node = statements[0]["node"]
    if query["type"] != "SELECT_NODE":
        raise ValueError("UNION, INTERSECT, EXCEPT and the like: write a pipeline for each part")
    if problems := list(_refused(query)):
        raise SqlProblems(problems)
    return query


def _refused(query: Node) -> Iterator[str]:
    for modifier in query["modifiers"]:
        yield _REFUSED_MODIFIERS.get(modifier["type"], f"{modifier['type']}: it is one plain SELECT")
    if query["cte_map"]["map"]:
        yield "WITH: write steps before it in `transform`, and after it in `then`"
    for clause in ("qualify", "sample"):
        if query[clause]:
            yield f"{clause.upper()}: it would look beyond one group; filter groups with HAVING"
    if len(query["group_sets"]) > 1:
        yield "GROUPING SETS, ROLLUP and CUBE: write a pipeline for each grouping"
    table = query["from_table"]
    call = table.get("function", {})
    wanted = _TABLES.get(str(call.get("function_name")).lower())
    if table["type"] != "TABLE_FUNCTION" or wanted is None or table["sample"]:
        yield _FROM
        return
    arguments = [argument["expression"] for argument in call["arguments"]]
    if len(arguments) != 1 + len(wanted) or not _is_input(arguments[0]):
        yield _FROM


def _is_input(node: Node) -> bool:
    return node["class"] == "COLUMN_REF" and [name.lower() for name in node["column_names"]] == [INPUT]


def _names_of_table(table: Node) -> set[str]:
    return {(table["alias"] or table["function"]["function_name"]).lower(), INPUT}


def _unqualified(query: Node, tables: set[str]) -> Node:
    def replacement(node: Node) -> Node | None:
        names = node["column_names"] if node["class"] == "COLUMN_REF" else []
        return node | {"column_names": names[1:]} if len(names) > 1 and names[0].lower() in tables else None

    replaced: Node = _rewritten(query, replacement)
    return replaced


def _rewritten(tree: Any, replacement: Callable[[Node], Node | None]) -> Any:
    """The tree with each expression replaced that has a replacement. Lambdas stay: their parameters may have any
    name."""
    if isinstance(tree, list):
        return [_rewritten(entry, replacement) for entry in tree]
    if not isinstance(tree, dict) or tree.get("class") == "LAMBDA":
        return tree
    replaced = replacement(tree) if "class" in tree else None
    return {key: _rewritten(value, replacement) for key, value in tree.items()} if replaced is None else replaced


def _bare_name(node: Node) -> str:
    names = node["column_names"] if node["class"] == "COLUMN_REF" else []
    return str(names[0]).lower() if len(names) == 1 else ""


def _is_of_window(node: Node) -> bool:
    return _bare_name(node) in _OF_WINDOW


def _same(left: Node, right: Node) -> bool:
    return bool(_folded(without_places(left)) == _folded(without_places(right)))


def _folded(tree: Any) -> Any:
    """Names of columns, whatever their case."""
    if isinstance(tree, dict):
        return {
            key: [name.lower() for name in value] if key == "column_names" else _folded(value)
            for key, value in tree.items()
        }
    return [_folded(entry) for entry in tree] if isinstance(tree, list) else tree


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
