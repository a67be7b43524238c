# Most functions take a column, chunked or not, or a scalar, and answer in kind: `_Columnar` says so. Families of one
# signature are callable protocols. A second operand may be a plain Python value.

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload

from pyarrow.lib import (
    Array,
    BooleanScalar,
    ChunkedArray,
    DataType,
    DictionaryArray,
    Int64Scalar,
    ListArray,
    MemoryPool,
    RecordBatch,
    Scalar,
    StructArray,
    StructScalar,
    Table,
    _Mask,
    _NullPlacement,
    _NullSelection,
    _Order,
    _TypeLike,
    _Unit,
    _Value,
)

_Columnar = TypeVar("_Columnar", Array, ChunkedArray, Scalar)
_Column = TypeVar("_Column", Array, ChunkedArray)
_Rows = TypeVar("_Rows", Array, ChunkedArray, RecordBatch, Table)
_AnyColumn: TypeAlias = Array | ChunkedArray
_Operand: TypeAlias = Array | ChunkedArray | Scalar | _Value
_CountMode: TypeAlias = Literal["only_valid", "only_null", "all"]
_SortKeys: TypeAlias = Sequence[tuple[str, _Order]] | Sequence[tuple[str, str]] | _Order

class Expression:
    def __eq__(self, other: object) -> Expression: ...  # type: ignore[override]
    def __ne__(self, other: object) -> Expression: ...  # type: ignore[override]
    def __lt__(self, other: Expression | _Value) -> Expression: ...
    def __le__(self, other: Expression | _Value) -> Expression: ...
    def __gt__(self, other: Expression | _Value) -> Expression: ...
    def __ge__(self, other: Expression | _Value) -> Expression: ...
    def __and__(self, other: Expression) -> Expression: ...
    def __or__(self, other: Expression) -> Expression: ...
    def __invert__(self) -> Expression: ...
    def is_null(self, nan_is_null: bool = False) -> Expression: ...
    def is_valid(self) -> Expression: ...
    def isin(self, values: Array | Sequence[object]) -> Expression: ...

def field(*name_or_index: str | int) -> Expression: ...
def scalar(value: Scalar | _Value | None) -> Expression: ...

class FunctionOptions: ...

class CastOptions(FunctionOptions):
    def __init__(
        self,
        target_type: DataType | None = None,
        *,
        allow_int_overflow: bool | None = None,
        allow_time_truncate: bool | None = None,
        allow_time_overflow: bool | None = None,
        allow_decimal_truncate: bool | None = None,
        allow_float_truncate: bool | None = None,
        allow_invalid_utf8: bool | None = None,
    ) -> None: ...
    @staticmethod
    def safe(target_type: DataType | None = None) -> CastOptions: ...
    @staticmethod
    def unsafe(target_type: DataType | None = None) -> CastOptions: ...

class StrptimeOptions(FunctionOptions):
    def __init__(self, format: str, unit: _Unit, error_is_null: bool = False) -> None: ...

class SortOptions(FunctionOptions):
    def __init__(self, sort_keys: _SortKeys = (), *, null_placement: _NullPlacement | None = None) -> None: ...

class SetLookupOptions(FunctionOptions):
    def __init__(self, value_set: _AnyColumn, *, skip_nulls: bool = False) -> None: ...

# --- families of one signature

class _Unary(Protocol):
    def __call__(self, values: _Columnar, /, *, memory_pool: MemoryPool | None = None) -> _Columnar: ...

class _Binary(Protocol):
    @overload
    def __call__(self, x: Array, y: ChunkedArray, /, *, memory_pool: MemoryPool | None = None) -> ChunkedArray: ...
    @overload
    def __call__(self, x: Array, y: Array | Scalar | _Value, /, *, memory_pool: MemoryPool | None = None) -> Array: ...
    @overload
    def __call__(self, x: ChunkedArray, y: _Operand, /, *, memory_pool: MemoryPool | None = None) -> ChunkedArray: ...
    @overload
    def __call__(self, x: Scalar, y: _Columnar, /, *, memory_pool: MemoryPool | None = None) -> _Columnar: ...
    @overload
    def __call__(self, x: Scalar, y: _Value, /, *, memory_pool: MemoryPool | None = None) -> Scalar: ...
    @overload
    def __call__(self, x: _Value, y: _Columnar, /, *, memory_pool: MemoryPool | None = None) -> _Columnar: ...

class _MatchPattern(Protocol):
    def __call__(
        self,
        strings: _Columnar,
        /,
        pattern: str | bytes,
        *,
        ignore_case: bool = False,
        memory_pool: MemoryPool | None = None,
    ) -> _Columnar: ...

class _Replace(Protocol):
    def __call__(
        self,
        strings: _Columnar,
        /,
        pattern: str | bytes,
        replacement: str | bytes,
        *,
        max_replacements: int | None = None,
        memory_pool: MemoryPool | None = None,
    ) -> _Columnar: ...

class _SplitPattern(Protocol):
    @overload
    def __call__(
        self,
        strings: Array,
        /,
        pattern: str | bytes,
        *,
        max_splits: int | None = None,
        reverse: bool = False,
        memory_pool: MemoryPool | None = None,
    ) -> ListArray: ...
    @overload
    def __call__(
        self,
        strings: ChunkedArray,
        /,
        pattern: str | bytes,
        *,
        max_splits: int | None = None,
        reverse: bool = False,
        memory_pool: MemoryPool | None = None,
    ) -> ChunkedArray: ...

class _SplitWhitespace(Protocol):
    @overload
    def __call__(
        self,
        strings: Array,
        /,
        *,
        max_splits: int | None = None,
        reverse: bool = False,
        memory_pool: MemoryPool | None = None,
    ) -> ListArray: ...
    @overload
    def __call__(
        self,
        strings: ChunkedArray,
        /,
        *,
        max_splits: int | None = None,
        reverse: bool = False,
        memory_pool: MemoryPool | None = None,
    ) -> ChunkedArray: ...

class _Extract(Protocol):
    @overload
    def __call__(
        self, strings: Array, /, pattern: str | bytes, *, memory_pool: MemoryPool | None = None
    ) -> StructArray: ...
    @overload
    def __call__(
        self, strings: ChunkedArray, /, pattern: str | bytes, *, memory_pool: MemoryPool | None = None
    ) -> ChunkedArray: ...
    @overload
    def __call__(
        self, strings: Scalar, /, pattern: str | bytes, *, memory_pool: MemoryPool | None = None
    ) -> StructScalar: ...

class _Trim(Protocol):
    def __call__(
        self, strings: _Columnar, /, characters: str, *, memory_pool: MemoryPool | None = None
    ) -> _Columnar: ...

class _Pad(Protocol):
    def __call__(
        self,
        strings: _Columnar,
        /,
        width: int,
        padding: str = " ",
        lean_left_on_odd_padding: bool = True,
        *,
        memory_pool: MemoryPool | None = None,
    ) -> _Columnar: ...

class _Slice(Protocol):
    def __call__(
        self,
        strings: _Columnar,
        /,
        start: int,
        stop: int | None = None,
        step: int = 1,
        *,
        memory_pool: MemoryPool | None = None,
    ) -> _Columnar: ...

class _ReplaceSlice(Protocol):
    def __call__(
        self,
        strings: _Columnar,
        /,
        start: int,
        stop: int,
        replacement: str | bytes,
        *,
        memory_pool: MemoryPool | None = None,
    ) -> _Columnar: ...

class _Aggregate(Protocol):
    def __call__(
        self,
        array: _AnyColumn,
        /,
        *,
        skip_nulls: bool = True,
        min_count: int = 1,
        memory_pool: MemoryPool | None = None,
    ) -> Scalar: ...

class _Spread(Protocol):
    def __call__(
        self,
        array: _AnyColumn,
        /,
        *,
        ddof: int = 0,
        skip_nulls: bool = True,
        min_count: int = 0,
        memory_pool: MemoryPool | None = None,
    ) -> Scalar: ...

class _ElementWise(Protocol):
    @overload
    def __call__(
        self,
        first: _Column,
        /,
        *args: _Operand,
        skip_nulls: bool = True,
        memory_pool: MemoryPool | None = None,
    ) -> _Column: ...
    @overload
    def __call__(
        self,
        first: Scalar,
        /,
        *args: Scalar,
        skip_nulls: bool = True,
        memory_pool: MemoryPool | None = None,
    ) -> Scalar: ...

class _Cumulative(Protocol):
    def __call__(
        self,
        values: _Column,
        /,
        start: Scalar | _Value | None = None,
        *,
        skip_nulls: bool = False,
        memory_pool: MemoryPool | None = None,
    ) -> _Column: ...

class _RoundTemporal(Protocol):
    def __call__(
        self,
        timestamps: _Columnar,
        /,
        multiple: int = 1,
        unit: str = "day",
        *,
        week_starts_monday: bool = True,
        ceil_is_strictly_greater: bool = False,
        calendar_based_origin: bool = False,
        memory_pool: MemoryPool | None = None,
    ) -> _Columnar: ...

# --- arithmetic, comparison, logic

abs: _Unary
abs_checked: _Unary
negate: _Unary
negate_checked: _Unary
sign: _Unary
sqrt: _Unary
ceil: _Unary
floor: _Unary
trunc: _Unary
exp: _Unary
ln: _Unary
log2: _Unary
log10: _Unary
bit_wise_not: _Unary
invert: _Unary
is_nan: _Unary
is_inf: _Unary
is_finite: _Unary
is_valid: _Unary
true_unless_null: _Unary

add: _Binary
add_checked: _Binary
subtract: _Binary
subtract_checked: _Binary
multiply: _Binary
multiply_checked: _Binary
divide: _Binary
divide_checked: _Binary
power: _Binary
power_checked: _Binary
bit_wise_and: _Binary
bit_wise_or: _Binary
bit_wise_xor: _Binary
shift_left: _Binary
shift_right: _Binary
equal: _Binary
not_equal: _Binary
less: _Binary
less_equal: _Binary
greater: _Binary
greater_equal: _Binary
and_: _Binary
and_kleene: _Binary
and_not: _Binary
and_not_kleene: _Binary
or_: _Binary
or_kleene: _Binary
xor: _Binary

max_element_wise: _ElementWise
min_element_wise: _ElementWise

def round(
    x: _Columnar,
    /,
    ndigits: int = 0,
    round_mode: str = "half_to_even",
    *,
    memory_pool: MemoryPool | None = None,
) -> _Columnar: ...
def is_null(values: _Columnar, /, *, nan_is_null: bool = False, memory_pool: MemoryPool | None = None) -> _Columnar: ...
@overload
def if_else(
    cond: _Column, left: _Operand | None, right: _Operand | None, /, *, memory_pool: MemoryPool | None = None
) -> _Column: ...
@overload
def if_else(
    cond: BooleanScalar | bool, left: _Column, right: _Operand | None, /, *, memory_pool: MemoryPool | None = None
) -> _Column: ...
@overload
def coalesce(first: _Column, /, *values: _Operand, memory_pool: MemoryPool | None = None) -> _Column: ...
@overload
def coalesce(first: Scalar, /, *values: Scalar, memory_pool: MemoryPool | None = None) -> Scalar: ...
def case_when(cond: Array, /, *cases: _Operand, memory_pool: MemoryPool | None = None) -> Array: ...
def choose(indices: _Column, /, *values: _Operand, memory_pool: MemoryPool | None = None) -> _Column: ...
def fill_null(values: _Column, fill_value: _Operand) -> _Column: ...
def fill_null_forward(values: _Column, /, *, memory_pool: MemoryPool | None = None) -> _Column: ...
def fill_null_backward(values: _Column, /, *, memory_pool: MemoryPool | None = None) -> _Column: ...

# --- casts

def cast(
    arr: _Columnar,
    target_type: _TypeLike | None = None,
    safe: bool | None = None,
    options: CastOptions | None = None,
    memory_pool: MemoryPool | None = None,
) -> _Columnar: ...

# --- text and bytes

ascii_capitalize: _Unary
ascii_is_alnum: _Unary
ascii_is_alpha: _Unary
ascii_is_decimal: _Unary
ascii_is_lower: _Unary
ascii_is_printable: _Unary
ascii_is_space: _Unary
ascii_is_title: _Unary
ascii_is_upper: _Unary
ascii_lower: _Unary
ascii_ltrim_whitespace: _Unary
ascii_reverse: _Unary
ascii_rtrim_whitespace: _Unary
ascii_swapcase: _Unary
ascii_title: _Unary
ascii_trim_whitespace: _Unary
ascii_upper: _Unary
binary_length: _Unary
binary_reverse: _Unary
string_is_ascii: _Unary
utf8_capitalize: _Unary
utf8_is_alnum: _Unary
utf8_is_alpha: _Unary
utf8_is_decimal: _Unary
utf8_is_digit: _Unary
utf8_is_lower: _Unary
utf8_is_numeric: _Unary
utf8_is_printable: _Unary
utf8_is_space: _Unary
utf8_is_title: _Unary
utf8_is_upper: _Unary
utf8_length: _Unary
utf8_lower: _Unary
utf8_ltrim_whitespace: _Unary
utf8_reverse: _Unary
utf8_rtrim_whitespace: _Unary
utf8_swapcase: _Unary
utf8_title: _Unary
utf8_trim_whitespace: _Unary
utf8_upper: _Unary

ascii_trim: _Trim
ascii_ltrim: _Trim
ascii_rtrim: _Trim
utf8_trim: _Trim
utf8_ltrim: _Trim
utf8_rtrim: _Trim

ascii_center: _Pad
ascii_lpad: _Pad
ascii_rpad: _Pad
utf8_center: _Pad
utf8_lpad: _Pad
utf8_rpad: _Pad

binary_slice: _Slice
utf8_slice_codeunits: _Slice
binary_replace_slice: _ReplaceSlice
utf8_replace_slice: _ReplaceSlice

count_substring: _MatchPattern
count_substring_regex: _MatchPattern
ends_with: _MatchPattern
find_substring: _MatchPattern
find_substring_regex: _MatchPattern
match_like: _MatchPattern
match_substring: _MatchPattern
match_substring_regex: _MatchPattern
starts_with: _MatchPattern

replace_substring: _Replace
replace_substring_regex: _Replace

split_pattern: _SplitPattern
split_pattern_regex: _SplitPattern
ascii_split_whitespace: _SplitWhitespace
utf8_split_whitespace: _SplitWhitespace
extract_regex: _Extract
extract_regex_span: _Extract

binary_repeat: _Binary

def binary_join(
    strings: _Columnar, separator: str | bytes | Scalar | Array, /, *, memory_pool: MemoryPool | None = None
) -> _Columnar: ...
@overload
def binary_join_element_wise(
    first: _Column,
    /,
    *strings: _Operand,
    null_handling: Literal["emit_null", "skip", "replace"] = "emit_null",
    null_replacement: str = "",
    memory_pool: MemoryPool | None = None,
) -> _Column: ...
@overload
def binary_join_element_wise(
    first: Scalar | str | bytes,
    second: _Column,
    /,
    *strings: _Operand,
    null_handling: Literal["emit_null", "skip", "replace"] = "emit_null",
    null_replacement: str = "",
    memory_pool: MemoryPool | None = None,
) -> _Column: ...
def utf8_normalize(
    strings: _Columnar,
    /,
    form: Literal["NFC", "NFKC", "NFD", "NFKD"],
    *,
    memory_pool: MemoryPool | None = None,
) -> _Columnar: ...

# --- time

day: _Unary
day_of_year: _Unary
hour: _Unary
iso_week: _Unary
iso_year: _Unary
local_timestamp: _Unary
microsecond: _Unary
millisecond: _Unary
minute: _Unary
month: _Unary
nanosecond: _Unary
quarter: _Unary
second: _Unary
subsecond: _Unary
year: _Unary

days_between: _Binary
hours_between: _Binary
microseconds_between: _Binary
milliseconds_between: _Binary
minutes_between: _Binary
nanoseconds_between: _Binary
seconds_between: _Binary

ceil_temporal: _RoundTemporal
floor_temporal: _RoundTemporal
round_temporal: _RoundTemporal

def strptime(
    strings: _Columnar,
    /,
    format: str,
    unit: _Unit,
    error_is_null: bool = False,
    *,
    memory_pool: MemoryPool | None = None,
) -> _Columnar: ...
def strftime(
    timestamps: _Columnar,
    /,
    format: str = "%Y-%m-%dT%H:%M:%S",
    locale: str = "C",
    *,
    memory_pool: MemoryPool | None = None,
) -> _Columnar: ...
def assume_timezone(
    timestamps: _Columnar,
    /,
    timezone: str,
    *,
    ambiguous: Literal["raise", "earliest", "latest"] = "raise",
    nonexistent: Literal["raise", "earliest", "latest"] = "raise",
    memory_pool: MemoryPool | None = None,
) -> _Columnar: ...
def day_of_week(
    values: _Columnar,
    /,
    *,
    count_from_zero: bool = True,
    week_start: int = 1,
    memory_pool: MemoryPool | None = None,
) -> _Columnar: ...

# --- choosing and ordering rows

def filter(
    input: _Rows,
    selection_filter: _Mask,
    /,
    null_selection_behavior: _NullSelection = "drop",
    *,
    memory_pool: MemoryPool | None = None,
) -> _Rows: ...
def take(
    data: _Rows,
    indices: _AnyColumn | Sequence[int],
    *,
    boundscheck: bool = True,
    memory_pool: MemoryPool | None = None,
) -> _Rows: ...
def drop_null(input: _Rows, /, *, memory_pool: MemoryPool | None = None) -> _Rows: ...
def array_sort_indices(
    array: _AnyColumn,
    /,
    order: _Order = "ascending",
    *,
    null_placement: _NullPlacement = "at_end",
    memory_pool: MemoryPool | None = None,
) -> Array: ...
def sort_indices(
    input: Array | ChunkedArray | RecordBatch | Table,
    /,
    sort_keys: _SortKeys = (),
    *,
    null_placement: _NullPlacement | None = None,
    memory_pool: MemoryPool | None = None,
) -> Array: ...
def rank(
    input: _AnyColumn,
    /,
    sort_keys: _SortKeys = "ascending",
    *,
    null_placement: _NullPlacement | None = None,
    tiebreaker: Literal["min", "max", "first", "dense"] = "first",
    memory_pool: MemoryPool | None = None,
) -> Array: ...
def search_sorted(
    values: _AnyColumn,
    needles: _Columnar,
    /,
    side: Literal["left", "right"] = "left",
    *,
    memory_pool: MemoryPool | None = None,
) -> _Columnar: ...
def indices_nonzero(values: _AnyColumn, /, *, memory_pool: MemoryPool | None = None) -> Array: ...
def inverse_permutation(
    indices: _Column,
    /,
    max_index: int = -1,
    output_type: DataType | None = None,
    *,
    memory_pool: MemoryPool | None = None,
) -> _Column: ...
def scatter(
    values: _Column, indices: _AnyColumn, /, max_index: int = -1, *, memory_pool: MemoryPool | None = None
) -> _Column: ...
def replace_with_mask(
    values: _Column,
    mask: _AnyColumn | Scalar | bool,
    replacements: _Operand,
    /,
    *,
    memory_pool: MemoryPool | None = None,
) -> _Column: ...
def index_in(
    values: _Columnar,
    /,
    value_set: _AnyColumn,
    *,
    skip_nulls: bool = False,
    memory_pool: MemoryPool | None = None,
) -> _Columnar: ...
def is_in(
    values: _Columnar,
    /,
    value_set: _AnyColumn,
    *,
    skip_nulls: bool = False,
    memory_pool: MemoryPool | None = None,
) -> _Columnar: ...
def index(
    data: _AnyColumn,
    value: Scalar | _Value,
    start: int | None = None,
    end: int | None = None,
    *,
    memory_pool: MemoryPool | None = None,
) -> Int64Scalar: ...
def unique(array: _AnyColumn, /, *, memory_pool: MemoryPool | None = None) -> Array: ...
def value_counts(array: _AnyColumn, /, *, memory_pool: MemoryPool | None = None) -> StructArray: ...
@overload
def dictionary_encode(
    array: Array,
    /,
    null_encoding: Literal["mask", "encode"] = "mask",
    *,
    memory_pool: MemoryPool | None = None,
) -> DictionaryArray: ...
@overload
def dictionary_encode(
    array: ChunkedArray,
    /,
    null_encoding: Literal["mask", "encode"] = "mask",
    *,
    memory_pool: MemoryPool | None = None,
) -> ChunkedArray: ...
def dictionary_decode(dictionary_array: _Column, /, *, memory_pool: MemoryPool | None = None) -> _Column: ...

# --- nested

list_value_length: _Unary

def list_element(
    lists: _Columnar, index: int | Scalar | Array, /, *, memory_pool: MemoryPool | None = None
) -> _Columnar: ...
def list_flatten(lists: _Column, /, recursive: bool = False, *, memory_pool: MemoryPool | None = None) -> _Column: ...
def list_parent_indices(lists: _Column, /, *, memory_pool: MemoryPool | None = None) -> _Column: ...
def list_slice(
    lists: _Column,
    /,
    start: int,
    stop: int | None = None,
    step: int = 1,
    return_fixed_size_list: bool | None = None,
    *,
    memory_pool: MemoryPool | None = None,
) -> _Column: ...
def make_struct(
    *args: _Operand,
    field_names: Sequence[str] = (),
    field_nullability: Sequence[bool] | None = None,
    memory_pool: MemoryPool | None = None,
) -> StructArray: ...
def map_lookup(
    container: _Columnar,
    /,
    query_key: Scalar | _Value,
    occurrence: Literal["first", "last", "all"],
    *,
    memory_pool: MemoryPool | None = None,
) -> _Columnar: ...
def struct_field(
    values: _Columnar,
    /,
    indices: int | str | Sequence[int | str],
    *,
    memory_pool: MemoryPool | None = None,
) -> _Columnar: ...

# --- aggregates

all: _Aggregate
any: _Aggregate
first: _Aggregate
last: _Aggregate
max: _Aggregate
mean: _Aggregate
min: _Aggregate
product: _Aggregate
sum: _Aggregate
stddev: _Spread
variance: _Spread

cumulative_max: _Cumulative
cumulative_min: _Cumulative
cumulative_sum: _Cumulative
cumulative_sum_checked: _Cumulative

def min_max(
    array: _AnyColumn,
    /,
    *,
    skip_nulls: bool = True,
    min_count: int = 1,
    memory_pool: MemoryPool | None = None,
) -> StructScalar: ...
def count(
    array: _AnyColumn, /, mode: _CountMode = "only_valid", *, memory_pool: MemoryPool | None = None
) -> Int64Scalar: ...
def count_distinct(
    array: _AnyColumn, /, mode: _CountMode = "only_valid", *, memory_pool: MemoryPool | None = None
) -> Int64Scalar: ...
def quantile(
    array: _AnyColumn,
    /,
    q: float | Sequence[float] = 0.5,
    *,
    interpolation: Literal["linear", "lower", "higher", "nearest", "midpoint"] = "linear",
    skip_nulls: bool = True,
    min_count: int = 0,
    memory_pool: MemoryPool | None = None,
) -> Array: ...
def pairwise_diff(input: _Column, /, period: int = 1, *, memory_pool: MemoryPool | None = None) -> _Column: ...
def random(
    n: int, *, initializer: int | Literal["system"] = "system", memory_pool: MemoryPool | None = None
) -> Array: ...

# --- by name

def call_function(
    name: str,
    args: Sequence[_Operand],
    options: FunctionOptions | None = None,
    memory_pool: MemoryPool | None = None,
    length: int | None = None,
) -> Any: ...
def list_functions() -> list[str]: ...
