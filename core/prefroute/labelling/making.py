"""Making one row: both answers, the label, and what went wrong with either."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from prefroute.errors import ConfigurationError
from prefroute.inputs import finite_or_none
from prefroute.labelling._stopping import CallFailedError
from prefroute.labelling.labellers import Answered, UnlabelledError

if TYPE_CHECKING:
    from prefroute.labelling.asking import Asker
    from prefroute.labelling.job import Job
    from prefroute.labelling.journal import Reply
    from prefroute.labelling.labellers import Label
    from prefroute.labelling.rows import Prompt


class Made(NamedTuple):
    """A finished row.

    Attributes:
        row: As it is written.
        fault: What its error counts under; None if it has qualities.
        cut_off: How many of its answers ended at the limit of tokens.
        is_final: Whether another run with the same settings would meet the same fault.
        is_useless: Whether the fault is of replies that were paid for.
    """

    row: dict[str, Any]
    fault: str | None
    cut_off: int
    is_final: bool = False
    is_useless: bool = False


async def make_row(job: Job, asker: Asker, prompt: Prompt) -> Made:
    """Ask for what is not in the work file, and label.

    Args:
        job: What is labelled, and how.
        asker: Makes the calls.
        prompt: One of the job's.

    Returns:
        The row; one with an error has no qualities.

    Raises:
        StoppedError: The run ends first.
    """
    failure: CallFailedError | UnlabelledError | None = job.fault_of(prompt)
    answers: dict[str, Reply] = {}
    if failure is None:
        answers, failure = await _answers(job, asker, prompt)
    row = _without_label(job, prompt, answers)
    judging = _Judging(job, asker)
    if failure is None:
        answered = Answered(prompt.text, answers["strong"].text, answers["weak"].text, prompt.reference)
        try:
            label = _checked(await job.labeller.label(answered, judging))
        except (CallFailedError, UnlabelledError) as error:
            failure = error
            row["verdict"] = getattr(error, "verdict", None)
        else:
            strong, weak = job.names
            row |= {strong: label.strong, weak: label.weak, "verdict": label.verdict}
    row["judge_cost"] = judging.cost
    if failure is not None:
        row["error"] = asker.shown(str(failure))
    cut_off = sum(reply.finish_reason == "length" for reply in answers.values())
    if failure is None:
        return Made(row, None, cut_off)
    is_useless = failure.is_final and isinstance(failure, UnlabelledError) and bool(answers)
    return Made(row, failure.kind, cut_off, failure.is_final, is_useless)


def _checked(label: Label) -> Label:
    """A label that can be written.

    Raises:
        UnlabelledError: It is none, as a labeller of the user's own may give.
    """
    try:
        json.dumps(label.verdict, allow_nan=False)
        if finite_or_none(label.strong) is not None and finite_or_none(label.weak) is not None:
            return label._replace(strong=float(label.strong), weak=float(label.weak))
        found = f"{label.strong!r:.40} and {label.weak!r:.40}"
    except (TypeError, ValueError, RecursionError) as error:
        found = f"a verdict that JSON does not know ({error})"
    kind = "the labeller gave no label"
    msg = f"{kind}: wanted two finite numbers and a verdict of JSON, got {found}"
    raise UnlabelledError(kind, msg)


async def _answers(
    job: Job, asker: Asker, prompt: Prompt
) -> tuple[dict[str, Reply], CallFailedError | UnlabelledError | None]:
    """The answers that there are, and the first thing that is wrong with them."""
    calls = [asker.ask(role, endpoint, prompt.text) for role, endpoint in job.sides.items()]
    # Both are waited for whatever becomes of the other: an answer is paid for.
    replies = await asyncio.gather(*calls, return_exceptions=True)
    answers: dict[str, Reply] = {}
    failure: CallFailedError | UnlabelledError | None = None
    for role, reply in zip(job.sides, replies, strict=True):
        if isinstance(reply, CallFailedError):
            failure = failure or reply
        elif isinstance(reply, BaseException):
            raise reply
        else:
            answers[role] = reply
            failure = failure or useless(role, reply)
    return answers, failure


def useless(role: str, reply: Reply) -> UnlabelledError | None:
    """Why nothing can be made of an answer; None where something can."""
    if reply.fault is not None:
        msg = f"{role}: the answer was paid for and cannot be read: {reply.fault}"
        return UnlabelledError(f"{role}: unreadable answer", msg, is_final=True)
    if reply.text.strip():
        return None
    more = "; a higher max_tokens would help, with which every prompt is asked, and paid for, anew"
    why = more if reply.finish_reason == "length" else ""
    msg = f"{role}: the answer is empty (finish_reason {reply.finish_reason}){why}"
    return UnlabelledError(f"{role}: empty answer", msg, is_final=True)


def _without_label(job: Job, prompt: Prompt, answers: dict[str, Reply]) -> dict[str, Any]:
    """All columns, in order."""
    strong, weak = answers.get("strong"), answers.get("weak")
    costs = {role: job.ledger.cost_of(job.sides[role].model, reply) for role, reply in answers.items()}
    counts = [reply.input_tokens for reply in answers.values() if reply.input_tokens is not None]
    return {
        "prompt": prompt.text,
        **dict.fromkeys(job.names),
        "strong_answer": None if strong is None else strong.text,
        "weak_answer": None if weak is None else weak.text,
        "verdict": None,
        "input_tokens": counts[0] if counts else None,
        "strong_output_tokens": None if strong is None else strong.output_tokens,
        "weak_output_tokens": None if weak is None else weak.output_tokens,
        "strong_cost": costs.get("strong"),
        "weak_cost": costs.get("weak"),
        "judge_cost": None,
        **({} if prompt.reference is None else {"reference": prompt.reference}),
        "error": None,
    }


class _Judging:
    """The judge's calls of one row, and what they cost."""

    def __init__(self, job: Job, asker: Asker) -> None:
        self.cost: float | None = 0.0
        self._job = job
        self._asker = asker

    def code(self, *parts: object) -> str:
        return self._job.code(*parts)

    async def reply(self, text: str) -> Reply:
        judge = self._job.labeller.judge
        if judge is None:
            msg = "a labeller that asks a judge must name it: its property judge is None"
            raise ConfigurationError(msg)
        reply = await self._asker.ask("judge", judge, text)
        cost = self._job.ledger.cost_of(judge.model, reply)
        self.cost = None if cost is None or self.cost is None else self.cost + cost
        return reply
