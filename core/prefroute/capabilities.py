"""Which side can take a call at all: asked before the router is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from prefroute.conversation import Settled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]{1,3}|[ \t]{2,}|\n+|[^\W\d_a-zA-Z]+|([^\w\s]|_)\1*|[^\sA-Za-z]")
"""What tokenizers do not join: words, three digits, indentation, line ends, runs of one sign, any other character."""

_WORD, _OTHER_WORD, _RUN = 7, 2, 8
"""Characters of a token: of words in Latin letters without accents, in other scripts, and of a repeated sign."""

_FIRST_IDEOGRAPH = "\N{CJK RADICAL REPEAT}"
"""From here on a character is a token or more."""

_SAMPLE, _PART = 32_768, 256
"""Characters that are looked at in all, and in one place."""

WINDOW = "window"
"""The detail of a decision for a call that does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a call asks of a model.

    Attributes:
        tokens: Its length, estimated.
        features: Names of what the model must be able to do, in the adapter's own terms.
    """

    tokens: int = 0
    features: AbstractSet[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a model cannot do, as far as that is known.

    Attributes:
        window: Most tokens of a prompt; None where not known.
        lacks: Names of features that it is known not to have.
    """

    window: int | None = None
    lacks: AbstractSet[str] = frozenset()

    def stops(self, needs: Needs) -> str | None:
        """What of the needs a model of these limits cannot meet; None if nothing."""
        if missing := self.lacks & needs.features:
            return min(missing)
        return WINDOW if self.window is not None and needs.tokens > self.window else None


def able_side(needs: Needs, *, strong: Limits, weak: Limits) -> Settled | None:
    """The side that a call must go to because the other one cannot take it.

    Args:
        needs: Of the call.
        strong: Limits of the strong model.
        weak: Limits of the weak one.

    Returns:
        The side, with what the other lacks; None if both can take it, or neither.
    """
    strong_stops, weak_stops = strong.stops(needs), weak.stops(needs)
    if weak_stops is not None and strong_stops is None:
        return Settled("strong", "capability", weak_stops)
    if strong_stops is not None and weak_stops is None:
        return Settled("weak", "capability", strong_stops)
    return None


def most_tokens_of(text: str) -> int:
    """A number of tokens that no text of this length exceeds: one a byte. Quick."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def tokens_of(*texts: str) -> int:
    """An estimate of the tokens of some texts: a fifth or so too high for English prose.

    Further off for others: up to half too high in scripts that tokenizers know well, too low in those that they do
    not. Long texts are estimated by parts of them, evenly spread, so that it takes no more than some milliseconds.
    """
    length = sum(map(len, texts))
    if length <= _SAMPLE:
        return 1 + sum(map(_count, texts))
    parts = list(_parts(texts, _PART * length // _SAMPLE))
    return 1 + ceil(sum(map(_count, parts)) * length / sum(map(len, parts)))


def _parts(texts: Iterable[str], stride: int) -> Iterator[str]:
    """Parts at equal distances in the texts, one after the other as if they were one."""
    start = 0
    for text in texts:
        while start < len(text):
            begin = max(0, min(start, len(text) - _PART))  # A part cut short would have its words cut too.
            yield text[begin : begin + _PART]
            start += stride
        start -= len(text)


def _count(text: str) -> int:
    return sum(_tokens_of_piece(match[0]) for match in _PIECE.finditer(text))


def _tokens_of_piece(piece: str) -> int:
    if piece.isascii():
        return 1 + len(piece) // (_WORD if piece.isalpha() else _RUN)
    if piece[0] >= _FIRST_IDEOGRAPH:
        return len(piece) if piece.isalpha() else 2 * len(piece)
    return 1 + len(piece) // _OTHER_WORD
