"""The loopback providers refuse what the real ones refuse, fail as told, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from loopback import AnthropicServer, Fault, OpenAIServer, ProviderServer, only_loopback, until

if TYPE_CHECKING:
    from collections.abc import Iterator

HI = {"role": "user", "content": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}}
THINKING = {"type": "enabled", "budget_tokens": 1024}


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    with only_loopback():
        yield


def post(server: ProviderServer, **body: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": "m", "messages": [HI], **({"max_tokens": 2000} if server.path == "/v1/messages" else {}), **body}
    with contextlib.closing(http.client.HTTPConnection(server.origin.removeprefix("http://"))) as connection:
        connection.request("POST", server.path, json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def streamed(server: ProviderServer) -> bytes:
    """A whole request for a stream."""
    payload = json.dumps({"model": "m", "max_tokens": 9, "messages": [HI], "stream": True}).encode()
    return b"POST %b HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (server.path.encode(), len(payload), payload)


def chat_openai(server: OpenAIServer, **settings: Any) -> ChatOpenAI:
    given = {"base_url": server.base_url, "api_key": "test", "stream_usage": True, "max_retries": 0, **settings}
    return ChatOpenAI(model="gpt", **given)


def chat_anthropic(server: AnthropicServer, **settings: Any) -> ChatAnthropic:
    return ChatAnthropic(model="claude", base_url=server.base_url, api_key="test", max_retries=0, **settings)


def said_by(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize("name", ["threshold", "route", "routing", "strong_rate"])
def test_both_refuse_a_request_with_a_field_of_no_meaning_to_them(
    openai_server: OpenAIServer, anthropic_server: AnthropicServer, name: str
) -> None:
    status, body = post(openai_server, **{name: 1})
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert body["error"]["message"] == f"Unrecognized request argument supplied: {name}"
    status, body = post(anthropic_server, **{name: 1})
    assert (status, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
    assert body["error"]["message"] == f"{name}: Extra inputs are not permitted"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([HI | {"routing": {}}], "Unknown parameter: 'messages[0].routing'."),
        (
            [HI | {"content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}],
            "Unknown parameter: 'messages[0].content[0].cache_control'.",
        ),
        (
            [HI, {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}]}],
            "Invalid value: 'thinking'.",
        ),
        ([HI, {"role": "assistant", "content": None}], "Invalid value for 'content'"),
        ([HI, {"role": "assistant", "tool_calls": [CALL]}, HI], "did not have response messages: call_1"),
        ([HI, {"role": "tool", "tool_call_id": "call_1", "content": "3"}], "preceding message with 'tool_calls'"),
    ],
)
def test_openai_refuses_messages(openai_server: OpenAIServer, messages: list[Any], message: str) -> None:
    status, body = post(openai_server, messages=messages)
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert message in body["error"]["message"]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([HI | {"name": "x"}], "messages.0.name: Extra inputs are not permitted"),
        ([HI, {"role": "assistant", "content": [{"type": "reasoning"}]}], "Input tag 'reasoning' found using 'type'"),
        ([HI, {"role": "assistant", "content": [USE | {"index": 0}]}], "tool_use.index: Extra inputs"),
        ([HI, {"role": "assistant", "content": [USE | {"id": "call|1"}]}], "should match pattern"),
        (
            [HI, {"role": "assistant", "content": [USE | {"input": "{}"}]}],
            "input: Input should be a valid dictionary",
        ),
        ([HI, {"role": "assistant", "content": [USE]}, HI], "without `tool_result` blocks immediately after"),
        ([HI | {"content": [{"type": "tool_result", "tool_use_id": "x"}]}], "unexpected `tool_use_id`"),
        (
            [HI, {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}]}, HI],
            "messages.1.content.0: Invalid `signature` in `thinking` block",
        ),
        ([said_by("hello"), HI], "first message must use"),
        ([HI, said_by(" "), HI], "must contain non-whitespace text"),
        ([HI, said_by("hello ")], "cannot end with trailing whitespace"),
        ([HI, {"role": "system", "content": "x"}], 'Unexpected role "system"'),
    ],
)
def test_anthropic_refuses_messages(anthropic_server: AnthropicServer, messages: list[Any], message: str) -> None:
    status, body = post(anthropic_server, messages=messages)
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert message in body["error"]["message"]


def test_roles_need_not_alternate(openai_server: OpenAIServer, anthropic_server: AnthropicServer) -> None:
    for server in (openai_server, anthropic_server):
        assert post(server, messages=[HI, HI, said_by("a"), said_by("b"), HI])[0] == 200


@pytest.mark.parametrize("streams", [False, True])
def test_what_anthropic_thought_comes_back_with_the_tool_results(
    anthropic_server: AnthropicServer, streams: bool
) -> None:
    model = chat_anthropic(anthropic_server, thinking=THINKING, max_tokens=2000, streaming=streams)
    tool = {"name": "add", "input_schema": {"type": "object", "properties": {}}}
    asked = HumanMessage("add")
    called = model.bind_tools([tool]).invoke([asked])
    assert [block["type"] for block in called.content] == ["thinking", "tool_use"]
    result = ToolMessage("3", tool_call_id=called.tool_calls[0]["id"])
    assert "claude says: 3" in model.bind_tools([tool]).invoke([asked, called, result]).text
    forgotten = AIMessage("", tool_calls=called.tool_calls)
    with pytest.raises(Exception, match="Expected `thinking`"):
        model.bind_tools([tool]).invoke([asked, forgotten, result])
    with pytest.raises(Exception, match="cannot contain `thinking`"):
        chat_anthropic(anthropic_server).bind_tools([tool]).invoke([asked, called, result])


def test_an_answer_is_the_same_in_one_piece_and_in_many(
    openai_server: OpenAIServer, anthropic_server: AnthropicServer
) -> None:
    for model in (chat_openai(openai_server), chat_anthropic(anthropic_server)):
        whole = model.invoke("one two three")
        chunks = list(model.stream("one two three"))
        assert whole.text == "".join(chunk.text for chunk in chunks)
        assert whole.text.endswith("says: one two three")
        assert sum(bool(chunk.text) for chunk in chunks) == 5
        usages = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
        assert usages == [whole.usage_metadata]
        assert usages[0]["input_tokens"] == 3
        assert usages[0]["output_tokens"] == 5
        assert model.invoke("one two three", stop=["two"]).text.endswith("says: one ")


@pytest.mark.parametrize(("status", "error"), [(429, openai.RateLimitError), (500, openai.InternalServerError)])
def test_a_status_comes_as_the_client_knows_it(status: int, error: type[Exception]) -> None:
    with OpenAIServer(lambda body: Fault(status=status)) as server:
        with pytest.raises(error):
            chat_openai(server).invoke("hi")
        server.faults = lambda body: Fault(status=status) if len(server.requests) < 3 else None
        assert chat_openai(server, max_retries=2).invoke("hi").text == "gpt says: hi"


def test_a_request_that_hangs_ends_with_the_client() -> None:
    with OpenAIServer(lambda body: Fault(hang=True)) as server:
        with pytest.raises(openai.APITimeoutError):
            chat_openai(server, timeout=0.3).invoke("hi")
        until(lambda: (server.open_connections, server.aborted) == (0, 1))


def test_a_connection_is_dropped_before_the_answer() -> None:
    with OpenAIServer(lambda body: Fault(drop=True)) as server:
        with pytest.raises(openai.APIConnectionError):
            chat_openai(server).invoke("hi")
        assert server.aborted == 0


def test_an_answer_is_garbled(openai_server: OpenAIServer, anthropic_server: AnthropicServer) -> None:
    for server in (openai_server, anthropic_server):
        server.faults = lambda body: Fault(garbled=True)
        with pytest.raises(json.JSONDecodeError):
            post(server)
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(streamed(server))
            lines = b"".join(iter(lambda client=client: client.recv(1024), b"")).splitlines()
        first = next(line for line in lines if line.startswith(b"data: "))
        with pytest.raises(json.JSONDecodeError):
            json.loads(first.removeprefix(b"data: "))
        assert lines[-2] == b"0", "the transfer is whole"


TOLD = """You can use tools.
> Tool Name: add
Tool Description: add(a, b)
Adds.
Tool Args: {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

> Tool Name: get_weather
Tool Description: The weather.
Tool Args: {"properties": {"city": {"type": "string"}}, "required": ["city"]}
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("add 3", 'Thought: I need to use a tool.\nAction: add\nAction Input: {"a": 3}'),
        ("weather in Rome", 'Thought: I need to use a tool.\nAction: get_weather\nAction Input: {"city": "Rome"}'),
        ("hello", "Thought: I can answer without using any more tools.\nAnswer: NAME says: hello"),
        (
            "Observation: add",
            "Thought: I can answer without using any more tools.\nAnswer: NAME says: Observation: add",
        ),
    ],
)
def test_tools_are_called_in_words_where_the_prompt_says_so(
    openai_server: OpenAIServer, anthropic_server: AnthropicServer, said: str, expected: str
) -> None:
    for model, name in ((chat_openai(openai_server), "gpt"), (chat_anthropic(anthropic_server), "claude")):
        assert model.invoke([("system", TOLD), ("user", said)]).text == expected.replace("NAME", name)


@pytest.mark.parametrize("events", [1, 3])
def test_a_stream_breaks_off(events: int) -> None:
    with OpenAIServer(lambda body: Fault(drop_after=events)) as server:
        texts: list[str] = []
        # The client's own error in newer versions of openai, that of its transport in older ones.
        with pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError)):
            texts.extend(chunk.text for chunk in chat_openai(server).stream("hi"))
        assert "".join(texts) == ("" if events == 1 else "gpt says: ")
        assert server.aborted == 0


def test_a_client_that_goes_away_in_a_stream_is_seen(
    openai_server: OpenAIServer, anthropic_server: AnthropicServer
) -> None:
    for server in (openai_server, anthropic_server):
        server.faults = lambda body: Fault(delay=60.0)
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(streamed(server))
            assert client.recv(1) == b"H"
            assert (server.open_connections, server.aborted) == (1, 0)
        until(lambda server=server: (server.open_connections, server.aborted) == (0, 1))


async def test_a_client_that_closes_its_stream_is_seen(openai_server: OpenAIServer) -> None:
    openai_server.faults = lambda body: Fault(delay=0.05)
    async with contextlib.aclosing(chat_openai(openai_server).astream("one two three four")) as stream:
        await anext(stream)
    await asyncio.to_thread(until, lambda: (openai_server.open_connections, openai_server.aborted) == (0, 1))


@pytest.mark.parametrize("fault", [Fault(hang=True), Fault(delay=60.0)])
def test_stopping_ends_what_is_going_on(fault: Fault) -> None:
    threads = set(threading.enumerate())
    with OpenAIServer(lambda body: fault) as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(streamed(server))
        until(lambda: server.requests)
    assert server.open_connections == 0
    assert threads.issuperset(threading.enumerate())
    with client:
        assert client.recv(1) == (b"H" if fault.delay else b"")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_what_fails_in_the_server_fails_the_test() -> None:
    def fault(body: dict[str, Any]) -> Fault:
        raise ZeroDivisionError

    server = OpenAIServer(fault)
    with pytest.raises(ZeroDivisionError), server, pytest.raises(openai.APIConnectionError):
        chat_openai(server).invoke("hi")


def test_a_connection_can_be_kept() -> None:
    with (
        OpenAIServer(keep_alive=True) as server,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection,
    ):
        for _ in range(2):
            connection.request("POST", server.path, json.dumps({"model": "m", "messages": [HI]}))
            assert json.loads(connection.getresponse().read())["choices"][0]["message"]["content"] == "m says: hi"
        assert (server.open_connections, len(server.requests)) == (1, 2)


async def test_a_thousand_requests_at_sixty_four_a_time(openai_server: OpenAIServer) -> None:
    async def ask() -> None:
        for _ in range(16):
            reader, writer = await asyncio.open_connection("127.0.0.1", openai_server.port)
            writer.write(streamed(openai_server))
            answer = await reader.read()
            assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            writer.close()
            await writer.wait_closed()

    await asyncio.gather(*(ask() for _ in range(64)))
    assert len(openai_server.requests) == 1024
    assert openai_server.aborted == 0
