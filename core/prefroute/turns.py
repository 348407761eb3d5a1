"""What is remembered of turns under way, for frameworks whose messages cannot carry a decision.

Where an answer carries the decision that led to it, a conversation says by itself where it stands
(`prefroute.conversation`). Where it cannot, a later step of a turn is known by its question and by what else tells the
turn; it keeps the decision of the first step, so that a turn is decided, counted and told of once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from prefroute._shared import Shared

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from prefroute.decider import Ask, Decider
    from prefroute.router import Router
    from prefroute.types import RoutingDecision

TURNS = 1000
"""Turns that are remembered: far more than are under way at a time."""

ANSWERS = 10_000
"""Answers whose decision is remembered."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What tells which turn a call belongs to.

    Attributes:
        scope: Names a piece of work whose calls on one question are one turn, a query say; None where there is none.
        goes_on: Whether the call is a later step: something came after what the person asked.
    """

    scope: Hashable | None = None
    goes_on: bool = False


class Made(NamedTuple):
    """A decision, and whether it was made for this call or before."""

    decision: RoutingDecision
    is_new: bool


class _Kept(NamedTuple):
    router: Router
    decision: RoutingDecision


class Turns(Shared):
    """The decisions of turns under way; any number of threads and tasks may share one.

    Args:
        size: How many are remembered.
    """

    def __init__(self, size: int = TURNS) -> None:
        super().__init__()
        self._size = size
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._under_way: dict[Hashable, asyncio.Future[RoutingDecision | None]] = {}

    def decide(self, decider: Decider, ask: Ask, turn: Turn) -> Made:
        """The decision of a call's turn: the one that was made before, or else a new one.

        Args:
            decider: Who decides.
            ask: What it is asked; a call of other settings is decided anew.
            turn: Which turn the call belongs to.

        Returns:
            The decision.

        Raises:
            PrefrouteError: As for `Decider.decide`.
        """
        keys = _keys(decider, ask, turn)
        if (kept := self._find(keys, decider)) is not None:
            return Made(kept, is_new=False)
        decision = decider.decide(ask)
        self._keep(keys, decider, decision)
        return Made(decision, is_new=True)

    async def adecide(self, decider: Decider, ask: Ask, turn: Turn) -> Made:
        """`decide` without blocking the event loop; of calls that begin a turn together, one decides for all."""
        keys = _keys(decider, ask, turn)
        if not keys.known_by:
            return Made(await self._adecide_anew(keys, decider, ask), is_new=True)
        first = keys.known_by[0]
        loop = asyncio.get_running_loop()
        while True:
            if (kept := self._find(keys, decider)) is not None:
                return Made(kept, is_new=False)
            with self._lock:
                earlier = self._under_way.get(first)
                if earlier is None or earlier.get_loop() is not loop:
                    mine = self._under_way[first] = loop.create_future()
                    break
            # Shielded: who is cancelled while waiting must not take the decision from the others.
            if (decision := await asyncio.shield(earlier)) is not None:
                return Made(decision, is_new=False)
        decision = None
        try:
            decision = await self._adecide_anew(keys, decider, ask)
        finally:
            with self._lock:
                if self._under_way.get(first) is mine:
                    del self._under_way[first]
            # None where it came to nothing; the next one that waits tries by itself.
            mine.set_result(decision)
        return Made(decision, is_new=True)

    async def _adecide_anew(self, keys: _Keys, decider: Decider, ask: Ask) -> RoutingDecision:
        decision = await decider.adecide(ask)
        self._keep(keys, decider, decision)
        return decision

    def _find(self, keys: _Keys, decider: Decider) -> RoutingDecision | None:
        with self._lock:
            for key in keys.known_by:
                kept = self._kept.get(key)
                if kept is not None and kept.router is decider.router:
                    self._kept.move_to_end(key)
                    return kept.decision
        return None

    def _keep(self, keys: _Keys, decider: Decider, decision: RoutingDecision) -> None:
        with self._lock:
            for key in keys.kept_under:
                self._kept[key] = _Kept(decider.router, decision)
                self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)

    def __getstate__(self) -> dict[str, Any]:
        """State of a copy: nothing is under way in it, and its own turns begin anew."""
        return {"_size": self._size, "_kept": OrderedDict(), "_under_way": {}}


class _Keys(NamedTuple):
    """Under what a turn's decision may be found, and under what it is kept."""

    known_by: tuple[Hashable, ...] = ()
    kept_under: tuple[Hashable, ...] = ()


def _keys(decider: Decider, ask: Ask, turn: Turn) -> _Keys:
    if ask.error is not None:
        return _Keys()  # Without a text there is nothing to know the turn by.
    bar = decider.router.threshold if decider.threshold is None else decider.threshold
    what = (ask.text, ask.settled, ask.threshold, ask.strong_rate, bar)
    try:
        hash(what)
    except TypeError:
        return _Keys()  # A threshold that is none; the decider says so.
    by_scope = () if turn.scope is None else ((turn.scope, what),)
    by_question = ((None, what),)
    return _Keys(by_scope + (by_question if turn.goes_on else ()), by_scope + by_question)


class Answers(Shared):
    """The decisions behind answers, by whatever an answer is known by.

    Args:
        size: How many are remembered.
    """

    def __init__(self, size: int = ANSWERS) -> None:
        super().__init__()
        self._size = size
        self._routing: OrderedDict[Hashable, Mapping[str, Any]] = OrderedDict()

    def note(self, keys: Iterable[Hashable], routing: Mapping[str, Any]) -> None:
        """Remember a decision, as it is recorded, under each of the keys."""
        with self._lock:
            for key in keys:
                self._routing[key] = routing
                self._routing.move_to_end(key)
            while len(self._routing) > self._size:
                self._routing.popitem(last=False)

    def find(self, keys: Iterable[Hashable]) -> Mapping[str, Any] | None:
        """The decision that is remembered under the first of the keys that is known."""
        with self._lock:
            return next((self._routing[key] for key in keys if key in self._routing), None)
