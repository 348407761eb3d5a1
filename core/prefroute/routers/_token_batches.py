"""Tokens of prompts: cutting what is too long, and putting prompts of like length together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def keep_ends(tokens: list[int], most: int, *, head: int = 0, tail: int = 0) -> list[int]:
    """Leave out the middle of what is too long.

    What a prompt asks for stands at its beginning or at its end; what lies between is mostly material.

    Args:
        tokens: Of one text.
        most: How many may stay.
        head: How many at the beginning must stay.
        tail: How many at the end must stay.

    Returns:
        All of them, or as many as may stay: the first and the last of those that need not, half each.
    """
    excess = len(tokens) - most
    if excess <= 0:
        return tokens
    first = head + (most - head - tail + 1) // 2
    return tokens[:first] + tokens[first + excess :]


def keep_end_characters(text: str, most: int) -> str:
    """The same for characters, before a text of a megabyte is cut into tokens."""
    return text if len(text) <= most else text[: most - most // 2] + text[len(text) - most // 2 :]


def token_batches(lengths: Sequence[int], budget: int) -> list[NDArray[np.int64]]:
    """Part texts into batches of like length, the longest first.

    The longest come first so that what does not fit into memory is found out at once.

    Args:
        lengths: Tokens of each of n texts.
        budget: Tokens of a batch at most, padding counted; a longer text is a batch of its own.

    Returns:
        Positions of the texts, each once.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches, start = [], 0
    while start < len(order):
        count = max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + count])
        start += count
    return batches


def padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Put texts of different length into one rectangle.

    Args:
        rows: Tokens of n texts.
        pad: What fills the gaps.
        left: Whether the gaps are before the texts; else they are behind.

    Returns:
        Tokens and a mask that is 1 where they are the text's, each of shape (n, length of the longest).
    """
    width = max(map(len, rows))
    tokens = np.full((len(rows), width), pad, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for row, own in enumerate(rows):
        place = slice(width - len(own), width) if left else slice(len(own))
        tokens[row, place] = own
        mask[row, place] = 1
    return tokens, mask


class Tokens:
    """What cuts text into tokens, for many threads at once.

    The library's own call sets padding and truncation on the tokenizer it shares, so that two threads meet
    ("Already borrowed"); the tokenizer below it is asked directly, where there is one.

    Args:
        tokenizer: A `PreTrainedTokenizerBase`.
        plain: Whether special tokens that stand in a text are ordinary text.
    """

    def __init__(self, tokenizer: Any, *, plain: bool) -> None:
        self.tokenizer = tokenizer
        self._plain = plain
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._fast: Any = None
        if backend is not None:
            import copy

            self._fast = copy.deepcopy(backend)
            self._fast.no_padding()
            self._fast.no_truncation()
            self._fast.encode_special_tokens = plain

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text, without any that the model wants around it."""
        if self._fast is None:
            options = {"add_special_tokens": False, "split_special_tokens": self._plain}
            return [list(self.tokenizer(text, **options)["input_ids"]) for text in texts]
        return [encoding.ids for encoding in self._fast.encode_batch(list(texts), add_special_tokens=False)]

    def around(self) -> tuple[list[int], list[int]]:
        """The tokens that the model wants before and behind a text."""
        (inside,) = self(["a"])
        whole = list(self.tokenizer("a")["input_ids"])
        start = next((at for at in range(len(whole)) if whole[at : at + len(inside)] == inside), 0)
        return whole[:start], whole[start + len(inside) :]
