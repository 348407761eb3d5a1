"""Speed of evaluation: intervals of one APGR, and all of MMLU from the command line.

Run: `python benchmarks/evaluation_speed.py`. Reads the responses published with RouteLLM under `../shared/data` (or
`PREFROUTE_DATA`). Prints a table in Markdown; nothing is judged.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mmlu_gsm8k import PAIR, data_folder

from prefroute import load_router
from prefroute.data import read_battles
from prefroute.evaluation import apgr, draw_counts, interval, random_control, resampled_apgr
from prefroute.evaluation.benchmarks import read_mmlu
from prefroute.routers.similarity_weighted import SimilarityWeightedRouter

if TYPE_CHECKING:
    from collections.abc import Callable

REPEATS, RESAMPLES = 7, 1000
TRAINING = 1319
"""Labels that the routers learn from: all of GSM8K."""


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """Time of each run; one more, before, warms up."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return taken


def row(what: str, values: list[float], target: str) -> str:
    """One line of the table: median and range."""
    return f"| {what} | {statistics.median(values):.3g} s | {min(values):.3g} to {max(values):.3g} | {target} |"


def intervals() -> list[str]:
    """APGR of the bundled router on MMLU with its interval."""
    benchmark = read_mmlu(data_folder() / "mmlu")
    scores, gains, groups = load_router().win_probability(benchmark.prompts), benchmark.gains, benchmark.groups
    n = len(gains)

    def with_interval() -> object:
        draws = draw_counts(n, RESAMPLES, 0, groups)
        return apgr(scores, gains), interval(resampled_apgr(scores, gains, draws))

    return [
        row(f"APGR of {n:,} prompts with {RESAMPLES:,} resamples by prompt", seconds(with_interval), "under 1 s"),
        row("its random control, 999 permutations", seconds(lambda: random_control(scores, gains)), "-"),
    ]


def command_line() -> list[str]:
    """`prefroute evaluate` on all of MMLU, the interpreter's start included."""
    battles = read_battles(data_folder() / "gsm8k/gsm8k_responses.csv", models=[PAIR.strong, PAIR.weak])
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "similarity-weighted"
        SimilarityWeightedRouter.fit(battles, pair=PAIR).save_pretrained(folder)
        command = [sys.executable, "-m", "prefroute", "evaluate", "--data", str(data_folder() / "mmlu")]
        command += ["--strong", PAIR.strong, "--weak", PAIR.weak, "--json", str(Path(name) / "out.json")]
        for label, more in {
            "prompt-length": ["prompt-length"],
            f"similarity-weighted of {TRAINING:,} labels": [str(folder)],
            "both, with the report": ["prompt-length", str(folder), "--report", str(Path(name) / "report")],
        }.items():
            taken = seconds(lambda more=more: subprocess.run([*command, *more], check=True, capture_output=True), 3)  # type: ignore[misc]
            target = "-" if "report" in label else "under 20 s"
            lines.append(row(f"`prefroute evaluate` on all of MMLU: {label}", taken, target))
    return lines


def main() -> None:
    """Measure and print."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("prefroute", "numpy"))
    print(f"Python {platform.python_version()}, {platform.machine()}, {versions}; medians of 3 to {REPEATS} runs.\n")
    print("| what | median | range | target |\n|---|---|---|---|")
    for line in [*intervals(), *command_line()]:
        print(line, flush=True)


if __name__ == "__main__":
    main()
