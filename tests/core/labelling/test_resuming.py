"""Labelling that is killed at any moment, interrupted, or finds what a kill left."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from loopback import Fault, LabellingServer, questions, until

from prefroute.labelling import Endpoint
from prefroute.labelling._lines import LineFile
from prefroute.labelling._stopping import Stop
from prefroute.labelling.asking import Asker
from prefroute.labelling.journal import Journal, key_of
from prefroute.labelling.spending import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Rows = list[dict[str, Any]]
Label = "Callable[..., LabelSummary]"

ROOT = Path(__file__).parents[3]
CONCURRENCY = 8
FEW = 30
A_ROW = 4
SLOW = 60.0


@contextmanager
def command(server: LabellingServer, output: Path, count: int) -> Iterator[subprocess.Popen[str]]:
    """`prefroute label`, running; killed at the end if it still runs."""
    prompts = output.with_name("prompts.txt")
    prompts.write_text("".join(f"{prompt}\n" for prompt in questions(count)))
    urls = [word for role in ("strong", "weak", "judge") for word in (f"--{role}-base-url", server.base_url)]
    models = ["--strong", "big", "--weak", "small", "--judge", "pairwise", "--judge-model", "judge"]
    words = [sys.executable, "-m", "prefroute", "label", str(prompts), "--output", str(output), "--yes"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "core")}
    with subprocess.Popen(
        [*words, *models, *urls, "--concurrency", str(CONCURRENCY)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def keys(server: LabellingServer) -> list[str]:
    """The key of each request so far."""
    roles = {"big": "strong", "small": "weak", "judge": "judge"}
    return [
        key_of(
            roles[body["model"]],
            Endpoint(model=body["model"], base_url=server.base_url),
            body["messages"][-1]["content"],
        )
        for body in server.requests
    ]


def labels(rows: Rows) -> list[tuple[Any, ...]]:
    columns = ("prompt", "big", "small", "strong_answer", "weak_answer", "error")
    return sorted(tuple(row[column] for column in columns) for row in rows)


@pytest.mark.parametrize(("count", "kills", "seed"), [(FEW, 1, 1), (300, 2, 4)])
def test_killed_at_random_points_it_repeats_no_call_whose_reply_had_arrived(
    count: int,
    kills: int,
    seed: int,
    server: LabellingServer,
    output: Path,
    label: Label,
    rows: Callable[[], Rows],
    calls: Callable[[], Rows],
    tmp_path: Path,
) -> None:
    generator = random.Random(seed)
    points = sorted(generator.sample(range(1, count * A_ROW - CONCURRENCY), kills))
    for point in points:
        known = {item["key"] for item in calls()} if output.exists() else set()
        before = len(server.requests)
        with command(server, output, count) as process:
            until(lambda: len(server.requests) >= max(point, before + 1), within=SLOW)  # noqa: B023 - waited for here
            process.kill()
            process.wait()
        assert process.returncode == -signal.SIGKILL
        assert not known & set(keys(server)[before:])
    known, before = {item["key"] for item in calls()}, len(server.requests)
    assert len(known) > 0 or points[0] <= CONCURRENCY
    summary = label(questions(count), concurrency=CONCURRENCY)
    assert not known & set(keys(server)[before:])
    assert count * A_ROW <= len(server.requests) <= count * A_ROW + CONCURRENCY * kills
    assert len(rows()) == summary.labelled == count
    if count == FEW:
        undisturbed = tmp_path / "undisturbed.jsonl"
        label(questions(count), output=undisturbed)
        again = rows()
        output.write_bytes(undisturbed.read_bytes())
        assert labels(again) == labels(rows())


def test_ctrl_c_waits_for_the_calls_on_their_way_and_starts_no_other(
    server: LabellingServer, output: Path, calls: Callable[[], Rows], label: Label
) -> None:
    server.faults = lambda body: Fault(delay=0.4)
    with command(server, output, 30) as process:
        until(lambda: len(server.requests) >= 20, within=SLOW)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SLOW)
    assert process.returncode == 130
    assert "run the same command" in err
    assert "Traceback" not in err
    assert len(server.requests) < 30 * A_ROW / 2
    assert server.aborted == 0
    assert {item["key"] for item in calls()} == set(keys(server))
    server.faults = None
    assert label(questions(30)).labelled == 30
    assert len(server.requests) == 30 * A_ROW
    assert "labelled" in out


def test_the_second_ctrl_c_stops_at_once(server: LabellingServer, output: Path) -> None:
    server.faults = lambda body: Fault(hang=True)
    with command(server, output, 5) as process:
        until(lambda: len(server.requests) >= 2, within=SLOW)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "again ends at once" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SLOW)
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("seconds", [30, 200])
def test_sigterm_ends_a_run_as_ctrl_c_does_even_while_a_server_asks_to_wait(
    seconds: int, server: LabellingServer, output: Path, calls: Callable[[], Rows]
) -> None:
    server.faults = lambda body: Fault(status=429, retry_after=f"retry-after: {seconds}")
    with command(server, output, 5) as process:
        until(lambda: len(server.requests) >= 2, within=SLOW)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert calls() == []


@pytest.mark.parametrize("kept", [1, 40, -2])
def test_a_torn_last_line_is_left_out_and_cut_off(
    kept: int,
    label: Label,
    output: Path,
    server: LabellingServer,
    rows: Callable[[], Rows],
    caplog: pytest.LogCaptureFixture,
) -> None:
    label(questions(3))
    for path in (output, output.with_name("labels.jsonl.calls")):
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    caplog.set_level(logging.WARNING)
    summary = label(questions(3))
    assert summary.calls <= 1
    assert len(rows()) == summary.labelled == 3
    assert caplog.text.count("cut short") == 2
    assert label(questions(3)).calls == 0


def test_a_damaged_reply_is_asked_for_again(
    label: Label, output: Path, rows: Callable[[], Rows], caplog: pytest.LogCaptureFixture
) -> None:
    label(questions(3))
    path = output.with_name("labels.jsonl.calls")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], b"\0" * 20 + b"\n", *lines[5:]]))
    output.write_bytes(b"")
    assert label(questions(3)).calls == 1
    assert len(rows()) == 3
    assert "1 damaged lines are left out" in caplog.text


def test_the_work_file_is_for_its_owner_alone(label: Label, output: Path) -> None:
    label(["q"])
    assert output.with_name("labels.jsonl.calls").stat().st_mode & 0o777 == 0o600


def test_a_reply_is_on_disk_before_it_is_used(
    label: Label, endpoint: Callable[..., Endpoint], server: LabellingServer, calls: Callable[[], Rows]
) -> None:
    on_disk: list[set[str]] = []
    judge_reply = server.says["judge"]

    def judge(said: str) -> str:
        on_disk.append({item["text"] for item in calls()})
        return judge_reply(said)

    server.says["judge"] = judge
    label(["q"])
    assert all({server.says["big"]("q"), server.says["small"]("q")} <= texts for texts in on_disk)
    assert len(on_disk) == 2


def test_a_line_that_could_not_be_written_whole_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LineFile(tmp_path / "lines.jsonl")
    file.append({"line": 1})
    real = os.write

    def write(descriptor: int, content: Any) -> int:
        real(descriptor, bytes(content[:5]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("prefroute.labelling._lines.os.write", write)
    with pytest.raises(OSError, match="No space left"):
        file.append({"line": 2})
    monkeypatch.undo()
    file.append({"line": 3})
    file.close()
    assert LineFile(file.path).read(strict=True) == [{"line": 1}, {"line": 3}]


async def test_what_waits_to_be_written_is_written_even_if_the_run_is_given_up(tmp_path: Path) -> None:
    asker = Asker(Journal(tmp_path / "labels.jsonl.calls"), Ledger({}, None), Stop(), 1)
    is_free = threading.Event()
    written: list[int] = []
    first = asyncio.create_task(asker.write(is_free.wait, SLOW))
    second = asyncio.create_task(asker.write(written.append, 2))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    is_free.set()
    await first
    await asker.close()
    assert written == [2]


def test_a_full_disk_ends_the_run_and_leaves_whole_files(
    label: Label,
    server: LabellingServer,
    rows: Callable[[], Rows],
    calls: Callable[[], Rows],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, left = os.write, [4000]

    def write(descriptor: int, content: Any) -> int:
        if not left[0]:
            raise OSError(28, "No space left on device")
        taken = min(len(content), left[0])
        left[0] -= taken
        return real(descriptor, bytes(content[:taken]))

    monkeypatch.setattr("prefroute.labelling._lines.os.write", write)
    summary = label(questions(20))
    assert summary.stopped == "failed"
    assert "No space left" in summary.detail
    monkeypatch.undo()
    paid = len(calls())
    assert 0 < paid < 80
    before = len(server.requests)
    assert label(questions(20)).labelled == 20
    assert len(server.requests) - before == 80 - paid
    assert len(rows()) == 20
