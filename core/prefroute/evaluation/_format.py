"""Numbers and foreign text as people read them in a report: never `nan`, never what steers a terminal or a page."""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING

from prefroute._text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DASH = "\N{EN DASH}"
"""Stands for a figure that is not defined."""

_MINUS = "\N{MINUS SIGN}"
_SPACE = "\N{NO-BREAK SPACE}"
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_ISOLATE, _END = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"

_OWN = _SPACE + _ISOLATE + _END
"""Not printable to Python, but written here on purpose."""

_NAME, _NAMES = 60, 5
"""Characters shown of a name, and names shown in a sentence."""

_LARGE, _SMALL, _HUNDRED, _THOUSAND, _CENT, _SMALLEST_P = 1e9, 1e-3, 100.0, 1000.0, 0.01, 0.001


def printable(text: str) -> str:
    """The text without lone surrogates, and without control and formatting characters but our own."""
    return visible(text, also=_OWN)


def shown(text: str, limit: int = _NAME) -> str:
    """Foreign text on one line, cut to a number of characters."""
    line = " ".join(text.split()) or "(empty)"
    cut = line if len(line) <= limit else line[: limit - 1].rstrip() + _ELLIPSIS
    return "".join(c if c not in _OWN else " " for c in printable(cut))


def named(name: str) -> str:
    """A foreign name within a sentence: one written from right to left does not turn the words around it."""
    text = shown(name)
    turns = any(unicodedata.bidirectional(c) in {"R", "AL", "AN"} for c in text)
    return f"{_ISOLATE}{text}{_END}" if turns else text


def listed(names: Sequence[str]) -> str:
    """Foreign names as an enumeration; of many, the first."""
    texts = [named(name) for name in names[:_NAMES]]
    if len(names) > _NAMES:
        texts.append(f"{len(names) - _NAMES} more")
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def number(value: float | None, digits: int = 3) -> str:
    """With so many decimals."""
    return DASH if value is None or not math.isfinite(value) else _signed(f"{value:.{digits}f}")


def quality(value: float | None) -> str:
    """Of any scale: three decimals where it is small, fewer where it is large."""
    if value is None or not math.isfinite(value):
        return DASH
    size = abs(value)
    if size >= _LARGE or 0 < size < _SMALL:
        return _signed(f"{value:.3g}")
    return _signed(f"{value:,.{1 if size < _THOUSAND else 0}f}" if size >= _HUNDRED else f"{value:.3f}")


def threshold(value: float | None) -> str:
    """To four digits: it may be copied."""
    return DASH if value is None or not math.isfinite(value) else _signed(f"{value:.4g}")


def change(value: float | None) -> str:
    """`quality`, with its sign."""
    is_more = value is not None and math.isfinite(value) and value > 0
    return f"+{quality(value)}" if is_more else quality(value)


def percent(value: float | None) -> str:
    """A share as a whole percentage."""
    return DASH if value is None or not math.isfinite(value) else _signed(f"{100.0 * value:.0f}{_SPACE}%")


def count(value: int) -> str:
    """With its thousands apart."""
    return f"{value:,}"


def counted(value: int, noun: str) -> str:
    """Such as `1 prompt` and `1,000 prompts`."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def p_value(value: float) -> str:
    """Of a test, as `= 0.031` or `< 0.001`."""
    return f"< {_SMALLEST_P}" if value < _SMALLEST_P else f"= {value:.3f}"


def between(low: float, high: float, form: Callable[[float], str] = number) -> str:
    """An interval, and in words what does not bound it."""
    if not math.isfinite(low) and not math.isfinite(high):
        return "not bounded"
    if not math.isfinite(high):
        return f"{form(low)} or more"
    return f"{form(high)} or less" if not math.isfinite(low) else f"{form(low)} to {form(high)}"


def dollars(value: float | None, *, signed: bool = False) -> str:
    """US dollars; an unknown amount is unknown, not 0."""
    if value is None or not math.isfinite(value):
        return "unknown"
    size = abs(value)
    text = f"${size:.2g}" if 0 < size < _CENT else f"${size:,.2f}"
    sign = _MINUS if value < 0 else "+" if signed and value > 0 else ""
    return sign + text


def _signed(text: str) -> str:
    """With a real minus, and none before a zero."""
    bare = text.removeprefix("-")
    return bare if bare == text or not any(c in bare for c in "123456789") else _MINUS + bare
