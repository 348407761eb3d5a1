"""Cross-validation of the candidates, the choice among them, and what becomes of it on a source never seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from default_router.candidates import SEED, Candidate, Scorer, Table
from default_router.metrics import draw_counts, interval
from default_router.sources import Source, without_choices
from prefroute.data import prompt_groups
from prefroute.evaluation import apgr, resampled_apgr

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from prefroute.embedding import Embedder

FOLDS = 5
RESAMPLES = 1000


@dataclass(frozen=True)
class Corpus:
    """All training sources in one table.

    Attributes:
        names: Of the sources.
        table: Embedded prompts.
        gains: Shape (n,).
        groups: Equal for prompts that are the same but for spelling, shape (n,).
        folds: Fold in which each prompt is held out, shape (n,).
    """

    names: list[str]
    table: Table
    gains: NDArray[np.float64]
    groups: NDArray[np.int64]
    folds: NDArray[np.int64]

    def rows(self, source: int) -> NDArray[np.bool_]:
        """Which prompts are of this source."""
        members: NDArray[np.bool_] = self.table.sources == source
        return members


def corpus(sources: list[Source], embedder: Embedder) -> Corpus:
    """Embed the sources and deal their prompts into folds."""
    prompts = [prompt for source in sources for prompt in source.prompts]
    numbers = np.repeat(np.arange(len(sources)), [len(source.prompts) for source in sources])
    groups = prompt_groups(prompts)
    outcomes = np.concatenate([source.outcomes for source in sources])
    return Corpus(
        names=[source.name for source in sources],
        table=table_of(prompts, outcomes, embedder, numbers),
        gains=np.concatenate([source.gains for source in sources]),
        groups=groups,
        folds=_folds(groups, numbers),
    )


def table_of(
    prompts: list[str],
    outcomes: NDArray[np.float64],
    embedder: Embedder,
    numbers: NDArray[np.int64] | None = None,
) -> Table:
    """Embed prompts; a source of n prompts gets a total weight of sqrt(n), so that MMLU does not drown the rest."""
    numbers = np.zeros(len(prompts), dtype=np.int64) if numbers is None else numbers
    return Table(
        embeddings=embedder.embed(prompts).astype(np.float64),
        log_lengths=np.log1p([float(len(prompt)) for prompt in prompts]),
        outcomes=outcomes,
        weights=1.0 / np.sqrt(np.bincount(numbers)[numbers]),
        sources=numbers,
    )


def questions_only(source: Source, embedder: Embedder) -> Table:
    """A multiple-choice source without its options, nearer to how people ask."""
    return table_of([without_choices(prompt) for prompt in source.prompts], source.outcomes, embedder)


def out_of_fold(data: Corpus, candidate: Candidate) -> tuple[NDArray[np.float64], list[Scorer]]:
    """Scores of each prompt by the candidate fitted without its fold, and the fitted candidates."""
    scores = np.empty(len(data.gains))
    fitted = []
    for fold in range(FOLDS):
        held_out = data.folds == fold
        scorer = candidate.fit(data.table[~held_out])
        scores[held_out] = scorer(data.table[held_out])
        fitted.append(scorer)
    return scores, fitted


class Resampler:
    """APGR by source with intervals; the same resamples of prompts for everything, so differences are paired."""

    def __init__(self, data: Corpus) -> None:
        """Draw the resamples of each source."""
        self.data = data
        self.draws = [draw_counts(int(data.rows(i).sum()), RESAMPLES, SEED + i) for i in range(len(data.names))]

    def by_source(self, scores: NDArray[np.float64]) -> tuple[dict[str, dict[str, Any]], NDArray[np.float64]]:
        """Figures of each source and of their plain mean, and the resampled means, shape (r,)."""
        figures: dict[str, dict[str, Any]] = {}
        resampled = []
        for i, name in enumerate(self.data.names):
            rows = self.data.rows(i)
            resampled.append(resampled_apgr(scores[rows], self.data.gains[rows], self.draws[i]))
            figures[name] = {"apgr": apgr(scores[rows], self.data.gains[rows]), "interval": interval(resampled[-1])}
        means = np.mean(resampled, axis=0)
        macro = float(np.mean([figure["apgr"] for figure in figures.values()]))
        figures["mean"] = {"apgr": macro, "interval": interval(means)}
        for figure in figures.values():
            figure["apgr"] = round(figure["apgr"], 4)
        return figures, means


def choose(
    candidates: Iterable[Candidate], means: dict[str, NDArray[np.float64]], macro: dict[str, float]
) -> Candidate:
    """The simplest matrix factorization that cannot be told from the best candidate.

    Simpler is: leaning less on the length of the prompt; then the higher mean. Not told apart is: the
    95 % interval of the paired difference to the best holds zero.

    Args:
        candidates: Those that compete.
        means: Resampled mean APGR of each, by name.
        macro: Mean APGR of each, by name.

    Returns:
        The choice.

    Raises:
        RuntimeError: Every factorization is told apart from the best: then a router of that kind must be served first.
    """
    best = max(macro, key=lambda name: macro[name])
    able = [candidate for candidate in candidates if candidate.is_factorization]
    for candidate in sorted(able, key=lambda c: (c.length_scale or 0.0, -macro[c.name])):
        if interval(means[best] - means[candidate.name])[0] <= 0.0:
            return candidate
    msg = f"{best} beats every matrix factorization; the package serves no router of that kind yet"
    raise RuntimeError(msg)


def one_source_left_out(data: Corpus, candidate: Candidate) -> NDArray[np.float64]:
    """Scores of each source by the candidate fitted on the others, shape (n,)."""
    scores = np.empty(len(data.gains))
    for source in range(len(data.names)):
        rows = data.rows(source)
        scores[rows] = candidate.fit(data.table[~np.isin(data.groups, data.groups[rows])])(data.table[rows])
    return scores


def balanced_median(scores: NDArray[np.float64], sources: NDArray[np.int64]) -> float:
    """Median of the scores when every source counts the same in all."""
    weights = 1.0 / np.bincount(sources)[sources]
    order = np.argsort(scores, kind="stable")
    share = np.cumsum(weights[order])
    return float(scores[order][np.searchsorted(share, share[-1] / 2.0)])


def _folds(groups: NDArray[np.int64], sources: NDArray[np.int64]) -> NDArray[np.int64]:
    """Deal whole groups into folds, evenly within each source."""
    generator = np.random.default_rng(SEED)
    firsts = np.unique(groups, return_index=True)[1]  # first[g] is the first prompt of group g
    fold_of_group = np.empty(len(firsts), dtype=np.int64)
    for source in np.unique(sources):
        members = np.flatnonzero(sources[firsts] == source)
        fold_of_group[generator.permutation(members)] = np.arange(len(members)) % FOLDS
    return fold_of_group[groups]
