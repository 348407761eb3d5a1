"""What is remembered of turns under way, for frameworks whose messages cannot carry a decision.

Where an answer carries the decision that led to it, a conversation says by itself where it stands
(`prefroute.conversation`). Where it cannot, a later step of a turn is known by its question and by what else tells the
turn; it keeps the decision of the first step, so that a turn is decided, counted and told of once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from prefroute._shared import Shared

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from prefroute.decider import Ask, Decider
    from prefroute.router import Router
    from prefroute.types import RoutingDecision

TURNS = 20_000
"""Decisions that are remembered; of a turn there are two, where it may go on in several ways."""

ANSWERS = 10_000
"""Answers whose decision is remembered."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What tells which turn a call belongs to.

    Attributes:
        scope: Names a piece of work whose calls on one question are one turn, a query say; None where there is none.
        is_conversation: Whether the call is one of a conversation: then it is a turn of its own, whatever was asked
            before in the same scope, or a later step of one.
        goes_on: Whether it is a later step.
    """

    scope: Hashable | None = None
    is_conversation: bool = False
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
        if (kept := self._find(keys, decider, ask)) is not None:
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
            if (kept := self._find(keys, decider, ask)) is not None:
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

    def _find(self, keys: _Keys, decider: Decider, ask: Ask) -> RoutingDecision | None:
        with self._lock:
            for key in keys.known_by:
                kept = self._kept.get(key)
                if kept is None or kept.router is not decider.router:
                    continue
                if ask.settled is None or ask.settled.route == kept.decision.route:
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


_STAYING = ("conversation", "tool_loop")
"""Reasons for a side that is only the one that the conversation has had so far."""


class _Keys(NamedTuple):
    """Under what a turn's decision may be found, and under what it is kept."""

    known_by: tuple[Hashable, ...] = ()
    kept_under: tuple[Hashable, ...] = ()


def _keys(decider: Decider, ask: Ask, turn: Turn) -> _Keys:
    if ask.error is not None or not isinstance(ask.text, str) or not (turn.is_conversation or turn.scope is not None):
        return _Keys()  # Nothing to know the turn by.
    bar = decider.router.threshold if decider.threshold is None else decider.threshold
    # Where a conversation stays with a side, it is the turn's decision that the later steps stay with.
    settled = None if ask.settled is None or ask.settled.reason in _STAYING else ask.settled
    # A digest, for whole prompts are nothing to be kept.
    text = blake2b(ask.text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    what = (text, settled, ask.threshold, ask.strong_rate, bar)
    try:
        hash(what)
    except TypeError:
        return _Keys()  # A threshold that is none; the decider says so.
    by_scope = () if turn.scope is None else ((turn.scope, what),)
    by_question = ((None, what),) if turn.is_conversation else ()
    kept_under = by_scope + by_question
    return _Keys(() if turn.is_conversation and not turn.goes_on else kept_under, kept_under)


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
