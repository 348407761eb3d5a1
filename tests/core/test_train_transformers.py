"""Fine-tuning the two transformer routers: what they learn, killed and resumed, by several processes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prefroute import ConfigurationError, ConvergenceError, DataError, load_router
from prefroute.data import Battles, read_battles, reference_battles
from prefroute.routers.causal_lm import CausalLMRouter
from prefroute.training import BertConfig, CausalLMConfig, train_bert, train_causal_lm
from prefroute.training._examples import examples_of, held_out
from prefroute.training._fine_tuning import log_losses
from prefroute.types import ModelPair

PAIR = ModelPair(strong="big", weak="small")
QUICK: dict[str, Any] = {"learning_rate": 1e-2, "evaluations": 2, "batch_size": 8}
SHORT = "Rate it."


def parted(router: Any, golden: Battles) -> float:
    """By how much the scores of hard prompts stand above those of easy ones."""
    scores = router.win_probability(golden.prompts)
    hard = np.array([prompt.startswith("Derive") for prompt in golden.prompts])
    return float(scores[hard].mean() - scores[~hard].mean())


@pytest.mark.parametrize("labels", [1, 3])
def test_a_bert_learns_what_one_word_tells(golden: Battles, encoder_folder: Path, labels: Any) -> None:
    config = BertConfig(model=str(encoder_folder), steps=60, labels=labels, **QUICK)
    router = train_bert(golden, pair=PAIR, config=config)
    assert parted(router, golden) > 0.25
    report = router.training
    assert report is not None
    assert (report.steps, report.prompts, report.validation_prompts) == (60, 97, 11)
    assert report.best_step in {30, 60}
    assert router.validation is not None
    assert router.validation.apgr is not None
    assert router.validation.apgr > 0.6
    scores = router.win_probability(golden.prompts)
    assert router.threshold is not None
    assert scores.min() <= router.threshold <= scores.max()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "vocabulary", "labels": 5, "balanced": False},
        {"lora_rank": 8},
        {"micro_batch_size": 4, "gradient_checkpointing": True, "schedule": "linear", "warmup": 0.1},
    ],
    ids=["default", "published loss", "lora", "memory saved"],
)
def test_a_causal_lm_learns_it_too(
    golden: Battles, llama_folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = CausalLMConfig(**({"model": str(llama_folder), "steps": 60, "instruction": SHORT} | QUICK | changes))
    router = train_causal_lm(golden, pair=PAIR, config=config)
    assert parted(router, golden) > 0.2
    router.save_pretrained(tmp_path)
    again = load_router(tmp_path)
    assert isinstance(again, CausalLMRouter)
    np.testing.assert_allclose(again.win_probability(golden.prompts), router.win_probability(golden.prompts), atol=1e-7)
    assert not list(tmp_path.rglob("adapter*")), "low-rank updates are added to the weights"
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_a_judges_scores_are_learnt(golden: Battles, llama_folder: Path) -> None:
    scores = [2 if prompt.startswith("Derive") else 5 for prompt in golden.prompts]
    battles = reference_battles(golden.prompts, scores, PAIR, graded=True)
    config = CausalLMConfig(model=str(llama_folder), steps=60, labels=5, instruction=SHORT, **QUICK)
    assert parted(train_causal_lm(battles, pair=PAIR, config=config), golden) > 0.3


def test_losses_are_of_soft_labels_by_weight() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]])
    targets = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    shares = logits.double().softmax(1)
    expected = -(targets * shares.log()).sum(1) * torch.tensor([1.0, 3.0])
    found = log_losses(logits, targets, torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)
    whole = torch.cat([logits, torch.full((2, 4), -1e4)], dim=1)  # tokens that nothing says
    torch.testing.assert_close(log_losses(whole, targets, torch.tensor([1.0, 3.0])), found)
    one = log_losses(torch.tensor([[2.0]]), torch.tensor([[0.25]]), torch.ones(1))
    chance = torch.sigmoid(torch.tensor(2.0))
    assert float(one) == pytest.approx(float(-0.25 * chance.log() - 0.75 * (1 - chance).log()), rel=1e-5)


def test_weights_count(encoder_folder: Path) -> None:
    rows = [
        {
            "prompt": f"Question number {number}?",
            "model_a": "big",
            "model_b": "small",
            "outcome": outcome,
            "weight": weight,
        }
        for number in range(40)
        for outcome, weight in ((1.0, 9.0), (0.0, 1.0))
    ]
    config = BertConfig(model=str(encoder_folder), steps=40, **QUICK)
    router = train_bert(read_battles(rows), pair=PAIR, config=config)
    assert router.win_probability(["Question number 3?"])[0] == pytest.approx(0.9, abs=0.03)


def test_nobody_elses_chance_changes_and_the_seed_decides(golden: Battles, encoder_folder: Path) -> None:
    def fit(seed: int) -> Any:
        config = BertConfig(model=str(encoder_folder), steps=4, seed=seed, **QUICK)
        return train_bert(golden, pair=PAIR, config=config).win_probability(golden.prompts)

    def drawn() -> tuple[float, float, float]:
        return random.random(), np.random.random(), float(torch.rand(1))  # noqa: NPY002 - the process's own

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the process's own
    torch.manual_seed(1)
    expected = drawn()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the process's own
    torch.manual_seed(1)
    first = fit(5)
    assert drawn() == expected
    np.testing.assert_array_equal(fit(5), first)
    assert not np.array_equal(fit(6), first)


def test_the_best_step_is_kept_not_the_last(golden: Battles, encoder_folder: Path, tmp_path: Path) -> None:
    config = BertConfig(
        model=str(encoder_folder), steps=40, learning_rate=0.3, evaluations=20, batch_size=8, schedule="constant"
    )
    router = train_bert(golden, pair=PAIR, config=config, checkpoints=tmp_path / "run")
    report = router.training
    assert report is not None
    assert report.best_step < 40
    kept = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert kept == {f"checkpoint-{report.best_step}"}
    _, out = held_out(examples_of(golden, PAIR, 1), config.validation_share, config.seed)
    scores = router.win_probability(out.prompts)
    losses = -out.outcomes * np.log(scores) - (1 - out.outcomes) * np.log(1 - scores)
    assert losses.mean() == pytest.approx(report.validation_loss, abs=1e-5), "all weights are those of the best step"


def test_micro_batches_leave_the_result_as_it_is(golden: Battles, encoder_folder: Path) -> None:
    """97 prompts are no multiple of 10, and the 7 left over hold a micro-batch of 5."""

    def fit(**more: Any) -> Any:
        config = BertConfig(model=str(encoder_folder), steps=12, batch_size=10, learning_rate=1e-4, **more)
        return train_bert(golden, pair=PAIR, config=config).win_probability(golden.prompts)

    np.testing.assert_allclose(fit(micro_batch_size=5), fit(), atol=2e-5)


@pytest.mark.parametrize(("steps", "evaluations"), [(7, 3), (15, 10), (9, 1)])
def test_the_last_step_is_measured_and_a_finished_run_is_only_read_again(
    golden: Battles, encoder_folder: Path, tmp_path: Path, steps: int, evaluations: int
) -> None:
    config = BertConfig(model=str(encoder_folder), steps=steps, evaluations=evaluations, learning_rate=1e-3)
    first = train_bert(golden, pair=PAIR, config=config, checkpoints=tmp_path / "run")
    assert first.training is not None
    assert (first.training.steps, first.training.best_step) == (steps, steps)
    again = train_bert(golden, pair=PAIR, config=config, checkpoints=tmp_path / "run", resume=True)
    assert again.training is not None
    assert (again.training.steps, again.training.resumed_step) == (steps, steps)
    assert again.training.validation_loss == first.training.validation_loss
    np.testing.assert_array_equal(again.win_probability(golden.prompts), first.win_probability(golden.prompts))


def test_a_trained_router_can_be_trained_further(golden: Battles, encoder_folder: Path, tmp_path: Path) -> None:
    config = BertConfig(model=str(encoder_folder), steps=30, **QUICK)
    first = train_bert(golden, pair=PAIR, config=config)
    first.save_pretrained(tmp_path / "router")
    further = BertConfig(model=str(tmp_path / "router"), steps=1, learning_rate=1e-9, evaluations=1)
    second = train_bert(golden, pair=PAIR, config=further)
    np.testing.assert_allclose(second.win_probability(golden.prompts), first.win_probability(golden.prompts), atol=1e-5)


def test_a_child_that_ends_leaves_the_model_of_its_parent(
    golden: Battles, encoder_folder: Path, tmp_path: Path
) -> None:
    router = train_bert(golden, pair=PAIR, config=BertConfig(model=str(encoder_folder), steps=2, **QUICK))
    child = os.fork()
    if child == 0:
        try:
            weakref.finalize._exitfunc()  # type: ignore[attr-defined] # what Python does at the end
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    router.save_pretrained(tmp_path / "router")
    assert load_router(tmp_path / "router").threshold == router.threshold


def test_a_model_that_is_none_of_this_kind_is_refused(
    golden: Battles, encoder_folder: Path, llama_folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    other = Path(shutil.copytree(encoder_folder, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    save_file({f"0.auto_model.{name}": value for name, value in weights.items()}, other / "model.safetensors")
    with pytest.raises(ConfigurationError, match="lacks weights"):
        train_bert(golden, pair=PAIR, config=BertConfig(model=str(other)))
    with pytest.raises(ConfigurationError, match="lacks weights"):
        train_causal_lm(golden, pair=PAIR, config=CausalLMConfig(model=str(encoder_folder), instruction=SHORT))
    tokenizer = json.loads((llama_folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    unpadded = Path(shutil.copytree(llama_folder, tmp_path / "unpadded"))
    tokenizer.pop("pad_token")
    (unpadded / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="has no padding token, so it is no encoder"):
        train_bert(golden, pair=PAIR, config=BertConfig(model=str(unpadded)))
    coded = Path(shutil.copytree(llama_folder, tmp_path / "coded"))
    config = json.loads((coded / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (coded / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (coded / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="cannot load"):
        train_causal_lm(golden, pair=PAIR, config=CausalLMConfig(model=str(coded), instruction=SHORT))
    assert not (tmp_path / "ran").exists()


def test_nonsense_is_not_a_router(golden: Battles, encoder_folder: Path) -> None:
    config = BertConfig(model=str(encoder_folder), steps=4, learning_rate=1e30, evaluations=1)
    with pytest.raises(ConvergenceError, match="was not a number at any checkpoint; give a lower learning rate"):
        train_bert(golden, pair=PAIR, config=config)


def test_what_cannot_be_trained_is_told_first(
    golden: Battles, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BertConfig(model=str(encoder_folder))
    with pytest.raises(ConfigurationError, match="config must be a BertConfig, got CausalLMConfig"):
        train_bert(golden, pair=PAIR, config=CausalLMConfig())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="battles must be Battles, as read_battles gives them, got str"):
        train_bert("labels.csv", pair=PAIR, config=config)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="resume=True needs checkpoints="):
        train_bert(golden, pair=PAIR, config=config, resume=True)
    with pytest.raises(ConfigurationError, match="cannot load the config of the model from the folder"):
        train_bert(golden, pair=PAIR, config=BertConfig(model=str(tmp_path)))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="needs checkpoints=, a folder that all of them see"):
        train_bert(golden, pair=PAIR, config=config)


def test_progress_is_shown_on_stderr_alone(
    golden: Battles, encoder_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = BertConfig(model=str(encoder_folder), steps=4, **QUICK)
    train_bert(golden, pair=PAIR, config=config)
    assert capfd.readouterr() == ("", "")
    train_bert(golden, pair=PAIR, config=config, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "4/4" in err
    assert "held out" in err


# Killed and resumed, and by several processes: the same program, started as a launcher starts it.

PROGRAM = """
import sys
from prefroute.data import read_battles
from prefroute.training import BertConfig, CausalLMConfig, train_bert, train_causal_lm
from prefroute.training._fine_tuned import is_first_process
from prefroute.types import ModelPair

kind, model, data, checkpoints, steps = sys.argv[1:6]
battles = read_battles(data, models=["big", "small"])
settings = {"model": model, "steps": int(steps), "learning_rate": 3e-3, "batch_size": 8, "evaluations": 6}
given = {"pair": ModelPair("big", "small"), "checkpoints": checkpoints, "resume": "resume" in sys.argv}
if kind == "bert":
    router = train_bert(battles, config=BertConfig(**settings), **given)
else:
    router = train_causal_lm(battles, config=CausalLMConfig(instruction="Rate it.", **settings), **given)
if is_first_process():
    router.save_pretrained(checkpoints + "-router")
"""


@pytest.fixture
def program(golden: Battles, tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    lines = [f'"{label.prompt}",1,{1 - int(label.outcome * 2 - 1)}' for label in golden]
    (tmp_path / "golden.csv").write_text("\n".join(["prompt,big,small", *lines]), encoding="utf-8")
    return path


def command(program: Path, kind: str, model: Path, name: str, *more: str, steps: int = 60) -> list[str]:
    folder = program.parent
    return [str(program), kind, str(model), str(folder / "golden.csv"), str(folder / name), str(steps), *more]


def finish(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_run_that_was_killed_ends_as_one_that_was_not(program: Path, encoder_folder: Path) -> None:
    whole = command(program, "bert", encoder_folder, "whole", steps=240)
    finish([sys.executable, *whole])
    begun = command(program, "bert", encoder_folder, "killed", "resume", steps=240)
    process = subprocess.Popen([sys.executable, *begun], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = program.parent / "killed"
    deadline = time.monotonic() + 240
    while not list(folder.glob("checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "best").exists(), "it was killed before its end"
    finish([sys.executable, *begun])
    first, second = (load_router(program.parent / f"{name}-router") for name in ("whole", "killed"))
    texts = ["Derive 5 theorems about tea.", "Name 5 facts about tea."]
    np.testing.assert_allclose(second.win_probability(texts), first.win_probability(texts), atol=1e-5)
    reports = [router.training for router in (first, second)]  # type: ignore[attr-defined]
    assert reports[1].validation_loss == pytest.approx(reports[0].validation_loss, abs=1e-5)
    assert reports[1].best_step == reports[0].best_step
    assert reports[0].resumed_step == 0
    assert 0 < reports[1].resumed_step < 240, "it went on from a checkpoint, and not from the beginning"


@pytest.mark.parametrize("kind", ["bert", "causal-lm"])
def test_two_processes_learn_what_one_does(program: Path, encoder_folder: Path, llama_folder: Path, kind: str) -> None:
    model = encoder_folder if kind == "bert" else llama_folder
    finish([sys.executable, *command(program, kind, model, "one", steps=12)])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    finish([*launcher, *command(program, kind, model, "two", steps=12)])
    first, second = (load_router(program.parent / f"{name}-router") for name in ("one", "two"))
    texts = ["Derive 5 theorems about tea.", "Name 5 facts about tea."]
    np.testing.assert_allclose(second.win_probability(texts), first.win_probability(texts), atol=1e-3)
    reports = [router.training for router in (first, second)]  # type: ignore[attr-defined]
    assert reports[1].validation_loss == pytest.approx(reports[0].validation_loss, abs=1e-3)


def test_a_batch_that_processes_cannot_share_is_told_by_all(program: Path, encoder_folder: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    code = program.read_text(encoding="utf-8").replace('"batch_size": 8', '"batch_size": 7')
    program.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [*launcher, *command(program, "bert", encoder_folder, "odd")],
        capture_output=True, text=True, timeout=300, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode != 0
    assert "batch_size 7 cannot be shared by 2 processes; give a multiple of 2" in done.stderr
