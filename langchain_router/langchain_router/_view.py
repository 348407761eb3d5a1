"""A chat model whose calls in one step of an agent carry the step's decision, though the agent calls it itself."""

from __future__ import annotations

from abc import ABCMeta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_core.language_models import BaseChatModel

_STATE = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
"""All that a pydantic object is made of."""


def view_of(model: BaseChatModel, adding: Callable[[RunnableConfig], RunnableConfig]) -> BaseChatModel:
    """A view of a model: of the same class for whoever asks, with the same state, but what it binds adds to configs.

    An agent binds its tools to the model and calls that without a config. A binding around the model would hide what
    kind of model it is from the agent and from other middleware, a copy would have a client and a state of its own, and
    a config in the surroundings would also reach the calls that other middleware makes of models of its own.

    Args:
        model: The model.
        adding: Makes of the config of a call what is added to it.

    Returns:
        The view.
    """
    view = object.__new__(_view_class(type(model)))
    for name in _STATE:
        object.__setattr__(view, name, getattr(model, name))
    return _with(view, adding)


def _with(view: BaseChatModel, adding: Callable[[RunnableConfig], RunnableConfig]) -> BaseChatModel:
    object.__setattr__(view, "_adding", adding)
    return view


@lru_cache(maxsize=64)
def _view_class(kind: type[BaseChatModel]) -> type[BaseChatModel]:
    # The annotations must be there at run time: RunnableWithFallbacks reads them.
    def bind(self: Any, **kwargs: Any) -> Runnable[Any, Any]:
        return RunnableBinding(bound=kind.bind(self, **kwargs), config_factories=[self._adding])

    def bind_tools(self: Any, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        return RunnableBinding(bound=kind.bind_tools(self, tools, **kwargs), config_factories=[self._adding])

    # Other middleware may copy the model to change a setting of it.
    def copy(self: Any) -> Any:
        return _with(kind.__copy__(self), self._adding)

    def deepcopy(self: Any, memo: dict[int, Any] | None = None) -> Any:
        return _with(kind.__deepcopy__(self, memo), self._adding)

    body = {
        "__slots__": ("_adding",),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        # For whoever compares classes, and so that a view equals its model.
        "__class__": property(lambda _: kind),
        "__copy__": copy,
        "__deepcopy__": deepcopy,
        "bind": bind,
        "bind_tools": bind_tools,
    }
    # Not by pydantic's own metaclass, which would build validators anew: a view is never validated.
    return ABCMeta.__new__(type(kind), kind.__name__, (kind,), body)
