"""Instructions of a judge: text with named placeholders, in a file that the user may replace."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Literal, TypeAlias

from prefroute.errors import ConfigurationError, DataError

Kind: TypeAlias = Literal["pairwise", "score"]
"""Kinds of judges."""

PLACEHOLDERS: dict[Kind, tuple[str, ...]] = {
    "pairwise": ("question", "answer_a", "answer_b", "form"),
    "score": ("question", "reference", "answer", "form"),
}
"""What each kind's instructions must name, as `$question`; `form` is how the verdict is to be written."""


def bundled_instructions(kind: Kind) -> str:
    """The instructions that come along, to use or to start from."""
    return Path(__file__).with_name(f"judge_{kind}.txt").read_text(encoding="utf-8")


def read_instructions(path: str | Path, kind: Kind) -> str:
    """Read instructions of one's own.

    Args:
        path: A text file.
        kind: Of the judge.

    Returns:
        Its text.

    Raises:
        DataError: It cannot be read.
        ConfigurationError: A placeholder is missing or unknown.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read as instructions of a judge: {error}; wanted a text file in UTF-8"
        raise DataError(msg) from error
    check_instructions(text, kind, str(path))
    return text


def check_instructions(text: str, kind: Kind, name: str = "instructions") -> None:
    """Check the placeholders.

    Args:
        text: The instructions.
        kind: Of the judge.
        name: What to call them in the message.

    Raises:
        ConfigurationError: One is missing or unknown, or a dollar sign begins none.
    """
    wanted = PLACEHOLDERS[kind]
    listed = ", ".join(f"${placeholder}" for placeholder in wanted)
    template = Template(text)
    if not template.is_valid():
        msg = f"{name}: a dollar sign that begins no placeholder is written $$; placeholders: {listed}"
        raise ConfigurationError(msg)
    found = template.get_identifiers()
    missing = [f"${placeholder}" for placeholder in wanted if placeholder not in found]
    unknown = [f"${placeholder}" for placeholder in found if placeholder not in wanted]
    if missing or unknown:
        faults = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(unknown)}"] * bool(unknown)
        msg = f"{name} {' and '.join(faults)}; a {kind} judge's instructions name {listed}, and $$ is a dollar sign"
        raise ConfigurationError(msg)


def filled(text: str, values: dict[str, str]) -> str:
    """The instructions with the placeholders replaced, once: what a value holds is no placeholder."""
    return Template(text).substitute(values)
