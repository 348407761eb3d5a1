"""Labelling where servers, functions and files do what nobody asked them to."""

from __future__ import annotations

import asyncio
import functools
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from loopback import Body, Fault, LabellingServer, questions

from prefroute.costs import Price
from prefroute.errors import ConfigurationError
from prefroute.labelling import Endpoint, Golden, OwnLabel, PairwiseJudge, ReferenceScore
from prefroute.labelling._gate import LONGEST_HOLD
from prefroute.labelling._lines import LineFile
from prefroute.labelling._replies import reply_of
from prefroute.labelling.golden import choice, exact, numeric
from prefroute.labelling.journal import PaidCall, Reply
from prefroute.labelling.labellers import Label as Given
from prefroute.labelling.spending import Ledger, most_tokens
from prefroute.labelling.verdicts import code_of, parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Rows = list[dict[str, Any]]
Label = "Callable[..., LabelSummary]"
Run = "Callable[..., tuple[int, str, str]]"
PRICES = {name: Price(input=5.0, output=30.0) for name in ("big", "small", "judge")}
HALF = OwnLabel(lambda *_: 0.5, "half")
MANY = 100_000


def ask_again(label: Label, server: LabellingServer, **settings: Any) -> int:
    """How many requests another run makes."""
    before = len(server.requests)
    label(["q"], **settings)
    return len(server.requests) - before


# --- money ---


def paid(model: str = "m", *, output: int = 300, cached: int = 0) -> PaidCall:
    reply = Reply(text="x", input_tokens=2000, output_tokens=output, cached_tokens=cached)
    return PaidCall(key="k", role="strong", model=model, reply=reply)


def test_cached_tokens_without_a_price_of_their_own_count_as_others() -> None:
    ledger = Ledger({"m": Price(input=5.0, output=30.0)}, 1.0)
    ledger.record_all([paid(), paid(cached=1024), paid()])
    assert ledger.is_known
    assert ledger.spent == pytest.approx(3 * (2000 * 5 + 300 * 30) / 1e6)
    cheaper = Ledger({"m": Price(input=5.0, output=30.0, cached_input=1.0)}, 1.0)
    cheaper.record(paid(cached=1000))
    assert cheaper.spent == pytest.approx((1000 * 5 + 1000 * 1 + 300 * 30) / 1e6)


def test_a_call_without_a_price_hides_no_other() -> None:
    ledger = Ledger({"m": PRICES["big"]}, None)
    ledger.record_all([paid(), paid("free"), paid()])
    assert not ledger.is_known
    assert ledger.spent == pytest.approx(2 * (2000 * 5 + 300 * 30) / 1e6)


@pytest.mark.parametrize(
    ("max_tokens", "outputs", "most"),
    [
        (None, [], 4096),
        (None, [100] * 19, 4096),
        (None, [100] * 20, 150),
        (None, [20_000], 20_000),
        (None, [20_000, *[10] * 30], 30_000),
        (500, [], 500),
        (500, [20_000], 20_000),
    ],
)
def test_money_is_set_aside_for_the_longest_answer(max_tokens: int | None, outputs: list[int], most: float) -> None:
    ledger = Ledger({"m": PRICES["big"]}, 1.0)
    ledger.record_all(paid(output=output) for output in outputs)
    endpoint = Endpoint(model="m", base_url="http://x/v1", max_tokens=max_tokens)
    assert ledger.most_output("strong", endpoint) == most


def test_tokens_of_a_call_to_come_are_counted_high() -> None:
    assert most_tokens("abcd") == 52
    assert most_tokens("中文") == 53


def test_a_model_that_thinks_without_end_passes_the_limit_by_no_more_than_the_calls_on_their_way(
    label: Label, server: LabellingServer, endpoint: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = server.complete
    usage = {"prompt_tokens": 10, "completion_tokens": 20_000, "total_tokens": 20_010}
    monkeypatch.setattr(server, "complete", lambda body: {**complete(body), "usage": usage})
    a_call = (10 * 5 + 20_000 * 30) / 1e6
    summary = label(questions(30), labeller=HALF, prices=PRICES, max_cost=3.0, concurrency=2)
    assert summary.stopped == "max_cost"
    assert (summary.cost or 0.0) <= 3.0 + 2 * a_call


def test_a_limit_is_refused_where_what_was_spent_is_not_known(label: Label, server: LabellingServer) -> None:
    label(questions(2))
    before = len(server.requests)
    known = {name: PRICES[name] for name in ("big", "small")}
    with pytest.raises(ConfigurationError, match=r"holds calls to judge, whose price is not known"):
        label(questions(2), labeller=HALF, restart=True, max_cost=1.0, prices=known)
    assert len(server.requests) == before


# --- replies ---


@pytest.mark.parametrize(
    ("changed", "text", "error"),
    [
        ({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "It is"}]}, "It is", None),
        (
            {"content": [{"type": "text", "text": "worth "}, {"type": "text", "text": "7"}, 3, {"type": "text"}]},
            "worth 7",
            None,
        ),
        ({"content": 7}, "", "small: the answer was paid for and cannot be read: its content is a int"),
        (None, "", "cannot be read: it has no choices"),
    ],
)
def test_whatever_was_paid_for_is_kept_and_not_paid_for_again(
    changed: Body | None,
    text: str,
    error: str | None,
    label: Label,
    server: LabellingServer,
    rows: Callable[[], Rows],
    calls: Callable[[], Rows],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    complete = server.complete

    def odd(body: Body) -> Body:
        whole = complete(body)
        if body["model"] != "small":
            return whole
        message = whole["choices"][0]["message"]
        return {**whole, "choices": [] if changed is None else [{"index": 0, "message": {**message, **changed}}]}

    monkeypatch.setattr(server, "complete", odd)
    summary = label(["q"], labeller=HALF, prices=PRICES)
    (kept,) = (call for call in calls() if call["model"] == "small")
    assert (kept["text"], kept["output_tokens"]) == (text, rows()[0]["weak_output_tokens"])
    assert kept["output_tokens"] > 0
    if error is None:
        assert (summary.labelled, rows()[0]["weak_answer"]) == (1, text)
    else:
        assert error.removeprefix("small: ") in rows()[0]["error"]
        assert summary.final_errors == summary.errors["weak: unreadable answer"] == 1
    assert ask_again(label, server, labeller=HALF) == 0


@pytest.mark.parametrize("body", [{"error": {"message": "no room"}}, [], "text"])
def test_what_is_no_completion_is_asked_for_again_by_the_next_run(
    body: Any, label: Label, server: LabellingServer, calls: Callable[[], Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(server, "complete", lambda _: body)
        summary = label(["q"], labeller=HALF)
    assert summary.errors == {"strong: NoReplyError": 1}
    assert summary.is_to_be_continued
    assert calls() == []
    assert ask_again(label, server, labeller=HALF) == 2


@pytest.mark.parametrize(("reason", "kept"), [("\ud800", "\N{REPLACEMENT CHARACTER}"), (7, None), ("stop", "stop")])
def test_a_reason_of_any_kind_can_be_written(reason: Any, kept: str | None, tmp_path: Path) -> None:
    body = {"choices": [{"message": {"content": "a\ud800"}, "finish_reason": reason}]}
    reply = reply_of(body, 3)
    assert (reply.text, reply.finish_reason, reply.fault) == ("a\N{REPLACEMENT CHARACTER}", kept, None)
    file = LineFile(tmp_path / "lines.jsonl")
    file.append({"text": reply.text, "reason": reason})
    file.close()
    assert LineFile(file.path).read() == [{"text": reply.text, "reason": reason}]


def test_what_cannot_be_written_ends_the_run_in_order(
    label: Label, server: LabellingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(*_: object) -> None:
        msg = "no JSON"
        raise TypeError(msg)

    monkeypatch.setattr("prefroute.labelling.journal.Journal.add", add)
    summary = label(["q"], labeller=HALF)
    assert summary.stopped == "failed"
    assert "the files cannot be written: no JSON" in summary.detail


class _Odd:
    judge = None
    needs_reference = False

    def __init__(self, given: Given) -> None:
        self._given = given

    def settings(self) -> dict[str, Any]:
        return {"labels": "odd"}

    def questions(self, *_: object) -> list[Any]:
        return []

    async def label(self, *_: object) -> Given:
        return self._given


@pytest.mark.parametrize(
    "given",
    [
        Given(1.0, 0.0, float("nan")),
        Given(1.0, 0.0, object()),
        Given(1.0, 0.0, {(1, 2): 3}),
        Given(float("inf"), 0.0, None),
        Given("1", 0.0, None),  # type: ignore[arg-type] # that is the point
    ],
)
def test_a_label_that_cannot_be_written_is_the_error_of_its_row(
    given: Given, label: Label, rows: Callable[[], Rows]
) -> None:
    summary = label(["q", "r"], labeller=_Odd(given))
    assert (summary.errors, summary.stopped) == ({"the labeller gave no label": 2}, None)
    assert {row["big"] for row in rows()} == {None}


def test_surrogates_in_a_verdict_survive(label: Label, rows: Callable[[], Rows]) -> None:
    label(["q"], labeller=_Odd(Given(np.float64(1.0), 0, "\ud800")))
    assert (rows()[0]["verdict"], rows()[0]["big"], rows()[0]["small"]) == ("\ud800", 1.0, 0.0)


def test_both_qualities_of_a_label_are_looked_at(label: Label) -> None:
    summary = label(["q"], labeller=_Odd(Given(0.0, float("nan"), None)))
    assert summary.errors == {"the labeller gave no label": 1}


def test_qualities_are_written_as_floats(label: Label, output: Path) -> None:
    label(["q"], labeller=_Odd(Given(1, 0, None)))
    assert '"big": 1.0, "small": 0.0' in output.read_text()


def test_a_call_that_timed_out_is_not_repeated_and_its_money_stays_set_aside(
    label: Label, endpoint: Callable[..., Endpoint], server: LabellingServer, rows: Callable[[], Rows]
) -> None:
    server.faults = lambda body: Fault(hang=True) if body["model"] == "small" else None
    settings = {"labeller": HALF, "weak": endpoint(model="small", timeout=0.3, max_tokens=1000)}
    assert label(["q"], **settings).errors == {"weak: APITimeoutError": 1}
    assert len(server.asked("small")) == 1
    assert "may be paid for, so it is not asked for again" in rows()[0]["error"]
    server.faults = None
    assert ask_again(label, server, **settings) == 1


async def test_money_that_may_be_gone_is_not_spent_twice() -> None:
    ledger = Ledger({"m": Price(input=0.0, output=1000.0)}, 1.0)
    endpoint = Endpoint(model="m", base_url="http://x/v1", max_tokens=600)
    reserved = await ledger.reserve("strong", endpoint, 0)
    assert reserved is not None
    with reserved:
        reserved.lose()
    assert await ledger.reserve("strong", endpoint, 0) is None


# --- long texts ---

CODE = code_of(b"secret", "call")


@pytest.mark.parametrize("fill", ["\n", " ", "*", " *", "$", "1 ", "(", "`"])
@pytest.mark.parametrize("lead", ["Answer:", "The answer is", "option ", "option A is", "\\boxed{", "\\frac{", "A"])
def test_long_runs_of_anything_are_read(lead: str, fill: str) -> None:
    run = lead + fill * (MANY // len(fill))
    assert choice(f"{run}\nThe answer is (B)") == "B"
    assert numeric(f"{run}\n#### 42") == 42.0
    assert exact(f"{run}\nAnswer: Paris.") == "paris"
    assert parse(f"{run}\nSCORE {CODE}: 4", "SCORE", CODE, ("3", "4")) == "4"


def test_the_letter_of_a_claim_is_looked_for_near_its_mark() -> None:
    assert choice("Answer:" + " " * 150 + "c.") == "C"
    assert choice("Answer: b \nmore") == "B"
    assert choice("Answer:" + "\n" * MANY + "see (b)") is None


# --- what no other run would mend ---


@pytest.mark.parametrize("status", [400, 413, 422])
def test_prompts_that_are_refused_stop_no_run_and_come_last(
    status: int, label: Label, server: LabellingServer, endpoint: Callable[..., Endpoint]
) -> None:
    asked = questions(14)
    server.faults = lambda body: Fault(status=status) if body["messages"][-1]["content"] in asked[1:13] else None
    settings: dict[str, Any] = {"labeller": HALF, "concurrency": 1}
    summary = label(asked, **settings)
    assert (summary.stopped, summary.labelled, summary.final_errors) == (None, 2, 12)
    assert not summary.is_to_be_continued
    before = len(server.requests)
    assert label([*asked, "new"], **settings).labelled == 3
    assert server.requests[before]["messages"][-1]["content"] == "new"
    assert label(asked[1:13], **settings).stopped is None, "it answered in an earlier run"


def test_the_summary_parts_errors_that_come_again_from_others(
    run: Run, server: LabellingServer, tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("".join(f"{question}\n" for question in questions(4)))
    output = tmp_path / "my labels.jsonl"
    urls = [word for role in ("strong", "weak", "judge") for word in (f"--{role}-base-url", server.base_url)]
    models = ["--strong", "big", "--weak", "small", *urls, "--judge", "score", "--judge-model", "judge", "--yes"]
    more = ["--max-retries", "0", "--timeout", "20", "--judge-temperature", "0.25", "--concurrency", "1"]
    small = server.says["small"]
    server.says["small"] = lambda said: "" if "number 1:" in said else small(said)
    server.faults = lambda body: Fault(status=500) if "number 2:" in body["messages"][-1]["content"] else None
    command = ["label", str(tmp_path / "p.txt"), "--output", str(output), *models, *more]
    _, out, _ = run(*command)
    assert "1 of the errors would get the same error again" in " ".join(out.split())
    assert "1 prompts have no label yet; run the same command again to go on" in " ".join(out.split())
    assert "prefroute fit" not in out
    assert {body.get("temperature") for body in server.asked("judge")} == {0.25}
    assert {body.get("temperature") for body in server.asked("big")} == {None}
    assert sum("number 2:" in str(body) for body in server.asked("big")) == 1, "not repeated"
    server.faults = None
    status, out, _ = run(*command)
    assert status == 0
    assert f"prefroute fit '{output}' --strong big --weak small --output my-router" in " ".join(out.split())


def test_changed_settings_are_told_how_many_replies_they_use(
    label: Label, endpoint: Callable[..., Endpoint], server: LabellingServer
) -> None:
    label(questions(3))
    with pytest.raises(ConfigurationError, match=r"of which these settings use 6 of 12"):
        label(questions(3), labeller=ReferenceScore(endpoint(model="judge")))
    with pytest.raises(ConfigurationError, match=r"of which these settings use 3 of 12"):
        label(questions(3), strong=endpoint(model="big", max_tokens=9))
    assert len(server.requests) == 12


def test_rows_with_references_are_not_mixed_with_rows_without(label: Label, rows: Callable[[], Rows]) -> None:
    label(["q"], labeller=HALF)
    with pytest.raises(ConfigurationError, match=r"references: False before, True now"):
        label(["q"], labeller=HALF, references=["r"])
    assert len(rows()) == 1


# --- options, signals, loops ---


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--judge", "score", "--judge-model", "j", "--reference-column", "r"], "says nothing to a judge"),
        (["--match", "exact", "--judge-temperature", "0"], "--judge-temperature says nothing without --judge"),
    ],
)
def test_options_that_say_nothing_are_refused(
    more: list[str], message: str, run: Run, server: LabellingServer, tmp_path: Path, output: Path
) -> None:
    (tmp_path / "p.csv").write_text("prompt,r\nq,1\n")
    models = ["--strong", "big", "--weak", "small", "--output", str(output)]
    status, _, err = run("label", str(tmp_path / "p.csv"), *models, *more)
    assert (status, message in err) == (2, True)


@pytest.mark.parametrize("more", [["--turn", "last"], ["--on-bad-row", "raise"]])
def test_options_that_say_nothing_of_a_log_are_refused(more: list[str], run: Run, tmp_path: Path, output: Path) -> None:
    (tmp_path / "log").write_text("")
    models = ["--strong", "big", "--weak", "small", "--output", str(output), "--label-with", "json:dumps"]
    status, _, err = run("label", "--from-log", str(tmp_path / "log"), *models, *more)
    assert (status, f"{more[0]} says nothing of --from-log" in err) == (2, True)


def test_the_applications_own_signal_handlers_come_back(label: Label) -> None:
    def mine(*_: object) -> None:
        pass

    names = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(name, mine) for name in names]
    try:
        label(["q"], labeller=HALF)
        assert [signal.getsignal(name) for name in names] == [mine, mine]
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


async def test_a_running_loop_is_refused_before_anything_is_asked(label: Label, output: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"await alabel_prompts"):
        label(["q"], confirm=lambda _: pytest.fail("asked"))
    assert not output.exists()  # noqa: ASYNC240 - nothing runs beside it


# --- load ---


@pytest.mark.parametrize("asked", [LONGEST_HOLD + 1, 86400])
def test_a_server_that_asks_for_hours_stops_the_run(asked: float, label: Label, server: LabellingServer) -> None:
    server.faults = lambda body: Fault(status=429, retry_after=f"retry-after: {asked:.0f}")
    summary = label(questions(5))
    assert summary.stopped == "failed"
    assert f"asks to be left alone for {asked:.0f} seconds" in summary.detail


def test_a_refusal_holds_back_the_other_models_of_that_server_too(label: Label, server: LabellingServer) -> None:
    late: list[bool] = []
    until_then = [0.0]

    def faults(body: Body) -> Fault | None:
        now = asyncio.get_running_loop().time()
        if not until_then[0]:
            until_then[0] = now + 0.35
            return Fault(status=429, retry_after="retry-after-ms: 400")
        late.append(now >= until_then[0])
        return None

    server.faults = faults
    summary = label(questions(3), labeller=HALF, concurrency=1)
    assert (summary.labelled, summary.refusals) == (3, 1)
    assert all(late)


# --- files ---


def test_a_last_line_that_lacks_only_its_end_is_kept(
    label: Label, output: Path, server: LabellingServer, rows: Callable[[], Rows], caplog: pytest.LogCaptureFixture
) -> None:
    label(questions(2))
    for path in (output, output.with_name("labels.jsonl.calls")):
        path.write_bytes(path.read_bytes()[:-1])
    summary = label(questions(3))
    assert (summary.calls, summary.labelled, len(rows())) == (4, 3, 3)
    assert "cut short" not in caplog.text


def test_a_line_without_an_end_gets_one_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"line": 1}\n{"line": 2}')
    file = LineFile(path)
    assert file.read() == [{"line": 1}, {"line": 2}]
    file.append({"line": 3})
    file.append({"line": 4})
    file.close()
    assert path.read_bytes() == b'{"line": 1}\n{"line": 2}\n{"line": 3}\n{"line": 4}\n'


def test_all_files_are_for_their_owner_alone(label: Label, output: Path) -> None:
    label(["q"], labeller=HALF)
    assert output.stat().st_mode & 0o777 == 0o600
    label(["q"], labeller=HALF, restart=True)
    assert output.stat().st_mode & 0o777 == 0o600


# --- labels ---


def test_answers_that_are_the_same_text_tie_and_no_judge_is_asked(
    label: Label, server: LabellingServer, rows: Callable[[], Rows]
) -> None:
    server.says |= {"big": lambda said: "42\n", "small": lambda said: " 42"}
    summary = label(["q"])
    assert (summary.ties, summary.judged_twice, len(server.asked("judge"))) == (1, 0, 0)
    assert (rows()[0]["big"], rows()[0]["small"], rows()[0]["judge_cost"]) == (0.5, 0.5, 0.0)


async def _later(value: Any, *_: object) -> Any:
    await asyncio.sleep(0)
    return value


class _Callable:
    async def __call__(self, *_: object) -> float:
        return 0.25


@pytest.mark.parametrize(
    ("function", "qualities"),
    [
        (functools.partial(_later, 0.25), (0.25, 0.75)),
        (lambda *_: _later(0.25), (0.25, 0.75)),
        (_Callable(), (0.25, 0.75)),
        (lambda *_: np.array([2.0, 1.0]), (2.0, 1.0)),
        (lambda *_: (np.float32(0.5), np.int64(1)), (0.5, 1.0)),
        (lambda *_: np.array([True, False]), (1.0, 0.0)),
        (lambda *_: np.array(0.25), (0.25, 0.75)),
        (lambda *_: range(2), (0.0, 1.0)),
        (lambda *_: {0: 1.0, 1: 0.0}, (None, None)),
        (lambda *_: {1.0, 0.0}, (None, None)),
        (lambda *_: np.array([1.0, 2.0, 3.0]), (None, None)),
        (lambda *_: "10", (None, None)),
    ],
)
def test_a_function_may_be_called_and_give_its_numbers_in_any_way(
    function: Any, qualities: tuple[Any, Any], label: Label, rows: Callable[[], Rows]
) -> None:
    label(["q"], labeller=OwnLabel(function))
    assert (rows()[0]["big"], rows()[0]["small"]) == qualities


def test_a_reference_that_says_nothing_is_a_final_error(label: Label) -> None:
    assert label(["q", "r"], labeller=Golden("numeric"), references=["many", "7"]).final_errors == 1


def test_a_pairwise_judge_is_still_counted_where_no_answer_is_known(endpoint: Callable[..., Endpoint]) -> None:
    from prefroute.labelling import Answered

    judge = PairwiseJudge(endpoint(model="judge"))
    assert len(judge.questions(Answered("q", "", ""), lambda *_: CODE)) == 2
    assert judge.questions(Answered("q", "a", "a "), lambda *_: CODE) == []
