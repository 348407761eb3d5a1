"""What can be constructed, and how it is shown, stored and refused."""

from __future__ import annotations

import copy
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.tools import ToolMetadata
from pydantic import BaseModel

from llamaindex_router import RoutedLLM, RouterSelector
from prefroute import ConfigurationError, PersistenceError, RouterNotFoundError, RoutingStats, ThresholdError
from prefroute.routers.baselines import RandomRouter
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from conftest import DialectLLM


class Answer(BaseModel):
    """An answer."""


def test_bases(routed: RoutedLLM) -> None:
    # By name, as the framework's own integrations are checked: a second copy of the core must not matter.
    names = [base.__name__ for base in type(routed).__mro__]
    assert BaseLLM.__name__ in names
    assert FunctionCallingLLM.__name__ in names
    assert RoutedLLM.class_name() == "RoutedLLM"


def test_inner_llms_are_the_ones_given(routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM) -> None:
    assert routed.strong is strong
    assert routed.weak is weak


def test_a_strong_rate_stands_in_for_a_threshold(strong: DialectLLM, weak: DialectLLM) -> None:
    prompts = [f"prompt {number}" for number in range(200)]
    router = RandomRouter()
    router.calibrate(prompts, 0.3)
    routed = RoutedLLM(strong=strong, weak=weak, router=router, strong_rate=0.7)
    selector = RouterSelector(router=router, strong_rate=0.7)
    assert routed.threshold == router.threshold_for(0.7)
    choices = [ToolMetadata("cheap"), ToolMetadata("dear")]
    for prompt in prompts:
        routed.complete(prompt)
        selector.select(choices, prompt)
    for stats in (routed.stats, selector.stats):
        assert stats.strong_rate == 0.705
        report = stats.drift()
        assert report is not None
        assert (report.n, report.drifted) == (200, False)
    with pytest.raises(ConfigurationError, match="needs a calibrated router"):
        RoutedLLM(strong=strong, weak=weak, router=FixedRouter(), strong_rate=0.3)
    with pytest.raises(ConfigurationError, match="not both"):
        RouterSelector(router=router, strong_rate=0.3, threshold=0.5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"strong": "gpt-5"}, ConfigurationError, "strong must be a LlamaIndex LLM, got str"),
        ({"weak": None}, ConfigurationError, "weak must be a LlamaIndex LLM, got NoneType"),
        ({"router": 3}, ConfigurationError, "router must be .* got int"),
        ({"router": "/no/such/folder"}, RouterNotFoundError, "/no/such/folder"),
        ({"router": FixedRouter(threshold=None)}, ThresholdError, "FixedRouter has no default threshold"),
        ({"threshold": float("inf")}, ThresholdError, "inf"),
        ({"threshold": "high"}, ThresholdError, "high"),
        ({"on_router_error": "ignore"}, ConfigurationError, "must be one of strong, weak, raise"),
        ({"router_time_limit": 0}, ConfigurationError, "time limit must be a positive number"),
        ({"router_time_limit": "1"}, ConfigurationError, "time limit must be a positive number"),
        ({"stats": {}}, ConfigurationError, "stats must be a RoutingStats, got dict"),
        ({"treshold": 0.5}, TypeError, "unexpected keyword argument 'treshold'"),
        ({"system_prompt": "hi"}, TypeError, "unexpected keyword argument 'system_prompt'"),
    ],
)
def test_refused_arguments(
    strong: DialectLLM,
    weak: DialectLLM,
    router: FixedRouter,
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        RoutedLLM(**{"strong": strong, "weak": weak, "router": router, **arguments})
    if not {"strong", "weak", "system_prompt"} & set(arguments):
        with pytest.raises(error, match=message):
            RouterSelector(**{"router": router, **arguments})


def test_threshold_given_where_the_router_has_none(strong: DialectLLM, weak: DialectLLM, easy: str) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=FixedRouter(0.1, threshold=None), threshold=0.05)
    assert routed.complete(easy).text == "big"


def test_shared_stats(strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str) -> None:
    stats = RoutingStats()
    RoutedLLM(strong=strong, weak=weak, router=router, stats=stats).complete(easy)
    RouterSelector(router=router, stats=stats).select(["a", "b"], easy)
    assert stats.total == 2


def test_keys_are_never_shown(routed: RoutedLLM) -> None:
    shown = [repr(routed), str(routed), str(routed.to_dict()), routed.to_json(), str(routed.to_payload())]
    shown += [str(routed.model_dump()), routed.model_dump_json(), repr(routed.as_structured_llm(Answer))]
    assert "sk-secret" in repr(routed.strong)
    for text in shown:
        assert "sk-secret" not in text
        assert "small" in text


def test_repr(routed: RoutedLLM) -> None:
    assert repr(routed) == "RoutedLLM(strong='big', weak='small', router='FixedRouter', threshold=0.5)"


def test_repr_of_a_model_whose_metadata_fails(routed: RoutedLLM, strong: DialectLLM) -> None:
    class Unknown(type(strong)):
        @property
        def metadata(self) -> Any:
            msg = "Unknown model"
            raise ValueError(msg)

        model: str = "gpt-new"

    routed.strong = Unknown(name="new")
    assert repr(routed).startswith("RoutedLLM(strong='gpt-new', weak='small'")


def test_payload(routed: RoutedLLM) -> None:
    payload = json.loads(json.dumps(routed.to_payload()))
    assert payload["model_name"] == "routed(big|small)"
    assert payload["strong"]["model_name"] == "big"


def test_rebuilding_from_a_dictionary_is_refused(routed: RoutedLLM) -> None:
    with pytest.raises(PersistenceError, match="construct it anew"):
        RoutedLLM.from_dict(routed.to_dict())
    with pytest.raises(PersistenceError, match="construct it anew"):
        RoutedLLM.from_json(routed.to_json())


def test_pickling_is_refused(routed: RoutedLLM) -> None:
    with pytest.raises(PersistenceError, match="cannot be pickled"):
        pickle.dumps(routed)


def test_copies_work(routed: RoutedLLM, easy: str) -> None:
    for twin in (copy.copy(routed), copy.deepcopy(routed)):
        assert twin.complete(easy).text == "small"
