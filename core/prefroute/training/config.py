"""How routers are trained: frozen settings, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from prefroute.errors import ConfigurationError
from prefroute.inputs import finite_or_none
from prefroute.routers._prompt_format import QUESTION, Format

if TYPE_CHECKING:
    from typing import Self

Ties = Literal["half", "drop"]
Schedule = Literal["linear", "constant", "cosine"]
Loss = Literal["labels", "vocabulary"]

_MOST_LABELS = 9


@dataclass(frozen=True, kw_only=True)
class MatrixFactorizationConfig:
    """How a matrix factorization is trained; the defaults were chosen by cross-validation.

    Attributes:
        dimensions: Length k of the models' vectors; the paper's d_model.
        bias: Whether the projected prompt has a bias, as in the paper; the published code has none.
        ties: `"half"` learns ties as outcome 0.5, which routing needs; `"drop"` leaves them out, as published.
        standardise: Whether the coordinates of the embedding are centred and given one spread first.
        max_epochs: Passes over the battles at most.
        patience: Passes without a better held-out loss before it stops, keeping the best; None for all passes,
            keeping the last, as published.
        learning_rate: Of Adam.
        weight_decay: L2 penalty, added to the gradient by Adam; None for 1.2 over the number of battles, and at
            most 0.003: one prior for any amount of data.
        batch_size: Battles a step.
        noise: Standard deviation of the Gaussian noise added to each coordinate of the embedding.
        folds: Factorizations trained, each on all prompts but its own share, then averaged. 1 for one alone,
            which never sees the share that `validation_share` holds out. None for 5 where there are at most
            5,000 prompts, for whom a held-out share is a loss, and 1 beyond.
        validation_share: Share of the prompts held out when there is one fold.
        seed: Of the folds, the first factors, the order of the battles and the noise.
        device: As torch names it; `"auto"` for a GPU where there is one.

    Raises:
        ConfigurationError: A value is out of range.
    """

    dimensions: int = 128
    bias: bool = True
    ties: Ties = "half"
    standardise: bool = True
    max_epochs: int = 1000
    patience: int | None = 5
    learning_rate: float = 3e-4
    weight_decay: float | None = None
    batch_size: int = 64
    noise: float = 0.0
    folds: int | None = None
    validation_share: float = 0.1
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what could not be trained."""
        for name in ("dimensions", "max_epochs", "batch_size"):
            _check(name, getattr(self, name), _is_integer(getattr(self, name), 1), "an integer of at least 1")
        for name in ("patience", "folds"):
            value = getattr(self, name)
            _check(name, value, value is None or _is_integer(value, 1), "an integer of at least 1, or None")
        _check("seed", self.seed, _is_integer(self.seed, 0) and self.seed < 2**62, "an integer from 0 to 2**62 - 1")
        for name in ("bias", "standardise"):
            _check(name, getattr(self, name), isinstance(getattr(self, name), bool), "True or False")
        for name in ("learning_rate", "validation_share"):
            number = finite_or_none(getattr(self, name))
            _check(name, getattr(self, name), number is not None and number > 0, "a finite number above 0")
        for name in ("weight_decay", "noise"):
            value = getattr(self, name)
            number = 0.0 if value is None and name == "weight_decay" else finite_or_none(value)
            _check(name, value, number is not None and number >= 0, "a finite number of at least 0")
        _check("validation_share", self.validation_share, self.validation_share < 1, "below 1")
        _check("ties", self.ties, self.ties in get_args(Ties), " or ".join(get_args(Ties)))
        _check("device", self.device, isinstance(self.device, str) and bool(self.device), "a device that torch knows")

    @classmethod
    def published(cls, **changes: Any) -> Self:
        """The settings of the published training code (lm-sys/RouteLLM, train_matrix_factorization.py).

        Its 100 epochs are the code's; the paper trains about 10.

        Args:
            **changes: Fields to set otherwise.
        """
        settings = cls(
            bias=False,
            ties="drop",
            standardise=False,
            max_epochs=100,
            patience=None,
            learning_rate=3e-4,
            weight_decay=1e-5,
            batch_size=64,
            noise=0.1,
            folds=1,
            validation_share=0.05,
        )
        return replace(settings, **changes)


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """What fine-tuning an encoder and a causal language model have in common; see the two classes below.

    Attributes:
        model: A hub id, or a folder.
        revision: Version of the model on the hub; None for the latest.
        max_length: Tokens of a prompt that are read; the middle of a longer one is left out.
        steps: Optimiser steps, if `epochs` is None.
        epochs: Passes over the training prompts, instead of `steps`.
        batch_size: Prompts a step, all processes together: the result does not depend on how many there are.
        micro_batch_size: Prompts that one process computes at once, for models that need the memory; gradients are
            added up to the step. None for its whole share of the batch.
        learning_rate: Of AdamW, at its highest.
        schedule: What becomes of it: `"linear"` and `"cosine"` fall to 0 at the last step.
        warmup: Share of the steps during which it rises from 0.
        weight_decay: Of AdamW.
        validation_share: Share of the prompts held out, which choose the step whose weights are kept.
        evaluations: How often, evenly over the steps, the held-out loss is measured and a checkpoint written.
        gradient_checkpointing: Compute activations again when they are needed: less memory, a third more time.
        seed: Of the prompts held out, the new weights, the order of the prompts and dropout.
        device: `"auto"` for the GPU that the launcher gives a process, or the only one, or else the CPU; or `"cpu"`.

    Raises:
        ConfigurationError: A value is out of range.
    """

    model: str = ""
    revision: str | None = None
    max_length: int = 512
    steps: int = 2000
    epochs: float | None = None
    batch_size: int = 16
    micro_batch_size: int | None = None
    learning_rate: float = 1e-5
    schedule: Schedule = "linear"
    warmup: float = 0.0
    weight_decay: float = 0.01
    validation_share: float = 0.1
    evaluations: int = 10
    gradient_checkpointing: bool = False
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what could not be trained."""
        _check("model", self.model, isinstance(self.model, str) and bool(self.model), "a hub id or a folder")
        _check("revision", self.revision, isinstance(self.revision, str | None), "a str or None")
        for name, least in (("max_length", 8), ("steps", 1), ("batch_size", 1), ("evaluations", 1)):
            _check(name, getattr(self, name), _is_integer(getattr(self, name), least), f"an integer from {least} on")
        micro = self.micro_batch_size
        fits = micro is None or (_is_integer(micro, 1) and self.batch_size % micro == 0)
        _check("micro_batch_size", micro, fits, f"a divisor of batch_size, which is {self.batch_size}, or None")
        epochs = 1.0 if self.epochs is None else finite_or_none(self.epochs)
        _check("epochs", self.epochs, epochs is not None and epochs > 0, "a finite number above 0, or None")
        for name, inclusive in (("learning_rate", False), ("weight_decay", True), ("warmup", True)):
            number = finite_or_none(getattr(self, name))
            fits = number is not None and (number > 0 or (inclusive and number == 0))
            _check(name, getattr(self, name), fits, f"a finite number {'of at least' if inclusive else 'above'} 0")
        share = finite_or_none(self.validation_share)
        fits = share is not None and 0 < share < 1
        _check("validation_share", self.validation_share, fits, "a number between 0 and 1")
        _check("warmup", self.warmup, self.warmup < 1, "below 1")
        _check("schedule", self.schedule, self.schedule in get_args(Schedule), " or ".join(get_args(Schedule)))
        _check(
            "gradient_checkpointing",
            self.gradient_checkpointing,
            isinstance(self.gradient_checkpointing, bool),
            "True or False",
        )
        _check("seed", self.seed, _is_integer(self.seed, 0) and self.seed < 2**32, "an integer from 0 to 2**32 - 1")
        _check("device", self.device, self.device in {"auto", "cpu"}, "'auto' or 'cpu'; a launcher chooses among GPUs")


@dataclass(frozen=True, kw_only=True)
class BertConfig(FineTuningConfig):
    """How a BERT router is trained; the defaults are the paper's settings (arXiv 2406.18665, appendix A).

    Attributes:
        labels: 1 for P = sigmoid(W h + b), as in the paper, ties being half a win; 3 for win, tie and loss, as the
            published checkpoints have.
    """

    model: str = "FacebookAI/xlm-roberta-base"
    labels: Literal[1, 3] = 1

    def __post_init__(self) -> None:
        """Refuse what could not be trained."""
        super().__post_init__()
        _check("labels", self.labels, _is_integer(self.labels, 1) and self.labels in {1, 3}, "1 or 3")


@dataclass(frozen=True, kw_only=True)
class CausalLMConfig(FineTuningConfig):
    """How a causal language model is trained as a router; the model, its window and the steps are the paper's.

    Attributes:
        labels: How many label tokens. Outcomes are spread over them evenly: with 3, a win of the strong model, a tie, a
            win of the weak one; with 5, a judge's 1 to 5 (`reference_battles(..., graded=True)`). An outcome between
            two labels counts for both.
        label_values: What each label counts towards P(strong wins) when the router scores; None for equal
            steps from 1 to 0. Published, of five: (1, 1, 1, 0, 0), the probability that the judge gives less than 4.
        graded: Whether the outcomes are a judge's grades of the weak model's answers, with the strong one's as
            reference: the best grade then means that the strong model gains nothing, not that it loses. Only
            `router.validation` depends on it.
        balanced: Whether prompts of rarer labels are repeated until all labels are as frequent, as published. It
            raises the scores of what is rare, and leaves their order to the model.
        loss: Over what the label token is told apart: `"labels"`, among the label tokens alone, which is what is
            scored, or `"vocabulary"`, among all tokens, as published.
        instruction: What the model is asked to do; None for one of ours, which names the labels.
        question: What stands around the prompt, which goes in place of `{question}`.
        prompt_format: `"chat"` for the tokenizer's chat template, `"llama-3"` for the turns of Llama 3, `"plain"` for
            text alone, `"auto"` for the first of these that the tokenizer has.
        lora_rank: Rank of the low-rank updates of all linear layers (peft), which are added to the weights at the
            end; None to train all weights.
        lora_alpha: Their scale is `lora_alpha / lora_rank`.
    """

    model: str = "meta-llama/Meta-Llama-3-8B"
    max_length: int = 2048
    batch_size: int = 8
    learning_rate: float = 1e-5
    schedule: Schedule = "constant"
    labels: int = 3
    label_values: tuple[float, ...] | None = None
    graded: bool = False
    balanced: bool = True
    loss: Loss = "labels"
    instruction: str | None = None
    question: str = QUESTION
    prompt_format: Format = "auto"
    lora_rank: int | None = None
    lora_alpha: int = 32

    def __post_init__(self) -> None:
        """Refuse what could not be trained."""
        super().__post_init__()
        _check(
            "labels", self.labels, _is_integer(self.labels, 2) and self.labels <= _MOST_LABELS, "an integer from 2 to 9"
        )
        values = self.label_values
        numbers = [finite_or_none(value) for value in values or ()] if isinstance(values, tuple | None) else []
        shares = [number for number in numbers if number is not None and 0 <= number <= 1]
        fits = values is None or (len(shares) == len(numbers) == self.labels and len(set(shares)) > 1)
        _check("label_values", values, fits, f"a tuple of {self.labels} numbers from 0 to 1, not all alike, or None")
        for name in ("graded", "balanced"):
            _check(name, getattr(self, name), isinstance(getattr(self, name), bool), "True or False")
        _check("loss", self.loss, self.loss in get_args(Loss), " or ".join(get_args(Loss)))
        _check("instruction", self.instruction, isinstance(self.instruction, str | None), "a str or None")
        fits = isinstance(self.question, str) and self.question.count("{question}") == 1
        _check("question", self.question, fits, "a str that holds {question} once")
        _check(
            "prompt_format", self.prompt_format, self.prompt_format in get_args(Format), " or ".join(get_args(Format))
        )
        _check(
            "lora_rank",
            self.lora_rank,
            self.lora_rank is None or _is_integer(self.lora_rank, 1),
            "an integer from 1 on, or None",
        )
        _check("lora_alpha", self.lora_alpha, _is_integer(self.lora_alpha, 1), "an integer from 1 on")

    @classmethod
    def published(cls, **changes: Any) -> Self:
        """The paper's settings (arXiv 2406.18665, appendix A), with the published labels and loss.

        Args:
            **changes: Fields to set otherwise; the instruction is not published with the paper but with its
                checkpoints, as `system_ft_v5.txt` and `classifier_ft_v5.txt`.
        """
        return replace(
            cls(labels=5, label_values=(1.0, 1.0, 1.0, 0.0, 0.0), loss="vocabulary", learning_rate=1e-6), **changes
        )


def _is_integer(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check(name: str, value: object, fits: bool, wanted: str) -> None:  # noqa: FBT001 - the outcome of a check
    if not fits:
        msg = f"{name} must be {wanted}, got {value!r}"
        raise ConfigurationError(msg)
