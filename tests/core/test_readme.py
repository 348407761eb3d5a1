"""The README and the pages under docs: their Python blocks run as they stand, and the first comes early."""

import asyncio
import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


@pytest.fixture(autouse=True)
def _no_loop_left() -> Iterator[None]:
    """Close the event loop that LlamaIndex's synchronous calls leave behind, before another test stumbles over it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            loop = asyncio.get_event_loop()
        except RuntimeError:
            return
    loop.close()
    asyncio.set_event_loop(None)


PAGES = sorted((ROOT / "docs").glob("*.md"))

WITH_COMMANDS = {"your-own-router"}
"""Pages whose blocks need what their commands write; test_your_own_router.py runs both."""


def blocks(lines: list[str]) -> list[Any]:
    """Each Python block with the heading it stands under."""
    found, heading, code = [], "top", None
    for number, line in enumerate(lines, 1):
        if line.startswith("#") and code is None:
            heading = line.lstrip("# ")
        elif line == "```python":
            code = []
            start = number
        elif line == "```" and code is not None:
            found.append(pytest.param(start, "\n".join(code), id=f"{heading} line {start}"))
            code = None
        elif code is not None:
            code.append(line)
    return found


@pytest.mark.parametrize(("line", "code"), blocks(LINES))
def test_every_python_block_runs_as_it_stands(line: int, code: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, f"README.md:{line}", "exec"), {"__name__": "__main__"})
    assert out.getvalue() != ""
    after = line + len(code.splitlines()) + 1
    if LINES[after : after + 2] == ["", "```text"]:
        assert out.getvalue().splitlines() == LINES[after + 2 : LINES.index("```", after + 2)]


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in WITH_COMMANDS], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    found = blocks(page.read_text(encoding="utf-8").splitlines())
    assert found
    for block in found:
        line, code = block.values
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, f"{page.name}:{line}", "exec"), names)
        assert out.getvalue() != "", f"{page.name}:{line}"


def test_the_first_block_is_short_and_early_and_prints_what_is_shown() -> None:
    first = LINES.index("```python") + 1
    code = LINES[first : first + LINES[first:].index("```")]
    assert first < 40
    assert len(code) <= 10
    shown = LINES.index("```text") + 1
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec("\n".join(code), {})
    assert out.getvalue().splitlines() == LINES[shown : shown + LINES[shown:].index("```")]


def test_every_named_command_and_file_exists() -> None:
    text = "\n".join([*LINES, *(page.read_text(encoding="utf-8") for page in PAGES)])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?\bmake (\w+)", text):
        assert f"\n{target}:" in makefile, target
    for path in re.findall(r"\]\(([\w./-]+)\)|`((?:docs|examples|scripts|benchmarks)/[\w./-]+)`", text):
        named = path[0] or path[1]
        assert (ROOT / named).exists() or (ROOT / "docs" / named).exists(), path
