"""Which piece of work a call is part of: the outermost query, synthesis, chat or agent's run around it.

These are spans of the framework's instrumentation with others inside, but a span knows its parent alone, and the older
trace of callback events is out of step where an error, or a synthesis without a query engine, has been. So a handler of
spans notes, for each one that begins, which work it is part of.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.span import active_span_id
from llama_index_instrumentation.span_handlers import NullSpanHandler

if TYPE_CHECKING:
    import inspect

_MOST_OPEN, _MOST_ENDED = 100_000, 10_000
"""Spans whose work is remembered: of the open ones all, but that some may never end."""

_WORKERS = frozenset(
    {
        "AgentWorkflow",
        "BaseChatEngine",
        "BaseEvaluator",
        "BaseNodePostprocessor",
        "BaseQueryEngine",
        "BaseRetriever",
        "BaseSynthesizer",
        "BaseWorkflowAgent",
    }
)
"""Classes of the framework whose methods are each a piece of work on one question.

An application's own spans and workflows are none: what it asks in one of them may be many questions.
"""


@lru_cache(maxsize=1000)
def _works(kind: type) -> bool:
    # By name, for importing them all would load what nobody asked for.
    return any(one.__name__ in _WORKERS and one.__module__.startswith("llama_index.core.") for one in kind.__mro__)


class SpansOfWork(NullSpanHandler):
    """Notes of each span which piece of work it is part of."""

    # Without locks, which a fork could leave held: each step on these does all of its work at once.
    _open: OrderedDict[str, str] = PrivateAttr(default_factory=OrderedDict)
    _ended: OrderedDict[str, str] = PrivateAttr(default_factory=OrderedDict)

    @classmethod
    def class_name(cls) -> str:
        """Stable name of the class."""
        return "SpansOfWork"

    def span_enter(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,  # noqa: ARG002 - the framework's signature
        instance: Any | None = None,
        parent_id: str | None = None,
        tags: dict[str, Any] | None = None,  # noqa: ARG002 - as above
        **kwargs: Any,  # noqa: ARG002 - as above
    ) -> None:
        """Note a span that begins; one that is part of nothing is not worth a note."""
        work = None if parent_id is None else self.work_of(parent_id)
        if work is None and instance is not None and _works(type(instance)):  # type: ignore[arg-type] # classes are hashable
            work = id_
        if work is not None:
            _note(self._open, id_, work, _MOST_OPEN)

    def span_exit(self, id_: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - the framework's signature
        """Note that a span has ended: what reads its stream may call an LLM yet, but it goes before the open ones."""
        if (work := self._open.pop(id_, None)) is not None:
            _note(self._ended, id_, work, _MOST_ENDED)

    span_drop = span_exit

    def work_of(self, id_: str) -> str | None:
        """The work that a span is part of, by the outermost span of it; None where it is part of none."""
        return self._open.get(id_) or self._ended.get(id_)


def _note(noted: OrderedDict[str, str], id_: str, work: str, most: int) -> None:
    noted[id_] = work
    if len(noted) > most:
        with suppress(KeyError):
            noted.popitem(last=False)


_spans = SpansOfWork()
_root = get_dispatcher()


def watch_spans() -> None:
    """See to it that spans are noted from here on; once a process is enough, unless somebody takes the handler away."""
    # Attached twice by two threads, it notes the same twice.
    if not any(handler is _spans for handler in _root.span_handlers):
        _root.add_span_handler(_spans)


def work_under_way() -> str | None:
    """The work that the call of a routed LLM is part of that is made in this context; None where it is part of none."""
    watch_spans()
    active = active_span_id.get()
    return None if active is None else _spans.work_of(active)
