"""StrongCallRateHandler."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManager, CallbackManager

from langchain_router import RoutedChatModel, StrongCallRateHandler
from prefroute import ConfigurationError, RoutingDecision
from prefroute.testing import FixedRouter


def decision(route: Any = "strong") -> dict[str, Any]:
    return RoutingDecision(route=route, score=0.5, threshold=0.5, reason="score").as_dict()


def test_rates_over_all_and_over_the_window() -> None:
    handler = StrongCallRateHandler(window=2)
    assert math.isnan(handler.strong_rate)
    assert math.isnan(handler.window_strong_rate)
    for route in ("strong", "strong", "weak", "weak"):
        handler.on_chat_model_start({}, [[]], metadata={"routing": decision(route)})
    assert handler.strong_rate == 0.5
    assert handler.window_strong_rate == 0.0
    assert handler.snapshot()["by_reason"] == {"score": 4}
    handler.reset()
    assert handler.snapshot()["total"] == 0
    with pytest.raises(ConfigurationError):
        StrongCallRateHandler(window=0)


def test_one_decision_counts_once_however_many_runs_show_it() -> None:
    handler = StrongCallRateHandler()
    shown = decision()
    handler.on_chain_start({}, {}, metadata={"routing": shown})
    handler.on_chat_model_start({}, [[]], metadata={"routing": dict(shown)})
    handler.on_llm_start({}, ["x"], metadata={"routing": shown})
    assert handler.snapshot()["total"] == 1
    handler.reset()
    handler.on_chain_start({}, {}, metadata={"routing": shown})
    assert handler.snapshot()["total"] == 1


def test_what_it_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefroute.stats._REMEMBERED", 3)
    handler = StrongCallRateHandler()
    for _ in range(10):
        handler.on_chat_model_start({}, [[]], metadata={"routing": decision()})
    assert len(handler._stats._seen) == 3
    assert handler.snapshot()["total"] == 10


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"routing": None},
        {"routing": "strong"},
        {"routing": 3},
        {"routing": {"route": "strong"}},
        {"routing": {**decision(), "id": ["unhashable"]}},
        {"routing": {**decision(), "route": ["unhashable"]}},
        {"routing": {**decision(), "route": "sideways"}},
        {"routing": {**decision(), "reason": {}}},
        {"routing": [1, 2]},
    ],
)
def test_foreign_metadata_is_passed_over(metadata: Any) -> None:
    handler = StrongCallRateHandler()
    handler.on_chat_model_start({}, [[]], metadata=metadata)
    handler.on_chain_start({}, {}, metadata=metadata)
    snapshot = handler.snapshot()
    assert (snapshot["total"], snapshot["by_route"], snapshot["by_reason"]) == (0, {"strong": 0, "weak": 0}, {})


async def test_async_managers_count_at_once() -> None:
    handler = StrongCallRateHandler()
    manager = AsyncCallbackManager.configure([handler], inheritable_metadata={"routing": decision()})
    await manager.on_chat_model_start({}, [[]])
    await manager.on_chain_start({}, {})
    CallbackManager.configure([handler], inheritable_metadata={"routing": decision("weak")}).on_chain_start({}, {})
    assert handler.strong_rate == 0.5


async def test_it_runs_in_the_loops_own_thread() -> None:
    threads = []

    class Noting(StrongCallRateHandler):
        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            threads.append(threading.current_thread())
            super().on_chain_start(*args, **kwargs)

    await AsyncCallbackManager([Noting()]).on_chain_start({}, {})
    assert threads == [threading.current_thread()]


def test_threads_may_share_it() -> None:
    handler = StrongCallRateHandler()
    shared = [decision() for _ in range(200)]

    def show() -> None:
        for one in shared:
            handler.on_chat_model_start({}, [[]], metadata={"routing": one})

    threads = [threading.Thread(target=show) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert handler.snapshot()["total"] == 200


def test_nested_routed_models_count_both_decisions_and_show_both(setup: Any) -> None:
    inner = setup(router=FixedRouter(0.2)).model
    outer = RoutedChatModel(strong=inner, weak=inner.weak, router=FixedRouter(0.9))
    rate = StrongCallRateHandler()
    message = outer.invoke("hi", config={"callbacks": [rate]})
    assert rate.snapshot()["by_route"] == {"strong": 1, "weak": 1}
    routing = message.response_metadata["routing"]
    assert (routing["route"], routing["inner"]["route"]) == ("strong", "weak")


@pytest.mark.parametrize("metadata", [{"routing": {"route": ["strong"], "reason": "score"}}, 7, {"routing": 7}])
def test_garbage_in_metadata_disturbs_nobody(metadata: Any) -> None:
    rate = StrongCallRateHandler()
    rate.on_chain_start({}, {}, metadata=metadata)
    assert rate.snapshot()["total"] == 0


def test_a_handler_can_be_copied_and_pickled() -> None:
    rate = StrongCallRateHandler()
    for twin in (copy.deepcopy(rate), pickle.loads(pickle.dumps(rate))):
        assert twin.snapshot() == rate.snapshot()
