"""Numbered questions: all that becomes of one is known from its number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute.router import Router

if TYPE_CHECKING:
    from collections.abc import Sequence


def text_of(question: int) -> str:
    return f"question {question} please"


def number(text: str) -> int:
    return int(text.split()[1])


def unscored(question: int) -> bool:
    """Whether the router fails for it, so that it goes to the strong side."""
    return question % 10 == 3


def hard(question: int) -> bool:
    return unscored(question) or question % 2 == 0


class Unreliable(Router):
    """Fails for every tenth question; of the others the even ones are hard."""

    threshold = 0.5

    def win_probability(self, prompts: Sequence[str]) -> Any:
        if any(unscored(number(text)) for text in prompts):
            raise RuntimeError
        return np.array([0.1 if number(text) % 2 else 0.9 for text in prompts])


def sockets() -> int:
    """How many this process has open."""
    links = (link for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return sum(str(link.readlink()).startswith("socket:") for link in links)
