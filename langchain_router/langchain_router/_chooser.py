"""What an adapter's call asks the core: forced, capable, settled by the conversation, or by score."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.messages import BaseMessage

from langchain_router._capabilities import TOOLS, bound_tools, limits_of, needs_of, thinks
from langchain_router._children import provider_of, routes
from langchain_router._history import family, may_be_foreign, readable
from prefroute.capabilities import able_side
from prefroute.conversation import Settled, TurnPolicy, text_by
from prefroute.decider import Ask
from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

    from langchain_router._messages import Prompt
    from prefroute.decider import Decider
    from prefroute.options import Options
    from prefroute.types import Route, RoutingDecision

logger = logging.getLogger(__name__)

TextFunction: TypeAlias = Callable[[list[BaseMessage]], str]
"""Finds what the router is asked in the messages of a call."""


@dataclass(frozen=True, kw_only=True)
class Chooser:
    """Two children, and how it is chosen between them.

    Attributes:
        strong: The expensive side.
        weak: The cheap side.
        decider: The router and its settings.
        policy: How a conversation is read.
        text_fn: Finds what the router is asked, in place of the policy.
    """

    strong: Runnable[Any, Any]
    weak: Runnable[Any, Any]
    decider: Decider
    policy: TurnPolicy = field(default_factory=TurnPolicy)
    text_fn: TextFunction | None = None

    def child(self, side: Route) -> Runnable[Any, Any]:
        """The child of a side."""
        return self.strong if side == "strong" else self.weak

    def ask(self, prompt: Prompt, options: Options, *, tools: Any = None, schema: bool = False, depth: int = 0) -> Ask:
        """What the core is asked about one call.

        Args:
            prompt: What the model is given.
            options: What the call brings for routing.
            tools: Tools of this call alone, beside those bound to the children.
            schema: Whether the answer must follow one that is not bound yet.
            depth: How many routed models stand around this one.

        Returns:
            The question, or the side where it is settled.

        Raises:
            ConfigurationError: The side that is to answer in any case could not be given the tools.
        """
        self._check_tools(self.decider.shadow or options.route)
        text, settled, error = "", None, None
        try:
            settled = (
                Settled(options.route, "forced")
                if options.route is not None
                else self._able(prompt, tools, schema=schema)
            )
            if settled is None:
                # With thinking on, a tool's result is only taken after the thinking that led to the call, and with
                # thinking off only without: an exchange that one side has begun the other cannot go on with.
                locked = thinks(self.strong) != thinks(self.weak)
                question = self.policy.question(prompt.newest_first(depth), locked=locked)
                text, settled = question.text, question.settled
            if settled is None and self.text_fn is not None:
                text = text_by(self.text_fn, prompt.messages)
        except Exception as caught:  # noqa: BLE001 - the call goes on as if the router had failed
            # A message that cannot be read is refused by the model itself, in its own words.
            error = caught
        if settled is not None and not text and self.decider.recorder is not None:
            text = self._said(prompt, depth)
        return Ask(
            text=text, threshold=options.threshold, strong_rate=options.strong_rate, settled=settled, error=error
        )

    def _said(self, prompt: Prompt, depth: int) -> str:
        """What the person said, for the record of a side that was settled without it; empty where it cannot be read."""
        try:
            return self.policy.question(prompt.newest_first(depth)).text
        except Exception:  # what cannot be read here is the model's to refuse
            logger.debug("the messages could not be looked through", exc_info=True)
            return ""

    def _check_tools(self, side: Route | None) -> None:
        """Refuse to call a side without its tools because it could not be given them; see `with_tools_where_able`."""
        if side is None or TOOLS not in limits_of(self.child(side)).lacks:
            return
        if bound_tools(self.child(side)) is None and bound_tools(self.strong, self.weak):
            msg = f"the {side} model cannot take the tools that are bound, so it cannot be the one that answers"
            raise ConfigurationError(msg)

    def can_stand_in(self, side: Route, prompt: Prompt, decision: RoutingDecision, tools: Any = None) -> bool:
        """Whether a side may answer a call that was another's.

        Args:
            side: The side.
            prompt: What the model is given.
            decision: What was decided; a side that the caller named is not exchanged.
            tools: As for `ask`.
        """
        if decision.reason == "forced":
            return False
        try:
            settled = self._able(prompt, tools)
        except Exception:  # what cannot be read rules nothing out, and must not hide why the first side failed
            logger.debug("the messages could not be looked through", exc_info=True)
            return True
        return settled is None or settled.route == side

    def _able(self, prompt: Prompt, tools: Any, *, schema: bool = False) -> Settled | None:
        strong, weak = limits_of(self.strong), limits_of(self.weak)
        # Equal windows cannot tell the sides apart, so nothing need be measured.
        known = [one.window for one in (strong, weak) if one.window is not None and strong.window != weak.window]
        if not known and strong.lacks == weak.lacks:
            return None
        tools = tools or bound_tools(self.strong, self.weak)
        needs = needs_of(prompt.messages, tools, min(known, default=None), schema=schema)
        return able_side(needs, strong=strong, weak=weak)

    def readable(self, prompt: Prompt, side: Route) -> Any:
        """What a side is given: the prompt as it came, unless it holds what only the other's provider can read."""
        try:
            return self._readable(prompt, side)
        except Exception:  # what cannot be read here is the model's to refuse, or to understand
            logger.debug("the history could not be looked through", exc_info=True)
            return prompt.value

    def _readable(self, prompt: Prompt, side: Route) -> Any:
        # A routed model sees to that itself, and needs the decisions that are recorded in the answers.
        if isinstance(prompt.value, str) or routes(self.child(side)) or not any(map(may_be_foreign, prompt.messages)):
            return prompt.value
        strong, weak = (family(provider_of(child)) for child in (self.strong, self.weak))
        if strong is None or weak is None or strong == weak:
            return prompt.value
        changed = readable(prompt.messages, side=side, families={"strong": strong, "weak": weak})
        return prompt.value if changed is None else changed
