"""The README beside the bundled files, rendered from what the build measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

TITLES = {
    "mmlu": "MMLU",
    "gsm8k": "GSM8K",
    "mt_bench": "MT-Bench",
    "arena_hard": "Arena, hard prompts",
    "open_assistant": "OpenAssistant",
    "mean": "mean of the five",
}

PAGE = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
"""The page with its fields."""

SOURCES = {
    "mmlu": ("GPT-4 Turbo / Mixtral 8x7B", "right or wrong", "Apache-2.0 (RouteLLM)"),
    "gsm8k": ("GPT-4 Turbo / Mixtral 8x7B", "right or wrong", "Apache-2.0 (RouteLLM)"),
    "mt_bench": ("GPT-4 Turbo / Mixtral 8x7B", "GPT-4's scores, both turns", "Apache-2.0 (RouteLLM)"),
    "arena_hard": ("29 models", "people's votes", "Apache-2.0 (FastChat), prompts CC BY 4.0"),
    "open_assistant": ("7 models", "GPT-4's votes", "MIT (qlora)"),
}


FEATURES = {
    "embedding": "the embedding",
    "embedding and length": "the embedding and the log length of the prompt",
    "embedding and surface": "the embedding and nine features of the prompt's surface",
}

RANDOM = 0.5


def render(training: dict[str, Any]) -> str:
    """The page.

    Args:
        training: What `training.json` holds.

    Returns:
        Markdown.
    """
    embedding, length = training["embedding"], training["prompt_length"]
    return PAGE.format(
        **{key: embedding[key] for key in ("dimensions", "tokens", "rows")},
        **{key: training[key] for key in ("chosen", "min_expected_win", "folds", "resamples", "best", "threshold")},
        **_unseen(training),
        **_calibration(training["calibration"]),
        features=FEATURES[training["chosen"].split(",")[0]],
        source_rows=_source_rows(training["sources"]),
        held_out_rows=_figure_rows(training["held_out"], training["held_out_chosen_anew"], length),
        held_out_verdict=_verdict({name: training["held_out"][name] for name in TITLES}),
        anew_verdict=_verdict({name: training["held_out_chosen_anew"][name] for name in TITLES}),
        plain=training["mmlu_questions_only"],
        count=len(training["candidates"]),
        fold_choices=_counted(training["chosen_without_each_fold"]),
        source_choices=_counted(training["chosen_without_each_source"].values()),
        names=" | ".join(title for name, title in TITLES.items() if name != "mean"),
        rule="|".join("---" for name in TITLES if name != "mean"),
        length_mean=length["mean"],
        length_cells=" | ".join(f"{length[name]:.3f}" for name in SOURCES),
        candidate_rows=_candidate_rows(training),
        script_rows=_script_rows(training["scripts"]),
        script_verdict=_script_verdict(training["scripts"]),
        probe_rows=_lines([name, f"{chance:.2f}"] for name, chance in training["probes"].items()),
        shares=", ".join(
            f"{TITLES[name]} {share:.0%}" for name, share in training["strong_share_at_threshold"].items()
        ),
    )


def _unseen(training: dict[str, Any]) -> dict[str, Any]:
    """What stands on sources that were left out."""
    alpaca, figures = training["alpaca_eval"], training["one_source_left_out"]
    of_alpaca = alpaca["chosen"] | {"over_length": alpaca["over_length"]}
    return {
        "left_out_rows": _figure_rows(figures, training["one_source_left_out_chosen_anew"], training["prompt_length"]),
        "alpaca_prompts": alpaca["prompts"],
        "alpaca_row": _lines(
            [
                [
                    "AlpacaEval",
                    _figure(alpaca["chosen"]),
                    f"{alpaca['prompt length']['apgr']:.3f}",
                    _figure(alpaca["over_length"], sign=True),
                    "",
                ]
            ]
        ),
        "left_out_verdict": _verdict({**{name: figures[name] for name in TITLES}, "AlpacaEval": of_alpaca}),
    }


def _calibration(found: dict[str, Any]) -> dict[str, Any]:
    """What stands on calibration."""
    titles = {"mean": "the mix, every source the same"} | {name: TITLES[name] for name in SOURCES}
    keys = ("predicted", "observed", "error", "error_by_chance")
    return {
        "calibration_rows": _lines(
            [title, *(f"{found[name][key]:.3f}" for key in keys)] for name, title in titles.items()
        ),
        "bins": ", ".join(f"{predicted:.2f}: {observed:.2f}" for predicted, observed in found["mean"]["bins"]),
        "predicted": found["mean"]["predicted"],
        "range_low": found["range"][0],
        "range_high": found["range"][1],
    }


def _verdict(figures: dict[str, Any]) -> str:
    """Where the router is better or worse than random and than prompt length, beyond the intervals."""
    random = {name: tuple(figure["interval"]) for name, figure in figures.items()}
    length = {name: tuple(figure["over_length"]["interval"]) for name, figure in figures.items()}
    return f"* Against random {_sides(random, RANDOM)}\n* Against prompt length {_sides(length, 0.0)}"


def _sides(intervals: dict[str, tuple[float, ...]], level: float) -> str:
    named = {TITLES.get(name, name): interval for name, interval in intervals.items()}
    better = [name for name, (low, _) in named.items() if low > level]
    worse = [name for name, (_, high) in named.items() if high < level]
    unsure = [name for name in named if name not in better and name not in worse]
    text = f"better beyond the interval on: {_listed(better)}; not told apart on: {_listed(unsure)}"
    return f"{text}; **worse on: {_listed(worse)}.**" if worse else f"{text}; worse on none."


def _listed(names: list[str]) -> str:
    return "; ".join(names) or "none"


def _figure_rows(figures: dict[str, Any], anew: dict[str, Any], length: dict[str, float]) -> str:
    return _lines(
        [
            title,
            _figure(figures[name]),
            f"{length[name]:.3f}",
            _figure(figures[name]["over_length"], sign=True),
            _figure(anew[name]),
        ]
        for name, title in TITLES.items()
    )


def _candidate_rows(training: dict[str, Any]) -> str:
    rows = sorted(training["candidates"], key=lambda row: -row["left_out"]["mean"])
    return _lines(
        [
            f"**{row['name']}**" if row["name"] == training["chosen"] else row["name"],
            f"{row['left_out']['mean']:.3f}",
            "{:.3f} ({:.3f})".format(*row["behind"]),
            *(f"{row['left_out'][name]:.3f}" for name in SOURCES),
            f"{row['held_out']['mean']:.3f}",
        ]
        for row in rows
    )


def _script_rows(scripts: dict[str, Any]) -> str:
    return _lines(
        [name, str(row["prompts"]), f"{row['observed']:.2f}", f"{row['predicted']:.2f}", _figure(row)]
        for name, row in scripts.items()
    )


def _script_verdict(scripts: dict[str, Any]) -> str:
    sure = [name for name, row in scripts.items() if row["interval"][0] > RANDOM]
    return f"Within one script it is better than random beyond the interval on: {_listed(sure)}."


def _counted(names: Iterable[str]) -> str:
    """Names with how often each is there."""
    counts = Counter(names)
    return "; ".join(f"{name} ({count} of {counts.total()})" for name, count in counts.most_common())


def _source_rows(sources: dict[str, Any]) -> str:
    return _lines(
        [TITLES[name], f"{row['prompts']:,}", pair, labels, f"{row['mean_outcome']:.2f}", licence]
        for name, row in sources.items()
        for pair, labels, licence in [SOURCES[name]]
    )


def _figure(figure: dict[str, Any], *, sign: bool = False) -> str:
    value, (low, high) = figure["apgr"], figure["interval"]
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})" if sign else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _lines(rows: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
