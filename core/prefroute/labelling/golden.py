r"""Golden labels: whether an answer is right, by a reference. Pure functions.

An answer states its result in a *claim* (`Answer: X`, `the answer is X`, `#### X`, `\boxed{X}`), or is the result.
Claims are read in English, German, French, Spanish and Chinese: `_STATED` and `_STATES` hold their words.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Literal, NamedTuple, TypeAlias

Match: TypeAlias = Literal["exact", "numeric", "choice"]
"""How an answer is compared with its reference."""

TOLERANCE = 1e-6
"""Two numbers that differ by no more, relative to the reference or to 1, are the same."""

_FRACTIONS = (*range(0xBC, 0xBF), *range(0x2150, 0x215F))
_PLAIN: dict[int, int | str] = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},  # Full-width forms.
    **dict.fromkeys((0x2010, 0x2011, 0x2013, 0x2212), "-"),  # Hyphens, en dash, minus sign.
    **dict.fromkeys((0x2018, 0x2019), "'"),
    **dict.fromkeys((0x201C, 0x201D), '"'),
    **{code: " " + unicodedata.normalize("NFKC", chr(code)).replace("\u2044", "/") for code in _FRACTIONS},
    0x3002: ". ",
}

_STATED = r"(?:\b(?:answer|antwort|réponse|respuesta)\b|答案)"
_STATES = r"(?:[:=]|\b(?:is|(?:would|should|must|will) be|ist|lautet|est|es)\b|[是为])[*_]*:?"
_OF_WHAT = (  # The answer *to this question* is
    r"[*_\"]*+(?:\s{1,9}(?:to|for|of|among|from|in|here|choice|option|letter|correcte|correcta)\b"
    r"(?:\s{1,9}[\w'-]{1,30}){0,5}?)?[*_\"]*\s*"
)
_CLAIM = re.compile(rf"####+|\\boxed\s*\{{|<answer>|{_STATED}{_OF_WHAT}{_STATES}", re.IGNORECASE)
_OPTION = re.compile(rf"\b(?:option|choice)\b{_OF_WHAT}{_STATES}", re.IGNORECASE)
_EITHER = re.compile(f"{_CLAIM.pattern}|{_OPTION.pattern}", re.IGNORECASE)
# What follows #### may be a heading, and a number may be that of the heading.
_NUMBER_LINE = re.compile(r"[ \t*_$€£¥₹\\({-]*(?:\.?\d|[dt]?frac)(?!\d*[.):][ \t]+\S)")
_TEXT_LINE = re.compile(r".{1,60}(?<!:)$", re.MULTILINE)
_LONGEST_CLAIM = 1000
_LONGEST_LEAD = 200  # Characters after the mark of a claim within which its letter stands.
_LONGEST_TEXT = 10_000  # That is normalised, which takes the square of the length at worst.
_MOST_CLAIMS = 20  # A model that repeats itself without end is read in little time, too.
_LINE_END = re.compile(r"\n|</answer>", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s)")
_MARKUP = " \t*_`'\"$"

# Not the minus of 10-5; one with a blank after it only where there is nothing to take from.
_SIGN = r"(?:(?<![\w.,)\]}])-|(?<=[=({])-\s|(?<=[=({]\s)-\s)?"
_MONEY = r"(?:\\?[$€£¥₹]\s?)?"
_UNSIGNED = (
    r"(?:(?:\d{1,3}(?:[,'\u00a0\u2009\u202f]\d{3})+|\d{1,2}(?:,\d{2}){1,5},\d{3}|\d{1,3}(?: \d{3}){0,4} 000)(?!\d)"
    r"(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)(?:[eE][-+]?\d+)?"
)
_LATEX_GROUP = re.compile(r"(?<=\d)(?:\{,\}|\\[,;: ]|~)(?=\d{3}(?!\d))")
_FRAC_PART = r"\s*+(?:\{\s*+-?\s*+\d{1,15}\s*+\}|\d)"
_POWER = r"10\s?\^\s?(?:\{\s?)?-?\d{1,3}"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})(?P<money>{_MONEY})(?:"
    rf"(?:(?P<mixed>\d{{1,15}})\s?)?\\[dt]?frac(?P<over>{_FRAC_PART})(?P<under>{_FRAC_PART})"
    r"|(?:(?P<whole>\d+)\s+)?(?<![\d/])(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?![\d/])"
    rf"|(?P<ten>{_POWER})"
    rf"|(?P<inner>-?)(?P<plain>{_UNSIGNED})(?:\s?(?:\\times|\\cdot|[x*\u00d7\u00b7])\s?(?P<power>{_POWER}))?)"
)

_REASON = (  # What may follow a letter that is not the beginning of something else, as in vitamin C or A patient.
    r"(?i:because|since|as|for|due|which|that|where|with|and|but|so|or|in|on|by|here|although|while|given|based|when"
    r"|if|is|seems|weil|da|denn|car|parce|porque)\b"
)
_MORE = (  # A, B and C
    r"[*_`'\")\]\s]{0,4}(?:,\s?(?:and\s|or\s)?|[/&]|\b(?:and|or|und|oder|et|ou|y|o)\b)\s?[*_(\[]{0,3}"
    r"(?:[A-HJ-Z]|I[IV]+)(?![\w'])(?!\s+(?:is|are|was|can|could|would|does|has)\b)"
)
_LETTER = (
    rf"(?P<letter>[A-Z])(?!\w|'|-\w|{_MORE})(?![^\S\n]+(?!{_REASON})[a-z])(?:(?<![AI])|(?![^\S\n]+(?!{_REASON})\w))"
)
# No part gives back what it took: a run of blanks could else be parted between them in very many ways.
_AFTER_CLAIM = re.compile(
    r"\s*+(?:\bis\b)?[\s*_`'\"(\[{:$]*+(?:\\(?:text|mathrm|mathbf)\w*+\s*+\{\s*+)?"
    r"(?i:(?:option|choice|letter)\s++)?[*_`'\"(\[{]*+"
    rf"(?:{_LETTER}|(?P<small>[a-z])(?=[*_`'\"]*+(?:[)\]}}.,:;]|[^\S\n]*+$|\s+because\b)))",
    re.MULTILINE,
)
_CALLED_RIGHT = re.compile(
    r"(?:^|[.!?:]\s|(?i:\b(?:thus|therefore|hence|so|only|option|choice|answer)\b),?\s)[\s*_`(\[]{0,9}"
    r"(?P<letter>[A-Z])[*_`)\]]{0,4}\s+is\s+(?:the\s+)?(?:only\s+)?(?:correct|right|best)"
    rf"(?:\s+(?:one|option|answer|choice))?(?=[*_]*(?:[.!,;:]|\s*$|\s+{_REASON}))",
    re.MULTILINE,
)
_CONCLUDED = re.compile(
    r"\b(?i:(?:hence|thus|therefore|so)\b[,:]?\s{1,3}(?=[(\[]|option\b|choice\b|answer\b)|(?:choose|pick|select)\s{1,3})"
    rf"(?i:(?:option|choice|answer)\s{{1,3}})?[*_(\[]{{0,3}}{_LETTER}(?=[*_)\]]{{0,3}}(?:[.!,;]|\s*$))",
    re.MULTILINE,
)
# What makes no claim of the words after it: whether the answer is, if B held the answer would be, do not choose.
_SUPPOSED = re.compile(
    r"(?:\b(?:whether|if|unless|suppos\w+|assum\w+)\b[^.!?\n,]*+|(?:\b(?:not|never|cannot)|n't)\s+(?:\w+\s+)?)$",
    re.IGNORECASE,
)
_OPTION_LINE = re.compile(
    r"^[\s*_`'\">-]*+(?i:(?:option|choice|answer)\s++[*_]*+)?"
    r"(?:\(\s*(?P<bracketed>[A-Za-z])\s*\)|\[\s*(?P<square>[A-Za-z])\s*\]"
    r"|(?P<marked>[A-Za-z])[*_`]*[).:](?!\S*[.\w]\.)|(?P<alone>[A-Za-z])[*_`'\"]*[.!]?\s*$"
    rf"|(?P<dashed>[A-Z])[*_`]*\s+[-\u2014]\s|(?<=\*\*)(?P<bold>[A-Z])\*\*\s|(?P<reasoned>[A-HJ-Z]),\s{_REASON})",
)


class Checked(NamedTuple):
    """An answer against its reference.

    Attributes:
        extracted: What the answer was understood to state; None where it states nothing of the kind.
        is_right: Whether that is what the reference states.
    """

    extracted: str | None
    is_right: bool


class _Claim(NamedTuple):
    """What follows the mark of a claim: its line or brace, and the first sentence of that."""

    line: str
    sentence: str


def exact(answer: str) -> str | None:
    """What an answer states, for comparing by text: its last claim, else all of it.

    Args:
        answer: Any text.

    Returns:
        It in small letters, in Unicode's form NFKC, without markup, and with single blanks; None if nothing is left.
    """
    answer = answer.translate(_PLAIN)
    claims = _claims(answer, _EITHER, _TEXT_LINE)
    return _bare(claims[-1].sentence if claims else answer)


def numeric(answer: str) -> float | None:
    r"""The number that an answer states: of its last claim that has one, else the last one in it, as for GSM8K.

    Understood are signs, decimal points, exponents (1e3, 10^3, 2 \times 10^3), thousands parted by commas, narrow
    spaces or apostrophes, and by blanks where three zeros end the number, Indian groups (1,00,000), currencies, per
    cent (50% is 50: the sign is a unit), fractions and mixed fractions. Not understood are decimal commas, which lists
    of numbers look like, and numbers in words. In a claim that is an equation the number after its last = counts,
    else the first. An option or a choice is no claim of a number.

    Args:
        answer: Any text.

    Returns:
        A finite number; None if there is none.
    """
    answer = _LATEX_GROUP.sub(",", answer.translate(_PLAIN).replace("\\!", ""))
    for claim in reversed(_claims(answer, _CLAIM, _NUMBER_LINE)):
        found = _numbers(claim.sentence.rpartition("=")[2]) or _numbers(claim.sentence)[-1:]
        if found:
            return found[0]
    everywhere = _numbers(answer)
    return everywhere[-1] if everywhere else None


def choice(answer: str) -> str | None:
    """The letter that an answer chooses: of the last of its claims, else of its lines that begin with an option.

    `B`, `(B)`, `**B**`, `B) Paris`, `The answer is B.`, `B is correct.` and `Answer: (b)` all choose B. A claim of
    several letters, or of what may be a word (`A patient`), is none, and so is what is only supposed (`if the answer
    is A`). What is called the answer counts before what is called an option. An answer that only lists the options
    chooses none.

    Args:
        answer: Any text.

    Returns:
        A capital letter; None if there is none, or more than one.
    """
    answer = answer.translate(_PLAIN)
    claimed = _letters(answer, _CLAIM)
    if not claimed:
        said = (*_CALLED_RIGHT.finditer(answer), *_CONCLUDED.finditer(answer))
        also = [(found.start(), found["letter"]) for found in said if not _is_supposed(answer, found)]
        claimed = _letters(answer, _OPTION) + also
    if claimed:
        return max(claimed)[1]
    lines = filter(None, map(_OPTION_LINE.match, answer.strip().splitlines()))
    begun = {next(filter(None, line.groups())).upper() for line in lines}
    return begun.pop() if len(begun) == 1 else None


def check(answer: str, reference: str, match: Match, *, tolerance: float = TOLERANCE) -> Checked | None:
    """Compare an answer with its reference.

    Args:
        answer: Any text.
        reference: What is right, itself read as an answer: GSM8K's worked solutions that end with `#### 42` will do.
        match: How. By text it is also right that the line of the claim is the reference, or begins with it and the
            sentence ends there: a full stop may be that of `St. Louis`.
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
    if match == "choice":
        right, stated = choice(reference), choice(answer)
    else:
        right, stated = exact(reference), exact(answer)
        stated = right if right is not None and _claims_exactly(answer, right) else stated
    return None if right is None else Checked(stated, stated == right)


def _claims_exactly(answer: str, wanted: str) -> bool:
    claims = _claims(answer.translate(_PLAIN), _EITHER, _TEXT_LINE)
    line = (_bare(claims[-1].line) if claims else None) or ""
    return (
        line.startswith(wanted) and re.match(rf"[{re.escape(_MARKUP)}]*+(?:[.!?]\s|$)", line[len(wanted) :]) is not None
    )


def _bare(text: str) -> str | None:
    text = unicodedata.normalize("NFKC", text) if len(text) <= _LONGEST_TEXT else text
    return " ".join(text.split()).strip(_MARKUP).rstrip(".!?,").strip(_MARKUP).casefold() or None


def _marks(answer: str, mark: re.Pattern[str], result: re.Pattern[str]) -> list[re.Match[str]]:
    """The last marks of claims; of #### the last one, where a result follows or nothing but its line does."""
    found = list(mark.finditer(answer))
    last = next((one for one in reversed(found) if one[0].startswith("#")), None)
    if last is not None and not result.match(answer, last.end()) and "\n" in answer[last.end() :].strip():
        last = None
    return [one for one in found if one is last or not one[0].startswith("#")][-_MOST_CLAIMS:]


def _claims(answer: str, mark: re.Pattern[str], result: re.Pattern[str]) -> list[_Claim]:
    """The text after each of the last marks of a claim."""
    found = []
    for one in _marks(answer, mark, result):
        rest = answer[one.end() : one.end() + _LONGEST_CLAIM].lstrip()
        if one[0].endswith("{"):
            line = sentence = _braced(rest)
        else:
            line = _LINE_END.split(rest, maxsplit=1)[0]
            sentence = line if one[0].startswith("#") else _SENTENCE_END.split(line, maxsplit=1)[0]
        if sentence.strip(_MARKUP):
            found.append(_Claim(line, sentence))
    return found


def _letters(answer: str, mark: re.Pattern[str]) -> list[tuple[int, str]]:
    """The letters that are claimed, each after its place."""
    found = []
    for one in _marks(answer, mark, _TEXT_LINE):
        letter = _AFTER_CLAIM.match(answer[one.end() : one.end() + _LONGEST_LEAD])
        if letter and not _is_supposed(answer, one):
            found.append((one.start(), (letter["letter"] or letter["small"]).upper()))
    return found


def _is_supposed(answer: str, claim: re.Match[str]) -> bool:
    before = answer[max(0, claim.start() - 60) : claim.start()]
    # After a comma the condition of a plain sentence is over: if we add them, the answer is B.
    return _SUPPOSED.search(before.replace(",", " ") if "would" in claim[0].casefold() else before) is not None


def _braced(rest: str) -> str:
    depth = 1
    for place, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:place]
    return rest


def _numbers(text: str) -> list[float]:
    found = map(_value, _NUMBER.finditer(text))
    return [value for value in found if math.isfinite(value)]


def _value(number: re.Match[str]) -> float:
    top, bottom = number["over"] or number["top"], number["under"] or number["bottom"]
    is_negative = bool(number["sign"])
    if bottom is not None:
        over, under = (float(re.sub(r"[{}\s]", "", part)) for part in (top, bottom))
        # A division by nothing is no number.
        size = float(number["mixed"] or number["whole"] or 0) + over / under if under else math.nan
    elif number["ten"] is not None:
        size = _power(number["ten"])
    else:
        size = float(re.sub(r"[,'\s]", "", number["plain"])) * _power(number["power"])
        # The inner sign is that of $-5; without a currency it is part of 10-5, say.
        is_negative = is_negative or bool(number["inner"] and number["money"])
    return -size if is_negative else size


def _power(ten: str | None) -> float:
    return 1.0 if ten is None else float(f"1e{ten.rpartition('^')[2].strip(' {')}")
