"""What a long fit has reached, on disk: fits of an hour each must survive a kill."""

from __future__ import annotations

import io
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prefroute.data.fingerprints import digest_of
from prefroute.persistence import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from prefroute.fitting.cross_fitting import Labels


_OWN = re.compile(r"[0-9a-f]{16}-(\d+\.npy|fold-\d+|all)")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Held-out scores of folds that are done, and a place for the checkpoints of the one under way.

    Attributes:
        folder: Made when it is first written to.
        key: Names the run: other labels, folds or settings have another, and find nothing here.
    """

    folder: Path
    key: str

    @classmethod
    def of(cls, folder: Path, labels: Labels, settings: object) -> Work:
        """That of one run.

        Args:
            folder: Where it is kept.
            labels: What is learnt, by which folds.
            settings: Whatever else changes the scores; its repr must tell all of it.

        Returns:
            The work, or what is left of an earlier run that was the same.
        """
        digest = digest_of([repr(settings), *labels.prompts])
        digest.update(labels.outcomes.tobytes() + labels.folds.tobytes())
        return cls(folder=folder, key=digest.hexdigest()[:16])

    def find(self, fold: int, count: int) -> NDArray[np.float64] | None:
        """The scores of a fold's rows, shape (count,); None where they are not there."""
        try:
            found = np.load(self._file(fold), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found if found.shape == (count,) and found.dtype == np.float64 else None

    def keep(self, fold: int, scores: NDArray[np.float64]) -> None:
        """Write a fold's scores, and remove the checkpoints that led to them, which take gigabytes."""
        data = io.BytesIO()
        np.save(data, scores, allow_pickle=False)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._file(fold), data.getvalue())
        shutil.rmtree(self.place(f"fold-{fold}"), ignore_errors=True)

    @staticmethod
    def clear(folder: Path) -> None:
        """Remove what fits have left in a folder, and it, if nothing else lies there."""
        for path in folder.glob("*") if folder.is_dir() else ():
            if _OWN.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()

    def place(self, name: str) -> Path:
        """Folder for the checkpoints of one fit."""
        return self.folder / f"{self.key}-{name}"

    def _file(self, fold: int) -> Path:
        return self.folder / f"{self.key}-{fold}.npy"
