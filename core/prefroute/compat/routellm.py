"""Checkpoints published by RouteLLM (github.com/lm-sys/RouteLLM, Apache-2.0), read without torch and without pickle."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute.embedding import as_embedder
from prefroute.errors import PersistenceError, RouterNotFoundError
from prefroute.persistence import read_tensors
from prefroute.routers.matrix_factorization import MatrixFactorizationRouter
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from prefroute.embedding import Embedder

EMBEDDING_MODEL = "openai:text-embedding-3-small"
"""The published checkpoints are trained on vectors of this model, 1,536 long."""

DEFAULT_PAIR = ModelPair(strong="gpt-4-1106-preview", weak="mixtral-8x7b-instruct-v0.1")
"""The pair of the published evaluation, by its Arena names."""

MODELS = (
    *("RWKV-4-Raven-14B", "alpaca-13b", "chatglm-6b", "chatglm2-6b", "chatglm3-6b", "claude-1", "claude-2.0"),
    *("claude-2.1", "claude-instant-1", "codellama-34b-instruct", "deepseek-llm-67b-chat", "dolly-v2-12b"),
    *("dolphin-2.2.1-mistral-7b", "falcon-180b-chat", "fastchat-t5-3b", "gemini-pro", "gemini-pro-dev-api"),
    *("gpt-3.5-turbo-0125", "gpt-3.5-turbo-0314", "gpt-3.5-turbo-0613", "gpt-3.5-turbo-1106", "gpt-4-0125-preview"),
    *("gpt-4-0314", "gpt-4-0613", "gpt-4-1106-preview", "gpt4all-13b-snoozy", "guanaco-33b", "koala-13b", "llama-13b"),
    *("llama-2-13b-chat", "llama-2-70b-chat", "llama-2-7b-chat", "llama2-70b-steerlm-chat", "mistral-7b-instruct"),
    *("mistral-7b-instruct-v0.2", "mistral-medium", "mixtral-8x7b-instruct-v0.1", "mpt-30b-chat", "mpt-7b-chat"),
    *("nous-hermes-2-mixtral-8x7b-dpo", "oasst-pythia-12b", "openchat-3.5", "openchat-3.5-0106"),
    *("openhermes-2.5-mistral-7b", "palm-2", "pplx-70b-online", "pplx-7b-online", "qwen-14b-chat", "qwen1.5-4b-chat"),
    *("qwen1.5-72b-chat", "qwen1.5-7b-chat", "solar-10.7b-instruct-v1.0", "stablelm-tuned-alpha-7b"),
    *("starling-lm-7b-alpha", "stripedhyena-nous-7b", "tulu-2-dpo-70b", "vicuna-13b", "vicuna-33b", "vicuna-7b"),
    *("wizardlm-13b", "wizardlm-70b", "yi-34b-chat", "zephyr-7b-alpha", "zephyr-7b-beta"),
)
"""Names of the rows of a published checkpoint, in order: the Arena's 64 models, sorted. A fact of the checkpoints,
from routellm/routers/matrix_factorization/model.py there."""

_KEYS = {
    "models": ("P.weight",),
    "projection": ("text_proj.0.weight", "text_proj.weight"),
    "head": ("classifier.0.weight", "classifier.weight"),
}
"""What each factor is called in a published checkpoint, then in one that its trainer left."""

_IGNORED = ("Q.weight",)
"""The trainer's table of prompt embeddings."""

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

_FILE = "model.safetensors"


def load_matrix_factorization(
    path: str | Path,
    *,
    embedder: str | Path | Embedder = EMBEDDING_MODEL,
    models: Sequence[str] = MODELS,
    pair: ModelPair = DEFAULT_PAIR,
    threshold: float | None = None,
) -> MatrixFactorizationRouter:
    """Load a matrix-factorization checkpoint of RouteLLM.

    The factors are multiplied out; scores are those of the published formula,
    `classifier(normalise(P[model]) * text_proj(embedding))`, without its download of an embedding a model.

    Args:
        path: A safetensors file, a folder that holds `model.safetensors`, or a Hugging Face hub id such as
            `routellm/mf_gpt4_augmented`.
        embedder: What the checkpoint was trained on, as for `as_embedder`; its client is made at first use.
        models: Names of the rows of `P.weight`.
        pair: The models to route between.
        threshold: The default threshold; RouteLLM's README gives 0.11593 for half strong calls on Arena prompts.

    Returns:
        The router; it knows every model of `models`.

    Raises:
        RouterNotFoundError: There is no such file.
        PersistenceError: It is not such a checkpoint, or a pickle; says what is wrong.
        ConfigurationError: The names, the pair or the embedder do not fit the checkpoint.
    """
    file = _locate(path)
    factors = _factors(read_tensors(file), file)
    vectors, projection, head = factors["models"], factors["projection"], factors["head"]
    if len(vectors) != len(models):
        msg = f"{file}: P.weight has {len(vectors)} models, but {len(models)} names were given; give models=[...]"
        raise PersistenceError(msg)
    # As torch.nn.functional.normalize does, which never divides by less than 1e-12.
    directions = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return MatrixFactorizationRouter(
        embedder=as_embedder(embedder),
        models=models,
        weights=(directions * head[0]) @ projection,
        pair=pair,
        threshold=threshold,
    )


def _locate(path: str | Path) -> Path:
    found = Path(path)
    if found.suffix in _PICKLED or (found.is_dir() and not (found / _FILE).is_file()):
        pickles = [found] if found.suffix in _PICKLED else [f for f in found.iterdir() if f.suffix in _PICKLED]
        if pickles:
            msg = (
                f"{pickles[0]} is a pickle, which can run any code when it is read, and is refused. Convert it where "
                "it is trusted: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')"
            )
            raise PersistenceError(msg)
        msg = f"{found} holds no {_FILE}; name a safetensors file, a folder with one, or a hub id"
        raise RouterNotFoundError(msg)
    if found.is_dir():
        return found / _FILE
    if found.is_file():
        return found
    return _from_hub(str(path))


def _from_hub(repository: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repository, _FILE))
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        kind = type(error).__name__
        msg = f"no file or folder {repository}, and the hub gave no {_FILE} of that name: {kind}: {reason}"
        raise RouterNotFoundError(msg) from error


def _factors(tensors: dict[str, NDArray[Any]], file: Path) -> dict[str, NDArray[np.float64]]:
    """The factors by name, checked against each other."""
    found = {name: next((key for key in keys if key in tensors), None) for name, keys in _KEYS.items()}
    missing = [" or ".join(_KEYS[name]) for name, key in found.items() if key is None]
    unknown = sorted(tensors.keys() - set(found.values()) - set(_IGNORED))
    if missing or unknown:
        lacks = [f"lacks {', '.join(missing)}"] if missing else []
        holds = [f"holds {reprlib.repr(unknown)}, which it should not"] if unknown else []
        msg = f"{file} is no matrix-factorization checkpoint of RouteLLM: it {' and '.join(lacks + holds)}"
        raise PersistenceError(msg)
    factors = {name: tensors[key] for name, key in found.items() if key is not None}
    vectors, projection, head = factors["models"], factors["projection"], factors["head"]
    width = vectors.shape[-1] if vectors.ndim else 0
    fits = vectors.ndim == projection.ndim == head.ndim == 2 and len(projection) == width  # noqa: PLR2004 - matrices
    if not fits or head.shape != (1, width) or not len(vectors):
        shapes = ", ".join(f"{found[name]} {factor.shape}" for name, factor in factors.items())
        msg = (
            f"{file}: the shapes should be models x k, k x dimensions of the embedding and 1 x k "
            f"(published: 64 x 128, 128 x 1536, 1 x 128), got {shapes}"
        )
        raise PersistenceError(msg)
    numbers = {name: factor.astype(np.float64) for name, factor in factors.items()}
    if not all(np.isfinite(factor).all() for factor in numbers.values()):
        msg = f"{file} holds numbers that are not finite; fetch it anew"
        raise PersistenceError(msg)
    return numbers
