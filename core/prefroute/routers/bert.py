"""The BERT classifier (RouteLLM, arXiv 2406.18665, section 4.1): an encoder with a classification head."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from prefroute._transformers import MODEL_FOLDER
from prefroute.errors import ConfigurationError
from prefroute.persistence import CONFIG_FILE, SavedRouter, validated
from prefroute.routers._token_batches import Tokens, keep_end_characters, keep_ends, padded
from prefroute.routers._transformer import (
    CHARACTERS_A_TOKEN,
    FineTuningReport,
    TransformerRouter,
    restored,
)
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

KIND = "AutoModelForSequenceClassification"
"""What the transformers library calls such models."""

MAX_LENGTH = 512

_VALUES = {1: (1.0,), 2: (0.0, 1.0), 3: (1.0, 0.5, 0.0)}
"""What each label counts by default: the logit of a win; no win, win; win, tie, loss."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The fields of `config.json`."""

    strong: str
    weak: str
    label_values: list[float]
    max_length: int
    training: FineTuningReport | None = None


class BertRouter(TransformerRouter):
    """P(strong wins) from an encoder's classification head, fully fine-tuned.

    One label: P = sigmoid(W h + b), as in the paper. Three labels (win, tie, loss of the strong model): P is a sum of
    their probabilities, each counting by its `label_values`; published checkpoints count wins alone, (1, 0, 0).
    A prompt longer than `max_length` keeps its head and its tail. Special tokens that stand in a prompt are ordinary
    text. `train_bert` makes such a router, `prefroute.compat.routellm.load_bert` reads a published one.
    """

    router_type: ClassVar[str] = "bert"

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        pair: ModelPair,
        label_values: Sequence[float] | None = None,
        max_length: int = MAX_LENGTH,
        threshold: float | None = None,
        training: FineTuningReport | None = None,
    ) -> None:
        """Put together a router from its parts.

        Args:
            model: A sequence classifier of the transformers library, in evaluation mode.
            tokenizer: Its tokenizer.
            pair: The two models.
            label_values: What each of the model's k labels counts towards P(strong wins), shape (k,); None for what
                `train_bert` uses: (1,) of one label, (0, 1) of two, (1, 0.5, 0) of three.
            max_length: Tokens of a prompt that are read, at most as many as the model has positions.
            threshold: The default threshold.
            training: What came out of its training.

        Raises:
            ConfigurationError: The parts do not fit together.
        """
        labels = int(model.config.num_labels)
        values = _VALUES.get(labels) if label_values is None else label_values
        if values is None or len(values) != labels:
            msg = f"the model has {labels} labels, so label_values must have as many numbers; got {label_values!r}"
            raise ConfigurationError(msg)
        super().__init__(
            model=model,
            tokenizer=tokenizer,
            pair=pair,
            label_values=values,
            max_length=min(max_length, positions_of(model)),
            threshold=threshold,
            training=training,
        )
        self._encoder = Encoder(tokenizer, self.max_length)

    def trial_prompts(self) -> list[str]:
        """Also one that is cut, for positions that the model does not have."""
        return [*super().trial_prompts(), "why " * self.max_length]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self._encoder(texts)

    def _logits(self, rows: list[list[int]]) -> Any:
        return self.model(**bert_inputs(rows, self._encoder.pad, self.model.device)).logits

    def _to_saved(self, folder: Path) -> SavedRouter:
        self._save_model(folder / MODEL_FOLDER)
        settings = _Settings(
            strong=self.pair.strong,
            weak=self.pair.weak,
            label_values=self.label_values.tolist(),
            max_length=self.max_length,
            training=self.training,
        )
        return SavedRouter(settings=asdict(settings))

    @classmethod
    def _from_saved(cls, saved: SavedRouter, folder: Path) -> Self:
        settings = validated(_Settings, saved.settings, folder / CONFIG_FILE)

        def build(**parts: Any) -> Any:
            return cls(
                pair=ModelPair(settings.strong, settings.weak),
                label_values=settings.label_values,
                max_length=settings.max_length,
                training=settings.training,
                **parts,
            )

        router: Self = restored(build, KIND, saved, folder)
        return router


class Encoder:
    """Prompts as an encoder wants them: special tokens around them, the middle of long ones left out.

    Args:
        tokenizer: The model's.
        max_length: Tokens at most, special ones counted.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.max_length = max_length
        self.pad = int(tokenizer.pad_token_id or 0)
        self._tokens = Tokens(tokenizer, plain=True)
        self._before, self._behind = self._tokens.around()

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text."""
        room = self.max_length - len(self._before) - len(self._behind)
        cut = [keep_end_characters(text, self.max_length * CHARACTERS_A_TOKEN) for text in texts]
        return [[*self._before, *keep_ends(tokens, room), *self._behind] for tokens in self._tokens(cut)]


def bert_inputs(rows: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, Any]:
    """What an encoder is called with.

    Args:
        rows: Tokens of n prompts.
        pad: The token that fills gaps.
        device: Where the model is.

    Returns:
        Its keyword arguments; without a mask where nothing is masked, which is quicker.
    """
    import torch

    tokens, mask = padded(rows, pad, left=False)
    inputs = {"input_ids": torch.from_numpy(tokens).to(device)}
    if not mask.all():
        inputs["attention_mask"] = torch.from_numpy(mask).to(device)
    return inputs


def positions_of(model: Any) -> int:
    """How many tokens a model can read; those that count positions from behind the padding token have fewer."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    rows = getattr(table, "num_embeddings", None)
    if rows is None:
        return int(getattr(model.config, "max_position_embeddings", None) or 2**31)
    padding = getattr(table, "padding_idx", None)
    return int(rows) - (0 if padding is None else int(padding) + 1)
