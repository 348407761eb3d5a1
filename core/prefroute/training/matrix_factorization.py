"""Training of the matrix factorization (RouteLLM, arXiv 2406.18665, section 4.1)."""

from __future__ import annotations

import reprlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from prefroute._torch import as_device, needs_torch
from prefroute.bradley_terry import rate_models, win_matrix
from prefroute.data import prompt_groups
from prefroute.errors import ConfigurationError, DataError
from prefroute.evaluation import validate
from prefroute.inputs import as_pair
from prefroute.routers._embedding import deal_folds, training_embedder
from prefroute.routers._linear import DEFAULT_EMBEDDER, Standardisation, embedded_rows, part_widths
from prefroute.routers.matrix_factorization import MatrixFactorizationRouter, TrainingReport
from prefroute.training.config import MatrixFactorizationConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.progress import Progress

    from prefroute.data import Battles
    from prefroute.embedding import Embedder
    from prefroute.evaluation import Validation
    from prefroute.training._factors import Fitted, Rows
    from prefroute.types import ModelPair

_FEWEST_PROMPTS = 2

_FOLDS, _FEW_PROMPTS = 5, 5000

_PRIOR, _MOST_DECAY = 1.2, 3e-3


def train_matrix_factorization(
    battles: Battles,
    *,
    embedder: str | Path | Embedder | None = None,
    pair: ModelPair,
    config: MatrixFactorizationConfig | None = None,
    progress: bool = False,
) -> MatrixFactorizationRouter:
    """Train a matrix factorization on battles of any models.

    Log loss of soft outcomes, battles counting by their weights. The same seed gives the same scores on one
    machine. Ctrl-C ends it at once and leaves nothing behind; a router is only made at the end.

    Args:
        battles: Battles between m models over p prompts.
        embedder: As for `as_embedder`; None for the bundled one beside the length of the prompt.
        pair: The models to route between; `with_pair` of the result gives any other pair of the m.
        config: The settings.
        progress: Whether to show progress bars on stderr.

    Returns:
        The router. Its threshold is the median of its scores of the held-out prompts, which are all where there
        are several folds, and sends half of such prompts to the strong model. Its `training` says how training
        went.

    Raises:
        DataError: There is nothing to learn from, the pair is not among the models, or embeddings are unusable.
        ConfigurationError: `pair`, `embedder` or `config` cannot be used.
        MissingExtraError: torch is not installed.
    """
    config = MatrixFactorizationConfig() if config is None else config
    if not isinstance(config, MatrixFactorizationConfig):
        msg = f"config must be a MatrixFactorizationConfig, got {type(config).__name__}; None for the defaults"
        raise ConfigurationError(msg)
    needs_torch("training a matrix factorization", "torch", extra="train")
    as_device(config.device)  # An unusable one is told before anything is embedded.
    used = _usable(battles, as_pair(pair), config)
    found = training_embedder(embedder, used.prompts, default=DEFAULT_EMBEDDER)
    embeddings = embedded_rows(found, used.prompts, progress=progress)
    dimensions = embeddings.shape[1]
    standard = (
        Standardisation.fit(embeddings, part_widths(found, dimensions))
        if config.standardise
        else Standardisation.none(dimensions)
    )
    folds = _deal(used.prompts, config)
    fitted = _fit_folds(standard(embeddings), _rows(used), folds, len(used.models), config, progress=progress)
    linear = [standard.folded(part.weights, part.biases) for part in fitted]
    centre = embeddings.mean(axis=0, dtype=np.float64)
    strong, weak = (used.models.index(name) for name in (pair.strong, pair.weak))
    directions = np.array([weights[strong] - weights[weak] for weights, _ in linear])
    logits = _held_out_logits(embeddings, centre, directions, folds)
    router = MatrixFactorizationRouter(
        embedder=found,
        models=used.models,
        weights=np.mean([weights for weights, _ in linear], axis=0),
        biases=np.mean([biases for _, biases in linear], axis=0),
        ratings=_ratings(used),
        centre=centre,
        pair=pair,
        training=TrainingReport(
            battles=len(used),
            prompts=len(used.prompts),
            models=len(used.models),
            ties_dropped=len(battles) - len(used),
            epochs=tuple(part.epochs for part in fitted),
            best_epochs=tuple(part.best_epoch for part in fitted),
            train_loss=float(np.mean([part.train_loss for part in fitted])),
            validation_loss=float(np.mean([part.validation_loss for part in fitted])),
            validation_prompts=int((folds >= 0).sum()),
        ),
    )
    router.validation = _validation(logits, folds, used, pair)
    router.threshold = float(np.median(router.win_probability_of_embeddings(embeddings[folds >= 0])))
    router.note_training_prompts(used.prompts)
    return router


def _usable(battles: Battles, pair: ModelPair, config: MatrixFactorizationConfig) -> Battles:
    """The battles to learn from."""
    missing = [name for name in (pair.strong, pair.weak) if name not in battles.models]
    if missing:
        msg = (
            f"no battle of {' nor of '.join(map(repr, missing))} among {len(battles)}; "
            f"models: {', '.join(battles.models) or 'none'}. Name a pair of these, and place others with with_model"
        )
        raise DataError(msg)
    used = battles[battles.outcomes != 0.5] if config.ties == "drop" else battles  # noqa: PLR2004 - a tie
    lost = [name for name in (pair.strong, pair.weak) if name not in used.models]
    if lost:
        msg = (
            f"with ties={config.ties!r} {len(used)} of {len(battles)} battles are left to learn from, and none of "
            f"{' nor of '.join(map(repr, lost))}; give more data, or ties='half'"
        )
        raise DataError(msg)
    return used


def _deal(prompts: Sequence[str], config: MatrixFactorizationConfig) -> NDArray[np.int64]:
    """The fold that holds each prompt out, the same for all its spellings, shape (p,); -1 where none does."""
    groups = prompt_groups(prompts)
    count = int(groups.max()) + 1
    if count < _FEWEST_PROMPTS:
        msg = f"all battles are over one prompt, {reprlib.repr(prompts[0])}; at least {_FEWEST_PROMPTS} are needed"
        raise DataError(msg)
    random = np.random.default_rng(config.seed)
    folds = config.folds or (_FOLDS if count <= _FEW_PROMPTS else 1)
    if folds > 1:
        return deal_folds(groups, folds, random)
    held_out = min(max(1, round(count * config.validation_share)), count - 1)
    found: NDArray[np.int64] = np.where(random.permutation(count) < held_out, 0, -1)[groups]
    return found


def _rows(battles: Battles) -> Rows:
    from prefroute.training._factors import Rows

    weights = battles.weights / battles.weights.max()  # First, so that no sum of them can overflow.
    return Rows(
        prompts=battles.prompt_index.astype(np.int64),
        model_a=battles.model_a.astype(np.int64),
        model_b=battles.model_b.astype(np.int64),
        outcomes=battles.outcomes.astype(np.float32),
        weights=(weights / weights.mean()).astype(np.float32),
    )


def _fit_folds(
    embeddings: NDArray[np.float32],
    rows: Rows,
    folds: NDArray[np.int64],
    models: int,
    config: MatrixFactorizationConfig,
    *,
    progress: bool,
) -> list[Fitted]:
    from prefroute.training._factors import fit_factors

    fold_of_row = folds[rows.prompts]
    if config.weight_decay is None:
        config = replace(config, weight_decay=min(_PRIOR / len(fold_of_row), _MOST_DECAY))
    fitted = []
    with _bar(shown=progress) as bar:
        for fold in range(int(folds.max()) + 1):
            name = f"Fold {fold + 1} of {folds.max() + 1}"
            task = bar.add_task(name, total=config.max_epochs)
            part = fit_factors(
                embeddings,
                rows.at(fold_of_row != fold),
                rows.at(fold_of_row == fold),
                models=models,
                config=config,
                seed=config.seed + fold,
                on_epoch=lambda task=task: bar.advance(task),  # type: ignore[misc]
            )
            bar.update(task, completed=config.max_epochs, description=f"{name}: best epoch {part.best_epoch}")
            fitted.append(part)
    return fitted


def _bar(*, shown: bool) -> Progress:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), disable=not shown)


def _held_out_logits(
    embeddings: NDArray[np.float32],
    centre: NDArray[np.float64],
    directions: NDArray[np.float64],
    folds: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Logit of each prompt, less that of the mean prompt, by the factors trained without it.

    Without the mean prompt's, which is higher where the prompts held out were worse for the strong model: pooled
    over the folds, that alone would rank prompts against their outcomes.

    Args:
        embeddings: Shape (p, d).
        centre: Their mean, shape (d,).
        directions: Weights of the strong model less those of the weak one, by fold, shape (folds, d).
        folds: The fold that holds each prompt out, shape (p,).

    Returns:
        Shape (p,); NaN for prompts that were not held out.
    """
    logits = np.full(len(folds), np.nan)
    for fold, direction in enumerate(directions):
        rows = folds == fold
        logits[rows] = (embeddings[rows] - centre) @ direction
    return logits


def _validation(
    logits: NDArray[np.float64], folds: NDArray[np.int64], battles: Battles, pair: ModelPair
) -> Validation | None:
    """What is recovered of held-out prompts with battles of the pair; None where there are none."""
    try:
        labels = battles.for_pair(pair)
    except DataError:
        return None
    place = {prompt: index for index, prompt in enumerate(battles.prompts)}
    index = np.array([place[prompt] for prompt in labels.prompts])
    held_out = folds[index] >= 0
    if not held_out.any():
        return None
    lengths = np.array([len(prompt) for prompt in labels.prompts])
    return validate(logits[index[held_out]], labels.outcomes[held_out], lengths[held_out])


def _ratings(battles: Battles) -> NDArray[np.float64]:
    """Elo rating of each model by all battles, shape (m,)."""
    wins = win_matrix(battles.model_a, battles.model_b, battles.outcomes, battles.weights, len(battles.models))
    return rate_models(wins)
