"""When LangChain's own ways allow the other side's chance where the chosen one failed."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import BaseCallbackHandler

from langchain_router._messages import ROUTING_KEY
from prefroute.conversation import FALLBACK

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator


class TokenWatch(BaseCallbackHandler):
    """Notices what a run has answered: someone may have shown it, so nothing else may follow it.

    Attributes:
        seen: Whether there was any of it, if only the first token.
        ended: Whether there was all of it.
    """

    run_inline = True

    def __init__(self) -> None:
        self.seen = self.ended = False

    def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        """A token of a stream."""
        self.seen = True

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        """The whole answer."""
        self.seen = self.ended = True

    def on_stream_event(self, *_: Any, **__: Any) -> None:
        """An event of a typed stream."""
        self.seen = True


def interrupts(error: Exception) -> bool:
    """Whether this is no failure but how LangGraph interrupts a graph."""
    # By name, for the package need not be there.
    return any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__)


async def without_repeated(events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The events of a call without those that tell the second run's answer as the first one's.

    LangChain tells what the outermost call yields as chunks of the run whose id the call was given: that of the first
    run, also where it has failed and the chunks are another's, which tells of them itself.
    """
    outermost, failed = None, False
    async with aclosing(cast("AsyncGenerator[Any, None]", events)):
        async for event in events:
            outermost = event["run_id"] if outermost is None else outermost
            routing = (event.get("metadata") or {}).get(ROUTING_KEY)
            failed = failed or (isinstance(routing, dict) and FALLBACK in routing)
            if not (failed and event["run_id"] == outermost and event["event"].endswith("_stream")):
                yield event
