"""What is remembered of turns under way."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import pytest

from prefroute import Router, ThresholdError
from prefroute.conversation import Settled
from prefroute.decider import Ask, Decider
from prefroute.errors import RouterError
from prefroute.testing import FailingRouter, FixedRouter
from prefroute.turns import Answers, Made, Turn, Turns

SAID, STEP = Turn(is_conversation=True), Turn(is_conversation=True, goes_on=True)
QUERY = Turn(scope="query 1")


def decider(router: Router | None = None, **settings: Any) -> Decider:
    return Decider(router=FixedRouter(0.2) if router is None else router, **settings)


def decide(turns: Turns, who: Decider, text: str = "q", turn: Turn | None = None, **ask: Any) -> Made:
    return turns.decide(who, Ask(text=text, **ask), SAID if turn is None else turn)


def test_a_step_keeps_the_decision_of_its_turn() -> None:
    turns, who = Turns(), decider()
    first = decide(turns, who)
    assert first.is_new
    for _ in range(3):
        step = decide(turns, who, turn=STEP)
        assert not step.is_new
        assert step.decision is first.decision
    assert who.stats.total == 1


def test_a_new_question_is_a_new_decision_also_in_the_same_words() -> None:
    turns, who = Turns(), decider()
    first, second = decide(turns, who), decide(turns, who)
    assert second.is_new
    assert first.decision.id != second.decision.id
    assert decide(turns, who, turn=STEP).decision is second.decision
    assert who.stats.total == 2


def test_a_step_whose_beginning_is_not_known_begins_a_turn() -> None:
    turns, who = Turns(), decider()
    first = decide(turns, who, turn=STEP)
    assert first.is_new
    assert decide(turns, who, turn=STEP).decision is first.decision


def test_calls_of_one_scope_share_a_decision() -> None:
    turns, who = Turns(), decider()
    first = decide(turns, who, turn=QUERY)
    assert decide(turns, who, turn=QUERY) == Made(first.decision, is_new=False)
    assert decide(turns, who, text="another", turn=QUERY).is_new
    assert decide(turns, who, turn=Turn(scope="query 2")).is_new
    # Nobody goes on with a conversation that there has not been.
    assert decide(turns, who, turn=STEP).is_new


def test_conversations_of_two_scopes_are_told_apart() -> None:
    turns, who = Turns(), decider()
    begun = {scope: decide(turns, who, turn=Turn(scope, is_conversation=True)) for scope in ("run 1", "run 2")}
    for scope, first in begun.items():
        assert first.is_new
        step = decide(turns, who, turn=Turn(scope, is_conversation=True, goes_on=True))
        assert step == Made(first.decision, is_new=False)
        assert decide(turns, who, turn=Turn(scope)).decision is first.decision
        assert decide(turns, who, turn=Turn(scope, is_conversation=True)).is_new
    # A step of no known scope goes on with whatever was decided last on that question.
    assert not decide(turns, who, turn=STEP).is_new


def test_a_call_that_is_part_of_nothing_is_not_kept() -> None:
    turns, who = Turns(), decider()
    for _ in range(3):
        assert decide(turns, who, turn=Turn()).is_new
    assert not turns._kept


def test_no_prompt_is_kept() -> None:
    turns = Turns()
    decide(turns, decider(), text="a secret that nobody should find \ud800", turn=Turn("query", is_conversation=True))
    assert len(turns._kept) == 2
    assert "secret" not in repr(turns._kept)


@pytest.mark.parametrize("reason", ["conversation", "tool_loop"])
def test_where_a_conversation_stays_its_steps_keep_the_decision(reason: Any) -> None:
    turns, who = Turns(), decider()
    first = decide(turns, who)
    assert decide(turns, who, turn=STEP, settled=Settled("weak", reason)).decision is first.decision
    other = decide(turns, who, turn=STEP, settled=Settled("strong", reason))
    assert (other.is_new, other.decision.route) == (True, "strong")


@pytest.mark.parametrize(
    "settings",
    [{"threshold": 0.3}, {"threshold": 0.1}, {"settled": Settled("weak", "forced")}],
    ids=["higher", "lower", "forced"],
)
def test_a_call_of_other_settings_is_decided_anew(settings: dict[str, Any]) -> None:
    turns, who = Turns(), decider()
    decide(turns, who, turn=QUERY)
    assert decide(turns, who, turn=QUERY, **settings).is_new
    assert not decide(turns, who, turn=QUERY, **settings).is_new


def test_a_threshold_that_was_changed_counts_at_once() -> None:
    turns, router = Turns(), FixedRouter(0.2)
    decide(turns, decider(router), turn=QUERY)
    assert decide(turns, decider(router, threshold=0.1), turn=QUERY).decision.route == "strong"
    router.threshold = 0.15
    assert decide(turns, decider(router), turn=QUERY).decision.route == "strong"


def test_another_router_is_asked() -> None:
    turns = Turns()
    decide(turns, decider(FixedRouter(0.2)), turn=QUERY)
    assert decide(turns, decider(FixedRouter(0.9)), turn=QUERY).decision.route == "strong"


def test_a_settled_turn_is_counted_once() -> None:
    turns, who = Turns(), decider()
    settled = Settled("strong", "capability", "window")
    first = decide(turns, who, settled=settled)
    assert decide(turns, who, turn=STEP, settled=Settled("strong", "capability", "window")).decision is first.decision
    assert decide(turns, who, turn=STEP, settled=Settled("strong", "capability", "tool_calling")).is_new


def test_calls_without_a_text_have_nothing_in_common() -> None:
    turns, who = Turns(), decider(on_error="weak")
    asks = [Ask(error=ValueError("unreadable")) for _ in range(2)]
    made = [turns.decide(who, ask, Turn("query", is_conversation=True, goes_on=True)) for ask in asks]
    assert [one.is_new for one in made] == [True, True]
    assert {one.decision.reason for one in made} == {"router_error"}


def test_a_threshold_that_is_none_is_refused_as_ever() -> None:
    with pytest.raises(ThresholdError, match="list"):
        decide(Turns(), decider(), turn=QUERY, threshold=[0.5])


def test_a_failure_that_is_raised_is_not_kept() -> None:
    turns = Turns()
    with pytest.raises(RouterError):
        decide(turns, decider(FailingRouter(), on_error="raise"), turn=QUERY)
    assert decide(turns, decider(), turn=QUERY).is_new


def test_the_oldest_turns_are_forgotten() -> None:
    turns, who = Turns(size=3), decider()
    first = decide(turns, who, text="a", turn=Turn("query", is_conversation=True))  # kept under two keys
    decide(turns, who, text="b")
    assert (
        decide(turns, who, text="a", turn=Turn("query")).decision is first.decision
    )  # looked up, so it is kept longer
    decide(turns, who, text="c")
    decide(turns, who, text="d")
    assert not decide(turns, who, text="a", turn=Turn("query")).is_new
    assert decide(turns, who, text="b", turn=STEP).is_new


async def test_calls_that_begin_a_turn_together_are_decided_once() -> None:
    turns, who = Turns(), decider(Waiting(0.2))
    made = await asyncio.gather(*(turns.adecide(who, Ask(text="q"), QUERY) for _ in range(20)))
    assert sum(one.is_new for one in made) == who.stats.total == 1
    assert len({one.decision.id for one in made}) == 1
    later = await turns.adecide(who, Ask(text="q"), QUERY)
    assert not later.is_new
    alone = await asyncio.gather(*(turns.adecide(who, Ask(text="q"), Turn()) for _ in range(3)))
    assert all(one.is_new for one in alone)


async def test_one_that_waits_may_be_cancelled() -> None:
    turns, who = Turns(), decider(Waiting(0.2))
    tasks = [asyncio.ensure_future(turns.adecide(who, Ask(text="q"), QUERY)) for _ in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    made = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(made[1], asyncio.CancelledError)
    assert who.stats.total == 1
    assert all(isinstance(made[index], Made) for index in (0, 2, 3))


async def test_where_the_one_that_decides_is_cancelled_the_next_one_does() -> None:
    turns, who = Turns(), decider(Waiting(0.2))
    tasks = [asyncio.ensure_future(turns.adecide(who, Ask(text="q"), QUERY)) for _ in range(4)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    made = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(made[0], asyncio.CancelledError)
    assert sorted(one.is_new for one in made[1:]) == [False, False, True]  # type: ignore[union-attr]


async def test_where_the_router_fails_all_are_told() -> None:
    turns, who = Turns(), decider(FailingRouter(), on_error="raise")
    asked = (turns.adecide(who, Ask(text="q"), QUERY) for _ in range(3))
    made = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in made] == [RouterError] * 3


def test_another_event_loop_does_not_wait_for_this_one() -> None:
    turns, who = Turns(), decider(Waiting(0.2))

    async def begun() -> asyncio.Task[Made]:
        task = asyncio.ensure_future(turns.adecide(who, Ask(text="q"), QUERY))
        await asyncio.sleep(0)
        return task

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    task = first.run_until_complete(begun())
    made = second.run_until_complete(turns.adecide(who, Ask(text="q"), QUERY))
    assert made.is_new
    assert first.run_until_complete(task).is_new
    first.close()
    second.close()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def test_a_copy_begins_anew(copied: Any) -> None:
    turns, who = Turns(), decider()
    decide(turns, who, turn=QUERY)
    assert decide(copied(turns), who, turn=QUERY).is_new
    assert not decide(turns, who, turn=QUERY).is_new


def test_answers_are_known_by_any_of_their_keys() -> None:
    answers = Answers(size=3)
    answers.note(["a", "b"], {"route": "weak"})
    assert answers.find(["unknown", "b"]) == {"route": "weak"}
    assert answers.find(["unknown"]) is None
    answers.note(["a"], {"route": "strong"})
    answers.note(["c", "d"], {"route": "weak"})
    assert answers.find(["b"]) is None
    assert answers.find(["a"]) == {"route": "strong"}


class Waiting(FixedRouter):
    """Answers after the others had their turn."""

    async def awin_probability(self, prompts: Any) -> Any:
        for _ in range(5):
            await asyncio.sleep(0)
        return self.win_probability(prompts)
