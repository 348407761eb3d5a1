"""Folders with sentence-transformers models: refusing those that name code to be run.

Versions before 6.0 import the classes that a local folder names, and run a file of the folder for that, whatever
`trust_remote_code` says. No caller can lift the refusal: one who trusts such a model can load it, and give an
embedder that wraps it.
"""

from __future__ import annotations

import json
import reprlib
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES_FILE = "modules.json"

_LIBRARY = "sentence_transformers."
_IN_CONFIG = ("activation_function", "activation_fn", "tokenizer_class")
"""Fields of a module's own config that older versions import as well, where they are dotted names."""

_MOST_FOLDERS = 100


def refuse_code(modules_file: Path, *, source: str) -> None:
    """Refuse a model that names classes outside sentence-transformers (and torch's layers).

    Args:
        modules_file: Its `modules.json`; where there is none, the library makes the modules itself.
        source: Names the model in the message.

    Raises:
        ConfigurationError: It does, or the file cannot be read.
    """
    if not modules_file.exists():
        return
    folder = modules_file.parent
    modules = _read(modules_file, source)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        _refuse(source, modules_file, "something else than a list of modules")
    waiting = []
    for module in modules:
        _check_class(module.get("type"), modules_file, source)
        waiting.append(_inside(module.get("path", ""), modules_file, source))
    seen: set[PurePath] = set()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        if len(seen) > _MOST_FOLDERS:
            _refuse(source, modules_file, f"more than {_MOST_FOLDERS} folders")
        waiting += _check_configs(folder / place, place, source)


def _check_configs(folder: Path, place: PurePath, source: str) -> Iterator[PurePath]:
    """Check what the configs of one module name; gives the folders of the modules within it."""
    for file in sorted(folder.glob("*config*.json")):
        config = _read(file, source)
        if not isinstance(config, dict):
            continue
        for name in _IN_CONFIG:
            value = config.get(name)
            if isinstance(value, str) and "." in value and not value.startswith((_LIBRARY, "torch.nn.")):
                _refuse(source, file, f"the class {reprlib.repr(value)}")
        types = config.get("types")
        for name, kind in types.items() if isinstance(types, dict) else ():
            _check_class(kind, file, source)
            yield place / _inside(name, file, source)


def _check_class(kind: object, file: Path, source: str) -> None:
    if not isinstance(kind, str) or not kind.startswith(_LIBRARY):
        _refuse(source, file, f"the class {reprlib.repr(kind)}")


def _inside(path: object, file: Path, source: str) -> PurePath:
    if not isinstance(path, str) or PureWindowsPath(path).anchor or ".." in PureWindowsPath(path).parts:
        _refuse(source, file, f"the folder {reprlib.repr(path)}")
    return PurePath(str(path))


def _read(file: Path, source: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"the embedding model {source} has a {file.name} that cannot be read ({type(error).__name__})"
        raise ConfigurationError(msg) from error


def _refuse(source: str, file: Path, found: str) -> None:
    msg = (
        f"the embedding model {source} is not loaded: {file} names {found}, wanted are classes of "
        "sentence-transformers alone, within the model's folder, for others may run code of the folder's. If you "
        "trust it, load it yourself and give an embedder around it"
    )
    raise ConfigurationError(msg)
