"""OpenAI's Chat Completions on the loopback interface."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any

from openai.types import chat
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.shared_params import FunctionDefinition, ResponseFormatJSONSchema

from .answers import Answer, Asked, answer, count_tokens, keys_schema, pieces, text_of, to_json
from .serving import Body, Fault, ProviderServer, Refused, require, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MESSAGES = {
    "developer": chat.ChatCompletionDeveloperMessageParam,
    "system": chat.ChatCompletionSystemMessageParam,
    "user": chat.ChatCompletionUserMessageParam,
    "assistant": chat.ChatCompletionAssistantMessageParam,
    "tool": chat.ChatCompletionToolMessageParam,
    "function": chat.ChatCompletionFunctionMessageParam,
}
SYSTEM = {"developer", "system"}
PARTS: dict[str, Any] = {
    "text": chat.ChatCompletionContentPartTextParam,
    "image_url": chat.ChatCompletionContentPartImageParam,
    "input_audio": chat.ChatCompletionContentPartInputAudioParam,
    "file": chat.chat_completion_content_part_param.File,
    "refusal": chat.ChatCompletionContentPartRefusalParam,
}
PARTS_OF = {"user": ("text", "image_url", "input_audio", "file"), "assistant": ("text", "refusal")}


class OpenAIServer(ProviderServer):
    """Any client talks to it whose `base_url` (`api_base`) is the server's `base_url`.

    It takes what the `openai` package has a name for and nothing else, and holds tool messages to the calls before
    them, as the API does.

    Attributes:
        snapshots: Names that answers give to models in place of those that were asked for.
    """

    path = "/v1/chat/completions"

    def __init__(self, faults: Callable[[Body], Fault | None] | None = None, *, keep_alive: bool = False) -> None:
        super().__init__(faults, keep_alive=keep_alive)
        self.snapshots: dict[str, str] = {}

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    # --- what it takes ---

    def check(self, body: Body) -> None:
        extra = [name for name in unknown(body, CompletionCreateParamsNonStreaming) if name != "stream"]
        require(not extra, f"Unrecognized request argument{'s' * (len(extra) > 1)} supplied: {', '.join(extra)}")
        require(body.get("model"), "you must provide a model parameter")
        require(body.get("messages"), "Invalid 'messages': empty array.", param="messages", code="empty_array")
        streams = "stream_options" not in body or body.get("stream")
        require(streams, "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
        for name in ("tool_choice", "parallel_tool_calls"):
            allowed = name not in body or body.get("tools")
            require(allowed, f"'{name}' is only allowed when 'tools' are specified.", param=name)
        for number, tool in enumerate(body.get("tools") or ()):
            _check_names(tool, f"tools[{number}]", chat.ChatCompletionFunctionToolParam)
            _check_names(tool["function"], f"tools[{number}].function", FunctionDefinition)
        for number, message in enumerate(body["messages"]):
            _check_message(message, f"messages[{number}]")
        _check_calls(body["messages"])
        if _format_of(body) == "json_schema":
            _check_names(body["response_format"], "response_format", ResponseFormatJSONSchema)
        elif _format_of(body) == "json_object":
            text = "'messages' must contain the word 'json' in some form, to use 'response_format' of type"
            require("json" in text_of(body["messages"]).lower(), f"{text} 'json_object'.", param="messages")

    # --- what it answers ---

    def complete(self, body: Body) -> Body:
        given = answer(_asked(body))
        message: Body = {"role": "assistant", "content": given.text or None, "refusal": None, "annotations": []}
        if given.call is not None:
            message["tool_calls"] = [_call(given)]
        choice = {"message": message, "logprobs": None, "finish_reason": _finish_reason(given)}
        choices = [{"index": index, **choice} for index in range(body.get("n") or 1)]
        return {**self._head(body, "chat.completion"), "choices": choices, "usage": _usage(body, given)}

    def tokens(self, body: Body) -> tuple[int, int]:
        usage = _usage(body, answer(_asked(body)))
        return usage["prompt_tokens"], usage["completion_tokens"]

    def events(self, body: Body) -> Iterator[str]:
        given = answer(_asked(body))
        head = self._head(body, "chat.completion.chunk")
        with_usage = (body.get("stream_options") or {}).get("include_usage", False)
        usage = {"usage": None} if with_usage else {}

        def event(delta: Body, finish_reason: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            return _event({**head, "choices": [choice], **usage})

        if given.call is None:
            yield event({"role": "assistant", "content": "", "refusal": None})
            for token in given.tokens:
                yield event({"content": token})
        else:
            call = _call(given)
            arguments = call["function"].pop("arguments")
            call["function"]["arguments"] = ""
            yield event({"role": "assistant", "content": None, "tool_calls": [{"index": 0, **call}]})
            for piece in pieces(arguments):
                yield event({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        yield event({}, _finish_reason(given))
        if with_usage:
            yield _event({**head, "choices": [], "usage": _usage(body, given)})
        yield "data: [DONE]\n\n"

    def _head(self, body: Body, kind: str) -> Body:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.snapshots.get(body["model"], body["model"]),
            "service_tier": "default",
            "system_fingerprint": "fp_loopback",
        }

    def error(self, refused: Refused) -> Body:
        kind = {429: "requests", 500: "server_error"}.get(refused.status, "invalid_request_error")
        about = {"type": kind, "param": refused.param, "code": refused.code}
        return {"error": {"message": refused.message, **about}}

    def failure(self, status: int) -> Refused:
        if status == 429:
            return Refused("Rate limit reached for requests.", status=status, code="rate_limit_exceeded")
        return Refused("The server had an error while processing your request. Sorry about that!", status=status)


def _check_names(given: Body, where: str, known: Any) -> None:
    extra = ", ".join(f"{where}.{name}" for name in unknown(given, known))
    require(not extra, f"Unknown parameter: '{extra}'.", param=extra, code="unknown_parameter")


def _check_value(value: Any, where: str, allowed: Iterable[str]) -> None:
    names = ", ".join(f"'{name}'" for name in allowed)
    message = f"Invalid value: '{value}'. Supported values are: {names}."
    require(value in allowed, message, param=where, code="invalid_value")


def _check_message(message: Body, where: str) -> None:
    role = message.get("role", "")
    _check_value(role, f"{where}.role", MESSAGES)
    _check_names(message, where, MESSAGES[role])
    content = message.get("content")
    said = content is not None or message.get("tool_calls") or message.get("function_call")
    require(said, "Invalid value for 'content': expected a string, got null.", param=f"{where}.content")
    for number, part in enumerate(content if isinstance(content, list) else ()):
        place = f"{where}.content[{number}]"
        _check_value(part.get("type"), f"{place}.type", PARTS_OF.get(role, ("text",)))
        _check_names(part, place, PARTS[part["type"]])
    for number, call in enumerate(message.get("tool_calls") or ()):
        place = f"{where}.tool_calls[{number}]"
        _check_names(call, place, chat.ChatCompletionMessageFunctionToolCallParam)
        text = isinstance(call["function"]["arguments"], str)
        require(text, "Invalid type: expected a string.", param=f"{place}.function.arguments", code="invalid_type")


def _check_calls(messages: list[Body]) -> None:
    """Every call is answered by a tool message before anything else is said, and nothing else is answered so."""
    waiting: set[str] = set()
    unanswered = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        "The following tool_call_ids did not have response messages: "
    )
    unasked = (
        "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
    )
    for number, message in enumerate([*messages, {"role": "end"}]):
        where = f"messages.[{number}].role"
        if message["role"] == "tool":
            require(message.get("tool_call_id") in waiting, unasked, param=where)
            waiting.discard(message["tool_call_id"])
        else:
            require(not waiting, unanswered + ", ".join(sorted(waiting)), param=where)
            waiting = {call["id"] for call in message.get("tool_calls") or ()}


def _asked(body: Body) -> Asked:
    last = body["messages"][-1]
    tools = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in body.get("tools") or ()}
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, dict):
        tools = {name: tools[name] for name in (choice["function"]["name"],)}
    said = text_of(last.get("content"))
    schema = None
    if _format_of(body) == "json_schema":
        schema = body["response_format"]["json_schema"]["schema"]
    elif _format_of(body) == "json_object":
        schema = keys_schema(said)
    stop = body.get("stop") or []
    return Asked(
        model=body["model"],
        said=said,
        told=" ".join(text_of(one.get("content")) for one in body["messages"] if one["role"] in SYSTEM),
        tools={} if choice == "none" else tools,
        may_call=last["role"] == "user",
        must_call=choice == "required" or isinstance(choice, dict),
        schema=schema,
        stop=[stop] if isinstance(stop, str) else stop,
        limit=body.get("max_completion_tokens") or body.get("max_tokens"),
    )


def _format_of(body: Body) -> str:
    return str((body.get("response_format") or {}).get("type", "text"))


def _call(given: Answer) -> Body:
    assert given.call is not None
    function = {"name": given.call.name, "arguments": to_json(given.call.arguments)}
    return {"id": f"call_{given.call.id}", "type": "function", "function": function}


def _finish_reason(given: Answer) -> str:
    if given.call is not None:
        return "tool_calls"
    return "length" if given.cut else "stop"


def _usage(body: Body, given: Answer) -> Body:
    prompt = count_tokens(message.get("content") for message in body["messages"])
    completion = given.size
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _event(data: Body) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
