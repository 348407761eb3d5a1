"""The folder of a training run: which run its checkpoints belong to, and which of them are whole."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from prefroute.data.fingerprints import digest_of
from prefroute.errors import ConfigurationError
from prefroute.persistence import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prefroute.training._examples import Examples

RUN_FILE = "prefroute-run.json"
BEST = "best"
"""Where in the folder the trained model is written at the end."""

_PREFIX = "checkpoint-"
_LAST_WRITTEN = "trainer_state.json"
"""What the library writes last into a checkpoint; one without it was being written when the run was killed."""

_MAY_CHANGE = ("micro_batch_size", "gradient_checkpointing", "device")
"""Settings that another machine may need otherwise and that leave the result as it is."""


def run_of(settings: Mapping[str, Any], examples: Examples) -> dict[str, Any]:
    """What makes a run the one it is: a digest of its data, and its settings."""
    digest = digest_of(examples.prompts)
    digest.update(examples.targets.tobytes() + examples.weights.tobytes())
    kept = {name: value for name, value in settings.items() if name not in _MAY_CHANGE}
    return {"data": digest.hexdigest(), "settings": json.loads(json.dumps(kept))}


def open_run(folder: Path, run: dict[str, Any], *, resume: bool) -> Path | None:
    """Make the folder of a run ready.

    Args:
        folder: Where its checkpoints are to lie; made if missing.
        run: What `run_of` gives.
        resume: Whether to go on where an earlier run stopped, if there is one.

    Returns:
        The last whole checkpoint; None to begin at the beginning.

    Raises:
        ConfigurationError: There is an earlier run and it is not to be resumed, or not the same, or something else.
    """
    file = folder / RUN_FILE
    if folder.exists() and not folder.is_dir():
        msg = f"the checkpoints' folder {folder} is a file; name a folder"
        raise ConfigurationError(msg)
    earlier = _read(file)
    if earlier is None and folder.is_dir() and any(folder.iterdir()):
        msg = f"the checkpoints' folder {folder} holds something else than checkpoints; name another folder"
        raise ConfigurationError(msg)
    if not resume:
        refuse_earlier(folder)
    begun = last_whole(folder) is not None
    if earlier is not None and begun and earlier != run:
        old, new = earlier.get("settings", {}), run["settings"]
        names = [name for name in new if old.get(name) != new[name]]
        changed = [f"{name} was {old.get(name)!r} and is {new[name]!r}" for name in names]
        # The settings decide which prompts are held out, so data are the same only where settings are.
        if not changed:
            changed.append("the training data are others")
        msg = (
            f"the run in {folder} cannot be resumed: {'; '.join(changed)}. Give the same again, or name another folder"
        )
        raise ConfigurationError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(run, indent=2).encode())
    except OSError as error:
        msg = f"the checkpoints' folder {folder} cannot be written: {error}"
        raise ConfigurationError(msg) from error
    return last_whole(folder, clean=True)


def refuse_earlier(folder: Path) -> None:
    """Refuse to begin anew where a run has left a checkpoint.

    Raises:
        ConfigurationError: There is one.
    """
    if (folder / RUN_FILE).is_file() and last_whole(folder) is not None:
        msg = (
            f"the checkpoints' folder {folder} holds an earlier run; resume it (resume=True, --resume), remove the "
            "folder, or name another one"
        )
        raise ConfigurationError(msg)


def step_of(checkpoint: Path) -> int:
    """The optimiser step that a checkpoint was written after."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def last_whole(folder: Path, *, clean: bool = False) -> Path | None:
    """The last checkpoint that was written to its end.

    Args:
        folder: Of the run.
        clean: Whether to remove those that were not.

    Returns:
        Its folder; None if there is none.
    """
    whole: dict[int, Path] = {}
    for path in folder.glob(f"{_PREFIX}*"):
        step = path.name.removeprefix(_PREFIX)
        if step.isdigit() and _read(path / _LAST_WRITTEN) is not None:
            whole[int(step)] = path
        elif clean and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    return whole[max(whole)] if whole else None


def _read(path: Path) -> dict[str, Any] | None:
    """What a JSON file says; None if it is missing or was not written to its end."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
