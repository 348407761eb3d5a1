"""The calls of models under a decision, for the recorder: told by the runs that LangChain opens for them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler

from langchain_router._usage import used

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from langchain_core.outputs import LLMResult

    from prefroute.recording import Recorder
    from prefroute.recording.calling import Calling

logger = logging.getLogger(__name__)


class CallWatch(BaseCallbackHandler):
    """Records the runs of models that it is attached to: one for each try of a retry, or of a fallback of its own.

    Args:
        recorder: Where they are kept.
        routing: The decision that they follow from, as it is recorded.
    """

    # It only makes a note, so an event loop need not send it to a thread.
    run_inline = True

    def __init__(self, recorder: Recorder, routing: Mapping[str, Any]) -> None:
        self._recorder = recorder
        self._routing = routing
        self._under_way: dict[UUID, Calling] = {}

    def on_chat_model_start(self, *_: Any, run_id: UUID, metadata: Any = None, **__: Any) -> None:
        """A chat model is called."""
        model = (metadata or {}).get("ls_model_name")
        calling = self._recorder.calling(self._routing, model if isinstance(model, str) else None)
        if calling is not None:
            self._under_way[run_id] = calling

    on_llm_start = on_chat_model_start

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """It has answered."""
        calling = self._under_way.pop(run_id, None)
        if calling is None:
            return
        try:
            models, tokens, _cost = used(response)
            answer = response.generations[0][0].text
        except Exception:
            logger.debug("the result of a model could not be read", exc_info=True)
            calling.answered()
        else:
            calling.answered(model=next(iter(models), None), tokens=tokens, answer=answer)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """It has failed, or was given up."""
        if (calling := self._under_way.pop(run_id, None)) is not None:
            calling.failed(error)


def watches(recorder: Recorder | None, routing: Mapping[str, Any]) -> list[BaseCallbackHandler]:
    """The handlers that record the calls under a decision: none where it is not recorded itself."""
    return [] if recorder is None or not recorder.wants(routing["id"]) else [CallWatch(recorder, routing)]
