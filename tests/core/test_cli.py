"""The `prefroute` command."""

import importlib
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefroute import MissingExtraError
from prefroute.calibration import Calibration
from prefroute.demo import PROMPTS, AdapterRun
from prefroute.testing import FailingRouter, FixedRouter

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> FixedRouter:
    router = FixedRouter(0.25, {"hard": 0.75}, threshold=0.5)
    routers_are(monkeypatch, lambda _: router)
    return router


def routers_are(monkeypatch: pytest.MonkeyPatch, load: Callable[[Any], Any]) -> None:
    for command in ("_route", "_demo"):
        monkeypatch.setattr(f"prefroute.cli.{command}.load_router", load)


def test_json_is_one_object_a_line_with_exactly_these_fields(run: Run, fixed: FixedRouter) -> None:
    status, out, err = run("route", "--json", "hard", "easy")
    assert (status, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"prompt": "hard", "score": 0.75, "threshold": 0.5, "route": "strong", "reason": "score"},
        {"prompt": "easy", "score": 0.25, "threshold": 0.5, "route": "weak", "reason": "score"},
    ]


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.6, 1.0])
def test_a_rate_in_place_of_a_threshold(run: Run, fixed: FixedRouter, rate: float) -> None:
    fixed.calibration = Calibration([score / 100 for score in range(99)])
    fixed.scores = {f"prompt {score}": score / 100 for score in range(99)}
    status, out, err = run("route", "--json", "--strong-rate", str(rate), *fixed.scores)
    assert (status, err) == (0, "")
    routes = [json.loads(line)["route"] for line in out.splitlines()]
    assert routes.count("strong") == pytest.approx(99 * rate, abs=1)


def test_the_table_ends_with_the_rate_and_never_reads_markup(run: Run, fixed: FixedRouter) -> None:
    status, out, err = run("route", "--threshold", "0.2", "an [/unopened] tag", "hard")
    assert (status, err) == (0, "")
    assert "[/unopened]" in out
    assert out.splitlines()[-1] == "strong-call rate 2/2 = 100%"


def test_stdin_is_read_line_by_line_whatever_is_in_it(run: Run, fixed: FixedRouter) -> None:
    status, out, _ = run("route", "--json", stdin="\ufeffone\r\n\n  \ntwo\x00\n".encode() + b"bad \xff byte")
    assert status == 0
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == ["one", "two\x00", "bad \ufffd byte"]


def test_long_input_is_routed_in_chunks(run: Run, fixed: FixedRouter) -> None:
    status, out, _ = run("route", "--json", stdin=b"hard\n" * 1000)
    assert status == 0
    assert out.count('"strong"') == 1000


def test_arguments_that_are_no_text_come_out_as_valid_json(run: Run, fixed: FixedRouter) -> None:
    _, out, _ = run("route", "--json", "caf\udce9")
    assert json.loads(out)["prompt"] == "caf\ufffd"
    json.loads(out)["prompt"].encode()


def test_control_characters_do_not_reach_the_terminal(run: Run, fixed: FixedRouter) -> None:
    _, out, _ = run("route", "a \x1b]0;title\x07\x1b[2J b")
    assert "a \ufffd]0;title\ufffd\ufffd[2J b" in out
    assert "\u0645\u06cc\u200c\u062e\u0648" in run("route", "\u0645\u06cc\u200c\u062e\u0648")[1]


@pytest.mark.parametrize("arguments", [["route", "h\xe9llo \u8a3c\u660e"], ["demo"]])
def test_a_terminal_without_unicode_gets_escapes(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "prefroute", *arguments]
    done = subprocess.run(command, env={"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "prompt" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which always is a full disk")
@pytest.mark.parametrize("arguments", [["route", "--json", "x"], ["route", "x"], ["--help"]])
def test_a_full_disk_under_stdout_is_one_line_on_stderr(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "prefroute", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("prefroute: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["route"], 2, "no prompts: give them as arguments, or one per line on stdin"),
        (["route", "--threshold", "nan", "x"], 2, "threshold must be a finite number, got nan"),
        (["route", "--threshold", "high", "x"], 2, "Invalid value for '--threshold'"),
        (["route", "--strong-rate", "0.3", "x"], 2, "strong_rate needs a calibrated router"),
        (["route", "--strong-rate", "0.3", "--threshold", "0", "x"], 2, "or --strong-rate, not both; got 0"),
        (["route", "--nonsense", "x"], 2, "--nonsense"),
        (["bogus"], 2, "No such command 'bogus'"),
        (["demo", "--strong", "openai:x"], 2, "--strong and --weak go together"),
        (["demo", "--strong", "foo", "--weak", "openai:x"], 2, "--strong must be PROVIDER:NAME, such as"),
    ],
)
def test_bad_input_is_one_line_on_stderr(
    run: Run, fixed: FixedRouter, arguments: list[str], status: int, message: str
) -> None:
    got, out, err = run(*arguments)
    assert (got, out) == (status, "")
    assert err.startswith("prefroute: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_missing_router_is_one_line_on_stderr(run: Run, tmp_path: Path) -> None:
    status, out, err = run("route", "--router", str(tmp_path / "none"), "x")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "no saved router at" in err


@pytest.mark.parametrize("name", ["random", "prompt-length"])
def test_the_baselines_are_routers_by_name(run: Run, name: str) -> None:
    status, out, err = run("route", "--json", "--router", name, "short", "long " * 200)
    assert (status, err) == (0, "")
    assert {json.loads(line)["threshold"] for line in out.splitlines()} == {0.5}
    assert len({json.loads(line)["score"] for line in out.splitlines()}) == 2


def test_an_interrupt_is_one_word(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    routers_are(monkeypatch, interrupt)
    assert run("route", "x") == (130, "", "prefroute: interrupted\n")


def test_a_failing_router_is_shown_as_such(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    routers_are(monkeypatch, lambda _: FailingRouter(on_error="weak"))
    status, out, _ = run("route", "--json", "x")
    assert status == 0
    assert json.loads(out) == {
        "prompt": "x",
        "score": None,
        "threshold": 0.5,
        "route": "weak",
        "reason": "router_error",
    }
    status, out, _ = run("route", "x")
    assert "strong-call rate 0/1 = 0%" in out


def fake_adapters(monkeypatch: pytest.MonkeyPatch, **found: Any) -> None:
    def import_module(name: str) -> Any:
        adapter = found.get(name.removesuffix(".demo"))
        if adapter is None:
            msg = f"{name} needs more: pip install 'prefroute[x]'"
            raise MissingExtraError(msg)
        return types.SimpleNamespace(run=adapter)

    monkeypatch.setattr("importlib.import_module", import_module)


def test_the_demo_without_adapters_says_what_is_missing(
    run: Run, fixed: FixedRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_adapters(monkeypatch)
    fixed.scores = {prompt: index / 30 for index, prompt in enumerate(PROMPTS)}
    status, out, err = run("demo")
    assert (status, err) == (0, "")
    assert out.count("Left out: ") == 2
    assert "No adapter is installed" in out
    assert PROMPTS[0] in out
    assert out.count("strong-call rate") == 1  # the header of the threshold table
    assert "With real models" not in out


@pytest.mark.parametrize("adapter", ["langchain_router", "llamaindex_router"])
def test_the_demo_ends_with_code_for_what_is_installed(adapter: str) -> None:
    demo = importlib.import_module(f"{adapter}.demo")
    found = demo.run(PROMPTS[:1], FixedRouter(0.1))
    install, *lines = found.in_earnest
    assert install.startswith("pip install ")
    assert any(line.startswith(f"from {adapter} import") for line in lines)
    compile("\n".join(lines), adapter, "exec")


def test_the_demo_fails_when_no_named_model_can_be_had(
    run: Run, fixed: FixedRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_adapters(monkeypatch)
    status, out, err = run("demo", "--strong", "openai:s", "--weak", "openai:w")
    assert (status, out) == (1, "")
    assert err == "prefroute: langchain_router.demo needs more: pip install 'prefroute[x]'\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_is_readable(run: Run, arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    assert "\n  demo " in out
    assert "\n  route " in out


def test_the_demo_shows_each_adapter_and_three_thresholds(
    run: Run, fixed: FixedRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed.scores = {prompt: index / 30 for index, prompt in enumerate(PROMPTS)}
    asked: list[Any] = []

    def adapter(prompts: Any, router: Any, *, strong: Any, weak: Any) -> AdapterRun:
        asked.append((strong, weak))
        decisions = router.route_batch(prompts)
        return AdapterRun("LangChain (a chain)", decisions, ["an answer"] * len(prompts), 0.4)

    fake_adapters(monkeypatch, langchain_router=adapter, llamaindex_router=adapter)
    status, out, _ = run("demo")
    assert status == 0
    assert out.count("LangChain (a chain): strong-call rate 40% over 25 prompts") == 2
    assert "offline stand-ins" in out
    for row in ("the router's own", "3/4 of these strong", "1/4 of these strong"):
        assert row in out
    assert "an answer" not in out
    status, out, _ = run("demo", "--strong", "openai:s", "--weak", "openai:w")
    assert (status, "an answer" in out, "Answered by openai:s and openai:w." in out) == (0, True, True)
    assert asked == [(None, None)] * 2 + [("openai:s", "openai:w")] * 2


def test_a_provider_that_fails_is_one_line_on_stderr(
    run: Run, fixed: FixedRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adapter(*_: Any, **__: Any) -> AdapterRun:
        msg = "401\nUnauthorized"
        raise ConnectionError(msg)

    fake_adapters(monkeypatch, langchain_router=adapter)
    status, _, err = run("demo", "--strong", "openai:s", "--weak", "openai:w")
    assert (status, err) == (
        1,
        "prefroute: langchain_router with openai:s and openai:w: ConnectionError: 401 Unauthorized\n",
    )


def test_the_module_runs_as_a_command_and_survives_a_closed_pipe() -> None:
    done = subprocess.run([sys.executable, "-m", "prefroute", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("prefroute ")
    piped = f"yes hi | {sys.executable} -m prefroute route --json | head -n 1"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["prompt"] == "hi"
    assert done.stderr == ""
