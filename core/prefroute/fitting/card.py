"""What is said of a fitted router, in sentences and as the card that is saved with it. Pure functions."""

from __future__ import annotations

import math
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from prefroute._text import visible
from prefroute._version import __version__
from prefroute.evaluation._format import between, counted, number, quality
from prefroute.evaluation._verdict import standing_of
from prefroute.evaluation.results import LENGTH, LEVELS
from prefroute.fitting.settling import WORTHWHILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prefroute.evaluation.results import Figures, RouterResult
    from prefroute.fitting.fit import FittedRouter

_MARKUP = re.compile(r"[\\`*_<>|#\[\]]")

CARD_FILE = "README.md"

_PACKAGES = ("numpy", "scikit-learn", "torch", "transformers", "sentence-transformers")

_BESIDE = {
    "better": "better than prompt length alone",
    "worse": "worse than prompt length alone",
    "open": "cannot be told from prompt length alone",
}


def verdict(fitted: FittedRouter) -> str:
    """Whether it beats random routing, and prompt length, in one line."""
    if not fitted.is_measurable:
        pair = fitted.evaluation.benchmark.pair
        return f"none: {visible(pair.strong)} does no better than {visible(pair.weak)}, so there is nothing to recover"
    prompts = counted(fitted.evaluation.benchmark.different, "prompt")
    found = "better than random" if fitted.beats_random else f"cannot be told from random with {prompts}"
    compared = fitted.evaluation.comparison(fitted.name, LENGTH)
    if compared is None:
        return found
    return f"{found}; {_BESIDE[standing_of(fitted.evaluation, compared, fitted.name)]}"


def what_would_settle(fitted: FittedRouter) -> list[str]:
    """How many labels would tell the router from chance, in sentences; none where it is told already."""
    wanted = fitted.settling
    if wanted is None:
        return []
    have = fitted.evaluation.benchmark.different
    pair = fitted.evaluation.benchmark.pair
    if not math.isfinite(wanted.ceiling):
        return [f"{visible(pair.strong)} does no better on these {have:,} prompts; no number of labels can be named"]
    if wanted.ceiling < 0.5 + WORTHWHILE:
        alike = f"{visible(pair.strong)} is better on nearly all of these {have:,} prompts alike"
        return [f"{alike}: perfect routing gets no more than APGR {wanted.ceiling:.3f}, so send everything to it"]
    if wanted.worthwhile is None:
        why = "the strong model is not clearly better on them, or all get the same score"
        return [f"these {have:,} prompts do not bound the APGR ({why}), so no number of labels can be named"]
    told = []
    if wanted.seen is not None:
        told.append(
            f"an advantage as large as the one seen (APGR {fitted.figures.apgr:.3f}) shows with about "
            f"{wanted.seen:,} labelled prompts in all, 4 times of 5{_more(wanted.seen, have)}"
        )
    told.append(
        f"one of APGR {0.5 + WORTHWHILE:.2f}, about what is worth having, with about {wanted.worthwhile:,}"
        f"{_more(wanted.worthwhile, have)}"
    )
    return told


def card_of(fitted: FittedRouter, *, sources: Sequence[str] = ()) -> str:
    """The card, as Markdown.

    Args:
        fitted: The router and what is known of it.
        sources: What the prompts came from, names of files say.

    Returns:
        The text. It holds no prompt.
    """
    benchmark = fitted.evaluation.benchmark
    strong, weak = _cell(benchmark.pair.strong), _cell(benchmark.pair.weak)
    parts = [
        f"# A router between {strong} and {weak}",
        (
            f"P({strong} answers better), however little better, fitted by `prefroute fit`: {_cell(fitted.chosen)}. "
            "What it learnt is by how much."
        ),
        "## Data",
        *_data(fitted, sources),
        "## What it does",
        *_figures(fitted),
        "## How it was chosen",
        *_choice(fitted),
        "## Threshold and probabilities",
        *_calibration(fitted),
        "## Limits",
        *_limits(fitted),
        "## Versions",
        _versions(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _data(fitted: FittedRouter, sources: Sequence[str]) -> list[str]:
    benchmark, gains = fitted.evaluation.benchmark, fitted.evaluation.benchmark.gains
    rows = f"{counted(len(benchmark), 'judged prompt')}, {benchmark.different:,} of them different"
    left = f"; {benchmark.removed:,} excluded" if benchmark.removed else ""
    return [
        f"{rows}{f', from {_joined(sources)}' if sources else ''}{left}.",
        _table(
            ("", "prompts", "mean quality"),
            [
                (f"{benchmark.pair.strong} better", f"{int((gains > 0).sum()):,}", quality(benchmark.strong.mean())),
                ("equally good", f"{int((gains == 0).sum()):,}", ""),
                (f"{benchmark.pair.weak} better", f"{int((gains < 0).sum()):,}", quality(benchmark.weak.mean())),
            ],
        ),
    ]


def _figures(fitted: FittedRouter) -> list[str]:
    results = [
        _row(result, result.figures) for result in fitted.evaluation.results.values() if result.figures is not None
    ]
    head = ("router", "APGR (95 %)", *(f"CPT {level:.0%}" for level in LEVELS.values()), "beats random")
    return [
        f"**{verdict(fitted).capitalize()}.**",
        (
            f"Cross-fitted in {fitted.folds} folds (seed {fitted.seed}): each prompt is scored by a router that was "
            "fitted without its label, and chosen by the held-out scores of the other folds. APGR is the share of the "
            "quality gap recovered, averaged over all shares of strong calls; random routing gets 0.500. CPT is the "
            "share of strong calls that recovers so much of the gap. "
            f"Intervals are of {fitted.evaluation.resamples:,} resamples of the prompts."
        ),
        _table(head, results),
        *_curve(fitted),
        "\n".join(f"* {sentence}." for sentence in what_would_settle(fitted)),
    ]


def _row(result: RouterResult, figures: Figures) -> tuple[str, ...]:
    shares = [_percent(getattr(figures, level)) for level in LEVELS]
    area = f"{number(figures.apgr)} ({between(figures.apgr_low, figures.apgr_high)})"
    return (result.name, area, *shares, result.against_random)


def _curve(fitted: FittedRouter) -> list[str]:
    if not fitted.curve:
        return []
    rows = [(f"{point.prompts:,}", number(point.apgr)) for point in fitted.curve]
    return [
        "What was chosen, with fewer labels, on the same prompts (one draw each; no interval is narrower than above):",
        _table(("prompts learnt from", "APGR"), rows),
    ]


def _choice(fitted: FittedRouter) -> list[str]:
    rows = [
        (item.name, f"{item.loss:.4f}", f"{item.behind:.4f} ± {item.error:.4f}", number(item.apgr))
        for item in sorted(fitted.tried, key=lambda item: item.loss)
    ]
    return [
        "By the least log loss on prompts kept out; what a kind leaves open, it chooses within its training prompts.",
        _table(("candidate", "log loss", "behind the best", "APGR"), rows),
        *(f"* Left out: {_cell(name)}: {_cell(reason)}" for name, reason in fitted.left_out.items()),
    ]


def _calibration(fitted: FittedRouter) -> list[str]:
    found, map_ = fitted.threshold, fitted.probabilities
    how = "as they come" if map_.calibration.method == "none" else f"mapped by {map_.calibration.method} scaling"
    return [
        (
            f"The default threshold is {found.threshold:.6g}: about {found.strong_rate:.0%} strong calls. It and every "
            "other rate are read off the cross-fitted scores. Those of this router, which learnt from all prompts, lie "
            "a little elsewhere, so rates are off by some points, more with fewer labels; `prefroute calibrate` with "
            "prompts of your traffic, labels not needed, gives rates with an interval that holds."
        ),
        (
            f"Scores are {how}; expected calibration error {map_.ece_before:.3f} before, {map_.ece_after:.3f} after, "
            f"and about {_perfect_error(map_.n):.3f} for perfect probabilities of {map_.n:,} prompts."
        ),
    ]


def _limits(fitted: FittedRouter) -> list[str]:
    strong, weak = (
        _cell(name) for name in (fitted.evaluation.benchmark.pair.strong, fitted.evaluation.benchmark.pair.weak)
    )
    told = [
        "It holds for prompts like those it learnt from. On other traffic routers fall to about chance.",
        f"It knows {strong} and {weak} as they answered then; label anew when either changes.",
        "It saw the prompt alone: no history, no documents.",
        (
            "Prompts were taken for independent of each other but for their spelling. If many are variations of one "
            "another (a template, one person's tries), all intervals are too narrow and the figures too good."
        ),
    ]
    if not fitted.beats_random:
        told.insert(0, "**It is not shown to be any better than a coin. Do not rely on it.**")
    if not math.isfinite(fitted.figures.apgr):
        told.insert(0, f"{strong} did no better than {weak} on these prompts: there is nothing to recover.")
    return ["\n".join(f"* {sentence}" for sentence in told)]


def _versions() -> str:
    own = [f"prefroute {__version__}", f"Python {platform.python_version()}"]
    return ", ".join([*own, *(f"{name} {found}" for name in _PACKAGES if (found := _version(name)) is not None)]) + "."


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _perfect_error(prompts: int) -> float:
    """About what chance alone makes of perfect probabilities: docs/calibration.md simulates it."""
    return 1.0 / math.sqrt(prompts)


def _more(wanted: int, have: int) -> str:
    return f", {wanted - have:,} more" if wanted > have else ", which there are"


def _percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "-"


def _joined(names: Iterable[str]) -> str:
    return ", ".join(f"`{_cell(name)}`" for name in names)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Names are foreign: none may break the table, or become markup."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", visible(" ".join(text.split())))
