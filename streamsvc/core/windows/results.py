"""States to values. What is rounded is rounded here, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cached_property
from itertools import groupby
from math import sqrt
from operator import itemgetter

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from streamsvc.core.windows import exact, sketches
from streamsvc.core.windows.aggregates import Call, Kind, State, is_wide
from streamsvc.core.windows.exact import Ints
from streamsvc.core.windows.hashing import scale_of
from streamsvc.core.windows.states import ROWS, Layout
from streamsvc.records import Partials

_EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)
_HALF = 64
_LIMITS = {pa.int64(): (-(2**63), 2**63 - 1), pa.uint64(): (0, 2**64 - 1)}


@dataclass(frozen=True, slots=True)
class Values:
    """Of one aggregate, one a group. ``faults``: why there is none (null), by number of the group."""

    column: pa.Array
    faults: Mapping[int, str]


@dataclass(frozen=True)
class Results:
    """What calls come to for the groups of merged partials, in their order."""

    layout: Layout
    partials: Partials

    def of(self, call: Call) -> Values:
        if call.function == "count_star":
            return Values(self._flat(ROWS), {})
        if call.function == "sum" and not types.is_floating(call.type):
            return self._sum(call)
        return Values(self._column(call), self._too_many(call))

    def _column(self, call: Call) -> pa.Array:
        match call.function:
            case "count":
                return self._state(call, Kind.COUNT)
            case "min":
                return self._bound(call, Kind.LEAST)
            case "max":
                return self._bound(call, Kind.GREATEST)
            case "first" | "last":
                return self._state(call, Kind(call.function))
            case "avg":
                return self._each(call, self._averages(call))
            case "sum":
                return self._each(call, self._float_sums(call, lambda total, _: exact.ratio(total, 1 << exact.UNIT)))
            case "approx_count_distinct":
                return self._sketched(call, Kind.REGISTERS, lambda _, weights: sketches.distinct(weights), 0)
            case "approx_quantile":
                return self._quantiles(call)
        return self._each(call, self._variances(call))

    def _each(self, call: Call, values: list[float | None]) -> pa.Array:
        return pa.array(values, call.result_type)

    def _flat(self, name: str) -> pa.Array:
        return self.partials.flat[name].combine_chunks()

    def _state(self, call: Call, kind: Kind) -> pa.Array:
        return self._flat(State(kind, call.source, call.type).name)

    def _counts(self, call: Call) -> list[int]:
        counts: list[int] = self._state(call, Kind.COUNT).to_pylist()
        return counts

    def _too_many(self, call: Call) -> dict[int, str]:
        """Groups of more numbers than digits were made to hold."""
        if all(state.kind is not Kind.DIGITS for state in call.states):
            return {}
        fault = f"more than {exact.MAX_NUMBERS} values in one group"
        return {row: fault for row, count in enumerate(self._counts(call)) if count > exact.MAX_NUMBERS}

    def _bound(self, call: Call, kind: Kind) -> pa.Array:
        column = self._state(call, kind)
        if not types.is_floating(call.type):
            return column
        values = sketches.from_ordered(column.fill_null(0).to_numpy())
        return pa.array(values, mask=column.is_null().to_numpy(zero_copy_only=False)).cast(call.type)

    def _sum(self, call: Call) -> Values:
        counts = self._state(call, Kind.COUNT)
        kind = call.result_type
        if is_wide(call.type):
            totals = self._wide_totals(call)
            fits = [abs(total) < 10**38 for total in totals]
            scale = -scale_of(kind)
            column = pa.array([Decimal(t).scaleb(scale, _EXACT) if abs(t) < 10**38 else None for t in totals], kind)
        else:
            total = self._state(call, Kind.TOTAL)
            inside = self._inside(total, kind)
            fits = inside.to_pylist() if not pc.all(inside).as_py() else []
            column = pc.if_else(inside, total, pa.scalar(None, total.type)).cast(kind)
        faults = {row: f"the sum does not fit into {kind}" for row, fit in enumerate(fits) if fit is False}
        return Values(pc.if_else(pc.greater(counts, 0), column, pa.scalar(None, kind)), faults)

    def _inside(self, total: pa.Array, kind: pa.DataType) -> pa.Array:
        """Whether each total fits; one of nothing does."""
        if not types.is_integer(kind):
            return pa.repeat(pa.scalar(True), len(total))
        least, most = (pa.scalar(Decimal(bound), total.type) for bound in _LIMITS[kind])
        return pc.fill_null(pc.and_(pc.greater_equal(total, least), pc.less_equal(total, most)), True)

    def _wide_totals(self, call: Call) -> list[int]:
        low, high = (self._state(call, kind).to_pylist() for kind in (Kind.TOTAL, Kind.TOTAL_HIGH))
        return [(int(h or 0) << _HALF) + int(t or 0) for t, h in zip(low, high, strict=True)]

    def _averages(self, call: Call) -> list[float | None]:
        if types.is_floating(call.type):
            return self._float_sums(call, lambda total, count: exact.ratio(total, count << exact.UNIT))
        if is_wide(call.type):
            totals = self._wide_totals(call)
        else:
            totals = [_unscaled(total) for total in self._state(call, Kind.TOTAL).to_pylist()]
        scale = 10 ** scale_of(call.type)
        return [
            exact.ratio(total, count * scale) if count else None
            for total, count in zip(totals, self._counts(call), strict=True)
        ]

    def _float_sums(self, call: Call, rounded: Callable[[int, int], float]) -> list[float | None]:
        found: list[float | None] = [0.0 if count else None for count in self._counts(call)]
        counts = self._counts(call)
        for group, columns in self._digits(call, Kind.DIGITS):
            special = exact.special(columns)
            found[group] = rounded(exact.total(columns), counts[group]) if special is None else special
        return found

    def _variances(self, call: Call) -> list[float | None]:
        sums, squares = (dict(self._digits(call, kind)) for kind in (Kind.DIGITS, Kind.SQUARES))
        sample = call.function.endswith("_samp")
        found: list[float | None] = []
        for group, count in enumerate(self._counts(call)):
            sum_ = sums.get(group, {})
            total, square = exact.total(sum_), exact.total(squares.get(group, {}))
            value = exact.variance(count, total, square, sample=sample)
            if value is not None and exact.special(sum_) is not None:
                value = float("nan")
            found.append(sqrt(abs(value)) if value is not None and call.function.startswith("stddev") else value)
        return found

    def _quantiles(self, call: Call) -> pa.Array:
        finite = types.is_floating(call.type)
        least = self._bound(call, Kind.LEAST_FINITE if finite else Kind.LEAST).to_pylist()
        greatest = self._bound(call, Kind.GREATEST_FINITE if finite else Kind.GREATEST).to_pylist()
        found: list[float | int | Decimal | None] = [None] * len(least)
        for group, buckets, weights in self._buckets(call, Kind.QUANTILES):
            middle = _middle(sketches.quantile_bucket(buckets, weights, call.q), call.type)
            found[group] = min(max(middle, least[group]), greatest[group])
        return pa.array(found, call.result_type)

    def _sketched(self, call: Call, kind: Kind, value: Callable[[list[int], list[int]], int], empty: int) -> pa.Array:
        found = [empty] * self.partials.groups
        for group, buckets, weights in self._buckets(call, kind):
            found[group] = value(buckets, weights)
        return pa.array(found, call.result_type)

    def _digits(self, call: Call, kind: Kind) -> Iterator[tuple[int, dict[int, int]]]:
        for group, buckets, weights in self._buckets(call, kind):
            yield group, dict(zip(buckets, weights, strict=True))

    def _buckets(self, call: Call, kind: Kind) -> Iterator[tuple[int, list[int], list[int]]]:
        """Each group that has any, with its buckets and their weights."""
        wanted = State(kind, call.source, call.type)
        own = self._numbers["aggregate"] == self.layout.bucketed.index(wanted)
        groups, buckets, weights = (self._numbers[name][own].tolist() for name in ("group", "bucket", "weight"))
        for group, rows in groupby(zip(groups, buckets, weights, strict=True), key=itemgetter(0)):
            _, some, many = zip(*rows, strict=True)
            yield group, list(some), list(many)

    @cached_property
    def _numbers(self) -> dict[str, Ints]:
        return {name: self.partials.bucketed[name].to_numpy() for name in self.partials.bucketed.column_names}


def _unscaled(total: Decimal | None) -> int:
    return 0 if total is None else int(total.scaleb(-int(total.as_tuple().exponent), _EXACT))


def _middle(bucket: int, kind: pa.DataType) -> float | int | Decimal:
    if types.is_integer(kind):
        return sketches.middle_integer(bucket)
    if types.is_decimal(kind):
        return Decimal(sketches.middle(bucket)).quantize(Decimal(1).scaleb(-scale_of(kind)), context=_EXACT)
    return sketches.middle(bucket)
