"""Our published-form figures beside the published code of `routellm`, on the same scores; and random routing.

Run: `python benchmarks/published_evaluation.py --peer-python PATH`, where PATH is the interpreter of an environment
with `routellm==0.2.0` and a numpy that still has `trapz` (`numpy<2.4`). Reads the responses published with RouteLLM
under `../shared/data` (or `PREFROUTE_DATA`); the peer reads copies in a temporary folder, and keeps its caches there.

First part: `published_points`, `apgr_published` and `cpt_published` against `Benchmark.evaluate` of the published MMLU,
GSM8K and MT-Bench. `_published_evaluation_peer.py` says what of the peer is run and what is applied by hand. Shares,
qualities and CPT are compared as fractions; on MT-Bench quality and AUC are scores from 1 to 10, mean of both turns.
AUC is the trapezoid rule over `published_points`. Exit status 1 if anything differs by more than 1e-6. A quantile that
falls on a score itself may be rounded to either side of it, and versions of pandas differ there; of these three sizes
that concerns the median alone, which is exact.

Second part: the figures of `RandomRouter` over many seeds beside the random rows of the paper (arXiv 2406.18665v4,
tables 1 to 3). The published code averages ten random runs by share before it computes figures; so do we in one row.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from _peer import PeerProcess, versions
from mmlu_gsm8k import PAIR, TASKS, data_folder, read_task

from prefroute import load_router
from prefroute.data import read_judgements, read_prompts, responses_without_prompts
from prefroute.evaluation import (
    CostQualityCurve,
    apgr,
    apgr_published,
    cpt,
    cpt_published,
    published_points,
)
from prefroute.routers.baselines import RandomRouter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from prefroute.data import ResponseTable

TOLERANCE = 1e-6
LEVELS = (0.2, 0.5, 0.8)
AVERAGED = 10
"""Random runs that the published code averages before it computes figures."""

LAYOUT = (
    ("mmlu/mmlu_*.csv", "mmlu/responses"),
    ("mmlu/*.jsonl", "mmlu"),
    ("gsm8k/*.csv", "gsm8k"),
    ("gsm8k/*.jsonl", "gsm8k"),
    ("mt_bench/*.jsonl", "mt_bench"),
)
"""Files of the data, and the folder in which the published benchmarks look for them."""


class Stated(NamedTuple):
    """One figure of the paper, in its unit.

    Attributes:
        value: The figure.
        half: Half of its 95 % interval as printed, rounded.
        unit: What `half` is rounded to.
    """

    value: float
    half: float
    unit: float

    @property
    def reach(self) -> float:
        """The largest half that is printed so."""
        return self.half + self.unit / 2


PAPER = {
    "MT-Bench": (Stated(0.500, 0.02, 0.01), Stated(0.4903, 0.04, 0.01), Stated(0.7808, 0.03, 0.01)),
    "MMLU": (Stated(0.500, 0.0, 0.01), Stated(0.5007, 0.0, 0.01), Stated(0.7993, 0.0, 0.01)),
    "GSM8K": (Stated(0.497, 0.01, 0.01), Stated(0.5000, 0.02, 0.01), Stated(0.8008, 0.01, 0.01)),
}
"""APGR, CPT50 and CPT80 of random routing. Random rows of other pairs of models cannot be checked: no such answers."""


class Benchmark:
    """One benchmark: distinct prompts, and a row for each question.

    Attributes:
        name: As the peer has it too.
        prompts: The d distinct prompts; a score is theirs.
        row: Which prompt each of the n questions has, shape (n,).
        strong: Quality of the strong answer to each question, shape (n,).
        weak: That of the weak one.
        unit: What the peer's accuracies are divided by.
    """

    def __init__(self, name: str, table: ResponseTable, unit: float) -> None:
        self.name, self.unit = name, unit
        self.prompts = list(dict.fromkeys(table.prompts))
        place = {prompt: number for number, prompt in enumerate(self.prompts)}
        self.row = np.array([place[prompt] for prompt in table.prompts])
        self.strong, self.weak = table.for_models((PAIR.strong, PAIR.weak)).quality.T

    def mean_by_prompt(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the questions of each prompt, shape (d,)."""
        return np.bincount(self.row, values) / np.bincount(self.row)


def read_benchmarks(data: Path) -> Iterator[Benchmark]:
    """All three, less the contaminated prompts."""
    for task in TASKS:
        yield Benchmark(task.name, read_task(data, task), 100.0)
    folder = data / "mt_bench"
    turns = read_judgements(folder / "judgements.jsonl", folder / "question.jsonl", [PAIR.strong, PAIR.weak])
    turns = responses_without_prompts(turns, read_prompts(folder / "contaminated_prompts.jsonl", "eval_prompt"))
    found = Benchmark("MT-Bench", turns, 1.0)
    # One row a question: the mean of its two turns.
    found.strong, found.weak = found.mean_by_prompt(found.strong), found.mean_by_prompt(found.weak)
    found.row = np.arange(len(found.prompts))
    yield found


def lay_out(data: Path, folder: Path) -> None:
    """Copy the data to where the published benchmarks look for them."""
    for pattern, place in LAYOUT:
        (folder / place).mkdir(parents=True, exist_ok=True)
        for file in sorted(data.glob(pattern)):
            shutil.copy(file, folder / place)


def scorings(benchmark: Benchmark) -> Iterator[tuple[str, list[NDArray[np.float64]]]]:
    """Scores of each distinct prompt, shape (d,), by kind; of several runs, several."""
    count = len(benchmark.prompts)
    for seed in range(3):
        yield f"uniform random, seed {seed}", [np.random.default_rng(seed).random(count)]
    jitter = np.random.default_rng(3).random(count)
    yield "prompt length, untied", [np.array([len(prompt) for prompt in benchmark.prompts]) + 1e-3 * jitter]
    yield "bundled router", [load_router().win_probability(benchmark.prompts)]
    gains = benchmark.mean_by_prompt(benchmark.strong - benchmark.weak)
    yield "noisy oracle", [gains + np.random.default_rng(4).normal(0.0, gains.std(), count)]
    yield f"random, {AVERAGED} runs averaged", [random_scores(benchmark, seed) for seed in range(AVERAGED)]


def random_scores(benchmark: Benchmark, seed: int) -> NDArray[np.float64]:
    """Of `RandomRouter`, shape (d,)."""
    return RandomRouter(seed=seed).win_probability(benchmark.prompts)


class Figures(NamedTuple):
    """What is compared, as fractions, but quality and AUC in units of quality; CPT at each of `LEVELS`."""

    shares: NDArray[np.float64]
    quality: NDArray[np.float64]
    auc: float
    apgr: float
    cpt: NDArray[np.float64]
    means: NDArray[np.float64]

    def differences(self, other: Figures) -> list[float]:
        """The largest of shares, quality, AUC, APGR, CPT at each level, and the two models' means."""
        if len(self.shares) != len(other.shares):
            return [float("inf")] * (5 + len(LEVELS))
        pairs = ((self.shares, other.shares), (self.quality, other.quality), (self.auc, other.auc))
        pairs += ((self.apgr, other.apgr), *zip(self.cpt, other.cpt, strict=True), (self.means, other.means))
        return [float(np.max(np.abs(np.subtract(ours, theirs)))) for ours, theirs in pairs]


def averaged(runs: Sequence[CostQualityCurve]) -> CostQualityCurve:
    """Mean quality of several runs at each share that occurs, as the published code averages random runs."""
    if len(runs) == 1:
        return runs[0]
    shares, place = np.unique(np.concatenate([run.shares for run in runs]), return_inverse=True)
    quality = np.concatenate([run.quality for run in runs])
    return CostQualityCurve(shares, np.bincount(place, quality) / np.bincount(place))


def points_of(benchmark: Benchmark, scores: NDArray[np.float64]) -> CostQualityCurve:
    """Our points of one run."""
    return published_points(scores[benchmark.row], benchmark.strong, benchmark.weak)


def our_figures(benchmark: Benchmark, runs: Sequence[NDArray[np.float64]]) -> Figures:
    """By prefroute."""
    points = averaged([points_of(benchmark, scores) for scores in runs])
    means = float(benchmark.strong.mean()), float(benchmark.weak.mean())
    return Figures(
        shares=points.shares,
        quality=points.quality,
        auc=float(np.trapezoid(points.quality, points.shares)),
        apgr=apgr_published(points, *means),
        cpt=np.array([cpt_published(points, *means, level) for level in LEVELS]),
        means=np.array(means),
    )


def their_figures(peer: PeerProcess, benchmark: Benchmark, runs: Sequence[NDArray[np.float64]]) -> Figures:
    """By the published code."""
    given = [dict(zip(benchmark.prompts, scores.tolist(), strict=True)) for scores in runs]
    found: dict[str, Any] = peer.ask("evaluate", benchmark=benchmark.name, runs=given)
    return Figures(
        shares=np.array(found["strong_percentage"]) / 100,
        quality=np.array(found["accuracy"]) / benchmark.unit,
        auc=found["auc"] / benchmark.unit,
        apgr=found["apgr"],
        cpt=np.array(found["pct_calls"]) / 100,
        means=np.array([found["strong"], found["weak"]]) / benchmark.unit,
    )


def comparison_table(peer: PeerProcess, benchmarks: Iterable[Benchmark]) -> tuple[list[str], float]:
    """Markdown of the largest differences, a row for each benchmark and kind of scores; and the largest of all."""
    compared = ("shares", "quality", "AUC", "APGR", "CPT20", "CPT50", "CPT80", "means")
    columns = ("benchmark", "scores", "points", "our APGR", *compared, "same")
    lines, largest = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"], 0.0
    for benchmark in benchmarks:
        for kind, runs in scorings(benchmark):
            ours = our_figures(benchmark, runs)
            differences = ours.differences(their_figures(peer, benchmark, runs))
            worst = float(np.nan_to_num(differences, nan=np.inf).max())  # where one side has no figure, they differ
            shown = " | ".join(f"{value:.0e}" if value else "0" for value in differences)
            label = f"| {benchmark.name} | {kind} | {len(ours.shares)} | {ours.apgr:.4f}"
            lines.append(f"{label} | {shown} | {'yes' if worst <= TOLERANCE else 'NO'} |")
            largest = max(largest, worst)
    return lines, largest


class RandomFigures(NamedTuple):
    """APGR, CPT50 and CPT80 of random routing, a row a run: exact, published, and published after averaging."""

    exact: NDArray[np.float64]
    published: NDArray[np.float64]
    averaged: NDArray[np.float64]


def random_figures(benchmark: Benchmark, seeds: int) -> RandomFigures:
    """Of `RandomRouter` with that many seeds, shape (seeds, 3), and of every ten of them averaged."""
    gains = benchmark.strong - benchmark.weak
    means = float(benchmark.strong.mean()), float(benchmark.weak.mean())

    def figures(points: CostQualityCurve) -> list[float]:
        return [apgr_published(points, *means), *(cpt_published(points, *means, level) for level in LEVELS[1:])]

    exact, runs = [], []
    for seed in range(seeds):
        scores = random_scores(benchmark, seed)
        rows = scores[benchmark.row]
        exact.append([apgr(rows, gains), *(cpt(rows, gains, level) for level in LEVELS[1:])])
        runs.append(points_of(benchmark, scores))
    tens = [averaged(runs[start : start + AVERAGED]) for start in range(0, seeds - AVERAGED + 1, AVERAGED)]
    return RandomFigures(
        np.array(exact), np.array([figures(run) for run in runs]), np.array([figures(ten) for ten in tens])
    )


def central_range(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where 95 % of the runs lie, shape (2, 3)."""
    return np.percentile(values, (2.5, 97.5), axis=0)


def shown_runs(values: NDArray[np.float64]) -> str:
    """Cells of APGR, CPT50 and CPT80: mean and central range."""
    low, high = central_range(values)
    mean = values.mean(axis=0)
    cells = [f"{mean[0]:.3f} ({low[0]:.3f} to {high[0]:.3f})"]
    cells += [f"{mean[n]:.2%} ({low[n]:.2%} to {high[n]:.2%})" for n in (1, 2)]
    return " | ".join(cells)


def random_rows(benchmark: Benchmark, seeds: int) -> list[str]:
    """Markdown rows of one benchmark."""
    found, paper = random_figures(benchmark, seeds), PAPER[benchmark.name]
    values, means = np.array([stated.value for stated in paper]), found.averaged.mean(axis=0)

    def inside(runs: NDArray[np.float64]) -> NDArray[np.bool_]:
        low, high = central_range(runs)
        return np.asarray((low <= values) & (values <= high))

    def answers(right: Iterable[bool]) -> str:
        return " | ".join("yes" if each else "no" for each in right)

    near = [abs(mean - stated.value) <= stated.reach for mean, stated in zip(means, paper, strict=True)]
    stated = f"{paper[0].value:.3f} ± {paper[0].half:g} | " + " | ".join(
        f"{each.value:.2%} ± {each.half:.0%}" for each in paper[1:]
    )
    rows = (
        ("exact, a run", shown_runs(found.exact)),
        ("published form, a run", shown_runs(found.published)),
        (f"published form, {AVERAGED} runs averaged", shown_runs(found.averaged)),
        ("the paper", stated),
        (f"our mean of {AVERAGED} averaged is inside the paper's interval", answers(near)),
        (f"the paper's value is inside our range of {AVERAGED} averaged", answers(inside(found.averaged))),
        ("the paper's value is inside our range of single runs", answers(inside(found.published))),
    )
    return [f"| {benchmark.name} | {label} | {cells} |" for label, cells in rows]


def random_table(benchmarks: Iterable[Benchmark], seeds: int) -> list[str]:
    """Markdown of random routing beside the paper's rows."""
    lines = ["| benchmark | random routing | APGR | CPT50 | CPT80 |", "|---|---|---|---|---|"]
    for benchmark in benchmarks:
        lines += random_rows(benchmark, seeds)
    return lines


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True, help="interpreter of an environment with routellm")
    parser.add_argument("--seeds", type=int, default=200, help=f"of random routing, at least {AVERAGED}")
    arguments = parser.parse_args()
    if arguments.seeds < AVERAGED:
        parser.error(f"--seeds must be at least {AVERAGED}")
    data = data_folder()
    benchmarks = list(read_benchmarks(data))
    with tempfile.TemporaryDirectory() as name:
        lay_out(data, Path(name))
        peer = PeerProcess(arguments.peer_python, "_published_evaluation_peer.py", Path(name))
        try:
            about = peer.ask("about")
            lines, largest = comparison_table(peer, benchmarks)
        finally:
            peer.close()
    ours = versions("prefroute", "numpy")
    print(f"Python {platform.python_version()}; ours: {ours}; theirs: {about['versions']}")
    sizes = (f"{found.name} {len(found.row):,} ({len(found.prompts):,} distinct)" for found in benchmarks)
    print(f"Questions: {', '.join(sizes)}.")
    print(f"Largest differences from the published code; same: none above {TOLERANCE:g}.\n")
    print("\n".join(lines))
    print(f"\nLargest of all: {largest:.1e} (allowed: {TOLERANCE:g}).")
    print(f"\nRandom routing, {arguments.seeds} seeds: mean (where 95 % of the runs lie), and the paper's rows.\n")
    print("\n".join(random_table(benchmarks, arguments.seeds)))
    if largest > TOLERANCE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
