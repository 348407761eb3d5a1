"""What a call asks the core, by what it is about and what is known of the two sides."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamaindex_router.history import readable
from llamaindex_router.metadata import (
    State,
    known_of,
    merged_metadata,
    needs_of,
    with_system_role,
)
from llamaindex_router.spans import work_under_way
from prefroute import ConfigurationError
from prefroute.capabilities import able_side
from prefroute.conversation import Question, Settled, text_by
from prefroute.decider import Ask
from prefroute.turns import Answers, Turn, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from llama_index.core.llms import LLM, ChatMessage, LLMMetadata

    from llamaindex_router.delegation import Delegation
    from llamaindex_router.metadata import Known
    from llamaindex_router.text import Asked
    from prefroute import Route
    from prefroute.conversation import TurnPolicy
    from prefroute.decider import Decider
    from prefroute.options import Options

logger = logging.getLogger(__name__)


class Sides:
    """What is known of the two LLMs, for as long as neither changes.

    Args:
        strong: One LLM.
        weak: The other.

    Attributes:
        differ_in_thinking: Whether one is set to signed thinking and the other is not.
    """

    def __init__(self, strong: LLM, weak: LLM) -> None:
        self._llms: dict[Route, LLM] = {"strong": strong, "weak": weak}
        self._states = State(strong), State(weak)
        self._known: dict[Route, Known] = {"strong": known_of(strong), "weak": known_of(weak)}
        self._merged: LLMMetadata | None = None
        first, second = self._known["strong"], self._known["weak"]
        self._windows = [one.limits.window for one in (first, second) if one.limits.window is not None]
        self._certain = first.certain and second.certain
        # Equal windows cannot tell the sides apart, so nothing need be measured.
        self._measured = bool(self._windows) and first.limits.window != second.limits.window
        self.differ_in_thinking = first.thinks != second.thinks

    def still_of(self, strong: LLM, weak: LLM) -> bool:
        """Whether this is what is known of two LLMs as they are now."""
        first, second = self._states
        return self._certain and first.is_still_of(strong) and second.is_still_of(weak)

    def known(self, side: Route) -> Known:
        """What is known of one of them."""
        return self._known[side]

    @property
    def merged(self) -> LLMMetadata:
        """What both have in common."""
        if self._merged is None:
            self._merged = merged_metadata(self._llms["strong"], self._llms["weak"])
        return self._merged

    def check_tools(self, side: Route | None = None) -> None:
        """Refuse tools where the side that is to answer, or either where that is open, calls none.

        Raises:
            ConfigurationError: It is so.
        """
        if side is not None and not self._known[side].calls_tools:
            found = f"{self._known[side].name} calls no tools, but the {side} model is to answer"
        elif not any(one.calls_tools for one in self._known.values()):
            found = f"neither {self._known['strong'].name} nor {self._known['weak'].name} calls tools"
        else:
            return
        msg = f"{found} (metadata.is_function_calling_model); use a ReActAgent"
        raise ConfigurationError(msg)

    def able(self, asked: Asked, *, tools: bool) -> Settled | None:
        """The side that a call must go to because the other cannot take it, as far as that is known."""
        if not self._measured and not tools:
            return None
        strong, weak = self._known["strong"], self._known["weak"]
        try:
            needs = needs_of(
                asked.messages if self._measured else (),
                min(self._windows, default=0),
                tools=tools,
                is_packed=asked.is_packed,
            )
        except Exception:  # what cannot be read rules nothing out
            logger.debug("the messages could not be looked through", exc_info=True)
            return None
        return able_side(needs, strong=strong.limits, weak=weak.limits)

    def fitting(self, side: Route) -> Callable[[Sequence[ChatMessage]], list[ChatMessage]]:
        """Makes messages such that a side can read them; the messages themselves stay as they are."""
        other: Route = "weak" if side == "strong" else "strong"

        def fit(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
            fitting = with_system_role(messages, self._known[side], self._known[other])
            # Always a list of its own: some LLMs append to the one that they are given.
            return list(readable(fitting, self._llms[side], self._llms[other]))

        return fit


class Memory:
    """What a routed LLM remembers from call to call.

    Attributes:
        turns: The decisions of turns under way.
        answers: The decisions behind answers that may come back in a conversation.
    """

    def __init__(self) -> None:
        self.turns = Turns()
        self.answers = Answers()
        self._sides: Sides | None = None
        self._chooser: tuple[Mapping[str, Any], object, Chooser] | None = None
        self._version = object()

    def sides_of(self, strong: LLM, weak: LLM) -> Sides:
        """What is known of two LLMs, looked up again when one of them has changed."""
        sides = self._sides
        if sides is None or not sides.still_of(strong, weak):
            sides = self._sides = Sides(strong, weak)
        return sides

    def chooser_of(self, fields: Mapping[str, Any], make: Callable[[Sides], Chooser]) -> Chooser:
        """How it is chosen by the fields of a routed LLM, put together again when the LLMs or the fields have changed.

        Args:
            fields: The fields themselves: a copy of the LLM has others, and may share this memory.
            make: Puts it together.
        """
        version = self._version  # Before anything is read: what is put together of older fields must not stay.
        sides = self.sides_of(fields["strong"], fields["weak"])
        known = self._chooser
        if known is None or known[0] is not fields or known[1] is not version or known[2].sides is not sides:
            known = self._chooser = fields, version, make(sides)
        return known[2]

    def fields_changed(self) -> None:
        """See to it that what was put together of the fields is not used again."""
        self._version = object()

    def __getstate__(self) -> dict[str, Any]:
        """State of a copy: what is known of its LLMs is looked up again, for it has copies of them."""
        return {**self.__dict__, "_sides": None, "_chooser": None}


@dataclass(slots=True)
class Choice:
    """What the core is asked about one call.

    Attributes:
        ask: The question, or the side where it is settled.
        turn: What turn the call belongs to.
        sides: What is known of the two LLMs.
        asked: What the call is about.
        tools: Whether only an LLM that calls tools will do.
    """

    ask: Ask
    turn: Turn
    sides: Sides
    asked: Asked
    tools: bool

    def may_go_to(self, side: Route) -> bool:
        """Whether a side can take the call, as far as that is known."""
        if self.ask.settled is not None and self.ask.settled.reason == "tool_loop" and self.sides.differ_in_thinking:
            return self.ask.settled.route == side
        settled = self.sides.able(self.asked, tools=self.tools)
        return settled is None or settled.route == side


@dataclass(frozen=True, slots=True)
class Chooser:
    """How it is chosen between two LLMs.

    Attributes:
        sides: What is known of them.
        decider: The router and its settings.
        policy: How a conversation is read.
        memory: What is remembered from call to call.
        text_fn: Finds what the router is asked, in place of the policy.
    """

    sides: Sides
    decider: Decider
    policy: TurnPolicy
    memory: Memory
    text_fn: Callable[[Sequence[ChatMessage]], str] | None

    @property
    def remembers(self) -> bool:
        """Whether it matters who gave an earlier answer."""
        return self.policy.decide == "per_conversation" or self.policy.lock_tool_loop or self.sides.differ_in_thinking

    def remembering(self, delegation: Delegation, asked: Asked) -> Delegation:
        """The call, with where its answer is remembered if it matters who gave it."""
        if self.remembers:
            try:
                delegation.said, delegation.answers = asked.said, self.memory.answers
            except Exception:  # what cannot be read is the model's to refuse
                logger.debug("the messages could not be looked through", exc_info=True)
        return delegation

    def choice(self, asked: Asked, options: Options, *, tools: bool) -> Choice:
        """What the core is asked about one call.

        Args:
            asked: What it is about.
            options: What it brings for routing.
            tools: Whether only an LLM that calls tools will do.

        Raises:
            ConfigurationError: It brings tools, and the LLM that is to answer in any case, or neither, takes any.
        """
        if tools:
            self.sides.check_tools(self.decider.shadow or options.route)
        question, error, settled = Question(""), None, None
        try:
            # With thinking on, a tool's result is only taken after the thinking that led to the call, and with thinking
            # off only without: an exchange that one side has begun the other cannot go on with.
            locked = self.sides.differ_in_thinking
            question = asked.question(self.policy, self.memory.answers if self.remembers else None, locked=locked)
            settled = question.settled
        except Exception as caught:  # noqa: BLE001 - the call goes on as if the router had failed
            # A message that cannot be read is refused by the model itself, in its own words.
            error = caught
        if options.route is not None:
            settled, error = Settled(options.route, "forced"), None
        elif (able := self.sides.able(asked, tools=tools)) is not None:
            settled, error = able, None
        text = question.text
        if settled is None and error is None and self.text_fn is not None:
            try:
                text = text_by(self.text_fn, list(asked.messages))
            except Exception as caught:  # noqa: BLE001 - as above
                error = caught
        ask = Ask(text=text, threshold=options.threshold, strong_rate=options.strong_rate, settled=settled, error=error)
        turn = Turn() if self.policy.decide == "per_step" else asked.turn(question, work_under_way())
        return Choice(ask, turn, self.sides, asked, tools)
