"""Checkpoints published by RouteLLM (github.com/lm-sys/RouteLLM, Apache-2.0), read without pickle.

The matrix factorization needs no torch; BERT and the causal LLM are transformers, and need it.
"""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute.embedding import as_embedder
from prefroute.errors import ConfigurationError, PersistenceError, RouterNotFoundError
from prefroute.persistence import read_tensors
from prefroute.routers.matrix_factorization import MatrixFactorizationRouter
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from prefroute.embedding import Embedder
    from prefroute.routers.bert import BertRouter
    from prefroute.routers.causal_lm import CausalLMRouter

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

_INSTRUCTION_FILES = ("system_ft_v5.txt", "classifier_ft_v5.txt")
"""What the model is asked to do, and what stands around the question, in a causal-LLM checkpoint."""

BERT_LABEL_VALUES = (1.0, 0.0, 0.0)
"""Win, tie, loss: a win alone counts."""

LLAMA_3 = "meta-llama/Meta-Llama-3-8B"
"""What the published causal-LLM checkpoints were trained from."""


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


def load_bert(
    path: str | Path,
    *,
    pair: ModelPair = DEFAULT_PAIR,
    threshold: float | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> BertRouter:
    """Load a BERT checkpoint of RouteLLM: three labels, of which a win alone counts, P = 1 - (p_tie + p_loss).

    Args:
        path: A folder, or a Hugging Face hub id such as `routellm/bert_gpt4_augmented`.
        pair: What the router's two sides are called; the checkpoint knows only that one is the strong one.
        threshold: The default threshold.
        device: As for `load_router`.
        dtype: As for `load_router`.

    Returns:
        The router.

    Raises:
        ConfigurationError: There is no such model, or it is no sequence classifier of three labels.
        MissingExtraError: torch, transformers or accelerate is not installed.
    """
    from prefroute.routers._transformer import load_parts, tried
    from prefroute.routers.bert import KIND, BertRouter

    model, tokenizer = load_parts(KIND, path, device=device, dtype=dtype)
    return tried(
        BertRouter(model=model, tokenizer=tokenizer, pair=pair, label_values=BERT_LABEL_VALUES, threshold=threshold)
    )


def load_causal_lm(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    pair: ModelPair = DEFAULT_PAIR,
    threshold: float | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> CausalLMRouter:
    """Load a causal-LLM checkpoint of RouteLLM: five label tokens, the last five ids; P = 1 - P(label >= 4).

    The published code lets the model generate the assistant's header and then the label, in six passes; here the
    header is part of the prompt and one pass gives the label's probabilities.

    Args:
        path: A folder, or a Hugging Face hub id such as `routellm/causal_llm_gpt4_augmented`. The instruction is read
            from its `system_ft_v5.txt` and `classifier_ft_v5.txt`.
        tokenizer: Folder or hub id of the tokenizer; None for beside the model in a folder that has one, else that of
            Llama 3 8B, which the published checkpoints were trained from and whose access has to be asked for.
        pair: What the router's two sides are called.
        threshold: The default threshold.
        device: As for `load_router`.
        dtype: As for `load_router`.

    Returns:
        The router.

    Raises:
        RouterNotFoundError: There is no such checkpoint, or it lacks its instruction.
        ConfigurationError: The model or the tokenizer cannot be loaded, or do not fit each other.
        MissingExtraError: torch, transformers or accelerate is not installed.
    """
    from prefroute.routers._prompt_format import build_format
    from prefroute.routers._transformer import load_parts, tried
    from prefroute.routers.causal_lm import KIND, PUBLISHED_VALUES, CausalLMRouter, label_tokens

    instruction, question = (_text_beside(path, name) for name in _INSTRUCTION_FILES)
    own = (Path(path) / "tokenizer.json").is_file()
    words_from = tokenizer if tokenizer is not None else path if own else LLAMA_3
    model, words = load_parts(KIND, path, tokenizer=words_from, device=device, dtype=dtype)
    labels = label_tokens(len(PUBLISHED_VALUES))
    words.add_tokens(list(labels), special_tokens=True)
    found = [int(words.get_vocab()[label]) for label in labels]
    rows = int(model.get_output_embeddings().weight.shape[0])
    if found != list(range(rows - len(labels), rows)):
        msg = (
            f"{path} is no causal-LLM checkpoint of RouteLLM: {labels[0]} to {labels[-1]} should be the last of its "
            f"{rows} tokens, but are numbers {found[0]} to {found[-1]}; give tokenizer="
        )
        raise ConfigurationError(msg)
    return tried(
        CausalLMRouter(
            model=model,
            tokenizer=words,
            prompt_format=build_format(words, kind="llama-3", instruction=instruction, question=question),
            labels=labels,
            pair=pair,
            label_values=PUBLISHED_VALUES,
            threshold=threshold,
        )
    )


def _text_beside(path: str | Path, name: str) -> str:
    """A text file of a checkpoint."""
    file = Path(path) / name if Path(path).is_dir() else _from_hub(str(path), name)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        wanted = " and ".join(_INSTRUCTION_FILES)
        msg = f"{file} cannot be read: {error}; a causal-LLM checkpoint of RouteLLM has {wanted}"
        raise RouterNotFoundError(msg) from error


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
    return _from_hub(str(path), _FILE)


def _from_hub(repository: str, name: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repository, name))
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        kind = type(error).__name__
        msg = f"no file or folder {repository}, and the hub gave no {name} of that name: {kind}: {reason}"
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
