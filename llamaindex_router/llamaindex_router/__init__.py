"""Learned routing between a strong and a weak model for LlamaIndex."""

from prefroute.errors import MissingExtraError

try:
    import llama_index.core  # noqa: F401 - only to see whether it is there
except ModuleNotFoundError as error:
    # A part of the framework that is missing or broken is its own failure, and should look like it.
    if error.name not in {"llama_index", "llama_index.core"}:
        raise
    msg = 'llamaindex_router needs llama-index-core: pip install "prefroute[llamaindex]"'
    raise MissingExtraError(msg, name=error.name) from error

from llamaindex_router.callbacks import StrongCallRateEventHandler, StrongCallRateHandler
from llamaindex_router.events import RoutingDecisionEvent
from llamaindex_router.llm import RoutedLLM
from llamaindex_router.options import routing_options
from llamaindex_router.selector import RouterSelector

__all__ = [
    "RoutedLLM",
    "RouterSelector",
    "RoutingDecisionEvent",
    "StrongCallRateEventHandler",
    "StrongCallRateHandler",
    "routing_options",
]
