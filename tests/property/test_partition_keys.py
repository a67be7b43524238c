"""Different partition values never share a prefix, and none leaves its place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from urllib.parse import unquote

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.partitioning import NULL, Key, escape, grouped, keyed, prefix_of

CASES = 100_000
HOSTILE = [
    "", ".", "..", "../", "/", "//", "\\", "=", "%", "%%", "%2F", "%2f", "%25", "%00", "\0", "\n", "\t", "\x7f", "\x85",
    " ", "  ", "+", "&", "?", "#", "~", ":", "*", '"', "'", NULL, NULL.lower(), f"{NULL}/", f" {NULL}", "%5F", "null",
    "NULL", "Null", "nul", "%6Eull", "date=2026-11-24", "a/b=c", "é", "e\u0301", "ﬁ", "ß", "İ", "\u200b",
    "\u202e", "\ufeff", "\u2028", "\u2029", "\ufffe", "\uffff", "\ufffd", "😀", "日本", "\U0010ffff",
    "A", "a", "-", "_", "0", "00", "-0",
]  # fmt: skip


def hostile_texts(seed: int, count: int) -> Iterator[str]:
    """Distinct texts: hostile ones, glued and cut, mixed with random code points."""
    dice = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < count:
        parts = dice.choices(HOSTILE, k=dice.randint(1, 4))
        parts.append(
            "".join(chr(dice.choice((dice.randrange(0x250), dice.randrange(0xE000, 0x110000)))) for _ in range(2))
        )
        text = "".join(dice.sample(parts, dice.randint(1, len(parts))))
        if text not in seen:
            seen.add(text)
            yield text


def check_part(part: str) -> None:
    assert "/" not in part
    assert "\\" not in part
    assert part not in {".", ".."}
    assert part.isprintable() or not part.isascii()
    assert not any(char in part for char in "\0\n\x7f\u2028\ufffe")


def test_a_hundred_thousand_texts_have_as_many_parts() -> None:
    parts = {escape(None)}
    for text in hostile_texts(1, CASES):
        part = escape(text)
        check_part(f"name={part}")
        assert unquote(part, errors="strict") == text
        parts.add(part)
    assert len(parts) == CASES + 1


def test_a_hundred_thousand_keys_have_as_many_prefixes() -> None:
    """The parts of a key cannot be shifted against one another."""
    dice = random.Random(3)
    names = ("a", "b=c", "../d")
    keys: set[Key] = set()
    while len(keys) < CASES:
        keys.add((dice.choice(HOSTILE), dice.choice([None, *HOSTILE]), dice.choice([None, *HOSTILE])))
    prefixes = {prefix_of(names, key, 10_000) for key in keys}
    assert len(prefixes) == CASES
    for prefix in prefixes:
        assert prefix is not None
        parts = prefix.split("/")
        assert [part.partition("=")[0] for part in parts] == ["a", "b%3Dc", "..%2Fd"]
        for part in parts:
            check_part(part)


values = st.one_of(st.none(), st.sampled_from(HOSTILE), st.text(st.characters(codec="utf-8"), max_size=5))


@given(st.lists(st.tuples(values, st.one_of(st.none(), st.integers(-(2**15), 2**15 - 1))), max_size=50))
def test_rows_are_grouped_as_a_dictionary_would(rows: list[tuple[str | None, int | None]]) -> None:
    texts = pa.array([text for text, _ in rows], pa.string())
    numbers = pa.array([number for _, number in rows], pa.int16())
    expected: dict[Key, list[int]] = {}
    for row, (text, number) in enumerate(rows):
        expected.setdefault((text, None if number is None else str(number)), []).append(row)
    made = keyed([texts, numbers])
    assert made.keys == list(expected)
    assert {made.keys[code]: indices.to_pylist() for code, indices in grouped(made.codes)} == expected
    assert [made.first_row(code) for code in range(len(made.keys))] == [rows[0] for rows in expected.values()]
