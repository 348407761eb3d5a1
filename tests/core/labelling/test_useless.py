"""Replies that were paid for and are of no use: the run ends early, and they can be asked for again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from loopback import LabellingServer, questions
from loopback.labelling_server import judge_reply, strong_answer

from prefroute.costs import Price
from prefroute.errors import DataError
from prefroute.labelling import Golden, PairwiseJudge, ReferenceScore, estimate_labels
from prefroute.labelling._servers import IN_A_ROW

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefroute.labelling import Endpoint

Rows = list[dict[str, Any]]
Label = "Callable[..., LabelSummary]"


def nothing(said: str) -> str:
    return "Both are nice."


def test_a_judge_that_cannot_be_read_ends_the_run_and_can_be_asked_again(
    label: Label, server: LabellingServer, calls: Callable[[], Rows]
) -> None:
    server.says["judge"] = nothing
    summary = label(questions(60), concurrency=1)
    assert (summary.labelled, summary.stopped) == (0, "failed")
    assert summary.errors == {"unparsable verdict": IN_A_ROW}
    assert f"{IN_A_ROW} rows in a row" in summary.detail
    assert "Both are nice." in summary.detail
    assert "--ask-again" in summary.detail
    assert len(server.asked("judge")) == 4 * IN_A_ROW

    # What is recorded is neither paid again nor counted again by a run that does not ask for it.
    server.says["judge"] = judge_reply
    made = len(server.requests)
    label(questions(60)[:IN_A_ROW])
    assert len(server.requests) == made

    summary = label(questions(60), ask_again=True)
    assert (summary.labelled, summary.stopped, summary.errors) == (60, None, {})
    assert len(server.asked("big")) == 60
    # One verdict an order for each row, and what was of no use before.
    assert len(server.asked("judge")) == 4 * IN_A_ROW + 2 * 60
    assert {part["role"]: part["calls"] for part in summary.paid} == {
        "strong": 60,
        "weak": 60,
        "judge": 4 * IN_A_ROW + 2 * 60,
    }
    assert len(calls()) == len(server.requests)


def test_what_was_paid_twice_counts_twice_in_the_next_run(label: Label, server: LabellingServer) -> None:
    server.says["judge"] = nothing
    prices = {name: Price(input=1.0, output=1.0) for name in ("big", "small", "judge")}
    label(questions(3), prices=prices)
    server.says["judge"] = judge_reply
    second = label(questions(3), prices=prices, ask_again=True)
    third = label(questions(3), prices=prices)
    assert (second.labelled, third.calls) == (3, 0)
    assert third.cost == second.cost
    assert third.paid == second.paid


@pytest.mark.parametrize("model", ["big", "small"])
def test_blank_answers_end_the_run_and_are_asked_for_again(label: Label, server: LabellingServer, model: str) -> None:
    before = server.says[model]
    server.says[model] = lambda said: " "
    summary = label(questions(40), concurrency=2)
    assert summary.stopped == "failed"
    assert "empty answer" in next(iter(summary.errors))
    assert len(server.asked("judge")) == 0
    server.says[model] = before
    others = {"big": "small", "small": "big"}[model]
    asked = {name: len(server.asked(name)) for name in (model, others)}
    summary = label(questions(40), ask_again=True)
    assert summary.labelled == 40
    assert len(server.asked(model)) == asked[model] + 40
    assert len(server.asked(others)) == 40


def test_faults_between_good_rows_do_not_end_the_run(label: Label, server: LabellingServer) -> None:
    said = {prompt for number, prompt in enumerate(questions(60)) if number % 4}
    server.says["big"] = lambda text: "" if text in said else strong_answer(text)
    summary = label(questions(60), concurrency=1)
    assert (summary.stopped, summary.labelled, summary.errors.total()) == (None, 15, 45)


def test_recorded_faults_end_no_later_run(label: Label, server: LabellingServer) -> None:
    bad = set(questions(IN_A_ROW + 2))
    server.says["big"] = lambda text: "" if text in bad else strong_answer(text)
    assert label(questions(IN_A_ROW - 1)).stopped is None
    assert label(questions(IN_A_ROW + 2)[IN_A_ROW - 1 :]).stopped is None
    summary = label(questions(40))
    assert (summary.stopped, summary.labelled) == (None, 40 - IN_A_ROW - 2)
    assert summary.calls > 0


def test_asking_again_leaves_verdicts_that_can_be_read(
    label: Label, endpoint: Callable[..., Endpoint], server: LabellingServer
) -> None:
    server.says["judge"] = lambda said: judge_reply(said) if "<<<answer A" not in said or _strong_first(said) else "?"
    assert label(questions(3)).errors == {"unparsable verdict": 3}
    server.says["judge"] = judge_reply
    before = len(server.asked("judge"))
    assert label(questions(3), ask_again=True).labelled == 3
    assert len(server.asked("judge")) == before + 3
    scored = label(questions(3), labeller=ReferenceScore(endpoint(model="judge")), restart=True, ask_again=True)
    assert scored.labelled == 3


def _strong_first(said: str) -> bool:
    return said.index("Strong on") < said.index("Weak on")


def test_the_estimate_counts_what_is_asked_again(
    label: Label, endpoint: Callable[..., Endpoint], server: LabellingServer, output: Any
) -> None:
    server.says["judge"] = nothing
    label(questions(3))
    arguments: dict[str, Any] = {
        "strong": endpoint(model="big"),
        "weak": endpoint(model="small"),
        "labeller": PairwiseJudge(endpoint(model="judge")),
        "output": output,
    }
    counts = [
        {part.role: part.calls for part in estimate_labels(questions(3), **arguments, ask_again=again).models}
        for again in (False, True)
    ]
    assert counts == [{"strong": 0, "weak": 0, "judge": 0}, {"strong": 0, "weak": 0, "judge": 6}]


def test_nobody_is_asked_where_no_reference_can_be_compared(label: Label, server: LabellingServer) -> None:
    with pytest.raises(DataError, match=r"none of the 2 references can be compared .* no number in the reference: 'x'"):
        label(["q", "r"], labeller=Golden("numeric"), references=["x", "y"])
    assert server.requests == []
    summary = label(["q", "r"], labeller=Golden("numeric"), references=["x", "7"])
    assert summary.errors == {"no number in the reference": 1}
    assert {body["messages"][-1]["content"] for body in server.requests} == {"r"}
