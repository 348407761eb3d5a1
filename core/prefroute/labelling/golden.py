r"""Golden labels: whether an answer is right, by a reference. Pure functions.

An answer states its result in a *claim* (`Answer: X`, `the answer is X`, `#### X`, `\boxed{X}`), or is the result.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Match: TypeAlias = Literal["exact", "numeric", "choice"]
"""How an answer is compared with its reference."""

TOLERANCE = 1e-6
"""Two numbers that differ by no more, relative to the reference or to 1, are the same."""

_CLAIM = re.compile(
    r"####|\\boxed\s*\{|\b(?:answer|option|choice)\b[*_]*\s*(?::|=|\bis\b|\bwould be\b|\bshould be\b)[*_]*:?",
    re.IGNORECASE,
)
_LONGEST_CLAIM = 1000
_LONGEST_LEAD = 200  # Characters after the mark of a claim within which its letter stands.
_MOST_CLAIMS = 20  # A model that repeats itself without end is read in little time, too.
_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n")
_MARKUP = " \t*_`'\"“”‘’$"  # noqa: RUF001 - quotation marks as they are written

_SIGN = r"(?:(?<![\w.,)\]}])[-\N{MINUS SIGN}])?"
_MONEY = r"\\?[$€£¥₹]?\s?"
_UNSIGNED = r"(?:\d{1,3}(?:[,\u00a0\u202f]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)(?:[eE][-+]?\d+)?"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})(?P<money>{_MONEY})(?:"
    r"\\[dt]?frac\s*\{\s*(?P<over>\d+)\s*\}\s*\{\s*(?P<under>\d+)\s*\}"
    r"|(?:(?P<whole>\d+)\s+)?(?<![\d/])(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?![\d/])"
    rf"|(?P<inner>[-\N{{MINUS SIGN}}]?)(?P<plain>{_UNSIGNED}))"
)

# No part gives back what it took: a run of blanks could else be parted between them in very many ways.
_AFTER_CLAIM = re.compile(
    r"\s*+(?:\bis\b)?[\s*_`'\"(\[{:$]*+(?:\\text\s*+\{\s*+)?(?:(?:[Oo]ption|[Cc]hoice|[Ll]etter)\s++)?[*_`'\"(\[{]*+"
    r"(?:(?P<letter>[A-Z])(?![\w'’])|(?P<small>[a-z])(?=[*_`'\"]*+(?:[)\]}.,:;]|[^\S\n]*+$)))",  # noqa: RUF001 - as above
    re.MULTILINE,
)
_CALLED_RIGHT = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice)[\s*_`(\[]+(?P<letter>[A-Z])[*_`)\]]*\s+is\s+(?:the\s+)?(?:correct|right|best)\b"
)
_OPTION_LINE = re.compile(
    r"^[\s*_`'\">-]*(?:\(\s*(?P<bracketed>[A-Za-z])\s*\)|\[\s*(?P<square>[A-Za-z])\s*\]"
    r"|(?P<marked>[A-Za-z])[*_`]*[).:](?!\S*[.\w]\.)|(?P<alone>[A-Za-z])[*_`'\"]*[.!]?\s*$)",
)


class Checked(NamedTuple):
    """An answer against its reference.

    Attributes:
        extracted: What the answer was understood to state; None where it states nothing of the kind.
        is_right: Whether that is what the reference states.
    """

    extracted: str | None
    is_right: bool


def exact(answer: str) -> str | None:
    """What an answer states, for comparing by text: its last claim, else all of it.

    Args:
        answer: Any text.

    Returns:
        It in small letters, without markup, and with single blanks; None if nothing is left.
    """
    claims = _claims(answer)
    text = claims[-1] if claims else answer
    words = " ".join(text.split()).strip(_MARKUP).rstrip(".!").strip(_MARKUP)
    return words.casefold() or None


def numeric(answer: str) -> float | None:
    """The number that an answer states: of its last claim that has one, else the last one in it, as for GSM8K.

    Understood are signs, decimal points, exponents, thousands parted by commas or narrow spaces, currencies, per cent
    (50% is 50: the sign is a unit), fractions and mixed fractions. Not understood are decimal commas, which lists
    of numbers look like, and numbers in words. In a claim that is an equation the last number counts, else the first.

    Args:
        answer: Any text.

    Returns:
        A finite number; None if there is none.
    """
    for claim in reversed(_claims(answer)):
        found = _numbers(claim)
        if found:
            return found[-1] if "=" in claim else found[0]
    everywhere = _numbers(answer)
    return everywhere[-1] if everywhere else None


def choice(answer: str) -> str | None:
    """The letter that an answer chooses: of its claims, else of its lines that begin with an option.

    `B`, `(B)`, `**B**`, `B) Paris`, `The answer is B.` and `Answer: (b)` all choose B. An answer that claims two
    different letters chooses none, and so does one that only lists the options.

    Args:
        answer: Any text.

    Returns:
        A capital letter; None if there is none, or more than one.
    """
    claimed = {found["letter"] for found in _CALLED_RIGHT.finditer(answer)}
    for mark in _CLAIM.finditer(answer):
        found = _AFTER_CLAIM.match(answer[mark.end() : mark.end() + _LONGEST_LEAD])
        if found:
            claimed.add((found["letter"] or found["small"]).upper())
    if not claimed:
        lines = filter(None, map(_OPTION_LINE.match, answer.strip().splitlines()))
        claimed = {next(filter(None, line.groups())).upper() for line in lines}
    return claimed.pop() if len(claimed) == 1 else None


def check(answer: str, reference: str, match: Match, *, tolerance: float = TOLERANCE) -> Checked | None:
    """Compare an answer with its reference.

    Args:
        answer: Any text.
        reference: What is right, itself read as an answer: GSM8K's worked solutions that end with `#### 42` will do.
        match: How.
        tolerance: For numbers: how far they may lie apart, relative to the reference or to 1, whichever is larger.

    Returns:
        What was found; None if the reference itself states nothing of the kind.
    """
    if match == "numeric":
        wanted, given = numeric(reference), numeric(answer)
        if wanted is None:
            return None
        is_near = given is not None and abs(given - wanted) <= tolerance * max(1.0, abs(wanted))
        return Checked(None if given is None else f"{given:.15g}", is_near)
    extract: Callable[[str], str | None] = exact if match == "exact" else choice
    right, stated = extract(reference), extract(answer)
    return None if right is None else Checked(stated, stated == right)


def _claims(answer: str) -> list[str]:
    """The text after each of the last marks of a claim, to the end of its sentence, line or brace."""
    found = []
    for mark in list(_CLAIM.finditer(answer))[-_MOST_CLAIMS:]:
        rest = answer[mark.end() : mark.end() + _LONGEST_CLAIM].lstrip()
        if mark[0].endswith("{"):
            text = _braced(rest)
        else:
            end = _SENTENCE_END.search(rest)
            text = rest if end is None else rest[: end.start()]
        if text.strip(_MARKUP):
            found.append(text)
    return found


def _braced(rest: str) -> str:
    depth = 1
    for place, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:place]
    return rest


def _numbers(text: str) -> list[float]:
    found = (_value(number) for number in _NUMBER.finditer(text))
    return [value for value in found if value is not None and math.isfinite(value)]


def _value(number: re.Match[str]) -> float | None:
    top, bottom = number["over"] or number["top"], number["under"] or number["bottom"]
    if bottom is not None:
        # A division by nothing is no number.
        size = float(number["whole"] or 0) + float(top) / float(bottom) if float(bottom) else math.nan
    else:
        size = float(re.sub(r"[,\u00a0\u202f]", "", number["plain"]))
    # The inner sign is that of $-5; without a currency it is part of 10-5, say.
    is_negative = bool(number["sign"]) or (bool(number["inner"]) and bool(number["money"].strip()))
    return -size if is_negative else size
