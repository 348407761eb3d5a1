"""The output: one row a prompt, on disk as soon as it is finished; a table that every reader of prefroute reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from prefroute.errors import ConfigurationError, DataError
from prefroute.labelling._lines import LineFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

COLUMNS = (
    *("prompt", "strong_answer", "weak_answer", "verdict"),
    *("input_tokens", "strong_output_tokens", "weak_output_tokens"),
    *("strong_cost", "weak_cost", "judge_cost"),
    *("reference", "error"),
)
"""Columns beside the two of the qualities, which are named as the models."""


class Prompt(NamedTuple):
    """What is labelled.

    Attributes:
        text: The prompt.
        reference: What is right, where that is known.
    """

    text: str
    reference: str | None = None


def check_names(strong: str, weak: str) -> None:
    """Check that the models can name the quality columns.

    Raises:
        ConfigurationError: They are the same, or one is a column already.
    """
    if strong == weak:
        msg = f"the strong and the weak model must have different names, got {strong!r} twice: each names a column"
        raise ConfigurationError(msg)
    for name in (strong, weak):
        if name in COLUMNS:
            msg = (
                f"a model called {name!r} cannot be labelled: its quality column would have the name of another "
                f"column ({', '.join(COLUMNS)}); serve it under another name"
            )
            raise ConfigurationError(msg)


def different(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """The prompts, each once with each reference, in order."""
    return tuple(dict.fromkeys(prompts))


def prompt_of_row(row: dict[str, Any]) -> Prompt:
    """What a row is the label of."""
    return Prompt(str(row.get("prompt")), row.get("reference"))


class Output:
    """The file of rows.

    Args:
        path: The file.

    Attributes:
        good: Rows with qualities.
        failed: What has a row with an error.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = LineFile(path)
        self.good: dict[Prompt, dict[str, Any]] = {}
        self.failed: set[Prompt] = set()
        self._has_others = False

    def read(self) -> None:
        """Read the rows of an earlier run; those with an error are to be made anew.

        Raises:
            DataError: The file holds something else, or cannot be read.
        """
        rows = self._file.read(strict=True)
        for row in rows:
            if "prompt" not in row or "error" not in row:
                msg = f"{self.path} holds rows that prefroute label did not write; choose another output"
                raise DataError(msg)
            if row["error"] is None:
                self.good[prompt_of_row(row)] = row
            else:
                self.failed.add(prompt_of_row(row))
        self._has_others = len(self.good) < len(rows)

    @property
    def exists(self) -> bool:
        """Whether there is such a file with anything in it."""
        return self.path.exists() and self.path.stat().st_size > 0

    def leave_out_other_references(self, prompts: Iterable[Prompt]) -> int:
        """Leave out rows of prompts that are given with another reference now: theirs was corrected.

        Args:
            prompts: Those given.

        Returns:
            How many there were.
        """
        given = set(prompts)
        texts = {prompt.text for prompt in given}
        stale = [prompt for prompt in self.good if prompt.text in texts and prompt not in given]
        for prompt in stale:
            del self.good[prompt]
        self._has_others = self._has_others or bool(stale)
        return len(stale)

    def restart(self) -> None:
        """Leave out the rows that are there; the file is emptied when the run starts."""
        self._has_others = self.exists

    def start(self) -> None:
        """Leave the good rows alone in the file."""
        if self._has_others:
            self._file.rewrite(self.good.values())
            self._has_others = False

    def add(self, row: dict[str, Any]) -> None:
        """Put a row on disk."""
        self._file.append(row)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
