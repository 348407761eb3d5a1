"""Counting the calls of LLMs that routed LLMs make, from what the framework tells of their beginning and end."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeAlias

from llamaindex_router.events import current_attempt
from llamaindex_router.text import field_of
from prefroute._shared import Shared
from prefroute.usage import CallStats, Tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llamaindex_router.events import Attempt
    from prefroute.costs import Price
    from prefroute.usage import UsageSnapshot

_MOST_CALLS = 100_000
"""Calls under way that are remembered: one whose end is never told must not be kept for ever."""

_INPUT = ("prompt_tokens", "input_tokens", "inputTokens", "prompt_token_count", "prompt_eval_count")
_OUTPUT = ("completion_tokens", "output_tokens", "outputTokens", "candidates_token_count", "eval_count")
"""Names that providers have for the tokens of a prompt and of an answer."""

_THOUGHT_BESIDE = ("thoughts_token_count",)
"""Where Gemini counts what it thought: beside the tokens of the answer, at the same price."""

_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_CACHED_BESIDE = ("cache_read_input_tokens", "cacheReadInputTokens")
_MADE_BESIDE = ("cache_creation_input_tokens", "cacheWriteInputTokens")
"""Where Anthropic and Bedrock count what the prompt cache had, and what it took in: beside the rest of the prompt."""


_Used: TypeAlias = tuple[list[str], Tokens | None]
"""Names of a model, and what a call of it used."""


class CallCounter(Shared):
    """Counts each call of a routed LLM once, with what it used; any number of threads and tasks may share one.

    Args:
        prices: Of models by name; None if they are of no interest.

    Raises:
        ConfigurationError: Something is no price.
    """

    def __init__(self, prices: Mapping[str, Price | None] | None = None) -> None:
        super().__init__()
        self._stats = CallStats(prices)
        self._calls: OrderedDict[str, Attempt] = OrderedDict()
        self._asked: dict[int, _Used | None] = {}

    def started(self, key: str | None) -> Attempt | None:
        """Remember a call.

        Args:
            key: Names it; its end will come under the same.

        Returns:
            The attempt that it belongs to; None where the call is not a routed one, or is part of one that has begun:
            a completion model tells of a chat and of the completion that it makes of it.
        """
        attempt = current_attempt()
        if attempt is None or key is None:
            return None
        with self._lock:
            if id(attempt) in self._asked:
                return None
            self._asked[id(attempt)] = None
            self._calls[key] = attempt
            if len(self._calls) > _MOST_CALLS:
                _, dropped = self._calls.popitem(last=False)
                self._asked.pop(id(dropped), None)
        return attempt

    def ended(self, key: str | None, response: Any) -> None:
        """Count a call that was answered."""
        found = used(response)
        call, part = self._over(key)
        if call is not None:
            # A part of it tells what an LLM used whose own answer does not, or is the user's own object.
            names, tokens = part if part is not None and (call.is_structured or found[1] is None) else found
            self._stats.record(call.side, [*names, call.model], tokens)
        elif found[1] is not None and (attempt := current_attempt()) is not None:
            with self._lock:
                if id(attempt) in self._asked:
                    self._asked[id(attempt)] = found

    def failed(self, key: str | None) -> None:
        """Count a call that failed or was given up."""
        call, _ = self._over(key)
        if call is not None:
            self._stats.record_failed(call.side, [call.model])

    def _over(self, key: str | None) -> tuple[Attempt | None, _Used | None]:
        """The call of that name, which has ended, and what a part of it told."""
        if key is None:
            return None, None
        with self._lock:
            call = self._calls.pop(key, None)
            return call, None if call is None else self._asked.pop(id(call), None)

    def __getstate__(self) -> dict[str, Any]:
        """State of a copy: calls under way are counted where they began."""
        return {"_stats": deepcopy(self._stats), "_calls": OrderedDict(), "_asked": {}}

    def snapshot(self) -> UsageSnapshot:
        """All figures at one moment."""
        return self._stats.snapshot()

    def reset(self) -> None:
        """Forget every call that has ended."""
        self._stats.reset()


def used(response: Any) -> _Used:
    """What an answer says of itself, in the words of its provider.

    Args:
        response: A ChatResponse or a CompletionResponse; anything else says nothing.

    Returns:
        Names of the model, and tokens where they are told.
    """
    raw = getattr(response, "raw", None)
    # The last event of a stream of OpenAI's Responses holds the whole response.
    raw = field_of(raw, "response") or raw
    names = [name for key in ("model", "model_version") if isinstance(name := field_of(raw, key), str) and name]
    holders = (
        field_of(raw, "usage"),
        field_of(raw, "usage_metadata"),
        raw,
        getattr(response, "additional_kwargs", None),
    )
    return names, next((tokens for one in holders if (tokens := _tokens(one)) is not None), None)


def _tokens(usage: Any) -> Tokens | None:
    """What a provider tells of tokens, under its own names."""
    prompt = _count(usage, _INPUT)
    thought = _count(usage, _THOUGHT_BESIDE)
    answer = _count(usage, _OUTPUT)
    if prompt is None or (answer is None and thought is None):
        return None
    read, made = _count(usage, _CACHED_BESIDE) or 0, _count(usage, _MADE_BESIDE) or 0
    details = next((found for name in _DETAILS if (found := field_of(usage, name)) is not None), None)
    cached = _count(details, ("cached_tokens",)) or _count(usage, ("cached_content_token_count",)) or read
    return Tokens(prompt + read + made, (answer or 0) + (thought or 0), cached)


def _count(holder: Any, names: tuple[str, ...]) -> int | None:
    found = (field_of(holder, name) for name in names)
    return next((value for value in found if isinstance(value, int) and value >= 0), None)
