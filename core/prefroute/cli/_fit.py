"""`prefroute fit`: from judged prompts to one calibrated router with its card."""

from __future__ import annotations

import json
import math
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from prefroute._text import plain, visible
from prefroute.cli._benchmark import ColumnOptions, PriceOptions, a_thousand, excluded, read_data
from prefroute.cli._calibrate import (
    ALL_STRONG_KEEPS,
    TargetOptions,
    check_order,
    cost_options,
    known_costs,
    rank_for,
    refuse_unused,
    threshold_of,
    tied,
)
from prefroute.cli._console import printable, show
from prefroute.cli._learning import check_output, needs, shows_progress
from prefroute.cli._options import SeedOption, with_options
from prefroute.errors import ConfigurationError
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from rich.table import Table

    from prefroute.evaluation.benchmarks import Benchmark
    from prefroute.fitting import FittedRouter
    from prefroute.training import BertConfig

_ELSEWHERE = 0.1
"""Share of strong calls by which the finished router may differ from its held-out scores on its own prompts."""

REPORT_FOLDER = "report"
"""Where the report goes in the router's folder."""


@dataclass(frozen=True, kw_only=True)
class CandidateOptions:
    """What is tried."""

    router: Annotated[
        list[str] | None,
        typer.Option(
            "--router",
            metavar="KIND",
            help=(
                "A kind to try: prompt-length, similarity-weighted, knn, logistic-regression; and when asked "
                "matrix-factorization (torch), bert. Repeat it; else the first four."
            ),
        ),
    ] = None
    embedder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=(
                "static, minilm, sentence-transformers:ID, openai:MODEL, a folder, or several joined by +; the surface "
                "of the prompt stands beside it. Repeat it to have the best chosen; else static, which comes along."
            ),
        ),
    ] = None
    bert_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Hub id or folder that bert begins with; else xlm-roberta-base.")
    ] = None
    bert_steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Optimiser steps of each bert; else 2000.")
    ] = None
    folds: Annotated[
        int,
        typer.Option(
            min=2, metavar="N", help="Parts held out in turn, of 15 prompts or more; each costs a fit of each kind."
        ),
    ] = 10

    def bert(self, seed: int) -> BertConfig | None:
        """Settings of BERT; None where it is not tried.

        Raises:
            ConfigurationError: They are given, and it is not.
        """
        given = {"model": self.bert_model, "steps": self.bert_steps}
        changes = {name: value for name, value in given.items() if value is not None}
        if "bert" not in (self.router or ()):
            if changes:
                msg = "--bert-model and --bert-steps go with --router bert"
                raise ConfigurationError(msg)
            return None
        from prefroute.training import BertConfig

        return BertConfig(**cast("dict[str, Any]", changes), seed=seed)


@with_options
def fit(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Judged prompts with one quality column a model, of prefroute label or others: CSV, JSONL, Parquet.",
            exists=True,
            dir_okay=False,
        ),
    ],
    candidates: CandidateOptions,
    target: TargetOptions,
    columns: ColumnOptions,
    prices: PriceOptions,
    *,
    strong: Annotated[str, typer.Option(metavar="COL", help="Quality of the strong model's answer: a number.")],
    weak: Annotated[str, typer.Option(metavar="COL", help="Quality of the weak model's answer.")],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the router: new, empty, or with a router to replace.")
    ],
    exclude: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Prompts to leave out, a test set say.", exists=True, dir_okay=False),
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Leave out OUTPUT/report/report.html.")] = False,
    no_curve: Annotated[bool, typer.Option("--no-curve", help="Leave out the learning curve, and its time.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Fit the best router for your own judged prompts, calibrated, with a report and a card."""
    pair = ModelPair(strong=strong.strip(), weak=weak.strip())
    _check(candidates, target, columns, prices, output, report=not no_report)
    benchmark = excluded(
        read_data(data, pair, columns, is_priced=prices.prices is not None, progress=shows_progress()), exclude
    )
    _check_answers(target, prices, benchmark)
    from prefroute.fitting import LIGHT, fit_router
    from prefroute.fitting.candidates import BERT, EMBEDDER
    from prefroute.fitting.work import Work

    rate = 0.5 if target.strong_rate is None else target.strong_rate
    work = None
    if BERT in (candidates.router or ()):
        work = output.absolute().with_name(f"{output.absolute().name}.fitting")
    found = fit_router(
        benchmark,
        kinds=candidates.router or LIGHT,
        embedders=candidates.embedder or (EMBEDDER,),
        strong_rate=rate,
        folds=candidates.folds,
        curve=not no_curve,
        bert=candidates.bert(seed),
        work=work,
        seed=seed,
        progress=shows_progress(),
    )
    found, reached = _aimed(found, target, benchmark, prices)
    warnings = _warnings(found, strong_rate=rate, by_quality="quality" in reached)
    summary = _summary(found, reached, warnings, output, [path.name for path in data])
    _save(found, output, [path.name for path in data], report=not no_report)
    if work is not None:
        Work.clear(work)
    for warning in warnings:
        sys.stderr.write(f"prefroute: warning: {printable(warning)}\n")
    if as_json:
        typer.echo(json.dumps(plain(summary), allow_nan=False))
    else:
        _tell(found, summary, report=not no_report)


def _check(
    candidates: CandidateOptions,
    target: TargetOptions,
    columns: ColumnOptions,
    prices: PriceOptions,
    output: Path,
    *,
    report: bool,
) -> None:
    """Refuse now what would fail after all the work."""
    from prefroute.fitting.candidates import LIGHT, OVER_EMBEDDINGS, check_kinds

    check_kinds(candidates.router or LIGHT)
    candidates.bert(0)
    if candidates.embedder and not OVER_EMBEDDINGS & set(candidates.router or LIGHT):
        kinds = ", ".join(candidates.router or ())
        msg = f"--embedder says nothing for {kinds}: no embedding is looked at; leave it out"
        raise ConfigurationError(msg)
    check_output(output)
    needs("sklearn", "fitting a router", "eval")
    for kind, module in (("matrix-factorization", "torch"), ("bert", "transformers")):
        if kind in (candidates.router or ()):
            needs(module, f"--router {kind}", "train")
    for module in ("matplotlib", "jinja2") if report else ():
        needs(module, "the report (or --no-report)", "eval")
    target.check()
    if target.budget is None:
        refuse_unused(cost_options(columns, prices), "--budget")


def _check_answers(target: TargetOptions, prices: PriceOptions, benchmark: Benchmark) -> None:
    """Refuse labels that the threshold cannot be laid by, before all the work."""
    if target.quality is not None:
        check_order(benchmark)
    if target.budget is not None:
        known_costs(prices, benchmark)


def _aimed(
    found: FittedRouter, target: TargetOptions, benchmark: Benchmark, prices: PriceOptions
) -> tuple[FittedRouter, dict[str, Any]]:
    """The router with the threshold that reaches a quality or a budget on the cross-fitted scores."""
    rank, reached = rank_for(target, found.scores, benchmark, prices)
    calibration = found.router.calibration
    if calibration is None:
        return found, {}
    if rank is None and target.strong_rate is None and not found.is_measurable:
        return found.at(calibration.threshold_for(0.0)), {}  # Nobody asked for strong calls, and they gain nothing.
    if rank is None:
        return found, {}
    threshold = threshold_of(target, calibration, rank, None)
    return (found if threshold is None else found.at(threshold)), reached


def _save(found: FittedRouter, output: Path, sources: list[str], *, report: bool) -> None:
    from prefroute.evaluation.report import remove_report
    from prefroute.fitting.card import CARD_FILE, card_of
    from prefroute.persistence import write_atomically

    card = card_of(found, sources=sources)
    # One of the router that was there before would speak of another.
    remove_report(output / REPORT_FOLDER)
    found.router.save_pretrained(output)
    write_atomically(output / CARD_FILE, card.encode("utf-8", "backslashreplace"))
    if report:
        from prefroute.evaluation.report import write_report

        write_report(found.evaluation, output / REPORT_FOLDER)


def _summary(
    found: FittedRouter, reached: dict[str, Any], warnings: list[str], output: Path, files: list[str]
) -> dict[str, Any]:
    from prefroute.fitting.card import verdict, what_would_settle

    evaluation = found.evaluation
    gains = evaluation.benchmark.gains
    return {
        "files": files,
        "prompts": len(evaluation.benchmark),
        "labels": {
            "strong_better": int((gains > 0).sum()),
            "tie": int((gains == 0).sum()),
            "weak_better": int((gains < 0).sum()),
        },
        "chosen": found.chosen,
        "tried": [asdict(item) for item in found.tried],
        "left_out": found.left_out,
        "verdict": verdict(found),
        "beats_random": found.beats_random,
        "figures": evaluation.results[found.name].as_dict(),
        "learning_curve": [point._asdict() for point in found.curve],
        "what_would_settle": what_would_settle(found),
        "probabilities": found.probabilities.as_dict(),
        "threshold": {
            **{name: getattr(found.threshold, name) for name in ("threshold", "strong_rate", "sample_rate", "tied")},
            "own_rate": found.own_rate,
            **reached,
        },
        "folds": found.folds,
        "seed": found.seed,
        "warnings": warnings,
        "saved": str(output),
    }


def _warnings(found: FittedRouter, *, strong_rate: float, by_quality: bool) -> list[str]:
    from prefroute.calibration import WITHIN

    benchmark, told = found.evaluation.benchmark, [f"{name}: {why}" for name, why in found.left_out.items()]
    if benchmark.strong.mean() <= benchmark.weak.mean():
        told.append(
            f"{benchmark.pair.strong} does no better than {benchmark.pair.weak} on these prompts, so there is nothing "
            "to recover; are --strong and --weak swapped? Unless a rate is asked for, all goes to the weak model"
        )
    elif not found.beats_random:
        told.append("this router is not shown to beat a coin; label more, or send everything to one model")
    if found.threshold.tied and abs(found.threshold.sample_rate - strong_rate) > WITHIN:
        told.append(tied(found.threshold, strong_rate))
    if abs(found.own_rate - found.threshold.sample_rate) > _ELSEWHERE:
        told.append(
            f"the router itself sends {found.own_rate:.0%} of these prompts to the strong model, where its held-out "
            f"scores say {found.threshold.sample_rate:.0%}; lay the threshold with prefroute calibrate"
        )
    if by_quality and found.threshold.sample_rate == 1.0:
        told.append(ALL_STRONG_KEEPS)
    return told


def _tell(found: FittedRouter, summary: dict[str, Any], *, report: bool) -> None:
    labels, pair = summary["labels"], found.evaluation.benchmark.pair
    show(
        f"labels    {summary['prompts']:,} prompts: {printable(pair.strong)} better {labels['strong_better']:,}, "
        f"tie {labels['tie']:,}, {printable(pair.weak)} better {labels['weak_better']:,}"
    )
    show(_table(found))
    figures = found.figures
    show(f"chosen    {found.chosen}")
    show(
        f"held out  APGR {figures.apgr:.3f} ({figures.apgr_low:.3f} to {figures.apgr_high:.3f}); random 0.500"
        if math.isfinite(figures.apgr)
        else "held out  APGR is not defined: the strong model is no better"
    )
    show(f"verdict   {summary['verdict']}")
    if found.curve:
        show("curve     " + ", ".join(f"{point.prompts:,} labels {point.apgr:.3f}" for point in found.curve))
    for sentence in summary["what_would_settle"]:
        show(f"to settle {sentence}")
    show(_threshold_line(found))
    if "cost" in summary["threshold"]:
        show(f"          1,000 requests cost {a_thousand(summary['threshold']['cost'])} at that threshold")
    if "quality" in summary["threshold"]:
        show(f"          keeps {summary['threshold']['quality']:.1%} of the strong model's quality on these prompts")
    show(f"saved     {visible(summary['saved'])}" + (f" (report in {REPORT_FOLDER}/)" if report else ""))
    command = shlex.join(["prefroute", "route", "--router", summary["saved"], "Why is the sky blue?"])
    show(f"try       {visible(command)}")


def _threshold_line(found: FittedRouter) -> str:
    item = found.threshold
    return (
        f"threshold {item.threshold:.6g}: about {item.strong_rate:.0%} strong calls; prefroute calibrate, with prompts "
        "that it has not learnt from, makes it exact"
    )


def _table(found: FittedRouter) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("tried", "log loss", "behind the best", "APGR"):
        table.add_column(name, overflow="fold", no_wrap=name != "tried")
    for item in sorted(found.tried, key=lambda item: item.loss):
        area = f"{item.apgr:.3f}" if math.isfinite(item.apgr) else "-"
        table.add_row(item.name, f"{item.loss:.4f}", f"{item.behind:.4f} ± {item.error:.4f}", area)
    return table
