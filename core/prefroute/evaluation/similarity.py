"""How near the prompts of a benchmark lie to those that a router learnt from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefroute.data import nearest_prompts
from prefroute.errors import DataError
from prefroute.inputs import as_prompts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from prefroute.embedding import Embedder


def benchmark_data_similarity(
    benchmark_prompts: Sequence[str],
    training_prompts: Sequence[str],
    *,
    embedder: str | Path | Embedder | None = None,
    progress: bool = False,
) -> float:
    """Mean over a benchmark's prompts of the largest cosine to a training prompt.

    RouteLLM (arXiv 2406.18665, section 5.3) uses it to tell beforehand where a router will do well.

    Args:
        benchmark_prompts: Texts, at least one.
        training_prompts: Texts, at least one.
        embedder: As for `as_embedder`; None for the bundled one. Values of two embedders cannot be compared.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The mean cosine, at most 1.

    Raises:
        DataError: There are no prompts on one side.
        PromptTypeError: Something is not text.
    """
    sides = as_prompts(benchmark_prompts), as_prompts(training_prompts)
    if not all(sides):
        msg = f"similarity needs prompts on both sides, got {len(sides[0])} and {len(sides[1])}"
        raise DataError(msg)
    similarity, _ = nearest_prompts(sides[0], list(dict.fromkeys(sides[1])), embedder=embedder, progress=progress)
    return float(similarity.mean())
