"""What of a conversation a router is asked, and when it need not be asked.

An adapter translates its messages into `Message`, newest first and as far as they are looked at; which of them matter
is decided here. Experience elsewhere: routers that score tool results, reminders of the harness or the whole history
route worse than by the person's own words, and a conversation that changes sides at each "go on" pays for it in
quality and in lost prompt caches.
"""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from prefroute.errors import ConfigurationError, PromptTypeError, RouterError
from prefroute.types import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prefroute.types import Reason, RoutingDecision

Decide: TypeAlias = Literal["per_turn", "per_step", "per_conversation"]
"""How often a side is chosen: for each thing that the person says, for each call, or once a conversation."""

TOOL_RESULT_CHARACTERS = 2000
"""How much of a tool's result is read for a decision per step: as much as embedders take in beside a question."""

ANSWERED_BY = "answered_by"
"""In a recorded decision: the side that answers, where that is not the side decided on."""

FALLBACK = "fallback"
"""In a recorded decision: which side failed before and how, where the other one answers in its place."""

_NOISE = (
    "command-message",
    "command-name",
    "environment_context",
    "environment_details",
    "local-command-caveat",
    "local-command-stderr",
    "local-command-stdout",
    "reminderInstructions",
    "system-reminder",
    "system_reminder",
)
"""Elements that coding agents put into the person's message though the person did not write them."""

_QUESTIONS = ("user_query", "userRequest")
"""Elements that agents put around the person's own words."""


def _tags(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"<(/?)({'|'.join(map(re.escape, names))})(?:\s[^<>]*)?>")


_NOISE_TAGS, _QUESTION_TAGS = _tags(_NOISE), _tags(_QUESTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation, as far as routing looks at it.

    Attributes:
        role: Who speaks; anything but the three is `other`.
        text: Its text, without images and the like.
        calls: The tool calls it makes, each as one text that is the same for the same tool and arguments.
        failed: Whether it is the result of a tool that failed.
        routing: The decision that led to it, where one is recorded: `RoutingDecision.as_dict()`, with `ANSWERED_BY`
            and `FALLBACK` where there is something to say.
    """

    role: Literal["human", "ai", "tool", "other"]
    text: str = ""
    calls: tuple[str, ...] = ()
    failed: bool = False
    routing: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A side that is chosen without asking the router.

    Attributes:
        route: The side.
        reason: Why.
        detail: More of why, in a word.
    """

    route: Route
    reason: Reason
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a conversation comes to.

    Attributes:
        text: What the router is asked.
        settled: The side, where the conversation itself says it.
        goes_on: Whether this is a later step of the turn: a tool was called after what the person said.
    """

    text: str
    settled: Settled | None = None
    goes_on: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPolicy:
    """How a conversation is read.

    A turn begins with what a person says and goes on through the calls and results of tools.

    Attributes:
        decide: `per_turn` reads what the person said last, so all steps of a turn get the same score. `per_step`
            reads, where tool results have come since, the newest one too. `per_conversation` keeps the side of the
            latest answer that was chosen by score, and reads as per turn where there is none.
        lock_tool_loop: Whether the answer to a tool's result comes from the side that called the tool.
        escalate_after: So many identical tool calls, or failed tools, in one turn send the rest of it to the strong
            side; None for never.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    decide: Decide = "per_turn"
    lock_tool_loop: bool = False
    escalate_after: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.decide not in get_args(Decide):
            msg = f"decide must be one of {', '.join(get_args(Decide))}; got {reprlib.repr(self.decide)}"
            raise ConfigurationError(msg)
        if not isinstance(self.lock_tool_loop, bool):
            msg = f"lock_tool_loop must be True or False, got {reprlib.repr(self.lock_tool_loop)}"
            raise ConfigurationError(msg)
        count = self.escalate_after
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            msg = f"escalate_after must be a number of tool calls, 1 or more, or None; got {reprlib.repr(count)}"
            raise ConfigurationError(msg)

    def question(self, newest_first: Iterable[Message], *, locked: bool = False) -> Question:
        """Find what the router is asked.

        Args:
            newest_first: The messages from the last one back; read no further than is needed.
            locked: Whether a tool's result can be answered by no other side than the one that called the tool.

        Returns:
            The text, and the side where it is settled.
        """
        messages = iter(newest_first)
        turn, asked = _turn(messages)
        caller = _caller(turn)
        text = asked if asked is not None else turn[0].text if turn else ""
        if self.decide == "per_step" and asked is not None and turn and turn[0].role == "tool":
            text = f"{asked}\n\n{turn[0].text[:TOOL_RESULT_CHARACTERS]}"
        # An answer alone is none: one may have been begun for the model to go on with.
        goes_on = any(message.role == "tool" or message.calls for message in turn)
        if locked and caller is not None:
            return Question(text, Settled(caller, "tool_loop"), goes_on)
        settled = self._settled(turn, messages, caller)
        if settled is None and asked is None and self.decide != "per_step":
            # Its beginning is gone, trimmed or summed up in a long run: the turn goes on as it began.
            settled = _kept(turn)
        return Question(text, settled, goes_on)

    def _settled(self, turn: list[Message], older: Iterator[Message], caller: Route | None) -> Settled | None:
        if self.escalate_after is not None and (why := _stuck(turn, self.escalate_after)):
            return Settled("strong", "escalation", why)
        if self.lock_tool_loop and caller is not None:
            return Settled(caller, "tool_loop")
        return _kept(chain(turn, older)) if self.decide == "per_conversation" else None


def _turn(messages: Iterator[Message]) -> tuple[list[Message], str | None]:
    """The messages of the turn, newest first, and what the person asked in it; None where nobody did."""
    turn: list[Message] = []
    only_noise: str | None = None
    for message in messages:
        if message.role != "human":
            turn.append(message)
            continue
        asked = without_noise(message.text)
        # A message of nothing but the harness's own is none of the person's; one of images alone is.
        if asked or not message.text.strip():
            turn.append(message)
            return turn, asked
        only_noise = message.text if only_noise is None else only_noise
    return turn, only_noise


def _kept(newest_first: Iterable[Message]) -> Settled | None:
    """The side of the latest answer that was chosen for more than its call."""
    for message in newest_first:
        if message.role == "ai" and (route := _recorded(message, lasting=True)) is not None:
            return Settled(route, "conversation")
    return None


def _caller(turn: list[Message]) -> Route | None:
    """The side that called the tool whose result is to be answered, where it is recorded."""
    if not turn or turn[0].role != "tool":
        return None
    call = next((message for message in turn if message.role == "ai"), None)
    if call is None:
        return None
    # A side that only watches has decided all the same; one that answered for the other has called the tool.
    routing = call.routing or {}
    return (answered_by(routing) if routing.get(FALLBACK) else None) or _recorded(call)


def _stuck(turn: list[Message], limit: int) -> str | None:
    calls = Counter(call for message in turn for call in message.calls)
    if calls and max(calls.values()) >= limit:
        return "repeated tool call"
    if sum(message.failed for message in turn) >= limit:
        return "failed tools"
    return None


_LASTING = ("score", "conversation")
"""Reasons that hold for the conversation; the others hold for the call that they were given for."""


def _recorded(message: Message, *, lasting: bool = False) -> Route | None:
    routing = message.routing or {}
    if lasting and routing.get("reason") not in _LASTING:
        return None
    return _as_side(routing.get("route"))


def _as_side(found: object) -> Route | None:
    # Compared one by one, for what is recorded may be anybody's, and not even hashable.
    return next((side for side in get_args(Route) if side == found), None)


def text_by(text_fn: Callable[[Any], object], messages: object) -> str:
    """What the router is asked, as a function of the user's own finds it in the messages of a call.

    Raises:
        RouterError: The function fails.
        PromptTypeError: It finds anything but a str.
    """
    try:
        text = text_fn(messages)
    except Exception as error:
        # The name alone, as for a router: what an exception says may quote the prompt.
        msg = f"text_fn raised {type(error).__name__}"
        raise RouterError(msg) from error
    if not isinstance(text, str):
        msg = f"text_fn must return a str, got {type(text).__name__}"
        raise PromptTypeError(msg)
    return text


def recorded(decision: RoutingDecision, side: Route) -> dict[str, Any]:
    """A decision as it is recorded, with the side that answers where that is not the one decided on."""
    return decision.as_dict() | ({} if side == decision.route else {ANSWERED_BY: side})


def answered_by(routing: Mapping[str, Any]) -> Route | None:
    """The side that answered, by what was recorded; the record may be anybody's."""
    return _as_side(routing.get(ANSWERED_BY) or routing.get("route"))


def without_noise(text: str) -> str:
    """What a person wrote, without what coding agents put around it.

    Args:
        text: A message.

    Returns:
        The inside of a `<user_query>` or `<userRequest>` where there is one, else the text without reminders, results
        of commands and descriptions of the environment; an element that is not closed is left as it is.
    """
    if "</" not in text:
        return text
    if asked := [text[start.end() : end.start()].strip() for start, end in _elements(text, _QUESTION_TAGS)]:
        text = "\n\n".join(asked)
    noise = _elements(text, _NOISE_TAGS)
    if not noise:
        return text
    ends = [0, *(end.end() for _, end in noise)]
    starts = [*(start.start() for start, _ in noise), len(text)]
    return "".join(text[end:start] for end, start in zip(ends, starts, strict=True)).strip()


def _elements(text: str, tags: re.Pattern[str]) -> list[tuple[re.Match[str], re.Match[str]]]:
    """The opening and closing tags of the outermost elements that are closed."""
    opened: dict[str, re.Match[str]] = {}
    found: list[tuple[re.Match[str], re.Match[str]]] = []
    for tag in tags.finditer(text):
        if not tag[1]:
            # A name that opens twice was only spoken of the first time.
            opened[tag[2]] = tag
        elif (start := opened.pop(tag[2], None)) is not None:
            while found and found[-1][0].start() > start.start():
                found.pop()
            found.append((start, tag))
            opened = {name: one for name, one in opened.items() if one.start() < start.start()}
    return found
