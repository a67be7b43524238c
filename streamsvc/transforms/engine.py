"""DuckDB as it is used here: no files, no network, no extensions, no settings to change, one thread, UTC.

Statements are read as trees (``json_serialize_sql``, which parses and never executes), checked and rewritten as trees,
and only what was made of a checked tree is executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import duckdb
import orjson

from streamsvc.records import Problem

Node: TypeAlias = dict[str, Any]
"""An expression or a query as DuckDB serializes it."""

Place: TypeAlias = tuple[str | int, ...]
"""The keys that lead to a value of the configuration."""

MEMORY_LIMIT_MB = 256
"""For one step over one batch. Fixed, because a row that needs more is a reject: it decides what rows become."""

MAX_SQL_CHARACTERS = 100_000


class SqlProblems(ValueError):
    """All that is wrong with a statement or with some expressions; each of ``problems`` can be read by itself."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))


@contextmanager
def noted(problems: list[str], *place: str | int) -> Iterator[None]:
    """Go on after a ``ValueError``; what it says is added to ``problems``, with its place in the configuration."""
    try:
        yield
    except SqlProblems as error:
        problems += [Problem(problem, *place) for problem in error.problems]
    except ValueError as error:
        problems.append(Problem(str(error), *place))


class SqlSyntaxError(ValueError):
    """``what`` is wrong; ``place`` says where, or is empty."""

    def __init__(self, what: str, place: str) -> None:
        super().__init__(f"{what} ({place})" if place else what)
        self.what = what


def connect() -> duckdb.DuckDBPyConnection:
    """A database of its own, in memory. Used by one thread at a time."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": "1",
            "memory_limit": f"{MEMORY_LIMIT_MB}MB",
            "temp_directory": "",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "preserve_insertion_order": "true",
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_external_access = false")
    # What the optimiser does for one projection over one batch is less than it costs (0.3 ms a batch), and without
    # it expressions are evaluated in the order in which they are written.
    connection.execute("PRAGMA disable_optimizer")
    connection.execute("SET lock_configuration = true")
    return connection


def parse(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Node]:
    """The statements of a text, which must be queries. Raises ``ValueError``."""
    if len(sql) > MAX_SQL_CHARACTERS:
        raise ValueError(f"the statement is longer than {MAX_SQL_CHARACTERS} characters")
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in sql):
        raise ValueError("the statement holds a character that is no text (NUL or half of a surrogate pair)")
    [(tree,)] = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    try:
        answer = orjson.loads(tree)
    except orjson.JSONDecodeError:
        raise ValueError("the statement is nested too deeply") from None
    if not answer.get("error"):
        statements: list[Node] = answer["statements"]
        return statements
    if answer.get("error_type") == "not implemented":
        raise ValueError("a step is one SELECT ... FROM input, and nothing else")
    raise SqlSyntaxError(answer["error_message"], _place(sql, answer.get("position")))


def unparse(connection: duckdb.DuckDBPyConnection, query: Node) -> str:
    """A query node as SQL, which is read back to see that it says the same. Raises ``ValueError``."""
    document = {"error": False, "statements": [{"node": query, "named_param_map": []}]}
    [(sql,)] = connection.execute("SELECT json_deserialize_sql(?::JSON)", [orjson.dumps(document).decode()]).fetchall()
    if _meaning(parse(connection, sql)[0]["node"]) != _meaning(query):
        raise ValueError("the SQL engine writes this statement in another way than it reads it: write it otherwise")
    return str(sql)


def _meaning(tree: Any) -> Any:
    """Without places in the text, and what differs between two ways to write the same."""
    if isinstance(tree, dict):
        return {
            key: _meaning(value)
            for key, value in tree.items()
            if key not in {"query_location", "query_location_length", "alias", "is_operator"}
        }
    return [_meaning(entry) for entry in tree] if isinstance(tree, list) else tree


def _place(sql: str, position: str | None) -> str:
    """``position`` counts bytes."""
    if position is None or not position.isdecimal():
        return ""
    before = sql.encode()[: int(position)].decode(errors="replace")
    line = before.count("\n") + 1
    return f"line {line}, column {len(before) - before.rfind(chr(10))} of the statement"
