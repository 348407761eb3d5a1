"""Anthropic's Messages API on the loopback interface."""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING, Any, TypedDict

from anthropic import types
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming

from .answers import Answer, Asked, answer, count_tokens, pieces, text_of, to_json
from .serving import Body, Fault, ProviderServer, Refused, require, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

TOOL_ID = re.compile(r"^[a-zA-Z0-9_-]+$")
BLOCKS: dict[str, Any] = {
    "text": types.TextBlockParam,
    "image": types.ImageBlockParam,
    "document": types.DocumentBlockParam,
    "search_result": types.SearchResultBlockParam,
    "thinking": types.ThinkingBlockParam,
    "redacted_thinking": types.RedactedThinkingBlockParam,
    "tool_use": types.ToolUseBlockParam,
    "tool_result": types.ToolResultBlockParam,
}
IN_RESULTS = ("text", "image", "document", "search_result")
BLOCKS_OF = {
    "user": (*IN_RESULTS, "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
}
CHOICES: dict[str, Any] = {
    "auto": types.ToolChoiceAutoParam,
    "any": types.ToolChoiceAnyParam,
    "tool": types.ToolChoiceToolParam,
    "none": types.ToolChoiceNoneParam,
}
THOUGHTS = {"thinking", "redacted_thinking"}
KINDS = {404: "not_found_error", 429: "rate_limit_error", 500: "api_error"}
SMALLEST_BUDGET = 1024


class Message(TypedDict):
    """The package has it as a TypedDict in some versions and as a union of such in others."""

    role: str
    content: Any


class AnthropicServer(ProviderServer):
    """Any client talks to it whose `base_url` is the server's.

    It takes what the `anthropic` package has a name for and nothing else, and holds the turns to the API's rules:
    tool results follow their calls, and a thinking block is one that this server gave, unchanged.
    """

    path = "/v1/messages"

    def __init__(self, faults: Callable[[Body], Fault | None] | None = None, *, keep_alive: bool = False) -> None:
        super().__init__(faults, keep_alive=keep_alive)
        self._thoughts: dict[str, str] = {}

    @property
    def base_url(self) -> str:
        return self.origin

    # --- what it takes ---

    def check(self, body: Body) -> None:
        extra = [name for name in unknown(body, MessageCreateParamsNonStreaming) if name != "stream"]
        require(not extra, f"{', '.join(extra)}: Extra inputs are not permitted")
        for name in ("model", "max_tokens", "messages"):
            require(name in body, f"{name}: Field required")
        require(body["messages"], "messages: at least one message is required")
        for number, tool in enumerate(body.get("tools") or ()):
            _check_names(tool, f"tools.{number}.custom", types.ToolParam)
        if choice := body.get("tool_choice"):
            _check_names(choice, f"tool_choice.{choice['type']}", CHOICES[choice["type"]])
        if isinstance(body.get("system"), list):
            self._check_blocks(body["system"], "system", ("text",))
        self._check_messages(body["messages"])
        _check_turns(body["messages"])
        if _thinks(body):
            _check_thinking(body)
        _check_mode(body["messages"], thinks=_thinks(body))

    def _check_messages(self, messages: Sequence[Body]) -> None:
        for number, message in enumerate(messages):
            where, role, content = f"messages.{number}", message.get("role", ""), message.get("content")
            require(role in BLOCKS_OF, f'{where}.role: Unexpected role "{role}". Allowed: "user" or "assistant"')
            _check_names(message, where, Message)
            if isinstance(content, list):
                self._check_blocks(content, f"{where}.content", BLOCKS_OF[role])
            final = message is messages[-1] and role == "assistant"
            rule = "all messages must have non-empty content except for the optional final assistant message"
            require(content or final, f"{where}: {rule}")
            rule = "final assistant content cannot end with trailing whitespace"
            require(not (final and re.search(r"\s$", text_of(content))), f"messages: {rule}")

    def _check_blocks(self, blocks: Sequence[Body], where: str, allowed: Sequence[str]) -> None:
        tags = "found using 'type' does not match any of the expected tags: " + ", ".join(map(repr, allowed))
        for number, block in enumerate(blocks):
            kind = block.get("type", "")
            require(kind in allowed, f"{where}.{number}: Input tag '{kind}' {tags}")
            place = f"{where}.{number}.{kind}"
            _check_names(block, place, BLOCKS[kind])
            for name in ("id", "tool_use_id"):
                rule = f"String should match pattern '{TOOL_ID.pattern}'"
                require(name not in block or TOOL_ID.match(block[name]), f"{place}.{name}: {rule}")
            if kind == "text":
                require(block["text"].strip(), "messages: text content blocks must contain non-whitespace text")
            elif kind == "thinking":
                ours = self._thoughts.get(block.get("signature", "")) == block["thinking"]
                require(ours, f"{where}.{number}: Invalid `signature` in `thinking` block")
            elif kind == "tool_use":
                require(isinstance(block["input"], dict), f"{place}.input: Input should be a valid dictionary")
            elif kind == "tool_result" and isinstance(block.get("content"), list):
                self._check_blocks(block["content"], f"{place}.content", IN_RESULTS)

    # --- what it answers ---

    def complete(self, body: Body) -> Body:
        given = answer(_asked(body))
        content: list[Body] = []
        if _thinks(body):
            thinking, signature = self._think(body)
            content.append({"type": "thinking", "thinking": thinking, "signature": signature})
        if given.call is not None:
            content.append(_call(given, given.call.arguments))
        elif given.tokens:
            content.append({"type": "text", "text": given.text, "citations": None})
        return {**_message(body), "content": content, **_end(given), "usage": _usage(body, given)}

    def tokens(self, body: Body) -> tuple[int, int]:
        usage = _usage(body, answer(_asked(body)))
        return usage["input_tokens"], usage["output_tokens"]

    def events(self, body: Body) -> Iterator[str]:
        given = answer(_asked(body))
        usage = {**_usage(body, given), "output_tokens": 1}
        yield _event("message_start", message={**_message(body), "usage": usage})
        yield _event("ping")
        index = 0
        if _thinks(body):
            thinking, signature = self._think(body)
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(thinking)]
            deltas.append({"type": "signature_delta", "signature": signature})
            yield from _block(index, {"type": "thinking", "thinking": "", "signature": ""}, deltas)
            index += 1
        if given.call is not None:
            arguments = ["", *pieces(to_json(given.call.arguments))]
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in arguments]
            yield from _block(index, _call(given, {}), deltas)
        elif given.tokens:
            deltas = [{"type": "text_delta", "text": token} for token in given.tokens]
            yield from _block(index, {"type": "text", "text": ""}, deltas)
        yield _event("message_delta", delta=_end(given), usage=_usage(body, given))
        yield _event("message_stop")

    def _think(self, body: Body) -> tuple[str, str]:
        thinking = f"{body['model']} is to answer: {text_of(body['messages'][-1]['content'])[:40]}"
        signature = f"{uuid.uuid4().hex}=="
        self._thoughts[signature] = thinking
        return thinking, signature

    def error(self, refused: Refused) -> Body:
        kind = KINDS.get(refused.status, "invalid_request_error")
        error = {"type": kind, "message": refused.message}
        return {"type": "error", "error": error, "request_id": f"req_{uuid.uuid4().hex[:24]}"}

    def failure(self, status: int) -> Refused:
        if status == 429:
            return Refused("This request would exceed your organization's rate limit.", status=status)
        return Refused("Internal server error", status=status)


def _check_names(given: Body, where: str, known: Any) -> None:
    extra = ", ".join(f"{where}.{name}" for name in unknown(given, known))
    require(not extra, f"{extra}: Extra inputs are not permitted")


def _turns(messages: Sequence[Body]) -> list[tuple[str, list[Body]]]:
    """The API reads messages of one role in a row as one turn."""
    turns: list[tuple[str, list[Body]]] = []
    for message in messages:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not turns or turns[-1][0] != message["role"]:
            turns.append((message["role"], []))
        turns[-1][1].extend(blocks)
    return turns


def _check_turns(messages: Sequence[Body]) -> None:
    """The user begins, and answers every call in the very next turn, before saying anything else."""
    turns = _turns(messages)
    require(turns[0][0] == "user", 'messages: first message must use the "user" role')
    calls: set[str] = set()
    for number, (_, blocks) in enumerate([*turns, ("end", [])]):
        where = f"messages.{number}"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        unasked = ", ".join(one for one in results if one not in calls)
        require(not unasked, f"{where}.content: unexpected `tool_use_id` found in `tool_result` blocks: {unasked}")
        missing = ", ".join(sorted(calls.difference(results)))
        rule = "`tool_use` ids were found without `tool_result` blocks immediately after"
        require(not missing, f"{where}: {rule}: {missing}")
        first = all(block["type"] == "tool_result" for block in blocks[: len(results)])
        require(first, f"{where}.content: `tool_result` blocks must come before all other content")
        calls = {block["id"] for block in blocks if block["type"] == "tool_use"}


def _check_thinking(body: Body) -> None:
    require(body.get("temperature") in {None, 1}, "`temperature` may only be set to 1 when thinking is enabled.")
    forced = body.get("tool_choice", {}).get("type") in {"any", "tool"}
    require(not forced, "Thinking may not be enabled when tool_choice forces tool use.")
    if body["thinking"]["type"] == "enabled":
        budget = body["thinking"]["budget_tokens"]
        rule = f"Input should be greater than or equal to {SMALLEST_BUDGET}"
        require(budget >= SMALLEST_BUDGET, f"thinking.enabled.budget_tokens: {rule}")
        require(budget < body["max_tokens"], "`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_mode(messages: Sequence[Body], *, thinks: bool) -> None:
    """A turn of the assistant, with the tool calls that are still going on, is either all with thinking or without."""
    turns = _turns(messages)
    in_tools = any(block["type"] == "tool_result" for block in turns[-1][1])
    place = len(turns) - (2 if in_tools else 1)
    role, blocks = turns[place]
    if role != "assistant" or not blocks:
        return
    where = f"messages.{place}.content.0"
    if thinks:
        rule = "When `thinking` is enabled, a final `assistant` message must start with a thinking block"
        found = f"Expected `thinking` or `redacted_thinking`, but found `{blocks[0]['type']}`"
        require(blocks[0]["type"] in THOUGHTS, f"{where}.type: {found}. {rule}")
    else:
        rule = "When thinking is disabled, an `assistant` message in the final position cannot contain `thinking`"
        require(not any(block["type"] in THOUGHTS for block in blocks), f"{where}: {rule}")


def _thinks(body: Body) -> bool:
    return (body.get("thinking") or {}).get("type") in {"enabled", "adaptive"}


def _asked(body: Body) -> Asked:
    last = body["messages"][-1]["content"]
    after_tool = isinstance(last, list) and any(block["type"] == "tool_result" for block in last)
    tools: Mapping[str, Any] = {tool["name"]: tool.get("input_schema", {}) for tool in body.get("tools") or ()}
    choice = body.get("tool_choice") or {"type": "auto"}
    if choice["type"] == "tool":
        tools = {choice["name"]: tools[choice["name"]]}
    output = (body.get("output_config") or {}).get("format") or {}
    return Asked(
        model=body["model"],
        said=text_of(last),
        told=text_of(body.get("system")),
        tools={} if choice["type"] == "none" else tools,
        may_call=not after_tool,
        must_call=choice["type"] in {"any", "tool"},
        schema=output.get("schema"),
        stop=body.get("stop_sequences") or (),
        limit=body["max_tokens"],
    )


def _message(body: Body) -> Body:
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _call(given: Answer, arguments: Body) -> Body:
    assert given.call is not None
    return {"type": "tool_use", "id": f"toolu_{given.call.id}", "name": given.call.name, "input": arguments}


def _end(given: Answer) -> Body:
    if given.call is not None:
        reason = "tool_use"
    elif given.stopped_by is not None:
        reason = "stop_sequence"
    else:
        reason = "max_tokens" if given.cut else "end_turn"
    return {"stop_reason": reason, "stop_sequence": given.stopped_by}


def _usage(body: Body, given: Answer) -> Body:
    system = body.get("system") or ""
    return {
        "input_tokens": count_tokens([system, *(message["content"] for message in body["messages"])]),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": given.size,
        "service_tier": "standard",
    }


def _block(index: int, start: Body, deltas: Sequence[Body]) -> Iterator[str]:
    yield _event("content_block_start", index=index, content_block=start)
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)


def _event(kind: str, **data: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data}, ensure_ascii=False)}\n\n"
