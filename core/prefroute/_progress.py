"""Progress bars, where they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

T = TypeVar("T")


def tracked(steps: Sequence[T], description: str, *, progress: bool, transient: bool = False) -> Iterable[T]:
    """The steps, with a bar on stderr where `progress` asks for one.

    Args:
        steps: What is gone through.
        description: What stands beside the bar.
        progress: Whether to show it.
        transient: Whether it goes away at the end.

    Returns:
        The steps.
    """
    if not progress:
        return steps
    from rich.console import Console
    from rich.progress import track

    return track(steps, description, console=Console(stderr=True), transient=transient)
