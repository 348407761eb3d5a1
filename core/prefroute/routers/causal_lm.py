"""The causal LLM classifier (RouteLLM, arXiv 2406.18665, section 4.1): one label token behind an instruction."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from prefroute._transformers import MODEL_FOLDER
from prefroute.errors import ConfigurationError
from prefroute.persistence import CONFIG_FILE, SavedRouter, validated
from prefroute.routers._last_token import LastToken
from prefroute.routers._prompt_format import Disarmed, PromptFormat
from prefroute.routers._token_batches import Tokens, keep_end_characters, keep_ends
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

KIND = "AutoModelForCausalLM"
"""What the transformers library calls such models."""

MAX_LENGTH = 2048

PUBLISHED_VALUES = (1.0, 1.0, 1.0, 0.0, 0.0)
"""Of five labels: P(strong) = 1 - P(label >= 4), as published."""

_PROBES = ("A", "why", "7 x", "\u00e9", "(", "\u65e5", '"')
"""Questions that begin and end so differently that only the format is common to them."""

_LONG = "Why is the sky blue, and why is it red when the sun goes down? " * 8
"""A question that is long beside a short one."""

_FEWEST_TOKENS = 4
"""Of a question, that must fit behind the instruction."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The fields of `config.json`."""

    strong: str
    weak: str
    before: str
    behind: str
    labels: list[str]
    label_values: list[float]
    max_length: int
    training: FineTuningReport | None = None


class CausalLMRouter(TransformerRouter):
    """P(strong wins) from the probabilities of label tokens, the first token that the model would say.

    Labels run from 1, where the weak model fails, to k, where it does as well; P is the sum of their probabilities
    (among the labels alone), each counting by its `label_values`. One forward pass a batch: the keys and values of the
    instruction are computed once, and only the last position's logits are made. A question that does not fit
    loses its middle, the instruction nothing. Special tokens that stand in a question are text.
    `train_causal_lm` makes such a router, `prefroute.compat.routellm.load_causal_lm` reads a published one.

    Attributes:
        prompt_format: What stands before and behind the question.
        labels: The label tokens, shape (k,).
    """

    router_type: ClassVar[str] = "causal-lm"

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        prompt_format: PromptFormat,
        labels: Sequence[str],
        pair: ModelPair,
        label_values: Sequence[float] | None = None,
        max_length: int = MAX_LENGTH,
        threshold: float | None = None,
        training: FineTuningReport | None = None,
    ) -> None:
        """Put together a router from its parts.

        Args:
            model: A causal language model of the transformers library, in evaluation mode.
            tokenizer: Its tokenizer, to which each label is one token.
            prompt_format: What stands before and behind the question.
            labels: The k label tokens, worst answer first.
            pair: The two models.
            label_values: What each label counts towards P(strong wins), shape (k,); None for equal
                steps from 1 to 0. `PUBLISHED_VALUES` are those of the published router.
            max_length: Tokens of instruction and question together, at most as many as the model has positions.
            threshold: The default threshold.
            training: What came out of its training.

        Raises:
            ConfigurationError: The parts do not fit together.
        """
        self.prompt_format = prompt_format
        self.labels = tuple(labels)
        values = default_values(len(self.labels)) if label_values is None else label_values
        if len(values) != len(self.labels):
            msg = f"label_values must have one number for each of {', '.join(self.labels)}; got {list(values)!r}"
            raise ConfigurationError(msg)
        positions = getattr(model.config, "max_position_embeddings", None) or max_length
        super().__init__(
            model=model,
            tokenizer=tokenizer,
            pair=pair,
            label_values=values,
            max_length=min(max_length, int(positions)),
            threshold=threshold,
            training=training,
        )
        self._label_ids = label_ids(tokenizer, self.labels)
        rows = model.get_output_embeddings().weight.shape[0] if model.get_output_embeddings() is not None else None
        if rows is not None and max(self._label_ids) >= rows:
            msg = f"the model has {rows} tokens, but the label {self.labels[-1]} is number {max(self._label_ids)}"
            raise ConfigurationError(msg)
        self._encoder = QuestionEncoder(tokenizer, prompt_format, self.labels, self.max_length)
        self._last_token = LastToken(model, self._encoder.prefix, self._encoder.probe())

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self._encoder(texts)

    def _computed(self, row: list[int]) -> int:
        return self._last_token.computed(row)

    def _logits(self, rows: list[list[int]]) -> Any:
        return self._last_token(rows, self._label_ids)

    def _to_saved(self, folder: Path) -> SavedRouter:
        self._save_model(folder / MODEL_FOLDER)
        settings = _Settings(
            strong=self.pair.strong,
            weak=self.pair.weak,
            before=self.prompt_format.before,
            behind=self.prompt_format.behind,
            labels=list(self.labels),
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
                prompt_format=PromptFormat(before=settings.before, behind=settings.behind),
                labels=settings.labels,
                pair=ModelPair(settings.strong, settings.weak),
                label_values=settings.label_values,
                max_length=settings.max_length,
                training=settings.training,
                **parts,
            )

        router: Self = restored(build, KIND, saved, folder)
        return router


class QuestionEncoder:
    """Questions in the format of a model, as tokens of the whole text, of which long questions lose their middle.

    Args:
        tokenizer: The model's.
        prompt_format: What stands around the question.
        labels: The label tokens.
        max_length: Tokens at most.

    Raises:
        ConfigurationError: The instruction leaves no room for a question.
    """

    def __init__(self, tokenizer: Any, prompt_format: PromptFormat, labels: tuple[str, ...], max_length: int) -> None:
        self.max_length = max_length
        self._format = prompt_format
        self._tokens = Tokens(tokenizer, plain=False)
        self._disarmed = Disarmed(tokenizer, labels)
        probes = self._tokens([self._whole(probe) for probe in _PROBES])
        self.prefix = _common(probes)
        self.suffix = _common([probe[::-1] for probe in probes])[::-1]
        if len(self.prefix) + len(self.suffix) + _FEWEST_TOKENS > max_length:
            msg = (
                f"the instruction alone takes {len(self.prefix) + len(self.suffix)} tokens, but max_length is "
                f"{max_length}; give a shorter instruction, or a model with a longer window"
            )
            raise ConfigurationError(msg)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each question and what stands around it."""
        most = self.max_length * CHARACTERS_A_TOKEN
        rows = self._tokens([self._whole(self._disarmed(keep_end_characters(text, most))) for text in texts])
        # The tokens where question and format meet may be joined: those count as the format's.
        head, tail = len(self.prefix) + 1, len(self.suffix) + 1
        return [keep_ends(row, self.max_length, head=head, tail=tail) for row in rows]

    def probe(self) -> list[int]:
        """Tokens of a longer question and what stands behind it."""
        (row,) = self([_LONG])
        return row[len(self.prefix) :]

    def _whole(self, question: str) -> str:
        return f"{self._format.before}{question}{self._format.behind}"


def label_tokens(count: int) -> tuple[str, ...]:
    """The label tokens, as published: `[[1]]` to `[[k]]`."""
    return tuple(f"[[{number}]]" for number in range(1, count + 1))


def default_values(count: int) -> tuple[float, ...]:
    """What the labels count where nothing else is said: the outcome that each stands for."""
    return tuple(np.linspace(1.0, 0.0, count).tolist())


def label_ids(tokenizer: Any, labels: Sequence[str]) -> list[int]:
    """Numbers of the label tokens.

    Raises:
        ConfigurationError: A label is not one token, or they are not different.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [label for label in labels if label not in vocabulary]
    if missing or len(labels) < 2 or len(set(labels)) != len(labels):  # noqa: PLR2004 - one label decides nothing
        msg = f"at least two different labels are needed, each a token of the tokenizer; got {list(labels)!r}"
        raise ConfigurationError(msg + (f", of which {', '.join(missing)} are no tokens" if missing else ""))
    return [int(vocabulary[label]) for label in labels]


def _common(rows: list[list[int]]) -> list[int]:
    """The tokens that all rows begin with."""
    shortest = min(map(len, rows))
    size = next((at for at in range(shortest) if len({row[at] for row in rows}) > 1), shortest)
    return rows[0][:size]
