"""Which SQL functions are row-wise: the same arguments give the same value, whatever the batch, the host, the time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any

import duckdb

from streamsvc.transforms.engine import Node, connect, parse, unparse

NOT_OF_THE_RECORD = (
    "does not depend on the record alone, and a record that is read again must become the same row:"
    " use its own columns, or include _timestamp, _split or _position"
)

MAX_PAD = 1_000

MAX_MADE = 100_000
"""Characters or elements that a call may make whatever the record. What a record asks for is bounded by memory."""

_ON_PURPOSE = {"error"}
"""Volatile in the catalogue, so that it is not computed beforehand; what it does is a function of the row."""

_OF_THE_BUILD = {"version", "alias", "json_serialize_plan", "index_key", "parse_duckdb_log_message"}

_LIST_AGGREGATES = {"list_aggregate", "list_aggr", "aggregate", "array_aggregate", "array_aggr"}
_PADDED = {"lpad", "rpad"}
_SERIES = {"range", "generate_series"}
_REPLACED = {"replace", "regexp_replace"}
_SIZED = {*_SERIES, *_REPLACED, "repeat"}
MAX_REPLACEMENT = 100
"""Characters; DuckDB does not count what these functions make as memory."""
_CONSTANT = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR", "TYPE",
}  # fmt: skip
"""What a constant is made of; all else reads something, or names it."""

_WHOLE = {
    "TINYINT", "SMALLINT", "INT", "INTEGER", "BIGINT", "HUGEINT",
    "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
}  # fmt: skip
_WIDE = {"printf": re.compile(r"%[^a-zA-Z%]*(\*|\d{4})"), "format": re.compile(r"\{[^{}]*(\{|\d{4})")}
"""Patterns that take a width from an argument, or a large one: DuckDB does not count padding as memory."""


@dataclass
class _Overloads:
    """What the catalogue says of one name."""

    kinds: set[str] = field(default_factory=set)
    consistent: bool = False
    macros: set[tuple[tuple[str, ...], str]] = field(default_factory=set)


@cache
def _catalogue() -> dict[str, _Overloads]:
    rows = connect().execute(
        "SELECT lower(function_name), function_type, stability, parameters, macro_definition FROM duckdb_functions()"
    )
    named: dict[str, _Overloads] = {}
    for name, kind, stability, parameters, macro in rows.fetchall():
        overloads = named.setdefault(name, _Overloads())
        overloads.kinds.add(kind)
        overloads.consistent |= kind == "scalar" and stability == "CONSISTENT"
        overloads.macros |= {(tuple(parameters), macro)} if macro else set()
    return named


@dataclass(frozen=True, slots=True)
class _Constant:
    """``text``: of its value; ``None``: NULL"""

    type: str
    text: str | None

    @property
    def number(self) -> int | None:
        """Of a quoted one, too: a call takes it for a number where it needs one."""
        return int(self.text) if self.text is not None and re.fullmatch(r"-?[0-9]{1,40}", self.text) else None


class Functions:
    """The functions of this build of DuckDB. ``connection`` parses, and computes constants."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._named = _catalogue()

    def is_aggregate(self, call: Node) -> bool:
        """Whether a node of class FUNCTION is a call of an aggregate."""
        kinds = self._named.get(call["function_name"].lower(), _Overloads()).kinds
        return "aggregate" in kinds and "scalar" not in kinds

    def check(self, call: Node) -> None:
        """Raises ``ValueError`` if a call is not row-wise. ``call``: a node of class FUNCTION."""
        name = call["function_name"].lower()
        if call["schema"] or call["catalog"]:
            raise ValueError(
                f"{call['schema']}.{name}(...): write functions by their plain names, with their subject as the first"
                f" argument: {name}({call['schema']}, ...)"
            )
        self._check_name(name)
        arguments = [argument["expression"] for argument in call["arguments"]]
        _check_arguments(name, arguments)
        self._check_sizes(name, arguments)

    def _check_sizes(self, name: str, arguments: list[Node]) -> None:
        """What a call makes of every record, whatever it says."""
        if name in _REPLACED and len(arguments) > 2:
            constant = self._constant(arguments[2])
            if constant is None or len(constant.text or "") > MAX_REPLACEMENT:
                raise ValueError(
                    f"{name}(text, what, replacement): write the replacement as a literal or another constant, of at"
                    f" most {MAX_REPLACEMENT} characters; a column takes the place of one occurrence, and no more, by"
                    " split_part(text, what, 1) || column || split_part(text, what, 2)"
                )
        if name not in {*_SERIES, "repeat"}:
            return
        constants = [self._constant(argument) for argument in arguments[name == "repeat" :]]
        if name in _SERIES and len(arguments) > 2 and not _is_whole(arguments[2], constants[2]):
            raise ValueError(
                f"{name}(first, last, step): write the step as a whole number, or as step::BIGINT where it is a column;"
                " a series of times takes as long as a record says: write"
                f" list_transform({name}(0, count), lambda n: first + to_days(n))"
            )
        if _made(name, [constant.number if constant else None for constant in constants]) > MAX_MADE:
            raise ValueError(
                f"{name}(...) makes more than {MAX_MADE:,} of it for every record, which would take for ever"
            )

    def _constant(self, node: Node) -> _Constant | None:
        """``None``: it is none, may be large, or fails. Raises ``ValueError`` for calls that are not row-wise."""
        inner = [part for part in _nodes(node) if "class" in part]
        calls = [part for part in inner if part["class"] == "FUNCTION"]
        sized = any(call["function_name"].lower() in _SIZED for call in calls)
        if sized or any(part["class"] not in _CONSTANT for part in inner):
            return None
        for call in calls:
            self.check(call)
        query = parse(self._connection, "SELECT typeof(NULL), NULL::VARCHAR")[0]["node"]
        kind, text = query["select_list"]
        kind["arguments"][0]["expression"] = text["child"] = node
        try:
            rows = self._connection.execute(unparse(self._connection, query)).fetchall()
        except (ValueError, duckdb.Error):
            return None
        return _Constant(*rows[0])

    def _check_name(self, name: str) -> None:
        overloads = self._named.get(name, _Overloads())
        if name == "unnest":
            raise ValueError("unnest(...) makes several rows of one; keep the list, and unnest it when you query")
        if "scalar" in overloads.kinds:
            if name.startswith("__internal") or not (overloads.consistent or name in _ON_PURPOSE):
                raise ValueError(f"{name}(...) {NOT_OF_THE_RECORD}")
            if name == "hash":
                raise ValueError(
                    "hash(x) may change with the version of the SQL engine, and a segment may be finished by another:"
                    " write md5_number_lower(x::VARCHAR)"
                )
            if name in _OF_THE_BUILD:
                raise ValueError(f"{name}(...) depends on the SQL engine, not on the record")
        elif "macro" in overloads.kinds:
            for parameters, definition in overloads.macros:
                try:
                    self._check_macro(name, parameters, definition)
                except ValueError as error:
                    raise ValueError(f"{name}(...) is {definition}: {error}") from error
        elif overloads.kinds & {"aggregate", "window"}:
            kind = "an aggregate" if "aggregate" in overloads.kinds else "a window function"
            shown = "count(*)" if name == "count_star" else f"{name}(...)"
            raise ValueError(
                f"{shown} is {kind}: it would depend on how records were batched; compute it where the data is read"
            )
        elif overloads.kinds:
            raise ValueError(f"{name}(...) makes a table, and there is only input; a step reads nothing else")
        else:
            close = get_close_matches(name, self._names(), n=1, cutoff=0.75)
            raise ValueError(f"there is no function {name}{f'; did you mean {close[0]}?' if close else ''}")

    def _check_macro(self, name: str, parameters: tuple[str, ...], definition: str) -> None:
        """A macro is what it expands to."""
        for node in _nodes(parse(self._connection, f"SELECT {definition}")[0]["node"]["select_list"]):
            if node.get("class") in {"SUBQUERY", "WINDOW"}:
                raise ValueError("it reads the catalogue of the SQL engine, not the record")
            if node.get("class") == "COLUMN_REF" and node["column_names"][0] not in parameters:
                raise ValueError(f"{node['column_names'][0]} {NOT_OF_THE_RECORD}")
            if node.get("class") == "FUNCTION" and node["function_name"].lower() != name:
                self._check_name(node["function_name"].lower())

    def _names(self) -> list[str]:
        return [name for name, overloads in self._named.items() if overloads.kinds & {"scalar", "macro"}]


def _check_arguments(name: str, arguments: list[Node]) -> None:
    """Where it depends on the arguments whether a call is row-wise, and bounded in memory."""
    if name == "age" and len(arguments) == 1:
        raise ValueError("age(x) counts from today; write age(later, earlier)")
    if name in _LIST_AGGREGATES and len(arguments) > 1:
        aggregate = _text(arguments[1])
        if aggregate is None or aggregate.lower() == "reservoir_quantile":
            raise ValueError(f"{name}(list, aggregate): write the aggregate as a literal, and not a sampling one")
    if name in _PADDED and len(arguments) > 1:
        width = _literal(arguments[1])
        if width is None or not width.isdecimal() or int(width) > MAX_PAD:
            raise ValueError(f"{name}(text, width, padding): write the width as a number, at most {MAX_PAD}")
    if name in _WIDE and arguments:
        pattern = _text(arguments[0])
        if pattern is None or _WIDE[name].search(pattern):
            raise ValueError(f"{name}(pattern, ...): write the pattern as a literal, with widths as numbers under 1000")


def _made(name: str, numbers: list[int | None]) -> int:
    """How many elements a call makes of every record; 0 if that depends on the record."""
    known = [number for number in numbers if number is not None]
    if name == "repeat" and len(known) == 1:
        return known[0]
    if name not in _SERIES or len(known) < len(numbers) or not 1 <= len(known) <= 3 or known[2:] == [0]:
        return 0
    first, last = (0, known[0]) if len(known) == 1 else known[:2]
    return abs(last - first) // abs(known[2] if known[2:] else 1)


def _is_whole(node: Node, constant: _Constant | None) -> bool:
    """An expression, and what it is if it is a constant."""
    if constant is not None:
        return constant.type in _WHOLE
    return node["class"] == "CAST" and node["type_expr"]["type_name"].upper() in _WHOLE


def _literal(node: Node) -> str | None:
    literal = node.get("literal")
    return str(literal["text"]) if node.get("class") == "CONSTANT" and literal and "text" in literal else None


def _text(node: Node) -> str | None:
    return _literal(node) if node.get("literal", {}).get("kind") == "STRING" else None


def _nodes(tree: Any) -> Iterator[Node]:
    if isinstance(tree, dict):
        yield tree
        for child in tree.values():
            yield from _nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)
