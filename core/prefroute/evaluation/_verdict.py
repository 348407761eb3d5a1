"""What an evaluation says, in sentences that claim no more than its tests and intervals bear."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from prefroute.evaluation._format import between, change, count, counted, listed, named, number, percent, quality
from prefroute.evaluation.metrics import average_quality
from prefroute.evaluation.resampling import CONFIDENCE, interval
from prefroute.evaluation.results import LENGTH, LEVELS, ORACLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from prefroute.evaluation.results import Evaluation, Figures, PairedComparison, RouterResult

Tone: TypeAlias = Literal["good", "bad", "open"]
"""How a sentence is coloured; its words say the same."""

Standing: TypeAlias = Literal["better", "worse", "open"]
"""How the first of two stands to the second."""

FEW_PROMPTS = 100
"""Fewer different prompts than that are called few."""

FEWEST_LEFT = 30
"""Prompts that must be left of more for a router to be drawn and ranked beside others."""

_AGAINST_RANDOM = {
    "yes": "beats random routing",
    "no": "does worse than random routing",
    "cannot tell": "cannot be told from random routing on {prompts}",
}
_AGAINST_LENGTH = {
    ("yes", "better"): ", and also routing by prompt length",
    ("yes", "open"): ", but cannot be told from routing by prompt length",
    ("yes", "worse"): ", but does worse than routing by prompt length",
    ("no", "better"): ", but beats routing by prompt length",
    ("no", "open"): ", and cannot be told from routing by prompt length",
    ("no", "worse"): ", and also worse than routing by prompt length",
    ("cannot tell", "better"): ", but beats routing by prompt length",
    ("cannot tell", "open"): ", nor from routing by prompt length",
    ("cannot tell", "worse"): ", and does worse than routing by prompt length",
}
_BADGES: dict[str, tuple[Tone, str]] = {
    "yes": ("good", "Better than chance"),
    "no": ("bad", "Worse than chance"),
    "cannot tell": ("open", "Cannot tell"),
}


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A sentence about the whole evaluation.

    Attributes:
        tone: How it is coloured.
        text: The sentence.
    """

    tone: Tone
    text: str


@dataclass(frozen=True, kw_only=True)
class RouterVerdict:
    """What is said of one router.

    Attributes:
        name: Of the router, as given.
        tone: How it is coloured.
        badge: The verdict in two or three words.
        sentence: The verdict; goes on where the name ends.
        evidence: Sentences with the figures behind it.
        cautions: Sentences on why to trust it less.
    """

    name: str
    tone: Tone
    badge: str
    sentence: str
    evidence: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()


def routers_of(evaluation: Evaluation) -> list[RouterResult]:
    """Those that were asked for, without the baselines."""
    return [result for result in evaluation.results.values() if not result.is_baseline]


def measured_of(evaluation: Evaluation) -> list[RouterResult]:
    """Those that figures are drawn of: a curve of the few prompts that overlap has left would look too sure."""
    return [
        result
        for result in routers_of(evaluation)
        if result.figures is not None and (result.n_used >= FEWEST_LEFT or bool(result.used.all()))
    ]


def verdicts(evaluation: Evaluation, groups: NDArray[np.int64]) -> list[RouterVerdict]:
    """What is said of each router.

    Args:
        evaluation: What was measured.
        groups: Of its benchmark, which takes a while to find.

    Returns:
        One a router, in the order asked for.
    """
    return [_verdict(evaluation, result, len(np.unique(groups[result.used]))) for result in routers_of(evaluation)]


def _verdict(evaluation: Evaluation, result: RouterResult, different: int) -> RouterVerdict:
    figures, cautions = result.figures, tuple(_cautions(evaluation, result, different))
    if figures is None:
        why = "no prompt is left that it was not trained on" if result.n_overlap else "it scored none of the prompts"
        return RouterVerdict(
            name=result.name, tone="open", badge="Not measured", sentence=f"was not measured: {why}.", cautions=cautions
        )
    prompts = f"{'this' if result.n_used == 1 else 'these'} {counted(result.n_used, 'prompt')}"
    compared = evaluation.comparison(result.name, LENGTH)
    standing = None if compared is None else standing_of(evaluation, compared, result.name)
    found = figures.better_than_random
    sentence = _AGAINST_RANDOM[found].format(prompts=prompts)
    sentence += _AGAINST_LENGTH[found, standing] if standing else ""
    tone, badge = _BADGES[found]
    evidence = [_recovered(figures), _calls(figures)] if math.isfinite(figures.apgr) else [_no_gap(figures)]
    if compared is not None and math.isfinite(compared.result.difference):
        evidence.append(_against_length(compared, result.name))
    if result.n_overlap and evaluation.kept_overlap:
        tone, badge = "bad", "Trained on these prompts"
    elif result.n_overlap:
        evidence.append(_left_out(result))
    return RouterVerdict(
        name=result.name,
        tone=tone,
        badge=badge,
        sentence=f"{sentence}.",
        evidence=tuple(evidence),
        cautions=cautions,
    )


def statements(evaluation: Evaluation, groups: NDArray[np.int64]) -> list[Statement]:
    """What is said of the evaluation as a whole: training data in it, the two models, and which router is best.

    Args:
        evaluation: What was measured.
        groups: Of its benchmark, which takes a while to find.

    Returns:
        One to three sentences.
    """
    few = len(np.unique(groups)) < FEW_PROMPTS
    found = [_kept(evaluation), _models(evaluation, few=few), _best(evaluation, few=few)]
    return [statement for statement in found if statement is not None]


def standing_of(evaluation: Evaluation, item: PairedComparison, name: str, *, tests: int = 1) -> Standing:
    """How one of the two compared stands to the other.

    Args:
        evaluation: What the comparison is of.
        item: The comparison.
        name: Of the one.
        tests: How many such comparisons the claim rests on (Bonferroni).

    Returns:
        `open` where the test does not tell them apart.
    """
    if item.result.p_value * tests > 1.0 - CONFIDENCE:
        return "open"
    first, second = (evaluation.results[one] for one in (item.first, item.second))
    both, benchmark = first.used & second.used, evaluation.benchmark
    # The difference of APGR has this sign wherever there is a gap, and is not defined elsewhere.
    areas = [
        average_quality(result.scores[both], benchmark.strong[both], benchmark.weak[both]) for result in (first, second)
    ]
    ahead = areas[0] > areas[1] if name == item.first else areas[1] > areas[0]
    return "better" if ahead else "worse"


def smallest_p(resamples: int) -> float:
    """The least that `compare` gives with so many resamples."""
    return 2.0 / (1.0 + resamples)


def _recovered(figures: Figures) -> str:
    ends = between(figures.apgr_low, figures.apgr_high)
    return (
        f"On average it recovers {percent(figures.apgr)} of the quality gap "
        f"(APGR {number(figures.apgr)}, 95 % interval {ends}); random routing recovers {percent(0.5)}."
    )


def _calls(figures: Figures) -> str:
    parts = []
    for name, level in LEVELS.items():
        low, high = getattr(figures, f"{name}_low"), getattr(figures, f"{name}_high")
        ends = between(low, high, percent)
        parts.append(f"{percent(level)} of it takes {percent(getattr(figures, name))} strong calls ({ends})")
    return f"Recovering {', and '.join(parts)}; random routing needs {percent(0.5)} and {percent(0.8)}."


def _against_length(item: PairedComparison, name: str) -> str:
    found = item.seen_from(name)
    return (
        f"Against prompt length its APGR differs by {change(found.difference)} "
        f"(95 % interval {between(found.low, found.high, change)}, on {counted(item.n, 'prompt')})."
    )


def _no_gap(figures: Figures) -> str:
    picks = {"yes": "better", "no": "worse"}.get(figures.better_than_random)
    still = f" Yet it picks {picks} prompts for the strong model than chance does." if picks else ""
    return (
        "The strong model is not better on these prompts "
        f"(mean quality {quality(figures.quality_strong)}, the weak one's {quality(figures.quality_weak)}): "
        f"there is no gap to recover, so APGR and the shares of strong calls are not defined.{still}"
    )


def _left_out(result: RouterResult) -> str:
    overlap = result.n_overlap or 0
    left = f"{counted(overlap, 'prompt')} that it was trained on {'is' if overlap == 1 else 'are'} left out"
    return f"{left}; it is measured on the other {count(result.n_used)}."


def _cautions(evaluation: Evaluation, result: RouterResult, different: int) -> list[str]:
    found: list[str] = []
    figures, overlap = result.figures, result.n_overlap
    if figures is None:
        return found
    if overlap is None:
        found.append(
            "It is not known which prompts it was trained on. If these are among them, its figures are too good."
        )
    elif overlap and evaluation.kept_overlap:
        found.append(
            f"Trained on {count(overlap)} of the {counted(len(result.used), 'prompt')} it is measured on: "
            "its figures are too good."
        )
    if different < FEW_PROMPTS:
        found.append(f"Only {counted(different, 'different prompt')}: too few to rely on.")
    if math.isfinite(figures.apgr) and not (math.isfinite(figures.apgr_low) and math.isfinite(figures.apgr_high)):
        found.append(
            "The interval has no bound: drawn again by chance, such prompts often show no lead of the strong model."
        )
    return found


def _kept(evaluation: Evaluation) -> Statement | None:
    learnt = [result.name for result in evaluation.results.values() if result.n_overlap]
    if not evaluation.kept_overlap or not learnt:
        return None
    text = f"Training prompts are counted here, as was asked: the figures of {listed(learnt)} are too good."
    return Statement(tone="bad", text=text)


def _models(evaluation: Evaluation, *, few: bool) -> Statement:
    benchmark = evaluation.benchmark
    strong, weak, pair = float(benchmark.strong.mean()), float(benchmark.weak.mean()), benchmark.pair
    qualities = f"mean quality {quality(strong)} against {quality(weak)}"
    known = evaluation.results.get(ORACLE)
    if known is None or known.resampled is None or known.figures is None:
        return Statement(tone="open", text=f"{named(pair.strong)} and {named(pair.weak)}: {qualities}.")
    if not math.isfinite(known.figures.apgr):
        text = f"{named(pair.strong)} is not better than {named(pair.weak)} here ({qualities}): no gap to recover."
        return Statement(tone="bad", text=text)
    low, high = interval(known.resampled.gaps)
    gap = f"a gap of {quality(strong - weak)}, 95 % interval {between(low, high, quality)}"
    if low > 0 and few:
        text = f"{named(pair.strong)} is ahead of {named(pair.weak)} on these few prompts: {qualities}, {gap}."
        return Statement(tone="open", text=text)
    if low > 0:
        return Statement(
            tone="good", text=f"{named(pair.strong)} is better than {named(pair.weak)}: {qualities}, {gap}."
        )
    text = f"{named(pair.strong)} is ahead of {named(pair.weak)}, but that may be chance: {qualities}, {gap}."
    return Statement(tone="open", text=text)


def _best(evaluation: Evaluation, *, few: bool) -> Statement | None:
    """A router is called best only where it beats each other one, the tests being as many as the others."""
    names = [result.name for result in measured_of(evaluation)]
    others = len(names) - 1
    if others < 1:
        return None
    beats: dict[str, set[str]] = {name: set() for name in names}
    for item in evaluation.comparisons:
        if {item.first, item.second} <= beats.keys():
            standing = standing_of(evaluation, item, item.first, tests=others)
            if standing != "open":
                winner, loser = (item.first, item.second) if standing == "better" else (item.second, item.first)
                beats[winner].add(loser)
    best = next((name for name in names if len(beats[name]) == others), None)
    if best is None:
        return Statement(tone="open", text=_undecided(names, beats, evaluation.resamples))
    whom = "the other router" if others == 1 else f"each of the other {others} routers"
    text = f"{named(best)} is the best: it beats {whom} in paired comparison on the same prompts."
    return _doubted(evaluation, evaluation.results[best], text, few=few)


def _doubted(evaluation: Evaluation, best: RouterResult, text: str, *, few: bool) -> Statement:
    """The claim, and what speaks against it."""
    is_trained_on = bool(best.n_overlap) and evaluation.kept_overlap
    doubts = {
        "But it was trained on some of these prompts, so that shows little.": is_trained_on,
        "That holds only if it was not trained on these prompts.": best.n_overlap is None,
        "With so few prompts that shows little.": few,
        "It is not shown to beat random routing, though.": (
            best.figures is None or best.figures.better_than_random != "yes"
        ),
    }
    found = [doubt for doubt, holds in doubts.items() if holds]
    return Statement(tone="bad" if is_trained_on else "open" if found else "good", text=" ".join([text, *found]))


def _undecided(names: Sequence[str], beats: dict[str, set[str]], resamples: int) -> str:
    if smallest_p(resamples) * (len(names) - 1) > 1.0 - CONFIDENCE:
        few = f"{count(resamples)} resamples are too few to compare {len(names)} routers"
        return f"No router is shown to be the best: {few}."
    unbeaten = [name for name in names if not any(name in others for others in beats.values())]
    if len(unbeaten) == len(names):
        return f"The {len(names)} routers cannot be told apart on these prompts."
    if len(unbeaten) > 1:
        return (
            f"No router is shown to be the best: {listed(unbeaten)} cannot be told apart; "
            "each other router is beaten by at least one."
        )
    ahead = f": only {named(unbeaten[0])} is beaten by no other" if unbeaten else ""
    return f"No router is shown to be the best{ahead}."
