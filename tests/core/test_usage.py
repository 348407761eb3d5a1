"""What calls used and cost, the rates of groups of them, and what counters have in common."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest

from prefroute._shared import Shared
from prefroute.costs import Price, Prices
from prefroute.usage import GROUPS, REST, CallStats, GroupedRates, Tokens

PRICES = {"big": Price(input=10.0, cached_input=1.0, output=30.0), "free": Price(input=0.0, output=0.0)}
NOTHING = {"calls": 0, "failed": 0, "input_tokens": 0, "output_tokens": 0, "cost": None, "unpriced": 0}


def test_before_the_first_call() -> None:
    assert CallStats().snapshot() == {"strong": NOTHING, "weak": NOTHING, "by_model": {}}
    assert GroupedRates().snapshot() == {}


def test_calls_tokens_and_costs_add_up_by_side() -> None:
    stats = CallStats(PRICES)
    stats.record("strong", ["big"], Tokens(1000, 100))
    stats.record("strong", ["big"], Tokens(1000, 100, 400))
    stats.record("weak", ["free"], Tokens(7, 8))
    stats.record_failed("weak")
    snapshot = stats.snapshot()
    assert snapshot["strong"] == {
        "calls": 2,
        "failed": 0,
        "input_tokens": 2000,
        "output_tokens": 200,
        "cost": pytest.approx(0.013 + 0.0094),
        "unpriced": 0,
    }
    assert snapshot["weak"] == {**NOTHING, "calls": 2, "failed": 1, "input_tokens": 7, "output_tokens": 8, "cost": 0.0}
    assert json.loads(json.dumps(snapshot, allow_nan=False)) == snapshot
    stats.reset()
    assert stats.snapshot() == {"strong": NOTHING, "weak": NOTHING, "by_model": {}}
    stats.record("strong", ["big"], Tokens(1000, 100))  # prices are kept
    assert stats.snapshot()["strong"]["cost"] == pytest.approx(0.013)


def test_calls_add_up_by_model_too() -> None:
    stats = CallStats(PRICES)
    stats.record("strong", ["big-2026-01-01", "big"], Tokens(1000, 100))
    stats.record("weak", ["free"], Tokens(7, 8))
    stats.record("weak", ["free"])
    stats.record("weak", [], Tokens(1, 1))
    stats.record_failed("strong", ["free"])
    assert stats.snapshot()["by_model"] == {
        "big-2026-01-01": {**NOTHING, "calls": 1, "input_tokens": 1000, "output_tokens": 100, "cost": 0.013},
        "free": {"calls": 3, "failed": 1, "input_tokens": 7, "output_tokens": 8, "cost": 0.0, "unpriced": 1},
    }
    assert stats.snapshot()["weak"]["calls"] == 3


def test_models_beyond_count_go_under_one_name() -> None:
    stats = CallStats()
    for number in range(GROUPS + 5):
        stats.record_failed("weak", [f"model {number}"])
    by_model = stats.snapshot()["by_model"]
    assert (len(by_model), by_model[REST]["calls"]) == (GROUPS + 1, 5)


@pytest.mark.parametrize(
    ("models", "tokens", "cost"),
    [
        (["big"], None, None),
        ([], Tokens(1, 1), None),
        (["unknown"], Tokens(1, 1), None),
        (["unlisted", "none", "free"], Tokens(1, 1), 0.0),
        (["free", "big"], Tokens(1, 1), 0.0),
        (["free"], Tokens(5, 1, 2), None),  # the price of cached tokens is not known
        (["big"], Tokens(0, 0), 0.0),
        (["big"], Tokens(10, 0, 99), 10e-6),
        (["big"], Tokens(-1, 5), None),
        (["big"], Tokens(1, -5), None),
        (["big"], Tokens(1, 5, -1), None),
        (["half"], Tokens(1, 0), 1e-6),
        (["half"], Tokens(1, 1), None),
    ],
)
def test_a_cost_is_known_or_it_is_not(models: list[str], tokens: Tokens | None, cost: float | None) -> None:
    stats = CallStats({**PRICES, "none": None, "half": Price(input=1.0, output=None)})
    stats.record("weak", models, tokens)
    weak = stats.snapshot()["weak"]
    assert weak["cost"] == (None if cost is None else pytest.approx(cost))
    assert weak["unpriced"] == (cost is None)
    assert weak["calls"] == 1


def test_a_cost_that_is_told_comes_before_prices() -> None:
    stats = CallStats(PRICES)
    stats.record("strong", ["big"], Tokens(1000, 100), cost=0)
    stats.record("strong", cost=0.5)
    assert stats.snapshot()["strong"] == {
        **NOTHING,
        "calls": 2,
        "input_tokens": 1000,
        "output_tokens": 100,
        "cost": 0.5,
    }


def test_a_snapshot_and_the_prices_are_copies() -> None:
    prices: dict[str, Any] = dict(PRICES)
    stats = CallStats(prices)
    prices.clear()
    stats.snapshot()["weak"]["calls"] = 7
    stats.record("weak", ["free"], Tokens(1, 1))
    assert (stats.snapshot()["weak"]["calls"], stats.snapshot()["weak"]["cost"]) == (1, 0.0)


def test_a_table_of_prices_will_do() -> None:
    stats = CallStats(Prices(PRICES))
    stats.record("weak", ["unlisted"], Tokens(1, 1))
    stats.record("weak", ["free"], Tokens(1, 1))
    assert stats.snapshot()["weak"]["unpriced"] == 1


def test_rates_by_group_the_largest_first() -> None:
    rates = GroupedRates()
    for strong in (True, False, False, False):
        rates.record(["all", "a"] if strong else ["all"], strong=strong)
    rates.record(["b", "b2"], strong=False)
    rates.record([], strong=True)
    rates.record(iter(["b"]), strong=True)
    snapshot = rates.snapshot()
    assert snapshot == {
        "all": {"total": 4, "strong_rate": 0.25},
        "b": {"total": 2, "strong_rate": 0.5},
        "a": {"total": 1, "strong_rate": 1.0},
        "b2": {"total": 1, "strong_rate": 0.0},
    }
    assert list(snapshot)[:2] == ["all", "b"]
    rates.reset()
    assert rates.snapshot() == {}


def test_no_more_groups_than_are_useful_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefroute.usage.GROUPS", 3)
    rates = GroupedRates()
    for number in range(10):
        rates.record([f"user {number}", "all"], strong=number % 2 == 0)
    snapshot = rates.snapshot()
    assert snapshot["all"] == {"total": 10, "strong_rate": 0.5}
    assert snapshot["user 0"]["total"] == snapshot["user 1"]["total"] == 1
    assert snapshot[REST] == {"total": 8, "strong_rate": 0.5}
    assert set(snapshot) == {"all", "user 0", "user 1", REST}


# --- shared, copied, pickled ---


class Counter(Shared):
    def __init__(self) -> None:
        super().__init__()
        self.counts = {"a": 1}


def calls() -> CallStats:
    stats = CallStats(PRICES)
    stats.record("strong", ["big"], Tokens(1000, 100))
    return stats


def rates() -> GroupedRates:
    made = GroupedRates()
    made.record(["a"], strong=True)
    return made


def change(shared: Any) -> None:
    if isinstance(shared, CallStats):
        shared.record("strong", ["big"], Tokens(1000, 100))
    else:
        shared.record(["a", "b"], strong=False)


twins = pytest.mark.parametrize(
    "twin_of", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "deep", "pickle"]
)


@twins
@pytest.mark.parametrize("make", [calls, rates])
def test_a_copy_goes_its_own_way(make: Any, twin_of: Any) -> None:
    one = make()
    before = one.snapshot()
    twin = twin_of(one)
    assert twin.snapshot() == before
    change(twin)
    assert one.snapshot() == before
    change(one)
    assert twin.snapshot() == one.snapshot() != before


@twins
def test_a_copy_has_a_lock_of_its_own(twin_of: Any) -> None:
    one = Counter()
    twin = twin_of(one)
    assert (twin.counts, twin._lock is one._lock) == ({"a": 1}, False)
    twin.counts["a"] = 2
    assert one.counts == {"a": 1}
    assert "_lock" not in twin.__getstate__()


def test_a_copy_waits_for_what_is_under_way() -> None:
    one, begun, states = Counter(), threading.Event(), []

    def read() -> None:
        begun.set()
        states.append(one.__getstate__())

    with one._lock:
        one.counts["a"] = 2
        reader = threading.Thread(target=read)
        reader.start()
        begun.wait()
        reader.join(0.02)
        assert states == []
        one.counts["b"] = 3
    reader.join()
    assert states == [{"counts": {"a": 2, "b": 3}}]


def test_who_holds_the_lock_may_look() -> None:
    """A signal handler runs in the middle of a count."""

    def look() -> None:
        for one in (calls(), rates()):
            with one._lock:
                assert pickle.loads(pickle.dumps(one)).snapshot() == one.snapshot()
        done.append(True)

    done: list[bool] = []
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(10)
    assert done == [True]


def test_counters_are_forgotten_with_their_owners() -> None:
    from prefroute import _shared

    one = Counter()
    known = len(_shared._instances)
    del one
    assert len(_shared._instances) < known


def test_threads_add_up_exactly() -> None:
    stats, rates_, torn = CallStats({"m": Price(input=1e6, output=0.0)}), GroupedRates(), []
    start = threading.Barrier(16)

    def work(number: int) -> None:
        start.wait()
        for _ in range(300):
            stats.record("strong", ["m"], Tokens(1, 2))
            stats.record("weak", [], Tokens(3, 4))
            stats.record_failed("weak")
            rates_.record(["all", str(number)], strong=number % 2 == 0)
            weak = stats.snapshot()["weak"]
            if weak["input_tokens"] != 3 * weak["unpriced"] or weak["calls"] != weak["failed"] + weak["unpriced"]:
                torn.append(weak)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    n = 16 * 300
    assert torn == []
    strong, weak = stats.snapshot()["strong"], stats.snapshot()["weak"]
    assert strong == {**NOTHING, "calls": n, "input_tokens": n, "output_tokens": 2 * n, "cost": float(n)}
    assert weak == {
        **NOTHING,
        "calls": 2 * n,
        "failed": n,
        "input_tokens": 3 * n,
        "output_tokens": 4 * n,
        "unpriced": n,
    }
    assert rates_.snapshot()["all"] == {"total": n, "strong_rate": 0.5}
    assert rates_.snapshot()["7"] == {"total": 300, "strong_rate": 0.0}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_locks_that_others_held_at_a_fork_are_free_in_the_child() -> None:
    code = """
import copy, os, pickle, signal, threading, time
from prefroute.usage import CallStats, GroupedRates, Tokens
rates = GroupedRates()
made = [CallStats(), copy.copy(CallStats()), pickle.loads(pickle.dumps(CallStats()))]
held = threading.Semaphore(0)
def hold(one):
    with one._lock:
        held.release()
        time.sleep(30)
for one in (rates, *made):
    threading.Thread(target=hold, args=(one,), daemon=True).start()
    held.acquire()
child = os.fork()
if child == 0:
    signal.alarm(10)
    rates.record(["a"], strong=True)
    for one in made:
        one.record("weak", [], Tokens(1, 1))
    os._exit(0 if all(one.snapshot()["weak"]["calls"] == 1 for one in made) else 3)
print(os.waitpid(child, 0)[1])
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
