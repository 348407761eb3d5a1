"""Which side can take a call at all: asked before the router is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from prefroute.conversation import Settled

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_PIECE = re.compile(r"[A-Za-z]+|[0-9]{1,3}|[ \t]{2,}|\n+|[^\sA-Za-z0-9]")
"""What tokenizers do not join: words, three digits, indentation, line ends, and any other character by itself."""

_LONG_WORD = 7
"""Letters above which a word is likely to be two tokens."""

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
    """An estimate of the tokens of some texts, rather too high than too low: by a fifth or so for English prose.

    Long texts are estimated by parts of them, evenly spread, so that it takes no more than some milliseconds.
    """
    length = sum(map(len, texts))
    if length <= _SAMPLE:
        return 1 + sum(map(_count, texts))
    stride = _PART * length // _SAMPLE
    parts = [text[start : start + _PART] for text in texts for start in range(0, len(text), stride)]
    return 1 + ceil(sum(map(_count, parts)) * length / sum(map(len, parts)))


def _count(text: str) -> int:
    return sum(1 + len(piece) // _LONG_WORD for piece in _PIECE.findall(text))
