"""The paper's Tables 1 to 5 (RouteLLM, arXiv 2406.18665) made again from the shared data, for every router kind.

Run: `OMP_NUM_THREADS=1 python benchmarks/paper_tables.py --results FILE [--json DIR] [--report DIR] [--kinds a,b]`.
Prints Markdown; progress goes to stderr. Every trained router's scores are kept in FILE, a JSON line each, and not
made again. `--kinds` says which kinds to train now; the tables show all that FILE has. The light kinds take minutes;
`bert` and `causal-lm` up to an hour together on two cores (better without OMP_NUM_THREADS).

The design was fixed before the first run, and nothing is tuned on what is scored:

* Pair: gpt-4-1106-preview against Mixtral-8x7B-Instruct-v0.1, as in the paper.
* Battles: Chatbot Arena votes on hard prompts, OpenAssistant votes of GPT-4 whose two orders agree, and votes of judges
  that are GPT-4 on AlpacaEval (licensed for experiments only), mixed by the square root of their prompts. Prompts of
  fewer than 16 characters are left out, as published. Similarity weighting and matrix factorization learn from the
  battles of all models; the other kinds learn one pair, and from these battles pooled by strength, source by source
  (`prefroute.data.pool_by_strength`).
* Targets: MT-Bench, MMLU and GSM8K without the prompts that RouteLLM found contaminated, and AlpacaEval's prompts for a
  pair not trained on. All votes on that pair are taken out of training, and no router is trained again: the scores
  for the first pair are used, as in the paper. The quality of a model is the preference for it over the common
  reference gpt-4-1106-preview under the judge with most models, weighted_alpaca_eval_gpt4_turbo. The pair are
  the best Claude by that preference, claude-2, and the worst Vicuna, vicuna-7b: the paper's Claude 3 Opus and Llama 3
  8B are not in the data. A model that hardly ever beats the reference has a quality near 0 for most prompts, and no
  gain can show on prompts that the reference answers too well.
* Cross-fitting: the prompts of all targets are divided into two halves, a prompt that recurs into one. A router
  trained with one half's data scores the other half's prompts. Arena and OpenAssistant prompts that are near
  any target prompt, and AlpacaEval prompts near one of the scored half, are left out of training (cosine of the bundled
  embedder 0.95 or more). The levels of two fits differ, and pooled they would rank the prompts of one half above
  those of the other; so a score is replaced by its rank within target and half, in percent, before the halves are put
  together. Both halves then call the strong model equally often at every threshold.
* Two trainings a kind and half: battles alone, and battles with golden labels of the half: 1,500 of MMLU drawn by seed,
  all of GSM8K, and the judge's scores of MT-Bench. The paper's labels are of MMLU's validation part, and a judge's
  of 120,000 other prompts for MT-Bench and GSM8K; ours are of the very benchmarks, so theirs and ours differ.
* Embeddings are those of the bundled static embedder, alone (`static`, where a kind is as published) or with what
  the defaults put beside it; OpenAI's in the paper. Transformers are small: all-MiniLM-L6-v2 in two passes, and a
  Llama of one million weights begun from nothing in five, which shows that the training works and not what a pretrained
  model would reach. They learn from at most 1,000 prompts, 128 tokens of each, and score at most 2,000 prompts of a
  target in each half, so that both kinds take under an hour on two cores. Raise `MOST_PROMPTS` and `MOST_SCORED` where
  there is a GPU.
* The bundled router is left out: it was trained on these benchmarks, and its own card has its figures out of training.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from _paper_data import CONDITIONS, HALVES, SEED, Study, read_study
from _paper_routers import KINDS, Results
from mmlu_gsm8k import data_folder

from prefroute.evaluation.evaluate import evaluate_scores
from prefroute.evaluation.similarity import benchmark_data_similarity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefroute.evaluation.results import Evaluation, Figures, RouterResult


class Published(NamedTuple):
    """The paper's figures of one router: APGR by condition, and CPT in percent of the augmented one."""

    apgr: tuple[float, float]
    cpt: tuple[float, float] | None = None


PAPER: dict[str, dict[str, Published]] = {
    "MT-Bench": {
        "random": Published((0.500, 0.500), (49, 78)),
        "bert": Published((0.391, 0.751), (19.6, 34.0)),
        "causal-lm": Published((0.573, 0.679), (31.5, 48.8)),
        "matrix-factorization": Published((0.580, 0.802), (13.4, 31.3)),
        "similarity-weighted": Published((0.610, 0.759), (23.2, 36.0)),
    },
    "MMLU": {
        "random": Published((0.500, 0.500), (50, 80)),
        "bert": Published((0.502, 0.572), (41.3, 72.2)),
        "causal-lm": Published((0.499, 0.600), (35.5, 70.3)),
        "matrix-factorization": Published((0.524, 0.597), (35.5, 71.4)),
        "similarity-weighted": Published((0.473, 0.603), (35.4, 71.6)),
    },
    "GSM8K": {
        "random": Published((0.497, 0.497), (50, 80)),
        "bert": Published((0.438, 0.531), (44.8, 79.1)),
        "causal-lm": Published((0.461, 0.622), (33.6, 63.3)),
        "matrix-factorization": Published((0.475, 0.565), (38.8, 72.6)),
        "similarity-weighted": Published((0.475, 0.568), (41.2, 72.2)),
    },
    "unseen pair": {
        "random": Published((0.494, 0.494)),
        "bert": Published((0.475, 0.618)),
        "causal-lm": Published((0.645, 0.625)),
        "matrix-factorization": Published((0.605, 0.703)),
        "similarity-weighted": Published((0.553, 0.667)),
    },
}

TABLE_COLUMNS = (
    *("router", "reads", "trained on", "n", "APGR (95 %)", "11", "CPT50 (95 %)", "11", "CPT80 (95 %)", "11"),
    *("better than random", "paper"),
)
TABLE_NOTE = "11: by the published 11 points. Paper: APGR, and CPT50 and CPT80 of the augmented."
SIMILARITY_NOTE = (
    "Mean over the benchmark's prompts of the largest cosine to a training prompt, with the bundled static embedder "
    "(the paper: OpenAI's), and the mean APGR of the kinds that learn; the paper's over its four."
)
SAVING_NOTE = (
    "CPT of random routing, 50 % and 80 % as a coin expects, over that of the router of the least CPT, weak calls "
    "being free. **The best router is picked by the very figure that is shown, so these savings are optimistic.**"
)

PAPER_SIMILARITY = {"MT-Bench": (0.608, 0.653), "MMLU": (0.482, 0.568), "GSM8K": (0.493, 0.534)}
PAPER_SAVING = {"MT-Bench": (3.66, 2.49), "MMLU": (1.41, 1.14), "GSM8K": (1.49, 1.27)}


def label_of(kind: str, condition: str) -> str:
    """Name of a row: what learns nothing has no condition."""
    return f"{kind}, {condition}" if KINDS[kind].learns else kind


def rows_of(evaluation: Evaluation) -> Iterator[tuple[str, str, Figures]]:
    """Kind, condition and figures of every row."""
    for kind in KINDS:
        for condition in CONDITIONS if KINDS[kind].learns else CONDITIONS[:1]:
            result = evaluation.results.get(label_of(kind, condition))
            if result is not None and result.figures is not None:
                yield kind, condition, result.figures


def evaluated(study: Study, results: Results, target: str) -> Evaluation:
    """Every router that has scored both halves of a target."""
    scores = {
        label_of(kind, condition): found
        for kind in KINDS
        for condition in (CONDITIONS if KINDS[kind].learns else CONDITIONS[:1])
        if (found := results.scores(kind, condition, target)) is not None
    }
    print(f"{target}: measuring {len(scores)} routers", file=sys.stderr, flush=True)
    return evaluate_scores(scores, study.targets[target], held_out=True, seed=SEED)


def target_table(number: int, target: str, evaluation: Evaluation) -> str:
    """Table 1, 2, 3 or 4."""
    benchmark = evaluation.benchmark
    weak, strong = float(benchmark.weak.mean()), float(benchmark.strong.mean())
    lines = [
        f"### Table {number}: {target} ({len(benchmark):,} prompts)",
        "",
        f"Mean quality: {benchmark.pair.weak} {weak:.3f}, {benchmark.pair.strong} {strong:.3f}. {TABLE_NOTE}",
        "",
        f"| {' | '.join(TABLE_COLUMNS)} |",
        "|---" * len(TABLE_COLUMNS) + "|",
    ]
    for kind, condition, _ in rows_of(evaluation):
        name, trained = kind.replace("-published", ", as published"), condition if KINDS[kind].learns else "-"
        result = evaluation.results[label_of(kind, condition)]
        lines.append(table_row([name, KINDS[kind].embedder, trained], result, paper_cell(target, kind, condition)))
    lines.append(table_row(["oracle", "both answers", "-"], evaluation.results["oracle"], ""))
    return "\n".join(lines)


def table_row(first: list[str], result: RouterResult, last: str) -> str:
    """One router of a target's table."""
    own = result.figures
    if own is None:
        return ""
    cells = [
        *first,
        f"{result.n_used:,}",
        f"{own.apgr:.3f} ({own.apgr_low:.3f} to {own.apgr_high:.3f})",
        f"{own.apgr_published:.3f}",
        f"{own.cpt50:.1%} ({own.cpt50_low:.1%} to {own.cpt50_high:.1%})",
        f"{own.cpt50_published:.1%}",
        f"{own.cpt80:.1%} ({own.cpt80_low:.1%} to {own.cpt80_high:.1%})",
        f"{own.cpt80_published:.1%}",
        own.better_than_random,
        last,
    ]
    return f"| {' | '.join(cells)} |"


def paper_cell(target: str, kind: str, condition: str) -> str:
    """What the paper has of a router."""
    found = PAPER[target].get(KINDS[kind].paper or "")
    if found is None:
        return ""
    augmented = condition == CONDITIONS[1] or not KINDS[kind].learns
    cell = f"{found.apgr[CONDITIONS.index(condition)]:.3f}"
    return f"{cell}; {found.cpt[0]:g} %, {found.cpt[1]:g} %" if augmented and found.cpt else cell


def similarity(study: Study, target: str, condition: str) -> float:
    """Benchmark-data similarity, over both halves."""
    total = 0.0
    for half in HALVES:
        prompts = study.scored(half)[target]
        training = study.training(condition, half).native.prompts
        total += benchmark_data_similarity(prompts, training) * len(prompts)
    return total / len(study.targets[target])


def similarity_table(study: Study, evaluations: dict[str, Evaluation]) -> str:
    """Table 5: does data nearer to the benchmark help?"""
    lines = [
        "### Table 5: benchmark-data similarity",
        "",
        SIMILARITY_NOTE,
        "",
        "| benchmark | similarity, battles | + labels | mean APGR, battles | + labels | paper: similarity | APGR |",
        "|---|---|---|---|---|---|---|",
    ]
    for target, evaluation in evaluations.items():
        own = [similarity(study, target, condition) for condition in CONDITIONS]
        areas = [mean_apgr(evaluation, condition) for condition in CONDITIONS]
        learnt = [found.apgr for name, found in PAPER[target].items() if name != "random"]
        means = np.mean(learnt, axis=0)
        near = PAPER_SIMILARITY.get(target)
        lines.append(
            f"| {target} | {own[0]:.3f} | {own[1]:.3f} ({own[1] - own[0]:+.3f}) "
            f"| {areas[0]:.3f} | {areas[1]:.3f} ({areas[1] - areas[0]:+.3f}) "
            f"| {'' if near is None else f'{near[0]:.3f}, {near[1]:.3f} ({near[1] - near[0]:+.3f})'} "
            f"| {means[0]:.3f}, {means[1]:.3f} ({means[1] - means[0]:+.3f}) |"
        )
    return "\n".join(lines)


def mean_apgr(evaluation: Evaluation, condition: str) -> float:
    """Over the kinds that learn."""
    found = [own.apgr for kind, name, own in rows_of(evaluation) if name == condition and KINDS[kind].learns]
    return float(np.mean(found)) if found else float("nan")


def saving_table(evaluations: dict[str, Evaluation]) -> str:
    """Table 6's form: how many fewer strong calls than random routing the best router needs."""
    lines = [
        "### Cost saving of the best router, in the form of Table 6",
        "",
        SAVING_NOTE,
        "",
        "| benchmark | CPT50 | best router | CPT80 | best router | paper |",
        "|---|---|---|---|---|---|",
    ]
    for target, evaluation in evaluations.items():
        rows = [(label_of(kind, condition), own) for kind, condition, own in rows_of(evaluation) if KINDS[kind].learns]
        if not rows:
            continue
        half_name, half = min(rows, key=lambda row: row[1].cpt50)
        most_name, most = min(rows, key=lambda row: row[1].cpt80)
        paper = PAPER_SAVING.get(target)
        lines.append(
            f"| {target} | {0.5 / half.cpt50:.2f}x | {half_name} ({half.cpt50:.1%}) "
            f"| {0.8 / most.cpt80:.2f}x | {most_name} ({most.cpt80:.1%}) "
            f"| {'' if paper is None else f'{paper[0]}x, {paper[1]}x'} |"
        )
    return "\n".join(lines)


def time_table(results: Results) -> str:
    """Seconds that training and scoring took."""
    lines = ["### Time", "", "| router | to train, each | to score, each |", "|---|---|---|"]
    for kind in KINDS:
        own = [row for c in CONDITIONS for half in HALVES if (row := results.row(kind, c, half)) is not None]
        if own:
            trained, scored = (", ".join(f"{row[name]:.0f}" for row in own) for name in ("train_s", "score_s"))
            lines.append(f"| {kind} | {trained} s | {scored} s |")
    return "\n".join(lines)


def write_json(evaluations: dict[str, Evaluation], folder: Path) -> None:
    """One file a target."""
    folder.mkdir(parents=True, exist_ok=True)
    for target, evaluation in evaluations.items():
        text = json.dumps(evaluation.as_dict(), indent=1, allow_nan=False)
        (folder / f"{slug(target)}.json").write_text(text + "\n", encoding="utf-8")


def write_reports(evaluations: dict[str, Evaluation], folder: Path) -> None:
    """One report a target, in a folder of its own."""
    from prefroute.evaluation.report import write_report

    for target, evaluation in evaluations.items():
        write_report(evaluation, folder / slug(target))


def slug(target: str) -> str:
    """A target's name for files."""
    return target.lower().replace(" ", "_").replace("-", "_")


def kinds_of(text: str) -> list[str]:
    """The kinds that a comma-separated list names."""
    names = text.split(",")
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        msg = f"no kind {', '.join(unknown)}; there are: {', '.join(KINDS)}"
        raise argparse.ArgumentTypeError(msg)
    return names


def main() -> None:
    """Train and score what is not in the file yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="file of scores; made if missing")
    parser.add_argument("--json", type=Path, help="folder for the figures, a JSON file a target")
    parser.add_argument("--report", type=Path, help="folder for reports, an HTML page a target")
    parser.add_argument("--kinds", type=kinds_of, default=list(KINDS), help="kinds to train now; all if left out")
    arguments = parser.parse_args()
    study = read_study(data_folder().parent)
    results = Results(arguments.results, study)
    results.complete(arguments.kinds)
    evaluations = {target: evaluated(study, results, target) for target in study.targets}
    tables = [target_table(number, *item) for number, item in enumerate(evaluations.items(), 1)]
    tables += [similarity_table(study, evaluations), saving_table(evaluations), time_table(results)]
    print("\n\n".join(tables))
    if arguments.json:
        write_json(evaluations, arguments.json)
    if arguments.report:
        write_reports(evaluations, arguments.report)


if __name__ == "__main__":
    main()
