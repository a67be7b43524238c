"""``window:`` of a configuration to what it makes of rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from streamsvc.config_window import ARRIVAL, Window
from streamsvc.config_window import EventTime as EventTimeOptions
from streamsvc.core.windows.event_time import EventTime
from streamsvc.records import Problem
from streamsvc.transforms.aggregation.aggregation import AggregationRules, WindowAggregation
from streamsvc.transforms.engine import SqlProblems, noted
from streamsvc.transforms.sql import SqlTransform
from streamsvc.transforms.window_sql import read_window_sql


@dataclass(frozen=True, slots=True)
class BuiltWindow:
    """steps: what the statement filters before windows. window: without ``sql``. time: when rows are."""

    steps: tuple[SqlTransform, ...]
    window: Window
    time: EventTime
    aggregation: WindowAggregation


def build_window(window: Window, schema: pa.Schema) -> BuiltWindow:
    """``schema``: the columns after all steps, without ``_row``.

    Raises ``SqlProblems``, each of which begins with a path into ``window``: ``aggregate.requests: ...``."""
    steps: list[SqlTransform] = []
    with _of_statement(window):
        if window.sql is not None:
            statement = read_window_sql(window, schema.names)
            window = statement.window
            if statement.where is not None:
                where = f"SELECT * FROM input WHERE {statement.where}"  # noqa: S608 - is checked as every step
                steps.append(SqlTransform(where, schema))
        problems: list[str] = []
        time = _event_time(window)
        with noted(problems, "time"):
            _check_time(time, schema)
        aggregation: WindowAggregation | None = None
        with noted(problems):
            aggregation = WindowAggregation(_rules(window), schema)
        if problems or aggregation is None:
            raise SqlProblems(problems)
        return BuiltWindow(tuple(steps), window, time, aggregation)


def _event_time(window: Window) -> EventTime:
    match window.time:
        case EventTimeOptions():
            return EventTime(window.time.column, window.time.unit)
        case str() if window.time != ARRIVAL:
            return EventTime(window.time)
    return EventTime(None)


def _check_time(time: EventTime, schema: pa.Schema) -> None:
    """Raises ``ValueError``."""
    if time.column is None:
        return
    if time.column not in schema.names:
        raise ValueError(f"there is no column {time.column}; there are {', '.join(schema.names)}")
    problem = time.problem_with(schema.field(time.column).type)
    if problem:
        raise ValueError(problem)


def _rules(window: Window) -> AggregationRules:
    return AggregationRules(
        group_by=window.groups,
        aggregate=window.aggregate,
        having=window.having,
        then=[step.sql for step in window.then],
        max_groups=window.max_groups,
    )


@contextmanager
def _of_statement(window: Window) -> Iterator[None]:
    """Problems of a statement are at ``sql``, with the name of the column that they are about."""
    try:
        yield
    except ValueError as error:
        problems = error.problems if isinstance(error, SqlProblems) else (str(error),)
        if window.sql is None:
            raise SqlProblems(problems) from error
        raise SqlProblems(Problem(_unplaced(problem), "sql") for problem in problems) from error


def _unplaced(problem: str) -> str:
    """A statement has no keys: the name of the column stands in the text."""
    if isinstance(problem, Problem) and problem.place[:1] in {("aggregate",), ("group_by",)}:
        return f"{problem.place[1]}: {problem.what}"
    return str.__str__(problem)
