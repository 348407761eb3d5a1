"""What a model's result says of its name, its tokens and its cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.outputs import ChatGeneration

from prefroute.inputs import finite_or_none
from prefroute.usage import Tokens

if TYPE_CHECKING:
    from langchain_core.outputs import LLMResult


def used(response: LLMResult) -> tuple[list[str], Tokens | None, float | None]:
    """What the result of a model says of what it took.

    Args:
        response: The result.

    Returns:
        Names of the model, tokens, and the cost where the framework knows it: 0 for an answer from its cache.
    """
    generation = response.generations[0][0]
    if not isinstance(generation, ChatGeneration):
        return [], None, None
    message = generation.message
    metadata = message.response_metadata
    models = [name for key in ("model_name", "model") if isinstance(name := metadata.get(key), str)]
    usage = getattr(message, "usage_metadata", None)
    if not isinstance(usage, dict):
        return models, None, None
    cached = (usage.get("input_token_details") or {}).get("cache_read") or 0
    counts = [_count_of(value) for value in (usage.get("input_tokens"), usage.get("output_tokens"), cached)]
    known = [count for count in counts if count is not None]
    cost = finite_or_none(usage.get("total_cost"))
    tokens = Tokens(*known) if len(known) == len(counts) else None
    return models, tokens, None if cost is None or cost < 0 else cost


def _count_of(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
