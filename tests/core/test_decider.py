"""The settings that an adapter asks a router with."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefroute import (
    ConfigurationError,
    RouterError,
    RouterNotFoundError,
    RoutingDecision,
    RoutingStats,
    ThresholdError,
)
from prefroute.conversation import Settled
from prefroute.decider import Ask, Decider
from prefroute.persistence import DEFAULT_ROUTER
from prefroute.testing import FailingRouter, FixedRouter, SlowRouter

AB = [Ask(text="a"), Ask(text="b")]


class CountingRouter(FixedRouter):
    """Remembers the batches it was asked."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batches: list[list[str]] = []

    def win_probability(self, prompts: Sequence[str]) -> Any:
        self.batches.append(list(prompts))
        return super().win_probability(prompts)


async def test_its_settings_reach_the_router_and_each_decision_is_counted_once() -> None:
    stats = RoutingStats()
    decider = Decider(router=FixedRouter(0.6, threshold=0.1), threshold=0.7, stats=stats)
    assert decider.decide(Ask(text="x")).route == "weak"
    assert decider.decide(Ask(text="x", threshold=0.0)).route == "strong"
    assert (await decider.adecide(Ask(text="x", threshold=0.5))).threshold == 0.5
    assert [d.route for d in decider.decide_batch(AB)] == ["weak", "weak"]
    assert [d.threshold for d in await decider.adecide_batch([replace(ask, threshold=0.2) for ask in AB])] == [0.2, 0.2]
    assert stats.snapshot()["by_route"] == {"strong": 4, "weak": 3}
    assert Decider(router=FixedRouter(0.6, threshold=0.1)).decide(Ask(text="x")).threshold == 0.1


def test_its_policy_overrides_the_router() -> None:
    assert Decider(router=FailingRouter(), on_error="weak").decide(Ask(text="x")).route == "weak"
    with pytest.raises(RouterError):
        Decider(router=FailingRouter(), on_error="raise").decide(Ask(text="x"))
    assert Decider(router=SlowRouter(30), time_limit=0.01).decide(Ask(text="x")).reason == "router_error"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"router": FixedRouter(threshold=None)}, ThresholdError),
        ({"threshold": float("nan")}, ThresholdError),
        ({"on_error": "shrug"}, ConfigurationError),
        ({"time_limit": -1}, ConfigurationError),
        ({"stats": {}}, ConfigurationError),
        ({"router": 0.5}, ConfigurationError),
        ({"shadow": "both"}, ConfigurationError),
        ({"on_route": 3}, ConfigurationError),
        ({"on_route": asyncio.sleep}, ConfigurationError),
        ({"threshold": 0.5, "strong_rate": 0.5}, ConfigurationError),
    ],
)
def test_what_no_decision_could_use_is_refused_at_once(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Decider.of(**{"router": FixedRouter(), **settings})


def test_a_usable_one_passes_without_asking_the_router() -> None:
    router, stats = FixedRouter(), RoutingStats()
    made = Decider.of(router, threshold=0.0, on_error="weak", time_limit=5, stats=stats)
    assert made == Decider(router=router, threshold=0.0, on_error="weak", time_limit=5, stats=stats)
    assert router.prompts == []
    assert stats.total == 0
    assert Decider.of(router).stats is not Decider.of(router).stats


def test_a_router_is_loaded_by_folder_and_by_default(tmp_path: Path) -> None:
    assert type(Decider.of(None).router) is type(Decider.of(str(DEFAULT_ROUTER)).router)
    with pytest.raises(RouterNotFoundError):
        Decider.of(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="router must be a Router, a folder, a hub id or None, got float"):
        Decider.of(0.5)


def test_a_decision_without_asking_is_counted_with_its_reason() -> None:
    router = FixedRouter(threshold=0.3)
    decider = Decider(router=router)
    settled = Settled("weak", "capability", "window")
    assert decider.decide(Ask(settled=settled)) == RoutingDecision("weak", None, 0.3, "capability", "window")
    assert decider.decide(Ask(settled=settled, threshold=0.4)).threshold == 0.4
    assert decider.stats.snapshot()["by_reason"] == {"capability": 2}
    assert router.prompts == []
    with pytest.raises(ThresholdError):
        Decider(router=FixedRouter(threshold=None)).decide(Ask(settled=settled))


def test_a_text_that_could_not_be_found_counts_as_a_router_that_failed() -> None:
    ask = Ask(error=ValueError("secret"))
    decision = Decider(router=FixedRouter(0.1)).decide(ask)
    assert (decision.route, decision.reason, decision.score) == ("strong", "router_error", None)
    assert Decider(router=FixedRouter(0.9), on_error="weak").decide(ask).route == "weak"
    with pytest.raises(RouterError) as raised:
        Decider(router=FixedRouter(), on_error="raise").decide(ask)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is ask.error


def test_a_rate_stands_for_the_threshold_of_one_call() -> None:
    router = FixedRouter(0.5, {f"p{i}": i / 100 for i in range(100)})
    router.calibrate(list(router.scores), 0.5)
    decider = Decider(router=router)
    decisions = decider.decide_batch([Ask(text=text, strong_rate=0.2) for text in router.scores])
    assert sum(decision.is_strong for decision in decisions) == 20
    assert len({decision.threshold for decision in decisions}) == 1
    with pytest.raises(ConfigurationError, match="not both"):
        decider.decide(Ask(text="p1", threshold=0.5, strong_rate=0.2))
    with pytest.raises(ConfigurationError, match="needs a calibrated router"):
        Decider(router=FixedRouter()).decide(Ask(text="p1", strong_rate=0.2))


def test_a_batch_asks_the_router_once_for_each_threshold_and_keeps_the_order() -> None:
    router = CountingRouter(0.5, {"a": 0.1, "b": 0.9})
    stats = RoutingStats()
    forced = Ask(settled=Settled("weak", "forced"))
    asks = [Ask(text="a"), forced, Ask(text="b"), Ask(text="a", threshold=0.05), Ask(error=ValueError())]
    decisions = Decider(router=router, stats=stats).decide_batch(asks)
    assert [d.reason for d in decisions] == ["score", "forced", "score", "score", "router_error"]
    assert [d.route for d in decisions] == ["weak", "weak", "strong", "strong", "strong"]
    assert router.batches == [["a", "b"], ["a"]]
    assert stats.total == 5


async def test_what_one_call_of_a_batch_would_raise_may_be_returned() -> None:
    asks = [Ask(text="a"), Ask(text="b", threshold=float("nan")), Ask(text="c", threshold=0.9)]
    stats = RoutingStats()
    decider = Decider(router=FixedRouter(0.6), stats=stats)
    for outcomes in (
        decider.decide_batch(asks, return_exceptions=True),
        await decider.adecide_batch(asks, return_exceptions=True),
    ):
        assert [getattr(outcome, "route", type(outcome)) for outcome in outcomes] == ["strong", ThresholdError, "weak"]
    assert stats.total == 4
    with pytest.raises(ThresholdError):
        decider.decide_batch(asks)
    assert stats.total == 4, "a batch that is refused leaves nothing counted"
    failing = Decider(router=FailingRouter(), on_error="raise")
    outcomes = failing.decide_batch([Ask(text="a"), Ask(settled=Settled("weak", "forced"))], return_exceptions=True)
    assert isinstance(outcomes[0], RouterError)
    assert not isinstance(outcomes[1], Exception)


async def test_a_hook_sees_each_decision_and_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[RoutingDecision] = []
    decider = Decider.of(FixedRouter(0.6), on_route=seen.append)
    made = [decider.decide(Ask(text="a")), await decider.adecide(Ask(settled=Settled("weak", "forced")))]
    made += decider.decide_batch(AB) + await decider.adecide_batch(AB)
    assert [decision.id for decision in seen] == [decision.id for decision in made]

    def fail(_: RoutingDecision) -> None:
        raise RuntimeError

    assert Decider.of(FixedRouter(0.6), on_route=fail).decide(Ask(text="a")).route == "strong"
    assert "on_route failed" in caplog.text


def test_a_shadow_answers_whatever_is_decided() -> None:
    decider = Decider.of(FixedRouter(0.6), shadow="weak")
    decision = decider.decide(Ask(text="a"))
    assert decision.route == "strong"
    assert decider.answers(decision) == "weak"
    assert Decider.of(FixedRouter(0.6)).answers(decision) == "strong"
