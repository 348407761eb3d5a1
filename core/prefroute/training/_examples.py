"""Prompts with the label that a classifier is to give them, made from battles."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prefroute.data import split_prompts
from prefroute.errors import DataError
from prefroute.routers.causal_lm import default_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prefroute.data import Battles
    from prefroute.types import ModelPair


class Examples(NamedTuple):
    """Prompts to learn from.

    Attributes:
        prompts: n distinct texts.
        targets: Shape (n, k). Of one label, P(strong wins); of several, the share of each label.
        weights: How much each counts, of mean 1, shape (n,).
    """

    prompts: list[str]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]

    def at(self, rows: NDArray[np.integer]) -> Examples:
        """The chosen ones; one may be chosen several times."""
        weights = self.weights[rows]
        return Examples([self.prompts[row] for row in rows], self.targets[rows], weights / weights.mean())

    @property
    def outcomes(self) -> NDArray[np.float64]:
        """P(strong wins) as observed, shape (n,)."""
        values = np.array(default_values(self.targets.shape[1]))
        found: NDArray[np.float64] = self.targets @ values
        return found


def examples_of(battles: Battles, pair: ModelPair, labels: int) -> Examples:
    """Label prompts by the battles of a pair.

    Args:
        battles: Battles; those of other pairs are left out.
        pair: The models.
        labels: Number k of labels. An outcome is given to the two labels it lies between, by how near they are; the
            battles of one prompt are averaged, by their weights.

    Returns:
        One example a prompt.

    Raises:
        DataError: The pair has no battle.
    """
    found = battles.for_pair(pair)
    if labels == 1:
        weights = found.weights / found.weights.max()
        return Examples(found.prompts, found.outcomes[:, None].astype(np.float32), _of_mean_one(weights))
    rows, outcomes = battles.between(pair)
    weights = battles.weights[rows] / battles.weights[rows].max()  # First, so that no sum of them can overflow.
    place = (1.0 - outcomes) * (labels - 1)
    below = np.minimum(place.astype(np.int64), labels - 2)
    above = place - below
    shares = np.zeros((len(battles.prompts), labels))
    index = battles.prompt_index[rows]
    np.add.at(shares, (index, below), weights * (1.0 - above))
    np.add.at(shares, (index, below + 1), weights * above)
    shares = shares[np.unique(index)]  # In order of the prompts, as `for_pair` gives them.
    totals = shares.sum(axis=1)
    return Examples(found.prompts, (shares / totals[:, None]).astype(np.float32), _of_mean_one(totals))


def held_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Part the examples into those learnt from and those held out; spellings of one prompt stay together.

    Raises:
        DataError: There are too few prompts.
    """
    try:
        part = split_prompts(examples.prompts, (1.0 - share, share), seed=seed)
    except DataError as error:
        msg = f"{len(examples.prompts)} prompts compare the pair, too few to hold out {share:.0%} of them; {error}"
        raise DataError(msg) from error
    return examples.at(np.flatnonzero(part == 0)), examples.at(np.flatnonzero(part == 1))


def balanced_rows(targets: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """Repeat the rows of rarer labels until every label that occurs is as frequent as the most frequent one.

    Args:
        targets: Shares of the labels, shape (n, k); the largest is the row's.
        seed: Of the rows that are repeated once more than others.

    Returns:
        Positions, each row at least once, in order.
    """
    random = np.random.default_rng(seed)
    label = targets.argmax(axis=1)
    most = int(np.bincount(label).max())
    chosen = []
    for value in np.unique(label):
        rows = np.flatnonzero(label == value)
        chosen += [np.repeat(rows, most // len(rows)), random.permutation(rows)[: most % len(rows)]]
    return np.sort(np.concatenate(chosen))


def _of_mean_one(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (weights / weights.mean()).astype(np.float32)
    return found
