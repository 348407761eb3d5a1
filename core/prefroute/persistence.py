"""Saved routers: a folder with `config.json` and safetensors, never pickle.

`config.json` holds `format`, `format_version`, `router_type`, `prefroute_version`, `threshold`, the router's
own `settings`, and the digests of the other `files`; `router.safetensors` holds its arrays. Parts that are saved
on their own, such as an embedder, have a folder of the same form below it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from prefroute._version import __version__
from prefroute.errors import ConfigurationError, DataError, PersistenceError, RouterNotFoundError
from prefroute.inputs import as_threshold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from prefroute.calibration import Calibration
    from prefroute.embedding import Embedder
    from prefroute.router import Router

T = TypeVar("T")

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
TENSORS_FILE = "router.safetensors"
DEFAULT_ROUTER = Path(__file__).parent / "pretrained" / "default"

EMBEDDER_FOLDER = "embedder"

TRAINING_PROMPTS_FILE = "training_prompts.safetensors"
_CALIBRATION_FILE = re.compile(r"calibration-[0-9a-f]{16}\.safetensors")

_ROUTER_CLASSES = {
    "bert": "prefroute.routers.bert:BertRouter",
    "calibrated": "prefroute.routers.calibrated:CalibratedRouter",
    "causal-lm": "prefroute.routers.causal_lm:CausalLMRouter",
    "knn": "prefroute.routers.knn:KNNRouter",
    "logistic-regression": "prefroute.routers.logistic_regression:LogisticRegressionRouter",
    "matrix-factorization": "prefroute.routers.matrix_factorization:MatrixFactorizationRouter",
    "prompt-length": "prefroute.routers.baselines:PromptLengthRouter",
    "random": "prefroute.routers.baselines:RandomRouter",
    "similarity-weighted": "prefroute.routers.similarity_weighted:SimilarityWeightedRouter",
}
"""Where the class of each `router_type` stands; imported only when such a router is loaded."""

STAGING = ".saving-"
"""How folders begin in which a router is put together before it is moved."""

_STALE_AFTER = 3600.0
"""Seconds after which such a folder is taken for the rest of a save that was killed."""

_UNTRAINED = ("prompt-length", "random")
"""Routers that can be had by name, for they need no training."""

_WHOLE = 64 * 2**20
_SAMPLES, _SAMPLE = 256, 2**14
"""Files of more than so many bytes are known by as many samples of so many bytes: an index that is mapped into
memory should not be read whole to be loaded."""

_moving = threading.Lock()
"""Two saves to one folder must not be mixed; of several processes only one may save to it."""


def _after_fork() -> None:
    """Renew the lock, which another thread may have held at the fork."""
    global _moving  # noqa: PLW0603 - a lock held at the fork can only be replaced
    _moving = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_HUB_FILES = ("*.json", "*.safetensors", "*.npy", "*.txt", "*.model")
"""What is fetched from the hub: settings, arrays, and vocabularies of tokenizers. Never code, never pickles."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class SavedRouter:
    """What a router is made of on disk.

    Attributes:
        settings: JSON-safe settings.
        tensors: Arrays by name.
        embedder: What the caller of `load_router` gave in place of the saved one.
        device: Where the caller wants it to compute.
        dtype: Which numbers the caller wants it to compute with.
    """

    settings: dict[str, Any]
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    embedder: Embedder | None = None
    device: str | None = None
    dtype: str | None = None

    def embedder_of(self, folder: Path) -> Embedder:
        """The embedder that the caller gave, or else the one saved in the router's folder."""
        from prefroute.embedding import load_embedder

        return load_embedder(folder / EMBEDDER_FOLDER) if self.embedder is None else self.embedder


def load_router(
    name_or_path: str | Path | None = None,
    *,
    embedder: str | Path | Embedder | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Router:
    """Load a router; a local folder first, then the Hugging Face hub.

    Args:
        name_or_path: A folder written by `save_pretrained`, a hub id such as `owner/name`, or None (also
            `"default"`) for the router that comes with the package, which needs no network. `"random"` and
            `"prompt-length"` are the baselines of these names, untrained.
        embedder: An embedder, or its name as in `as_embedder`, in place of the one that was saved; it must
            give the same vectors. Needed where the saved one could not be saved.
        device: Where a router around a transformer computes, as torch names it; None for a GPU where there is one.
        dtype: The numbers it computes with: `"float32"`, `"bfloat16"`, `"float16"`, or `"int8"` on a CPU; None for
            bfloat16 where the device multiplies it in hardware, else float32.

    Returns:
        The router, with the default threshold it was saved with.

    Raises:
        RouterNotFoundError: There is no such folder and it cannot be fetched from the hub.
        PersistenceError: The folder does not hold a router that this version reads.
        ConfigurationError: An embedder, a device or a dtype is given to a router that has none, or cannot be used.
        MissingExtraError: What the router computes with is not installed.
    """
    return read_router(name_or_path, embedder=embedder, device=device, dtype=dtype)


def read_router(
    name_or_path: str | Path | None,
    own_class: type[Router] | None = None,
    embedder: str | Path | Embedder | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Router:
    """`load_router`, or with `own_class` also a router whose type is not one of prefroute's own."""
    if isinstance(name_or_path, str) and name_or_path in _UNTRAINED and not Path(name_or_path).is_dir():
        _refuse_embedder(name_or_path, embedder)
        _refuse_placement(name_or_path, device, dtype)
        return _class_named(name_or_path)()
    folder = _locate(name_or_path)
    config = read_config(folder)
    router_class = _router_class(folder, config, own_class)
    settings = config.get("settings")
    if not isinstance(settings, dict):
        msg = f"{folder / CONFIG_FILE}: settings must be an object, got {type(settings).__name__}"
        raise PersistenceError(msg)
    files = config.get("files")
    if not isinstance(files, dict):
        msg = f"{folder / CONFIG_FILE}: files must be an object, got {type(files).__name__}"
        raise PersistenceError(msg)
    tensors = read_tensors(folder / TENSORS_FILE) if TENSORS_FILE in files else {}
    given = None if embedder is None else _as_embedder(embedder)
    saved = SavedRouter(settings=settings, tensors=tensors, embedder=given, device=device, dtype=dtype)
    router = router_class._from_saved(saved, folder)  # noqa: SLF001 - its hook
    if getattr(router, "embedder", None) is not given:
        _refuse_embedder(type(router).__name__, given)
    if not hasattr(router, "device"):
        _refuse_placement(type(router).__name__, device, dtype)
    # After reading: a folder that is written anew at this moment is noticed too.
    _check_files(folder, files)
    _restore(router, folder, config)
    return router


def _restore(router: Router, folder: Path, config: Mapping[str, Any]) -> None:
    """Give a router what it was saved with beside what it is made of."""
    files = config["files"]
    if config.get("threshold") is not None:
        try:
            router.threshold = as_threshold(config["threshold"])
        except ValueError as error:
            msg = f"{folder / CONFIG_FILE}: {error}"
            raise PersistenceError(msg) from error
    if config.get("validation") is not None:
        from prefroute.evaluation import Validation

        router.validation = validated(Validation, config["validation"], folder / CONFIG_FILE)
    if TRAINING_PROMPTS_FILE in files:
        router.training_prompts = _one_column(folder / TRAINING_PROMPTS_FILE, "hashes", "u8")
    if (name := _calibration_in(files)) is not None:
        from prefroute.calibration import Calibration

        scores = _one_column(folder / name, "scores", "f8")
        try:
            router.calibration = Calibration(scores)
        except DataError as error:
            msg = f"{folder / name}: {error}"
            raise PersistenceError(msg) from error


def _one_column(path: Path, name: str, dtype: str) -> NDArray[Any]:
    """The one array of a file."""
    found = read_tensors(path).get(name)
    if found is None or found.ndim != 1 or found.dtype.str[1:] != dtype:
        msg = f"{path} holds no {name}, or not as one row of {dtype}; save the router again or fetch the folder anew"
        raise PersistenceError(msg)
    return found


def _calibration_in(files: Iterable[str]) -> str | None:
    return next((name for name in files if _CALIBRATION_FILE.fullmatch(name)), None)


def _as_embedder(embedder: str | Path | Embedder) -> Embedder:
    from prefroute.embedding import as_embedder

    return as_embedder(embedder)


def _refuse_embedder(name: str, embedder: object) -> None:
    if embedder is not None:
        msg = f"{name} uses no embedder, got {reprlib.repr(embedder)}; leave embedder= out"
        raise ConfigurationError(msg)


def _refuse_placement(name: str, device: object, dtype: object) -> None:
    given = {"device": device, "dtype": dtype}
    for option, value in given.items():
        if value is not None:
            msg = f"{name} computes with numpy, got {option}={reprlib.repr(value)}; leave {option}= out"
            raise ConfigurationError(msg)


def save_router(router: Router, path: str | Path) -> None:
    """Write a router to a folder; see `Router.save_pretrained`.

    All files are written to a folder of their own first and then moved, so that a full disk leaves the
    router that was there before. `config.json` comes last and has the digest of each other file, so that
    a folder which holds parts of two routers is refused when it is read.
    """
    if not router.router_type:
        name = type(router).__name__
        msg = f"{name} cannot be saved; a router that can defines router_type, _to_saved and _from_saved"
        raise PersistenceError(msg)
    folder = Path(path)
    staging = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale_staging(folder)
        staging = Path(tempfile.mkdtemp(dir=folder, prefix=STAGING))
        _stage(router, staging)
        with _moving:
            _move(staging, folder)
    except PersistenceError:
        raise
    except (OSError, ValueError) as error:
        msg = f"cannot write the router to {folder}: {error}"
        raise PersistenceError(msg) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _remove_stale_staging(folder: Path) -> None:
    """Remove what a save that was killed has left; one that is under way is younger."""
    for left in folder.glob(f"{STAGING}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_AFTER:
                shutil.rmtree(left, ignore_errors=True)


def _stage(router: Router, staging: Path) -> None:
    saved = router._to_saved(staging)  # noqa: SLF001 - its hook
    if saved.tensors:
        write_tensors(staging / TENSORS_FILE, saved.tensors)
    files = sorted(file for file in staging.rglob("*") if file.is_file())
    if router.training_prompts is not None and router.training_prompts.size:
        write_tensors(staging / TRAINING_PROMPTS_FILE, {"hashes": router.training_prompts})
        files.append(staging / TRAINING_PROMPTS_FILE)
    if router.calibration is not None:
        files.append(_write_calibration(staging, router.calibration))
    validation = {} if router.validation is None else {"validation": asdict(router.validation)}
    write_config(
        staging,
        {
            "router_type": router.router_type,
            "threshold": None if router.threshold is None else as_threshold(router.threshold),
            **validation,
            "settings": saved.settings,
            "files": {file.relative_to(staging).as_posix(): digest_of(file) for file in sorted(files)},
        },
    )


def save_calibration(router: Router, path: str | Path) -> None:
    """Write the threshold and the calibration of a router into the folder that it was loaded from, and nothing else.

    The new scores have a file of their own until `config.json`, replaced in one step, names it: a kill leaves the
    router as it was.

    Args:
        router: The router, calibrated.
        path: Its folder.

    Raises:
        PersistenceError: There is no router there, or the folder cannot be written.
    """
    folder = Path(path)
    with _moving:
        config = read_config(folder)
        before = _calibration_in(config["files"])
        files = {name: digest for name, digest in config["files"].items() if name != before}
        try:
            if router.calibration is not None:
                written = _write_calibration(folder, router.calibration)
                files[written.name] = digest_of(written)
            threshold = None if router.threshold is None else as_threshold(router.threshold)
            write_config(folder, config | {"threshold": threshold, "files": dict(sorted(files.items()))})
            if before is not None and before not in files:
                (folder / before).unlink(missing_ok=True)
        except OSError as error:
            msg = f"cannot write the calibration to {folder}: {error}"
            raise PersistenceError(msg) from error


def _write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write the scores to a file that is named after them."""
    digest = hashlib.sha256(calibration.scores.tobytes()).hexdigest()[:16]
    path = folder / f"calibration-{digest}.safetensors"
    write_tensors(path, {"scores": calibration.scores})
    return path


def _move(staging: Path, folder: Path) -> None:
    files = [file.relative_to(staging) for file in staging.rglob("*") if file.is_file()]
    replaced = _saved_files(folder)
    # Whatever stands in the way is found before the first file of the router before is replaced.
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        if not _is_within(folder / file, folder):
            msg = f"{folder / file.parent} leads out of {folder}; remove that link, or save to another folder"
            raise PersistenceError(msg)
        if (folder / file).is_dir():
            msg = f"{folder / file} is a folder, where a file is to be written; remove it, or save to another folder"
            raise PersistenceError(msg)
    for file in sorted(files, key=lambda file: file == Path(CONFIG_FILE)):
        (staging / file).replace(folder / file)
    # What only the router before had; it may be large. The deepest first, so that empty folders go too.
    stale = replaced - {file.as_posix() for file in files}
    for name in sorted(stale, key=lambda name: -name.count("/")):
        if not _is_within(folder / name, folder):
            continue
        (folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            (folder / name).parent.rmdir()


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a file's folder is below this one, and not by way of a link that leads elsewhere."""
    return path.parent.resolve().is_relative_to(folder.resolve())


def _saved_files(folder: Path) -> set[str]:
    """Files of the router that a folder holds; none if it holds none that can be read."""
    try:
        names = read_config(folder).get("files")
    except PersistenceError:
        return set()
    return {name for name in names if not _leaves(name)} if isinstance(names, dict) else set()


def _leaves(name: str) -> bool:
    """Whether a file name leads out of its folder."""
    return bool(PureWindowsPath(name).anchor) or ".." in re.split(r"[/\\]", name)


def digest_of(path: Path) -> str:
    """What a file is known by: the SHA-256 of it, or of many samples of a large one."""
    if not path.is_file():  # A pipe or a device would be read for ever.
        msg = "not a file"
        raise ValueError(msg)
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(str(size).encode())
        for number in range(_SAMPLES):
            file.seek(number * (size - _SAMPLE) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    return f"sampled-{digest.hexdigest()}"


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse a folder whose files are not those that were saved together."""
    for name, digest in files.items():
        path = folder / name
        # By its name, not by what it resolves to: a download cache holds links to files elsewhere.
        if _leaves(name):
            msg = f"{folder / CONFIG_FILE} names {reprlib.repr(name)}, which lies outside the folder"
            raise PersistenceError(msg)
        try:
            found = digest_of(path)
        except (OSError, ValueError) as error:
            msg = f"{folder}: {reprlib.repr(name)} cannot be read: {error}"
            raise PersistenceError(msg) from error
        if found != digest:
            msg = (
                f"{path} is not the file that was saved with this config.json; save the router again, or fetch it anew"
            )
            raise PersistenceError(msg)


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json` of a saved router or part.

    Args:
        folder: Where it lies.

    Returns:
        Its fields.

    Raises:
        RouterNotFoundError: There is none.
        PersistenceError: It is not JSON, not ours, or of a later format.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        held = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        msg = f"{folder} holds no saved router: {CONFIG_FILE} is missing (found: {', '.join(held[:8]) or 'nothing'})"
        raise RouterNotFoundError(msg) from None
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read: {error}"
        raise PersistenceError(msg) from error
    if not isinstance(config, dict) or config.get("format") != "prefroute":
        msg = f'{path} is not of prefroute: "format" should be "prefroute"'
        raise PersistenceError(msg)
    version = config.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        found = reprlib.repr(version)
        msg = f"{path} has format_version {found}, this prefroute reads 1 to {FORMAT_VERSION}; update prefroute"
        raise PersistenceError(msg)
    return config


def write_config(folder: Path, fields: Mapping[str, Any]) -> None:
    """Write `config.json` of a router or part, with the format fields added; the folder is made if missing."""
    header = {"format": "prefroute", "format_version": FORMAT_VERSION, "prefroute_version": __version__}
    try:
        text = json.dumps(header | dict(fields), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        msg = f"settings must be JSON values: {error}"
        raise PersistenceError(msg) from error
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / CONFIG_FILE, text.encode())


def read_settings(model: type[T], folder: Path) -> T:
    """Read the settings of a part that is made of nothing else.

    Args:
        model: As for `validated`.
        folder: Where its `config.json` lies.

    Returns:
        The settings.

    Raises:
        PersistenceError: There are none that can be read.
    """
    return validated(model, read_config(folder).get("settings"), folder / CONFIG_FILE)


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file.

    Args:
        path: The file.

    Returns:
        Arrays by name.

    Raises:
        PersistenceError: It is missing or damaged.
    """
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except Exception as error:
        # Its own errors, the system's, and KeyError and TypeError for dtypes that numpy has not.
        msg = f"{path} cannot be read: {type(error).__name__}: {error}; save the router again or fetch the folder anew"
        raise PersistenceError(msg) from error


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to a safetensors file."""
    import numpy as np
    from safetensors.numpy import save

    # safetensors writes the memory as it lies, so a transposed view would come back scrambled.
    write_atomically(path, save({name: np.ascontiguousarray(array) for name, array in tensors.items()}))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is never seen half written; an earlier one survives a failure."""
    written = path.parent / f".{path.name}.{uuid4().hex}"
    try:
        written.write_bytes(data)
        written.replace(path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def validated(model: type[T], fields: object, source: Path) -> T:
    """Build a settings dataclass from untrusted JSON.

    Args:
        model: A frozen dataclass; its annotations are enforced.
        fields: What the file holds.
        source: The file, for the message.

    Returns:
        The settings.

    Raises:
        PersistenceError: A field is missing, unknown or of the wrong type; says which.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.dataclasses import dataclass as checked

    strict: Any = checked(model, config=ConfigDict(extra="forbid", strict=True), frozen=True)
    try:
        # As JSON, where a nested dataclass is an object; in Python, strict would want it built already.
        values = TypeAdapter(strict).validate_json(json.dumps(fields))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        msg = f"{source}: {problems}"
        raise PersistenceError(msg) from error
    return model(**vars(values))


def _router_class(folder: Path, config: Mapping[str, Any], own_class: type[Router] | None) -> type[Router]:
    name = config.get("router_type")
    if isinstance(name, str) and name in _ROUTER_CLASSES:
        return _class_named(name)
    if own_class is not None and name and own_class.router_type == name:
        return own_class
    msg = (
        f"{folder / CONFIG_FILE} has router_type {reprlib.repr(name)}; known: {', '.join(_ROUTER_CLASSES)}. "
        "A router of your own is loaded with its class's from_pretrained"
    )
    raise PersistenceError(msg)


def _class_named(name: str) -> type[Router]:
    found: type[Router] = imported(_ROUTER_CLASSES[name])
    return found


def imported(place: str) -> Any:
    """What stands at `module:name`; the module is imported only now."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def own_folder(name_or_path: str | Path) -> Path | None:
    """The local folder that `load_router` reads for a name; None for the bundled router, a baseline and the hub."""
    if name_or_path == "default" or not Path(name_or_path).is_dir():
        return None
    return Path(name_or_path)


def _locate(name_or_path: str | Path | None) -> Path:
    if name_or_path is None or name_or_path == "default":
        return DEFAULT_ROUTER
    if not isinstance(name_or_path, str | Path) or not str(name_or_path):
        msg = f"a router is loaded by folder or hub id, got {type(name_or_path).__name__}: {reprlib.repr(name_or_path)}"
        raise ConfigurationError(msg)
    folder = Path(name_or_path)
    try:
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except (OSError, ValueError) as error:  # A name too long, a NUL in it, a folder that may not be entered.
        msg = f"no saved router at {reprlib.repr(str(name_or_path))}: {error}"
        raise RouterNotFoundError(msg) from error
    if is_folder:
        return folder
    if is_file:
        msg = f"{folder} is a file; a saved router is a folder with {CONFIG_FILE}"
        raise RouterNotFoundError(msg)
    if isinstance(name_or_path, str) and _HUB_ID.fullmatch(name_or_path):
        return _from_hub(name_or_path)
    msg = f"no saved router at {name_or_path!s}: not a folder, and not a hub id of the form owner/name"
    raise RouterNotFoundError(msg)


def _from_hub(repository: str) -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(repository, allow_patterns=list(_HUB_FILES)))
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        msg = f"no folder {repository}, and the hub gave no router of that name: {type(error).__name__}: {reason}"
        raise RouterNotFoundError(msg) from error
