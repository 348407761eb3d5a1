"""Where transformers compute, with which numbers, and what is said when it cannot be."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prefroute import ConfigurationError, MissingExtraError, PersistenceError, _torch, load_router
from prefroute._torch import as_device, as_dtype, free_memory, refuse_too_large
from prefroute._transformers import load_model, load_tokenizer, quiet_loading
from prefroute.routers._transformer import load_parts
from prefroute.routers.bert import KIND as BERT
from prefroute.routers.bert import BertRouter
from prefroute.testing import write_tiny_encoder
from prefroute.types import ModelPair

PAIR = ModelPair(strong="big", weak="small")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("classifier"), labels=3)


@pytest.fixture
def saved(classifier: Path, tmp_path: Path) -> Path:
    model, tokenizer = load_parts(BERT, classifier, dtype="float32")
    BertRouter(model=model, tokenizer=tokenizer, pair=PAIR, threshold=0.4).save_pretrained(tmp_path / "router")
    return tmp_path / "router"


def test_a_device_is_tried() -> None:
    assert as_device("cpu") == "cpu"
    assert as_device("auto") in {"cpu", "cuda"}
    with pytest.raises(ConfigurationError, match="device 'cuda:99' cannot be used: "):
        as_device("cuda:99")
    with pytest.raises(ConfigurationError, match="such as 'cpu' or 'cuda:0'; got 3"):
        as_device(3)


@pytest.mark.parametrize(("has", "found"), [(True, "bfloat16"), (False, "float32")])
def test_bfloat16_is_chosen_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch, has: bool, found: str) -> None:
    monkeypatch.setattr(_torch, "has_cpu_bfloat16", lambda: has)
    assert as_dtype("auto", "cpu") == found
    assert as_dtype("float32", "cpu") == "float32"
    with pytest.raises(ConfigurationError, match="'auto' or one of float32, bfloat16, float16, int8; got 'int4'"):
        as_dtype("int4", "cpu")
    with pytest.raises(ConfigurationError, match="'int8' is for the CPU"):
        as_dtype("int8", "cuda")


def test_what_does_not_fit_is_refused_with_both_sizes(monkeypatch: pytest.MonkeyPatch, classifier: Path) -> None:
    monkeypatch.setattr(_torch, "free_memory", lambda _: 3 * 2**30)
    refuse_too_large(2**30, "cpu", "a model")
    with pytest.raises(ConfigurationError, match=r"a model takes 15\.0 GiB of memory and 3\.0 GiB are free on 'cpu'"):
        refuse_too_large(15 * 2**30, "cpu", "a model")
    monkeypatch.setattr(_torch, "free_memory", lambda _: 1000)
    with pytest.raises(ConfigurationError, match=r"the model '.*' in float32 takes 0\.[12] MiB .* 0\.0 MiB are free"):
        load_parts(BERT, classifier)


def test_memory_of_a_control_group_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = free_memory("cpu")
    assert whole is not None
    assert 2**20 < whole < 2**50
    for name, value in (("memory.max", "5000000"), ("memory.current", "4000000"), ("memory.stat", "inactive_file 300")):
        (tmp_path / name).write_text(f"{value}\n", encoding="ascii")
    monkeypatch.setattr(_torch, "_CGROUP", tmp_path)
    assert free_memory("cpu") == 1_000_300
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    unlimited = free_memory("cpu")
    assert unlimited is not None
    assert unlimited > 2**20
    assert free_memory("meta") is None


def test_running_out_of_memory_says_so_too(monkeypatch: pytest.MonkeyPatch, classifier: Path) -> None:
    import transformers

    def fail(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", fail)
    with pytest.raises(ConfigurationError, match=r"takes .* of memory and .* free on 'cpu'"):
        load_parts(BERT, classifier)


def test_device_and_dtype_reach_the_router(saved: Path) -> None:
    texts = ["Why is the sky blue?", "Name a river.", ""]
    wide = load_router(saved, device="cpu", dtype="float32")
    assert next(wide.model.parameters()).dtype is torch.float32  # type: ignore[attr-defined]
    exact = wide.win_probability(texts)
    narrow = load_router(saved, dtype="bfloat16")
    assert next(narrow.model.parameters()).dtype is torch.bfloat16  # type: ignore[attr-defined]
    np.testing.assert_allclose(narrow.win_probability(texts), exact, atol=0.02)
    whole = BertRouter.from_pretrained(saved, dtype="int8")
    assert "Int8Linear" in {type(module).__name__ for module in whole.model.modules()}
    assert not np.array_equal(whole.win_probability(texts), exact)
    np.testing.assert_allclose(whole.win_probability(texts), exact, atol=0.02)
    with pytest.raises(ConfigurationError, match="cuda:99"):
        load_router(saved, device="cuda:99")
    with pytest.raises(ConfigurationError, match="int4"):
        load_router(saved, dtype="int4")


@pytest.mark.parametrize("name", [None, "random"])
def test_a_router_on_numpy_takes_neither(name: str | None) -> None:
    with pytest.raises(ConfigurationError, match="computes with numpy, got device='cpu'; leave device= out"):
        load_router(name, device="cpu")
    with pytest.raises(ConfigurationError, match="leave dtype= out"):
        load_router(name, dtype="float32")


def test_saving_again_keeps_the_weights_as_they_were(saved: Path, tmp_path: Path) -> None:
    narrow: Any = load_router(saved, dtype="int8")
    narrow.threshold = 0.7
    narrow.save_pretrained(tmp_path / "again")
    name = "model/model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()
    assert load_router(tmp_path / "again").threshold == 0.7
    narrow.save_pretrained(saved)  # over the very files that it was loaded from
    assert load_router(saved).threshold == 0.7
    (saved / name).write_bytes(b"other")
    with pytest.raises(PersistenceError, match="have changed since it was loaded"):
        narrow.save_pretrained(tmp_path / "third")
    assert not (tmp_path / "third" / "config.json").exists()


def test_int8_alone_cannot_be_saved(classifier: Path, tmp_path: Path) -> None:
    model, tokenizer = load_parts(BERT, classifier, dtype="int8")
    with pytest.raises(PersistenceError, match="int8 cannot be saved; load the model with dtype='float32'"):
        BertRouter(model=model, tokenizer=tokenizer, pair=PAIR).save_pretrained(tmp_path / "router")


def test_only_safetensors_are_read_and_code_is_refused(classifier: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(classifier, tmp_path / "pickled"))
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match=r"cannot load the model from the folder .*safetensors"):
        load_parts(BERT, folder)
    folder = Path(shutil.copytree(classifier, tmp_path / "coded"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="cannot load"):
        load_parts(BERT, folder)
    assert not (tmp_path / "ran").exists()


def test_a_model_without_a_head_is_no_router(encoder_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"lacks weights .*classifier"):
        load_parts(BERT, encoder_folder)
    with pytest.raises(ConfigurationError, match="cannot load the tokenizer of the model from the folder"):
        load_tokenizer(tmp_path)


def test_a_model_that_is_nowhere_is_told_with_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def fail(*_: Any, **where: Any) -> Any:
        msg = f"not here, {where['local_files_only']}"
        raise OSError(msg)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(ConfigurationError, match=r"from the hub as 'owner/name' \(there is no such folder\).*False"):
        load_tokenizer("owner/name")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, classifier: Path) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else real(name))
    with pytest.raises(MissingExtraError, match=re.escape('needs transformers: pip install "prefroute[transformers]"')):
        load_parts(BERT, classifier)


def test_loading_is_quiet_for_all_at_once_and_leaves_the_library_as_it_was() -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    first, second = quiet_loading(), quiet_loading()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logging.get_verbosity() == logging.ERROR
    second.__exit__(None, None, None)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


FORK = """
import os, sys
import numpy as np
from prefroute import load_router
router = load_router(sys.argv[1], dtype="float32")
texts = ["Why is the sky blue? " * 20] * 64
before = router.win_probability(texts)  # torch's threads are there now
child = os.fork()
if child == 0:
    same = np.allclose(router.win_probability(texts), before, atol=1e-6)
    os._exit(0 if same else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_scores(saved: Path) -> None:
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, str(saved)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert done.stdout == "0\n", done.stderr


def test_the_head_is_made_anew_for_training(encoder_folder: Path) -> None:
    kind = "AutoModelForSequenceClassification"
    model = load_model(kind, encoder_folder, device="cpu", dtype="float32", complete=False, num_labels=1)
    assert model.config.num_labels == 1
    assert not model.training
