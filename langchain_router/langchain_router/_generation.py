"""`generate` and `agenerate` of the routed model: one call of a child for each list of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableBinding
from langchain_core.runnables.config import merge_configs

from langchain_router._messages import annotated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from langchain_router._dispatch import Call


def generate_one(call: Call, messages: list[BaseMessage]) -> LLMResult:
    """Let a child generate for one list of messages."""
    call = _unbound(call)
    if not isinstance(call.child, BaseChatModel):
        return _as_result(call.child.invoke(messages, call.config, **call.kwargs))
    return call.child.generate([messages], **_arguments(call))


async def agenerate_one(call: Call, messages: list[BaseMessage]) -> LLMResult:
    """`generate_one` without blocking the event loop."""
    call = _unbound(call)
    if not isinstance(call.child, BaseChatModel):
        return _as_result(await call.child.ainvoke(messages, call.config, **call.kwargs))
    return await call.child.agenerate([messages], **_arguments(call))


def joined(calls: Sequence[Call], results: Sequence[LLMResult]) -> LLMResult:
    """One result of many, with the decision in each message.

    `llm_output` is what the children make of theirs; where both sides answered it stands under `strong` and
    `weak`, for it tells of one provider and cannot be added up across two.
    """
    outputs = {
        side: _llm_output(
            [(call, result) for call, result in zip(calls, results, strict=True) if call.decision.route == side]
        )
        for side in ("strong", "weak")
        if any(call.decision.route == side for call in calls)
    }
    runs = [run for result in results for run in result.run or ()]
    return LLMResult(
        generations=[
            [_annotated_generation(generation, call) for generation in result.generations[0]]
            for call, result in zip(calls, results, strict=True)
        ],
        llm_output=outputs if len(outputs) > 1 else next(iter(outputs.values()), {}),
        run=runs or None,
    )


def _llm_output(answers: Sequence[tuple[Call, LLMResult]]) -> dict[str, Any]:
    child = _unbound(answers[0][0]).child
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
    return generation.model_copy(update={"message": annotated(generation.message, call.decision)})
