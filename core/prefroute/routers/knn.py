"""Nearest neighbours: the mean outcome of the most similar prompts. A baseline that learned routers must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from prefroute._progress import tracked
from prefroute.data import prompt_groups
from prefroute.embedding import save_embedder
from prefroute.errors import ConfigurationError, DataError, PersistenceError
from prefroute.evaluation import validate
from prefroute.inputs import as_pair, as_seed
from prefroute.persistence import CONFIG_FILE, EMBEDDER_FOLDER, SavedRouter, validated
from prefroute.routers._embedding import EmbeddingRouter, deal_folds, embedded, training_embedder
from prefroute.routers._index import DEFAULT_EMBEDDER, IndexDtype, SimilarityIndex, build_index, check_embedder
from prefroute.routers._turns import Turn
from prefroute.types import ModelPair  # noqa: TC001 - read from the annotation when settings are checked

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

    from prefroute.data import Battles
    from prefroute.embedding import Embedder

_DEFAULT_KS = (10, 30, 100, 300)
"""From hardly smoothed to nearly the mean; which is best depends on how many prompts there are."""

_FOLDS = 5
_FEWEST_PROMPTS = 2
_JUDGED = 2000
"""Prompts that k is judged on, at most."""

_SAME = 1e-6
"""Cosines no further apart than this are equal within the rounding of float32."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The fields of `config.json`."""

    pair: ModelPair
    k: int
    similarity_weighted: bool


class KNNRouter(EmbeddingRouter):
    """P(strong wins) = mean outcome over the k training prompts with the largest cosine.

    Prompts that tie for the last places share them, so a score does not depend on the order of the data.
    "Rethinking predictive modeling for LLM routing" (arXiv 2505.12601) found this to match learned routers.

    Attributes:
        embedder: What embeds prompts.
        pair: The models that it was trained for.
        index: The embedded prompts.
        k: How many neighbours count.
        similarity_weighted: Whether they count by their cosine.
    """

    router_type: ClassVar[str] = "knn"

    def __init__(
        self,
        *,
        embedder: Embedder,
        index: SimilarityIndex,
        outcomes: NDArray[np.float64],
        weights: NDArray[np.float64],
        pair: ModelPair,
        k: int,
        similarity_weighted: bool = False,
        threshold: float | None = None,
    ) -> None:
        """Put together a router from ready parts; `fit` makes one from battles.

        Args:
            embedder: The embedder that the index was made with.
            index: Embeddings of p prompts.
            outcomes: Observed P(strong wins) of each, shape (p,).
            weights: How much each counts, above 0, shape (p,).
            pair: The two models.
            k: Neighbours, from 1 to p.
            similarity_weighted: Weigh neighbours by their cosine, those below 0 by 0, too.
            threshold: The default threshold.

        Raises:
            ConfigurationError: The parts do not fit each other.
        """
        shape = (len(index),)
        if outcomes.shape != shape or not ((outcomes >= 0) & (outcomes <= 1)).all():
            msg = f"outcomes must be {len(index)} numbers in [0, 1], one a row of the index, got {_range(outcomes)}"
            raise ConfigurationError(msg)
        if weights.shape != shape or not ((weights > 0) & np.isfinite(weights)).all():
            msg = f"weights must be {len(index)} finite numbers above 0, got {_range(weights)}"
            raise ConfigurationError(msg)
        check_embedder(embedder, index)
        self.embedder = embedder
        self.index = index
        self.outcomes = outcomes
        self.weights = weights
        self.pair = as_pair(pair)
        self.k = _checked_k(k, len(index))
        self.similarity_weighted = similarity_weighted
        self._scoring = Turn()
        self.threshold = threshold

    @classmethod
    def fit(
        cls,
        battles: Battles,
        *,
        embedder: str | Path | Embedder | None = None,
        pair: ModelPair,
        k: int | Sequence[int] | None = None,
        similarity_weighted: bool = False,
        index_dtype: IndexDtype = "float32",
        seed: int = 0,
        progress: bool = False,
    ) -> Self:
        """Embed the prompts on which the two models met.

        Args:
            battles: Battles; those of other pairs are left out.
            embedder: An embedder, or its name as in `as_embedder`; None for the one that comes with the package
                beside the surface of the prompt.
            pair: The two models.
            k: Neighbours. Of several, the number whose scores come nearest to the outcomes (least mean square)
                in a 5-fold cross-validation over prompts is taken; None for the best of 10, 30, 100 and 300.
            similarity_weighted: Weigh neighbours by their cosine too.
            index_dtype: `"float32"`, `"bfloat16"` or `"int8"`.
            seed: Draws the folds.
            progress: Show bars on stderr.

        Returns:
            The router. Its threshold is the median of the scores of training prompts kept out in turn.

        Raises:
            DataError: The two models met on fewer than two prompts.
            ConfigurationError: An argument cannot be used.
        """
        labels = battles.for_pair(as_pair(pair))
        count = len(labels.prompts)
        as_seed(seed)
        if prompt_groups(labels.prompts).max() + 1 < _FEWEST_PROMPTS:
            msg = f"{pair.strong!r} and {pair.weak!r} have battles over 1 prompt; {_FEWEST_PROMPTS} are needed"
            raise DataError(msg)
        ks = _candidates(k, count)
        embedder = training_embedder(embedder, labels.prompts, default=DEFAULT_EMBEDDER)
        blocks = embedded(embedder, labels.prompts, progress=progress)
        index = build_index(blocks, count, dtype=index_dtype)
        router = cls(
            embedder=embedder,
            index=index,
            outcomes=labels.outcomes,
            weights=labels.weights,
            pair=pair,
            k=ks[0],
            similarity_weighted=similarity_weighted,
        )
        router._choose(ks, labels.prompts, seed, progress=progress)
        router.note_training_prompts(labels.prompts)
        return router

    @property
    def models(self) -> tuple[str, ...]:
        """The models of its pair, sorted; it knows no others."""
        return tuple(sorted((self.pair.strong, self.pair.weak)))

    def win_probability_of_embeddings(self, embeddings: NDArray[Any]) -> NDArray[np.float64]:
        """Estimate P(strong wins) for embeddings that are there already.

        Args:
            embeddings: Of the router's embedder, shape (n, d), of any length. A row that is all zero is equally
                near to all prompts.

        Returns:
            n probabilities, shape (n,).

        Raises:
            ConfigurationError: Another shape, or something that is not a finite number.
        """
        queries = self.index.prepare(embeddings)
        scores = np.empty(len(queries))
        for batch in self.index.batches(len(queries)):
            with self._scoring:
                cosines = self.index.cosines(queries[batch])
            scores[batch] = [self._score(row, self.k) for row in np.ascontiguousarray(cosines.T)]
        return scores

    def _score(self, cosines: NDArray[np.float32], k: int) -> float:
        """Score one query from its cosine with each prompt, -inf for a prompt that is kept out; shape (p,)."""
        last = cosines[np.argpartition(cosines, -k)[-k:]].min()
        near = np.flatnonzero(cosines >= last - _SAME)
        tied = cosines[near] <= last + _SAME
        share = np.where(tied, (k - np.count_nonzero(~tied)) / np.count_nonzero(tied), 1.0)
        weights = self.weights[near] * share
        if self.similarity_weighted:
            by_cosine = weights * np.maximum(cosines[near], 0.0)
            weights = by_cosine if by_cosine.sum() > _SAME else weights
        return float(np.clip(np.average(self.outcomes[near], weights=weights), 0.0, 1.0))

    def _choose(self, ks: Sequence[int], prompts: Sequence[str], seed: int, *, progress: bool) -> None:
        """Set k and the threshold from prompts kept out, and tell what is recovered of them."""
        count = len(self.index)
        random = np.random.default_rng(seed)
        folds = deal_folds(prompt_groups(prompts), _FOLDS, random)
        judged = np.sort(random.permutation(count)[:_JUDGED])
        left = count - int(np.bincount(folds).max())
        scores = np.empty((len(ks), len(judged)))
        for batch in tracked(list(self.index.batches(len(judged))), "Choosing k", progress=progress):
            rows = judged[batch]
            cosines = np.ascontiguousarray(self.index.cosines(self.index.unpacked(rows)).T)
            cosines[folds[rows][:, None] == folds] = -np.inf
            for found, k in zip(scores, ks, strict=True):
                found[batch] = [self._score(row, min(k, left)) for row in cosines]
        losses = np.average((scores - self.outcomes[judged]) ** 2, axis=1, weights=self.weights[judged])
        best = int(losses.argmin())
        self.k = ks[best]
        self.threshold = float(np.median(scores[best]))
        lengths = [len(prompts[row]) for row in judged]
        # Less the mean outcome outside the fold: see `validate`.
        levels = [
            np.average(self.outcomes[folds != fold], weights=self.weights[folds != fold])
            for fold in range(int(folds.max()) + 1)
        ]
        self.validation = validate(scores[best] - np.array(levels)[folds[judged]], self.outcomes[judged], lengths)

    def _to_saved(self, folder: Path) -> SavedRouter:
        save_embedder(self.embedder, folder / EMBEDDER_FOLDER)
        self.index.save(folder)
        settings = _Settings(pair=self.pair, k=self.k, similarity_weighted=self.similarity_weighted)
        tensors = {"outcomes": self.outcomes, "weights": self.weights} | self.index.tensors
        return SavedRouter(settings=asdict(settings), tensors=tensors)

    @classmethod
    def _from_saved(cls, saved: SavedRouter, folder: Path) -> Self:
        settings = validated(_Settings, saved.settings, folder / CONFIG_FILE)
        parts = {name: saved.tensors.get(name) for name in ("outcomes", "weights")}
        if any(part is None or part.dtype != np.float64 for part in parts.values()):
            msg = f"{folder} lacks outcomes or weights, or has them of another dtype; save the router again"
            raise PersistenceError(msg)
        index, embedder = SimilarityIndex.load(folder, saved.tensors), saved.embedder_of(folder)
        if saved.embedder is not None:  # What the caller gave is no fault of the folder.
            check_embedder(embedder, index)
        try:
            return cls(
                embedder=embedder,
                index=index,
                outcomes=saved.tensors["outcomes"],
                weights=saved.tensors["weights"],
                pair=settings.pair,
                k=settings.k,
                similarity_weighted=settings.similarity_weighted,
            )
        except ConfigurationError as error:
            msg = f"{folder}: {error}"
            raise PersistenceError(msg) from error


def _range(numbers: NDArray[np.float64]) -> str:
    return f"shape {numbers.shape}" + (f" from {numbers.min()} to {numbers.max()}" if numbers.size else "")


def _candidates(k: object, count: int) -> list[int]:
    if k is None:
        left = count - -(-count // _FOLDS)  # When the largest fold is out.
        return [number for number in _DEFAULT_KS if number <= left] or [max(1, left)]
    several = list(k) if isinstance(k, Sequence) and not isinstance(k, str) else [k]
    if not several:
        msg = "k must be a number of neighbours or several, got none"
        raise ConfigurationError(msg)
    return [_checked_k(number, count) for number in several]


def _checked_k(k: object, count: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= count:
        msg = f"k must be an integer from 1 to the {count} prompts with battles of the pair, got {k!r}"
        raise ConfigurationError(msg)
    return k
