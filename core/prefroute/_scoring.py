"""Scores of many prompts, chunk by chunk, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prefroute._outcome import ROUNDING
from prefroute._progress import tracked
from prefroute.errors import PrefrouteError, RouterError, ScoreError
from prefroute.inputs import as_prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from prefroute.router import Router

_CHUNK = 1024
"""Prompts scored between two steps of the progress bar."""


def score_prompts(
    router: Router, prompts: Sequence[str], *, name: str | None = None, progress: bool = False
) -> NDArray[np.float64]:
    """Score prompts, or fail: where `route` would go on with a fallback, a measurement must not.

    Args:
        router: The router.
        prompts: n texts.
        name: What the router is called in messages and beside the bar; None for its class.
        progress: Whether to show a progress bar on stderr.

    Returns:
        Probabilities in [0, 1], shape (n,).

    Raises:
        RouterError: The router failed, or gave something that is not one probability a prompt; says where.
        PromptTypeError: Something is not text.
    """
    texts, label = as_prompts(prompts), name or type(router).__name__
    scores = np.empty(len(texts))
    for start in tracked(range(0, len(texts), _CHUNK), f"scoring with {label}", progress=progress, transient=True):
        part = texts[start : start + _CHUNK]
        where = f"router {label!r} at prompts {start} to {start + len(part) - 1}"
        try:
            found = np.asarray(router.win_probability(list(part)), dtype=np.float64)
        except Exception as error:
            # Only prefroute's own words: another exception's text may quote a prompt or a key. It is the cause.
            msg = f"{where} failed: {error if isinstance(error, PrefrouteError) else type(error).__name__}"
            raise RouterError(msg) from error
        if found.shape != (len(part),):
            msg = f"{where} gave scores of shape {found.shape}, wanted one a prompt"
            raise ScoreError(msg)
        clipped = as_chances(found)
        if np.isnan(clipped).any():
            msg = f"{where} gave {found[int(np.argmax(np.isnan(clipped)))]}, wanted a probability in [0, 1]"
            raise ScoreError(msg)
        scores[start : start + len(part)] = clipped
    return scores


def as_chances(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores within [0, 1]: what rounding put a little outside is moved in, and what is no probability becomes NaN.

    Args:
        scores: What a router gave, any shape.

    Returns:
        Of the same shape.
    """
    usable = (scores >= -ROUNDING) & (scores <= 1.0 + ROUNDING)
    return np.where(usable, np.clip(scores, 0.0, 1.0), np.nan)
