"""Routing statistics: counting, windows, many threads."""

import copy
import json
import math
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest

from prefroute import ConfigurationError, RoutingDecision, RoutingStats

STRONG = RoutingDecision("strong", 0.9, 0.5, "score")
WEAK = RoutingDecision("weak", 0.1, 0.5, "score")
FAILED = RoutingDecision("strong", None, 0.5, "router_error")


def test_before_the_first_decision() -> None:
    stats = RoutingStats()
    assert math.isnan(stats.strong_rate)
    assert math.isnan(stats.window_strong_rate)
    assert stats.snapshot() == {
        "total": 0,
        "strong_rate": None,
        "window": 0,
        "window_strong_rate": None,
        "by_route": {"strong": 0, "weak": 0},
        "by_reason": {},
        "latency_ms": {"p50": None, "p90": None, "p99": None},
    }


def test_counts_rates_and_nearest_rank_latencies() -> None:
    stats = RoutingStats()
    for index in range(100):
        stats.record(STRONG if index % 4 == 0 else WEAK, seconds=(index + 1) / 1000)
    stats.record(FAILED)
    snapshot = stats.snapshot()
    assert stats.total == snapshot["total"] == 101
    assert stats.strong_rate == snapshot["strong_rate"] == 26 / 101
    assert snapshot["by_route"] == {"strong": 26, "weak": 75}
    assert snapshot["by_reason"] == {"score": 100, "router_error": 1}
    assert snapshot["latency_ms"] == pytest.approx({"p50": 50.0, "p90": 90.0, "p99": 99.0})
    assert json.loads(json.dumps(snapshot, allow_nan=False)) == snapshot


def test_a_decision_seen_again_counts_once() -> None:
    stats = RoutingStats()
    for decision in (STRONG, WEAK, STRONG, STRONG):
        stats.record_once(decision)
    assert stats.snapshot()["by_route"] == {"strong": 1, "weak": 1}
    copy.deepcopy(stats).record_once(STRONG)
    pickle.loads(pickle.dumps(stats)).record_once(WEAK)
    assert stats.total == 2
    stats.reset()
    stats.record_once(STRONG)
    assert stats.total == 1


def test_the_memory_of_decisions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefroute.stats._REMEMBERED", 3)
    stats = RoutingStats()
    for _ in range(10):
        stats.record_once(RoutingDecision("weak", 0.1, 0.5, "score"))
    assert stats.total == 10
    assert len(stats._seen) == 3
    for decision in (STRONG, WEAK, STRONG, WEAK):  # the newest are those remembered
        stats.record_once(decision)
    assert stats.total == 12


def test_the_window_forgets_and_the_total_does_not() -> None:
    stats = RoutingStats(window=3)
    stats.record_many([STRONG] * 5 + [WEAK, WEAK])
    assert stats.strong_rate == 5 / 7
    assert stats.window_strong_rate == pytest.approx(1 / 3)
    assert stats.snapshot()["window"] == 3
    stats.reset()
    assert stats.snapshot() == RoutingStats(window=3).snapshot()


@pytest.mark.parametrize("window", [0, -1, 2.5, "10", True, None])
def test_an_unusable_window_is_refused(window: Any) -> None:
    with pytest.raises(ConfigurationError, match="window must be a positive number"):
        RoutingStats(window)


def test_sixteen_threads_add_up_exactly() -> None:
    stats = RoutingStats(window=50)
    start = threading.Barrier(16)
    torn: list[Any] = []

    def work() -> None:
        start.wait()
        for _ in range(500):
            stats.record(STRONG, 0.001)
            stats.record_many([WEAK, WEAK])
            snapshot = stats.snapshot()
            if sum(snapshot["by_route"].values()) != sum(snapshot["by_reason"].values()):
                torn.append(snapshot)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torn == []
    assert stats.snapshot()["by_route"] == {"strong": 8000, "weak": 16000}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_copy_has_a_lock_of_its_own_after_a_fork_too() -> None:
    code = """
import os, pickle, threading, time
from prefroute import RoutingDecision, RoutingStats
stats, held = pickle.loads(pickle.dumps(RoutingStats())), threading.Event()
def hold():
    with stats._lock:
        held.set()
        time.sleep(30)
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    stats.record(RoutingDecision("weak", 0.1, 0.5, "score"))
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


@pytest.mark.parametrize(
    "field", [{"route": "both"}, {"reason": "whim"}, {"id": 7}, {"id": None}, {"route": ["strong"]}, {"reason": None}]
)
def test_what_is_no_decision_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(field))):
        RoutingDecision.from_dict({**STRONG.as_dict(), **field})
    with pytest.raises(KeyError):
        RoutingDecision.from_dict({})


def test_a_signal_handler_may_read_the_figures_while_they_change() -> None:
    stats = RoutingStats()
    with stats._lock:  # a handler runs in the main thread, wherever that is
        assert stats.snapshot()["total"] == stats.total == 0
        assert "total=0" in repr(stats)


def test_copies_count_on_their_own() -> None:
    stats = RoutingStats(window=7)
    stats.record(STRONG)
    for twin in (copy.deepcopy(stats), pickle.loads(pickle.dumps(stats))):
        assert twin.snapshot() == stats.snapshot()
        twin.record(WEAK)
        assert (twin.total, stats.total, twin.window) == (2, 1, 7)
    assert repr(stats) == "RoutingStats(total=1, strong_rate=1.000)"
