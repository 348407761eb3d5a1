"""What of a conversation a router is asked, and when it need not be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute import ConfigurationError, RoutingDecision
from prefroute.conversation import (
    TOOL_RESULT_CHARACTERS,
    Message,
    Question,
    Settled,
    TurnPolicy,
    without_noise,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DECIDES: tuple[Any, ...] = ("per_turn", "per_step", "per_conversation")
REMINDER = "<system-reminder>Be brief.</system-reminder>"
ONLY_NOISE = Message(role="human", text=REMINDER)
READ = 'read {"path": "a"}'


def human(text: str) -> Message:
    return Message(role="human", text=text)


def ai(route: Any = None, reason: Any = "score", *, text: str = "", calls: tuple[str, ...] = ()) -> Message:
    routing = None if route is None else {"route": route, "reason": reason}
    return Message(role="ai", text=text, calls=calls, routing=routing)


def tool(text: str = "", *, failed: bool = False) -> Message:
    return Message(role="tool", text=text, failed=failed)


def asked(*messages: Message, **settings: Any) -> Question:
    """The question of a conversation that is given oldest first."""
    return TurnPolicy(**settings).question(reversed(messages))


def steps(*calls: str, failed: bool = False) -> list[Message]:
    """A tool loop: each call with its result."""
    return [message for call in calls for message in (ai(calls=(call,)), tool("result", failed=failed))]


# --- what is asked ---


@pytest.mark.parametrize("decide", DECIDES)
def test_the_last_thing_a_person_said_is_asked(decide: Any) -> None:
    older = [Message(role="other", text="system"), human("first"), ai(text="answer")]
    assert asked(*older, human("second"), decide=decide) == Question("second")
    assert asked(human("only"), decide=decide) == Question("only")
    assert asked(human("second"), ai(text="begun"), decide=decide) == Question("second")


@pytest.mark.parametrize(
    ("decide", "text"), [("per_turn", "question"), ("per_step", "question\n\nnew"), ("per_conversation", "question")]
)
def test_a_tool_result_is_read_per_step_alone(decide: Any, text: str) -> None:
    turn = [human("older"), human("question"), ai(calls=(READ,)), tool("old"), ai(calls=(READ, "b")), tool("new")]
    assert asked(*turn, decide=decide) == Question(text, goes_on=True)
    assert asked(*turn[:-1], decide=decide).text == "question", "the result is not there yet"
    assert asked(*turn, human("go on"), decide=decide).text == "go on", "the result is of the turn before"


def test_of_a_long_tool_result_the_beginning_is_read() -> None:
    result = "".join(map(str, range(TOOL_RESULT_CHARACTERS)))
    text = asked(human("q"), tool(result), decide="per_step").text
    assert text == "q\n\n" + result[:TOOL_RESULT_CHARACTERS]
    assert TOOL_RESULT_CHARACTERS == 2000


def test_a_step_is_read_though_the_harness_speaks_after_the_tool() -> None:
    turn = [human("q"), ai("weak", calls=(READ,)), tool("result"), ONLY_NOISE]
    assert asked(*turn, decide="per_step").text == "q\n\nresult"
    assert asked(*turn, lock_tool_loop=True).settled == Settled("weak", "tool_loop")


@pytest.mark.parametrize("decide", DECIDES)
def test_noise_alone_is_no_turn_of_the_persons(decide: Any) -> None:
    assert asked(human("q"), ai(text="a"), ONLY_NOISE, decide=decide).text == "q"
    assert asked(human("older"), human("q"), ONLY_NOISE, ONLY_NOISE, decide=decide).text == "q"
    assert asked(human(f"q {REMINDER}"), decide=decide).text == "q"


@pytest.mark.parametrize("decide", DECIDES)
def test_where_all_is_noise_the_newest_is_asked_as_it_is(decide: Any) -> None:
    newest = "<command-name>/clear</command-name>"
    assert asked(ONLY_NOISE, ai(text="a"), human(newest), decide=decide).text == newest


@pytest.mark.parametrize("text", ["", " \n"])
@pytest.mark.parametrize("decide", DECIDES)
def test_a_message_of_images_alone_is_the_persons(decide: Any, text: str) -> None:
    assert asked(human("older"), ai(text="a"), human(text), decide=decide).text.strip() == ""


@pytest.mark.parametrize("decide", DECIDES)
def test_without_a_person_the_last_message_is_asked(decide: Any) -> None:
    assert asked(Message(role="other", text="system"), ai(text="hello"), decide=decide).text == "hello"
    assert asked(Message(role="other", text="system"), decide=decide).text == "system"
    assert asked(decide=decide) == Question("")


def test_a_tool_result_without_a_person_is_asked_once() -> None:
    # What is left of a long run once its history was trimmed.
    assert asked(ai(calls=(READ,)), tool("result"), decide="per_step").text == "result"


@given(st.lists(st.sampled_from(["human", "ai", "tool", "other"]), max_size=8), st.sampled_from(DECIDES))
def test_any_order_of_roles_comes_to_a_text_of_it(roles: list[Any], decide: Any) -> None:
    messages = [Message(role=role, text=f"{role}{place}") for place, role in enumerate(roles)]
    question = asked(*messages, decide=decide, lock_tool_loop=True, escalate_after=3)
    assert question.settled is None
    said = [message.text for message in messages if message.role == "human"]
    expected = said[-1] if said else messages[-1].text if messages else ""
    assert question.text.split("\n\n")[0] == expected


# --- how far it is read ---


def only(*newest_first: Message) -> Iterator[Message]:
    yield from newest_first
    pytest.fail("read further back than needed")


@pytest.mark.parametrize("rules", [{}, {"lock_tool_loop": True, "escalate_after": 2}])
@pytest.mark.parametrize("decide", ["per_turn", "per_step"])
def test_no_further_back_than_the_turn_is_read(decide: Any, rules: dict[str, Any]) -> None:
    policy = TurnPolicy(decide=decide, **rules)
    assert policy.question(only(human("q"))).text == "q"
    assert policy.question(only(tool("t"), ai(), ONLY_NOISE, human("q"))).text.startswith("q")


def test_a_conversation_is_read_to_its_latest_answer_by_score() -> None:
    policy = TurnPolicy(decide="per_conversation")
    question = policy.question(only(human("q"), human("p"), ai("strong", "forced"), human("o"), ai("weak")))
    assert question == Question("q", Settled("weak", "conversation"))
    assert policy.question(only(tool(), ai("strong"), human("q"))).settled == Settled("strong", "conversation")


# --- a conversation that stays with its side ---


@pytest.mark.parametrize("reason", ["score", "conversation"])
@pytest.mark.parametrize("route", ["strong", "weak"])
def test_a_conversation_keeps_the_side_of_its_latest_answer(route: Any, reason: str) -> None:
    other = "weak" if route == "strong" else "strong"
    messages = [human("a"), ai(other), human("b"), ai(route, reason), human("c")]
    assert asked(*messages, decide="per_conversation") == Question("c", Settled(route, "conversation"))
    for decide in ("per_turn", "per_step"):
        assert asked(*messages, decide=decide) == Question("c")


@pytest.mark.parametrize("reason", ["router_error", "capability", "forced", "tool_loop", "escalation", "else", None])
def test_a_side_for_one_call_is_none_for_the_conversation(reason: Any) -> None:
    messages = [human("b"), ai("strong", reason), human("c")]
    assert asked(*messages, decide="per_conversation") == Question("c")
    assert asked(human("a"), ai("weak"), *messages, decide="per_conversation").settled == Settled(
        "weak", "conversation"
    )


def test_a_decision_as_it_is_recorded_is_understood() -> None:
    routing = RoutingDecision("weak", 0.1, 0.5, "score").as_dict()
    messages = [human("a"), Message(role="ai", routing=routing), human("b")]
    assert asked(*messages, decide="per_conversation").settled == Settled("weak", "conversation")


GARBAGE: list[Any] = [
    {},
    {"route": None, "reason": "score"},
    {"route": "both", "reason": "score"},
    {"route": 3, "reason": "score"},
    {"route": True, "reason": "score"},
    {"route": "Strong", "reason": "score"},
    {"reason": "score"},
    {"route": ["strong"], "reason": "score"},
    {"route": {"side": "strong"}, "reason": "score"},
    {"route": "strong", "reason": ["score"]},
    {"route": "strong", "reason": {}},
]


@pytest.mark.parametrize("routing", GARBAGE, ids=str)
def test_a_record_that_makes_no_sense_is_none(routing: dict[str, Any]) -> None:
    garbage = Message(role="ai", routing=routing)
    assert asked(human("a"), garbage, human("b"), decide="per_conversation") == Question("b")
    assert asked(human("a"), ai("weak"), human("b"), garbage, human("c"), decide="per_conversation").settled == (
        Settled("weak", "conversation")
    )


@pytest.mark.parametrize("routing", [one for one in GARBAGE if one.get("route") != "strong"], ids=str)
def test_a_record_that_makes_no_sense_locks_nothing(routing: dict[str, Any]) -> None:
    caller = Message(role="ai", calls=(READ,), routing=routing)
    assert asked(human("q"), caller, tool("t"), lock_tool_loop=True).settled is None


def test_only_what_answered_says_whose_the_conversation_is() -> None:
    routing = {"route": "weak", "reason": "score"}
    others = [Message(role=role, text="x", routing=routing) for role in ("human", "tool", "other")]
    assert asked(*others, human("q"), decide="per_conversation", lock_tool_loop=True).settled is None


# --- rules of a turn ---


@pytest.mark.parametrize("reason", ["score", "forced", "router_error", "capability", "escalation"])
@pytest.mark.parametrize("decide", DECIDES)
def test_who_called_a_tool_answers_its_result(decide: Any, reason: str) -> None:
    turn = [human("q"), ai("strong", calls=("a",)), tool("1"), ai("weak", reason, calls=("b",)), tool("2")]
    assert asked(*turn, decide=decide, lock_tool_loop=True).settled == Settled("weak", "tool_loop")
    if decide != "per_conversation":
        assert asked(*turn, decide=decide).settled is None


def test_a_tool_loop_is_locked_only_for_results_and_only_in_its_turn() -> None:
    before = [human("q"), ai("weak", calls=(READ,)), tool("t")]
    assert asked(*before, human("r"), lock_tool_loop=True).settled is None
    assert asked(*before, ai("weak", text="done"), lock_tool_loop=True).settled is None
    assert asked(human("p"), ai("weak"), human("q"), tool("t"), lock_tool_loop=True).settled is None
    assert asked(human("q"), ai(calls=(READ,)), tool("t"), lock_tool_loop=True).settled is None
    # Several results of one message of calls are of one caller.
    assert asked(*before, tool("u"), lock_tool_loop=True).settled == Settled("weak", "tool_loop")


@pytest.mark.parametrize(
    ("routing", "side"),
    [
        # One that answered where the other failed has called the tool; one that only watches has not.
        ({"route": "weak", "answered_by": "strong", "fallback": {"from": "weak"}}, "strong"),
        ({"route": "strong", "answered_by": "weak", "fallback": {"from": "strong"}}, "weak"),
        ({"route": "weak", "answered_by": "strong"}, "weak"),
        ({"route": "weak", "fallback": {"from": "strong"}}, "weak"),
        ({"route": "weak", "answered_by": "both", "fallback": {"from": "weak"}}, "weak"),
        ({"route": "weak", "answered_by": ["strong"], "fallback": {"from": "weak"}}, "weak"),
        ({"answered_by": "strong", "fallback": {"from": "weak"}}, "strong"),
    ],
    ids=str,
)
@pytest.mark.parametrize("by", ["rule", "need"])
def test_who_stood_in_for_the_other_has_called_the_tool(routing: dict[str, Any], side: Any, by: str) -> None:
    turn = [human("q"), Message(role="ai", calls=(READ,), routing=routing), tool("t")]
    question = TurnPolicy(lock_tool_loop=by == "rule").question(reversed(turn), locked=by == "need")
    assert question == Question("q", Settled(side, "tool_loop"), goes_on=True)


def test_a_result_that_only_the_caller_can_answer_goes_there_before_all_else() -> None:
    turn = [human("p"), ai("strong"), human("q"), ai("weak", calls=(READ,)), tool("t", failed=True)]
    for decide in DECIDES:
        policy = TurnPolicy(decide=decide, escalate_after=1)
        assert policy.question(reversed(turn), locked=True).settled == Settled("weak", "tool_loop")
        assert policy.question(reversed(turn)).settled == STUCK
        assert policy.question(reversed(turn[:-1]), locked=True).settled == STUCK, "no result to answer"
        unknown = [human("q"), ai(calls=(READ,)), tool("t", failed=True)]
        assert policy.question(reversed(unknown), locked=True).settled == STUCK, "nobody knows who called"


STUCK = Settled("strong", "escalation", "repeated tool call")
FAILED = Settled("strong", "escalation", "failed tools")


@pytest.mark.parametrize("decide", DECIDES)
def test_identical_calls_escalate(decide: Any) -> None:
    settings: dict[str, Any] = {"decide": decide, "escalate_after": 3}
    assert asked(human("q"), *steps(READ, READ), **settings).settled is None
    assert asked(human("q"), *steps(READ, READ, READ), **settings).settled == STUCK
    assert asked(human("q"), *steps(READ, "other", READ, "more", READ), **settings).settled == STUCK
    assert asked(human("q"), *steps("a", "b", "c", "d"), **settings).settled is None
    assert asked(human("q"), *steps(READ, READ, READ, READ, "other"), **settings).settled == STUCK, "for the rest of it"
    assert asked(human("q"), ai(calls=(READ, READ, READ)), tool(), **settings).settled == STUCK


@pytest.mark.parametrize("decide", DECIDES)
def test_failed_tools_escalate(decide: Any) -> None:
    settings: dict[str, Any] = {"decide": decide, "escalate_after": 2}
    assert asked(human("q"), *steps("a", failed=True), *steps("b"), **settings).settled is None
    assert asked(human("q"), *steps("a", "b", failed=True), *steps("c"), **settings).settled == FAILED
    assert asked(human("q"), *steps(*"abcdef"), **settings).settled is None, "they did not fail"


def test_a_turn_is_not_blamed_for_the_one_before() -> None:
    before = [human("q"), *steps(READ, READ, failed=True), ai(text="I gave up")]
    assert asked(*before, human("r"), escalate_after=2).settled is None
    assert asked(*before, human("r"), *steps(READ, failed=True), escalate_after=2).settled is None
    # The harness begins no turn.
    assert asked(*before, ONLY_NOISE, escalate_after=2).settled == STUCK


def test_one_may_be_enough_to_escalate() -> None:
    assert asked(human("q"), *steps("a"), escalate_after=1).settled == STUCK
    assert asked(human("q"), ai(), tool(failed=True), escalate_after=1).settled == FAILED
    assert asked(human("q"), escalate_after=1).settled is None


def test_escalation_comes_before_the_lock_and_the_lock_before_the_conversation() -> None:
    turn = [human("p"), ai("strong"), human("q"), ai("weak", "forced", calls=("a",)), tool(failed=True)]
    rules: dict[str, Any] = {"decide": "per_conversation", "lock_tool_loop": True}
    assert asked(*turn, **rules, escalate_after=1).settled == STUCK
    assert asked(*turn, **rules).settled == Settled("weak", "tool_loop")
    assert asked(*turn, decide="per_conversation").settled == Settled("strong", "conversation")


def test_a_turn_without_rules_is_never_settled() -> None:
    turn = [human("q"), *steps(*[READ] * 9, failed=True)]
    assert asked(*turn).settled is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decide": "per_day"}, "decide must be one of per_turn, per_step, per_conversation; got 'per_day'"),
        ({"decide": None}, "decide must be one of"),
        ({"decide": ["per_turn"]}, "decide must be one of"),
        ({"lock_tool_loop": 1}, "lock_tool_loop must be True or False, got 1"),
        ({"lock_tool_loop": None}, "lock_tool_loop must be True or False"),
        ({"lock_tool_loop": "yes"}, "lock_tool_loop must be True or False"),
        ({"escalate_after": 0}, "escalate_after must be a number of tool calls, 1 or more, or None; got 0"),
        ({"escalate_after": -1}, "escalate_after must be"),
        ({"escalate_after": True}, "escalate_after must be"),
        ({"escalate_after": 2.0}, "escalate_after must be"),
        ({"escalate_after": "3"}, "escalate_after must be"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TurnPolicy(**settings)


# --- what is not the person's ---


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{REMINDER} Fix it.", "Fix it."),
        (f"Fix {REMINDER}it.", "Fix it."),
        (f"{REMINDER}\n\nFix it.\n\n{REMINDER}\n", "Fix it."),
        (REMINDER, ""),
        ("<system_reminder>\nmany\nlines\n</system_reminder>Fix it.", "Fix it."),
        ('<system-reminder priority="1" kind=a>x</system-reminder>Fix it.', "Fix it."),
        ("<system-reminder\n>x</system-reminder >Fix it.", "Fix it."),
        ("<environment_details># Time\n5 < 6 > 4</environment_details>Fix it.", "Fix it."),
        ("<environment_context><cwd>/a</cwd></environment_context>Fix it.", "Fix it."),
        (
            "<local-command-stdout>ok</local-command-stdout><local-command-stderr/>Fix it.",
            "<local-command-stderr/>Fix it.",
        ),
        ("<reminderInstructions>x</reminderInstructions>Fix it.", "Fix it."),
        # One in another goes with it, and so does what it speaks of.
        ("<environment_details>a<system-reminder>b</system-reminder>c</environment_details>Fix it.", "Fix it."),
        ("<system-reminder>no <environment_details> now</system-reminder>Fix it.", "Fix it."),
        ("<system-reminder>no </environment_details> now</system-reminder>Fix it.", "Fix it."),
        # The person's own words are marked.
        ("<user_query>Fix it.</user_query>", "Fix it."),
        ("<context>much</context>\n<user_query>\nFix it.\n</user_query> more", "Fix it."),
        ("<userRequest>Fix it.</userRequest>", "Fix it."),
        ("<user_query>Fix it.</user_query>x<user_query>Now.</user_query>", "Fix it.\n\nNow."),
        (f"<user_query>Fix it.{REMINDER}</user_query>", "Fix it."),
        (f"{REMINDER}<user_query>Fix it.</user_query>", "Fix it."),
        ("<user_query></user_query>", ""),
    ],
)
def test_what_the_harness_wrote_is_left_out(text: str, left: str) -> None:
    assert without_noise(text) == left


@pytest.mark.parametrize(
    "name",
    [
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
    ],
)
def test_each_element_of_the_harness_is_known(name: str) -> None:
    assert without_noise(f"a <{name}>b</{name}> c") == "a  c"
    assert without_noise(f"a <x-{name}>b</x-{name}> <{name}s>c</{name}s> d").count(name) == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        " a < b </ c ",
        "<p>Hello</p>",
        "What does <system-reminder> mean?",
        "What does </system-reminder> mean? ",
        "Close it: </system-reminder>, then open it: <system-reminder>",
        "<system-reminder>never closed. Fix it.</p>",
        "<user_query>never closed. Fix it.</p> ",
        "<system-reminder>closed by another</system_reminder>",
        "<System-Reminder>x</System-Reminder>",
        "<system-reminder-ish>x</system-reminder-ish>",
        "&lt;system-reminder&gt;x&lt;/system-reminder&gt;",
    ],
)
def test_text_that_only_speaks_of_tags_stays(text: str) -> None:
    assert without_noise(text) == text


def test_a_name_that_is_spoken_of_first_does_not_eat_the_text() -> None:
    text = f"What does <system-reminder> mean? {REMINDER}"
    assert without_noise(text) == "What does <system-reminder> mean?"


def test_a_name_that_is_spoken_of_does_not_keep_another_elements_noise() -> None:
    text = f"Why is there an <environment_details> in my log? {REMINDER}"
    assert without_noise(text) == "Why is there an <environment_details> in my log?"
    assert without_noise(f"<userRequest> is what? <user_query>Fix it.</user_query> {REMINDER}") == "Fix it."


def test_taking_the_noise_out_twice_takes_out_no_more() -> None:
    text = f"a {REMINDER} b <environment_details>x</environment_details> c"
    once = without_noise(text)
    assert without_noise(once) == once == "a  b  c"


@given(st.text(st.characters(exclude_characters="<")) | st.text("abc <>/ \n"))
def test_text_without_tags_is_unchanged(text: str) -> None:
    assert without_noise(text) == text


@given(
    st.lists(st.sampled_from(["<system-reminder>", "</system-reminder>", "<user_query>", "</user_query>", "x", " "]))
)
def test_nothing_is_made_up(parts: list[str]) -> None:
    text = "".join(parts)
    left = without_noise(text)
    assert left.count("x") <= text.count("x")
    remaining = iter(text.replace(" ", "") + "\n\n" * len(parts))
    assert all(character in remaining for character in left.replace(" ", "").replace("\n", ""))


@pytest.mark.parametrize(
    "unit",
    [
        "<system-reminder>",
        "</system-reminder>",
        "<system-reminder ",
        "</user_query ",
        "<system-reminder><user_query>",
        "<system-reminder>x</system-reminder>",
        "<user_query></user_query>",
        "<environment_details",
        "</",
        "<",
    ],
)
def test_hostile_text_comes_to_an_end(unit: str) -> None:
    # With time that grows by the square these would take minutes.
    text = unit * (200_000 // len(unit))
    assert len(without_noise(text + "</")) <= len(text) + 2
    assert len(without_noise(text + " " * 200_000 + "</")) <= len(text) + 200_002


# --- a turn whose beginning is gone ---


@pytest.mark.parametrize("decide", ["per_turn", "per_conversation"])
def test_a_turn_that_was_summed_up_goes_on_as_it_began(decide: Any) -> None:
    messages = [Message(role="other", text="a summary"), ai("weak", calls=(READ,)), tool("result")]
    assert asked(*messages, decide=decide).settled == Settled("weak", "conversation")
    assert asked(*messages, decide="per_step").settled is None


def test_a_message_of_nothing_but_noise_alone_is_asked_as_it_is() -> None:
    for decide in DECIDES:
        assert asked(ONLY_NOISE, decide=decide).text == ONLY_NOISE.text
