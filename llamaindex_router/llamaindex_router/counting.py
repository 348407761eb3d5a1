"""Counting the calls of LLMs that routed LLMs make, from what the framework tells of their beginning and end."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

from llamaindex_router.events import current_attempt
from prefroute._shared import Shared
from prefroute.usage import CallStats, Tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llamaindex_router.events import Attempt
    from prefroute.costs import Price
    from prefroute.usage import UsageSnapshot

_MOST_CALLS = 100_000
"""Calls under way that are remembered: one whose end is never told must not be kept for ever."""

_INPUT = ("prompt_tokens", "input_tokens", "prompt_token_count", "prompt_eval_count")
_OUTPUT = ("completion_tokens", "output_tokens", "candidates_token_count", "eval_count")
"""Names that providers have for the tokens of a prompt and of an answer."""

_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_CACHED_BESIDE = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Where Anthropic counts what the prompt cache had, and what it took in: beside the other tokens of the prompt."""


class _Call(NamedTuple):
    """A call under way."""

    attempt: Attempt
    model: str | None


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
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self._asked: set[int] = set()

    def started(self, key: str | None, model: Any) -> Attempt | None:
        """Remember a call.

        Args:
            key: Names it; its end will come under the same.
            model: What the LLM tells of itself.

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
            self._asked.add(id(attempt))
            self._calls[key] = _Call(attempt, _name_of(model))
            if len(self._calls) > _MOST_CALLS:
                _, dropped = self._calls.popitem(last=False)
                self._asked.discard(id(dropped.attempt))
        return attempt

    def ended(self, key: str | None, response: Any) -> None:
        """Count a call that was answered."""
        if (call := self._over(key)) is not None:
            names, tokens = used(response)
            self._stats.record(call.attempt.side, [*names, *([call.model] if call.model else [])], tokens)

    def failed(self, key: str | None) -> None:
        """Count a call that failed or was given up."""
        if (call := self._over(key)) is not None:
            self._stats.record_failed(call.attempt.side, [call.model] if call.model else [])

    def _over(self, key: str | None) -> _Call | None:
        if key is None:
            return None
        with self._lock:
            call = self._calls.pop(key, None)
            if call is not None:
                self._asked.discard(id(call.attempt))
        return call

    def __getstate__(self) -> dict[str, Any]:
        """State of a copy: calls under way are counted where they began."""
        return {"_stats": deepcopy(self._stats), "_calls": OrderedDict(), "_asked": set()}

    def snapshot(self) -> UsageSnapshot:
        """All figures at one moment."""
        return self._stats.snapshot()

    def reset(self) -> None:
        """Forget every call that has ended."""
        self._stats.reset()


def _name_of(model: Any) -> str | None:
    """The name of a model, by what its LLM tells of itself."""
    if not isinstance(model, dict):
        return None
    return next((name for key in ("model", "model_name") if isinstance(name := model.get(key), str) and name), None)


def used(response: Any) -> tuple[list[str], Tokens | None]:
    """What an answer says of itself, in the words of its provider.

    Args:
        response: A ChatResponse or a CompletionResponse; anything else says nothing.

    Returns:
        Names of the model, and tokens where they are told.
    """
    raw = getattr(response, "raw", None)
    names = [name for key in ("model", "model_version") if isinstance(name := _field(raw, key), str) and name]
    usage = _field(raw, "usage") or _field(raw, "usage_metadata") or getattr(response, "additional_kwargs", None)
    prompt, answer = _count(usage, _INPUT), _count(usage, _OUTPUT)
    if prompt is None or answer is None:
        return names, None
    beside = [_count(usage, (name,)) or 0 for name in _CACHED_BESIDE]
    details = next((found for name in _DETAILS if (found := _field(usage, name)) is not None), None)
    cached = _count(details, ("cached_tokens",)) or _count(usage, ("cached_content_token_count",)) or beside[0]
    return names, Tokens(prompt + sum(beside), answer, cached)


def _count(holder: Any, names: tuple[str, ...]) -> int | None:
    found = (_field(holder, name) for name in names)
    return next((value for value in found if isinstance(value, int) and value >= 0), None)


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)
