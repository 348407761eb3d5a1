"""Which side can take a call at all, and how long a call is."""

from __future__ import annotations

from functools import cache
from itertools import product
from string import ascii_lowercase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers

from prefroute.capabilities import WINDOW, Limits, Needs, able_side, tokens_of
from prefroute.conversation import Settled
from prefroute.persistence import DEFAULT_ROUTER

NOTHING = Limits()
SMALL, LARGE = Limits(window=10), Limits(window=100)
BLIND = Limits(lacks=frozenset({"images"}))
LONG, SHORT = Needs(tokens=50), Needs(tokens=5)
IMAGE = Needs(tokens=5, features=frozenset({"images"}))


@pytest.mark.parametrize(
    ("needs", "strong", "weak", "side"),
    [
        (LONG, NOTHING, NOTHING, None),
        (IMAGE, NOTHING, NOTHING, None),
        (Needs(), SMALL, BLIND, None),
        (SHORT, LARGE, SMALL, None),
        (LONG, LARGE, SMALL, Settled("strong", "capability", WINDOW)),
        (LONG, SMALL, LARGE, Settled("weak", "capability", WINDOW)),
        (LONG, NOTHING, SMALL, Settled("strong", "capability", WINDOW)),
        (LONG, SMALL, NOTHING, Settled("weak", "capability", WINDOW)),
        (LONG, SMALL, SMALL, None),
        (IMAGE, NOTHING, BLIND, Settled("strong", "capability", "images")),
        (IMAGE, BLIND, NOTHING, Settled("weak", "capability", "images")),
        (IMAGE, BLIND, BLIND, None),
        (SHORT, NOTHING, BLIND, None),
        # One lacks this, the other one that: neither can take it, so the router may as well say.
        (Needs(tokens=50, features=IMAGE.features), SMALL, BLIND, None),
    ],
)
def test_a_call_goes_to_the_side_that_alone_can_take_it(needs: Any, strong: Any, weak: Any, side: Any) -> None:
    assert able_side(needs, strong=strong, weak=weak) == side


def test_a_window_holds_as_many_tokens_as_it_says() -> None:
    assert SMALL.stops(Needs(tokens=10)) is None
    assert SMALL.stops(Needs(tokens=11)) == WINDOW
    assert Limits(window=0).stops(Needs(tokens=1)) == WINDOW
    assert Limits(window=0).stops(Needs()) is None


def test_what_is_lacking_is_told_before_the_window_and_always_the_same() -> None:
    limits = Limits(window=1, lacks=frozenset(ascii_lowercase))
    assert limits.stops(Needs(tokens=9, features=frozenset("qbzc"))) == "b"
    assert limits.stops(Needs(tokens=9, features=frozenset(ascii_lowercase))) == "a"
    assert limits.stops(Needs(tokens=9, features=frozenset("1"))) == WINDOW


@given(st.integers(0, 20), st.lists(st.integers(0, 20) | st.none(), min_size=2, max_size=2))
def test_the_sides_are_treated_alike(tokens: int, windows: list[int | None]) -> None:
    first, second = (Limits(window=window) for window in windows)
    needs = Needs(tokens=tokens)
    one, other = able_side(needs, strong=first, weak=second), able_side(needs, strong=second, weak=first)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert {one.route, other.route} == {"strong", "weak"}
    if one is not None:
        able = first if one.route == "strong" else second
        assert able.stops(needs) is None


ENGLISH = """\
The committee met on Tuesday to discuss the proposed changes to the schedule. Nobody could remember who had asked
for them, and after some discussion the chair decided that the question should be put off until the spring.

"We have waited this long," she said, "and a few months more will hurt nobody; what matters is that it's done well."
"""
CHINESE = "路由器在强模型和弱模型之间做出选择。简单的问题交给便宜的模型,困难的问题交给昂贵的模型,这样可以节省费用。"
PYTHON = """\
def matches(rows: list[dict[str, int]], key: str) -> list[int]:
    found = [i for i, row in enumerate(rows) if key in row and row[key] != 0]
    return sorted(set(found), key=lambda i: (-rows[i][key], i))[:10]
"""
C = """\
for (int i = 0; i < n; i++) {
    if (a[i] > b[j]) { swap(&a[i], &b[j]); j = (j + 1) % m; }
    c[i] = (a[i] << 2) | (b[j] & 0xff);
}
"""
JSON = '{"id": 7, "tags": ["a", "b"], "size": {"w": 3, "h": 4}, "ok": true, "next": null, "at": [1.5, 2.25]}'
NUMBERS = "2024-01-31,17.25,3.5,0\n2024-02-29,18.75,4.0,1\n2024-03-31,12.5,9.25,0\n"
SAMPLES = {
    "English": ENGLISH,
    "Chinese": CHINESE,
    "Python": PYTHON,
    "C": C,
    "JSON": JSON,
    "numbers": NUMBERS,
}

_PIECES = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How OpenAI's cl100k_base cuts a text before it looks for byte pairs: a token never goes across a cut."""


def pieces(text: str) -> int:
    return len(pre_tokenizers.Split(_PIECES, "isolated").pre_tokenize_str(text))


@cache
def _bundled() -> Tokenizer:
    return Tokenizer.from_file(str(DEFAULT_ROUTER / "embedder" / "0" / "tokenizer.json"))


@pytest.mark.parametrize("name", ["English", "Chinese"])
def test_no_fewer_tokens_than_the_bundled_tokenizer_counts(name: str) -> None:
    text = SAMPLES[name] * 20
    assert tokens_of(text) >= len(_bundled().encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("name", SAMPLES)
def test_no_fewer_tokens_than_the_pieces_that_a_common_tokenizer_cannot_join(name: str) -> None:
    text = SAMPLES[name] * 20
    count = pieces(text)
    assert tokens_of(text) >= count


def test_english_is_not_counted_as_much_more_than_it_is() -> None:
    # Else half of the window would be lost.
    text = ENGLISH * 20
    assert tokens_of(text) <= 1.5 * len(_bundled().encode(text, add_special_tokens=False).ids)


@given(st.text(), st.text())
def test_more_text_is_never_fewer_tokens(text: str, more: str) -> None:
    assert 1 <= tokens_of(text) <= tokens_of(text + more)


def test_text_that_cannot_be_encoded_has_a_length_too() -> None:
    assert tokens_of("\ud800" * 70) >= 20
    assert all(tokens_of(one + other) >= 1 for one, other in product("a\ud800\U0010ffff", repeat=2))


def test_long_texts_are_read_evenly() -> None:
    """Many messages of which the beginnings are unlike the rest."""
    heads = [ENGLISH[:256] + JSON * 10] * 200
    tails = [JSON[:100] * 2 + ENGLISH * 4] * 200
    for texts in (heads, tails):
        whole = sum(tokens_of(text) for text in texts)
        assert tokens_of(*texts) == pytest.approx(whole, rel=0.2)
    assert tokens_of(*["word "] * 100_000) == pytest.approx(200_000 / 2, rel=0.2)


def test_scripts_that_tokenizers_know_are_not_counted_by_the_letter() -> None:
    text = "Маршрутизатор выбирает между сильной и слабой моделью." * 20
    assert len(text) / 4 < tokens_of(text) < len(text) / 1.5
    assert tokens_of("-" * 800) < 200
