"""What a `prefroute train` command says at its end: what was read, what was learnt, and what to be wary of."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from prefroute._text import plain, visible
from prefroute.cli._console import printable, show
from prefroute.errors import PrefrouteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefroute.cli._learning import TrainingData
    from prefroute.cli._options import DataOptions
    from prefroute.data import Battles
    from prefroute.evaluation.validation import Validation
    from prefroute.types import ModelPair

_BAD_ROWS_SHOWN = 3
_FILES_SHOWN = 6
_NAMES_SHOWN = 4

_FEW_PROMPTS = 100
_TRIED = 64
"""Prompts that are scored to see whether scores differ: few, for an embedder that is paid for."""
_NOISE = 1e-6
_VERBATIM = ("saved", "try")

_LENGTH_DOES = "prompt length alone does as well"
_APGR = "APGR: share of the quality gap recovered, averaged over all strong-call rates"


def save_and_tell(
    router: Any, data: TrainingData, options: DataOptions, learnt: dict[str, Any], warnings: Sequence[str] = ()
) -> None:
    """Save the router, and print what was read, dropped and learnt.

    Args:
        router: A fitted router.
        data: What it was fitted on.
        options: Of the command.
        learnt: What there is to tell of this kind of router, by label.
        warnings: What there is to be wary of with this kind.
    """
    summary = _summary(router, data, options, learnt, warnings)
    # All is put in words before anything is written, so that a fault in it leaves no router behind.
    lines = [
        f"{label:<10}{visible(text) if label in _VERBATIM else printable(text)}" for label, text in _lines(summary)
    ]
    text = json.dumps(plain(summary), allow_nan=False)
    router.save_pretrained(options.output)
    for warning in summary["warnings"]:
        sys.stderr.write(f"prefroute: warning: {printable(warning)}\n")
    if options.as_json:
        typer.echo(text)
        return
    for line in lines:
        show(line)


def _summary(
    router: Any, data: TrainingData, options: DataOptions, learnt: dict[str, Any], warnings: Sequence[str]
) -> dict[str, Any]:
    pair: ModelPair = router.pair
    battles, report = data.battles, data.report
    own = _own(battles, pair)
    labels = _labels(own, pair) if own and not data.graded else None
    return {
        "router_type": router.router_type,
        "files": [file._asdict() for file in report.files],
        "bad_rows": {
            "count": report.rows_bad,
            "reasons": dict(report.reasons.most_common()),
            "first": [row._asdict() for row in report.bad_rows[:_BAD_ROWS_SHOWN]],
        },
        "dropped": data.dropped,
        "battles": len(battles),
        "prompts": len(battles.prompts),
        "models": len(battles.models),
        "pair": {
            "strong": pair.strong,
            "weak": pair.weak,
            "battles": None if own is None else len(own),
            "prompts": None if own is None else len(own.prompts),
            "labels": labels,
        },
        "learnt": learnt,
        "held_out": _held_out(getattr(router, "validation", None)),
        "warnings": [
            *_label_warnings(own, labels, pair),
            *warnings,
            *_score_warnings(router, own or battles),
            *_length_warnings(getattr(router, "validation", None)),
        ],
        "threshold": router.threshold,
        "output": str(options.output),
    }


def _own(battles: Battles, pair: ModelPair) -> Battles | None:
    """Battles of the two with each other; None where a side is a tier."""
    if not {pair.strong, pair.weak} <= set(battles.models):
        return None
    return battles[battles.between(pair)[0]]


def _labels(own: Battles, pair: ModelPair) -> dict[str, float]:
    """Battles that each side won, and ties; summed weights where these differ."""
    _, outcomes = own.between(pair)
    same = bool((own.weights == own.weights[0]).all())
    weights = np.ones(len(own)) if same else own.weights
    sums = {
        "strong_better": weights[outcomes > 0.5].sum(),  # noqa: PLR2004 - a tie is 0.5
        "tie": weights[outcomes == 0.5].sum(),  # noqa: PLR2004 - a tie is 0.5
        "weak_better": weights[outcomes < 0.5].sum(),  # noqa: PLR2004 - a tie is 0.5
        "strong_share": (weights * outcomes).sum() / weights.sum(),
    }
    return {name: int(value) if same and name != "strong_share" else float(value) for name, value in sums.items()}


def _held_out(validation: Validation | None) -> dict[str, Any] | None:
    if validation is None or not validation.prompts:
        return None
    found = {name: getattr(validation, name) for name in ("prompts", "apgr", "low", "high", "length_apgr")}
    low, high = validation.low, validation.high
    if validation.apgr is None or low is None or high is None:
        return {**found, "against_random": None}
    verdict = "better" if low > 0.5 else "worse" if high < 0.5 else "unknown"  # noqa: PLR2004 - what random gets
    return {**found, "against_random": verdict}


def _label_warnings(own: Battles | None, labels: dict[str, float] | None, pair: ModelPair) -> list[str]:
    """What makes it doubtful that these battles teach when the strong model is needed."""
    if own is None or labels is None:
        return []
    strong, tie, weak = (labels[name] for name in ("strong_better", "tie", "weak_better"))
    told = []
    if not strong and not weak:
        told.append(f"all {len(own):,} battles of the pair tie, so they do not teach which prompts need {pair.strong}")
    elif not tie and not (strong and weak):
        winner = pair.strong if strong else pair.weak
        told.append(f"{winner} wins all {len(own):,} battles of the pair, so they do not teach which prompts differ")
    if labels["strong_share"] < 0.5:  # noqa: PLR2004 - as good as each other
        told.append(f"{pair.strong} does worse than {pair.weak} in their battles; are --strong and --weak swapped?")
    if len(own.prompts) < _FEW_PROMPTS:
        told.append(f"only {len(own.prompts)} prompts compare the pair; a router wants {_FEW_PROMPTS} and more")
    return told


def _score_warnings(router: Any, battles: Battles) -> list[str]:
    """Scores that are all the same, of prompts spread over those learnt from."""
    count = len(battles.prompts)
    prompts = [battles.prompts[i] for i in np.unique(np.linspace(0, count - 1, min(count, _TRIED)).astype(int))]
    if len(prompts) < 2:  # noqa: PLR2004 - one differs from none
        return []
    try:
        scores = np.asarray(router.win_probability(prompts))
    except PrefrouteError as error:  # What was learnt with much work is not lost for a look at it.
        return [f"its scores could not be tried: {error}"]
    if np.ptp(scores) > _NOISE:
        return []
    return ["all prompts get the same score, so no threshold can part them: the router decides by rounding noise"]


def _length_warnings(validation: Validation | None) -> list[str]:
    if validation is None or not _is_matched_by_length(validation.apgr, validation.length_apgr):
        return []
    figures = f"APGR {validation.length_apgr:.3f}, this router {validation.apgr:.3f}"
    return [f"{_LENGTH_DOES} on the prompts kept out ({figures}); train prompt-length is all that takes"]


def _is_matched_by_length(area: float | None, length_area: float | None) -> bool:
    return area is not None and length_area is not None and length_area >= area


def _lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The summary as a label and a text a line; what there is nothing to tell of is left out."""
    pair = summary["pair"]
    sizes = f"{summary['battles']:,} battles over {summary['prompts']:,} prompts between {summary['models']:,} models"
    own = "" if pair["battles"] is None else f"; {pair['battles']:,} between {pair['strong']} and {pair['weak']}"
    lines = [*_read_lines(summary), ("learnt", f"{summary['router_type']} from {sizes}{own}")]
    lines += [
        ("", f"{label.replace('_', ' ')}: {_figure(value, (pair['strong'], pair['weak']))}")
        for label, value in summary["learnt"].items()
    ]
    if pair["labels"] is not None:
        strong, tie, weak = (f"{pair['labels'][name]:,.10g}" for name in ("strong_better", "tie", "weak_better"))
        lines.append(("labels", f"{pair['strong']} better {strong}, tie {tie}, {pair['weak']} better {weak}"))
    if summary["held_out"] is not None:
        above = "; above 1 where it beats the strong model alone" if (summary["held_out"]["apgr"] or 0) > 1 else ""
        lines += [("held out", _held_out_text(summary["held_out"], pair)), ("", f"({_APGR}{above})")]
    command = shlex.join(["prefroute", "route", "--router", summary["output"], "Why is the sky blue?"])
    return [
        *lines,
        ("threshold", f"{summary['threshold']:.4f}: about half of prompts like these go to {pair['strong']}"),
        ("saved", summary["output"]),
        ("try", command),
    ]


def _read_lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    bad, files = summary["bad_rows"], summary["files"]
    lines = [
        ("read", f"{file['file']}: {file['kept']:,} of {file['rows']:,} rows, as {file['format']}")
        for file in files[:_FILES_SHOWN]
    ]
    if len(files) > _FILES_SHOWN:
        kept, rows = (sum(file[count] for file in files) for count in ("kept", "rows"))
        lines.append(("", f"... {len(files)} files in all: {kept:,} of {rows:,} rows"))
    lines += [("unusable", f"{count:,} x {reason}") for reason, count in bad["reasons"].items()]
    lines += [("", f"{row['file']}:{row['line']}: {row['reason']}") for row in bad["first"]]
    lines += [("dropped", f"{count:,} battles: {reason}") for reason, count in summary["dropped"].items() if count]
    return lines


def _held_out_text(held_out: dict[str, Any], pair: dict[str, Any]) -> str:
    prompts = f"{held_out['prompts']:,} prompts"
    if held_out["against_random"] is None:
        return f"not measured: {pair['strong']} does no better than {pair['weak']} on the {prompts} kept out"
    verdict = {"better": "better than random", "worse": "worse than random"}.get(
        held_out["against_random"], f"cannot be told from random with {prompts}"
    )
    length = "" if held_out["length_apgr"] is None else f", prompt length {held_out['length_apgr']:.3f}"
    interval = f"{held_out['apgr']:.3f} ({held_out['low']:.2f} to {held_out['high']:.2f})"
    if _is_matched_by_length(held_out["apgr"], held_out["length_apgr"]):
        verdict += f"; {_LENGTH_DOES}"
    return f"APGR {interval} on {prompts} kept out; random 0.500{length}: {verdict}"


def _figure(value: Any, names: tuple[str, ...]) -> str:
    """A value for people; of figures by model, those of the pair."""
    if isinstance(value, dict):
        shown = {name: value[name] for name in names if name in value}
        shown = shown or dict(list(value.items())[:_NAMES_SHOWN])
        return ", ".join(f"{name} {_figure(item, ())}" for name, item in shown.items())
    if isinstance(value, list):
        return ", ".join(_figure(item, ()) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
