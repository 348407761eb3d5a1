"""`prefroute label`, from files of any kind to a table."""

from __future__ import annotations

import csv
import gzip
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from loopback import LabellingServer, questions

from prefroute.cli._label_options import LabellerOptions, ModelOptions
from prefroute.labelling import bundled_instructions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Run = "Callable[..., tuple[int, str, str]]"
Rows = list[dict[str, Any]]

OWN = """
def longer(prompt, strong_answer, weak_answer, reference):
    return float(len(strong_answer) > len(weak_answer))

def broken(prompt, strong_answer, weak_answer, reference):
    raise RuntimeError("broken")
"""


@pytest.fixture
def models(server: LabellingServer) -> list[str]:
    roles = ("strong", "weak", "judge")
    urls = [word for role in roles[:2] for word in (f"--{role}-base-url", server.base_url)]
    return ["--strong", "big", "--weak", "small", *urls]


@pytest.fixture
def judge(server: LabellingServer) -> list[str]:
    return ["--judge", "score", "--judge-model", "judge", "--judge-base-url", server.base_url]


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({name: {"input": 5.0, "output": 10.0} for name in ("big", "small", "judge")}))
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"{question}\n" for question in questions(5)))
    return path


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz", "p.jsonl", "p.jsonl.gz", "p.parquet"])
def test_prompts_and_references_come_from_any_table(
    name: str, run: Run, models: list[str], tmp_path: Path, output: Path, rows: Callable[[], Rows]
) -> None:
    path = tmp_path / name
    table = [{"ask": f"What is {n} + 1?", "right": n + 1, "more": "x"} for n in range(3)]
    if name.startswith("p.csv"):
        plain = tmp_path / "plain.csv"
        with plain.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["ask", "right", "more"])
            writer.writeheader()
            writer.writerows(table)
        content = plain.read_bytes()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    elif name.endswith(".parquet"):
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(table), path)
    else:
        content = "".join(json.dumps(row) + "\n" for row in table).encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    columns = ["--prompt-column", "ask", "--reference-column", "right"]
    status, _, err = run("label", str(path), "--output", str(output), *models, "--match", "numeric", *columns, "--yes")
    assert status == 0, err
    found = {row["prompt"]: row["reference"] for row in rows()}
    assert found == {row["ask"]: str(row["right"]) for row in table}
    assert "more" not in rows()[0]


def test_the_whole_command_says_what_it_does_and_what_comes_next(
    run: Run, models: list[str], judge: list[str], prompts: Path, prices: Path, output: Path, server: LabellingServer
) -> None:
    arguments = ["label", str(prompts), "--output", str(output), *models, *judge, "--prices", str(prices)]
    status, out, err = run(*arguments)
    assert status == 0
    assert "5 prompts, 0 of them labelled already" in err
    assert re.search(r"strong big: 5 calls, about \d+ tokens in, 1,320 out, \$0\.\d+", err)
    assert re.search(r"about \$0\.\d+ to come, \$0\.00 spent so far", err)
    assert "labelled  5 of 5 prompts" in out
    assert re.search(r"labels    strong better \d \(\d+%\), ties \d \(\d+%\), weak better \d", out)
    assert f"prefroute fit {output} --strong big --weak small" in " ".join(out.split())
    status, out, err = run(*arguments, "--json")
    assert status == 0
    assert json.loads(out)["labelled"] == 5
    assert json.loads(out)["calls"] == 0
    assert len(server.requests) == 15


def test_a_dry_run_tells_and_asks_nothing(
    run: Run, models: list[str], judge: list[str], prompts: Path, prices: Path, output: Path, server: LabellingServer
) -> None:
    arguments = ["label", str(prompts), "--output", str(output), *models, *judge, "--prices", str(prices), "--dry-run"]
    status, out, err = run(*arguments, "--limit", "2")
    assert (status, out) == (0, "")
    assert "2 prompts" in err
    status, out, _ = run(*arguments, "--json")
    assert json.loads(out)["calls"] == 15
    assert not server.requests
    assert not output.exists()


def test_what_may_cost_more_than_was_allowed_must_be_confirmed(
    run: Run,
    models: list[str],
    judge: list[str],
    prompts: Path,
    prices: Path,
    output: Path,
    server: LabellingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["label", str(prompts), "--output", str(output), *models, *judge]
    status, _, err = run(*arguments)
    assert status == 2
    assert "its cost is not known, and there is no terminal to ask on; add --yes" in err
    limited = [*arguments, "--prices", str(prices), "--max-cost", "0.005"]
    status, _, err = run(*limited)
    assert status == 2
    assert "it may cost more than --max-cost" in err
    assert not server.requests
    monkeypatch.setattr("prefroute.cli._label_options.is_terminal", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda text, **_: "go on?" not in text)
    status, out, _ = run(*arguments)
    assert status == 1
    assert not server.requests
    status, out, err = run(*limited, "--yes")
    assert status == 3
    assert "stopped:" in err
    assert "run the same command again, with a higher --max-cost" in out
    status, _, _ = run(*arguments, "--prices", str(prices), "--max-cost", "5")
    assert status == 0
    assert len(server.requests) == 15


def test_a_function_of_ones_own_is_found_by_its_file_or_module(
    run: Run, models: list[str], prompts: Path, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_labels.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    common = ["label", str(prompts), *models, "--yes", "--output"]
    file = f"{tmp_path / 'own_labels.py'}:longer"
    for number, target in enumerate((file, "own_labels:longer")):
        status, out, _ = run(*common, str(tmp_path / f"{number}.jsonl"), "--label-with", target)
        assert status == 0
        assert "labelled  5 of 5" in out
    status, out, _ = run(*common, str(output), "--label-with", "own_labels:broken")
    assert status == 1
    assert "5 x own_labels:broken raised RuntimeError" in out
    (tmp_path / "own_labels.py").write_text(OWN + "\nCHANGED = True\n")
    status, _, err = run(*common, str(tmp_path / "0.jsonl"), "--label-with", file)
    assert status == 2
    assert "function: own_labels.py:longer@" in err


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nothing", "named as file.py:function"),
        ("none.py:label", "none.py cannot be imported: FileNotFoundError"),
        ("no.such.module:label", "cannot be imported: ModuleNotFoundError"),
        ("json:label", "json holds no function 'label'; it holds:"),
    ],
)
def test_a_function_that_is_not_there_is_told(
    target: str, message: str, run: Run, models: list[str], prompts: Path, output: Path
) -> None:
    status, _, err = run("label", str(prompts), "--output", str(output), *models, "--label-with", target)
    assert status == 2
    assert message in err


@pytest.mark.parametrize("kind", ["pairwise", "score"])
def test_the_instructions_are_printed_to_start_from_and_replaced(
    kind: str, run: Run, models: list[str], server: LabellingServer, prompts: Path, tmp_path: Path, output: Path
) -> None:
    status, out, _ = run("label", "--show-instructions", kind)
    assert (status, out) == (0, bundled_instructions(kind))  # type: ignore[arg-type] # parametrised
    mine = tmp_path / "mine.txt"
    mine.write_text(f"MINE. {out}")
    judged = ["--judge", kind, "--judge-model", "judge", "--judge-base-url", server.base_url]
    arguments = ["label", str(prompts), "--output", str(output), *models, *judged, "--yes"]
    status, _, _ = run(*arguments, "--judge-instructions", str(mine), "--judge-max-tokens", "99")
    assert status == 0
    assert all(body["messages"][-1]["content"].startswith("MINE. ") for body in server.asked("judge"))
    assert {body["max_tokens"] for body in server.asked("judge")} == {99}
    mine.write_text("$question")
    status, _, err = run(*arguments, "--judge-instructions", str(mine))
    assert status == 2
    assert "mine.txt lacks" in err


def test_options_about_the_answers_reach_the_servers(
    run: Run, models: list[str], judge: list[str], server: LabellingServer, prompts: Path, tmp_path: Path, output: Path
) -> None:
    (tmp_path / "system.txt").write_text("Be brief.")
    said = ["--system", str(tmp_path / "system.txt"), "--temperature", "0.5", "--max-tokens", "7", "--concurrency", "1"]
    run("label", str(prompts), "--output", str(output), *models, *judge, "--yes", *said, "--limit", "1")
    for body in server.asked("big", "small"):
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert (body["temperature"], body["max_tokens"]) == (0.5, 7)
    (asked,) = server.asked("judge")
    assert len(asked["messages"]) == 1
    assert "temperature" not in asked


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "say how to label with one of --judge, --match or --label-with, got none"),
        (["--match", "exact", "--judge", "score"], "got 2 of them"),
        (["--judge", "score"], "--judge score needs --judge-model"),
        (["--match", "exact", "--judge-model", "j"], "--judge-model says nothing without --judge"),
        (["--match", "exact", "--judge-temperature", "0"], "--judge-temperature says nothing without --judge"),
        (["--match", "exact"], "--match needs --reference-column"),
        (["--match", "exact", "--reference-column", "right"], "has no columns, so no --reference-column"),
        (["--label-with", "json:dumps", "--max-cost", "1"], "there is none of big, small: give prices"),
        (["--label-with", "json:dumps", "--restart", "--strong", "prompt"], "a model called 'prompt'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    more: list[str], message: str, run: Run, models: list[str], prompts: Path, output: Path, server: LabellingServer
) -> None:
    status, _, err = run("label", str(prompts), "--output", str(output), *models, *more)
    assert status == 2
    assert message in err
    assert not server.requests


def test_columns_that_are_not_there_are_told(run: Run, models: list[str], tmp_path: Path, output: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,right\nq,1\n")
    common = ["label", str(tmp_path / "p.csv"), "--output", str(output), *models, "--match", "exact"]
    status, _, err = run(*common, "--reference-column", "wrong")
    assert status == 1
    assert "has no column 'wrong'; it has: 'prompt', 'right'. Name the columns with" in err


def test_rows_without_a_reference_are_left_out(
    run: Run, models: list[str], tmp_path: Path, output: Path, rows: Callable[[], Rows]
) -> None:
    (tmp_path / "p.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"q{n}", "right": right}) + "\n" for n, right in enumerate([1.0, True, " x", None])
        )
    )
    common = ["label", str(tmp_path / "p.jsonl"), "--output", str(output), *models, "--match", "exact", "--yes"]
    status, _, err = run(*common, "--reference-column", "right")
    assert status == 0
    assert {row["prompt"]: row["reference"] for row in rows()} == {"q0": "1", "q1": "True", "q2": " x"}
    status, _, err = run(*common, "--reference-column", "right", "--on-bad-row", "raise")
    assert status == 1
    assert "reference is missing" in err


def test_patience_reaches_all_three_models() -> None:
    models = ModelOptions(strong="a", weak="b", timeout=7.0, max_retries=2)
    judge = LabellerOptions(judge="score", judge_model="j").labeller(models.patience()).judge
    assert judge is not None
    assert {(one.timeout, one.max_retries) for one in (*models.endpoints(), judge)} == {(7.0, 2)}
