"""The selector, alone and inside the framework's routers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.base.base_selector import BaseSelector
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine
from llama_index.core.retrievers import BaseRetriever, RouterRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import QueryEngineTool, RetrieverTool, ToolMetadata

from llamaindex_router import RouterSelector
from llamaindex_router.selector import RouterSelection
from prefroute import ConfigurationError, RouterError
from prefroute.testing import FailingRouter

if TYPE_CHECKING:
    from conftest import EventLog

    from prefroute.testing import FixedRouter

NAMED = [ToolMetadata("cheap", name="mini"), ToolMetadata("dear", name="big")]


class Engine(CustomQueryEngine):
    answer: str

    def custom_query(self, query_str: str) -> str:
        return f"{self.answer}: {query_str}"


class Retriever(BaseRetriever):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=self.text))]


def test_bases() -> None:
    assert BaseSelector.__name__ in [base.__name__ for base in RouterSelector.__mro__]


async def test_by_position(router: FixedRouter, case: tuple[str, str, str]) -> None:
    route, text, _ = case
    selector = RouterSelector(router=router)
    for result in (selector.select(["a", "b"], text), await selector.aselect(["a", "b"], QueryBundle(text))):
        assert isinstance(result, RouterSelection)
        assert result.ind == (0 if route == "strong" else 1)
        assert (result.route, result.threshold) == (route, 0.5)
        assert result.score == (0.9 if route == "strong" else 0.1)
    assert selector.stats.total == 2
    assert selector.get_prompts() == {}


async def test_by_name(router: FixedRouter, case: tuple[str, str, str]) -> None:
    route, text, _ = case
    selector = RouterSelector(router=router, strong="big", weak="mini")
    for choices in (NAMED, NAMED[::-1]):
        assert choices[selector.select(choices, text).ind].name == ("big" if route == "strong" else "mini")
        assert choices[(await selector.aselect(choices, text)).ind].name == ("big" if route == "strong" else "mini")


def test_reasons(router: FixedRouter, easy: str, hard: str) -> None:
    selector = RouterSelector(router=router)
    assert selector.select(NAMED, hard).reason == "P(strong wins)=0.90 >= threshold 0.50 -> strong"
    assert selector.select(NAMED, easy).reason == "P(strong wins)=0.10 < threshold 0.50 -> weak"
    failed = RouterSelector(router=FailingRouter(on_error="weak")).select(NAMED, hard)
    assert (failed.reason, failed.score, failed.ind) == ("the router failed -> weak", None, 1)
    with pytest.raises(RouterError):
        RouterSelector(router=FailingRouter(), on_router_error="raise").select(NAMED, hard)


def test_scores_the_query_alone(router: FixedRouter, easy: str, hard: str) -> None:
    bundle = QueryBundle(query_str=easy, custom_embedding_strs=[hard])
    assert RouterSelector(router=router).select([hard, hard], bundle).route == "weak"
    assert router.prompts == [easy]


@pytest.mark.parametrize("choices", [[], ["one"], ["a", "b", "c"]])
async def test_anything_but_two_choices_is_refused(router: FixedRouter, easy: str, choices: list[Any]) -> None:
    selector = RouterSelector(router=router)
    with pytest.raises(ConfigurationError, match=f"exactly 2 choices.*got {len(choices)}"):
        selector.select(choices, easy)
    with pytest.raises(ConfigurationError, match="exactly 2"):
        await selector.aselect(choices, easy)
    assert router.prompts == []


@pytest.mark.parametrize(
    "choices",
    [
        ["no", "names"],
        [ToolMetadata("a", name="big"), ToolMetadata("b", name="big")],
        [ToolMetadata("a", name="big"), ToolMetadata("b", name="other")],
    ],
)
def test_unusable_names_are_refused(router: FixedRouter, easy: str, choices: list[Any]) -> None:
    with pytest.raises(ConfigurationError, match="must name one of the choices"):
        RouterSelector(router=router, strong="big", weak="mini").select(choices, easy)


@pytest.mark.parametrize("names", [{"strong": "a"}, {"weak": "b"}, {"strong": "a", "weak": "a"}])
def test_names_come_in_pairs(router: FixedRouter, names: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="two different tool names or neither"):
        RouterSelector(router=router, **names)


def test_event(router: FixedRouter, events: EventLog, hard: str) -> None:
    result = RouterSelector(router=router).select(NAMED, hard)
    RouterSelector(router=router).select(["a", "b"], hard)
    named, positional = events.named("RoutingDecisionEvent")
    assert named.decision == result.decision
    assert (named.model_name, positional.model_name) == ("mini", "choice 0")


@pytest.mark.parametrize("select_multi", [False, True])
async def test_in_a_router_query_engine(router: FixedRouter, case: tuple[str, str, str], select_multi: bool) -> None:
    route, text, _ = case
    engine = RouterQueryEngine.from_defaults(
        [QueryEngineTool.from_defaults(Engine(answer=side)) for side in ("strong", "weak")],
        selector=RouterSelector(router=router),
        llm=MockLLM(),
        select_multi=select_multi,
    )
    for response in (engine.query(text), await engine.aquery(text)):
        assert str(response) == f"{route}: {text}"
        assert response.metadata["selector_result"].route == route
    assert engine.get_prompts()


async def test_in_a_router_retriever(router: FixedRouter, case: tuple[str, str, str]) -> None:
    route, text, _ = case
    retriever = RouterRetriever(
        RouterSelector(router=router, strong="s", weak="w"),
        [
            RetrieverTool.from_defaults(Retriever("weak"), name="w", description="d"),
            RetrieverTool.from_defaults(Retriever("strong"), name="s", description="d"),
        ],
        llm=MockLLM(),
    )
    assert [node.text for node in retriever.retrieve(text)] == [route]
    assert [node.text for node in await retriever.aretrieve(text)] == [route]


async def test_gathered_selections_do_not_mix(router: FixedRouter, easy: str, hard: str) -> None:
    selector = RouterSelector(router=router)
    results = await asyncio.gather(*(selector.aselect(NAMED, text) for text in [hard, easy] * 50))
    assert [result.ind for result in results] == [0, 1] * 50
    assert selector.stats.strong_rate == 0.5
