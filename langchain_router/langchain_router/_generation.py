"""`generate` and `agenerate` of the routed model: one call of a child for each list of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableBinding
from langchain_core.runnables.config import merge_configs

from langchain_router._messages import annotated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from langchain_router._calls import Call


class Generated(NamedTuple):
    """What a child generated for one list of messages, and in which call."""

    call: Call
    result: LLMResult


def generate_one(call: Call) -> Generated:
    """Let a child generate for one list of messages."""
    inner = _unbound(call)
    if not isinstance(inner.child, BaseChatModel):
        return Generated(call, _as_result(inner.child.invoke(inner.value, inner.config, **inner.kwargs)))
    return Generated(call, inner.child.generate([inner.value], **_arguments(inner)))


async def agenerate_one(call: Call) -> Generated:
    """`generate_one` without blocking the event loop."""
    inner = _unbound(call)
    if not isinstance(inner.child, BaseChatModel):
        return Generated(call, _as_result(await inner.child.ainvoke(inner.value, inner.config, **inner.kwargs)))
    return Generated(call, await inner.child.agenerate([inner.value], **_arguments(inner)))


def joined(generated: Sequence[Generated]) -> LLMResult:
    """One result of many, with the decision in each message.

    `llm_output` is what the children make of theirs; where both sides answered it stands under `strong` and
    `weak`, for it tells of one provider and cannot be added up across two.
    """
    sides = {side: [one for one in generated if one.call.side == side] for side in ("strong", "weak")}
    outputs = {side: _llm_output(answers) for side, answers in sides.items() if answers}
    runs = [run for _, result in generated for run in result.run or ()]
    return LLMResult(
        generations=[
            [_annotated_generation(generation, call) for generation in result.generations[0]]
            for call, result in generated
        ],
        llm_output=outputs if len(outputs) > 1 else next(iter(outputs.values()), {}),
        run=runs or None,
    )


def _llm_output(answers: Sequence[Generated]) -> dict[str, Any]:
    child = _unbound(answers[0].call).child
    outputs = [result.llm_output for _, result in answers]
    if len(outputs) > 1 and isinstance(child, BaseChatModel):
        return child._combine_llm_outputs(outputs)  # noqa: SLF001 - a hook of the base class that we extend
    return outputs[0] or {}


def _unbound(call: Call) -> Call:
    """The same call of what plain bindings wrap, for they forget their arguments when asked to generate."""
    child, config, kwargs = call.child, call.config, call.kwargs
    while isinstance(child, RunnableBinding) and not child.config_factories:
        if child.config:
            config = merge_configs(child.config, config)
        kwargs = {**child.kwargs, **kwargs}
        child = child.bound
    return call._replace(child=child, config=config, kwargs=kwargs)


def _arguments(call: Call) -> dict[str, Any]:
    named = ("callbacks", "tags", "metadata", "run_name", "run_id")
    return {name: call.config.get(name) for name in named} | call.kwargs


def _as_result(message: BaseMessage) -> LLMResult:
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def _annotated_generation(generation: Any, call: Call) -> Any:
    if not isinstance(generation, ChatGeneration):
        return generation
    return generation.model_copy(update={"message": annotated(generation.message, call.routing)})
