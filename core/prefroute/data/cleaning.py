"""Cleaning of battle tables: short prompts, repeated rows, and votes that depend on who stands first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prefroute.data.report import shown
from prefroute.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from prefroute.data.battles import Battles
    from prefroute.data.responses import ResponseTable

MIN_CHARACTERS = 16
"""Published training dropped prompts of fewer characters."""


def prompt_key(prompt: str) -> str:
    """Text under which spellings of one prompt count as the same: case and white space do not matter.

    Args:
        prompt: Any text.

    Returns:
        The key.
    """
    return " ".join(prompt.split()).casefold()


def prompt_groups(prompts: Iterable[str]) -> NDArray[np.int64]:
    """Number spellings of one prompt alike.

    Args:
        prompts: p texts.

    Returns:
        A group for each, from 0 in order of first appearance, shape (p,).
    """
    known: dict[str, int] = {}
    return np.array([known.setdefault(prompt_key(prompt), len(known)) for prompt in prompts], dtype=np.int64)


def clean(battles: Battles, *, min_characters: int = MIN_CHARACTERS, keep_duplicates: bool = False) -> Battles:
    """Clean as published: no short prompts and no repeated rows; the first turn alone is taken when reading.

    Args:
        battles: Any.
        min_characters: Fewest characters of a prompt, as it stands.
        keep_duplicates: Whether to keep repeated rows.

    Returns:
        The battles that are left, maybe none.

    Raises:
        ConfigurationError: `min_characters` is not a number of characters.
    """
    kept = drop_short_prompts(battles, min_characters)
    return kept if keep_duplicates else drop_duplicates(kept)


def drop_short_prompts(battles: Battles, min_characters: int = MIN_CHARACTERS) -> Battles:
    """Leave out battles over prompts of fewer characters.

    Args:
        battles: Any.
        min_characters: Fewest characters that a prompt may have.

    Returns:
        The others, maybe none.

    Raises:
        ConfigurationError: `min_characters` is not a number of characters.
    """
    if not isinstance(min_characters, int) or min_characters < 0:
        msg = f"min_characters must be a whole number from 0 on, got {shown(min_characters)}"
        raise ConfigurationError(msg)
    long_enough = np.array([len(prompt) >= min_characters for prompt in battles.prompts], dtype=bool)
    return battles[long_enough[battles.prompt_index]]


def drop_duplicates(battles: Battles) -> Battles:
    """Keep the first of rows that say the same: prompt (however spelt), both sides in order, outcome and source.

    Args:
        battles: Any.

    Returns:
        The battles without repetitions.
    """
    columns = np.stack(
        [
            prompt_groups(battles.prompts)[battles.prompt_index],
            battles.model_a,
            battles.model_b,
            np.unique(battles.outcomes, return_inverse=True)[1],
            battles.source_index,
        ]
    )
    first = np.unique(_row_ids(columns), return_index=True)[1]
    return battles[np.sort(first)]


def consistent_votes(battles: Battles, *, ties: bool = True) -> Battles:
    """Keep the verdict on a pair only where it is the same whichever of the two answers stood first.

    Judges prefer whoever stands first; a verdict that turns with the order says nothing about the models.

    Args:
        battles: Votes with both orders of a pair as rows of their own; of one source, both on the very same prompt.
        ties: Whether to keep pairs on which all votes are ties.

    Returns:
        One battle for each prompt, pair and source that was voted on in both orders with one verdict in all its
        votes (a win of the same model, or a tie): of mean outcome and mean weight, in the place of its first vote.
    """
    low, high = np.minimum(battles.model_a, battles.model_b), np.maximum(battles.model_a, battles.model_b)
    ids = _row_ids(np.stack([battles.prompt_index, low, high, battles.source_index]))
    groups, first, member = np.unique(ids, return_index=True, return_inverse=True)
    forward = battles.model_a == low
    oriented = np.where(forward, battles.outcomes, 1.0 - battles.outcomes)  # P(low wins)
    verdicts = np.sign(oriented - 0.5)

    def total(values: NDArray[np.generic]) -> NDArray[np.float64]:
        return np.bincount(member, values.astype(np.float64), len(groups)).astype(np.float64)

    size = total(np.ones(len(battles)))
    agreed = (np.abs(total(verdicts)) == size) | (total(np.abs(verdicts)) == 0)
    both = (total(forward) > 0) & (total(forward) < size)
    decided = total(np.abs(verdicts)) > 0
    chosen = np.flatnonzero(agreed & both & (decided | ties))
    chosen = chosen[np.argsort(first[chosen])]
    mean, weight = total(oriented)[chosen] / size[chosen], total(battles.weights)[chosen] / size[chosen]
    rows = first[chosen]
    outcomes = np.where(forward[rows], mean, 1.0 - mean)
    return battles[rows].with_columns(outcomes=outcomes, weights=weight)


def without_prompts(battles: Battles, prompts: Iterable[str]) -> Battles:
    """Leave out battles over given prompts, however spelt: known contamination, say.

    Args:
        battles: Any.
        prompts: Those that must not occur.

    Returns:
        The others, maybe none.

    Raises:
        DataError: `prompts` is one text.
    """
    return battles[~named_prompts(battles.prompts, prompts)[battles.prompt_index]]


def responses_without_prompts(responses: ResponseTable, prompts: Iterable[str]) -> ResponseTable:
    """`without_prompts` for a response table."""
    return responses[~named_prompts(responses.prompts, prompts)]


def named_prompts(own: Iterable[str], prompts: Iterable[str]) -> NDArray[np.bool_]:
    """Which of a table's prompts are among those given, however spelt, shape (p,)."""
    if isinstance(prompts, str):
        msg = "prompts must be several texts, got one; pass [prompt]"
        raise DataError(msg)
    banned = {prompt_key(prompt) for prompt in prompts}
    return np.array([prompt_key(prompt) in banned for prompt in own], dtype=bool)


def _row_ids(columns: NDArray[np.generic]) -> NDArray[np.int64]:
    """Number equal columns of a matrix of small integers alike, shape (k, n) to (n,)."""
    ids: NDArray[np.int64] = np.zeros(columns.shape[1], dtype=np.int64)
    for column in columns.astype(np.int64):
        # Made dense after each column, so that the product never overflows.
        ids = np.unique(ids * (column.max(initial=0) + 1) + column, return_inverse=True)[1].astype(np.int64)
    return ids
