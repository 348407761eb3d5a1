"""LangChain adapter of prefroute: a chat model that sends each prompt to a strong or a weak model."""

from prefroute.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401 - asked for here so that its absence is told at the door
except ModuleNotFoundError as error:
    if error.name != "langchain_core":
        raise
    _message = 'langchain_router needs langchain-core: pip install "prefroute[langchain]"'
    raise MissingExtraError(_message) from error

from langchain_router.callbacks import StrongCallRateHandler
from langchain_router.chat_model import RoutedChatModel

__all__ = ["RoutedChatModel", "StrongCallRateHandler"]
