"""What calls bring for routing where no keyword reaches the LLM: through a query engine, an agent, a selector."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from prefroute.inputs import as_threshold, not_both
from prefroute.options import Options, options_of

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from prefroute import Route

_NOTHING = Options()

_surrounding: ContextVar[Options] = ContextVar("llamaindex_router_options", default=_NOTHING)


@contextmanager
def routing_options(
    *, threshold: float | None = None, strong_rate: float | None = None, route: Route | None = None
) -> Generator[None]:
    """Route whatever is called within by other settings than its own.

    Holds for every `RoutedLLM` and `RouterSelector` that is called within, in this thread and in the tasks that are
    started here; what a call brings by keyword goes before. One within another overrides what it sets.

    Example:
        ```python
        with routing_options(route="strong"):
            response = query_engine.query(question)
        ```

    Args:
        threshold: Scores at or above it go to the strong side.
        strong_rate: In place of a threshold: the share that goes there, by the router's calibration.
        route: The side, whatever the router would say.

    Raises:
        ThresholdError: The threshold is not a finite number.
        ConfigurationError: `route` names no side, `strong_rate` is no share, or there is a threshold beside it.
    """
    not_both(threshold, strong_rate)
    if threshold is not None:
        as_threshold(threshold)
    if strong_rate is not None:
        from prefroute.calibration import as_strong_rate

        as_strong_rate(strong_rate)
    given = {"threshold": threshold, "strong_rate": strong_rate, "route": route}
    token = _surrounding.set(with_surrounding(given))
    try:
        yield
    finally:
        _surrounding.reset(token)


def with_surrounding(given: Mapping[str, Any]) -> Options:
    """The settings of a call: what it brings, and what holds around it for the rest.

    Raises:
        ConfigurationError: `route` names no side.
    """
    around = _surrounding.get()
    return options_of(given, around._asdict()) if given else around
