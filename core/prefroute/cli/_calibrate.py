"""`prefroute calibrate`: a threshold for a strong-call rate, a quality or a budget, on prompts of one's own."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefroute._text import visible
from prefroute.cli._benchmark import (
    ColumnOptions,
    PriceOptions,
    a_thousand,
    is_swapped,
    read_data,
    read_prompt_file,
    unpriced,
)
from prefroute.cli._console import printable, show
from prefroute.cli._learning import check_output, needs, shows_progress
from prefroute.cli._options import with_options
from prefroute.errors import ConfigurationError, DataError
from prefroute.persistence import load_router, own_folder, save_calibration
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from prefroute.calibration import CalibratedThreshold, Calibration
    from prefroute.evaluation.benchmarks import Benchmark
    from prefroute.router import Router

ALL_STRONG_KEEPS = "no cheaper threshold can be shown to keep that quality: everything goes to the strong model"

_TARGETS = "--strong-rate, --quality or --budget"


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """What the threshold is to reach: exactly one of them."""

    strong_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Share of requests for the strong model, from 0 to 1.")
    ] = None
    quality: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Share of the strong model's mean quality to keep, with 95 % confidence; the prompts need qualities.",
        ),
    ] = None
    budget: Annotated[
        float | None,
        typer.Option(metavar="X", help="Most that 1,000 requests may cost, US dollars; needs prices or cost columns."),
    ] = None

    def __post_init__(self) -> None:
        """Refuse none, or several."""
        given = [name for name in ("strong_rate", "quality", "budget") if getattr(self, name) is not None]
        if len(given) > 1:
            msg = f"give one of {_TARGETS}, got {len(given)} of them"
            raise ConfigurationError(msg)

    def check(self) -> None:
        """Refuse a figure that cannot be reached by any threshold.

        Raises:
            ConfigurationError: Says which.
        """
        if self.strong_rate is not None:
            from prefroute.calibration import as_strong_rate

            as_strong_rate(self.strong_rate)
        if self.quality is not None:
            from prefroute.targets import as_quality

            as_quality(self.quality)
        if self.budget is not None and not (math.isfinite(self.budget) and self.budget > 0):
            msg = f"--budget must be US dollars for 1,000 requests, above 0; got {self.budget:g}"
            raise ConfigurationError(msg)

    @property
    def needs_answers(self) -> bool:
        """Whether prompts alone are not enough."""
        return self.quality is not None or self.budget is not None


@with_options
def calibrate(
    router: Annotated[str, typer.Argument(metavar="ROUTER", help="A saved router; or default, random, prompt-length.")],
    target: TargetOptions,
    columns: ColumnOptions,
    prices: PriceOptions,
    *,
    prompts: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Prompts as the router will meet them: CSV, JSON lines or Parquet, or .txt with one a line.",
            exists=True,
            dir_okay=False,
        ),
    ],
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="Also map scores to probabilities that fit the qualities; decisions stay the same."
        ),
    ] = False,
    strong: Annotated[
        str | None, typer.Option(metavar="COL", help="Quality of the strong model's answer, or with prices its name.")
    ] = None,
    weak: Annotated[str | None, typer.Option(metavar="COL", help="The same of the weak model.")] = None,
    next_prompts: Annotated[
        int | None,
        typer.Option("--next", min=1, metavar="N", help="Prompts to come that the interval is for; else as many."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Folder for the calibrated router; else where it lies."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Draws the folds of --probabilities.")] = 0,
) -> None:
    """Set a router's threshold by your own prompts, and save it with the router."""
    _check(target, probabilities=probabilities, strong=strong, weak=weak)
    _check_unused(target, columns, prices, {"--strong": strong, "--weak": weak}, probabilities=probabilities)
    if output is not None:
        check_output(output)
    if probabilities:
        needs("sklearn", "calibrating probabilities", "eval")
    chosen = load_router(router)
    benchmark, texts = _sample(target, columns, prompts, (strong, weak), chosen, probabilities=probabilities)
    from prefroute._scoring import score_prompts
    from prefroute.calibration import Calibration
    from prefroute.routers.calibrated import CalibratedRouter

    told: dict[str, Any] = {}
    if probabilities and benchmark is not None:
        chosen, told["probabilities"] = _with_probabilities(chosen, benchmark, seed)
    found = None
    if target.strong_rate is not None or target.needs_answers:
        scores = score_prompts(chosen, texts, progress=shows_progress())
        calibration = Calibration(scores)
        rank, reached = (None, {}) if benchmark is None else rank_for(target, scores, benchmark, prices)
        found = threshold_of(target, calibration, rank, next_prompts)
    if found is not None:
        chosen.calibration, chosen.threshold = calibration, found.threshold
        told = {**found.as_dict(), **reached, **told}
    told["saved"] = _save(chosen, router, output, whole=probabilities and isinstance(chosen, CalibratedRouter))
    _tell(target, found, told, as_json=as_json)


def _check(target: TargetOptions, *, probabilities: bool, strong: str | None, weak: str | None) -> None:
    if target.strong_rate is None and not target.needs_answers and not probabilities:
        msg = f"say what to calibrate for: {_TARGETS}, or --probabilities"
        raise ConfigurationError(msg)
    target.check()
    if (target.needs_answers or probabilities) and (strong is None or weak is None):
        what = "--quality and --probabilities need" if target.budget is None else "--budget needs"
        msg = f"{what} --strong and --weak: the columns of both models' qualities, or the models' names in the prices"
        raise ConfigurationError(msg)


def _check_unused(
    target: TargetOptions,
    columns: ColumnOptions,
    prices: PriceOptions,
    names: dict[str, str | None],
    *,
    probabilities: bool,
) -> None:
    """Refuse options that say nothing here, before somebody relies on them."""
    wanted = "--budget"
    if target.budget is not None:
        return
    given = cost_options(columns, prices)
    if not probabilities and target.quality is None:
        given, wanted = given | names, "--quality, --budget or --probabilities"
    refuse_unused(given, wanted)


def cost_options(columns: ColumnOptions, prices: PriceOptions) -> dict[str, Any]:
    """Options that tell what answers cost, by name."""
    named = {name: getattr(prices, name) for name in ("prices", "input_tokens", "output_tokens")}
    named |= {f"{name}_column": column for name, column in columns.numbers.items()}
    return {f"--{name}".replace("_", "-"): value for name, value in named.items()}


def refuse_unused(given: dict[str, Any], wanted: str) -> None:
    """Refuse options that say nothing without another.

    Raises:
        ConfigurationError: One of them is given.
    """
    said = [name for name, value in given.items() if value is not None]
    if said:
        msg = f"{', '.join(said)} says nothing without {wanted}; leave it out"
        raise ConfigurationError(msg)


def known_costs(prices: PriceOptions, benchmark: Benchmark) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the answers of both models cost.

    Raises:
        DataError: That is not known; says what is missing.
    """
    costs = prices.costs(benchmark)
    if costs.strong is None or costs.weak is None:
        raise DataError(unpriced(costs, prices, benchmark))
    return costs.strong, costs.weak


def _answers(path: Path, strong: str | None, weak: str | None, columns: ColumnOptions, *, quality: bool) -> Benchmark:
    """Prompts with what is known of both models' answers."""
    from prefroute.evaluation.benchmarks import Benchmark

    pair = ModelPair(strong=(strong or "").strip(), weak=(weak or "").strip())
    if quality or columns.numbers:
        return read_data([path], pair, columns, progress=shows_progress())
    import numpy as np

    texts = _prompts(path, columns)
    # Costs alone are asked for; nothing is known of quality.
    nothing = np.zeros(len(texts))
    return Benchmark(name=path.name, pair=pair, prompts=tuple(texts), strong=nothing, weak=nothing)


def _with_probabilities(router: Router, benchmark: Benchmark, seed: int) -> tuple[Router, dict[str, Any]]:
    from prefroute.evaluation.reliability import outcomes_of
    from prefroute.routers.calibrated import CalibratedRouter

    made, fitted = CalibratedRouter.fit(router, benchmark.prompts, outcomes_of(benchmark.gains), seed=seed)
    # Scores that no map betters stay as they are, and so does the kind of router.
    is_plain = fitted.calibration.method == "none" and not isinstance(router, CalibratedRouter)
    return router if is_plain else made, fitted.as_dict()


def _sample(
    target: TargetOptions,
    columns: ColumnOptions,
    path: Path,
    names: tuple[str | None, str | None],
    router: Router,
    *,
    probabilities: bool,
) -> tuple[Benchmark | None, list[str]]:
    """The prompts, with what is known of both models' answers where that is needed."""
    judged = target.quality is not None or probabilities
    benchmark = _answers(path, *names, columns, quality=judged) if judged or target.needs_answers else None
    if benchmark is not None and judged:
        _check_sides(router, benchmark)
        benchmark = _unseen(router, benchmark)
        return benchmark, list(benchmark.prompts)
    texts = _prompts(path, columns) if benchmark is None else list(benchmark.prompts)
    if learnt := int(_learnt(router, texts).sum()):
        sys.stderr.write(
            f"prefroute: warning: the router learnt from {learnt:,} of these {len(texts):,} prompts; it may score "
            "others differently, so calibrate with prompts that it has not seen\n"
        )
    return benchmark, texts


def _learnt(router: Router, texts: Sequence[str]) -> NDArray[np.bool_]:
    """Prompts that the router learnt from; those that only a map of its scores was fitted on are none."""
    import numpy as np

    from prefroute.data import seen_prompts
    from prefroute.routers.calibrated import CalibratedRouter

    known = (router.router if isinstance(router, CalibratedRouter) else router).training_prompts
    return np.zeros(len(texts), dtype=bool) if known is None else seen_prompts(texts, known)


def _check_sides(router: Router, benchmark: Benchmark) -> None:
    """Refuse models the wrong way round: all weak would then keep more than all of the quality."""
    pair = benchmark.pair
    if is_swapped(router, pair):
        msg = f"the router was trained with {pair.weak} as the strong model; --strong and --weak are swapped"
        raise ConfigurationError(msg)
    check_order(benchmark)


def check_order(benchmark: Benchmark) -> None:
    """Refuse a strong model that does worse.

    Raises:
        DataError: It does.
    """
    pair, strong, weak = benchmark.pair, float(benchmark.strong.mean()), float(benchmark.weak.mean())
    if strong < weak:
        msg = (
            f"{pair.strong} does worse here than {pair.weak}, {strong:.4g} against {weak:.4g}, so the weak model alone "
            "would do; are --strong and --weak swapped?"
        )
        raise DataError(msg)


def _unseen(router: Router, benchmark: Benchmark) -> Benchmark:
    """The prompts that the router did not learn from: what it recovers of others is better than it will do."""
    seen = _learnt(router, benchmark.prompts)
    if seen.all():
        msg = "the router learnt from every one of these prompts; --quality and --probabilities need others"
        raise DataError(msg)
    if seen.any():
        sys.stderr.write(f"prefroute: warning: the router learnt from {int(seen.sum()):,} prompts; they are left out\n")
    return benchmark.rows(~seen)


def _prompts(path: Path, columns: ColumnOptions) -> list[str]:
    return read_prompt_file(path, columns.prompt_column, turn=columns.turn, on_bad_row=columns.on_bad_row)


def rank_for(
    target: TargetOptions, scores: NDArray[np.float64], benchmark: Benchmark, prices: PriceOptions
) -> tuple[int | None, dict[str, Any]]:
    """How many of the prompts go strong, and what that reaches; None where a rate says it."""
    from prefroute.targets import rank_for_budget, rank_for_quality

    if target.quality is not None:
        kept = rank_for_quality(scores, benchmark.strong, benchmark.weak, target.quality)
        return kept.rank, {"quality": kept.quality, "quality_wanted": target.quality}
    if target.budget is None:
        return None, {}
    paid = rank_for_budget(scores, *known_costs(prices, benchmark), target.budget / 1000.0)
    return paid.rank, {"cost": paid.cost}


def threshold_of(
    target: TargetOptions, calibration: Calibration, rank: int | None, next_prompts: int | None
) -> CalibratedThreshold | None:
    """The threshold that sends so many of the sample strong, or the wanted share; None where neither is asked for."""
    if rank is not None and 0 < rank < len(calibration):
        return calibration.at_rank(rank, next_prompts=next_prompts)
    if rank is not None:  # All or none of them: then of what is to come, too.
        return calibration.threshold_for(float(rank > 0), next_prompts=next_prompts)
    if target.strong_rate is not None:
        return calibration.threshold_for(target.strong_rate, next_prompts=next_prompts)
    return None


def tied(found: CalibratedThreshold, strong_rate: float) -> str:
    """That ties keep a wanted rate from being reached."""
    return (
        f"{found.tied:,} prompts share the score where {strong_rate:.1%} would be cut; prompts of one score go the "
        f"same way, so the rate is {found.sample_rate:.1%} here"
    )


def _save(router: Router, name: str, output: Path | None, *, whole: bool) -> str | None:
    """Write the calibration where the router lies, or the whole router to another folder."""
    own = own_folder(name)
    place = own if output is None else output
    if place is None:
        return None
    if own is not None and not whole and place.resolve() == own.resolve():
        save_calibration(router, own)
    else:
        router.save_pretrained(place)
    return str(place)


def _tell(target: TargetOptions, found: CalibratedThreshold | None, told: dict[str, Any], *, as_json: bool) -> None:
    for warning in _warnings(target, found, told):
        sys.stderr.write(f"prefroute: warning: {printable(warning)}\n")
    if as_json:
        typer.echo(json.dumps(told, allow_nan=False))
        return
    if found is not None:
        rate = f"about {found.strong_rate:.1%} strong calls on traffic like these {found.n:,} prompts"
        show(f"threshold {found.threshold:.6g}: {rate}")
        show(f"95 % of the time {found.low:.1%} to {found.high:.1%} of the next {found.next_prompts:,}")
    if "quality" in told:
        kept = f"keeps {told['quality']:.1%} of the strong model's quality on these prompts"
        show(f"{kept}; with 95 % confidence at least {told['quality_wanted']:.1%} on traffic like them")
    if "cost" in told:
        show(f"1,000 requests cost {a_thousand(told['cost'])}, without what the router itself costs")
    if "probabilities" in told:
        item = told["probabilities"]
        errors = f"{item['ece_before']:.3f} before, {item['ece_after']:.3f} after"
        kept = "no map is better: scores stay as they are" if item["method"] == "none" else item["method"]
        show(f"probabilities: {kept}; expected calibration error {errors}")
    if told["saved"] is not None:
        show(f"saved     {visible(told['saved'])}")


def _warnings(target: TargetOptions, found: CalibratedThreshold | None, told: dict[str, Any]) -> list[str]:
    from prefroute.calibration import WITHIN, prompts_needed

    warnings = []
    if told["saved"] is None:
        warnings.append("nothing is saved: this router has no folder of yours; name one with --output")
    if found is None:
        return warnings
    if target.quality is not None and found.sample_rate == 1.0:
        warnings.append(ALL_STRONG_KEEPS)
    if target.strong_rate is not None and found.tied:
        warnings.append(tied(found, target.strong_rate))
    if max(found.high - found.strong_rate, found.strong_rate - found.low) > WITHIN:
        needed = prompts_needed(found.strong_rate if target.strong_rate is None else target.strong_rate)
        if needed > found.n:
            warnings.append(
                f"{found.n:,} prompts leave the rate open from {found.low:.1%} to {found.high:.1%}; to be within "
                f"{WITHIN:.0%} takes about {needed:,}"
            )
    return warnings
