"""What `prefroute label` tells: the estimate before, the summary after."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from prefroute.cli._console import printable, show

if TYPE_CHECKING:
    from prefroute.labelling import Estimate, LabelSummary


def show_estimate(estimate: Estimate) -> None:
    """Say on stderr what is to be done and about what it costs."""
    same = f", {estimate.duplicates:,} more are the same as one of them" if estimate.duplicates else ""
    lines = [f"{estimate.prompts:,} prompts, {estimate.done:,} of them labelled already{same}"]
    for part in estimate.models:
        tokens = f"about {part.input_tokens:,} tokens in, {part.output_tokens:,} out"
        lines.append(f"  {part.role:6} {part.model}: {part.calls:,} calls, {tokens}, {_dollars(part.cost)}")
    limit = "" if estimate.max_cost is None else f" of {_dollars(estimate.max_cost)}"
    spent = f"{_dollars(estimate.spent)} spent so far{limit}{_lost(estimate.lost)}"
    lines.append(
        f"about {_dollars(estimate.cost)} to come, {spent}" if estimate.cost is not None else f"cost unknown, {spent}"
    )
    sys.stderr.write("".join(f"{printable_line(line)}\n" for line in lines))


def show_summary(summary: LabelSummary) -> None:
    """Print the figures, and what to do next."""
    show(f"labelled  {summary.labelled:,} of {summary.prompts:,} prompts in {printable(summary.output)}")
    for kind, count in summary.errors.most_common():
        such = summary.examples.get(kind, kind)
        show(f"errors    {count:,} x {printable(kind)}" + ("" if such == kind else f", such as: {printable(such)}"))
    _show_labels(summary)
    for part in summary.paid:
        tokens = f"{part['input_tokens']:,} tokens in, {part['output_tokens']:,} out"
        line = f"{part['role']:9} {part['model']}: {part['calls']:,} calls, {tokens}, {_dollars(part['cost'])}"
        show(printable_line(line))
    show(f"cost      {_dollars(summary.cost)} in all, {summary.calls:,} calls made now{_lost(summary.lost)}")
    if summary.stopped is not None:
        sys.stderr.write(f"prefroute: stopped: {printable(summary.detail)}\n")
    if summary.final_errors:
        again = "would get the same error again, and are left out by what reads the labels"
        show(f"final     {summary.final_errors:,} of the errors {again}; --ask-again asks anew for replies of no use")
    if summary.is_to_be_continued:
        left = summary.left - summary.final_errors
        show(f"next      {left:,} prompts have no label yet; run the same command again{_remedy(summary)}")
    elif summary.labelled:
        words = ("prefroute", "fit", summary.output, "--strong", summary.strong, "--weak", summary.weak)
        show(f"next      {printable(shlex.join((*words, '--output', 'my-router')))}")


def _show_labels(summary: LabelSummary) -> None:
    if summary.labelled:
        shares = [
            f"{name} {count:,} ({count / summary.labelled:.0%})"
            for name, count in (
                ("strong better", summary.strong_better),
                ("ties", summary.ties),
                ("weak better", summary.weak_better),
            )
        ]
        show(f"labels    {', '.join(shares)}")
    if summary.judged_twice:
        torn = summary.first_favoured + summary.second_favoured
        favoured = f"the first answer {summary.first_favoured:,} times, the second {summary.second_favoured:,}"
        share = f"{torn:,} of {summary.judged_twice:,} rows ({torn / summary.judged_twice:.0%}), counted as ties"
        show(f"judge     contradicted itself in {share}: it favoured {favoured}")
    if summary.unread_strong or summary.unread_weak:
        unread = f"{summary.unread_strong:,} strong and {summary.unread_weak:,} weak answers"
        show(f"unread    nothing to compare in {unread}, which count as wrong")
    if summary.cut_off:
        show(f"cut off   {summary.cut_off:,} answers ended at --max-tokens; with another one all are asked for anew")


def _remedy(summary: LabelSummary) -> str:
    return ", with a higher --max-cost" if summary.stopped == "max_cost" else " to go on"


def _lost(cost: float) -> str:
    return f"; up to {_dollars(cost)} more for calls that got no answer" if cost else ""


def _dollars(cost: float | None) -> str:
    if cost is None:
        return "cost unknown"
    return f"${cost:,.2f}" if cost >= 1 or cost == 0 else f"${cost:,.4f}"


def printable_line(line: str) -> str:
    """One line, its indentation kept."""
    return line[: len(line) - len(line.lstrip())] + printable(line)
