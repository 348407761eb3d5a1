"""Logistic regression on embeddings for one pair of models: the plainest learned router, a baseline for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from prefroute._progress import tracked
from prefroute.bradley_terry import sigmoid
from prefroute.data import prompt_groups
from prefroute.embedding import save_embedder
from prefroute.errors import ConfigurationError, ConvergenceError, DataError, MissingExtraError, PersistenceError
from prefroute.evaluation import validate
from prefroute.inputs import as_pair, as_seed, finite_or_none
from prefroute.persistence import CONFIG_FILE, EMBEDDER_FOLDER, TENSORS_FILE, SavedRouter, validated
from prefroute.routers._embedding import deal_folds, training_embedder
from prefroute.routers._linear import (
    DEFAULT_EMBEDDER,
    LinearRouter,
    Standardisation,
    embedded_rows,
    finite_array,
    part_widths,
)
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from numpy.typing import ArrayLike, NDArray

    from prefroute.data import Battles, PairLabels
    from prefroute.embedding import Embedder

C_GRID = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)

_MAX_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The fields of `config.json`."""

    strong: str
    weak: str
    bias: float
    c: float | None


class LogisticRegressionRouter(LinearRouter):
    """P(strong wins) = sigmoid(weights . e_q + bias), fitted by scikit-learn and served by numpy.

    Attributes:
        embedder: Embeds prompts.
        weights: Of the embedding, shape (d,).
        bias: The logit where the embedding is zero.
        pair: The two models.
        c: The inverse strength of the penalty that it was fitted with; None if it was not fitted here.
    """

    router_type: ClassVar[str] = "logistic-regression"

    def __init__(
        self,
        *,
        embedder: Embedder,
        weights: ArrayLike,
        bias: float = 0.0,
        pair: ModelPair,
        threshold: float | None = None,
        c: float | None = None,
    ) -> None:
        """Put together a router from its parts; `fit` makes one from battles.

        Args:
            embedder: Embeds prompts in d dimensions.
            weights: Of the embedding, shape (d,).
            bias: The logit where the embedding is zero.
            pair: The two models.
            threshold: The default threshold.
            c: The inverse strength of the penalty that it was fitted with.

        Raises:
            ConfigurationError: The parts do not fit together, or a number is not finite.
        """
        shape = (getattr(embedder, "dimensions", None),)
        self.weights = finite_array(weights, shape, "weights (one for each dimension of the embedding)")
        self.bias = float(finite_array(bias, (), "bias"))
        self.pair = as_pair(pair)
        self.c = c
        super().__init__(embedder=embedder, direction=self.weights, offset=self.bias, threshold=threshold)

    def __repr__(self) -> str:
        """The pair and the size."""
        return f"{type(self).__name__}({self.pair}, {len(self.weights)} dimensions)"

    @property
    def models(self) -> tuple[str, ...]:
        """The two of its pair, sorted."""
        return tuple(sorted((self.pair.strong, self.pair.weak)))

    @classmethod
    def fit(
        cls,
        battles: Battles,
        *,
        embedder: str | Path | Embedder | None = None,
        pair: ModelPair,
        c: float | Sequence[float] = C_GRID,
        folds: int = 5,
        seed: int = 0,
        progress: bool = False,
    ) -> Self:
        """Learn from the battles of one pair.

        Soft outcomes count as a win and a loss of fitting weights. The coordinates of the embedding are given
        one spread first, which is folded back into the weights.

        Args:
            battles: Battles; those of other pairs are left out.
            embedder: As for `as_embedder`; None for the bundled one beside the length of the prompt.
            pair: The two models.
            c: Inverse strength of the L2 penalty, as scikit-learn's `C`; of several, the one of the least log
                loss in cross-validation over prompts.
            folds: Parts of the cross-validation, which also tells what the router recovers.
            seed: Of the parts.
            progress: Whether to show progress bars on stderr.

        Returns:
            The router; its threshold is the median of its scores of the training prompts, which sends half of
            such prompts to the strong model.

        Raises:
            DataError: The pair has fewer than two prompts, or embeddings are unusable.
            ConfigurationError: An argument cannot be used.
            ConvergenceError: The optimum was not reached.
            MissingExtraError: scikit-learn is not installed.
        """
        grid = _checked_grid(c)
        as_seed(seed)
        if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:  # noqa: PLR2004 - one to fit, one to test
            msg = f"folds must be an integer of at least 2, got {folds!r}"
            raise ConfigurationError(msg)
        if find_spec("sklearn") is None:
            msg = 'fitting a logistic regression needs scikit-learn: pip install scikit-learn, or "prefroute[train]"'
            raise MissingExtraError(msg)
        labels = _labels(battles, as_pair(pair))
        found = training_embedder(embedder, labels.prompts, default=DEFAULT_EMBEDDER)
        embeddings = embedded_rows(found, labels.prompts, progress=progress)
        standard = Standardisation.fit(embeddings, part_widths(found, embeddings.shape[1]))
        rows = standard(embeddings).astype(np.float64)
        best, logits = _best_c(rows, labels, grid, folds, seed, progress=progress)
        coefficients, intercept = _fit(rows, labels.outcomes, labels.weights, best)
        weights, biases = standard.folded(coefficients[None], np.array([intercept]))
        router = cls(
            embedder=found,
            weights=weights[0],
            bias=float(biases[0]),
            pair=pair,
            threshold=float(np.median(sigmoid(rows @ coefficients + intercept))),
            c=best,
        )
        observed = battles.for_pair(pair).outcomes
        router.validation = validate(logits, observed, [len(prompt) for prompt in labels.prompts])
        router.note_training_prompts(labels.prompts)
        return router

    def _to_saved(self, folder: Path) -> SavedRouter:
        save_embedder(self.embedder, folder / EMBEDDER_FOLDER)
        settings = _Settings(strong=self.pair.strong, weak=self.pair.weak, bias=self.bias, c=self.c)
        return SavedRouter(settings=asdict(settings), tensors={"weights": self.weights})

    @classmethod
    def _from_saved(cls, saved: SavedRouter, folder: Path) -> Self:
        settings = validated(_Settings, saved.settings, folder / CONFIG_FILE)
        if "weights" not in saved.tensors:
            msg = f"{folder / TENSORS_FILE} lacks weights"
            raise PersistenceError(msg)
        embedder = saved.embedder_of(folder)
        try:
            return cls(
                embedder=embedder,
                weights=saved.tensors["weights"],
                bias=settings.bias,
                pair=ModelPair(settings.strong, settings.weak),
                c=settings.c,
            )
        except ConfigurationError as error:
            msg = f"{folder}: {error}"
            raise PersistenceError(msg) from error


def _checked_grid(c: float | Sequence[float]) -> list[float]:
    values = list(c) if isinstance(c, Sequence | np.ndarray) and not isinstance(c, str) else [c]
    grid = [number for value in values if (number := finite_or_none(value)) is not None and number > 0]
    if not grid or len(grid) != len(values):
        msg = f"c must be one or several finite numbers above 0, got {c!r}"
        raise ConfigurationError(msg)
    return grid


def _labels(battles: Battles, pair: ModelPair) -> PairLabels:
    labels = battles.for_pair(pair)
    count = len(labels.prompts)
    if prompt_groups(labels.prompts).max() < 1:
        msg = f"{pair.strong!r} and {pair.weak!r} have battles over one prompt only; at least 2 are needed"
        raise DataError(msg)
    # Half a battle each way, spread over all: outcomes that are all alike then have a finite optimum.
    share = 1.0 / (count + 1)
    weights = labels.weights / labels.weights.max()
    return labels._replace(outcomes=(1.0 - share) * labels.outcomes + share / 2.0, weights=weights / weights.mean())


def _best_c(
    rows: NDArray[np.float64], labels: PairLabels, grid: list[float], folds: int, seed: int, *, progress: bool
) -> tuple[float, NDArray[np.float64]]:
    """The c whose fits have the least log loss on the prompts that they were made without, and those prompts' logits.

    The logits are without the intercepts: these are higher where the prompts held out were worse for the strong
    model, and pooled over the folds that alone would rank prompts against their outcomes.
    """
    fold_of = deal_folds(prompt_groups(labels.prompts), folds, np.random.default_rng(seed))
    logits = np.empty((len(grid), len(rows)))
    directed = np.empty_like(logits)
    parts = range(int(fold_of.max()) + 1)
    for fold in tracked(parts, "Cross-validation", progress=progress, transient=True):
        out = fold_of == fold
        for index, c in enumerate(grid):
            coefficients, intercept = _fit(rows[~out], labels.outcomes[~out], labels.weights[~out], c)
            directed[index, out] = rows[out] @ coefficients
            logits[index, out] = directed[index, out] + intercept
    losses = np.average(np.logaddexp(0.0, logits) - labels.outcomes * logits, axis=1, weights=labels.weights)
    best = int(np.argmin(losses))
    return grid[best], directed[best]


def _fit(
    rows: NDArray[np.float64], outcomes: NDArray[np.float64], weights: NDArray[np.float64], c: float
) -> tuple[NDArray[np.float64], float]:
    """Coefficients (d,) and intercept of the penalised fit; each row counts as a win and as a loss."""
    from sklearn.linear_model import LogisticRegression

    count = len(rows)
    model = LogisticRegression(C=c, max_iter=_MAX_STEPS)
    model.fit(
        np.vstack([rows, rows]),
        np.repeat([1, 0], count),
        sample_weight=np.concatenate([weights * outcomes, weights * (1.0 - outcomes)]),
    )
    if model.n_iter_[0] >= _MAX_STEPS:
        msg = f"the logistic regression did not converge in {_MAX_STEPS} steps with c={c:g}; give a smaller c"
        raise ConvergenceError(msg)
    return model.coef_[0], float(model.intercept_[0])
