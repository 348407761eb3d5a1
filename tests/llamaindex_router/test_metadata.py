"""What a pair of LLMs says of itself: what fits both, looked up once until one of them changes."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.llms import ChatMessage, LLMMetadata, MessageRole
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from llamaindex_router import RoutedLLM
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from conftest import DialectLLM, PlainLLM


class Pair(BaseModel):
    """Two numbers."""

    a: int
    b: int


@pytest.fixture
def counting(make_llm: type[DialectLLM]) -> Any:
    """Makes an LLM that counts how often it says something of itself."""

    class Counting(make_llm):  # type: ignore[valid-type, misc]
        model_settings: Any = None

        def _noted(self, method: str, asked: Any, kwargs: dict[str, Any]) -> None:
            """Nothing: what it writes down would be a change of its own."""

        @property
        def metadata(self) -> LLMMetadata:
            LOOKED_UP.setdefault(self.name, []).append(1)
            found = super().metadata
            window = (self.model_settings or {}).get("window", self.context_window)
            return found.model_copy(update={"context_window": window})

    LOOKED_UP.clear()
    return Counting


# Not on the LLM: to count there would be to change it.
LOOKED_UP: dict[str, list[int]] = {}


@pytest.fixture
def pair(counting: Any) -> tuple[Any, Any]:
    return counting(name="big", context_window=128_000), counting(name="small", context_window=8192)


@pytest.fixture
def routed(pair: Any, router: FixedRouter) -> RoutedLLM:
    return RoutedLLM(strong=pair[0], weak=pair[1], router=router)


def test_what_fits_both(routed: RoutedLLM) -> None:
    assert routed.metadata == LLMMetadata(
        context_window=8192,
        num_output=256,
        is_chat_model=True,
        is_function_calling_model=True,
        model_name="routed(big|small)",
    )


async def test_it_is_looked_up_once(routed: RoutedLLM, pair: Any, easy: str, hard: str) -> None:
    first = routed.metadata
    before = {name: len(times) for name, times in LOOKED_UP.items()}
    for _ in range(50):
        assert routed.metadata == first
        for text in (easy, hard):
            routed.chat([ChatMessage(role="system", content="s"), ChatMessage(content=text)])
            routed.complete(text)
            await routed.achat([ChatMessage(content=text)])
            routed.predict(PromptTemplate("{query_str}"), query_str=text)
    # The chosen LLMs look at themselves: for an event's payload, and to choose how they are prompted.
    called = {name: len(times) for name, times in LOOKED_UP.items()}
    LOOKED_UP.clear()
    for _ in range(50):
        for llm, text in zip(pair, (hard, easy), strict=True):
            llm.chat([ChatMessage(role="system", content="s"), ChatMessage(content=text)])
            llm.complete(text)
            await llm.achat([ChatMessage(content=text)])
            llm.predict(PromptTemplate("{query_str}"), query_str=text)
    direct = {name: len(LOOKED_UP.get(name, [])) for name in called}
    assert {name: called[name] - before[name] for name in called} == direct


def test_a_field_of_a_child_may_change(routed: RoutedLLM, pair: Any) -> None:
    strong, weak = pair
    assert routed.metadata.context_window == 8192
    weak.context_window = 4096
    assert routed.metadata.context_window == 4096
    strong.context_window = 2048
    assert routed.metadata.context_window == 2048
    weak.num_output = 512
    assert routed.metadata.num_output == 256
    strong.num_output = 1024
    assert (routed.metadata.context_window, routed.metadata.num_output) == (2048, 1024)
    strong.role = weak.role = MessageRole.USER
    assert routed.metadata.system_role == MessageRole.USER
    weak.name = "smaller"
    assert routed.metadata.model_name == "routed(big|smaller)"
    weak.model_settings = {"window": 512}
    assert routed.metadata.context_window == 512
    weak.model_settings["window"] = 1024
    assert routed.metadata.context_window == 1024, "a change inside a dictionary"
    weak.model_settings = None
    assert routed.metadata.context_window == 2048


def test_a_change_counts_for_the_next_call(routed: RoutedLLM, pair: Any) -> None:
    text = "a word and another " * 1000
    assert routed.chat([ChatMessage(content=text)]).message.content == "small"
    pair[1].context_window = 2048
    response = routed.chat([ChatMessage(content=text)])
    assert response.additional_kwargs["routing"]["detail"] == "window"
    pair[1].context_window = 8192
    assert routed.chat([ChatMessage(content=text)]).message.content == "small"


def test_a_side_may_be_exchanged(routed: RoutedLLM, make_llm: type[DialectLLM], plain: PlainLLM, easy: str) -> None:
    assert routed.metadata.context_window == 8192
    routed.weak = make_llm(name="other", context_window=1000)
    assert routed.metadata.model_name == "routed(big|other)"
    assert routed.metadata.context_window == 1000
    assert routed.complete(easy).text == "other"
    routed.strong = plain
    assert routed.metadata.model_name == "routed(plain|other)"
    assert not routed.metadata.is_function_calling_model
    # Two sides in each other's place are another pair.
    routed.strong, routed.weak = routed.weak, routed.strong
    assert routed.metadata.model_name == "routed(other|plain)"


def test_changes_deep_within_are_seen(routed: RoutedLLM, pair: Any, make_llm: type[DialectLLM]) -> None:
    middle = RoutedLLM(strong=make_llm(name="giant"), weak=routed, router=FixedRouter(0.0))
    outer = RoutedLLM(strong=make_llm(name="titan", context_window=10**6), weak=middle, router=FixedRouter(0.0))
    assert outer.metadata.context_window == 4096
    pair[1].context_window = 1024
    assert outer.metadata.context_window == middle.metadata.context_window == 1024
    routed.weak = make_llm(name="tiny", context_window=600)
    assert outer.metadata.context_window == 600
    assert outer.metadata.model_name == "routed(titan|routed(giant|routed(big|tiny)))"
    routed.strong.num_output = 300
    assert outer.metadata.num_output == 256


def test_nested_pairs_are_looked_up_once(routed: RoutedLLM, make_llm: type[DialectLLM], easy: str) -> None:
    outer = RoutedLLM(strong=make_llm(name="titan"), weak=routed, router=FixedRouter(0.0))
    assert outer.metadata.context_window == 4096
    before = len(LOOKED_UP["small"])
    for _ in range(20):
        assert outer.metadata.context_window == 4096
        assert routed.metadata.context_window == 8192
    assert len(LOOKED_UP["small"]) <= before + 2


def test_other_fields_of_the_pair_change_nothing(routed: RoutedLLM) -> None:
    first = routed.metadata
    before = len(LOOKED_UP["small"])
    routed.threshold = 0.9
    routed.router = FixedRouter(0.2)
    assert routed.metadata == first
    assert len(LOOKED_UP["small"]) == before


def test_a_child_that_does_not_know_itself(
    make_llm: type[DialectLLM], router: FixedRouter, easy: str, hard: str
) -> None:
    class Unknown(make_llm):  # type: ignore[valid-type, misc]
        known: bool = False

        def to_payload(self) -> dict[str, Any]:
            return {}

        @property
        def metadata(self) -> LLMMetadata:
            if not self.known:
                msg = "Unknown model"
                raise ValueError(msg)
            return super().metadata

    strong = Unknown(name="new")
    routed = RoutedLLM(strong=strong, weak=make_llm(name="small", context_window=8192), router=router)
    with pytest.raises(ValueError, match="Unknown model"):
        _ = routed.metadata
    assert routed.chat([ChatMessage(content=hard)]).message.content == "new"
    assert routed.complete(easy).text == "small"
    strong.known = True
    assert routed.metadata.context_window == 4096


def test_copies_have_sides_of_their_own(routed: RoutedLLM, make_llm: type[DialectLLM]) -> None:
    assert routed.metadata.context_window == 8192
    twin = routed.model_copy(deep=True)
    twin.weak.context_window = 100
    assert (routed.metadata.context_window, twin.metadata.context_window) == (8192, 100)
    shallow = routed.model_copy()
    shallow.weak = make_llm(name="other", context_window=50)
    assert (routed.metadata.context_window, shallow.metadata.context_window) == (8192, 50)


def test_threads_see_one_or_the_other(routed: RoutedLLM, pair: Any) -> None:
    seen: set[int] = set()

    def look(number: int) -> None:
        pair[1].context_window = 4096 if number % 2 else 8192
        for _ in range(5):
            seen.add(routed.metadata.context_window)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(100)))
    assert seen <= {4096, 8192}
    pair[1].context_window = 1000
    assert routed.metadata.context_window == 1000


async def test_tasks_see_the_same(routed: RoutedLLM) -> None:
    async def look() -> int:
        await asyncio.sleep(0)
        return routed.metadata.context_window

    assert set(await asyncio.gather(*(look() for _ in range(20)))) == {8192}


@pytest.mark.parametrize("role", list(MessageRole))
def test_a_role_that_both_want_is_told(make_llm: type[DialectLLM], router: FixedRouter, role: MessageRole) -> None:
    both = RoutedLLM(strong=make_llm(name="a", role=role), weak=make_llm(name="b", role=role), router=router)
    assert both.metadata.system_role == role
    one = RoutedLLM(strong=make_llm(name="a", role=role), weak=make_llm(name="b"), router=router)
    assert one.metadata.system_role == MessageRole.SYSTEM


def test_its_structured_llm_says_the_same(routed: RoutedLLM, pair: Any) -> None:
    llm = routed.as_structured_llm(Pair)
    assert llm.metadata.context_window == 8192
    pair[1].context_window = 4096
    assert llm.metadata.context_window == 4096
