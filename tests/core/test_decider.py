"""The settings that an adapter asks a router with."""

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
from prefroute.decider import Decider
from prefroute.persistence import DEFAULT_ROUTER
from prefroute.testing import FailingRouter, FixedRouter, SlowRouter


async def test_its_settings_reach_the_router_and_each_decision_is_counted_once() -> None:
    stats = RoutingStats()
    decider = Decider(router=FixedRouter(0.6, threshold=0.1), threshold=0.7, stats=stats)
    assert decider.decide("x").route == "weak"
    assert decider.decide("x", 0.0).route == "strong"
    assert (await decider.adecide("x", 0.5)).threshold == 0.5
    assert [d.route for d in decider.decide_batch(["a", "b"])] == ["weak", "weak"]
    assert [d.threshold for d in await decider.adecide_batch(["a", "b"], 0.2)] == [0.2, 0.2]
    assert stats.snapshot()["by_route"] == {"strong": 4, "weak": 3}
    assert Decider(router=FixedRouter(0.6, threshold=0.1)).decide("x").threshold == 0.1


def test_its_policy_overrides_the_router() -> None:
    assert Decider(router=FailingRouter(), on_error="weak").decide("x").route == "weak"
    with pytest.raises(RouterError):
        Decider(router=FailingRouter(), on_error="raise").decide("x")
    assert Decider(router=SlowRouter(30), time_limit=0.01).decide("x").reason == "router_error"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"router": FixedRouter(threshold=None)}, ThresholdError),
        ({"threshold": float("nan")}, ThresholdError),
        ({"on_error": "shrug"}, ConfigurationError),
        ({"time_limit": -1}, ConfigurationError),
        ({"stats": {}}, ConfigurationError),
        ({"router": 0.5}, ConfigurationError),
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
    assert decider.decide_unasked("weak", "capability") == RoutingDecision("weak", None, 0.3, "capability")
    assert decider.decide_unasked("weak", "capability", 0.4).threshold == 0.4
    assert decider.stats.snapshot()["by_reason"] == {"capability": 2}
    assert router.prompts == []
    with pytest.raises(ThresholdError):
        Decider(router=FixedRouter(threshold=None)).decide_unasked("weak", "capability")
