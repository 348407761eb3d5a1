"""stream, astream and the event streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.runnables import RunnableGenerator, RunnablePassthrough

if TYPE_CHECKING:
    from langchain_core.messages import AIMessageChunk

pytestmark = pytest.mark.filterwarnings("ignore:.*in beta:langchain_core._api.beta_decorator.LangChainBetaWarning")


def summed(chunks: list[Any]) -> AIMessageChunk:
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total


async def collected(model: Any, api: str, *args: Any, **kwargs: Any) -> list[Any]:
    if api == "stream":
        return list(model.stream(*args, **kwargs))
    return [chunk async for chunk in model.astream(*args, **kwargs)]


@pytest.mark.parametrize("api", ["stream", "astream"])
async def test_a_stream_is_one_run_and_its_first_chunk_has_the_decision(setup: Any, recorder: Any, api: str) -> None:
    pair = setup()
    chunks = await collected(pair.model, api, "hard", {"callbacks": [recorder]})
    assert [kind for kind, _ in recorder.started] == ["model"]
    assert recorder.usage == 24
    assert ["routing" in chunk.response_metadata for chunk in chunks] == [True] + [False] * (len(chunks) - 1)
    message = summed(chunks)
    assert message.text == "strong says hi"
    assert message.response_metadata["routing"] == recorder.models[0]["routing"]
    assert message.response_metadata["model_name"] == "strong"
    assert message.usage_metadata["total_tokens"] == 24
    assert pair.model.stats.total == 1


@pytest.mark.parametrize("api", ["stream", "astream"])
async def test_a_stream_takes_a_threshold(setup: Any, api: str) -> None:
    pair = setup()
    assert summed(await collected(pair.model, api, "easy", threshold=0.0)).text == "strong says hi"
    config = {"configurable": {"router_threshold": 2}}
    assert summed(await collected(pair.model, api, "hard", config)).text == "weak says hi"


async def test_closing_a_stream_closes_the_childs(setup: Any, recorder: Any) -> None:
    pair = setup()
    stream = pair.model.stream("hard", {"callbacks": [recorder]})
    next(stream)
    stream.close()
    assert pair.strong.closed == ["sync"]
    astream = pair.model.astream("hard", {"callbacks": [recorder]})
    await anext(astream)
    await astream.aclose()
    assert pair.strong.closed == ["sync", "async"]
    assert len(recorder.errors) == 2  # the child's run ends, by GeneratorExit


def test_closing_a_stream_does_not_wait_for_garbage_collection(setup: Any) -> None:
    opened, closed = [], []

    class Kept(RunnablePassthrough):
        def stream(self, *_: Any, **__: Any) -> Any:
            def parts() -> Any:
                try:
                    yield from ("a", "b")
                finally:
                    closed.append(True)

            opened.append(parts())
            return opened[-1]

    stream = setup(strong=Kept()).model.stream("hard")
    next(stream)
    stream.close()
    assert closed == [True]


async def test_a_model_that_cannot_stream_answers_in_one_chunk(setup: Any) -> None:
    pair = setup(disable_streaming=True)
    for api in ("stream", "astream"):
        (message,) = await collected(pair.model, api, "hard")
        assert message.content == "strong"
        assert message.response_metadata["routing"]["route"] == "strong"


async def test_streamed_text_that_is_no_message_passes_through(setup: Any) -> None:
    def parts(_: Any) -> Any:
        yield from ("a", "b")

    pair = setup(strong=RunnableGenerator(parts))
    assert await collected(pair.model, "stream", "hard") == ["a", "b"]


async def test_astream_events_tell_each_chunk_once(setup: Any) -> None:
    pair = setup()
    events = [event async for event in pair.model.astream_events("hard", version="v2")]
    starts = [event for event in events if event["event"] == "on_chat_model_start"]
    assert len(starts) == 1
    assert starts[0]["metadata"]["routing"]["route"] == "strong"
    text = "".join(e["data"]["chunk"].text for e in events if e["event"] == "on_chat_model_stream")
    assert text == "strong says hi"


async def test_v3_events_are_the_chosen_models(setup: Any, recorder: Any) -> None:
    pair = setup()
    stream = pair.model.stream_events("hard", {"callbacks": [recorder]}, version="v3")
    assert str(stream.text) == "strong says hi"
    astream = await pair.model.astream_events("easy", {"callbacks": [recorder]}, version="v3")
    assert "".join([part async for part in astream.text]) == "weak says hi"
    assert [metadata["routing"]["route"] for metadata in recorder.models] == ["strong", "weak"]
    assert pair.model.stats.total == 2
