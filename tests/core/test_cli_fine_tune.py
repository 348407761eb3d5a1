"""`prefroute train bert` and `prefroute train causal-lm`, from files to a saved router."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefroute import cli, load_router
from prefroute.data import Battles
from prefroute.routers.bert import BertRouter
from prefroute.routers.causal_lm import CausalLMRouter

Run = Callable[..., tuple[int, str, str]]

SIDES = ("--strong", "big", "--weak", "small")
QUICK = ("--steps", "12", "--learning-rate", "0.01", "--batch-size", "8")


@pytest.fixture
def labels(golden: Battles, tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "big", "small"])
        writer.writerows([battle.prompt, 1, int(battle.outcome == 0.5)] for battle in golden)
    return path


@pytest.fixture
def scores(golden: Battles, tmp_path: Path) -> Path:
    path = tmp_path / "scores.jsonl"
    rows = [{"prompt": battle.prompt, "judge": 5 if battle.outcome == 0.5 else 2} for battle in golden]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize(("kind", "of"), [("bert", BertRouter), ("causal-lm", CausalLMRouter)])
def test_each_is_trained_saved_and_told(
    run: Run, labels: Path, encoder_folder: Path, llama_folder: Path, tmp_path: Path, kind: str, of: type[Any]
) -> None:
    model, output = encoder_folder if kind == "bert" else llama_folder, tmp_path / "new" / "router"
    more = ["--model", str(model), *QUICK]
    status, out, err = run("train", kind, "--data", str(labels), *SIDES, "--output", str(output), *more)
    assert status == 0, err
    assert f"{kind} from 108 battles over 108 prompts" in out
    assert "steps: 12" in out
    assert f"saved     {output}" in out
    router = load_router(output)
    assert type(router) is of
    assert {path.name for path in output.parent.iterdir()} == {"router"}, "the checkpoints are removed"
    status, out, err = run("route", "--json", "--router", str(output), "Derive 5 theorems about tea.")
    assert (status, err) == (0, "")
    assert json.loads(out)["score"] == pytest.approx(router.win_probability(["Derive 5 theorems about tea."])[0])


def test_options_reach_the_training(run: Run, labels: Path, encoder_folder: Path, tmp_path: Path) -> None:
    more = ["--model", str(encoder_folder), "--epochs", "2", "--batch-size", "16", "--micro-batch-size", "4"]
    more += [
        "--evaluations",
        "3",
        "--max-length",
        "20",
        "--labels",
        "3",
        "--seed",
        "7",
        "--device",
        "cpu",
        "--gradient-checkpointing",
    ]
    checkpoints = tmp_path / "mine"
    more += ["--checkpoints", str(checkpoints)]
    output = str(tmp_path / "r")
    status, out, err = run("train", "bert", "--data", str(labels), *SIDES, "--output", output, *more, "--json")
    assert status == 0, err
    learnt = json.loads(out)["learnt"]
    assert learnt["steps"] == 2 * (97 // 16)
    settings = json.loads((checkpoints / "prefroute-run.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["seed"], settings["max_length"], settings["labels"]) == (7, 20, 3)
    router: Any = load_router(output)
    assert (router.max_length, len(router.label_values)) == (20, 3)
    assert list(checkpoints.glob("checkpoint-*")), "a folder of the user's own is left alone"


def test_a_judges_scores_are_read_by_their_column(run: Run, scores: Path, llama_folder: Path, tmp_path: Path) -> None:
    instruction = tmp_path / "instruction.txt"
    instruction.write_text("Rate it from [[1]] to [[5]].\n", encoding="utf-8")
    more = ["--model", str(llama_folder), *QUICK, "--instruction", str(instruction)]
    more += ["--score-column", "judge", "--lora-rank", "2"]
    output = str(tmp_path / "r")
    status, out, err = run("train", "causal-lm", "--data", str(scores), *SIDES, "--output", output, *more, "--json")
    assert status == 0, err
    summary = json.loads(out)
    assert summary["pair"]["labels"] is None, "a grade is no vote"
    assert not [warning for warning in summary["warnings"] if "swapped" in warning]
    assert summary["held_out"]["apgr"] <= 1
    router: Any = load_router(output)
    assert len(router.labels) == 5
    assert router.label_values.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert router.prompt_format.before.startswith("Rate it from [[1]] to [[5]].\n")
    base = ["train", "causal-lm", "--data", str(scores), *SIDES, "--model", str(llama_folder), *QUICK]
    base += ["--score-column", "judge", "--published", "--max-length", "512"]
    assert run(*base, "--output", str(tmp_path / "published"))[0] == 0
    published: Any = load_router(tmp_path / "published")
    assert published.label_values.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["bert", "--batch-size", "8", "--micro-batch-size", "3"], 2, "a divisor of batch_size, which is 8"),
        (["bert", "--model", "EMPTY"], 2, "cannot load the config of the model from the folder"),
        (["bert", "--labels", "2"], 2, "--labels"),
        (["bert", "--steps", "4", "--epochs", "2"], 2, "--steps 4 and --epochs 2 say two things"),
        (["bert", "--model", "/not/there"], 2, "there is no folder '/not/there'"),
        (["bert", "--device", "cuda:7"], 2, "'auto' or 'cpu'"),
        (["causal-lm", "--score-column", "big", "--margin", "1"], 2, "goes with --prompt-column alone"),
        (["causal-lm", "--score-column", "big", "--weight-column", "x"], 2, "not with --weight-column"),
        (["causal-lm", "--score-column", "nothing"], 1, "and 'nothing' (--score-column)"),
        (["causal-lm", "--labels", "1"], 2, "--labels"),
        (["causal-lm", "--lora-rank", "0"], 2, "--lora-rank"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    run: Run, labels: Path, encoder_folder: Path, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    more = [str(tmp_path / "empty") if word == "EMPTY" else word for word in arguments]
    more += [] if "--model" in more else ["--model", str(encoder_folder)]
    before = set(tmp_path.iterdir())
    found, out, err = run("train", *more, "--data", str(labels), *SIDES, "--output", str(tmp_path / "r"))
    assert (found, out) == (status, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert set(tmp_path.iterdir()) == before


def test_an_interrupted_run_says_how_to_go_on(
    run: Run, labels: Path, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefroute.training import _fine_tuned

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prefroute.training.bert.release", interrupt)
    more = ["--model", str(encoder_folder), *QUICK]
    status, out, err = run("train", "bert", "--data", str(labels), *SIDES, "--output", str(tmp_path / "r"), *more)
    assert (status, out) == (130, "")
    told = re.search(r"--resume goes on from step (\d+), kept in (.*)", err)
    assert told is not None, err
    assert told[2] == str(tmp_path / "r.checkpoints")
    monkeypatch.setattr("prefroute.training.bert.release", _fine_tuned.release)
    status, out, err = run(
        "train", "bert", "--data", str(labels), *SIDES, "--output", str(tmp_path / "r"), *more, "--resume", "--json"
    )
    assert status == 0, err
    assert json.loads(out)["learnt"]["resumed_at_step"] == int(told[1]) > 0


def test_only_the_first_process_speaks(
    run: Run, labels: Path, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefroute.cli._fine_tune.is_first", lambda: False)
    more = ["--model", str(encoder_folder), *QUICK]
    assert run("train", "bert", "--data", str(labels), *SIDES, "--output", str(tmp_path / "r"), *more) == (0, "", "")
    assert not (tmp_path / "r").exists()


def test_a_killed_run_is_resumed_when_asked(labels: Path, encoder_folder: Path, run: Run, tmp_path: Path) -> None:
    output = tmp_path / "router"
    arguments = ["train", "bert", "--data", str(labels), *SIDES, "--output", str(output), "--steps", "400"]
    arguments += ["--model", str(encoder_folder), "--learning-rate", "0.001", "--batch-size", "8"]
    checkpoints = tmp_path / "router.checkpoints"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "prefroute", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists(), "it was killed before its end"
    status, _, err = run(*arguments)
    assert status == 2
    assert "holds an earlier run; resume it (resume=True, --resume)" in err
    status, _, err = run(*arguments, "--learning-rate", "0.002", "--resume")
    assert status == 2
    assert "learning_rate was 0.001 and is 0.002" in err
    status, out, err = run(*arguments, "--resume", "--json")
    assert status == 0, err
    learnt = json.loads(out)["learnt"]
    assert learnt["steps"] == 400
    assert 0 < learnt["resumed_at_step"] < 400
    assert not checkpoints.exists()
    assert np.isfinite(load_router(output).win_probability(["Derive 5 theorems about tea."])).all()


def test_the_help_names_both(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["prefroute", "train", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    out = capsys.readouterr().out
    assert "bert" in out
    assert "causal-lm" in out


DATA = Path(os.environ.get("PREFROUTE_DATA", Path(__file__).parents[2] / "../shared/data"))
SETS = {
    "gsm8k": ("routellm/gsm8k/gsm8k_responses.csv", "gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    "votes of people": ("battles/arena_hard.jsonl.gz", "gpt-4", "gpt-3.5-turbo"),
    "votes of a judge": ("battles/qlora_oa.jsonl.gz", "gpt-4", "vicuna-13b"),
}


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no shared data at {DATA}; set PREFROUTE_DATA")
@pytest.mark.parametrize("kind", ["bert", "causal-lm"])
@pytest.mark.parametrize("name", SETS)
def test_real_data_train_a_router_that_serves(
    run: Run, encoder_folder: Path, llama_folder: Path, tmp_path: Path, kind: str, name: str
) -> None:
    file, strong, weak = SETS[name]
    model = encoder_folder if kind == "bert" else llama_folder
    more = ["--strong", strong, "--weak", weak, "--model", str(model), "--steps", "3", "--evaluations", "1"]
    output = str(tmp_path / "r")
    status, out, err = run("train", kind, "--data", str(DATA / file), *more, "--output", output, "--json")
    assert status == 0, err
    assert json.loads(out)["pair"]["prompts"] > 5
    status, out, err = run("route", "--json", "--router", output, "Why is the sky blue?")
    assert (status, err) == (0, "")
    assert 0 <= json.loads(out)["score"] <= 1
