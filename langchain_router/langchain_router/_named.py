"""Chat models by name, as LangChain knows them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from prefroute.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


def named(spec: str) -> BaseChatModel:
    """Make the chat model of a name such as `openai:gpt-5`.

    Args:
        spec: What `langchain.chat_models.init_chat_model` takes.

    Returns:
        The model.

    Raises:
        MissingExtraError: The packages for it are not installed.
        ConfigurationError: LangChain makes no model of that name.
    """
    if not spec.strip():
        msg = f"LangChain makes no chat model of {spec!r}"
        raise ConfigurationError(msg)
    provider = spec.partition(":")[0].replace("_", "-") if ":" in spec else "openai"
    try:
        # By name, for the package is none that the adapter depends on.
        made: BaseChatModel = import_module("langchain.chat_models").init_chat_model(spec)
    except ImportError as error:
        msg = f"{spec} needs LangChain's packages for it: pip install langchain langchain-{provider}"
        raise MissingExtraError(msg) from error
    except Exception as error:
        # A provider's client refuses in its own way, a missing key above all.
        msg = f"LangChain makes no chat model of {spec!r}: {error}"
        raise ConfigurationError(msg) from error
    return made
