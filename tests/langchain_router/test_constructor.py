"""What the constructor takes and refuses, and what the pair says about itself."""

from __future__ import annotations

import copy
import json
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumps
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_router import RoutedChatModel
from prefroute import ConfigurationError, RouterNotFoundError, RoutingStats, ThresholdError, decider
from prefroute.routers.baselines import RandomRouter
from prefroute.testing import FixedRouter

UNSET = {"router_threshold": None, "router_strong_rate": None, "router_route": None}
"""What routing can be configured by: without defaults, so that two routed models of one chain do not conflict."""


def test_it_is_a_chat_model(setup: Any) -> None:
    assert isinstance(setup().model, BaseChatModel)


def test_children_and_router_are_kept_as_they_are(setup: Any) -> None:
    stats = RoutingStats()
    pair = setup(stats=stats)
    assert pair.model.strong is pair.strong
    assert pair.model.weak is pair.weak
    assert pair.model.router is pair.router
    assert pair.model.stats is stats
    assert setup().model.stats is not setup().model.stats


def test_a_router_is_loaded_by_name(setup: Any) -> None:
    with pytest.raises(RouterNotFoundError, match="no-such-router"):
        setup(router="no-such-router")
    with pytest.raises(ConfigurationError, match=r"router must be a Router.*got int"):
        setup(router=3)


@pytest.mark.parametrize("name", [None, "owner/name", Path("folder")])
def test_no_router_means_the_bundled_one(monkeypatch: pytest.MonkeyPatch, fake: Any, name: Any) -> None:
    asked, bundled = [], FixedRouter()
    monkeypatch.setattr(decider, "load_router", lambda name: asked.append(name) or bundled)
    model = RoutedChatModel(strong=fake(model_name="s"), weak=fake(model_name="w"), router=name)
    assert model.router is bundled
    assert asked == [name]


def test_a_strong_rate_stands_in_for_a_threshold(setup: Any, fake: Any, tmp_path: Path) -> None:
    prompts = [f"prompt {number}" for number in range(200)]
    router = RandomRouter()
    router.calibrate(prompts, 0.3)
    router.save_pretrained(tmp_path)
    for given in (router, tmp_path):
        model = setup(router=given, strong_rate=0.7).model
        assert model.threshold == router.threshold_for(0.7)
        model.batch(prompts)
        assert model.stats.strong_rate == 0.705  # 141 of 200: the 141st score of 201 places
        drift = model.stats.drift()
        assert (drift.n, drift.strong_rate, drift.drifted) == (200, 0.705, False)
    assert setup(router=router).model.threshold is None  # the router's own, at each call
    with pytest.raises(ConfigurationError, match="needs a calibrated router"):
        setup(strong_rate=0.3)
    with pytest.raises(ConfigurationError, match="not both"):
        setup(router=router, strong_rate=0.3, threshold=0.5)


def test_no_threshold_at_all_is_refused(setup: Any) -> None:
    with pytest.raises(ThresholdError, match="FixedRouter has no default threshold"):
        setup(router=FixedRouter(threshold=None))
    assert setup(router=FixedRouter(threshold=None), threshold=0.0).model.threshold == 0.0
    with pytest.raises(ThresholdError, match="finite"):
        setup(threshold=float("nan"))


@pytest.mark.parametrize("name", ["treshold", "on_error", "model"])
def test_unknown_names_are_refused(setup: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"RoutedChatModel has no {name}; it has .*threshold"):
        setup(**{name: 0.1})


def test_a_subclass_may_have_more_fields(fake: Any) -> None:
    class Mine(RoutedChatModel):
        extra: int = 0

    model = Mine(strong=fake(model_name="s"), weak=fake(model_name="w"), router=FixedRouter(), extra=3)
    assert model.extra == 3


def test_parameters_of_every_chat_model_are_warned_about(setup: Any) -> None:
    with pytest.warns(UserWarning, match="ignores api_key, temperature: set them on") as caught:
        pair = setup(temperature=0, api_key="sk-secret")
    assert "sk-secret" not in str(caught[0].message)
    assert "sk-secret" not in repr(pair.model)


@pytest.mark.parametrize("child", [None, b"openai:gpt-5", 3])
def test_a_child_must_be_a_runnable(fake: Any, child: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"weak must be a LangChain chat model.*{type(child).__name__}"):
        RoutedChatModel(strong=fake(model_name="s"), weak=child, router=FixedRouter())


@pytest.mark.parametrize(
    "settings",
    [
        {"on_router_error": "retry"},
        {"on_router_error": ["strong"]},
        {"router_time_limit": 0},
        {"router_time_limit": float("inf")},
        {"router_time_limit": float("nan")},
        {"router_time_limit": True},
        {"router_time_limit": "1"},
        {"stats": {}},
    ],
)
def test_unusable_policies_are_refused(setup: Any, settings: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"when the router fails|time limit|stats"):
        setup(**settings)


def test_settings_that_work_inside_a_model_are_set_on_copies_of_both(setup: Any, fake: Any) -> None:
    cache, limiter = InMemoryCache(), InMemoryRateLimiter()
    strong, weak, other = (fake(model_name=name) for name in ("strong", "weak", "other"))
    model = setup(
        strong=strong.bind(temperature=1).with_retry(),
        weak=weak.with_fallbacks([other]),
        cache=cache,
        rate_limiter=limiter,
        output_version="v1",
        disable_streaming=True,
        verbose=True,
    ).model
    copies = [model.strong.bound.bound, model.weak.runnable, model.weak.fallbacks[0]]
    for made in copies:
        assert (made.cache, made.rate_limiter) == (cache, limiter)
        assert (made.output_version, made.disable_streaming, made.verbose) == ("v1", True, True)
    assert [made.model_name for made in copies] == ["strong", "weak", "other"]
    assert model.strong.kwargs == {"temperature": 1}
    for given in (strong, weak, other):
        assert given.cache is None
        assert given.disable_streaming is False


def test_a_copy_does_not_describe_the_model_as_it_was(setup: Any, fake: Any) -> None:
    strong = fake(model_name="strong")
    assert "_serialized" in (strong._serialized and strong.__dict__)
    model = setup(strong=strong, disable_streaming=True).model
    assert "_serialized" not in model.strong.__dict__


def test_false_turns_a_cache_off(setup: Any, fake: Any) -> None:
    cached = fake(model_name="strong", cache=InMemoryCache())
    assert setup(strong=cached).model.strong is cached
    assert setup(strong=cached, cache=False).model.strong.cache is False


def test_a_setting_that_nothing_could_carry_out_is_refused(setup: Any) -> None:
    with pytest.raises(
        ConfigurationError, match="cache cannot be set on weak: there is no chat model in RunnableLambda"
    ):
        setup(weak=RunnableLambda(str), cache=InMemoryCache())


def test_output_version_reaches_the_answer(setup: Any) -> None:
    content = setup(output_version="v1").model.invoke("hard").content
    assert content == [{"type": "text", "text": "strong"}]


def test_no_key_is_shown(setup: Any, fake: Any) -> None:
    strong = fake(model_name="strong").bind(api_key="sk-secret", temperature=0.5)
    model = setup(strong=strong, metadata={"key": "sk-secret"}).model
    shown = [repr(model), str(model), dumps(model), json.dumps(model.asdict()), repr(model.bind_tools([]).bound)]
    assert all("sk-secret" not in text for text in shown)
    assert model.asdict() == {
        "strong": {"type": "fake", "ls_provider": "fake", "ls_model_name": "strong", "ls_temperature": 0.5},
        "weak": {"type": "fake", "ls_provider": "fake", "ls_model_name": "weak"},
        "router": "FixedRouter",
        "threshold": 0.5,
        "_type": "prefroute-chat",
    }


def test_tracing_parameters_name_both(setup: Any, fake: Any) -> None:
    params = setup().model._get_ls_params(stop=["x"])
    assert params == {
        "ls_provider": "fake",
        "ls_model_name": "strong|weak",
        "ls_model_type": "chat",
        "ls_stop": ["x"],
    }
    assert setup().model._get_ls_params(model="other")["ls_model_name"] == "other"
    assert setup(weak=RunnableLambda(str)).model._get_ls_params()["ls_provider"] == "router"


def test_config_specs_show_the_threshold(setup: Any, fake: Any) -> None:
    strong = fake(model_name="s").configurable_fields(model_name=ConfigurableField(id="name"))
    model = setup(strong=strong, threshold=0.3).model
    assert {spec.id: spec.default for spec in model.config_specs} == {**UNSET, "name": "s"}
    assert "router_threshold" in json.dumps(model.get_config_jsonschema())


def test_the_profile_is_what_both_can_do(setup: Any, fake: Any) -> None:
    strong = fake(
        model_name="s", profile={"tool_calling": True, "max_input_tokens": 9, "image_inputs": True, "name": "S"}
    )
    weak = fake(model_name="w", profile={"tool_calling": False, "max_input_tokens": 4, "name": "W"})
    assert setup(strong=strong, weak=weak).model.profile == {"tool_calling": False, "max_input_tokens": 4}
    assert setup(strong=strong).model.profile is None
    assert setup(profile={"tool_calling": True}).model.profile == {"tool_calling": True}


@pytest.mark.parametrize(("name", "expected"), [("gemini-2.5-pro", False), ("gemini-3-pro", True)])
def test_gemini_before_3_structures_without_tools_only(setup: Any, fake: Any, name: str, expected: bool) -> None:
    strong = fake(model_name="s", profile={"structured_output": True})
    weak = fake(model_name=name, profile={"structured_output": True})
    assert setup(strong=strong, weak=weak).model.profile == {"structured_output": expected}


def test_tokens_are_counted_so_that_both_fit(setup: Any, fake: Any) -> None:
    strong = fake(model_name="s", custom_get_token_ids=lambda text: [1] * len(text))
    weak = fake(model_name="w", custom_get_token_ids=lambda text: [2] * 2 * len(text))
    model = setup(strong=strong, weak=weak).model
    assert model.get_token_ids("abc") == [1, 1, 1]
    assert model.get_num_tokens("abc") == 6
    assert model.get_num_tokens_from_messages([]) == 0
    assert setup(strong=strong, custom_get_token_ids=lambda _: [7]).model.get_num_tokens("abc") == 1


def test_fields_can_be_made_configurable(setup: Any) -> None:
    pair = setup()
    model = pair.model.configurable_fields(threshold=ConfigurableField(id="t"))
    assert model.invoke("easy", {"configurable": {"t": 0.0}}).content == "strong"
    assert model.invoke("easy").content == "weak"


def test_it_can_be_copied_and_pickled(setup: Any) -> None:
    from langchain_router.demo import OfflineChatModel

    model = setup(strong=OfflineChatModel(side="strong"), weak=OfflineChatModel(side="weak")).model
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert "strong model" in same.invoke("hard").text
        assert same.stats.total == 1
    assert model.stats.total == 0


def test_settings_reach_models_behind_configurable_wrappers(setup: Any, fake: Any) -> None:
    pair = setup()
    fields = pair.strong.configurable_fields(name=ConfigurableField(id="name"))
    alternatives = pair.weak.configurable_alternatives(
        ConfigurableField(id="which"),
        default_key="one",
        other=fake(model_name="other"),
        made=lambda: fake(model_name="made"),
    )
    model = RoutedChatModel(strong=fields, weak=alternatives, router=pair.router, output_version="v1")
    assert model.strong.default.output_version == "v1"
    assert model.weak.default.output_version == "v1"
    assert model.weak.alternatives["other"].output_version == "v1"
    assert model.weak.alternatives["made"]().output_version == "v1"
    assert pair.strong.output_version != "v1"


def test_routed_models_of_different_thresholds_may_stand_in_one_chain(setup: Any) -> None:
    one, other = setup(threshold=0.3).model, setup(threshold=0.6).model
    for both in (one | (lambda message: message.text) | other, one.with_fallbacks([other])):
        assert "router_threshold" in json.dumps(both.get_config_jsonschema())


def test_children_configurable_by_the_same_name_with_different_defaults(setup: Any) -> None:
    pair = setup()
    strong, weak = (
        child.model_copy(update={"name": name}).configurable_fields(name=ConfigurableField(id="name"))
        for child, name in ((pair.strong, "s"), (pair.weak, "w"))
    )
    model = RoutedChatModel(strong=strong, weak=weak, router=pair.router)
    assert {spec.id: spec.default for spec in model.config_specs} == {**UNSET, "name": None}
    same = RoutedChatModel(strong=strong, weak=strong, router=pair.router)
    assert {spec.id: spec.default for spec in same.config_specs} == {**UNSET, "name": "s"}
    outer = RoutedChatModel(strong=same, weak=pair.weak, router=pair.router, threshold=0.25)
    assert {spec.id: spec.default for spec in outer.config_specs} == {**UNSET, "name": "s"}
    assert "name" in str((RunnableLambda(lambda x: x) | model).config_schema().model_json_schema())


def test_a_configurable_default_need_not_be_hashable(setup: Any) -> None:
    pair = setup()
    tagged = pair.strong.model_copy(update={"tags": ["a"]}).configurable_fields(tags=ConfigurableField(id="tags"))
    model = RoutedChatModel(strong=tagged, weak=pair.weak, router=pair.router)
    assert {spec.id: spec.default for spec in model.config_specs} == {**UNSET, "tags": ["a"]}


def test_a_model_with_settings_and_configurable_alternatives_can_be_pickled(setup: Any, fake: Any) -> None:
    pair = setup()
    others: dict[str, Any] = {"made": partial(fake, model_name="made")}
    weak = pair.weak.configurable_alternatives(ConfigurableField(id="which"), default_key="one", **others)
    model = RoutedChatModel(strong=pair.strong, weak=weak, router=pair.router, output_version="v1")
    made: Any = pickle.loads(pickle.dumps(model)).weak
    assert made.alternatives["made"]().output_version == "v1"


def test_a_dump_holds_no_keys_and_no_router(setup: Any) -> None:
    pair = setup()
    model = RoutedChatModel(strong=pair.strong.bind(api_key="sk-secret"), weak=pair.weak, router=pair.router)
    assert "sk-secret" not in model.model_dump_json()
    assert "router" not in model.model_dump()
    assert "sk-secret" not in repr(model.bind(api_key="sk-secret", threshold=0.25))
    assert "0.25" in repr(model.bind(api_key="sk-secret", threshold=0.25))
