"""docs/your-own-router.md: every block and every command of it runs, one after the other, on a smaller export."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from loopback import LabellingServer, only_loopback
from loopback.labelling_server import chance, judge_reply

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "your-own-router.md"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
STRONG, WEAK = "gpt-5.5", "gpt-5.4-mini"
FEWER = ("export[:1500]", "export[:72]")


def steps() -> list[tuple[str, str, str]]:
    """Kind, text and shown output of each block, in order."""
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def commands(block: str) -> list[list[str]]:
    """The commands of a console block that are prefroute's."""
    lines = re.sub(r"\\\n\s*", " ", block).splitlines()
    found = [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]
    return [command for command in found if command[0] == "prefroute"]


def strong(said: str) -> str:
    return judge_reply(said) if "<<<question" in said else f"On {said[:40]}: worth 90."


def weak(said: str) -> str:
    """Seldom good enough at proofs and comparisons, mostly at lists."""
    often = 80 if said.startswith(("Prove", "Compare")) else 10
    return f"On {said[:40]}: worth {'30' if chance(said) < often else '95'}."


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LabellingServer]:
    with LabellingServer() as one, only_loopback():
        one.says = {STRONG: strong, WEAK: weak}
        monkeypatch.setenv("OPENAI_BASE_URL", one.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests-0123456789")
        yield one


def test_the_page_runs_from_an_export_to_an_app(
    server: LabellingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    ran, shown = [], {}
    for kind, text, _ in steps():
        out = io.StringIO()
        if kind == "python":
            with contextlib.redirect_stdout(out):
                exec(compile(text.replace(*FEWER), PAGE.name, "exec"), names)
            shown[text] = out.getvalue()
            assert shown[text]
            continue
        for command in commands(text):
            run = subprocess.run(
                [sys.executable, "-m", *command], capture_output=True, text=True, env=os.environ, check=False
            )
            assert run.returncode == 0, f"{shlex.join(command)}\n{run.stdout}\n{run.stderr}"
            ran.append(command[1])
            assert "sk-of-the-tests" not in run.stdout + run.stderr
    assert ran == ["label", "label", "fit", "calibrate", "label"]
    assert (tmp_path / "my-router" / "README.md").is_file()
    assert "**Better than random" in (tmp_path / "my-router" / "README.md").read_text(encoding="utf-8")
    app = next(text for text in shown if "RoutedChatModel" in text)
    assert [line.split(" | ")[0] for line in shown[app].splitlines()[:2]] == ["weak", "strong"]
    assert len((tmp_path / "next.jsonl").read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize("text", [text for kind, text, shown in steps() if kind == "python" and shown])
def test_what_the_page_says_a_block_prints_is_what_it_prints(text: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, PAGE.name, "exec"), {"__name__": "__main__"})
    assert out.getvalue() == next(shown for _, own, shown in steps() if own == text)
