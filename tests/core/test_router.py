"""The router contract: routing, thresholds, failing open, hostile input."""

import asyncio
import concurrent.futures
import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute import (
    ConfigurationError,
    PrefrouteError,
    PromptTypeError,
    Router,
    RouterError,
    RouterTimeoutError,
    RoutingDecision,
    RoutingStats,
    ScoreError,
    ThresholdError,
    _limits,
)
from prefroute.inputs import as_prompts
from prefroute.testing import FailingRouter, FixedRouter, SlowRouter


class OnlyTheHook(Router):
    def win_probability(self, prompts: Sequence[str]) -> Any:
        return np.full(len(prompts), 0.7)


class Returns(Router):
    """Gives back whatever it was told to."""

    threshold = 0.5

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def win_probability(self, prompts: Sequence[str]) -> Any:
        return self.outcome


def test_overriding_the_hook_alone_makes_a_working_router() -> None:
    router = OnlyTheHook()
    assert router.route("hello", 0.5) == RoutingDecision("strong", 0.7, 0.5, "score")
    assert router.route("hello", 0.71).route == "weak"
    assert [d.route for d in router.route_batch(["a", "b"], 0.5)] == ["strong", "strong"]
    assert asyncio.run(router.aroute("hello", 0.5)) == router.route("hello", 0.5)
    assert asyncio.run(router.aroute_batch(["a", "b"], 0.9)) == router.route_batch(["a", "b"], 0.9)


@pytest.mark.parametrize(
    ("threshold", "route"),
    [(0.7, "strong"), (0.7000001, "weak"), (0, "strong"), (-5, "strong"), (1.5, "weak"), (1e300, "weak")],
)
def test_any_finite_threshold_is_accepted_and_a_tie_goes_strong(threshold: float, route: str) -> None:
    assert OnlyTheHook().route("x", threshold).route == route


def test_scores_a_rounding_error_outside_are_clipped() -> None:
    decisions = Returns(np.array([1.0000001, -1e-7], dtype=np.float32)).route_batch(["a", "b"])
    assert [decision.score for decision in decisions] == [1.0, 0.0]


@pytest.mark.parametrize(
    "threshold",
    [10**400, Fraction(10**400), Decimal("0.5"), float("nan"), float("inf"), -float("inf"), "0.5", True, [0.5], 1j],
)
def test_other_thresholds_are_refused_with_what_came(threshold: Any) -> None:
    with pytest.raises(ThresholdError, match="finite number, got"):
        OnlyTheHook().route("x", threshold)
    with pytest.raises(ValueError, match="finite number"):
        asyncio.run(OnlyTheHook().aroute("x", threshold))


def test_numpy_threshold_becomes_a_float() -> None:
    decision = OnlyTheHook().route("x", np.float32(0.5))  # type: ignore[arg-type]
    assert type(decision.threshold) is float
    assert type(decision.score) is float


def test_without_any_threshold_the_error_names_the_remedy() -> None:
    with pytest.raises(ThresholdError, match=r"OnlyTheHook has no default threshold; pass threshold="):
        OnlyTheHook().route("x")
    router = OnlyTheHook()
    router.threshold = 0.9
    assert router.route("x").threshold == 0.9
    assert router.route("x", 0.1).threshold == 0.1


@pytest.mark.parametrize("prompt", [None, 3, b"bytes", ["a"], {"role": "user"}])
def test_a_prompt_that_is_no_text_is_a_type_error_that_says_what_came(prompt: Any) -> None:
    router = FailingRouter(on_error="strong")
    with pytest.raises(TypeError, match=type(prompt).__name__):
        router.route(prompt)
    with pytest.raises(PromptTypeError, match=type(prompt).__name__):
        asyncio.run(router.aroute(prompt))
    with pytest.raises(PromptTypeError, match=rf"prompts\[1\] must be a str, got {type(prompt).__name__}"):
        router.route_batch(["fine", prompt])


@pytest.mark.parametrize("prompts", ["a lone text", b"bytes", 7, None])
def test_a_batch_that_is_no_sequence_is_refused(prompts: Any) -> None:
    with pytest.raises(PromptTypeError, match="sequence of str, got"):
        FixedRouter().route_batch(prompts)


def test_the_empty_batch_is_no_decisions() -> None:
    stats = RoutingStats()
    assert FixedRouter().route_batch([], stats=stats) == []
    assert asyncio.run(FixedRouter().aroute_batch([], stats=stats)) == []
    assert stats.total == 0


def test_lone_surrogates_become_the_replacement_character_and_pairs_their_character() -> None:
    assert as_prompts(["a\ud800b", "\ud83d\ude00", "naïve", ""]) == ["a\ufffdb", "😀", "naïve", ""]


@given(st.text(st.characters()))
def test_what_reaches_the_router_can_always_be_encoded(text: str) -> None:
    (cleaned,) = as_prompts([text])
    assert cleaned.encode().decode() == cleaned


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        (np.array([np.nan]), "no number in"),
        (np.array([np.inf]), "no number in"),
        (np.array([1.0001]), "no number in"),
        (np.ma.array([0.5], mask=[True]), "no number in"),
        (np.array([0.5 + 1j]), "numbers, got ndarray of dtype complex128"),
        (["0.9"], "numbers, got list of dtype"),
        ([10**400], "numbers, got list"),
        (np.array([-0.1]), "no number in"),
        (np.array([0.1, 0.2]), r"shape \(1,\), got \(2,\)"),
        (np.array([[0.1]]), r"got \(1, 1\)"),
        (0.5, r"got \(\)"),
        (None, r"got \(\)|numbers, got NoneType"),
        (["high"], "numbers, got list of dtype"),
        ({"x": 1}, "numbers, got dict"),
        ([[0.1], [0.1, 0.2]], "numbers, got list"),
    ],
)
def test_a_bad_score_counts_as_a_failure(outcome: Any, problem: str) -> None:
    assert Returns(outcome).route("x") == RoutingDecision("strong", None, 0.5, "router_error")
    with pytest.raises(ScoreError, match=problem):
        Returns(outcome).route("x", on_error="raise")


def test_one_bad_score_leaves_the_rest_of_the_batch_alone() -> None:
    stats = RoutingStats()
    router = Returns(np.array([0.1, np.nan, 0.9]))
    decisions = router.route_batch(["a", "b", "c"], on_error="weak", stats=stats)
    assert [(d.route, d.reason) for d in decisions] == [
        ("weak", "score"),
        ("weak", "router_error"),
        ("strong", "score"),
    ]
    assert stats.snapshot()["by_reason"] == {"score": 2, "router_error": 1}


@pytest.mark.parametrize("side", ["strong", "weak"])
async def test_a_failing_router_never_fails_the_call(side: Any, caplog: pytest.LogCaptureFixture) -> None:
    router, stats = FailingRouter(KeyError("lost"), on_error=side), RoutingStats()
    expected = RoutingDecision(side, None, 0.5, "router_error")
    with caplog.at_level(logging.WARNING, "prefroute"):
        assert router.route("a private prompt", stats=stats) == expected
        assert await router.aroute("a private prompt", stats=stats) == expected
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert f"FailingRouter failed: KeyError; 1 of 1 prompts go to the {side} model" in caplog.text
    # An exception's own words may quote a prompt or a key.
    assert "lost" not in caplog.text
    assert "private" not in caplog.text
    assert stats.snapshot()["by_reason"] == {"router_error": 2}


async def test_raise_turns_failing_open_off() -> None:
    original = OSError("disk on fire")
    for router, override in ((FailingRouter(original, on_error="raise"), None), (FailingRouter(original), "raise")):
        with pytest.raises(RouterError, match=r"^FailingRouter failed: OSError$") as caught:
            router.route("x", on_error=override)  # type: ignore[arg-type]
        assert caught.value.__cause__ is original
        with pytest.raises(PrefrouteError):
            await router.aroute("x", on_error=override)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("on_error", "ignore", "when the router fails: must be one of strong, weak, raise; got 'ignore'"),
        ("time_limit", 0, "time limit must be a positive number of seconds, got 0"),
        ("time_limit", -1, "time limit must be"),
        ("time_limit", "1", "time limit must be"),
        ("threshold", "high", "threshold must be a finite number"),
    ],
)
def test_unusable_settings_are_refused_in_a_call_and_when_they_are_set(name: str, value: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        FixedRouter().route("x", **{name: value})
    router = FixedRouter(threshold=0.25)
    with pytest.raises(ConfigurationError, match=problem):
        setattr(router, name, value)
    assert router.route("x").threshold == 0.25


async def test_a_router_past_its_time_limit_counts_as_failed() -> None:
    stats = RoutingStats()
    slow = SlowRouter(30, time_limit=0.02)
    assert slow.route("x", stats=stats).reason == "router_error"
    assert (await slow.aroute("x", stats=stats)).reason == "router_error"
    assert SlowRouter(30).route("x", time_limit=0.02, stats=stats).reason == "router_error"
    with pytest.raises(RouterTimeoutError, match=r"time limit of 0\.02 s"):
        slow.route("x", on_error="raise")
    assert stats.snapshot()["by_reason"] == {"router_error": 3}


async def test_a_router_within_its_time_limit_is_unaffected() -> None:
    router = SlowRouter(0, 0.8, time_limit=30)
    assert router.route("x").score == 0.8
    assert (await router.aroute("x")).score == 0.8
    failing = FailingRouter(TimeoutError("its own"))
    with pytest.raises(RouterError, match="failed: TimeoutError"):
        failing.route("x", time_limit=30, on_error="raise")
    with pytest.raises(RouterError, match="failed: TimeoutError"):
        await failing.aroute("x", time_limit=30, on_error="raise")


async def test_a_router_with_its_own_async_form_is_cancelled_at_the_limit() -> None:
    cancelled = asyncio.Event()

    class Remote(OnlyTheHook):
        async def awin_probability(self, prompts: Sequence[str]) -> Any:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled.set()
                raise

    assert (await Remote().aroute("x", 0.5, time_limit=0.02)).reason == "router_error"
    assert cancelled.is_set()

    class TimesOut(OnlyTheHook):
        async def awin_probability(self, prompts: Sequence[str]) -> Any:
            msg = "its own"
            raise TimeoutError(msg)

    with pytest.raises(RouterError, match="failed: TimeoutError"):
        await TimesOut().aroute("x", 0.5, time_limit=30, on_error="raise")


async def test_cancelling_the_caller_is_not_swallowed() -> None:
    for limit in (None, 30):
        task = asyncio.create_task(SlowRouter(0.2, time_limit=limit).aroute("x"))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_async_routing_leaves_the_loop_free() -> None:
    router = SlowRouter(0.2, 0.8)
    running = asyncio.create_task(router.aroute("x"))
    ticks = 0
    while not running.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert (await running).score == 0.8
    assert ticks > 1


def test_hung_calls_are_bounded_and_counted_until_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "MAX_OVERDUE", 2)
    release = threading.Event()

    class Hangs(OnlyTheHook):
        calls = 0

        def win_probability(self, prompts: Sequence[str]) -> Any:
            Hangs.calls += 1
            release.wait(30)
            return super().win_probability(prompts)

    hung = Hangs()
    for _ in range(5):
        assert hung.route("x", 0.5, time_limit=0.01).reason == "router_error"
    assert Hangs.calls == 2
    with pytest.raises(RouterTimeoutError, match="2 earlier calls are still running past their time limit"):
        hung.route("x", 0.5, time_limit=0.01, on_error="raise")
    assert FixedRouter().route("x", time_limit=30).reason == "score"  # another router is not to blame
    release.set()
    deadline = time.monotonic() + 30
    while id(hung) in _limits._running and time.monotonic() < deadline:
        time.sleep(0.005)
    assert hung.route("x", 0.5, time_limit=30).score == 0.7


async def test_callers_who_hang_up_do_not_count_as_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "MAX_OVERDUE", 1)
    router = SlowRouter(0.3, 0.8, time_limit=30)
    task = asyncio.create_task(router.aroute("x"))
    await asyncio.sleep(0.02)
    task.cancel()
    assert (await router.aroute("x")).score == 0.8


@pytest.mark.parametrize("seconds", [1e10, 1e300])
async def test_a_limit_beyond_what_the_system_can_wait_is_no_limit(seconds: float) -> None:
    assert SlowRouter(0.01, 0.8, time_limit=seconds).route("x").score == 0.8
    assert (await SlowRouter(0.01, 0.8, time_limit=seconds).aroute("x")).score == 0.8


class Panic(BaseException):
    """What extension modules written in Rust raise when they break an invariant of their own."""

    __module__ = "pyo3_runtime"


class Stop(BaseException):
    """What task queues and the like raise in a thread to end what it is doing."""


class BadTextError(Exception):
    def __str__(self) -> str:
        msg = "no text for you"
        raise RuntimeError(msg)


@pytest.mark.parametrize(
    "error",
    [
        StopIteration(),
        Panic(),
        BadTextError(),
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
        RecursionError(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("limit", [None, 30])
async def test_whatever_a_router_raises_routing_goes_on(error: Any, limit: float | None) -> None:
    router = FailingRouter(error)

    class Async(FailingRouter):
        async def awin_probability(self, prompts: Sequence[str]) -> Any:
            raise self.error

    for decision in (
        router.route("x", time_limit=limit),
        await asyncio.wait_for(router.aroute("x", time_limit=limit), 20),
        await asyncio.wait_for(Async(error).aroute("x", time_limit=limit), 20),
    ):
        assert decision == RoutingDecision("strong", None, 0.5, "router_error")
    with pytest.raises(RouterError):
        await asyncio.wait_for(router.aroute("x", time_limit=limit, on_error="raise"), 20)


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("limit", [None, 30])
def test_what_asks_the_thread_to_stop_is_not_taken_for_a_failure(error: Any, limit: float | None) -> None:
    router = FailingRouter(error())

    class Async(FailingRouter):
        async def awin_probability(self, prompts: Sequence[str]) -> Any:
            raise self.error

    with pytest.raises(error):
        router.route("x", time_limit=limit)
    for asked in (router, Async(error())):
        with pytest.raises(error):
            asyncio.run(asked.aroute("x", time_limit=limit))


@pytest.mark.parametrize("limit", [None, 30])
async def test_cancelling_the_caller_of_an_asynchronous_router_is_not_swallowed(limit: float | None) -> None:
    class Async(OnlyTheHook):
        async def awin_probability(self, prompts: Sequence[str]) -> Any:
            await asyncio.sleep(30)

    task = asyncio.create_task(Async().aroute("x", 0.5, time_limit=limit))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("limit", [None, 30])
async def test_an_asynchronous_hook_may_fail_before_it_awaits_and_may_empty_its_list(limit: float | None) -> None:
    class NotEvenAwaitable(OnlyTheHook):
        def awin_probability(self, prompts: Sequence[str]) -> Any:
            raise ConnectionError

    class Consumes(OnlyTheHook):
        async def awin_probability(self, prompts: Any) -> Any:
            scores = [0.7 for _ in prompts]
            prompts.clear()
            return scores

    assert (await NotEvenAwaitable().aroute("x", 0.5, time_limit=limit)).reason == "router_error"
    assert len(await Consumes().aroute_batch(["a", "b"], 0.5, time_limit=limit)) == 2


async def test_a_system_without_threads_is_a_failure_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    router = FixedRouter(0.8)

    def start(thread: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(_limits.MAX_OVERDUE + 1):
            assert router.route("x", time_limit=0.001).reason == "router_error"
            assert (await router.aroute("x", time_limit=0.001)).reason == "router_error"
    assert id(router) not in _limits._running
    time.sleep(0.002)  # noqa: ASYNC251 - past the limits above
    assert router.route("x", time_limit=30).score == 0.8


def test_an_executor_that_is_shut_down_is_a_failure_like_any_other() -> None:
    async def route() -> RoutingDecision:
        await asyncio.get_running_loop().shutdown_default_executor()
        return await FixedRouter(0.8).aroute("x")

    assert asyncio.run(route()).reason == "router_error"


def test_calls_that_end_leave_nothing_behind() -> None:
    router = FixedRouter(0.8, threshold=0.5)
    assert router.route("x", time_limit=30).score == 0.8
    deadline = time.monotonic() + 30
    while id(router) in _limits._running and time.monotonic() < deadline:
        time.sleep(0.001)
    assert id(router) not in _limits._running


def test_numbers_of_other_kinds_are_scores() -> None:
    odd = np.array([Decimal("0.25"), Fraction(1, 2), 1, np.float32(0.75)], dtype=object)
    assert [d.score for d in Returns(odd).route_batch(list("abcd"))] == [0.25, 0.5, 1.0, 0.75]
    masked = np.ma.array([0.5, 0.6], mask=[False, True])
    assert [d.score for d in Returns(masked).route_batch(list("ab"))] == [0.5, None]
    assert Returns(np.array(["0.9"], dtype=object)).route("a").reason == "router_error"
    assert Returns(np.ma.array([0.5 + 1j], mask=[False])).route("a").reason == "router_error"


def test_the_exception_itself_is_in_the_debug_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "prefroute"):
        FailingRouter(KeyError("lost")).route("x")
    assert "KeyError: 'lost'" in caplog.text


async def test_a_router_that_swallows_its_cancellation_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(OnlyTheHook):
        async def awin_probability(self, prompts: Sequence[str]) -> Any:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
            await asyncio.sleep(0.5)
            return self.win_probability(prompts)

    started, stubborn = time.monotonic(), Stubborn()
    assert (await stubborn.aroute("x", 0.5, time_limit=0.02)).reason == "router_error"
    ending = set(_limits._ending)
    assert ending
    monkeypatch.setattr(_limits, "MAX_OVERDUE", 1)
    with pytest.raises(RouterTimeoutError, match="1 earlier calls are still running"):
        await stubborn.aroute("x", 0.5, time_limit=0.02, on_error="raise")
    assert (await Stubborn().aroute("x", 0.5, time_limit=0.02)).reason == "router_error"  # another one is not to blame
    await asyncio.wait(ending, timeout=30)
    assert not ending & set(_limits._ending)
    assert time.monotonic() - started < 25


async def test_a_router_that_empties_its_list_harms_nobody() -> None:
    class Consumes(OnlyTheHook):
        def win_probability(self, prompts: Any) -> Any:
            scores = []
            while prompts:
                scores.append(0.3 if prompts.pop(0) == "a" else 0.6)
            return scores

    given = ["a", "b"]
    assert [d.score for d in Consumes().route_batch(given, 0.5)] == [0.3, 0.6]
    assert [d.score for d in await Consumes().aroute_batch(given, 0.5)] == [0.3, 0.6]
    assert [d.score for d in await Consumes().aroute_batch(given, 0.5, time_limit=30)] == [0.3, 0.6]
    assert given == ["a", "b"]


def test_a_forked_child_starts_without_the_parents_calls_and_locks() -> None:
    code = """
import os, threading, time
from prefroute import RoutingStats, _limits, persistence
from prefroute.testing import FixedRouter, SlowRouter
_limits.MAX_OVERDUE = 1
router, stats, held = SlowRouter(30, time_limit=0.01), RoutingStats(), threading.Event()
router.route("x")
def hold():  # every lock, at the moment of the fork
    with stats._lock, _limits._lock, persistence._moving:
        held.set()
        time.sleep(30)
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    router.seconds = 0
    decided = router.route("x", time_limit=20, stats=stats).reason == "score" and stats.total == 1
    os._exit(0 if decided and persistence._moving.acquire(timeout=20) else 1)
print(os.waitpid(child, 0)[1])
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


def test_decision_survives_the_round_trip_and_has_an_id_of_its_own() -> None:
    decision = FixedRouter(0.25).route("x")
    again = RoutingDecision.from_dict({**decision.as_dict(), "something": "else"})
    assert again == decision
    assert again.id == decision.id
    assert FixedRouter(0.25).route("x").id != decision.id
    assert not decision.is_strong


def test_fixed_router_scores_by_prompt_and_remembers() -> None:
    router = FixedRouter(0.2, {"hard": 0.9})
    assert [d.route for d in router.route_batch(["easy", "hard"])] == ["weak", "strong"]
    assert router.prompts == ["easy", "hard"]
