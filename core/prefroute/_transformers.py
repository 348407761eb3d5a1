"""Models and tokenizers of the transformers library: loaded from a folder first, then from the hub; never code."""

from __future__ import annotations

import os
import re
import threading
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefroute._torch import out_of_memory, refuse_too_large, torch_dtype
from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefroute._torch import Dtype

_counting = threading.Lock()
_quiet: list[Any] = []
"""One entry for each who wants quiet: the library's switches are the process's, so the first turns them off and the
last turns them on again. The first entry holds how they stood."""

_SPARE = 1.1
"""Memory that a model takes beside its weights, as a factor: activations of a small batch."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")

MODEL_FOLDER = "model"
"""Where in a saved router the model and its tokenizer lie, as the transformers library writes them."""

CODE_REFUSED = {"trust_remote_code": False}


def _after_fork() -> None:
    """Renew the lock, which another thread may have held at the fork."""
    global _counting  # noqa: PLW0603 - a lock held at the fork can only be replaced
    _counting = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep the library's progress bars and its report of harmless keys off stderr while a model is loaded."""
    logging: Any = import_module("transformers.utils.logging")

    with _counting:
        _quiet.append((logging.is_progress_bar_enabled(), logging.get_verbosity()) if not _quiet else None)
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    try:
        yield
    finally:
        with _counting:
            stood = _quiet[0]
            del _quiet[-1]
            if _quiet:
                _quiet[0] = stood
            else:
                bars, verbosity = stood
                logging.set_verbosity(verbosity)
                if bars:
                    logging.enable_progress_bar()


def load_tokenizer(name: str | Path, *, revision: str | None = None) -> Any:
    """Load a tokenizer.

    Args:
        name: A folder or a hub id.
        revision: Version on the hub; None for the latest.

    Returns:
        A `PreTrainedTokenizerBase`.

    Raises:
        ConfigurationError: There is none, or it comes with code of its own.
    """
    auto = import_module("transformers").AutoTokenizer
    name = _within(name)
    return _loaded(
        name, "the tokenizer of the model", lambda **where: auto.from_pretrained(str(name), **where), revision=revision
    )


def load_config(name: str | Path, *, revision: str | None = None, **changes: Any) -> Any:
    """Load the config of a model.

    Args:
        name: A folder or a hub id.
        revision: Version on the hub; None for the latest.
        **changes: Fields to set otherwise.

    Returns:
        A `PreTrainedConfig`.

    Raises:
        ConfigurationError: There is none, or it comes with code of its own.
    """
    auto = import_module("transformers").AutoConfig
    name = _within(name)
    return _loaded(
        name,
        "the config of the model",
        lambda **where: auto.from_pretrained(str(name), **where, **changes),
        revision=revision,
    )


def load_model(
    kind: str,
    name: str | Path,
    *,
    device: str,
    dtype: Dtype,
    complete: bool,
    revision: str | None = None,
    **options: Any,
) -> Any:
    """Load a model's weights onto a device, once it is known that they fit.

    Only safetensors are read: other weights are pickles, which may run any code.

    Args:
        kind: The library's class, such as `"AutoModelForCausalLM"`.
        name: A folder or a hub id.
        device: As `as_device` gives it.
        dtype: Of the weights; int8 loads float32.
        complete: Whether the files must have every weight; else the head may be missing, and is made anew.
        revision: Version on the hub; None for the latest.
        **options: Changes to the model's config.

    Returns:
        A `PreTrainedModel` in evaluation mode.

    Raises:
        ConfigurationError: There is no such model, it does not fit into memory, or weights are missing.
    """
    import torch

    auto = getattr(import_module("transformers"), kind)
    name = _within(name)
    config = load_config(name, revision=revision, **options)
    numbers = torch_dtype(dtype)
    size = int(_parameters(auto, config, name) * numbers.itemsize * _SPARE)
    what = f"the model {str(name)!r} in {str(numbers).removeprefix('torch.')}"
    refuse_too_large(size, device, what)
    placed = {} if device == "cpu" else {"device_map": {"": device}}

    def read(**where: Any) -> Any:
        return auto.from_pretrained(
            str(name),
            config=config,
            dtype=numbers,
            use_safetensors=True,
            output_loading_info=True,
            **placed,
            **where,
        )

    try:
        model, found = _loaded(name, "the model", read, revision=revision)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise out_of_memory(size, device, what) from error
    lacking = sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"])
    body = f"{model.base_model_prefix}."
    if not complete:
        # The head is made anew; so is a pooler, which belongs to it.
        lacking = [key for key in lacking if key.startswith(body) and ".pooler." not in key]
    if lacking:
        shown = f"{', '.join(lacking[:3])}{' and others' if len(lacking) > 3 else ''}"  # noqa: PLR2004 - as many as shown
        msg = f"the model {str(name)!r} lacks weights ({shown}): it was not trained for this, or its files are damaged"
        raise ConfigurationError(msg)
    return model.eval()


def _within(name: str | Path) -> str | Path:
    """The model of a saved router, for its folder; else the name itself."""
    own = Path(name) / MODEL_FOLDER
    return own if (own / "config.json").is_file() else name


def _parameters(auto: Any, config: Any, name: str | Path) -> int:
    """How many numbers a model has, tied ones once; nothing is allocated for it."""
    import torch

    try:
        with quiet_loading(), torch.device("meta"):
            model = auto.from_config(config, **CODE_REFUSED)
    except Exception as error:
        msg = f"the model {str(name)!r} cannot be used as {auto.__name__}: {_reason(error)}"
        raise ConfigurationError(msg) from error
    return sum(parameter.numel() for parameter in model.parameters())


def _loaded(name: str | Path, what: str, load: Callable[..., Any], *, revision: str | None) -> Any:
    """Load from the folder of that name, or from the library's cache, or else from the hub."""
    import torch

    is_folder = Path(name).is_dir()
    if not is_folder and not _HUB_ID.fullmatch(str(name)):
        msg = f"there is no folder {str(name)!r}; give one that holds a model, or a hub id such as owner/name"
        raise ConfigurationError(msg)
    where = {"revision": revision, **CODE_REFUSED} if revision is not None else dict(CODE_REFUSED)
    try:
        with quiet_loading():
            try:
                # What this machine has needs no network, and is what a router was trained with.
                return load(local_files_only=True, **where)
            except (torch.OutOfMemoryError, MemoryError):
                raise
            except Exception:  # whatever the library raises for a model that is not there
                if is_folder:
                    raise
                return load(local_files_only=False, **where)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        place = f"the folder {str(name)!r}" if is_folder else f"the hub as {str(name)!r} (there is no such folder)"
        msg = (
            f"cannot load {what} from {place}: {_reason(error)}. Give a folder that holds one, with weights as "
            "safetensors, or a hub id that this machine can reach or has in its cache"
        )
        raise ConfigurationError(msg) from error


def _reason(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line.rstrip('.')}"
