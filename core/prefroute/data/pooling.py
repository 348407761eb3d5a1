"""Battles of many models made into battles of one pair, for routers that learn a single pair."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from prefroute.bradley_terry import fit_bradley_terry, win_matrix
from prefroute.data.report import shown
from prefroute.errors import ConfigurationError, DataError
from prefroute.inputs import as_pair, finite_or_none

if TYPE_CHECKING:
    from prefroute.data.battles import Battles
    from prefroute.types import ModelPair

_EVEN = 0.5

_SAME = 1e-9
"""Ratings no further apart are equal but for rounding."""


def pool_by_strength(battles: Battles, pair: ModelPair, *, min_win: float = 0.6, ridge: float = 1.0) -> Battles:
    """Let every battle between unequal models stand for one between a strong and a weak model.

    Any two models of an arena have met a few times only, too few to learn a pair from. What a prompt asks of a model
    shows in the battles of others too: a prompt on which the abler of two models wins is one on which ability tells.
    Models are rated by Bradley-Terry over all the battles, by their weights.

    Args:
        battles: Battles of any models of one source; rate sources apart where the same model has several names.
        pair: The names that the two sides get; they need not be among the models.
        min_win: Least chance with which the better-rated side of a battle must be expected to win, from 0.5 up to
            below 1. Battles between models nearer to each other say little about ability and are left out, as are
            those between models rated equal.
        ridge: Of the ratings, in the unit of the weights, 0 or more; it keeps models with few or one-sided battles
            near the others.

    Returns:
        The battles that are left, in order: the better-rated side is called `pair.strong`, the other `pair.weak`, each
        on the side where it stood, so that outcomes, weights and sources stay as they were.

    Raises:
        DataError: There are no battles, or none is left.
        ConfigurationError: An argument cannot be used.
        ConvergenceError: The ratings are not finite, as may be with `ridge=0`.
    """
    pair = as_pair(pair)
    least = finite_or_none(min_win)
    if least is None or not _EVEN <= least < 1.0:
        msg = f"min_win must be a chance from 0.5 up to below 1, got {shown(min_win)}"
        raise ConfigurationError(msg)
    if not len(battles):
        msg = "there are no battles to pool; give at least one"
        raise DataError(msg)
    wins = win_matrix(battles.model_a, battles.model_b, battles.outcomes, battles.weights, len(battles.models))
    ability = fit_bradley_terry(wins, ridge=ridge)
    gaps = ability[battles.model_a] - ability[battles.model_b]
    kept = (1.0 / (1.0 + np.exp(-np.abs(gaps))) >= least) & (np.abs(gaps) > _SAME)
    if not kept.any():
        msg = (
            f"in none of {len(battles)} battles is one side expected to win with a chance of {least:g} or more: the "
            f"{len(battles.models)} models are rated too near to each other; give a smaller min_win, or more battles"
        )
        raise DataError(msg)
    models = tuple(sorted((pair.strong, pair.weak)))
    strong, weak = models.index(pair.strong), models.index(pair.weak)
    chosen, ahead = battles[kept], gaps[kept] > 0.0
    return replace(chosen, models=models, model_a=np.where(ahead, strong, weak), model_b=np.where(ahead, weak, strong))
