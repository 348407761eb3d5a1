"""Foreign text and figures made fit to be shown or written."""

from __future__ import annotations

import math
from typing import Any

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Persian and emoji are written with them."""


def visible(text: str, also: str = "") -> str:
    """The text without lone surrogates, and without the characters that would steer a terminal or a page.

    Args:
        text: Any.
        also: Characters that are left beside the printable ones.

    Returns:
        The text, with a mark in the place of each other character.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _JOINERS or c in also else "\N{REPLACEMENT CHARACTER}" for c in text)


def plain(value: Any) -> Any:
    """The value as JSON knows it; a number that is not finite is null.

    Args:
        value: Dictionaries, lists and tuples of plain values and of numpy's numbers.

    Returns:
        The same without numpy, NaN and infinities.
    """
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if type(value).__module__ == "numpy":  # One of its numbers; this module need not import it.
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
