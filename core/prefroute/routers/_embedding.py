"""What routers over an embedder share: embedding to score, embedding to train."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute._limits import Failure, attempt
from prefroute._progress import tracked
from prefroute.embedding import as_embedder
from prefroute.errors import ConfigurationError
from prefroute.inputs import as_prompts
from prefroute.router import Router

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from prefroute.embedding import Embedder

_TEXTS = 256
"""Prompts embedded at a time in training: how often the progress bar moves and Ctrl-C is heard."""


class EmbeddingRouter(Router):
    """A router that scores the embeddings of prompts.

    Attributes:
        embedder: Embeds prompts in d dimensions.
    """

    embedder: Embedder

    @abstractmethod
    def win_probability_of_embeddings(self, embeddings: NDArray[Any]) -> NDArray[np.float64]:
        """Estimate P(strong wins) for embeddings that are there already.

        Args:
            embeddings: Of n prompts by the router's embedder, shape (n, d).

        Returns:
            n probabilities in [0, 1], shape (n,).

        Raises:
            ConfigurationError: Another shape, or something that is not a finite number.
        """

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Estimate P(strong model wins) for each prompt; see `Router.win_probability`."""
        texts = as_prompts(prompts)
        return self.win_probability_of_embeddings(self.embedder.embed(texts)) if texts else np.empty(0)

    async def awin_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """The same without blocking the event loop: by the embedder's `aembed` where it has one."""
        if not self._embeds_asynchronously():
            return await super().awin_probability(prompts)
        texts = as_prompts(prompts)
        if not texts:
            return np.empty(0)
        embeddings = await self.embedder.aembed(texts)  # type: ignore[attr-defined] # asked for just above
        # The pass over an index may take long.
        outcome = await asyncio.to_thread(attempt, partial(self.win_probability_of_embeddings, embeddings))
        if isinstance(outcome, Failure):
            raise outcome.error
        return outcome

    def _scores_asynchronously(self) -> bool:
        if getattr(self.awin_probability, "__func__", None) is EmbeddingRouter.awin_probability:
            return self._embeds_asynchronously()
        return super()._scores_asynchronously()

    def _embeds_asynchronously(self) -> bool:
        return self._scores_as_written() and callable(getattr(self.embedder, "aembed", None))

    def _scores_as_written(self) -> bool:
        """Whether `win_probability` is the one above: what a subclass puts in its place may do anything."""
        own = type(self).win_probability is EmbeddingRouter.win_probability
        return own and "win_probability" not in vars(self)


def training_embedder(embedder: str | Path | Embedder | None, prompts: Sequence[str], *, default: str) -> Embedder:
    """The embedder to train with.

    Args:
        embedder: As for `as_embedder`; None for `default`.
        prompts: The training prompts, which `length` and `surface` are standardised by.
        default: Names of the embedders that suit the router.

    Returns:
        The embedder.
    """
    return as_embedder(default if embedder is None else embedder, prompts=prompts)


def embedded(embedder: Embedder, texts: Sequence[str], *, progress: bool = False) -> Iterator[NDArray[np.float32]]:
    """Embed texts block by block.

    Args:
        embedder: The embedder.
        texts: n texts.
        progress: Show a bar on stderr.

    Yields:
        Embeddings of up to 256 texts, shape (k, d).

    Raises:
        ConfigurationError: The embedder does not give one row a text.
    """
    for start in tracked(range(0, len(texts), _TEXTS), "Embedding", progress=progress):
        block = list(texts[start : start + _TEXTS])
        found = embedder.embed(block)
        rows = len(found) if hasattr(found, "__len__") else 0
        if rows != len(block):
            name = type(embedder).__name__
            msg = f"{name}.embed must give one row a text: {len(block)} texts, {rows} rows"
            raise ConfigurationError(msg)
        yield found


def deal_folds(groups: NDArray[np.int64], folds: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Deal prompts into the folds of a cross-validation.

    Args:
        groups: From `prompt_groups`: spellings of one prompt stay in one fold, or each would tell the other's
            label; shape (p,).
        folds: Folds at most; there are fewer where there are fewer groups.
        random: Draws them.

    Returns:
        The fold of each prompt, from 0, shape (p,).
    """
    count = int(groups.max()) + 1
    dealt: NDArray[np.int64] = (random.permutation(count) % min(folds, count))[groups]
    return dealt
