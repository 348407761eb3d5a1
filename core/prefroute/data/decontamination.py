"""Removing from training what is all but a prompt of an evaluation set."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prefroute._progress import tracked
from prefroute.data.report import shown
from prefroute.errors import ConfigurationError, DataError
from prefroute.inputs import as_prompts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from prefroute.data.battles import Battles
    from prefroute.embedding import Embedder

THRESHOLD = 0.95
"""Cosine from which two prompts count as the same, as published with RouteLLM."""

CHUNK = 2048
"""Prompts embedded and compared at a time."""


class RemovedPrompt(NamedTuple):
    """A prompt that was taken out.

    Attributes:
        prompt: Its text.
        nearest: The prompt of the other set that it resembles most.
        similarity: Their cosine.
        battles: How many battles went with it.
    """

    prompt: str
    nearest: str
    similarity: float
    battles: int


class Decontaminated(NamedTuple):
    """What is left, and what was taken out.

    Attributes:
        battles: The battles over prompts that resemble none of the other set.
        removed: The prompts taken out, most similar first.
    """

    battles: Battles
    removed: list[RemovedPrompt]


def decontaminate(
    battles: Battles,
    against: Sequence[str],
    *,
    embedder: str | Path | Embedder | None = None,
    threshold: float = THRESHOLD,
    progress: bool = False,
) -> Decontaminated:
    """Remove battles over prompts that resemble one of another set, by the cosine of their embeddings.

    Memory is bounded by the embeddings of `against` and a few thousand prompts more.

    Args:
        battles: What is to be trained on.
        against: Prompts of the evaluation sets.
        embedder: As for `as_embedder`; None for the bundled one. What a threshold means depends on it.
        threshold: Cosine from which a prompt is removed, in (0, 1].
        progress: Whether to show a progress bar on stderr.

    Returns:
        The battles left, and what was removed. Texts that embed to zero resemble nothing, but equal texts always do.

    Raises:
        ConfigurationError: The threshold is outside (0, 1].
        DataError: `against` is empty.
        PromptTypeError: `against` holds something that is not text.
    """
    if not isinstance(threshold, int | float) or not 0.0 < threshold <= 1.0:
        msg = f"threshold must be a cosine above 0 and at most 1, got {shown(threshold)}"
        raise ConfigurationError(msg)
    others = as_prompts(against)
    if not others:
        msg = "there are no prompts to compare with; pass those of the evaluation sets"
        raise DataError(msg)
    similarity, nearest = nearest_prompts(battles.prompts, others, embedder=embedder, progress=progress)
    # Rounding leaves the cosine of equal texts a little below 1.
    contaminated = similarity >= threshold - 1e-6
    counts = np.bincount(battles.prompt_index, minlength=len(battles.prompts))
    places = np.flatnonzero(contaminated)
    removed = [
        RemovedPrompt(battles.prompts[i], others[nearest[i]], float(similarity[i]), int(counts[i]))
        for i in places[np.argsort(-similarity[places], kind="stable")]
    ]
    return Decontaminated(battles[~contaminated[battles.prompt_index]], removed)


def nearest_prompts(
    prompts: Sequence[str],
    others: Sequence[str],
    *,
    embedder: str | Path | Embedder | None = None,
    progress: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each prompt the most similar of others, by the cosine of their embeddings.

    Args:
        prompts: p texts.
        others: q texts, at least one.
        embedder: As for `as_embedder`; None for the bundled one.
        progress: Whether to show a progress bar on stderr.

    Returns:
        Cosine in [-1, 1] and position in `others` of the nearest, both of shape (p,).
    """
    from prefroute.embedding import as_embedder

    model = as_embedder(embedder)
    known = np.concatenate([_unit(model, others[i : i + CHUNK]) for i in range(0, len(others), CHUNK)])
    place = {text: i for i, text in reversed(list(enumerate(others)))}
    similarity = np.empty(len(prompts))
    nearest = np.empty(len(prompts), dtype=np.int64)
    for start in tracked(range(0, len(prompts), CHUNK), "comparing prompts", progress=progress):
        part = prompts[start : start + CHUNK]
        rows = slice(start, start + len(part))
        similarity[rows], nearest[rows] = _best(_unit(model, part), known)
        for i, prompt in enumerate(part, start):
            if prompt in place:
                similarity[i], nearest[i] = 1.0, place[prompt]
    return np.clip(similarity, -1.0, 1.0), nearest


def _best(points: NDArray[np.float32], known: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    best = np.full(len(points), -np.inf, dtype=np.float32)
    where = np.zeros(len(points), dtype=np.int64)
    for start in range(0, len(known), CHUNK):
        cosines = points @ known[start : start + CHUNK].T
        found = cosines.argmax(axis=1)
        values = cosines[np.arange(len(points)), found]
        better = values > best
        best[better], where[better] = values[better], found[better] + start
    return best, where


def _unit(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    rows = np.asarray(embedder.embed(list(texts)), dtype=np.float32)
    # A text that embeds to zero keeps the zero vector, whose cosine with anything is taken as 0.
    norms: NDArray[np.float32] = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(norms, 1e-30)).astype(np.float32, copy=False)
