"""Fakes for tests of code that uses a router: no download, no key, no chance."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefroute._torch import needs_torch
from prefroute.inputs import as_prompts
from prefroute.router import Router

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from prefroute.types import OnError

__all__ = [
    "FailingRouter",
    "FakeEmbedder",
    "FixedRouter",
    "SlowRouter",
    "write_tiny_encoder",
    "write_tiny_llama",
]


class FixedRouter(Router):
    """Gives scores that the test chose.

    Args:
        score: Score of every prompt that `scores` does not name.
        scores: Scores by exact prompt text.
        threshold: Default threshold.

    Attributes:
        prompts: Every prompt it was asked, in order.
    """

    def __init__(
        self, score: float = 0.5, scores: Mapping[str, float] | None = None, *, threshold: float | None = 0.5
    ) -> None:
        self.score = score
        self.scores = dict(scores or {})
        self.threshold = threshold
        self.prompts: list[str] = []

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """The chosen scores, shape (n,)."""
        import numpy as np

        texts = as_prompts(prompts)
        self.prompts.extend(texts)
        return np.array([self.scores.get(text, self.score) for text in texts], dtype=np.float64)


class FailingRouter(Router):
    """Raises the given exception at every call.

    Args:
        error: What it raises.
        threshold: Default threshold.
        on_error: As for every router.
    """

    def __init__(
        self, error: Exception | None = None, *, threshold: float | None = 0.5, on_error: OnError = "strong"
    ) -> None:
        self.error = RuntimeError("this router always fails") if error is None else error
        self.threshold = threshold
        self.on_error = on_error

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:  # noqa: ARG002 - it never looks
        """Raise the chosen exception."""
        raise self.error


class SlowRouter(FixedRouter):
    """A `FixedRouter` that takes its time.

    Args:
        seconds: How long each call sleeps.
        score: Score of every prompt.
        threshold: Default threshold.
        time_limit: As for every router.
    """

    def __init__(
        self,
        seconds: float,
        score: float = 0.5,
        *,
        threshold: float | None = 0.5,
        time_limit: float | None = None,
    ) -> None:
        super().__init__(score, threshold=threshold)
        self.seconds = seconds
        self.time_limit = time_limit

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Sleep, then the score, shape (n,)."""
        time.sleep(self.seconds)
        return super().win_probability(prompts)


class FakeEmbedder:
    """Embeds a text as a unit vector that depends on its characters alone.

    Args:
        dimension: Length d of the vectors.
    """

    def __init__(self, dimension: int = 8) -> None:
        self.dimension = dimension

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of norm 1, shape (n, d)."""
        import numpy as np

        rows = np.empty((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8])
            row[:] = np.random.default_rng(seed).standard_normal(self.dimension)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
"""Of the tiny models."""


def write_tiny_encoder(
    folder: str | Path, *, texts: Sequence[str] = (), labels: int | None = None, seed: int = 0, **config: Any
) -> Path:
    """Write a BERT of random weights with a tokenizer, for tests of training and serving that download nothing.

    Args:
        folder: Where to.
        texts: What the tokenizer's byte pairs are learnt from.
        labels: Of the classification head; None to leave the head to training.
        seed: Of the weights.
        **config: Fields of the library's `BertConfig`, and `vocabulary`, the most tokens that are learnt; by default
            2 layers of 32, 128 positions, no dropout.

    Returns:
        The folder.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    needs_torch("a tiny encoder", "torch", "transformers", extra="transformers")
    import transformers

    tokenizer = _tokenizer(texts, config.pop("vocabulary", 400), begin="[CLS]", end="[SEP]", around=True)
    sizes = {
        "max_position_embeddings": 128,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        **({} if labels is None else {"num_labels": labels}),
    }
    kind = transformers.BertModel if labels is None else transformers.BertForSequenceClassification
    return _written(folder, kind, transformers.BertConfig, sizes | config, tokenizer, seed=seed)


def write_tiny_llama(folder: str | Path, *, texts: Sequence[str] = (), seed: int = 0, **config: Any) -> Path:
    """The same for a causal language model of the Llama kind.

    Args:
        folder: Where to.
        texts: What the tokenizer's byte pairs are learnt from.
        seed: Of the weights.
        **config: Fields of the library's `LlamaConfig`, and `vocabulary`, the most tokens that are learnt; by default
            2 layers of 32, 1,024 positions.

    Returns:
        The folder.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    needs_torch("a tiny Llama", "torch", "transformers", extra="transformers")
    import transformers

    tokenizer = _tokenizer(texts, config.pop("vocabulary", 400), begin="<s>", end="</s>", around=False)
    sizes = {
        "max_position_embeddings": 1024,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    kind, settings = transformers.LlamaForCausalLM, transformers.LlamaConfig
    return _written(folder, kind, settings, sizes | config, tokenizer, seed=seed)


def _tokenizer(texts: Sequence[str], vocabulary: int, *, begin: str, end: str, around: bool) -> Any:
    """Byte pairs of these texts; whatever they lack is bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[begin, end, "[PAD]"],
        show_progress=False,
    )
    words.train_from_iterator(list(texts), trainer)
    if around:
        places = [(begin, words.token_to_id(begin)), (end, words.token_to_id(end))]
        words.post_processor = processors.TemplateProcessing(single=f"{begin} $A {end}", special_tokens=places)
    roles = ("cls_token", "sep_token") if around else ("bos_token", "eos_token")
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=words, **dict(zip((*roles, "pad_token"), (begin, end, "[PAD]"), strict=True)))


def _written(folder: str | Path, kind: Any, settings: Any, sizes: dict[str, Any], tokenizer: Any, *, seed: int) -> Path:
    import torch

    from prefroute._transformers import quiet_loading

    place = Path(folder)
    with quiet_loading(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(settings(**(_SIZES | {"vocab_size": len(tokenizer)} | sizes)))
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
    return place
