"""RouteLLM's matrix-factorization checkpoints: the published formula on random weights of the published shapes."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from prefroute.compat.routellm import DEFAULT_PAIR, MODELS, load_matrix_factorization
from prefroute.errors import ConfigurationError, PersistenceError, RouterNotFoundError
from prefroute.types import ModelPair

PUBLISHED = {"P.weight": (64, 128), "text_proj.0.weight": (128, 1536), "classifier.0.weight": (1, 128)}


class RandomEmbedder:
    dimensions = 1536

    def embed(self, texts: Sequence[str]) -> Any:
        rows = [np.random.default_rng(len(text)).standard_normal(1536) for text in texts]
        unit: Any = np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32).reshape(-1, 1536)
        return unit


def tensors(dtype: Any = np.float32) -> dict[str, Any]:
    generator = np.random.default_rng(11)
    return {name: generator.standard_normal(shape).astype(dtype) for name, shape in PUBLISHED.items()}


def written(folder: Path, content: dict[str, Any]) -> Path:
    save_file(content, folder / "model.safetensors")
    return folder / "model.safetensors"


def formula(content: dict[str, Any], texts: list[str], strong: int, weak: int) -> Any:
    """As `MFModel.forward` there: classifier(normalize(P[model]) * text_proj(embedding)), sigmoid of the difference."""
    scores = []
    for embedding in RandomEmbedder().embed(texts).astype(np.float64):
        vectors = content["P.weight"][[strong, weak]].astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        projected = content["text_proj.0.weight"] @ embedding
        scores.append(((vectors * projected) @ content["classifier.0.weight"].T)[:, 0])
    logits = np.array(scores)
    return 1.0 / (1.0 + np.exp(logits[:, 1] - logits[:, 0]))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_scores_are_those_of_the_published_formula(tmp_path: Path, dtype: Any) -> None:
    content = tensors(dtype)
    texts = ["a", "bb", "ccc", ""]
    router = load_matrix_factorization(written(tmp_path, content), embedder=RandomEmbedder(), threshold=0.11593)
    assert (router.pair, router.threshold, router.models) == (DEFAULT_PAIR, 0.11593, MODELS)
    np.testing.assert_allclose(router.win_probability(texts), formula(content, texts, 24, 36), atol=1e-9)
    other = router.with_pair(ModelPair("zephyr-7b-beta", "RWKV-4-Raven-14B"))
    np.testing.assert_allclose(other.win_probability(texts), formula(content, texts, 63, 0), atol=1e-9)


def test_scores_are_those_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra")
    content = tensors()
    embeddings = RandomEmbedder().embed(["a", "bb"])
    p, projection, head = (torch.tensor(content[name]) for name in PUBLISHED)
    with warnings.catch_warnings(), torch.no_grad():
        vectors = torch.nn.functional.normalize(p[[24, 36]], p=2, dim=1)
        logits = (vectors * (torch.tensor(embeddings) @ projection.T)[:, None]) @ head.T
        expected = torch.sigmoid(logits[:, 0, 0] - logits[:, 1, 0]).numpy()
    router = load_matrix_factorization(written(tmp_path, content), embedder=RandomEmbedder())
    np.testing.assert_allclose(router.win_probability_of_embeddings(embeddings), expected, atol=1e-5)


def test_a_checkpoint_of_the_trainer_reads_alike(tmp_path: Path) -> None:
    content = tensors()
    expected = load_matrix_factorization(written(tmp_path, content), embedder=RandomEmbedder()).weights
    names = {"text_proj.0.weight": "text_proj.weight", "classifier.0.weight": "classifier.weight"}
    trainers = {names.get(name, name): tensor for name, tensor in content.items()}
    trainers["Q.weight"] = np.zeros((3, 1536), dtype=np.float32)
    file = written(tmp_path, trainers)
    np.testing.assert_array_equal(load_matrix_factorization(file, embedder=RandomEmbedder()).weights, expected)


def test_a_folder_is_read_too_and_the_result_can_be_saved(tmp_path: Path) -> None:
    written(tmp_path, tensors())
    router = load_matrix_factorization(tmp_path, embedder=RandomEmbedder())
    router.save_pretrained(tmp_path / "ours")
    loaded = type(router).from_pretrained(tmp_path / "ours", embedder=RandomEmbedder())
    np.testing.assert_array_equal(loaded.win_probability(["a"]), router.win_probability(["a"]))


def test_the_default_embedder_makes_no_client_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    router = load_matrix_factorization(written(tmp_path, tensors()))
    assert getattr(router.embedder, "dimensions", None) == 1536
    assert "text-embedding-3-small" in str(getattr(router.embedder, "model_id", ""))


def test_the_names_are_the_sorted_ones_of_the_arena() -> None:
    assert len(MODELS) == len(set(MODELS)) == 64
    assert list(MODELS) == sorted(MODELS)
    # Positions as published, spread over the list.
    for position, name in {0: "RWKV-4-Raven-14B", 24: "gpt-4-1106-preview", 36: "mixtral-8x7b-instruct-v0.1"}.items():
        assert MODELS[position] == name
    assert (MODELS[44], MODELS[63]) == ("palm-2", "zephyr-7b-beta")


def test_other_names_for_the_rows(tmp_path: Path) -> None:
    content = tensors()
    content["P.weight"] = content["P.weight"][:2]
    file = written(tmp_path, content)
    with pytest.raises(PersistenceError, match="2 models, but 64 names"):
        load_matrix_factorization(file, embedder=RandomEmbedder())
    pair = ModelPair("mine", "yours")
    router = load_matrix_factorization(file, embedder=RandomEmbedder(), models=["mine", "yours"], pair=pair)
    assert router.models == ("mine", "yours")
    with pytest.raises(ConfigurationError, match="unknown model"):
        load_matrix_factorization(file, embedder=RandomEmbedder(), models=["mine", "yours"])


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in tensors().items() if key != name}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no projection": (_without("text_proj.0.weight"), "lacks text_proj.0.weight or text_proj.weight"),
    "another model": ({"encoder.weight": np.zeros((2, 2))}, "lacks P.weight.*and holds.*encoder.weight"),
    "one key too many": (tensors() | {"text_proj.0.bias": np.zeros(128)}, "text_proj.0.bias"),
    "width": (tensors() | {"text_proj.0.weight": np.zeros((64, 1536))}, r"text_proj.0.weight \(64, 1536\)"),
    "classes": (tensors() | {"classifier.0.weight": np.zeros((3, 128))}, r"classifier.0.weight \(3, 128\)"),
    "one axis": (tensors() | {"P.weight": np.zeros(128)}, r"P.weight \(128,\)"),
    "no number": (tensors() | {"P.weight": np.full((64, 128), np.nan)}, "not finite"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_such_checkpoint_is_refused(case: str, tmp_path: Path) -> None:
    content, message = WRONG[case]
    with pytest.raises(PersistenceError, match=message):
        load_matrix_factorization(written(tmp_path, content), embedder=RandomEmbedder())


def test_an_embedder_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="64 x 256"):
        load_matrix_factorization(written(tmp_path, tensors()), embedder="static")


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin"])
def test_pickles_are_refused_unread(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    for path in (file, tmp_path):
        with pytest.raises(PersistenceError, match=r"safetensors\.torch\.save_file"):
            load_matrix_factorization(path, embedder=RandomEmbedder())


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RouterNotFoundError, match=r"holds no model\.safetensors"):
        load_matrix_factorization(tmp_path, embedder=RandomEmbedder())
    with pytest.raises(RouterNotFoundError, match="no file or folder"):
        load_matrix_factorization(tmp_path / "missing", embedder=RandomEmbedder())
    (tmp_path / "damaged.safetensors").write_bytes(b"123")
    with pytest.raises(PersistenceError, match="cannot be read"):
        load_matrix_factorization(tmp_path / "damaged.safetensors", embedder=RandomEmbedder())


def test_a_hub_id_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, tensors())
    asked: list[tuple[str, str]] = []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    router = load_matrix_factorization("routellm/mf_gpt4_augmented", embedder=RandomEmbedder())
    assert router.models == MODELS
    assert asked == [("routellm/mf_gpt4_augmented", "model.safetensors")]
