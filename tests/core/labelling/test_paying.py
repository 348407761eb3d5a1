"""What is paid for: whatever may have cost money is counted, and nothing is bought twice."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from loopback import Body, Fault, LabellingServer, questions, until

from prefroute.costs import Price
from prefroute.errors import ConfigurationError
from prefroute.labelling import Endpoint, OwnLabel, alabel_prompts
from prefroute.labelling._gate import Gate
from prefroute.labelling._lines import LineFile
from prefroute.labelling._replies import reply_of
from prefroute.labelling._sending import MayBePaidError, guarded
from prefroute.labelling._servers import IN_A_ROW
from prefroute.labelling._stopping import Stop
from prefroute.labelling.asking import Asker
from prefroute.labelling.journal import Journal, LostCall, PaidCall, Reply, key_of
from prefroute.labelling.spending import Ledger, most_tokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from prefroute.labelling import Estimate

Rows = list[dict[str, Any]]
Label = "Callable[..., LabelSummary]"
HALF = OwnLabel(lambda *_: 0.5, "half")
PRICES = {"big": Price(input=0.0, output=0.0), "small": Price(input=0.0, output=1000.0)}
A_CALL = 0.6
"""US dollars that are set aside for a call of 600 tokens."""


@pytest.fixture
def lost(output: Path) -> Callable[[], Rows]:
    """Reads what was written off."""

    def read() -> Rows:
        lines = output.with_name(f"{output.name}.calls").read_text().splitlines()
        return [item for item in map(json.loads, lines) if item["kind"] == "lost"]

    return read


@pytest.fixture
def weak(endpoint: Callable[..., Endpoint]) -> Callable[..., Endpoint]:
    """The weak model, of which each call may cost `A_CALL`."""
    return lambda **settings: endpoint(**{"model": "small", "max_tokens": 600, **settings})


def of_small(fault: Fault) -> Callable[[Body], Fault | None]:
    return lambda body: fault if body["model"] == "small" else None


# --- what a reply costs ---


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 5060}, 5050),
        ({"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 60}, 50),
        ({"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 0}, 50),
        ({"prompt_tokens": 10, "completion_tokens": 50}, 50),
        ({"completion_tokens": 50, "total_tokens": 5060}, 50),
        ({"prompt_tokens": 10, "total_tokens": 60}, 50),
        ({"prompt_tokens": 10, "completion_tokens": 10**9}, 10**9),
        ({"prompt_tokens": 10, "completion_tokens": 10**9 + 1}, None),
        ({"prompt_tokens": 10}, None),
    ],
)
def test_what_a_model_thought_is_paid_for_even_where_it_is_in_the_total_alone(
    usage: dict[str, int], tokens: int | None
) -> None:
    assert reply_of({"choices": [], "usage": usage}, 3).output_tokens == tokens


def test_a_count_that_cannot_be_is_none(
    label: Label, server: LabellingServer, calls: Callable[[], Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = server.complete
    usage = {"prompt_tokens": 10**400, "completion_tokens": 10**400}
    monkeypatch.setattr(server, "complete", lambda body: {**complete(body), "usage": usage})
    assert label(["q"], labeller=HALF, prices=PRICES).labelled == 1
    assert [(call["input_tokens"], call["output_tokens"]) for call in calls()] == [(None, None)] * 2


def test_a_reply_is_on_disk_before_it_is_accounted_for(
    label: Label, calls: Callable[[], Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[int] = []
    monkeypatch.setattr(Ledger, "record", lambda *_: before.append(len(calls())))
    label(["q"], labeller=HALF, concurrency=1)
    assert before == [1, 2]


def test_a_reply_that_could_not_be_written_is_paid_for_all_the_same(
    label: Label, weak: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "add", add)
    summary = label(["q"], labeller=HALF, prices=PRICES, weak=weak())
    assert summary.stopped == "failed"
    assert sum(line["calls"] for line in summary.paid) == summary.calls > 0


def test_calls_of_unknown_cost_hide_none_of_the_same_model() -> None:
    ledger = Ledger({"m": Price(input=5.0, output=None)}, None)
    for received in (0, 300, 0):
        reply = Reply(text="x", input_tokens=2000, output_tokens=received)
        ledger.record(PaidCall(key="k", role="strong", model="m", reply=reply))
    assert not ledger.is_known
    assert ledger.spent == pytest.approx(2 * 2000 * 5 / 1e6)


# --- what is set aside ---


async def test_a_call_waits_where_those_on_their_way_may_use_up_the_money() -> None:
    ledger = Ledger(PRICES, 1.0)
    endpoint = Endpoint(model="small", base_url="http://x/v1", max_tokens=600)
    first = await ledger.reserve("weak", endpoint, 0)
    assert first is not None
    second = asyncio.create_task(ledger.reserve("weak", endpoint, 0))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not second.done()
    with first:
        pass
    assert await second is not None


@pytest.mark.parametrize(("more", "asked"), [(-0.5, 0), (0.5, 1)])
def test_money_is_set_aside_for_the_most_tokens_of_all_messages(
    more: float, asked: int, label: Label, server: LabellingServer, weak: Callable[..., Endpoint]
) -> None:
    most = most_tokens("question") + most_tokens("instructions")
    prices = {"big": PRICES["big"], "small": Price(input=1e6, output=0.0)}
    settings = {"labeller": HALF, "prices": prices, "weak": weak(system="instructions")}
    label(["question"], max_cost=most + more, **settings)
    assert len(server.asked("small")) == asked


# --- what may be paid for without a reply ---

GONE = [
    (Fault(hang=True), 1, "weak: APITimeoutError", "no answer within 0.3 seconds; a longer timeout may help"),
    (Fault(trickle=0.02), 1, "weak: APITimeoutError", "no answer within 0.3 seconds"),
    (Fault(broken=True), 1, "weak: broken answer", "the answer broke off (RemoteProtocolError"),
    (Fault(drop=True), 2, "weak: APIConnectionError", "the connection was dropped before an answer came (Rem"),
    *((Fault(status=status), 2, f"weak: status {status}", f"(status {status})") for status in (408, 504, 524)),
]


@pytest.mark.parametrize("max_retries", [0, 5])
@pytest.mark.parametrize(("fault", "tries", "kind", "said"), GONE)
def test_what_may_be_paid_for_is_written_off_and_hardly_repeated(
    fault: Fault,
    tries: int,
    kind: str,
    said: str,
    max_retries: int,
    label: Label,
    weak: Callable[..., Endpoint],
    server: LabellingServer,
    rows: Callable[[], Rows],
    lost: Callable[[], Rows],
) -> None:
    server.faults = of_small(fault)
    summary = label(["q"], labeller=HALF, prices=PRICES, weak=weak(timeout=0.3, max_retries=max_retries))
    tries = tries if max_retries else 1
    assert summary.errors == {kind: 1}
    assert summary.stopped is None
    assert len(server.asked("small")) == tries
    assert lost() == [{"kind": "lost", "role": "weak", "model": "small", "amount": A_CALL}] * tries
    assert said in rows()[0]["error"]
    assert "it may be paid for, so it is not asked for again in this run" in rows()[0]["error"]
    assert ("within" in rows()[0]["error"]) == (fault.hang or fault.trickle > 0)


@pytest.mark.parametrize("fault", [Fault(drop=True), Fault(status=504)])
def test_one_more_try_may_help(
    fault: Fault, label: Label, weak: Callable[..., Endpoint], server: LabellingServer, lost: Callable[[], Rows]
) -> None:
    faults = iter([fault])
    server.faults = lambda body: next(faults, None) if body["model"] == "small" else None
    assert label(["q"], labeller=HALF, prices=PRICES, weak=weak()).labelled == 1
    assert len(lost()) == 1


@pytest.mark.parametrize("fault", [Fault(hang=True), Fault(broken=True), Fault(garbled=True)])
def test_money_that_may_be_gone_is_not_spent_again(
    fault: Fault, label: Label, weak: Callable[..., Endpoint], server: LabellingServer
) -> None:
    server.faults = of_small(fault)
    settings = {"labeller": HALF, "prices": PRICES, "concurrency": 1}
    settings |= {"max_cost": 1.5 * A_CALL, "weak": weak(timeout=0.3)}
    assert label(questions(2), **settings).stopped == "max_cost"
    assert len(server.asked("small")) == 1
    server.faults = None
    summary = label(questions(2), **settings)
    assert summary.stopped == "max_cost"
    assert "0 of 0.9 US dollars are spent, up to 0.6 more may be for calls that got no answer" in summary.detail
    assert len(server.asked("small")) == 1, "nor by the next run"
    assert (summary.lost, summary.cost) == (pytest.approx(A_CALL), 0.0)
    asked: list[Estimate] = []
    label(questions(2), **settings, confirm=lambda estimate: bool(asked.append(estimate)))
    assert asked[0].lost == pytest.approx(A_CALL)
    assert not replace(asked[0], cost=A_CALL).is_within
    assert replace(asked[0], cost=A_CALL, lost=0.0).is_within
    assert label(questions(2), **{**settings, "max_cost": 5.0}).labelled == 2


async def test_what_was_given_up_on_its_way_is_written_off(
    endpoint: Callable[..., Endpoint],
    weak: Callable[..., Endpoint],
    server: LabellingServer,
    output: Path,
    lost: Callable[[], Rows],
) -> None:
    server.faults = of_small(Fault(hang=True))
    settings = {"weak": weak(), "labeller": HALF, "output": output, "prices": PRICES, "concurrency": 2}
    run = asyncio.create_task(alabel_prompts(questions(4), strong=endpoint(model="big"), **settings))
    await asyncio.to_thread(until, lambda: len(server.asked("small")) == 2)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert [line["amount"] for line in lost()] == [A_CALL] * 2


def test_a_repeat_needs_money_of_its_own(label: Label, weak: Callable[..., Endpoint], server: LabellingServer) -> None:
    server.faults = of_small(Fault(drop=True))
    summary = label(["q"], labeller=HALF, prices=PRICES, max_cost=1.5 * A_CALL, weak=weak())
    assert summary.stopped == "max_cost"
    assert len(server.asked("small")) == 1


@pytest.mark.parametrize("amount", [None, "much", float("nan"), float("inf"), -1.0])
def test_an_amount_that_cannot_be_is_nothing(amount: object, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl.calls"
    line = {"kind": "lost", "role": "weak", "model": "m", "amount": amount}
    path.write_text("".join(f"{json.dumps(item)}\n" for item in ({"kind": "secret", "value": "00"}, line)))
    journal = Journal(path)
    journal.read()
    assert journal.lost == [LostCall(role="weak", model="m", amount=0.0)]


def test_a_model_that_never_answers_in_time_ends_the_run(
    label: Label, weak: Callable[..., Endpoint], server: LabellingServer
) -> None:
    server.faults = of_small(Fault(hang=True))
    summary = label(questions(IN_A_ROW + 3), labeller=HALF, concurrency=1, weak=weak(timeout=0.05))
    assert (summary.stopped, len(server.asked("small"))) == ("failed", IN_A_ROW)
    assert "no answer within 0.05 seconds" in summary.detail


def test_time_that_a_server_asked_for_is_none_of_the_answers(
    label: Label, weak: Callable[..., Endpoint], server: LabellingServer, lost: Callable[[], Rows]
) -> None:
    faults = iter([Fault(status=429, retry_after="retry-after-ms: 900")])
    server.faults = lambda body: next(faults, None) if body["model"] == "small" else None
    assert label(["q"], labeller=HALF, weak=weak(timeout=0.6)).labelled == 1
    assert lost() == []


class ReadTimeout(Exception):  # noqa: N818 - as HTTP packages call it
    pass


@pytest.mark.parametrize("is_late", [False, True])
async def test_time_to_connect_is_none_of_the_answers_and_a_late_piece_may_be_paid_for(is_late: bool) -> None:
    closed: list[bool] = []

    async def done() -> None:
        closed.append(True)

    response = SimpleNamespace(status_code=200, is_error=False, is_success=True, aread=done, aclose=done)

    async def send(request: Any, *, stream: bool) -> Any:
        assert stream
        await asyncio.sleep(0.1)  # To connect.
        await request.extensions["trace"]("http11.send_request_headers.started", {})
        if is_late:
            raise ReadTimeout
        return response

    sent = guarded(send, Gate(), 0.05)(SimpleNamespace(extensions={}), stream=False)
    if is_late:
        with pytest.raises(MayBePaidError, match=r"no answer within 0.05 seconds"):
            await sent
    else:
        assert await sent is response
        assert closed == [True, True]


# --- refusals ---


@pytest.mark.parametrize(("patience", "calls"), [(0.0, IN_A_ROW), (1000.0, IN_A_ROW + 3)])
def test_refusals_without_a_time_end_the_run_only_after_long(
    patience: float,
    calls: int,
    label: Label,
    weak: Callable[..., Endpoint],
    server: LabellingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prefroute.labelling._servers.PATIENCE", patience)
    monkeypatch.setattr("prefroute.labelling._gate.FIRST_HOLD", 0.001)
    monkeypatch.setattr("prefroute.labelling._gate.LONGEST_OWN_HOLD", 0.002)
    server.faults = of_small(Fault(status=429, retry_after="x-none: 0"))
    summary = label(questions(IN_A_ROW + 3), labeller=HALF, concurrency=1, weak=weak(max_retries=0))
    assert len(server.asked("small")) == calls
    assert summary.stopped == ("failed" if calls == IN_A_ROW else None)


@pytest.mark.parametrize("key_env", ["ONE", "OTHER"])
async def test_a_refusal_holds_back_the_models_of_its_key_alone(
    key_env: str, server: LabellingServer, endpoint: Callable[..., Endpoint], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("ONE", "sk-one-one-one-one")
    monkeypatch.setenv("OTHER", "sk-two-two-two-two")
    server.faults = of_small(Fault(status=429, retry_after="retry-after: 50"))
    stop = Stop()
    asker = Asker(Journal(tmp_path / "labels.jsonl.calls"), Ledger({}, None), stop, 2)
    small, big = endpoint(model="small", key_env="ONE"), endpoint(model="big", key_env=key_env)
    asker.open(small)
    asker.open(big)
    first = asyncio.create_task(asker.ask("weak", small, "q"))
    await asyncio.to_thread(until, lambda: asker.waiting == 1)
    second = asyncio.create_task(asker.ask("strong", big, "q"))
    if key_env == "ONE":
        await asyncio.to_thread(until, lambda: asker.waiting == 2)
    else:
        assert (await asyncio.wait_for(second, 20)).text
    assert len(server.asked("big")) == (key_env == "OTHER")
    stop.set("failed", "enough")
    asker.abandon()
    await asyncio.gather(first, second, return_exceptions=True)
    await asker.close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_nothing_follows_a_redirect(status: int, label: Label, server: LabellingServer) -> None:
    with LabellingServer() as other:
        server.faults = of_small(
            Fault(status=status, retry_after=f"location: http://u:p@127.0.0.1:{other.port}/v1/chat/completions?k=v")
        )
        summary = label(questions(3), labeller=HALF, concurrency=1)
        assert (summary.stopped, len(server.asked("small")), other.requests) == ("failed", 1, [])
        assert f"redirects to {other.base_url}: if you trust that, name it as the base URL" in summary.detail


# --- keys ---


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("not-needed", "Step 2 is not-needed"),
        ("a-key-of-15-cha", "Step 2 is a-key-of-15-cha"),
        ("a-key-of-16-char", "Step 2 is ***"),
    ],
)
def test_a_key_that_may_be_a_word_is_left_in_answers(
    key: str,
    text: str,
    label: Label,
    server: LabellingServer,
    weak: Callable[..., Endpoint],
    rows: Callable[[], Rows],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SMALL_KEY", key)
    server.says["small"] = lambda _: f"Step 2 is {key}"
    label(["q"], labeller=HALF, weak=weak(key_env="SMALL_KEY"))
    assert rows()[0]["weak_answer"] == text
    server.faults = of_small(Fault(status=400, message=f"no {key}"))
    label(["r"], labeller=HALF, weak=weak(key_env="SMALL_KEY"))
    assert "no ***" in rows()[1]["error"]


# --- endpoints ---


def test_a_temperature_of_any_type_is_one_call() -> None:
    same = [Endpoint(model="m", base_url="http://x/v1", temperature=zero) for zero in (0, 0.0, np.float32(0))]
    assert len({key_of("weak", one, "q") for one in same}) == 1
    assert len({json.dumps(one.settings()) for one in same}) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"system": 5},
        {"key_env": 5},
        {"key_env": " "},
        {"key_env": b"sk-secret"},
        *({"base_url": f"http://{place}/v1"} for place in ("[::1", "localhost:abc", "localhost:99999", "localhost:0")),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused_and_its_key_is_not_shown(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as error:
        Endpoint(**{"model": "m", **settings})
    assert next(iter(settings)) in str(error.value)
    assert "secret" not in str(error.value)


# --- files ---


def test_the_end_that_a_line_lacked_comes_with_the_next_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"line": 1}\n{"line": 2}')
    file = LineFile(path)
    file.read()
    real = os.write

    def fail(room: int) -> None:
        def write(descriptor: int, content: Any) -> int:
            real(descriptor, bytes(content[:room]))
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("prefroute.labelling._lines.os.write", write)
            with pytest.raises(OSError, match="No space left"):
                file.append({"line": 3})

    for room in (0, 1, 5):
        fail(room)
        assert path.read_bytes() == b'{"line": 1}\n{"line": 2}'
    for line in (4, 5):
        file.append({"line": line})
        fail(5)
    file.close()
    assert path.read_bytes() == b'{"line": 1}\n{"line": 2}\n{"line": 4}\n{"line": 5}\n'
