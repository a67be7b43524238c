"""What each aggregate is made of: states that merge by adding, by least and greatest, or by who came first.

A *state* belongs to an *input*: an argument under a filter. Aggregates share states: ``avg(x)`` and ``sum(x)`` have
the same two. Flat states are columns of a row for each window and group; bucketed ones are rows of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa
from pyarrow import types

from streamsvc.core.windows.hashing import can_hash, scale_of

WIDE_DIGITS = 24
"""Decimals of more digits are summed in two halves: 10^14 of those that have fewer fit into 38 digits."""


class Kind(StrEnum):
    """What a state keeps of its input."""

    COUNT = "count"
    TOTAL = "total"
    TOTAL_HIGH = "total_high"
    LEAST = "least"
    GREATEST = "greatest"
    LEAST_FINITE = "least_finite"
    GREATEST_FINITE = "greatest_finite"
    FIRST = "first"
    LAST = "last"
    DIGITS = "digits"
    SQUARES = "squares"
    QUANTILES = "quantiles"
    REGISTERS = "registers"


BUCKETED = {Kind.DIGITS, Kind.SQUARES, Kind.QUANTILES, Kind.REGISTERS}
PICKED = {Kind.FIRST, Kind.LAST}
_LEAST = {Kind.LEAST, Kind.LEAST_FINITE}
_GREATEST = {Kind.GREATEST, Kind.GREATEST_FINITE}


@dataclass(frozen=True, slots=True)
class State:
    """``source``: number of the input; ``type``: of its values."""

    kind: Kind
    source: int
    type: pa.DataType

    @property
    def name(self) -> str:
        """Of its column; a picked one has three more, ``_time``, ``_split`` and ``_position``."""
        return f"{self.kind}_{self.source}"

    @property
    def column_type(self) -> pa.DataType:
        """Of a flat one."""
        if self.kind is Kind.COUNT:
            return pa.int64()
        if self.kind in {Kind.TOTAL, Kind.TOTAL_HIGH}:
            return pa.decimal128(38, 0 if is_wide(self.type) else scale_of(self.type))
        if self.kind in PICKED or not types.is_floating(self.type):
            return self.type
        return pa.int64()

    @property
    def fields(self) -> list[pa.Field]:
        """The columns of a flat one."""
        value = pa.field(self.name, self.column_type)
        if self.kind not in PICKED:
            return [value]
        coordinates = [("time", pa.int64()), ("split", pa.string()), ("position", pa.string())]
        return [value, *(pa.field(f"{self.name}_{name}", kind) for name, kind in coordinates)]

    @property
    def merges_by(self) -> str:
        """Arrow's name of the aggregate that merges the column of a flat one that is not picked."""
        return "min" if self.kind in _LEAST else "max" if self.kind in _GREATEST else "sum"


def is_wide(kind: pa.DataType) -> bool:
    return types.is_decimal(kind) and kind.precision > WIDE_DIGITS


@dataclass(frozen=True, slots=True)
class Call:
    """One aggregate: a function of an input. ``q`` is for ``approx_quantile``; ``count_star`` has no input (-1)."""

    function: str
    source: int
    type: pa.DataType
    q: float = 0.0

    @property
    def result_type(self) -> pa.DataType:
        """As DuckDB's, but integers are summed to ``int64`` (``uint64``), which files have, not to 128 bits."""
        match self.function:
            case "count_star" | "count" | "approx_count_distinct":
                return pa.int64()
            case "sum" if types.is_decimal(self.type):
                return pa.decimal128(38, scale_of(self.type))
            case "sum" if not types.is_floating(self.type):
                return pa.uint64() if types.is_uint64(self.type) else pa.int64()
            case "min" | "max" | "first" | "last":
                return self.type
            case "approx_quantile" if not types.is_floating(self.type):
                return self.type
        return pa.float64()

    @property
    def states(self) -> list[State]:
        return [State(kind, self.source, self.type) for kind in self._kinds()]

    def _kinds(self) -> Sequence[Kind]:
        match self.function:
            case "sum" | "avg" if types.is_floating(self.type):
                return (Kind.COUNT, Kind.DIGITS)
            case "sum" | "avg" if is_wide(self.type):
                return (Kind.COUNT, Kind.TOTAL, Kind.TOTAL_HIGH)
            case "sum" | "avg":
                return (Kind.COUNT, Kind.TOTAL)
            case "approx_quantile" if types.is_floating(self.type):
                return (Kind.QUANTILES, Kind.LEAST_FINITE, Kind.GREATEST_FINITE)
        return _KINDS[self.function]


_KINDS: Mapping[str, Sequence[Kind]] = {
    "count_star": (),
    "count": (Kind.COUNT,),
    "min": (Kind.LEAST,),
    "max": (Kind.GREATEST,),
    "first": (Kind.FIRST,),
    "last": (Kind.LAST,),
    "approx_count_distinct": (Kind.REGISTERS,),
    "approx_quantile": (Kind.QUANTILES, Kind.LEAST, Kind.GREATEST),
    **dict.fromkeys(("stddev_samp", "stddev_pop", "var_samp", "var_pop"), (Kind.COUNT, Kind.DIGITS, Kind.SQUARES)),
}


FUNCTIONS = {
    "count": "count",
    "count_star": "count_star",
    "sum": "sum",
    "min": "min",
    "max": "max",
    "avg": "avg",
    "mean": "avg",
    "stddev": "stddev_samp",
    "stddev_samp": "stddev_samp",
    "stddev_pop": "stddev_pop",
    "variance": "var_samp",
    "var_samp": "var_samp",
    "var_pop": "var_pop",
    "approx_count_distinct": "approx_count_distinct",
    "approx_quantile": "approx_quantile",
    "first": "first",
    "last": "last",
}
"""By the names that SQL has for them."""


def check_argument(function: str, kind: pa.DataType) -> None:
    """Raises ``ValueError`` for a type that the function cannot take."""
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    if types.is_float16(kind) or types.is_decimal256(kind):
        raise ValueError(f"{function}(...) of {kind}: cast it to DOUBLE")
    match function:
        case "count" | "first" | "last":
            return
        case "sum" if types.is_boolean(kind):
            return
        case "min" | "max":
            if types.is_nested(kind):
                raise ValueError(f"{function}(...) of {kind}: there is no order among such values; take a part of it")
        case "approx_count_distinct":
            if not can_hash(kind):
                raise ValueError(f"{function}(...) of {kind}: cast it to VARCHAR, or take a part of it")
        case _ if not number:
            if types.is_temporal(kind):
                advice = "take it of a number, for example epoch(column)"
            else:
                advice = "cast it to BIGINT, DECIMAL or DOUBLE"
            raise ValueError(f"{function}(...) is of numbers, and this is {kind}: {advice}")


def check_key(name: str, kind: pa.DataType) -> None:
    """Raises ``ValueError`` for a type that groups cannot be told apart by."""
    if types.is_nested(kind) or types.is_decimal256(kind) or types.is_float16(kind):
        raise ValueError(f"{name} is of type {kind}, which no group can have: group by a part of it, or cast it")
