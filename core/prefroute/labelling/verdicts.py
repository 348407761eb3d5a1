"""What a judge is shown and what counts as its verdict. Pure functions.

A question or an answer may hold text made to look like a verdict. So each call has a code that no one who wrote those
texts can know; it stands in the marks around them, and a verdict is a line that carries it. What a judge quotes
cannot be taken for its verdict. That a judge is talked into another verdict cannot be excluded by any parser.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re

CODE_LENGTH = 16

_BLANK = r"[ \u00a0\t\r*_`'\"\[\](){}]*"
_AFTER = r"[ \u00a0\t\r*_`'\"\[\](){}.,;!]*+"
# Some servers pass on the token that ends a turn.
_END = rf"{_AFTER}(?:(?:<\|\w{{1,30}}\|>|</s>|<end_of_turn>){_AFTER})*+"
_START = r"[ \u00a0\t\r*_`'\"\[\](){}#>-]*"


def code_of(secret: bytes, *parts: object) -> str:
    """The code of one call: the same each time that the call is built, and not to be guessed without the secret.

    Args:
        secret: Random, of one work file.
        *parts: All that the call is built from, as JSON knows it.

    Returns:
        16 hexadecimal digits.
    """
    text = json.dumps(parts, ensure_ascii=True)
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:CODE_LENGTH]


def fenced(name: str, text: str, code: str) -> str:
    """Text between marks that carry the code.

    Args:
        name: What it is, for the judge.
        text: Any.
        code: Of the call.

    Returns:
        Several lines.
    """
    return f"<<<{name} {code}>>>\n{text}\n<<<end of {name} {code}>>>"


def form_of(word: str, code: str, values: tuple[str, ...]) -> str:
    """How a verdict is to be written, for the judge: `VERDICT 0f...: A` and so on, one a value."""
    return " or ".join(f"`{word} {code}: {value}`" for value in values)


def parse(reply: str, word: str, code: str, values: tuple[str, ...]) -> str | None:
    """The verdict in a judge's reply.

    Args:
        reply: Any text.
        word: What the line begins with: VERDICT or SCORE.
        code: Of the call.
        values: What it may say.

    Returns:
        One of the values; None if no line carries the code and one of them, or several lines disagree.
    """
    line = re.compile(rf"^{_START}{word}{_BLANK}{code}{_BLANK}[:\uff1a](?P<said>.*)$", re.MULTILINE | re.IGNORECASE)
    value = re.compile(rf"{_BLANK}(?P<value>{'|'.join(map(re.escape, values))}){_END}", re.IGNORECASE)
    # A line with the code twice repeats the form that was asked for.
    lines = [found["said"] for found in line.finditer(reply) if code not in found["said"].casefold()]
    verdicts = {None if (one := value.fullmatch(said)) is None else one["value"].casefold() for said in lines}
    return next((known for known in values if verdicts == {known.casefold()}), None)
