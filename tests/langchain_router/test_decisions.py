"""The router as a decision model, alone and in LangChain's ModelRouterMiddleware."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("langchain_core.decisions")

from langchain.agents import create_agent
from langchain.agents.middleware import ModelChoice, ModelRouterMiddleware
from langchain_core.decisions import Box, Choice, Noul, Score
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_router import StrongCallRateHandler
from langchain_router.decisions import RouterDecisionModel
from prefroute import ConfigurationError, RoutingStats, ThresholdError
from prefroute.errors import MissingExtraError, RouterError
from prefroute.recording import Recorder, read_recorded
from prefroute.testing import FailingRouter, FixedRouter, SlowRouter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCORES = {"hard": 0.9, "easy": 0.1}
WHICH = Choice(instructions="Which model?", criteria={"strong": "hard tasks", "weak": None})


def model(**settings: Any) -> RouterDecisionModel:
    return RouterDecisionModel(**{"router": FixedRouter(0.5, SCORES), **settings})


def asked(state: Any, **questions: Any) -> dict[str, Any]:
    return {"state": state, "questions": questions or {"which": WHICH}}


@pytest.fixture(params=["invoke", "ainvoke"])
def ask(request: pytest.FixtureRequest) -> Any:
    async def call(runnable: Any, given: Any, config: Any = None) -> Any:
        if request.param == "invoke":
            return runnable.invoke(given, config)
        return await runnable.ainvoke(given, config)

    return call


# --- what is kept ---


async def test_a_recorder_keeps_each_decision_by_the_id_of_the_answer(ask: Any, tmp_path: Path) -> None:
    with Recorder(tmp_path / "traffic.sqlite") as recorder:
        deciding = model(record=recorder)
        responses = [await ask(deciding, asked(text)) for text in ("hard", "easy")]
        assert recorder.feedback(responses[0].request_id, "good")
    kept = {item.decision.id: item for item in read_recorded(tmp_path / "traffic.sqlite")}
    assert [kept[response.request_id].prompt for response in responses] == ["hard", "easy"]
    assert [kept[response.request_id].rating for response in responses] == [1.0, None]
    assert "traffic" not in repr(deciding)


# --- what it answers ---


@pytest.mark.parametrize(
    ("text", "threshold", "choice", "strong"),
    [
        ("hard", None, "strong", 0.9),
        ("easy", None, "weak", 0.1),
        ("easy", 0.1, "strong", 0.1),
        ("easy", 0.0, "strong", 0.1),
        ("hard", 1.5, "weak", 0.9),
    ],
)
async def test_a_choice_is_the_side_and_its_chances_the_score(
    ask: Any, text: str, threshold: Any, choice: str, strong: float
) -> None:
    response = await ask(model(threshold=threshold), asked(text))
    answer = response.choices["which"]
    assert (answer.type, answer.choice) == ("choice", choice)
    assert answer.probabilities == pytest.approx({"strong": strong, "weak": 1 - strong})
    assert answer.confidence == answer.probabilities[choice]
    assert response.model == "FixedRouter"
    assert response.request_id


async def test_a_noul_is_the_score_whatever_the_threshold(ask: Any) -> None:
    response = await ask(model(threshold=1.0), asked("hard", needed=Noul(instructions="Is it?"), which=WHICH))
    assert response.nouls["needed"].noul == 0.9
    assert response.choices["which"].choice == "weak"
    assert list(response.answers) == ["needed", "which"]


async def test_several_questions_are_one_decision(ask: Any) -> None:
    decider = model()
    await ask(decider, asked("hard", one=WHICH, two=WHICH, three=Noul(instructions="Is it?")))
    assert decider.stats.snapshot()["by_route"] == {"strong": 1, "weak": 0}
    assert decider.router.prompts == ["hard"]


async def test_labels_may_be_ones_own(ask: Any) -> None:
    decider = model(strong="gpt", weak="mini")
    question = Choice(instructions="Which?", criteria={"mini": 1, "gpt": 2})
    answer = (await ask(decider, asked("easy", which=question))).choices["which"]
    assert (answer.choice, answer.confidence) == ("mini", 0.9)
    assert answer.probabilities == pytest.approx({"gpt": 0.1, "mini": 0.9})
    with pytest.raises(ConfigurationError, match="between 'gpt' and 'mini'"):
        await ask(decider, asked("easy"))


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        (Score(instructions="How hard?", criteria=["not", "very"]), "Score"),
        (Box(instructions="Where?"), "Box"),
        (Choice(instructions="Which?", criteria={"strong": 1}), "Choice"),
        (Choice(instructions="Which?", criteria={"strong": 1, "weak": 2, "other": 3}), "Choice"),
        (Choice(instructions="Which?", criteria={"Strong": 1, "weak": 2}), "Choice"),
    ],
)
async def test_a_question_that_no_router_can_answer_is_refused_before_it_is_asked(
    ask: Any, question: Any, kind: str
) -> None:
    decider = model()
    with pytest.raises(ConfigurationError, match=f"question 'odd' is a {kind}"):
        await ask(decider, asked("hard", which=WHICH, odd=question))
    assert (decider.router.prompts, decider.stats.total) == ([], 0)


async def test_the_labels_of_a_refused_choice_are_told(ask: Any) -> None:
    question = Choice(instructions="Which?", criteria=dict.fromkeys("badcfe"))
    with pytest.raises(ConfigurationError, match="Choice between 'b', 'a', 'd', 'c', 'f', 'e'"):
        await ask(model(), asked("hard", odd=question))


# --- what it reads ---


CALL = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("hard", "hard"),
        ("", ""),
        (HumanMessage("hard"), "hard"),
        (HumanMessage([{"type": "text", "text": "hard"}, {"type": "image", "url": "x"}]), "hard"),
        (AIMessage("hard"), "hard"),
        ([SystemMessage("Be brief."), HumanMessage("hard"), CALL, ToolMessage("x", tool_call_id="1")], "hard"),
        ((HumanMessage("easy"), AIMessage("ok"), HumanMessage("hard")), "hard"),
        ({"messages": [HumanMessage("easy"), HumanMessage("hard")], "user": "me"}, "hard"),
        ({"messages": "hard"}, "hard"),
        ({"messages": HumanMessage("hard")}, "hard"),
        ([HumanMessage("<system-reminder>x</system-reminder>hard")], "hard"),
        (["a", "b"], '["a", "b"]'),
        ([], "[]"),
        ({}, "{}"),
        ({"ticket": "größer", "n": 3, "ok": None}, '{"ticket": "größer", "n": 3, "ok": null}'),
        ([HumanMessage("hard"), {"n": 1}], None),
        ({"messages": [{"role": "user", "content": "hard"}]}, "hard"),
        ({"task": HumanMessage("hard")}, '{"task": "hard"}'),
    ],
)
async def test_a_state_of_any_kind_is_read(ask: Any, state: Any, text: str | None) -> None:
    decider = model()
    await ask(decider, asked(state))
    assert len(decider.router.prompts) == 1
    assert text is None or decider.router.prompts == [text]
    assert decider.stats.snapshot()["by_reason"] == {"score": 1}


# --- when the router fails ---


@pytest.mark.parametrize(
    ("settings", "side"),
    [
        ({"router": FailingRouter()}, "strong"),
        ({"router": FailingRouter(on_error="weak")}, "weak"),
        ({"router": FailingRouter(on_error="raise"), "on_router_error": "weak"}, "weak"),
        ({"router": FixedRouter(float("nan"))}, "strong"),
        ({"router": SlowRouter(0.2, 0.1), "router_time_limit": 0.01}, "strong"),
    ],
)
async def test_a_router_that_fails_is_a_side_without_confidence(ask: Any, settings: Any, side: str) -> None:
    decider = model(**settings)
    response = await ask(decider, asked("easy", which=WHICH, needed=Noul(instructions="Is it?")))
    answer = response.choices["which"]
    assert (answer.choice, answer.confidence) == (side, 0.0)
    assert answer.probabilities[side] == 1.0
    assert response.nouls["needed"].noul == (1.0 if side == "strong" else 0.0)
    assert decider.stats.snapshot()["by_reason"] == {"router_error": 1}


async def test_a_router_that_is_to_raise_raises(ask: Any) -> None:
    for settings in (
        {"router": FailingRouter(on_error="raise")},
        {"router": FailingRouter(), "on_router_error": "raise"},
    ):
        with pytest.raises(RouterError):
            await ask(model(**settings), asked("easy"))


class Unreadable(HumanMessage):
    @property
    def text(self) -> Any:
        raise ValueError


async def test_a_state_that_cannot_be_read_counts_as_a_failure_of_the_router(ask: Any) -> None:
    decider = model(on_router_error="weak")
    for state in (Unreadable("hard"), [Unreadable("hard")]):
        assert (await ask(decider, asked(state))).choices["which"].choice == "weak"
    assert decider.stats.snapshot()["by_reason"] == {"router_error": 2}


# --- what it is ---


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"strong": "same", "weak": "same"}, ConfigurationError, "must differ"),
        ({"threshold": float("inf")}, ThresholdError, "finite"),
        ({"router": FixedRouter(threshold=None)}, ThresholdError, "no default threshold"),
        ({"strong_rate": 0.3}, ConfigurationError, "calibrated"),
        ({"on_router_error": "both"}, ConfigurationError, "must be one of"),
        ({"router_time_limit": 0}, ConfigurationError, "positive number of seconds"),
        ({"stats": 7}, ConfigurationError, "stats must be"),
        ({"router": 7}, ConfigurationError, "router must be"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        model(**settings)


async def test_a_strong_rate_stands_in_for_a_threshold(ask: Any) -> None:
    prompts = [f"prompt {number}" for number in range(100)]
    router = FixedRouter(0.5, {prompt: number / 100 for number, prompt in enumerate(prompts)})
    router.calibrate(prompts, 0.5)
    decider = model(router=router, strong_rate=0.1)
    assert decider.threshold == router.threshold_for(0.1)
    choices = [(await ask(decider, asked(prompt))).choices["which"].choice for prompt in ("prompt 80", "prompt 95")]
    assert choices == ["weak", "strong"]
    assert decider.stats.drift() is not None


def test_numbers_of_numpy_are_taken() -> None:
    assert model(threshold=np.float32(0.5), router_time_limit=np.float64(3)).threshold == 0.5


async def test_an_event_loop_is_not_held_up() -> None:
    threads: list[threading.Thread] = []

    class Noting(FixedRouter):
        def win_probability(self, prompts: Any) -> Any:
            threads.append(threading.current_thread())
            return super().win_probability(prompts)

    await model(router=Noting(0.1)).ainvoke(asked("easy"))
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


async def test_its_run_tells_who_answered_and_is_one(ask: Any, recorder: Any) -> None:
    await ask(model(), asked("hard"), {"callbacks": [recorder], "metadata": {"mine": 1}})
    ((kind, metadata),) = recorder.started
    assert (kind, metadata["mine"]) == ("chain", 1)  # it has no messages to start a chat model's run with
    assert (metadata["ls_provider"], metadata["ls_model_name"]) == ("prefroute", "FixedRouter")


async def test_batches() -> None:
    stats = RoutingStats()
    decider = model(stats=stats)
    given = [asked(text) for text in ("hard", "easy") * 8]
    for responses in (decider.batch(given), await decider.abatch(given)):
        assert [response.choices["which"].choice for response in responses] == ["strong", "weak"] * 8
    assert decider.stats is stats
    assert stats.snapshot()["by_route"] == {"strong": 16, "weak": 16}


def test_it_composes_and_shows_no_router_in_its_fields() -> None:
    chain = model() | (lambda response: response.choices["which"].choice)
    assert chain.invoke(asked("hard")) == "strong"
    assert {"router", "stats"}.isdisjoint(json.loads(json.dumps(model().model_dump())))


def test_two_do_not_share_their_statistics() -> None:
    one, other = model(), model()
    one.invoke(asked("hard"))
    assert (one.stats.total, other.stats.total) == (1, 0)


# --- in LangChain's own middleware ---


@pytest.fixture
def agent(fake: Any) -> Callable[..., Any]:
    def make(decider: Any, labels: tuple[str, str] = ("strong", "weak")) -> Any:
        choices = {label: ModelChoice(fake(model_name=label), f"for {label}") for label in labels}
        middleware = ModelRouterMiddleware(choices=choices, instructions="Which model?", classifier=decider)
        return create_agent(fake(model_name="base", failures=99), middleware=[middleware])

    return make


@pytest.mark.filterwarnings("ignore:.*beta:langchain_core._api.beta_decorator.LangChainBetaWarning")
async def test_langchains_middleware_routes_by_it(ask: Any, agent: Any, recorder: Any) -> None:
    decider = model(strong="gpt", weak="mini")
    made = agent(decider, ("gpt", "mini"))
    for text, label in (("hard", "gpt"), ("easy", "mini")):
        state = await ask(made, {"messages": [HumanMessage("hard"), HumanMessage(text)]}, {"callbacks": [recorder]})
        assert state["messages"][-1].content == state["model_route"].choice == label
    assert decider.router.prompts == ["hard", "easy"]
    assert decider.stats.snapshot()["by_route"] == {"strong": 1, "weak": 1}
    providers = [metadata.get("ls_provider") for kind, metadata in recorder.started if kind == "chain"]
    assert providers.count("prefroute") == 2


@pytest.mark.filterwarnings("ignore:.*beta:langchain_core._api.beta_decorator.LangChainBetaWarning")
async def test_a_router_that_fails_does_not_end_the_run_of_such_an_agent(ask: Any, agent: Any) -> None:
    state = await ask(agent(model(router=FailingRouter())), {"messages": "easy"})
    assert (state["messages"][-1].content, state["model_route"].confidence) == ("strong", 0.0)


@pytest.mark.filterwarnings("ignore:.*beta:langchain_core._api.beta_decorator.LangChainBetaWarning")
async def test_a_handler_counts_no_decision_that_no_model_call_carries(ask: Any, agent: Any) -> None:
    rate = StrongCallRateHandler()
    await ask(agent(model()), {"messages": "hard"}, {"callbacks": [rate]})
    assert rate.snapshot()["total"] == 0
    assert rate._runs == {}


# --- where a package is missing ---


class NotInstalled:
    """Finds no package of one name, as if it were not installed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(self, name: str, *_: Any) -> None:
        if name == self._name:
            raise ModuleNotFoundError(name=name)


def test_a_langchain_core_without_decisions_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_core.decisions", None)
    monkeypatch.delitem(sys.modules, "langchain_router.decisions")
    with pytest.raises(
        MissingExtraError, match=r'needs langchain-core 1\.8 or later: pip install "langchain-core>=1\.8"'
    ):
        importlib.import_module("langchain_router.decisions")


@pytest.mark.parametrize(("missing", "told"), [("langchain", MissingExtraError), ("langgraph", ModuleNotFoundError)])
def test_a_missing_langchain_is_told_and_nothing_else_is_mistaken_for_it(
    monkeypatch: pytest.MonkeyPatch, missing: str, told: type[Exception]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in {"langchain", "langgraph"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "langchain_router.middleware", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled(missing), *sys.meta_path])
    with pytest.raises(told) as error:
        importlib.import_module("langchain_router.middleware")
    assert type(error.value) is told
    if told is MissingExtraError:
        assert str(error.value) == 'RouterMiddleware needs langchain: pip install "prefroute[langchain-agents]"'
