"""The proxy's callback handlers, lent to an inner LLM for the length of a call.

The framework assigns `callback_manager` to the LLM it was given (`Settings.llm` does at every access),
which is the proxy; the LLM that fires the events is an inner one. Assigning the proxy's manager to it
would take away handlers of its own (a token counter for each model), would stay behind when the proxy's
changes, and would mix up two proxies that share an LLM. So an inner LLM gets, once, a manager that shows
its own handlers plus those that the call in progress lends.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_index.core.callbacks import CallbackManager

if TYPE_CHECKING:
    from llama_index.core.callbacks.base_handler import BaseCallbackHandler
    from llama_index.core.llms import LLM


@dataclass(frozen=True, slots=True)
class Loan:
    """What one call lends.

    Attributes:
        borrower: The inner LLM's manager; no other one may use the loan.
        handlers: The lender's handlers.
        lender: The manager whose trace the call belongs to.
    """

    borrower: BorrowingManager
    handlers: tuple[BaseCallbackHandler, ...]
    lender: CallbackManager


current_loan: ContextVar[Loan | None] = ContextVar("llamaindex_router_loan", default=None)
"""What the call in progress lends; like tags, never set across a `yield` of a stream."""

_install = threading.Lock()


class BorrowingManager(CallbackManager):
    """An inner LLM's callback manager with whatever handlers the call in progress lends.

    Args:
        own: The manager the LLM had; adding and removing handlers goes to it.
    """

    def __init__(self, own: CallbackManager) -> None:
        # Not super().__init__(): it would copy in global handlers, which `own` already has.
        self._own = own

    @property
    def loan(self) -> Loan | None:
        """What the call in progress lends to this manager."""
        loan = current_loan.get()
        return loan if loan is not None and loan.borrower is self else None

    @property
    def handlers(self) -> list[BaseCallbackHandler]:
        """Its own handlers, then the lent ones that it does not have itself."""
        own, loan = self._own.handlers, self.loan
        if loan is None:
            return own
        return [*own, *(lent for lent in loan.handlers if all(lent is not mine for mine in own))]

    @handlers.setter
    def handlers(self, handlers: list[BaseCallbackHandler]) -> None:
        self._own.handlers = handlers

    def add_handler(self, handler: BaseCallbackHandler) -> None:
        """Add a handler of its own."""
        self._own.add_handler(handler)

    def remove_handler(self, handler: BaseCallbackHandler) -> None:
        """Remove a handler of its own."""
        self._own.remove_handler(handler)

    # The base class keeps the tree of a trace's events here; a lent call is a leaf in the lender's tree.
    @property
    def _trace_map(self) -> dict[str, list[str]]:
        return self._tracer.trace_map

    @_trace_map.setter
    def _trace_map(self, trace_map: dict[str, list[str]]) -> None:
        self._tracer._trace_map = trace_map  # noqa: SLF001 - a manager sharing another's trace has no other way

    @property
    def _tracer(self) -> CallbackManager:
        loan = self.loan
        return self._own if loan is None else loan.lender


def lend(manager: CallbackManager, llm: LLM) -> Loan | None:
    """Prepare a loan of the manager's handlers to an inner LLM.

    Args:
        manager: The proxy's.
        llm: The LLM about to be called. When there is something to lend, its manager becomes a
            `BorrowingManager` around the one it had.

    Returns:
        The loan, for `current_loan`; None when there is nothing to lend.
    """
    # Either may be None, which the framework puts up with.
    handlers = tuple(manager.handlers) if isinstance(manager, CallbackManager) else ()
    if not handlers or llm.callback_manager is manager:
        return None
    with _install:
        borrower = llm.callback_manager
        if not isinstance(borrower, BorrowingManager):
            borrower = BorrowingManager(borrower if isinstance(borrower, CallbackManager) else CallbackManager())
            llm.callback_manager = borrower
    # The proxy may itself be the inner LLM of another proxy and borrow.
    lender = manager._tracer if isinstance(manager, BorrowingManager) else manager  # noqa: SLF001 - same module
    return Loan(borrower, handlers, lender)
