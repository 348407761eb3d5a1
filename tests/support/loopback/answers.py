"""What a small and obedient model would answer, in no provider's words.

It calls the tool that the prompt speaks of, in words where it was told to, fills in JSON schemas with what it finds in
the prompt, and else says its name and the last words it heard: a test can tell which model answered, and that it was
asked the right thing.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Schema = dict[str, Any]

ECHOED = 200
# How LlamaIndex's ReAct agents tell a model of tools that it is to call in words.
TOOLS_IN_WORDS = re.compile(r"^> Tool Name: (\S+)\n(?:.*\n)*?Tool Args: (\{.*\})$", re.MULTILINE)
VAGUE = {"get", "set", "my", "the", "tool", "function"}


@dataclass(frozen=True)
class Asked:
    """One request.

    Args:
        model: Name of the model.
        said: Text of the last message.
        told: Text of the system prompt.
        tools: Schema of each tool's arguments, by name.
        may_call: Whether a tool may be called if the prompt speaks of it.
        must_call: Whether one of the tools must be called.
        schema: The answer is an instance of it, if given.
        stop: The answer ends before the first of these.
        limit: The answer ends after so many tokens.
    """

    model: str
    said: str
    told: str = ""
    tools: Mapping[str, Schema] = field(default_factory=dict)
    may_call: bool = True
    must_call: bool = False
    schema: Schema | None = None
    stop: Sequence[str] = ()
    limit: int | None = None


@dataclass(frozen=True)
class Call:
    name: str
    arguments: dict[str, Any]
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:24])


@dataclass(frozen=True)
class Answer:
    """Tokens of the text, or a call; `stopped_by` and `cut` say why the text is not longer."""

    tokens: Sequence[str] = ()
    call: Call | None = None
    stopped_by: str | None = None
    cut: bool = False

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def size(self) -> int:
        """Tokens, for the usage."""
        return len(self.tokens) if self.call is None else len(pieces(to_json(self.call.arguments)))


def answer(asked: Asked) -> Answer:
    """The one answer to this request."""
    name = _tool_for(asked)
    if name is not None:
        return Answer(call=Call(name, instance(asked.tools[name], asked.said)))
    text = f"{asked.model} says: {asked.said[:ECHOED]}"
    if asked.schema is not None:
        text = to_json(instance(asked.schema, asked.said))
    elif tools := {name: json.loads(schema) for name, schema in TOOLS_IN_WORDS.findall(asked.told)}:
        text = _reacting(replace(asked, tools=tools), text)
    found = [(text.index(stop), stop) for stop in asked.stop if stop and stop in text]
    end, stopped_by = min(found, default=(len(text), None))
    tokens = tokens_of(text[:end])
    return Answer(tokens[: asked.limit], stopped_by=stopped_by, cut=len(tokens) > (asked.limit or len(tokens)))


def _reacting(asked: Asked, text: str) -> str:
    name = None if asked.said.startswith("Observation:") else _tool_for(asked)
    if name is None:
        return f"Thought: I can answer without using any more tools.\nAnswer: {text}"
    arguments = to_json(instance(asked.tools[name], asked.said))
    return f"Thought: I need to use a tool.\nAction: {name}\nAction Input: {arguments}"


def _tool_for(asked: Asked) -> str | None:
    # The longest name first: it may begin with another tool's name.
    names = sorted(asked.tools, key=len, reverse=True)
    if asked.may_call or asked.must_call:
        words = set(re.findall(r"[a-z]+", asked.said.lower()))
        for name in names:
            if name in asked.said or words & (_words(name) - VAGUE):
                return name
    return next(iter(asked.tools)) if asked.must_call else None


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+", name)}


def instance(schema: Schema, said: str) -> Any:
    """An instance of the schema: numbers, quoted words and places are taken from what was said, in their order."""
    return _Instances(schema, said).of(schema)


class _Instances:
    def __init__(self, root: Schema, said: str) -> None:
        self.root = root
        self.said = said[:ECHOED] or "nothing"
        self.numbers = iter(re.findall(r"-?\d+(?:\.\d+)?", said))
        self.phrases = iter([quoted for _, quoted in _quoted(said)] + re.findall(r"\bin ([A-Z][^?.!]*)", said))

    def of(self, schema: Schema) -> Any:
        if "$ref" in schema:
            place: Any = self.root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                place = place[step]
            return self.of(place)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        for union in ("anyOf", "oneOf", "allOf"):
            if union in schema:
                return self.of(next((one for one in schema[union] if one.get("type") != "null"), schema[union][0]))
        return self.of_type(schema)

    def of_type(self, schema: Schema) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next(one for one in kind if one != "null")
        if kind == "object":
            properties = schema.get("properties", {})
            # As a model does that was not told what to put there, it leaves out what may be left out.
            return {name: self.of(properties[name]) for name in schema.get("required", ()) if name in properties}
        if kind == "array":
            return [self.of(schema["items"])] if "items" in schema else []
        if kind in {"integer", "number"}:
            number = float(next(self.numbers, 1))
            return int(number) if kind == "integer" else number
        return {"boolean": True, "null": None}[kind] if kind != "string" else next(self.phrases, self.said)


def keys_schema(said: str) -> Schema:
    """The schema for "any JSON object": the quoted words of the prompt are its keys."""
    keys = [quoted for _, quoted in _quoted(said)] or ["answer"]
    return {"type": "object", "properties": {key: {"type": "string"} for key in keys}, "required": keys}


def _quoted(said: str) -> list[tuple[str, str]]:
    return re.findall(r"(['\"])(.+?)\1", said)


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def pieces(text: str, size: int = 9) -> list[str]:
    """Parts of a call's arguments, as a stream breaks them: anywhere."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def tokens_of(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text)


def text_of(content: Any) -> str:
    """The text in a message's content, of whichever provider."""
    if isinstance(content, str):
        return content
    return " ".join(text_of(block.get("text") or block.get("content") or "") for block in content or ())


def count_tokens(contents: Iterable[Any]) -> int:
    """At least one, so that a test sees that it was counted."""
    return max(1, sum(len(tokens_of(text_of(content))) for content in contents))
