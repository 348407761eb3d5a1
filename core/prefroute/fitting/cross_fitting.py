"""Scores that candidates give prompts they did not learn from, and the choice among the candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prefroute._progress import tracked
from prefroute._scoring import score_prompts
from prefroute.evaluation.metrics import apgr
from prefroute.routers._embedding import deal_folds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from prefroute.data import Battles
    from prefroute.evaluation.benchmarks import Benchmark
    from prefroute.fitting.candidates import Candidate
    from prefroute.fitting.work import Work

_EDGE = 1e-9

_DECIMALS = 7
"""Scores that differ by less are equal: in what order rounding leaves them says nothing."""

_FEWEST = 15
"""Prompts of a fold: taking the mean of m scores off each makes their spread too small by the root of 1 - 1 / m."""

_LARGE = 0.95

SIZES = (0.125, 0.25, 0.5)
"""Shares of the training prompts that the learning curve is drawn at, beside all of them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Labels:
    """Judged prompts as the candidates see them: n rows, which may repeat a prompt.

    Attributes:
        prompts: n texts.
        battles: One a row, in order.
        gains: Quality of the strong answer less that of the weak one, shape (n,).
        outcomes: What is learnt: 0.5 for a tie, more the further the strong answer is ahead, shape (n,).
        folds: The fold that holds each row out, the same for all spellings of a prompt, shape (n,).
        groups: A number for each prompt, the same for its spellings, shape (n,).
    """

    prompts: tuple[str, ...]
    battles: Battles
    gains: NDArray[np.float64]
    outcomes: NDArray[np.float64]
    folds: NDArray[np.int64]
    groups: NDArray[np.int64]

    @classmethod
    def of(cls, benchmark: Benchmark, folds: int, seed: int) -> Labels:
        """Deal the rows of a benchmark into folds.

        Args:
            benchmark: The rows.
            folds: Folds at most; fewer where one would have fewer than 15 prompts, for their mean is taken off them.
            seed: Draws them.

        Returns:
            The labels. The outcome is (1 + gain / a large gain) / 2, so that its mean over like prompts rises with
            their mean gain, which is what routing is measured by. For labels that are right or wrong this is the win,
            loss or tie of a battle. A large gain is one that 5 % of the decided prompts exceed, whose outcomes are cut:
            one quality that is off the scale must not make ties of all others.
        """
        gains = benchmark.gains
        decided = np.abs(gains[gains != 0.0])
        large = float(np.quantile(decided, _LARGE)) if len(decided) else 1.0
        outcomes = (1.0 + (gains / large).clip(-1.0, 1.0)) / 2.0
        groups = benchmark.groups
        folds = max(2, min(folds, (int(groups.max()) + 1) // _FEWEST))
        battles = benchmark.responses.to_battles().with_columns(outcomes=outcomes)
        return cls(
            prompts=benchmark.prompts,
            battles=battles,
            gains=gains,
            outcomes=outcomes,
            folds=deal_folds(groups, folds, np.random.default_rng(seed)),
            groups=groups,
        )

    @property
    def fold_count(self) -> int:
        """Folds that there are."""
        return int(self.folds.max()) + 1


class Choice(NamedTuple):
    """Which candidate is taken, and what the whole procedure, choice included, scores.

    Attributes:
        best: Place of the candidate with the least log loss on held-out prompts.
        losses: Log loss of each candidate, shape (c,).
        errors: Standard error of how far each one's loss lies above the best one's, shape (c,).
        logits: Of each row, by the best candidate, with one level in all folds, shape (n,).
        measured: Of each row, by the candidate that was best on all other folds, at the level and the spread of
            `logits`, shape (n,).
    """

    best: int
    losses: NDArray[np.float64]
    errors: NDArray[np.float64]
    logits: NDArray[np.float64]
    measured: NDArray[np.float64]


def held_out_logits(
    candidate: Candidate,
    labels: Labels,
    *,
    share: float = 1.0,
    seed: int = 0,
    work: Work | None = None,
    progress: bool = False,
) -> NDArray[np.float64]:
    """Logit that a candidate gives each row when it learns from the other folds alone.

    Args:
        candidate: The candidate.
        labels: The rows.
        share: Share of the other folds' prompts that it learns from, for a learning curve.
        seed: Draws that share.
        work: Where a candidate that takes long keeps what it has reached; None for nowhere.
        progress: Whether to show a bar on stderr.

    Returns:
        Shape (n,).

    Raises:
        RouterError: A fitted candidate failed to score.
        PrefrouteError: It could not learn.
    """
    found = np.empty(len(labels.prompts))
    lots = _lots(labels, seed)
    for fold in tracked(range(labels.fold_count), candidate.name, progress=progress, transient=True):
        out = labels.folds == fold
        rows = np.flatnonzero(out)
        chances = None if work is None else work.find(fold, len(rows))
        if chances is None:
            kept = ~out & (lots <= np.quantile(lots[~out], share))
            with candidate.threads():
                router = candidate.learn(labels.battles[kept], None if work is None else work.place(f"fold-{fold}"))
                chances = score_prompts(router, [labels.prompts[row] for row in rows], name=candidate.name)
            if work is not None:
                work.keep(fold, chances)
        safe = np.clip(chances, _EDGE, 1.0 - _EDGE)
        found[rows] = np.log(safe) - np.log1p(-safe)
    return found


def choose(logits: Sequence[NDArray[np.float64]], labels: Labels) -> Choice:
    """Choose by log loss, and score every row as if its own label had had no say in the choice.

    The log loss is a proper score: it uses how far off each prompt is, where the area under the curve of recovered
    quality only sees the order of the prompts, and on some hundred prompts is too noisy to tell candidates apart.
    The scores of a fold are those of the candidate with the least loss on all other folds, so that what is measured on
    them is what fitting and choosing together do. Nearly: those that scored the other folds had learnt from this one.
    To choose in folds within each fold would cost as many times more as there are folds.

    Args:
        logits: Of each candidate, from `held_out_logits`, at least one; the simplest first, for it wins a draw.
        labels: The rows.

    Returns:
        The choice.
    """
    losses = np.stack([np.logaddexp(0.0, row) - labels.outcomes * row for row in logits])
    totals = losses.mean(axis=1)
    best = int(np.argmin(totals))
    sizes = np.bincount(labels.groups)
    behind = [np.bincount(labels.groups, row - losses[best]) for row in losses]
    errors = np.array([np.sqrt(np.sum((each - sizes * (each.sum() / len(labels.groups))) ** 2)) for each in behind])
    level = [levelled(row, labels.folds) for row in logits]
    measured = np.empty(losses.shape[1])
    for fold in range(labels.fold_count):
        out = labels.folds == fold
        elsewhere = int(np.argmin(losses[:, ~out].mean(axis=1)))
        measured[out] = _like(level[elsewhere], level[best])[out]
    chosen, measured = (np.round(row, _DECIMALS) for row in (level[best], measured))
    return Choice(best, totals, errors / len(labels.groups), chosen, measured)


def levelled(logits: NDArray[np.float64], folds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logits with the same mean in each fold, that of all.

    A fold's level is higher where the prompts held out were worse for the strong model; pooled over the folds that
    alone would rank prompts against their outcomes. No label is looked at.

    Args:
        logits: Shape (n,).
        folds: The fold of each, from 0, shape (n,).

    Returns:
        Shape (n,).
    """
    means = np.bincount(folds, logits) / np.bincount(folds)
    found: NDArray[np.float64] = logits - means[folds] + logits.mean()
    return found


def _like(logits: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits at the mean and the spread of others: one candidate spreads its scores wider than the next."""
    spread, wanted = float(logits.std()), float(others.std())
    found: NDArray[np.float64] = (logits - logits.mean()) * (wanted / spread if spread else 1.0) + others.mean()
    return found


def tied_like(scores: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores that tie wherever others do, at the mean of those that are tied.

    A router that gives two prompts one score sends both the same way. Held-out scores of different folds differ a
    little for them, so that a threshold could be laid between them which no call can tell apart.

    Args:
        scores: Shape (n,).
        others: Shape (n,).

    Returns:
        Shape (n,).
    """
    _, places = np.unique(np.round(others, _DECIMALS), return_inverse=True)
    means: NDArray[np.float64] = np.bincount(places, scores) / np.bincount(places)
    return means[places]


class LearningPoint(NamedTuple):
    """What is recovered with fewer labels.

    Attributes:
        prompts: Prompts learnt from.
        apgr: Recovered of the held-out ones; NaN where the strong model is no better.
    """

    prompts: int
    apgr: float


def learning_curve(
    candidate: Candidate, labels: Labels, logits: NDArray[np.float64], *, seed: int = 0, progress: bool = False
) -> list[LearningPoint]:
    """How the candidate does with an eighth, a quarter and a half of the labels, and with all.

    Args:
        candidate: The candidate.
        labels: The rows.
        logits: Its held-out ones, learnt with all labels, shape (n,).
        seed: Draws which labels are kept.
        progress: Whether to show bars on stderr.

    Returns:
        Points from few prompts to many. Each is measured on the same held-out rows.
    """
    prompts = int(len(np.unique(labels.groups)) * (1.0 - 1.0 / labels.fold_count))
    found = [
        LearningPoint(
            max(1, round(share * prompts)),
            area_of(held_out_logits(candidate, labels, share=share, seed=seed, progress=progress), labels),
        )
        for share in SIZES
    ]
    return [*found, LearningPoint(prompts, area_of(logits, labels))]


def area_of(logits: NDArray[np.float64], labels: Labels) -> float:
    """APGR of held-out logits, brought to one level; NaN where the strong model is no better."""
    return apgr(np.round(levelled(logits, labels.folds), _DECIMALS), labels.gains)


def _lots(labels: Labels, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each row, the same for all spellings of a prompt: those with low ones are kept first."""
    return np.random.default_rng(seed).random(int(labels.groups.max()) + 1)[labels.groups]
