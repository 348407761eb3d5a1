"""From what a router answered to decisions: the settings of a call, the checks of the scores, failing open."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefroute._limits import Failure
from prefroute.errors import PrefrouteError, RouterError, ScoreError, ThresholdError
from prefroute.inputs import as_on_error, as_threshold, as_time_limit
from prefroute.types import RoutingDecision

if TYPE_CHECKING:
    from prefroute._limits import Outcome
    from prefroute.router import Router
    from prefroute.stats import RoutingStats
    from prefroute.types import OnError, Route

logger = logging.getLogger(__name__)

_NUMBERS = "biufO"
"""Kinds of numpy dtype that scores may have; an object is asked for its float."""

ROUNDING = 1e-6
"""How far outside [0, 1] a score may lie: a float32 softmax can add up to a little more than 1."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of one call, checked.

    Attributes:
        threshold: Scores at or above it are strong.
        on_error: What happens when the router fails.
        time_limit: Seconds it may take, or None.
    """

    threshold: float
    on_error: OnError
    time_limit: float | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What it took to ask the router.

    Attributes:
        prompts: How many prompts it was asked about.
        seconds: Time it took, for all of them.
    """

    prompts: int
    seconds: float


def policy_of(router: Router, threshold: float | None, on_error: OnError | None, time_limit: float | None) -> Policy:
    """The settings of one call: its own, and the router's where it has none.

    Raises:
        ThresholdError: The threshold is not a finite number, or there is none.
        ConfigurationError: Another setting cannot be used.
    """
    threshold = router.threshold if threshold is None else threshold
    if threshold is None:
        msg = (
            f"{type(router).__name__} has no default threshold; pass threshold= or set router.threshold "
            "to the score above which a prompt is worth the strong model"
        )
        raise ThresholdError(msg)
    time_limit = router.time_limit if time_limit is None else time_limit
    return Policy(
        threshold=as_threshold(threshold),
        on_error=as_on_error(router.on_error if on_error is None else on_error),
        time_limit=None if time_limit is None else as_time_limit(time_limit),
    )


def conclude(
    router: Router, outcome: Outcome[object], policy: Policy, asked: Asked, stats: RoutingStats | None
) -> list[RoutingDecision]:
    """Turn what the router answered, or how it failed, into one decision a prompt, and count them.

    Args:
        router: Who was asked, for the message.
        outcome: What it returned, or its failure.
        policy: The settings of the call.
        asked: How many prompts, and how long it took.
        stats: Where to count, if anywhere.

    Returns:
        The decisions, in the order of the prompts.

    Raises:
        RouterError: The router failed and the policy is to raise.
    """
    scores: list[float | None] = [None] * asked.prompts
    error = outcome.error if isinstance(outcome, Failure) else None
    if error is None:
        try:
            scores = _usable_scores(outcome, asked.prompts)
        except ScoreError as bad:
            error = bad
        else:
            error = _unusable(scores)
    if error is not None:
        _tell(router, error, policy, scores)
    decisions = [_decide(score, policy) for score in scores]
    if stats is not None:
        stats.record_many(decisions, asked.seconds / max(asked.prompts, 1))
    return decisions


def _tell(router: Router, error: BaseException, policy: Policy, scores: list[float | None]) -> None:
    """Raise or log a failure.

    Only prefroute's own words are told. Another exception's text may quote a prompt, which is private, or a
    key; whoever needs it finds it as the `__cause__` of a RouterError, or in the debug log.
    """
    failed = f"{type(router).__name__} failed: {error if isinstance(error, PrefrouteError) else type(error).__name__}"
    if policy.on_error == "raise":
        if isinstance(error, RouterError):
            raise error
        raise RouterError(failed) from error
    rest = "%s; %d of %d prompts go to the %s model"
    logger.warning(rest, failed, scores.count(None), len(scores), policy.on_error)
    logger.debug("the router's exception", exc_info=error)


def _decide(score: float | None, policy: Policy) -> RoutingDecision:
    if score is None:
        # "raise" has raised by now, so on_error names a side.
        route: Route = "weak" if policy.on_error == "weak" else "strong"
        return RoutingDecision(route=route, score=None, threshold=policy.threshold, reason="router_error")
    route = "strong" if score >= policy.threshold else "weak"
    return RoutingDecision(route=route, score=score, threshold=policy.threshold, reason="score")


def _usable_scores(outcome: Any, n: int) -> list[float | None]:
    """One float in [0, 1] a prompt, or None where the router gave something else there."""
    import numpy as np

    try:
        array = outcome if np.ma.isMA(outcome) else np.asarray(outcome)
        kind = array.dtype.kind
        if kind == "O" and any(isinstance(value, str | bytes) for value in array.flat):
            kind = "U"  # float("0.9") would work, but text is no number.
        if kind in _NUMBERS:
            # A masked array's masked entries hold leftovers, so they become NaN.
            array = np.ma.filled(array.astype(np.float64), np.nan)
    except Exception as error:
        # Any conversion that an object brings along may fail in any way.
        msg = f"win_probability must return {n} numbers, got {type(outcome).__name__}"
        raise ScoreError(msg) from error
    if kind not in _NUMBERS:
        msg = f"win_probability must return {n} numbers, got {type(outcome).__name__} of dtype {array.dtype}"
        raise ScoreError(msg)
    if array.shape != (n,):
        msg = f"win_probability must return shape ({n},), got {array.shape}"
        raise ScoreError(msg)
    return [score if 0.0 <= score <= 1.0 else _clipped(score) for score in array.tolist()]


def _clipped(score: float) -> float | None:
    return min(max(score, 0.0), 1.0) if -ROUNDING <= score <= 1.0 + ROUNDING else None


def _unusable(scores: list[float | None]) -> ScoreError | None:
    if None not in scores:
        return None
    return ScoreError(f"win_probability gave no number in [0, 1] for {scores.count(None)} of {len(scores)} prompts")
