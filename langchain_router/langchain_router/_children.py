"""The chat models inside the wrappers that LangChain puts around them: bindings, retries, fallbacks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable, RunnableConfigurableAlternatives

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias, TypeGuard

    AnyRunnable: TypeAlias = Runnable[Any, Any]
    Change: TypeAlias = Callable[[AnyRunnable], AnyRunnable]
    Rewrap: TypeAlias = Callable[[RunnableBinding[Any, Any], AnyRunnable], AnyRunnable]

_TOOL_KWARGS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})


class Routes:
    """Marks a Runnable that routes: what a call brings for routing is for it too."""


class FoundModel(NamedTuple):
    """A chat model and the keyword arguments that wrappers add to its calls."""

    model: BaseChatModel
    kwargs: Mapping[str, Any]


def find_model(child: AnyRunnable) -> FoundModel | None:
    """The chat model that a child stands for (the primary one of a fallback), or None if it is not around one."""
    return _find(child, chains=False)


def find_asked_model(child: AnyRunnable) -> FoundModel | None:
    """The same, also for a chain that begins with the model, as one for structured output does."""
    return _find(child, chains=True)


def _find(child: AnyRunnable, *, chains: bool) -> FoundModel | None:
    kwargs: dict[str, Any] = {}
    while not isinstance(child, BaseChatModel):
        if isinstance(child, RunnableBindingBase):
            kwargs = {**child.kwargs, **kwargs}
            child = child.bound
        elif isinstance(child, RunnableWithFallbacks):
            child = child.runnable
        elif isinstance(child, DynamicRunnable):
            child = child.default
        elif chains and isinstance(child, RunnableSequence):
            child = child.first
        elif chains and isinstance(child, RunnableParallel) and "raw" in child.steps__:
            child = child.steps__["raw"]
        else:
            return None
    return FoundModel(child, kwargs)


def routes(child: AnyRunnable) -> bool:
    """Whether a child is a routed one, or a wrapper around one."""
    while not isinstance(child, Routes):
        if isinstance(child, RunnableBindingBase):
            child = child.bound
        elif isinstance(child, RunnableWithFallbacks):
            child = child.runnable
        else:
            return False
    return True


def provider_of(child: AnyRunnable) -> str | None:
    """The provider of a child's model, as LangSmith calls it; None where that is not known."""
    found = find_asked_model(child)
    # A hook of the base class that we extend:
    return None if found is None else found.model._get_ls_params(**found.kwargs).get("ls_provider")  # noqa: SLF001


def describe(child: AnyRunnable) -> dict[str, Any]:
    """What a child is, for logs: JSON-safe, and without keys because it copies no other setting of the model."""
    found = find_model(child)
    if found is None:
        return {"type": type(child).__name__}
    params = found.model._get_ls_params(**found.kwargs)  # noqa: SLF001 - a hook of the base class that we extend
    shown = ("ls_provider", "ls_model_name", "ls_temperature", "ls_max_tokens")
    return {"type": found.model._llm_type} | {name: params[name] for name in shown if params.get(name) is not None}  # type: ignore[literal-required]  # noqa: SLF001 - as above


def with_fields(child: AnyRunnable, fields: Mapping[str, Any]) -> AnyRunnable | None:
    """A copy of a child whose chat models have these fields set, or None where there is no model to set them on."""
    return None if find_model(child) is None else _with_fields(child, fields)


def _with_fields(child: AnyRunnable, fields: Mapping[str, Any]) -> AnyRunnable:
    return _change_models(child, partial(_set_fields, fields=fields), _rewrap)


def _set_fields(model: AnyRunnable, fields: Mapping[str, Any]) -> AnyRunnable:
    if isinstance(model, RunnableConfigurableAlternatives):
        # Module-level functions and not closures, so that what could be pickled still can.
        alternatives = {
            name: _with_fields(made, fields) if isinstance(made, Runnable) else partial(_made_with, made, fields)
            for name, made in model.alternatives.items()
        }
        update = {"default": _with_fields(model.default, fields), "alternatives": alternatives}
        return model.model_copy(update=update)
    if isinstance(model, DynamicRunnable):
        return model.model_copy(update={"default": _with_fields(model.default, fields)})
    if not isinstance(model, BaseChatModel):
        return model
    copy = model.model_copy(update=dict(fields))
    # A cached property travels with model_copy and would describe the model as it was, in cache keys too.
    copy.__dict__.pop("_serialized", None)
    return copy


def _made_with(make: Callable[[], AnyRunnable], fields: Mapping[str, Any]) -> AnyRunnable:
    return _with_fields(make(), fields)


def with_tools(child: AnyRunnable, tools: Any, **kwargs: Any) -> AnyRunnable:
    """A child with tools bound in its own provider's format, keeping what its wrappers hold.

    Raises:
        NotImplementedError: The child, or the model in it, cannot take tools.
    """

    def rewrap(binding: RunnableBinding[Any, Any], inner: AnyRunnable) -> AnyRunnable:
        # Tools bound now replace tools bound earlier, as they do on a plain model.
        kept = {name: value for name, value in binding.kwargs.items() if name not in _TOOL_KWARGS}
        if _is_plain_binding(inner) and isinstance(binding, type(inner)):
            # One binding instead of two: LangGraph looks for a chat model right inside it.
            return binding.model_copy(update={"bound": inner.bound, "kwargs": {**kept, **inner.kwargs}})
        return binding.model_copy(update={"bound": inner, "kwargs": kept})

    return _change_models(child, lambda model: _method(model, "bind_tools")(tools, **kwargs), rewrap)


def with_structure(child: AnyRunnable, schema: Any, **kwargs: Any) -> AnyRunnable:
    """A child that answers in a schema by its own provider's method, keeping what its wrappers hold.

    Raises:
        NotImplementedError: The child, or the model in it, cannot do that.
    """

    def rewrap(binding: RunnableBinding[Any, Any], inner: AnyRunnable) -> AnyRunnable:
        chain = bind_first(inner, binding.kwargs)
        if not binding.config and not binding.config_factories:
            return chain
        return RunnableBinding(bound=chain, config=binding.config, config_factories=binding.config_factories)

    return _change_models(child, lambda model: _method(model, "with_structured_output")(schema, **kwargs), rewrap)


def _change_models(child: AnyRunnable, change: Change, rewrap: Rewrap) -> AnyRunnable:
    """Rebuild a child with `change` applied to what its wrappers wrap; the child itself stays as it is."""
    if isinstance(child, RunnableBinding):
        return rewrap(child, _change_models(child.bound, change, rewrap))
    if isinstance(child, RunnableBindingBase):
        return child.model_copy(update={"bound": _change_models(child.bound, change, rewrap)})
    if isinstance(child, RunnableWithFallbacks):
        fallbacks = [_change_models(fallback, change, rewrap) for fallback in child.fallbacks]
        return child.model_copy(
            update={"runnable": _change_models(child.runnable, change, rewrap), "fallbacks": fallbacks}
        )
    return change(child)


def _is_plain_binding(runnable: AnyRunnable) -> TypeGuard[RunnableBinding[Any, Any]]:
    """Whether it binds arguments alone."""
    return isinstance(runnable, RunnableBinding) and not runnable.config and not runnable.config_factories


def _rewrap(binding: RunnableBinding[Any, Any], inner: AnyRunnable) -> AnyRunnable:
    return binding.model_copy(update={"bound": inner})


def bind_first(chain: AnyRunnable, kwargs: Mapping[str, Any]) -> AnyRunnable:
    """Bind keyword arguments to the model that a structured-output chain begins with.

    A chain passes its own keyword arguments to its first step, but a RunnableParallel (`include_raw`) drops them.
    """
    if not kwargs:
        return chain
    if isinstance(chain, RunnableSequence):
        return RunnableSequence(bind_first(chain.first, kwargs), *chain.middle, chain.last, name=chain.name)
    if isinstance(chain, RunnableParallel):
        return RunnableParallel({key: bind_first(step, kwargs) for key, step in chain.steps__.items()})
    return chain.bind(**kwargs)


def _method(child: AnyRunnable, name: str) -> Callable[..., AnyRunnable]:
    method: Callable[..., AnyRunnable] | None = getattr(child, name, None)
    if method is None:
        msg = f"{type(child).__name__} has no {name}; give a chat model, or a binding, retry or fallback around one"
        raise NotImplementedError(msg)
    return method
