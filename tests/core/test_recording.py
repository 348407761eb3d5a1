"""Recording: what is kept, what is left out, and that nothing of it stands in the way."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import logging
import multiprocessing
import os
import pickle
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from prefroute import ConfigurationError, DataError, RoutingDecision
from prefroute.conversation import Settled, recorded
from prefroute.decider import Ask, Decider
from prefroute.recording import Feedback, Recorder, _outbox, _reading, _store, read_recorded, recorder
from prefroute.recording.recorder import as_recorder
from prefroute.testing import FailingRouter, FixedRouter
from prefroute.usage import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

WRONG_TEXTS = ["", "\0", "\ud800", "🙂" * 10, "a" * 100_000]

CHILD = """
import sys
from prefroute.decider import Ask, Decider
from prefroute.recording import Recorder
from prefroute.testing import FixedRouter
decider = Decider.of(FixedRouter(0.6), record=Recorder(sys.argv[1], max_bytes=10_000_000))
"""


class Gate(threading.Event):
    """Holds a redaction up, until the end of the block at most."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.set()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "below" / "traffic.sqlite"


@pytest.fixture
def store(file: Path) -> Iterator[Recorder]:
    with Recorder(file) as made:
        yield made


def decision(route: Any = "strong", **fields: Any) -> RoutingDecision:
    return RoutingDecision(**{"route": route, "score": 0.6, "threshold": 0.5, "reason": "score", **fields})


def kept(store: Recorder) -> list[Any]:
    assert store.flush(30)
    return list(read_recorded(store.path))


def prompts(path: Path) -> list[str]:
    return [item.prompt for item in read_recorded(path)]


def on_disk(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # The journal comes and goes.
            continue
    return total


def run(code: str, *arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", CHILD + code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **settings)


# --- what is kept ---


def test_a_decision_its_calls_and_its_feedback_come_back_as_they_were(store: Recorder) -> None:
    before = datetime.now(UTC)
    made = decision("weak", detail="window", reason="capability", score=None)
    store.decided("hello", made, "strong")
    routing = recorded(made, "strong")
    store.calling(routing, "asked").answered(model="told", tokens=Tokens(3, 5, 2), answer="not kept")
    with pytest.raises(KeyError), store.calling(routing, "asked"):
        raise KeyError
    store.calling({**routing, "answered_by": "weak", "fallback": {"from": "strong", "error": "KeyError"}}).answered()
    assert store.feedback(made.id, "bad")
    assert store.feedback(made.id, 0.75, "better than I thought")
    (item,) = kept(store)
    assert (item.prompt, item.decision, item.decision.id, item.answered_by) == ("hello", made, made.id, "strong")
    assert before <= item.time <= datetime.now(UTC)
    assert item.time.utcoffset() == timedelta(0)
    calls = [(c.side, c.model, c.error, c.input_tokens, c.output_tokens, c.stands_in, c.answer) for c in item.calls]
    assert calls == [
        ("strong", "told", None, 3, 5, False, None),
        ("strong", "asked", "KeyError", None, None, False, None),
        ("weak", None, None, None, None, True, None),
    ]
    assert all(0 < call.seconds < 60 for call in item.calls)
    assert [(one.score, one.note) for one in item.feedback] == [(0.0, None), (0.75, "better than I thought")]
    assert item.rating == 0.75
    line = json.loads(json.dumps(item.as_dict()))
    assert line["decision"] == made.as_dict()
    assert datetime.fromisoformat(line["time"]) == item.time
    assert Feedback(**{**line["feedback"][1], "time": item.feedback[1].time}) == item.feedback[1]
    assert [call["model"] for call in line["calls"]] == ["told", "asked", None]
    assert line["rating"] == 0.75


def test_a_call_is_kept_once_however_often_its_end_is_told(store: Recorder) -> None:
    made = decision()
    store.decided("hello", made, "strong")
    calling = store.calling(made.as_dict())
    calling.answered(tokens=Tokens(-1, 2**70))
    calling.answered()
    calling.failed(KeyError())
    (call,) = kept(store)[0].calls
    assert (call.error, call.input_tokens, call.output_tokens) == (None, None, None)


def test_a_decision_is_kept_once_and_oldest_come_first(store: Recorder) -> None:
    made = [decision() for _ in range(450)]
    for number, one in enumerate(made):
        store.decided(f"prompt {number}", one, "strong")
        store.calling(one.as_dict()).answered()  # type: ignore[union-attr] # all are of the sample
    for one in made:
        store.decided("again", one, "weak")
    assert [(item.prompt, item.decision.id) for item in kept(store)] == [
        (f"prompt {number}", one.id) for number, one in enumerate(made)
    ]
    assert {len(item.calls) for item in read_recorded(store.path)} == {1}
    assert store.dropped == 0


@pytest.mark.parametrize("text", WRONG_TEXTS)
def test_any_text_can_be_kept(store: Recorder, text: str) -> None:
    made = decision()
    store.decided(text, made, "strong")
    store.calling(made.as_dict(), text).failed(KeyError())
    assert store.feedback(made.id, 1, text)
    (item,) = kept(store)
    expected = text.replace("\ud800", "\ufffd")
    assert (item.prompt, item.feedback[0].note, item.calls[0].model) == (expected, expected, expected or None)


def test_answers_are_kept_if_that_is_wanted(file: Path) -> None:
    with Recorder(file, answers=True) as store:
        made = decision()
        store.decided("hello", made, "strong")
        store.calling(made.as_dict()).answered(answer="hi")
        assert kept(store)[0].calls[0].answer == "hi"


async def test_the_decider_has_every_decision_kept_and_each_once(store: Recorder) -> None:
    decider = Decider.of(FixedRouter(0.6, {"b": 0.1}), record=store, shadow="weak")
    asks = [Ask(text="a"), Ask(text="b"), Ask(text="c", settled=Settled("weak", "forced"))]
    made = [decider.decide(asks[0]), await decider.adecide(asks[1])]
    made += decider.decide_batch(asks) + await decider.adecide_batch(asks)
    items = kept(store)
    assert {item.decision.id: item.prompt for item in items} == dict(
        zip([one.id for one in made], [*"ab", *"abc", *"abc"], strict=True)
    )
    assert len(items) == len(made)
    assert {item.answered_by for item in items} == {"weak"}
    assert [item.decision.reason for item in items].count("forced") == 2


def test_a_decision_without_a_text_is_not_kept(store: Recorder) -> None:
    decider = Decider.of(FailingRouter(), record=store)
    decider.decide(Ask(error=ValueError()))
    decider.decide(Ask(text=None, settled=Settled("weak", "forced")))  # type: ignore[arg-type] # anybody's query
    assert decider.decide(Ask(text="a")).reason == "router_error"
    assert [(item.prompt, item.decision.reason) for item in kept(store)] == [("a", "router_error")]


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": ""}, "non-empty str or a Path"),
        ({"path": 3}, "non-empty str or a Path"),
        ({"path": os.curdir}, "is a folder"),
        ({"sample": 1.1}, "sample must be"),
        ({"sample": float("nan")}, "sample must be"),
        ({"sample": True}, "sample must be"),
        ({"redact": 3}, "redact must be a plain function"),
        ({"redact": asyncio.sleep}, "redact must be a plain function"),
        ({"answers": 1}, "answers must be True or False"),
        ({"max_bytes": 999_999}, "max_bytes must be an integer of 1000000 or more, got 999999"),
        ({"max_bytes": 1e9}, "max_bytes must be"),
        ({"max_bytes": True}, "max_bytes must be"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(file: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Recorder(**{"path": file, **settings})


def test_an_adapter_takes_a_recorder_a_path_or_nothing(store: Recorder, file: Path) -> None:
    assert as_recorder(None) is None
    assert as_recorder(store) is store
    assert as_recorder(file).path == as_recorder(str(file)).path == file  # type: ignore[union-attr]
    with pytest.raises(ConfigurationError, match="the path of a file or None, got dict"):
        Decider.of(FixedRouter(), record={})  # type: ignore[arg-type] # that is the test


def test_there_is_no_file_and_no_thread_before_the_first_decision(file: Path) -> None:
    before = threading.active_count()
    with Recorder(file) as store:
        assert store.flush()
        assert threading.active_count() == before
    assert not file.parent.exists()


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_the_file_is_for_its_owner_alone(store: Recorder, file: Path) -> None:
    store.decided("hello", decision(), "strong")
    store.flush()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_has_the_settings_and_a_queue_of_its_own(file: Path, copied: Callable[[Recorder], Recorder]) -> None:
    with Recorder(file, sample=0.5, redact=str.upper, answers=True, max_bytes=2_000_000) as store:
        store.decided("first", decision(id="6"), "strong")
        with copied(store) as other:
            assert other.__getstate__() == store.__getstate__()
            other.decided("second", decision(id="6" * 2), "strong")
            assert other.wants("6") == store.wants("6")
        store.flush()
    wanted = [text for text, one in (("FIRST", "6"), ("SECOND", "66")) if store.wants(one)]
    assert wanted
    assert sorted(prompts(file)) == wanted
    assert repr(other) == f"Recorder({str(file)!r})"


# --- sample ---


def test_a_sample_is_a_share_that_everybody_agrees_on(tmp_path: Path) -> None:
    ids = [decision().id for _ in range(4000)]
    for share in (0.0, 0.1, 0.5, 1.0):
        first, second = (Recorder(tmp_path / name, sample=share) for name in "ab")
        wanted = {one for one in ids if first.wants(one)}
        assert wanted == {one for one in ids if second.wants(one)}
        assert abs(len(wanted) / len(ids) - share) < 0.03
        assert wanted <= {one for one in ids if Recorder(tmp_path / "c", sample=min(1.0, share + 0.2)).wants(one)}


def test_of_what_is_not_of_the_sample_nothing_is_kept(file: Path) -> None:
    with Recorder(file, sample=0.5) as store:
        made = [decision() for _ in range(40)]
        for one in made:
            store.decided(one.id, one, "strong")
            calling = store.calling(one.as_dict())
            assert (calling is not None) == store.wants(one.id)
            if calling is not None:
                calling.answered()
        assert [item.prompt for item in kept(store)] == [one.id for one in made if store.wants(one.id)]
        assert all(len(item.calls) == 1 for item in read_recorded(file))
        assert [store.feedback(one.id, "good") for one in made] == [store.wants(one.id) for one in made]


# --- redaction ---


def test_what_is_kept_is_what_the_redaction_makes_of_it(file: Path) -> None:
    threads = set()

    def redact(text: str) -> str | None:
        threads.add(threading.current_thread())
        return None if "private" in text else text.replace("Ann", "NAME")

    with Recorder(file, redact=redact, answers=True) as store:
        made = [decision(), decision()]
        for one, text in zip(made, ["I am Ann", "private"], strict=True):
            store.decided(text, one, "strong")
            store.calling(one.as_dict()).answered(answer="Hi Ann")
            store.calling(one.as_dict()).answered(answer="private")
        (item,) = kept(store)
        assert threading.current_thread() not in threads
        assert [store.feedback(one.id, "good", "said Ann") for one in made] == [True, False]
        assert (item.prompt, [call.answer for call in item.calls]) == ("I am NAME", ["Hi NAME", None])
        assert kept(store)[0].feedback[0].note == "said NAME"
        assert store.dropped == 0
    assert not {b"Ann", b"private"} & {word for word in (b"Ann", b"private") if word in file.read_bytes()}


@pytest.mark.parametrize("outcome", [ValueError("secret"), SystemExit(), 3, b"secret"], ids=repr)
def test_what_cannot_be_redacted_is_never_kept(file: Path, outcome: Any, caplog: pytest.LogCaptureFixture) -> None:
    def redact(text: str) -> Any:
        if text != "secret":
            return text
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    with Recorder(file, redact=redact) as store:
        for text in ("secret", "secret", "fine"):
            store.decided(text, decision(), "strong")
            store.flush()
        assert [item.prompt for item in kept(store)] == ["fine"]
        assert store.dropped == 2
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text
    assert b"secret" not in file.read_bytes()


class Odd(str):
    __slots__ = ()

    def encode(self, *_: object, **__: object) -> bytes:
        msg = "not this one"
        raise ValueError(msg)


@pytest.mark.parametrize("odd", [KeyboardInterrupt, GeneratorExit, Odd])
def test_one_odd_text_costs_no_other_record(file: Path, odd: Any) -> None:
    go_on = Gate()

    def redact(text: str) -> str:
        go_on.wait(30)
        if text != "odd":
            return text
        if odd is Odd:
            return Odd(text)
        raise odd

    with Recorder(file, redact=redact) as store, go_on:
        for text in ("first", "a", "odd", "b"):
            store.decided(text, decision(), "strong")
        go_on.set()
        store.flush()
        assert {"first", "a", "b"} <= {item.prompt for item in kept(store)}
        assert store.dropped == (odd is not Odd)


def test_feedback_waits_for_a_slow_redaction_no_longer_than_it_says(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = Gate()
    monkeypatch.setattr(recorder, "_PATIENCE", 0.05)
    with Recorder(file, redact=lambda text: go_on.wait(30) and text) as store, go_on:
        store.decided("text", decision(), "strong")
        assert store.feedback("no-such-id", "good") is False


def test_a_slow_redaction_holds_nobody_up(file: Path) -> None:
    go_on = Gate()

    def redact(text: str) -> str:
        go_on.wait(30)
        return text

    with Recorder(file, redact=redact) as store, go_on:
        decider = Decider.of(FixedRouter(0.6), record=store)
        for number in range(20):
            decider.decide(Ask(text=str(number)))
        assert not store.flush(0.01)
        assert not file.exists()
        go_on.set()
        assert len(kept(store)) == 20


def test_a_redaction_that_waits_for_itself_does_not(file: Path) -> None:
    flushed = []

    def redact(text: str) -> str:
        flushed.append(store.flush())
        return text

    with Recorder(file, redact=redact) as store:
        store.decided("a", decision(), "strong")
        assert [item.prompt for item in kept(store)] == ["a"]
    assert flushed == [False]


# --- the size limit ---


@pytest.mark.parametrize(("count", "length"), [(10_000, 20), (1200, 2000), (200, 20_000)])
def test_the_oldest_make_room_and_the_files_stay_below_the_limit(file: Path, count: int, length: int) -> None:
    limit, largest, is_over = 1_000_000, 0, threading.Event()

    def watch() -> None:
        nonlocal largest
        while not is_over.is_set():
            if file.parent.exists():
                largest = max(largest, on_disk(file.parent))
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    made = [decision() for _ in range(count)]
    with Recorder(file, max_bytes=limit) as store:
        for number, one in enumerate(made):
            store.decided(f"{number} ".ljust(length, "x"), one, "strong")
            store.calling(one.as_dict(), "model").answered(tokens=Tokens(1, 2))
            if number % 1000 == 999:
                assert store.feedback(one.id, "good")
                assert on_disk(file.parent) <= limit
        items = kept(store)
        is_over.set()
        watcher.join()
        assert store.dropped == 0
    assert limit / 3 < largest <= limit
    assert [item.decision.id for item in items] == [one.id for one in made[-len(items) :]]
    assert all(len(item.calls) == 1 for item in items)
    assert 0 < len(items) < count
    with closing(sqlite3.connect(file)) as connection:
        for table in ("calls", "feedback"):
            orphans = f"SELECT count(*) FROM {table} WHERE decision NOT IN (SELECT number FROM decisions)"
            assert connection.execute(orphans).fetchone() == (0,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_was_removed_can_no_longer_be_read_in_the_file(file: Path) -> None:
    with Recorder(file, max_bytes=1_000_000) as store:
        store.decided("the very first prompt", decision(), "strong")
        for number in range(100):
            store.decided(f"{number} ".ljust(20_000, "x"), decision(), "strong")
        assert "the very first prompt" not in [item.prompt for item in kept(store)]
    assert b"the very first prompt" not in file.read_bytes()


def test_a_lower_limit_makes_the_file_smaller(file: Path) -> None:
    with Recorder(file) as store:
        for number in range(300):
            store.decided(f"{number} ".ljust(10_000, "x"), decision(), "strong")
    assert file.stat().st_size > 3_000_000
    with Recorder(file, max_bytes=1_000_000) as store:
        store.decided("new", decision(), "strong")
    assert on_disk(file.parent) <= 1_000_000
    assert prompts(file)[-1] == "new"


def test_a_text_that_is_too_large_is_left_out_and_told_of_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Recorder(file, max_bytes=1_000_000) as store:
        made = decision()
        store.decided("before", made, "strong")
        for _ in range(2):
            store.decided("x" * 900_000, decision(), "strong")
            store.flush()
        assert not store.feedback(made.id, "good", "x" * 900_000)
        assert store.dropped == 2
    assert prompts(file) == ["before"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "max_bytes=1000000" in caplog.text


# --- feedback ---


@pytest.mark.parametrize("rating", ["Good", "", None, -0.01, 1.01, float("nan"), True, [1]])
def test_a_rating_that_is_none_is_refused(store: Recorder, rating: Any) -> None:
    with pytest.raises(ConfigurationError, match="a rating must be"):
        store.feedback("x", rating)


@pytest.mark.parametrize(("decision_id", "note"), [(None, None), (3, None), ("x", 3)])
def test_an_id_or_a_note_that_is_no_text_is_refused(store: Recorder, decision_id: Any, note: Any) -> None:
    with pytest.raises(ConfigurationError, match="wants the id of a decision"):
        store.feedback(decision_id, "good", note)


def test_feedback_on_what_is_not_there_says_so_and_makes_no_file(store: Recorder, file: Path) -> None:
    assert not store.feedback("unknown", "good")
    assert not asyncio.run(store.afeedback("unknown", "good"))
    assert not file.exists()
    made = decision()
    store.decided("hello", made, "strong")
    assert not store.feedback("unknown", "good")
    assert asyncio.run(store.afeedback(made.id, "good"))
    assert [item.rating for item in kept(store)] == [1.0]


def test_feedback_comes_from_another_process_that_knows_the_path_and_the_id(store: Recorder, file: Path) -> None:
    made = decision()
    store.decided("hello", made, "strong")
    store.flush()
    done = run("print(Recorder(sys.argv[1]).feedback(sys.argv[2], 'good'))", file, made.id)
    assert (done.stdout.strip(), done.stderr) == ("True", "")
    assert store.feedback(made.id, "bad")
    assert [one.score for one in kept(store)[0].feedback] == [1.0, 0.0]


# --- nothing stands in the way ---


def test_one_thread_that_ends_when_there_is_nothing_to_do(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "IDLE", 0.01)
    store = Recorder(file)

    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "prefroute-recorder"]

    for text in ("a", "b"):
        store.decided(text, decision(), "strong")
        (thread,) = threads()
        thread.join(30)
        assert threads() == []
    assert prompts(file) == ["a", "b"]
    seen = weakref.ref(store)
    store.decided("c", decision(), "strong")
    (thread,) = threads()
    del store
    thread.join(30)
    gc.collect()
    assert seen() is None
    assert prompts(file) == ["a", "b", "c"]


def test_what_is_told_after_the_end_is_still_kept(store: Recorder, file: Path) -> None:
    for text in "ab":
        store.decided(text, decision(), "strong")
        assert store.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "prefroute-recorder"]
    assert prompts(file) == ["a", "b"]


@pytest.mark.parametrize("bound", ["MOST_ITEMS", "MOST_CHARACTERS"])
def test_what_does_not_fit_into_the_queue_is_dropped_and_told_of_once(
    file: Path, bound: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_outbox, bound, 10)
    in_redact, go_on = threading.Event(), Gate()

    def redact(text: str) -> str:
        in_redact.set()
        go_on.wait(30)
        return text

    with Recorder(file, redact=redact) as store, go_on:
        store.decided("a", decision(), "strong")
        in_redact.wait(30)
        for text in "bcdefghijklmn":
            store.decided(text, decision(), "strong")
        assert store.dropped == 3
        go_on.set()
        assert "".join(item.prompt for item in kept(store)) == "abcdefghijk"
    assert len(caplog.records) == 1
    assert "come faster than they can be written" in caplog.text


def test_a_thread_that_cannot_be_had_disturbs_no_decision(store: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert Decider.of(FixedRouter(0.6), record=store).decide(Ask(text="a")).route == "strong"
    assert store.dropped == 1
    store.decided("b", decision(), "strong")
    assert [item.prompt for item in kept(store)] == ["b"]


async def test_any_number_of_threads_and_tasks_may_share_one(store: Recorder, file: Path) -> None:
    other = Recorder(file)
    deciders = [Decider.of(FixedRouter(0.6), record=one) for one in (store, other)]

    def work(number: int) -> None:
        for step in range(50):
            made = deciders[step % 2].decide(Ask(text=f"{number} {step}"))
            calling = deciders[step % 2].recorder.calling(made.as_dict())  # type: ignore[union-attr]
            calling.answered()  # type: ignore[union-attr]

    async def atask(number: int) -> None:
        for step in range(20):
            made = await deciders[step % 2].adecide(Ask(text=f"task {number} {step}"))
            if step == 0:
                assert await deciders[0].recorder.afeedback(made.id, "good")  # type: ignore[union-attr]

    with ThreadPoolExecutor(8) as pool:
        loop = asyncio.get_running_loop()
        threads = [loop.run_in_executor(pool, work, number) for number in range(8)]
        await asyncio.gather(*threads, *map(atask, range(20)))
    other.close()
    items = kept(store)
    expected = {f"{number} {step}" for number in range(8) for step in range(50)}
    assert {item.prompt for item in items} == expected | {f"task {n} {s}" for n in range(20) for s in range(20)}
    assert len(items) == 800
    assert sum(len(item.calls) for item in items) == 400
    assert sum(len(item.feedback) for item in items) == 20


# --- files that cannot be written ---


def lost(store: Recorder, caplog: pytest.LogCaptureFixture) -> str:
    """What is logged while two decisions are lost."""
    decider = Decider.of(FixedRouter(0.6), record=store)
    for text in "ab":
        made = decider.decide(Ask(text=text))
        assert made.route == "strong"
        assert store.flush(30)
    assert not store.feedback(made.id, "good")
    assert store.dropped == 2
    (record,) = caplog.records
    return record.getMessage()


def test_a_folder_that_cannot_be_written_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    with Recorder(tmp_path / "file" / "traffic.sqlite") as store:
        assert "cannot be written to" in lost(store, caplog)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o500)
    with Recorder(tmp_path / "traffic.sqlite") as store:
        assert "PermissionError" in lost(store, caplog)


@pytest.mark.parametrize("content", [b"This is no database, but a letter. " * 100, "sqlite"], ids=["text", "sqlite"])
def test_a_file_of_something_else_is_left_as_it_is(file: Path, content: Any, caplog: pytest.LogCaptureFixture) -> None:
    file.parent.mkdir()
    if content == "sqlite":
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE letters (text)")
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with Recorder(file) as store:
        assert "traffic.sqlite" in lost(store, caplog)
    assert file.read_bytes() == before
    with pytest.raises(DataError, match="is no store of records"):
        read_recorded(file)


def test_a_store_of_a_later_version_is_left_as_it_is(store: Recorder, file: Path, caplog: Any) -> None:
    store.decided("hello", decision(), "strong")
    store.flush()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 2")
    with Recorder(file) as other:
        assert "is no store of records that this prefroute writes" in lost(other, caplog)
    with pytest.raises(DataError, match="of another version"):
        read_recorded(file)


def test_a_damaged_file_disturbs_no_decision(
    store: Recorder, file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        store.decided(f"{number} ".ljust(500, "x"), decision(), "strong")
    store.close()
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    file.write_bytes(content)
    waits: list[float] = []
    monkeypatch.setattr("prefroute._sqlite.time.sleep", waits.append)
    with Recorder(file) as other:
        assert "DatabaseError" in lost(other, caplog)
    assert waits == []
    with pytest.raises(DataError, match="cannot be read"):
        list(read_recorded(file))


def test_a_file_that_another_program_has_locked_is_waited_for_once(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_PATIENCE", 0.2)
    add, waited = _store.Store.add, []

    def noted(self: Any, part: Any, *, patience: float) -> int:
        waited.append(patience)
        return add(self, part, patience=patience)

    monkeypatch.setattr(_store.Store, "add", noted)
    with Recorder(file) as store:
        store.decided("before", decision(), "strong")
        store.flush()
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            assert "OperationalError: database is locked" in lost(store, caplog)
        for text in ("after", "later"):
            store.decided(text, decision(), "strong")
            store.flush()
        assert [item.prompt for item in kept(store)] == ["before", "after", "later"]
    # Two are lost, and a feedback, which somebody waits for; then one that goes well, and all is as before.
    assert waited == [0.2, 0.2, 0.0, 0.2, 0.0, 0.2]


def test_a_short_lock_loses_nothing(store: Recorder, file: Path) -> None:
    store.decided("before", decision(), "strong")
    store.flush()
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        store.decided("meanwhile", decision(), "strong")
        assert not store.flush(0.3)
        connection.execute("COMMIT")
    assert [item.prompt for item in kept(store)] == ["before", "meanwhile"]
    assert store.dropped == 0


@pytest.mark.skipif(os.name != "posix", reason="limits of processes")
def test_a_full_disk_loses_what_does_not_fit_and_no_more(file: Path) -> None:
    code = """
import logging, resource
logging.basicConfig(format="%(message)s")
for text in ("before", "x" * 100_000, "after"):
    limit = 60_000 if "x" in text else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    assert decider.decide(Ask(text=text)).route == "strong"
    decider.recorder.flush()
print(decider.recorder.dropped)
"""
    done = run(code, file)
    assert done.stdout.strip() == "1"
    assert done.stderr.count("cannot be written to") == 1
    assert prompts(file) == ["before", "after"]


def test_what_the_end_of_the_process_does_not_wait_for_is_told_of(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_outbox, "EXIT_PATIENCE", 0.01)
    go_on = Gate()
    with Recorder(file, redact=lambda text: text if go_on.wait(30) else None) as store, go_on:
        store.decided("a", decision(), "strong")
        store.decided("b", decision(), "strong")
        _outbox._flush_all()
        assert "before 2 records are written" in caplog.text
        go_on.set()
    assert prompts(file) == ["a", "b"]


# --- processes ---


def test_what_is_left_is_written_when_the_process_ends(file: Path) -> None:
    done = run("for number in range(1000): decider.decide(Ask(text=str(number)))", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert prompts(file) == [str(number) for number in range(1000)]


def test_a_redaction_that_hangs_does_not_keep_the_process_from_its_end(file: Path) -> None:
    code = """
import threading
from prefroute.recording import _outbox
_outbox.EXIT_PATIENCE = 0.1
store = Recorder(sys.argv[1], redact=lambda _: threading.Event().wait())
Decider.of(FixedRouter(0.6), record=store).decide(Ask(text="a"))
"""
    done = run(code, file, timeout=60)
    assert done.returncode == 0
    assert "before 1 records are written" in done.stderr


def test_a_process_that_is_killed_leaves_a_sound_store(file: Path) -> None:
    code = """
number = 0
while True:
    decider.decide(Ask(text=f"{number} ".ljust(3000, "x")))
    number += 1
    if number % 50 == 0:
        decider.recorder.flush()
        print(number, flush=True)
"""
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for after in (1, 2, 5):
        command = [sys.executable, "-c", CHILD + code, str(file)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(after):
                process.stdout.readline()
            time.sleep(0.01 * after)
            process.send_signal(signal.SIGKILL)
            told = [after * 50, *map(int, process.stdout.read().split())][-1]
        found = [int(prompt.split()[0]) for prompt in prompts(file)]
        assert found == list(range(len(found)))
        assert len(found) >= told
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        file.unlink()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_write_that_was_cut_off_is_undone_by_who_reads_next(store: Recorder, file: Path) -> None:
    store.decided("before", decision(), "strong")
    store.close()
    if (child := os.fork()) == 0:
        connection = sqlite3.connect(file, isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")  # So that pages are written before the end of the transaction.
        connection.execute("BEGIN IMMEDIATE")
        for number in range(2000):
            connection.execute("UPDATE decisions SET prompt = ?", (str(number) * 5000,))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(file.parent.iterdir())) == 2
    assert prompts(file) == ["before"]


def test_several_processes_write_to_one_file(file: Path) -> None:
    code = "for number in range(300): decider.decide(Ask(text=f'{sys.argv[2]} {number}'))"
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda name: run(code, file, name), "abc"))
    assert [one.stderr for one in done] == ["", "", ""]
    found = prompts(file)
    assert len(found) == 900
    for name in "abc":
        assert [prompt for prompt in found if prompt[0] == name] == [f"{name} {number}" for number in range(300)]


def test_reading_goes_on_while_somebody_writes(store: Recorder) -> None:
    for number in range(1000):
        store.decided(str(number), decision(), "strong")
    store.flush()
    seen = []
    for item in read_recorded(store.path):
        seen.append(item.prompt)
        if len(seen) < 600:
            store.decided(f"later {len(seen)}", decision(), "strong")
            if len(seen) % 100 == 0:
                store.flush()
    assert seen == [str(number) for number in range(1000)]
    assert store.dropped == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_records_its_own_and_not_its_parents(file: Path) -> None:
    go_on = Gate()

    def redact(text: str) -> str:
        if text == "parent 0":
            go_on.wait(30)
        return text

    with Recorder(file, redact=redact) as store, go_on:
        for number in range(3):
            store.decided(f"parent {number}", decision(), "strong")
        if (child := os.fork()) == 0:
            status = 1
            try:
                store.decided("child", decision(), "strong")
                status = 0 if store.flush(20) and store.dropped == 0 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert prompts(file) == ["child"]
        go_on.set()
        assert [item.prompt for item in kept(store)] == ["child", "parent 0", "parent 1", "parent 2"]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_forks_amid_writing_neither_hang_nor_repeat(store: Recorder, file: Path) -> None:
    context = multiprocessing.get_context("fork")
    children = []
    for number in range(8):
        for step in range(40):
            store.decided(f"parent {number} {step}", decision(), "strong")
        # It ends without flushing: that is seen to.
        child = context.Process(target=store.decided, args=(f"child {number}", decision(), "strong"))
        child.start()
        children.append(child)
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    found = [item.prompt for item in kept(store)]
    assert sorted(found) == sorted(
        [f"parent {number} {step}" for number in range(8) for step in range(40)]
        + [f"child {number}" for number in range(8)]
    )


# --- reading ---


def test_what_is_no_store_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*none\.sqlite"):
        read_recorded(tmp_path / "none.sqlite")
    with pytest.raises(DataError, match="there is no file"):
        read_recorded(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="is no store of records"):
        read_recorded(tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_reading_changes_nothing(store: Recorder, file: Path) -> None:
    store.decided("hello", decision(), "strong")
    store.close()
    before = file.read_bytes(), file.stat().st_mtime_ns
    assert prompts(file) == ["hello"]
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    refused = pytest.raises(sqlite3.OperationalError, match="readonly")
    with closing(_reading.StoredRecords(file)._connect()) as connection, refused:
        connection.execute("DELETE FROM decisions")


def test_a_row_that_is_none_is_told_of(store: Recorder, file: Path) -> None:
    store.decided("hello", decision(), "strong")
    store.flush()
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE decisions SET route = 'sideways'")
    with pytest.raises(DataError, match="route must be one of strong, weak; got 'sideways'"):
        list(read_recorded(file))


def test_a_store_that_stays_locked_is_told_of(store: Recorder, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefroute.recording._reading._PATIENCE", 0.1)
    store.decided("hello", decision(), "strong")
    store.flush()
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DataError, match="database is locked"):
            read_recorded(file)


def test_importing_needs_no_sqlite(tmp_path: Path) -> None:
    code = "import sys; sys.modules['sqlite3'] = None; import prefroute.recording, prefroute.decider"
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_debug_log_holds_no_prompt(store: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = decision()
    store.decided("a private prompt", made, "strong")
    store.calling(made.as_dict()).failed(ValueError("a private prompt"))
    assert len(kept(store)) == 1
    assert "private" not in caplog.text
