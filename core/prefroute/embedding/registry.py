"""Embedders by name and by folder: what users write, and what saved routers hold."""

from __future__ import annotations

import json
import math
import reprlib
from pathlib import Path
from typing import TYPE_CHECKING

from prefroute.embedding.combined import ConcatenatedEmbedder, LengthEmbedder
from prefroute.embedding.static import StaticEmbedder
from prefroute.embedding.surface import SurfaceEmbedder
from prefroute.errors import ConfigurationError, PersistenceError
from prefroute.persistence import CONFIG_FILE, DEFAULT_ROUTER, imported, read_config, write_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefroute.embedding import Embedder

EXTERNAL = "external"
"""`embedder_type` of one that cannot be saved: whoever loads the router brings it."""

BUNDLED = DEFAULT_ROUTER / "embedder" / "0"

_EMBEDDER_CLASSES = {
    "concatenated": "prefroute.embedding.combined:ConcatenatedEmbedder",
    "length": "prefroute.embedding.combined:LengthEmbedder",
    "openai": "prefroute.embedding.openai:OpenAIEmbedder",
    "sentence-transformers": "prefroute.embedding.sentence_transformers:SentenceTransformerEmbedder",
    "static": "prefroute.embedding.static:StaticEmbedder",
    "surface": "prefroute.embedding.surface:SurfaceEmbedder",
}
"""Where the class of each `embedder_type` stands; imported only when such an embedder is loaded."""

_FITTED: dict[str, type[LengthEmbedder | SurfaceEmbedder]] = {"length": LengthEmbedder, "surface": SurfaceEmbedder}
"""Embedders that look at the text alone and are standardised by the training prompts."""

_SHORT = {"static", "minilm", *_FITTED}
_PREFIXES = ("sentence-transformers:", "openai:")

_KNOWN = "static, minilm, length, surface, sentence-transformers:NAME, openai:MODEL, or a folder with a saved embedder"


def as_embedder(embedder: str | Path | Embedder | None = None, *, prompts: Sequence[str] | None = None) -> Embedder:
    """Find an embedder.

    Args:
        embedder: None or `"static"` for the one that comes with the package; `"minilm"` for
            all-MiniLM-L6-v2; `"length"` for the length of the prompt and `"surface"` for that and other
            features of its surface; `"sentence-transformers:NAME"` or `"openai:MODEL"` for any model of
            those; a folder with a saved embedder (one that is called like a name is given as a `Path` or as
            `"./static"`); several of these names joined by `+` for their vectors side by side; or an
            embedder, which is returned as it is.
        prompts: Those to train on: `"length"` and `"surface"` are then standardised by them.

    Returns:
        The embedder. Models are loaded, and clients made, only when it is first used.

    Raises:
        ConfigurationError: It is none of these.
        PersistenceError: The folder holds no readable embedder.
    """
    if embedder is None:
        return StaticEmbedder.from_pretrained(BUNDLED)
    if isinstance(embedder, Path):
        return load_embedder(embedder)
    if isinstance(embedder, str):
        names = _names_in(embedder)
        if names is None:
            return load_embedder(embedder)
        # Beside k vectors of length 1 such coordinates must be that much longer to weigh the same.
        longer = math.sqrt(max(1, len([name for name in names if name not in _FITTED])))
        parts = [_by_name(name, longer) for name in names]
        found = parts[0] if len(parts) == 1 else ConcatenatedEmbedder(parts)
        return found if prompts is None else standardised(found, prompts)
    if callable(getattr(embedder, "embed", None)):
        return embedder
    msg = f"an embedder has a method embed(texts), or is named: {_KNOWN}; got {reprlib.repr(embedder)}"
    raise ConfigurationError(msg)


def _names_in(text: str) -> list[str] | None:
    """The names that are joined in a text; None where it is a folder.

    Known names come first, so that no folder that happens to lie in the working directory takes their place.
    """
    names = [part.strip() for part in text.split("+")]
    if all(name in _SHORT or name.startswith(_PREFIXES) for name in names):
        return names
    kind, _, model = text.partition(":")
    if f"{kind}:" in _PREFIXES and _is_folder(model):
        return [text]
    return None if _is_folder(text) else names


def _is_folder(text: str) -> bool:
    try:
        return bool(text) and Path(text).is_dir()
    except (OSError, ValueError):  # longer than a path can be, say
        return False


def _by_name(name: str, longer: float) -> Embedder:
    if name == "static":
        return StaticEmbedder.from_pretrained(BUNDLED)
    if name in _FITTED:
        return _FITTED[name](scale=_FITTED[name].scale * longer)
    kind_name, _, model = name.partition(":")
    if name == "minilm":
        kind_name, model = "sentence-transformers", name
    if kind_name in {"sentence-transformers", "openai"} and model:
        found: Embedder = imported(_EMBEDDER_CLASSES[kind_name])(model)
        return found
    msg = f"unknown embedder {reprlib.repr(name)}; known: {_KNOWN}; several joined by +"
    raise ConfigurationError(msg)


def standardised(embedder: Embedder, prompts: Sequence[str]) -> Embedder:
    """The embedder with its length and surface, if it has such parts, standardised by these prompts."""
    if isinstance(embedder, LengthEmbedder | SurfaceEmbedder):
        return embedder.refitted(prompts)
    if isinstance(embedder, ConcatenatedEmbedder):
        return ConcatenatedEmbedder([standardised(part, prompts) for part in embedder.parts])
    return embedder


def save_embedder(embedder: Embedder, path: str | Path) -> None:
    """Write an embedder to a folder, by its own `save_pretrained`.

    One that has none is noted as external: who loads it must bring it, as in `load_router(..., embedder=)`.

    Args:
        embedder: Any embedder.
        path: Folder; made if missing.
    """
    folder = Path(path)
    save = getattr(embedder, "save_pretrained", None)
    if save is not None:
        save(folder)
        return
    write_config(folder, {"embedder_type": EXTERNAL, "name": type(embedder).__name__})


def load_embedder(path: str | Path) -> Embedder:
    """Read what `save_embedder` wrote.

    Args:
        path: Folder.

    Returns:
        The embedder.

    Raises:
        PersistenceError: The folder holds no readable embedder, or one that was not saved with the router.
    """
    folder = Path(path)
    _refuse_model(folder)
    config = read_config(folder)
    kind = config.get("embedder_type")
    if kind == EXTERNAL:
        msg = (
            f"{folder}: the {reprlib.repr(config.get('name'))} that this was trained with was not saved; "
            "make one again and give it: load_router(FOLDER, embedder=...)"
        )
        raise PersistenceError(msg)
    if not isinstance(kind, str) or kind not in _EMBEDDER_CLASSES:
        msg = (
            f"{folder / CONFIG_FILE} has embedder_type {reprlib.repr(kind)}; known: {', '.join(_EMBEDDER_CLASSES)}. "
            "Give one of your own: load_router(FOLDER, embedder=...)"
        )
        raise PersistenceError(msg)
    try:
        found: Embedder = imported(_EMBEDDER_CLASSES[kind]).from_pretrained(folder)
    except ConfigurationError as error:
        msg = f"{folder / CONFIG_FILE}: {error}"
        raise PersistenceError(msg) from error
    return found


def _refuse_model(folder: Path) -> None:
    """Say how to give a folder that holds a model of Hugging Face's, which has a `config.json` too."""
    try:
        is_model = (folder / "modules.json").is_file()
        if not is_model and (folder / CONFIG_FILE).is_file():
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            is_model = isinstance(config, dict) and "format" not in config and "model_type" in config
    except (OSError, ValueError, RecursionError):
        return  # Reading it as ours says what is wrong.
    if is_model:
        msg = f"{folder} holds a model, not a saved embedder; give it as sentence-transformers:{folder}"
        raise PersistenceError(msg)
