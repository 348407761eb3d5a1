"""The published evaluation of `routellm`, run by its own code in its own environment.

Started by `published_evaluation.py`. Reads one JSON request a line from standard input and answers with one JSON line.
The points come from the published `MMLU`, `GSM8K` and `MTBench` (`Benchmark.evaluate`), with scores that are given
instead of a router's. The figures over them are those of `generate_results` in routellm/evals/evaluate.py. That file
cannot be imported where its drawing and multiprocessing packages are not installed, and its functions lie inside a
function, so `auc_metric`, `apgr_metric` and `pct_call_metric` are applied here with the same calls of numpy and pandas;
of the last one, the number before it is rounded to text.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from _peer import answer_requests, module_of, versions

if TYPE_CHECKING:
    from pathlib import Path

STRONG, WEAK = "gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1"
"""Defaults of the published evaluation."""

BINS, LEVELS = 10, (0.2, 0.5, 0.8)
PACKAGES = ("routellm", "numpy", "pandas")


class GivenScores:
    """Stands in for the published `Controller`: its router's scores are looked up by prompt."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores

    def batch_calculate_win_rate(self, *, prompts: Any, **_: Any) -> Any:
        """A score for each of a pandas series of prompts."""
        return prompts.apply(self.scores.__getitem__)


def figures_of(points: Any, strong: float, weak: float) -> dict[str, Any]:
    """AUC, APGR and CPT by the formulas of `generate_results`, in the peer's own units.

    Args:
        points: A pandas frame of strong_percentage and accuracy.
        strong: Mean accuracy of the strong model.
        weak: That of the weak model.

    Returns:
        The points in order of the strong percentage, and the figures.
    """
    np = module_of("numpy")  # `trapz` is not in every numpy
    points = points.sort_values(by=["strong_percentage"])
    percentage, accuracy = points["strong_percentage"], points["accuracy"]

    def constant(value: float) -> Any:
        line = np.zeros([len(points)], dtype=float)
        line.fill(value)
        return np.trapz(line, percentage / 100)

    auc, weak_auc, strong_auc = np.trapz(accuracy, percentage / 100), constant(weak), constant(strong)
    calls = [np.interp(level * (strong - weak) + weak, accuracy, percentage) for level in LEVELS]
    return {
        "strong_percentage": percentage.tolist(),
        "accuracy": accuracy.tolist(),
        "auc": float(auc),
        "apgr": float((auc - weak_auc) / (strong_auc - weak_auc)),
        "pct_calls": [float(call) for call in calls],
        "strong": float(strong),
        "weak": float(weak),
    }


class Peer:
    """The three published benchmarks over the data in a folder laid out as they expect."""

    def __init__(self, folder: Path) -> None:
        module = module_of("routellm.evals.benchmarks")
        module.CURRENT_DIR = str(folder)  # data are read below it, and caches written there
        pair = module_of("routellm.controller").ModelPair(strong=STRONG, weak=WEAK)
        domains = module_of("routellm.evals.mmlu.domains").ALL_MMLU_DOMAINS
        self.benchmarks = {
            "MMLU": module.MMLU(domains, pair, []),
            "GSM8K": module.GSM8K(pair, []),
            "MT-Bench": module.MTBench(pair, []),
        }

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The versions, or the figures of one benchmark with the scores given."""
        if request["do"] == "about":
            return {"versions": versions(*PACKAGES)}
        benchmark = self.benchmarks[request["benchmark"]]
        points = self._points(benchmark, request["runs"])
        return figures_of(points, benchmark.get_model_accuracy(STRONG), benchmark.get_model_accuracy(WEAK))

    @staticmethod
    def _points(benchmark: Any, runs: list[dict[str, float]]) -> Any:
        """Of one run its points; several are averaged by share, as the published code does for its random router."""
        import pandas as pd

        frame = pd.DataFrame(
            [
                {"strong_percentage": counts[STRONG] / total * 100, "accuracy": accuracy}
                for scores in runs
                for _, accuracy, counts, total in benchmark.evaluate(GivenScores(scores), "given", BINS, True)  # noqa: FBT003 - as published
            ]
        )
        return frame.groupby(["strong_percentage"], as_index=False).mean() if len(runs) > 1 else frame


def main() -> None:
    """Answer requests until standard input ends."""
    warnings.simplefilter("ignore")  # numpy and pandas deprecate what the published code calls
    answer_requests(Peer)


if __name__ == "__main__":
    main()
