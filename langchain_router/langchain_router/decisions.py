"""The router as a decision model, for whatever in LangChain asks one: `ModelRouterMiddleware`, for example."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from pydantic import ConfigDict, Field
from typing_extensions import override

from langchain_router._messages import Prompt
from prefroute.conversation import TurnPolicy
from prefroute.decider import Ask, Decider
from prefroute.errors import ConfigurationError, MissingExtraError
from prefroute.router import Router
from prefroute.stats import RoutingStats
from prefroute.types import OnError, RoutingDecision

if TYPE_CHECKING:
    from prefroute.recording import Recorder

try:
    from langchain_core.decisions import (
        BaseDecisionModel,
        Choice,
        ChoiceAnswer,
        ClassifierResponse,
        Noul,
        NoulAnswer,
        Question,
        State,
    )
except ModuleNotFoundError as error:
    if error.name != "langchain_core.decisions":
        raise
    _message = 'RouterDecisionModel needs langchain-core 1.8 or later: pip install "langchain-core>=1.8"'
    raise MissingExtraError(_message) from error


class RouterDecisionModel(BaseDecisionModel):
    """Answers the one question that a router can answer: is the strong model needed?

    A `Choice` between two labels gets the label of the side that the score and the threshold choose; its probabilities
    are the score and what it lacks to 1, so with a threshold other than 0.5 the choice need not be the likelier label.
    A `Noul` gets the score. Instructions and criteria are not read: the router has learnt what it answers. The state
    is read as `RoutedChatModel` reads a conversation.

    Example:
        ```python
        ModelRouterMiddleware(
            choices={"strong": ModelChoice(gpt, "hard tasks"), "weak": ModelChoice(mini, "simple tasks")},
            instructions="Choose the least costly model suited to the task.",
            classifier=RouterDecisionModel(),
        )
        ```

    Args:
        router: A router, a folder or hub id to load one from, or None for the one that comes with prefroute.
        threshold: Scores at or above it choose the strong label; None for the router's own.
        strong_rate: In place of a threshold, by the calibration of the router.
        strong: The label of the strong side.
        weak: The label of the weak side.
        on_router_error: What happens when the router fails; None for the router's own setting. With a side, the answer
            is that side, with confidence 0.
        router_time_limit: Seconds the router may take.
        stats: Counts each decision once; None for a fresh one.
        record: A recorder, or the path of a file, that keeps each decision with its text; the answer's `request_id` is
            the decision's. Who is called after it is not known here.

    Raises:
        ThresholdError: The threshold is not a finite number, or there is none.
        ConfigurationError: A setting cannot be used.
        PersistenceError: There is no readable router at `router`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    router: Router = Field(exclude=True)
    threshold: float | None = None
    strong: str = "strong"
    weak: str = "weak"
    on_router_error: OnError | None = None
    router_time_limit: float | None = None
    stats: RoutingStats = Field(default_factory=RoutingStats, exclude=True)
    recorder: Any = Field(default=None, exclude=True, repr=False)

    def __init__(
        self,
        *,
        router: Router | str | Path | None = None,
        threshold: float | None = None,
        strong_rate: float | None = None,
        strong: str = "strong",
        weak: str = "weak",
        on_router_error: OnError | None = None,
        router_time_limit: float | None = None,
        stats: RoutingStats | None = None,
        record: "Recorder | str | Path | None" = None,
    ) -> None:
        decider = Decider.of(
            router,
            threshold=threshold,
            strong_rate=strong_rate,
            on_error=on_router_error,
            time_limit=router_time_limit,
            stats=stats,
            record=record,
        )
        if strong == weak:
            msg = f"the two labels must differ, got {strong!r} twice"
            raise ConfigurationError(msg)
        fields: dict[str, Any] = {
            "model": type(decider.router).__name__,
            "router": decider.router,
            "threshold": decider.threshold,
            "strong": strong,
            "weak": weak,
            "on_router_error": on_router_error,
            "router_time_limit": router_time_limit,
            "stats": decider.stats,
            "recorder": decider.recorder,
        }
        super().__init__(**fields)

    @property
    @override
    def _provider(self) -> str:
        return "prefroute"

    @override
    def _classify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        self._check(questions)
        return self._answer(self._decider.decide(_ask(state)), questions)

    @override
    async def _aclassify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        self._check(questions)
        return self._answer(await self._decider.adecide(_ask(state)), questions)

    @property
    def _decider(self) -> Decider:
        return Decider(
            router=self.router,
            threshold=self.threshold,
            on_error=self.on_router_error,
            time_limit=self.router_time_limit,
            stats=self.stats,
            recorder=self.recorder,
        )

    def _check(self, questions: Mapping[str, Question]) -> None:
        for name, question in questions.items():
            labels = set(question.criteria) if isinstance(question, Choice) else {self.strong, self.weak}
            if not isinstance(question, Choice | Noul) or labels != {self.strong, self.weak}:
                between = f" between {', '.join(map(repr, question.criteria))}" if isinstance(question, Choice) else ""
                msg = (
                    f"a router answers a Noul, or a Choice between {self.strong!r} and {self.weak!r} (the labels of "
                    f"RouterDecisionModel(strong=, weak=)); question {name!r} is a {type(question).__name__}{between}"
                )
                raise ConfigurationError(msg)

    def _answer(self, decision: RoutingDecision, questions: Mapping[str, Question]) -> ClassifierResponse:
        known = decision.score is not None
        score = decision.score if decision.score is not None else float(decision.is_strong)
        label = self.strong if decision.is_strong else self.weak
        chances = {self.strong: score, self.weak: 1.0 - score}
        answers: dict[str, Any] = {
            name: NoulAnswer(type="noul", noul=score)
            if isinstance(question, Noul)
            else ChoiceAnswer(
                type="choice", choice=label, probabilities=chances, confidence=chances[label] if known else 0.0
            )
            for name, question in questions.items()
        }
        return ClassifierResponse(model=self.model, answers=answers, request_id=decision.id)


def _ask(state: State) -> Ask:
    """What the router is asked of a state: a conversation is read as such, anything else as the JSON that it is."""
    try:
        return Ask(text=TurnPolicy().question(Prompt(_conversation(state)).newest_first()).text)
    except Exception as error:  # noqa: BLE001 - the state is anybody's; the router counts as failed
        return Ask(error=error)


def _conversation(state: State) -> Any:
    found: Any = state["messages"] if isinstance(state, Mapping) and "messages" in state else state
    if isinstance(found, BaseMessage):
        return [found]
    messages = isinstance(found, Sequence) and len(found) and all(map(_is_message, found))
    return found if isinstance(found, str) or messages else json.dumps(found, default=_as_json, ensure_ascii=False)


def _is_message(item: object) -> bool:
    return isinstance(item, BaseMessage) or (isinstance(item, Mapping) and {"role", "content"} <= set(item))


def _as_json(item: object) -> str:
    return str(item.text) if isinstance(item, BaseMessage) else str(item)
