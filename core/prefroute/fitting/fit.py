"""From judged prompts to a calibrated router: candidates cross-fitted, the best one chosen, measured and calibrated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefroute._scoring import score_prompts
from prefroute.bradley_terry import sigmoid
from prefroute.calibration import Calibration, as_strong_rate, fewest_prompts
from prefroute.errors import ConfigurationError, DataError, MissingExtraError, PrefrouteError
from prefroute.evaluation import Validation
from prefroute.evaluation.evaluate import evaluate_scores
from prefroute.evaluation.reliability import outcomes_of
from prefroute.evaluation.resampling import RESAMPLES, as_count
from prefroute.evaluation.results import COIN, KNN, LENGTH, ORACLE
from prefroute.fitting.candidates import EMBEDDER, LIGHT, Remembered, candidates_of
from prefroute.fitting.cross_fitting import (
    Labels,
    area_of,
    choose,
    held_out_logits,
    learning_curve,
    levelled,
    tied_like,
)
from prefroute.fitting.settling import WORTHWHILE, prompts_to_settle
from prefroute.fitting.work import Work
from prefroute.inputs import as_seed
from prefroute.probability import FEWEST, fit_probabilities
from prefroute.routers.baselines import RandomRouter
from prefroute.routers.calibrated import CalibratedRouter

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from prefroute.calibration import CalibratedThreshold
    from prefroute.embedding import Embedder
    from prefroute.evaluation.benchmarks import Benchmark
    from prefroute.evaluation.results import Evaluation, Figures
    from prefroute.fitting.candidates import Candidate
    from prefroute.fitting.cross_fitting import Choice, LearningPoint
    from prefroute.probability import FittedProbabilities
    from prefroute.router import Router
    from prefroute.training import BertConfig

FOLDS = 10
"""Each fit of the cross-validation then learns from nine tenths, so that it is worth about as much as the last one."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A candidate, and how it did on prompts kept out of its training.

    Attributes:
        name: Kind and embedder.
        loss: Log loss; the least was chosen.
        behind: By how much it is above the least.
        error: Standard error of that.
        apgr: Recovered; NaN where the strong model is no better. Of the chosen one it is a little too good, since it
            was chosen on these prompts; the evaluation's is not.
    """

    name: str
    loss: float
    behind: float
    error: float
    apgr: float


@dataclass(frozen=True, kw_only=True)
class Settling:
    """How many labelled prompts, in all, would tell an advantage over random routing from chance, 4 times of 5.

    Attributes:
        seen: For the advantage that was seen; None where there is none.
        worthwhile: For an APGR of 0.55; None where the data do not bound the APGR, or nothing could reach it.
        ceiling: APGR of perfect routing on these labels; NaN where the strong model is no better.
    """

    seen: int | None
    worthwhile: int | None
    ceiling: float


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedRouter:
    """A router, and what is known of it.

    Attributes:
        router: Learnt from all prompts, calibrated.
        chosen: Name of what was chosen.
        tried: Every candidate.
        left_out: Why candidates could not be fitted, by name.
        evaluation: Of the cross-fitted scores: each prompt is scored by a router that was fitted without its label, and
            chosen by the held-out scores of the other folds. The router's name there is its kind.
        scores: Held-out scores of what was chosen, as the router's probabilities, shape (n,). Thresholds are
            read off them, for they are scores of prompts not learnt from. Prompts that the router itself gives one
            score share one here, too.
        own_scores: The router's own scores of the prompts, which it learnt from, shape (n,).
        threshold: The router's, and about what it does to traffic like these prompts. Its interval is too narrow: it
            is of more scores like the held-out ones, and those of the router, which learnt from all prompts, lie a
            little elsewhere. `Router.calibrate` with other prompts has one that holds.
        probabilities: How good the map to probabilities is.
        curve: What is recovered with fewer labels; empty where that was not asked for.
        settling: Labels that would tell the router from chance; None where it is told already.
        folds: Of the cross-fitting.
        seed: Of whatever was drawn.
    """

    router: Router
    chosen: str
    tried: tuple[Tried, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    evaluation: Evaluation
    scores: NDArray[np.float64]
    own_scores: NDArray[np.float64]
    threshold: CalibratedThreshold
    probabilities: FittedProbabilities
    curve: tuple[LearningPoint, ...]
    settling: Settling | None
    folds: int
    seed: int

    @property
    def name(self) -> str:
        """The router's name in the evaluation."""
        return name_in(self.evaluation)

    @property
    def figures(self) -> Figures:
        """What it does."""
        found = self.evaluation.results[self.name].figures
        assert found is not None  # Every row is measured on.  # noqa: S101
        return found

    @property
    def beats_random(self) -> bool:
        """Whether it is told from a coin that calls the strong model as often; False where nothing can be recovered.

        That it does worse is never claimed, see `_without_worse`.
        """
        return self.is_measurable and self.figures.better_than_random == "yes"

    @property
    def is_measurable(self) -> bool:
        """Whether the strong model is better on these prompts at all, so that there is a gap to recover."""
        return math.isfinite(self.figures.apgr)

    @property
    def own_rate(self) -> float:
        """Share of these prompts that the router itself sends to the strong model; it has learnt from them."""
        return float((self.own_scores >= self.threshold.threshold).mean())

    def at(self, threshold: CalibratedThreshold) -> FittedRouter:
        """The same with another threshold, of the calibration that the router carries."""
        self.router.threshold = threshold.threshold
        return replace(self, threshold=threshold)


def fit_router(
    benchmark: Benchmark,
    *,
    kinds: Sequence[str] = LIGHT,
    embedders: Sequence[str | Embedder] = (EMBEDDER,),
    strong_rate: float = 0.5,
    folds: int = FOLDS,
    curve: bool = True,
    bert: BertConfig | None = None,
    work: str | Path | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: bool = False,
) -> FittedRouter:
    """Fit the best router for one's own prompts, and say honestly how good it is.

    Every candidate is cross-fitted: each prompt is scored by one that did not learn from it, in any spelling. The one
    with the least held-out log loss is chosen; what is measured are the scores of the whole procedure, choice included
    (`prefroute.fitting.cross_fitting.choose`). The map to probabilities and the threshold come from the same held-out
    scores. At last the chosen one learns from all prompts. What it does on traffic to come is then about what was
    measured, or a little better, for it has learnt from a tenth more.

    Args:
        benchmark: Judged prompts: one quality a model. They are split by prompt, never by row.
        kinds: Routers to choose from, of `candidates.LIGHT` and `candidates.ON_REQUEST`.
        embedders: Names as for `as_embedder`, or embedders: each kind is tried with each. The surface of the prompt
            stands beside those named without length or surface.
        strong_rate: Share of strong calls that the threshold is laid for; any other can be asked of the router later.
        folds: Of the cross-fitting, at least 2, and fewer where one would have fewer than 15 prompts; each costs a fit
            of each candidate.
        curve: Whether to draw the learning curve, which takes as long as three candidates more.
        bert: Settings of BERT, if it is among the kinds.
        work: Folder for what BERT has reached, so that the same call goes on where it was killed; remove it when the
            router is saved. None to keep nothing.
        resamples: Of the bootstrap.
        seed: Of whatever is drawn.
        progress: Whether to show progress bars on stderr.

    Returns:
        The router and what is known of it. Look at `beats_random` before you use it.

    Raises:
        DataError: There are fewer than 50 different prompts, or no candidate could learn from them.
        ConfigurationError: An argument cannot be used.
        RouterError: A fitted router failed to score.
        MissingExtraError: scikit-learn, or what a kind or embedder needs, is not installed.
    """
    _check(benchmark, folds, strong_rate, resamples, seed)
    labels = Labels.of(benchmark, folds, seed)
    found = candidates_of(
        kinds,
        embedders,
        prompts=list(dict.fromkeys(benchmark.prompts)),
        pair=benchmark.pair,
        bert=bert,
        seed=seed,
        progress=progress,
    )
    kept = None if work is None else Work.of(Path(work), labels, (bert, seed))
    candidates, logits, left_out = _cross_fitted(found, labels, kept, progress=progress)
    choice = choose(logits, labels)
    best = candidates[choice.best]
    held_out = sigmoid(choice.logits)
    probabilities = fit_probabilities(
        held_out, outcomes_of(labels.gains), groups=labels.groups, methods=("none", "platt"), seed=seed
    )
    found_so = evaluate_scores(
        {best.kind: probabilities.calibration(sigmoid(choice.measured))},
        benchmark,
        baselines=_baselines(best, candidates, logits, labels, seed),
        held_out=True,
        resamples=resamples,
        seed=seed,
    )
    evaluation = _without_worse(found_so)
    with best.threads():
        learnt = best.learn(labels.battles, None if kept is None else kept.place("all"))
        own = probabilities.calibration(score_prompts(learnt, labels.prompts, name=best.name))
    scores = tied_like(probabilities.calibration(held_out), own)
    calibration = Calibration(scores)
    router = _calibrated(learnt, probabilities, calibration)
    router.validation = _validation(evaluation, best.kind)
    threshold = calibration.threshold_for(strong_rate)
    router.threshold = threshold.threshold
    return FittedRouter(
        router=router,
        chosen=best.name,
        tried=tuple(_tried(candidates, logits, choice, labels)),
        left_out=left_out,
        evaluation=evaluation,
        scores=scores,
        own_scores=own,
        threshold=threshold,
        probabilities=probabilities,
        curve=tuple(learning_curve(best, labels, logits[choice.best], seed=seed, progress=progress))
        if curve and not best.takes_long
        else (),
        settling=_settling(evaluation, best.kind),
        folds=labels.fold_count,
        seed=seed,
    )


def _without_worse(evaluation: Evaluation) -> Evaluation:
    """The same, without claims that a cross-fitted router does worse than a coin.

    Where there is nothing to learn, what the training prompts of a fold seem to say is the opposite of what its own
    seem to say, so that cross-fitted scores lean below chance, further than the test against a coin allows for.
    """
    results = {
        name: replace(result, figures=replace(result.figures, better_than_random="cannot tell"))
        if result.figures is not None and result.figures.better_than_random == "no"
        else result
        for name, result in evaluation.results.items()
    }
    return replace(evaluation, results=results)


def name_in(evaluation: Evaluation) -> str:
    """Name of the one router that was measured, beside the baselines."""
    return next(name for name, result in evaluation.results.items() if not result.is_baseline)


def _check(benchmark: Benchmark, folds: int, strong_rate: float, resamples: int, seed: int) -> None:
    as_seed(seed)
    as_strong_rate(strong_rate)
    as_count("resamples", resamples)
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:  # noqa: PLR2004 - one to learn, one to test
        msg = f"folds must be a whole number of at least 2, got {folds!r}"
        raise ConfigurationError(msg)
    different = benchmark.different
    if different < FEWEST:
        msg = f"{different} different prompts are too few to fit and to measure a router with; label {FEWEST} or more"
        raise DataError(msg)
    if (fewest := fewest_prompts(strong_rate)) > different:
        msg = f"a strong-call rate of {strong_rate:g} takes {fewest:,} prompts to lay a threshold by, got {different:,}"
        raise DataError(msg)


def _cross_fitted(
    candidates: Sequence[Candidate], labels: Labels, work: Work | None, *, progress: bool
) -> tuple[list[Candidate], list[NDArray[np.float64]], dict[str, str]]:
    """Those that could be fitted, their held-out logits, and why the others could not."""
    fitted, logits, left_out = [], [], {}
    for candidate in candidates:
        try:
            kept = work if candidate.takes_long else None
            found = held_out_logits(candidate, labels, work=kept, progress=progress)
        except MissingExtraError:
            raise  # A matter of the call, not of the data.
        except PrefrouteError as error:
            left_out[candidate.name] = str(error)
        else:
            fitted.append(candidate)
            logits.append(found)
    if not fitted:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        msg = f"no router could be fitted on these {len(labels.prompts):,} prompts: {reasons}"
        raise DataError(msg)
    return fitted, logits, left_out


def _baselines(
    best: Candidate,
    candidates: Sequence[Candidate],
    logits: Sequence[NDArray[np.float64]],
    labels: Labels,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """A coin, the length and nearest neighbours, cross-fitted too; those that were fitted and are not the chosen."""
    found = {COIN: RandomRouter(seed=seed).win_probability(labels.prompts)}
    for candidate, row in zip(candidates, logits, strict=True):
        if candidate.kind in {LENGTH, KNN} and candidate.kind not in {best.kind, *found}:
            found[candidate.kind] = sigmoid(levelled(row, labels.folds))
    return found


def _calibrated(router: Router, probabilities: FittedProbabilities, calibration: Calibration) -> Router:
    """The router with its map, unless no map is better, and the scores of prompts that it had not learnt from."""
    own = getattr(router, "embedder", None)
    if isinstance(own, Remembered):
        # What it has remembered is no use to whoever routes other prompts.
        router.embedder = own.embedder
    made = router
    if probabilities.calibration.method != "none":
        made = CalibratedRouter(router=router, probabilities=probabilities.calibration)
    made.calibration = calibration
    return made


def _validation(evaluation: Evaluation, name: str) -> Validation:
    figures, length = evaluation.results[name].figures, evaluation.results.get(LENGTH)
    known = [None if figures is None else getattr(figures, item) for item in ("apgr", "apgr_low", "apgr_high")]
    known.append(None if length is None or length.figures is None else length.figures.apgr)
    area, low, high, by_length = (None if value is None or not math.isfinite(value) else value for value in known)
    return Validation(prompts=len(evaluation.benchmark), apgr=area, low=low, high=high, length_apgr=by_length)


def _tried(
    candidates: Sequence[Candidate], logits: Sequence[NDArray[np.float64]], choice: Choice, labels: Labels
) -> list[Tried]:
    return [
        Tried(
            name=candidate.name,
            loss=float(loss),
            behind=float(loss - choice.losses[choice.best]),
            error=float(error),
            apgr=area_of(row, labels),
        )
        for candidate, row, loss, error in zip(candidates, logits, choice.losses, choice.errors, strict=True)
    ]


def _settling(evaluation: Evaluation, name: str) -> Settling | None:
    figures, perfect = (evaluation.results[one].figures for one in (name, ORACLE))
    if figures is None or perfect is None or (figures.better_than_random == "yes" and math.isfinite(figures.apgr)):
        return None
    ends, ceiling = (figures.apgr_low, figures.apgr_high), perfect.apgr
    # Not bounded, or all prompts get one score; or the models differ too little from prompt to prompt.
    if not ends[0] < ends[1] or not ceiling >= 0.5 + WORTHWHILE:
        return Settling(seen=None, worthwhile=None, ceiling=ceiling)
    prompts, advantage = evaluation.benchmark.different, figures.apgr - 0.5
    return Settling(
        seen=prompts_to_settle(prompts, *ends, advantage) if advantage > 0 else None,
        worthwhile=prompts_to_settle(prompts, *ends, WORTHWHILE),
        ceiling=ceiling,
    )
