"""What the routers around a fine-tuned transformer share: scoring in batches of tokens, saving, loading."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from prefroute._torch import AUTO, as_device, as_dtype, needs_torch, use_threads_that_are_there
from prefroute._transformers import MODEL_FOLDER, load_model, load_tokenizer, quiet_loading
from prefroute.bradley_terry import sigmoid
from prefroute.errors import ConfigurationError, PersistenceError
from prefroute.inputs import as_pair, as_prompts, finite_or_none
from prefroute.persistence import digest_of
from prefroute.router import Router
from prefroute.routers._int8 import to_int8
from prefroute.routers._token_batches import token_batches
from prefroute.routers._turns import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from prefroute.persistence import SavedRouter
    from prefroute.types import ModelPair

R = TypeVar("R")

CPU_TOKENS, GPU_TOKENS = 1024, 16384
"""Tokens of a batch: as many as keep two cores busy within their caches, and a GPU."""

CHARACTERS_A_TOKEN = 16
"""More than any text has: characters beyond this many times the window are cut before the text becomes tokens."""

_SERVING = ("torch", "transformers", "accelerate")


@dataclass(frozen=True, kw_only=True)
class FineTuningReport:
    """What came out of fine-tuning a transformer.

    Attributes:
        model: The model it began with, as it was named.
        prompts: Distinct prompts learnt from.
        validation_prompts: Prompts held out.
        steps: Optimiser steps made.
        resumed_step: The step of the checkpoint that it went on from after a stop; 0 where it was made in one go.
        best_step: The step whose weights were kept: that of the least held-out loss.
        train_loss: Log loss a prompt over the last steps before the end, in nats.
        validation_loss: Log loss a held-out prompt at the best step, in nats.
    """

    model: str
    prompts: int
    validation_prompts: int
    steps: int
    resumed_step: int = 0
    best_step: int
    train_loss: float
    validation_loss: float


class TransformerRouter(Router):
    """A router around a transformer that gives a few logits a prompt.

    Threads may share it: they take turns, a batch each. In a forked process it computes in one thread, on the CPU.

    Attributes:
        model: The `PreTrainedModel`, in evaluation mode.
        tokenizer: Its tokenizer.
        pair: The two models that are routed between.
        label_values: What each label counts towards P(strong wins), shape (k,).
        max_length: Tokens of a prompt that are read; the middle of a longer one is left out.
        token_budget: Tokens that are computed at once, padding counted; may be set.
        training: What came out of its training, if it was trained here.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        pair: ModelPair,
        label_values: Sequence[float],
        max_length: int,
        threshold: float | None,
        training: FineTuningReport | None,
    ) -> None:
        """Store the parts; see the subclasses."""
        self.model = model
        self.tokenizer = tokenizer
        self.pair = as_pair(pair)
        self.label_values = _checked_values(label_values)
        self.max_length = _checked_length(max_length)
        self.threshold = threshold
        self.training = training
        self.token_budget = CPU_TOKENS if self.device.startswith("cpu") else GPU_TOKENS
        self._turn = Turn()
        self._files: ModelFiles | None = None

    def __repr__(self) -> str:
        """The pair, the architecture, its size and where it computes."""
        kind = getattr(self.model.config, "model_type", type(self.model).__name__)
        size = sum(parameter.numel() for parameter in self.model.parameters())
        size += sum(getattr(module, "numbers", 0) for module in self.model.modules())
        return f"{type(self).__name__}({self.pair}, {kind}, {size / 1e6:.3g} M parameters on {self.device!r})"

    @property
    def token_budget(self) -> int:
        """Tokens that are computed at once."""
        return self._token_budget

    @token_budget.setter
    def token_budget(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            msg = f"token_budget must be an integer from 1 on, got {value!r}"
            raise ConfigurationError(msg)
        self._token_budget = value

    @property
    def device(self) -> str:
        """Where the model computes."""
        return str(next(self.model.parameters()).device)

    @property
    def models(self) -> tuple[str, ...]:
        """The two of its pair, sorted."""
        return tuple(sorted((self.pair.strong, self.pair.weak)))

    @abstractmethod
    def _encode(self, texts: list[str]) -> list[list[int]]:
        """Tokens of each text as the model wants them, at most `max_length`."""

    @abstractmethod
    def _logits(self, rows: list[list[int]]) -> Any:
        """Logits of the labels, a tensor of shape (n, k); called by one thread at a time."""

    def trial_prompts(self) -> list[str]:
        """Prompts of different length that a router is tried on when it is loaded."""
        return ["Why?", "Why is the sky blue? " * 3]

    def _computed(self, row: list[int]) -> int:
        """Hook: how many of a row's tokens a pass computes."""
        return len(row)

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Estimate P(strong model wins) for each prompt; see `Router.win_probability`."""
        import torch

        texts = as_prompts(prompts)
        if not texts:
            return np.empty(0)
        use_threads_that_are_there()
        rows = self._encode(texts)
        scores = np.empty(len(rows))
        for batch in token_batches([self._computed(row) for row in rows], self.token_budget):
            with self._turn, torch.inference_mode():
                logits = self._logits([rows[place] for place in batch]).float().cpu().numpy()
            scores[batch] = probabilities(logits, self.label_values)
        return scores

    def _save_model(self, folder: Path) -> None:
        """Write the model and its tokenizer: the files they were loaded from, or else what is in memory."""
        if self._files is not None:
            self._files.copy_to(folder)
        else:
            save_model_files(self.model, self.tokenizer, folder)


def probabilities(logits: NDArray[Any], label_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(strong wins) from the logits of the labels.

    Args:
        logits: Shape (n, k).
        label_values: What each label counts towards it, shape (k,); of a single label, the logistic function of its
            logit counts.

    Returns:
        Shape (n,).
    """
    wide = logits.astype(np.float64)
    if wide.shape[1] == 1:
        return sigmoid(wide[:, 0])
    shares = np.exp(wide - wide.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = (shares @ label_values) / shares.sum(axis=1)
    return np.clip(found, 0.0, 1.0)


def load_parts(
    kind: str,
    name: str | Path,
    *,
    tokenizer: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> tuple[Any, Any]:
    """Load a fine-tuned model to serve, and its tokenizer.

    Args:
        kind: What the transformers library calls such models.
        name: A folder or a hub id.
        tokenizer: Where the tokenizer is; None for beside the model.
        device: As torch names it; None for a GPU where there is one.
        dtype: One of `Dtype`; None for what the device does well.

    Returns:
        The model and the tokenizer.

    Raises:
        ConfigurationError: They cannot be loaded, or not so.
        MissingExtraError: torch, transformers or accelerate is not installed.
    """
    needs_torch("a router around a transformer", *_SERVING, extra="transformers")
    where = as_device(AUTO if device is None else device)
    numbers = as_dtype(AUTO if dtype is None else dtype, where)
    words = load_tokenizer(name if tokenizer is None else tokenizer)
    model = load_model(kind, name, device=where, dtype=numbers, complete=True)
    if numbers == "int8" and not to_int8(model.base_model):
        msg = f"the model {str(name)!r} has no linear layers that int8 could be for; leave dtype= out"
        raise ConfigurationError(msg)
    return model, words


def tried(router: R) -> R:
    """A router that has scored a few prompts: one that cannot would send every prompt to the strong model.

    Raises:
        ConfigurationError: It cannot; says where and with which numbers it was to compute.
    """
    own = cast("TransformerRouter", router)
    try:
        scores = own.win_probability(own.trial_prompts())
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        numbers = str(next(own.model.parameters()).dtype).removeprefix("torch.")
        msg = (
            f"the model cannot score on {own.device!r} in {numbers}: {type(error).__name__}: {reason}; "
            "give another dtype= or device="
        )
        raise ConfigurationError(msg) from error
    if not np.isfinite(scores).all():
        msg = f"the model's scores are not numbers on {own.device!r}; give dtype='float32'"
        raise ConfigurationError(msg)
    return router


def restored(build: Callable[..., R], kind: str, saved: SavedRouter, folder: Path) -> R:
    """Read a saved router.

    Args:
        build: Makes it from its model and tokenizer.
        kind: As for `load_parts`.
        saved: Its settings, and where it is to compute.
        folder: Where it lies.

    Returns:
        The router, which is saved again by its files.

    Raises:
        PersistenceError: The folder does not hold what it should.
        ConfigurationError: It cannot compute as the caller wants.
    """
    if not (folder / MODEL_FOLDER).is_dir():  # Else it would pass for a hub id.
        msg = f"{folder} lacks its folder {MODEL_FOLDER}; save the router again, or fetch it anew"
        raise PersistenceError(msg)
    try:
        model, tokenizer = load_parts(kind, folder / MODEL_FOLDER, device=saved.device, dtype=saved.dtype)
        router = tried(build(model=model, tokenizer=tokenizer))
    except ConfigurationError as error:
        if saved.device is not None or saved.dtype is not None:
            raise
        msg = f"{folder}: {error}"
        raise PersistenceError(msg) from error
    cast("TransformerRouter", router)._files = ModelFiles(folder / MODEL_FOLDER)  # noqa: SLF001 - of this module
    return router


def save_model_files(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model and its tokenizer as safetensors and JSON, and nothing that only code would read.

    Args:
        model: A `PreTrainedModel`.
        tokenizer: Its tokenizer.
        folder: Where to.

    Raises:
        PersistenceError: The model's weights are int8, which are made at loading.
    """
    if any("Int8Linear" in type(module).__name__ for module in model.modules()):
        msg = "weights in int8 cannot be saved; load the model with dtype='float32' and save that"
        raise PersistenceError(msg)
    with quiet_loading():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    keep_plain_files(folder)


def keep_plain_files(folder: Path) -> None:
    """Remove what is not read when a model is loaded, pickles among them."""
    # That file alone makes the tokenizer; a vocabulary for other libraries, and a chat template, are not read then.
    kept = {".json", ".safetensors"} | (set() if (folder / "tokenizer.json").is_file() else {".txt", ".model"})
    for path in folder.iterdir():
        if path.is_file() and path.suffix not in kept:
            path.unlink()


class ModelFiles:
    """The files that a model was loaded from, to be copied as they are: in memory its numbers may be fewer bits.

    Args:
        folder: Where they lie.
        keep: Held as long as this; a temporary folder, say.
    """

    def __init__(self, folder: Path, keep: Any = None) -> None:
        self.folder = folder
        self._keep = keep
        self._digests = self._found()

    def copy_to(self, folder: Path) -> None:
        """Copy them.

        Raises:
            PersistenceError: They are not what they were when the model was loaded.
        """
        try:
            changed = self._found() != self._digests
        except OSError:
            changed = True
        if changed or not self._digests:
            msg = f"the model's files in {self.folder} have changed since it was loaded from there; load it again"
            raise PersistenceError(msg)
        folder.mkdir(parents=True, exist_ok=True)
        for name in self._digests:
            shutil.copyfile(self.folder / name, folder / name)

    def _found(self) -> dict[str, str]:
        return {path.name: digest_of(path) for path in sorted(self.folder.iterdir()) if path.is_file()}


def _checked_values(label_values: Sequence[float]) -> NDArray[np.float64]:
    numbers = [finite_or_none(value) for value in label_values]
    values = np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)
    if not len(values) or not ((values >= 0) & (values <= 1)).all() or (len(values) > 1 and np.ptp(values) == 0):
        msg = f"label_values must be one number from 0 to 1 a label, not all the same; got {list(label_values)!r}"
        raise ConfigurationError(msg)
    return values


def _checked_length(max_length: int) -> int:
    if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 8:  # noqa: PLR2004 - and specials
        msg = f"max_length must be an integer of at least 8, got {max_length!r}"
        raise ConfigurationError(msg)
    return max_length
