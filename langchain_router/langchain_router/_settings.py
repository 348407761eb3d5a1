"""What the constructor of the routed model is given, checked."""

from __future__ import annotations

import warnings
from inspect import signature
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable

from langchain_router._children import with_fields
from langchain_router._named import named
from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

_PUSHED: dict[str, Any] = {
    "cache": None,
    "disable_streaming": False,
    "output_version": None,
    "rate_limiter": None,
    "verbose": False,
}
"""Fields of the base class that work inside the model that answers, with the value that asks for nothing."""

_MODEL_PARAMETERS = frozenset({"api_key", "max_retries", "max_tokens", "stop", "streaming", "temperature", "timeout"})
"""What LangChain gives every chat model; generic code may, so it is no error here."""


def known(model_class: type[BaseModel], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the class has.

    LangChain's base class ignores unknown names, so that a misspelt threshold would be dropped silently.

    Raises:
        ConfigurationError: A name is unknown.
    """
    fields = model_class.model_fields
    unknown = sorted(set(settings) - set(fields) - _MODEL_PARAMETERS)
    if unknown:
        named = signature(model_class.__init__).parameters.values()
        settable = {*fields, *(one.name for one in named if one.kind is one.KEYWORD_ONLY)}
        msg = f"{model_class.__name__} has no {', '.join(unknown)}; it has {', '.join(sorted(settable))}"
        raise ConfigurationError(msg)
    if ignored := sorted(set(settings) - set(fields)):
        warnings.warn(
            f"{model_class.__name__} ignores {', '.join(ignored)}: set them on the strong and weak models",
            stacklevel=3,
        )
    return {name: value for name, value in settings.items() if name in fields}


def as_child(name: str, child: object, settings: Mapping[str, Any]) -> Runnable[Any, Any]:
    """A child with the settings that only it can carry out.

    Raises:
        ConfigurationError: It is no Runnable, or has no chat model that the settings could be set on.
        MissingExtraError: It is a name, and the packages for it are not installed.
    """
    if isinstance(child, str):
        child = named(child)
    if not isinstance(child, Runnable):
        msg = (
            f"{name} must be a LangChain chat model, a Runnable around one or a name of one, got {type(child).__name__}"
        )
        raise ConfigurationError(msg)
    pushed = {key: settings[key] for key, default in _PUSHED.items() if settings.get(key, default) is not default}
    if not pushed:
        return child
    changed = with_fields(child, pushed)
    if changed is None:
        msg = f"{', '.join(pushed)} cannot be set on {name}: there is no chat model in {type(child).__name__}"
        raise ConfigurationError(msg)
    return changed
