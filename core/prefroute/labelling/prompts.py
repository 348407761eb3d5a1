"""Prompts with what is right, from a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefroute.data.reading import read_columns
from prefroute.data.report import refuse, shown
from prefroute.data.values import as_turn, is_missing, prompt_of
from prefroute.errors import DataError
from prefroute.inputs import as_prompt
from prefroute.labelling.rows import Prompt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from prefroute.data import ReadReport
    from prefroute.data.reading import OnBadRow, Source
    from prefroute.data.values import Turn


def read_referenced_prompts(
    source: Source,
    reference: str,
    column: str = "prompt",
    *,
    turn: Turn = "first",
    on_bad_row: OnBadRow = "raise",
    report: ReadReport | None = None,
) -> list[Prompt]:
    """Read a column of prompts and one of what is right.

    Args:
        source: As for `prefroute.data.read_battles`.
        reference: Column of what is right: text, a number, or true and false.
        column: Column of the prompts.
        turn: Which of several turns is the prompt.
        on_bad_row: As for `read_battles`.
        report: As for `read_battles`.

    Returns:
        The prompts, in order.

    Raises:
        DataError: As for `read_battles`.
        ConfigurationError: As for `read_battles`.
        MissingExtraError: As for `read_battles`.
    """
    turn = as_turn(turn)

    def parse(values: tuple[Any, ...]) -> Prompt:
        return Prompt(prompt_of(values[0], turn), _reference(values[1]))

    return read_columns(source, [column, reference], parse, turn=turn, on_bad_row=on_bad_row, report=report)


def recorded_prompts(path: str | Path) -> list[Prompt]:
    """The prompts that an adapter has recorded, each once.

    Args:
        path: The file that was given as `record=`, or to a `prefroute.recording.Recorder`.

    Returns:
        The prompts that are not blank, oldest first.

    Raises:
        DataError: It is no such file, or holds none.
    """
    from prefroute.recording import read_recorded

    texts = dict.fromkeys(item.prompt for item in read_recorded(path))
    found = [Prompt(text) for text in texts if text.strip()]
    if not found:
        msg = f"{path} holds no recorded prompts; let an application with record={str(path)!r} run for a while"
        raise DataError(msg)
    return found


def drawn(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """A random sample of prompts that is the same each time, and changes little as prompts are added.

    Args:
        prompts: n prompts; repeated ones are one.
        count: How many are wanted.

    Returns:
        So many, or all there are, in order: those whose hashes are the lowest.
    """
    from prefroute.data import text_hashes

    once = list(dict.fromkeys(prompts))
    hashes = text_hashes(prompt.text for prompt in once)
    return [once[place] for place in sorted(hashes.argsort(kind="stable")[:count])]


def _reference(value: Any) -> str:
    if is_missing(value) or (isinstance(value, str) and value.isspace()):
        refuse("reference is missing")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # A column of integers with a gap in it comes as floats.
    if not isinstance(value, str | int | float):
        refuse("reference is not text", f"reference must be text or a number, got {shown(value)}")
    return as_prompt(str(value))
