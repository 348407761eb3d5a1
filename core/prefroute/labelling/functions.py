"""Finding a function of the user's own by where it stands. Importing it runs the user's code."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType


def load_function(target: str) -> tuple[Callable[..., Any], str]:
    """Import a function; this runs the file or module that holds it.

    Args:
        target: `file.py:function` or `package.module:function`.

    Returns:
        The function, and a name that changes with the file that holds it.

    Raises:
        ConfigurationError: There is none, or what holds it cannot be imported.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        msg = f"a function is named as file.py:function or package.module:function, got {target!r}"
        raise ConfigurationError(msg)
    try:
        if place.endswith(".py"):
            with _beside(Path(place).parent):
                module, digest = _of_file(Path(place))
        else:
            with _beside(Path()):
                module, digest = importlib.import_module(place), ""
    except Exception as error:
        msg = f"{place} cannot be imported: {type(error).__name__}: {error}; correct it, or name another one"
        raise ConfigurationError(msg) from error
    function = getattr(module, name, None)
    if not callable(function):
        listed = sorted(known for known, item in vars(module).items() if callable(item) and not known.startswith("_"))
        msg = f"{place} holds no function {name!r}; it holds: {', '.join(listed) or 'none'}"
        raise ConfigurationError(msg)
    return function, f"{Path(place).name if digest else place}:{name}{digest and f'@{digest}'}"


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Let what lies in a folder be imported, as Python does for a script that lies there."""
    entry = str(folder.resolve())
    sys.path.append(entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _of_file(path: Path) -> tuple[ModuleType, str]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    name = f"_prefroute_label_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        msg = f"wanted a file of Python, got {path}"
        raise ImportError(msg)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Dataclasses look themselves up there.
    spec.loader.exec_module(module)
    return module, digest
