"""Examples made from battles, and the folder of a training run."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute import ConfigurationError, DataError
from prefroute.data import Battles, reference_battles
from prefroute.training._checkpoints import RUN_FILE, last_whole, open_run, run_of
from prefroute.training._examples import Examples, balanced_rows, examples_of, held_out
from prefroute.training._fine_tuned import is_first_process, process_count
from prefroute.training.config import BertConfig, CausalLMConfig, FineTuningConfig
from prefroute.types import Battle, ModelPair

PAIR = ModelPair(strong="big", weak="small")


def battle(prompt: str, outcome: float, weight: float = 1.0, *, turned: bool = False) -> Battle:
    names = ("small", "big") if turned else ("big", "small")
    return Battle(prompt, *names, 1 - outcome if turned else outcome, weight)


BATTLES = Battles.from_rows(
    [
        Battle("unrelated", "big", "other", 1.0),
        battle("both", 1.0, 3.0),
        battle("tie", 0.5, turned=True),
        battle("both", 0.0, 1.0, turned=True),
        battle("near", 0.9, 2.0),
    ]
)


def test_an_outcome_is_given_to_the_labels_it_lies_between() -> None:
    one = examples_of(BATTLES, PAIR, 1)
    assert one.prompts == ["both", "tie", "near"]
    np.testing.assert_allclose(one.targets[:, 0], [0.75, 0.5, 0.9], rtol=1e-6)
    np.testing.assert_allclose(one.weights, np.array([4, 1, 2]) / (7 / 3), rtol=1e-6)
    three = examples_of(BATTLES, PAIR, 3)
    assert three.prompts == one.prompts
    np.testing.assert_allclose(three.targets, [[0.75, 0, 0.25], [0, 1, 0], [0.8, 0.2, 0]], atol=1e-6)
    np.testing.assert_allclose(three.weights, one.weights, rtol=1e-6)
    for labels in (1, 2, 3, 5, 9):
        np.testing.assert_allclose(examples_of(BATTLES, PAIR, labels).outcomes, [0.75, 0.5, 0.9], atol=1e-6)
    with pytest.raises(DataError, match="no battle between"):
        examples_of(BATTLES, ModelPair(strong="small", weak="other"), 3)


def test_a_judges_scores_are_the_labels_themselves() -> None:
    scores = [1, 2, 3, 4, 5]
    battles = reference_battles([f"prompt {score}" for score in scores], scores, PAIR, graded=True)
    np.testing.assert_array_equal(examples_of(battles, PAIR, 5).targets, np.eye(5))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 5))
def test_balancing_repeats_the_rare_and_loses_nothing(labels: list[int], seed: int) -> None:
    rows = balanced_rows(np.eye(4, dtype=np.float32)[labels], seed)
    counts = np.bincount(np.array(labels)[rows], minlength=4)
    before = np.bincount(labels, minlength=4)
    assert set(counts[before > 0]) == {before.max()}
    assert set(rows) == set(range(len(labels)))
    repeats = np.bincount(rows)
    for label in set(labels):
        assert np.ptp(repeats[np.array(labels) == label]) <= 1


def test_spellings_of_one_prompt_are_held_out_together() -> None:
    prompts = [f"{text} {number}" for number in range(50) for text in ("What is it?", "what is  it?")]
    examples = Examples(prompts, np.ones((100, 1), np.float32), np.ones(100, np.float32))
    train, out = held_out(examples, 0.2, 3)
    assert (len(train.prompts), len(out.prompts)) == (80, 20)
    assert not {prompt.split()[-1] for prompt in train.prompts} & {prompt.split()[-1] for prompt in out.prompts}
    with pytest.raises(DataError, match="1 prompts compare the pair, too few to hold out 10%"):
        held_out(examples.at(np.array([0])), 0.1, 0)


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (BertConfig, {"labels": 2}, "labels must be 1 or 3, got 2"),
        (BertConfig, {"steps": 0}, "steps must be an integer from 1 on"),
        (BertConfig, {"epochs": 0}, "epochs must be a finite number above 0, or None"),
        (BertConfig, {"micro_batch_size": 3}, "a divisor of batch_size, which is 16"),
        (BertConfig, {"learning_rate": float("nan")}, "learning_rate must be a finite number above 0"),
        (BertConfig, {"warmup": 1.0}, "warmup must be below 1"),
        (BertConfig, {"validation_share": 1}, "validation_share must be a number between 0 and 1"),
        (BertConfig, {"schedule": "odd"}, "linear or constant or cosine"),
        (BertConfig, {"model": ""}, "model must be a hub id or a folder"),
        (BertConfig, {"device": "cuda:1"}, "'auto' or 'cpu'"),
        (CausalLMConfig, {"labels": 1}, "an integer from 2 to 9"),
        (CausalLMConfig, {"label_values": (1.0,)}, "a tuple of 3 numbers"),
        (CausalLMConfig, {"label_values": (2.0, 1.0, 0.0)}, "from 0 to 1, not all alike"),
        (CausalLMConfig, {"label_values": (1.0, 1.0, 1.0)}, "from 0 to 1, not all alike"),
        (CausalLMConfig, {"label_values": (1.0, "x", 0.0)}, "from 0 to 1, not all alike"),
        (CausalLMConfig, {"loss": "odd"}, "labels or vocabulary"),
        (CausalLMConfig, {"question": "x"}, "holds {question} once"),
        (CausalLMConfig, {"prompt_format": "odd"}, "prompt_format must be"),
        (CausalLMConfig, {"lora_rank": 0}, "an integer from 1 on, or None"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    kind: type[FineTuningConfig], wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        kind(**wrong)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_the_defaults_are_the_papers() -> None:
    bert = BertConfig()
    assert (bert.model, bert.batch_size, bert.max_length) == ("FacebookAI/xlm-roberta-base", 16, 512)
    assert (bert.learning_rate, bert.weight_decay, bert.steps) == (1e-5, 0.01, 2000)
    causal = CausalLMConfig.published(seed=3)
    assert (causal.model, causal.batch_size, causal.max_length) == ("meta-llama/Meta-Llama-3-8B", 8, 2048)
    assert (causal.learning_rate, causal.steps, causal.labels, causal.loss) == (1e-6, 2000, 5, "vocabulary")
    assert causal.label_values == (1.0, 1.0, 1.0, 0.0, 0.0)
    assert causal.seed == 3


def run(**settings: object) -> dict[str, object]:
    examples = Examples(["a", "b"], np.ones((2, 1), np.float32), np.ones(2, np.float32))
    return run_of({"steps": 5, "device": "auto"} | settings, examples)


def write_checkpoint(folder: Path, step: int, *, whole: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"x")
    (path / "trainer_state.json").write_text("{}" if whole else "{", encoding="utf-8")
    return path


def test_a_run_is_resumed_at_its_last_whole_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    assert open_run(folder, run(), resume=True) is None
    write_checkpoint(folder, 9)
    last = write_checkpoint(folder, 10)
    half = write_checkpoint(folder, 11, whole=False)
    assert last_whole(folder) == last
    assert half.exists()
    assert open_run(folder, run(device="cpu"), resume=True) == last, "where it computes may change"
    assert not half.exists(), "what was being written when the run was killed is removed"


def test_what_is_there_is_neither_lost_nor_mixed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    open_run(folder, run(), resume=False)
    write_checkpoint(folder, 5)
    with pytest.raises(ConfigurationError, match="holds an earlier run; resume it"):
        open_run(folder, run(), resume=False)
    with pytest.raises(ConfigurationError, match="cannot be resumed: steps was 5 and is 6"):
        open_run(folder, run(steps=6), resume=True)
    changed = run()
    changed["data"] = "other"
    with pytest.raises(ConfigurationError, match="the training data are others"):
        open_run(folder, changed, resume=True)
    assert last_whole(folder) is not None
    (tmp_path / "begun").mkdir()
    open_run(tmp_path / "begun", run(), resume=False)
    assert open_run(tmp_path / "begun", run(steps=9), resume=False) is None, "a run without a checkpoint is none"
    assert json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["settings"] == {"steps": 5}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(ConfigurationError, match="holds something else than checkpoints"):
        open_run(tmp_path / "other", run(), resume=True)
    with pytest.raises(ConfigurationError, match="is a file; name a folder"):
        open_run(tmp_path / "other" / "mine.txt", run(), resume=False)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        open_run(tmp_path / "other" / "mine.txt" / "below", run(), resume=False)


def test_data_that_differ_are_another_run() -> None:
    ones = np.ones((2, 1), np.float32)
    texts = [["a", "b"], ["ab", ""], ["a", "\ud800"]]
    digests = {str(run_of({}, Examples(own, ones, ones[:, 0]))["data"]) for own in texts}
    digests.add(str(run_of({}, Examples(texts[0], ones / 2, ones[:, 0]))["data"]))
    assert len(digests) == 4


def test_processes_are_those_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "1")
    assert (process_count(), is_first_process()) == (1, True), "RANK alone may be anybody's"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (process_count(), is_first_process()) == (2, False)
    monkeypatch.setenv("RANK", "0")
    assert is_first_process()
    monkeypatch.setenv("WORLD_SIZE", "odd")
    assert process_count() == 1
