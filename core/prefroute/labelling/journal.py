"""The work file beside the output: every reply that was paid for, on disk before anything is done with it."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from prefroute.errors import DataError
from prefroute.inputs import finite_or_none
from prefroute.labelling._lines import LineFile

if TYPE_CHECKING:
    from pathlib import Path

    from prefroute.labelling.endpoints import Endpoint

SUFFIX = ".calls"
_SECRET_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model answered.

    Attributes:
        text: The answer; empty where there is none.
        finish_reason: Why it ended; `length` where it was cut off.
        input_tokens: As the server counted them; None where it does not say.
        output_tokens: Likewise.
        cached_tokens: Those of the input that the server had in its cache.
        sent_tokens: Those of the input as they were estimated.
        fault: Why a reply that was paid for cannot be read; None for any other.
    """

    text: str
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    sent_tokens: int = 0
    fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class PaidCall:
    """A reply, and what it was the reply to."""

    key: str
    role: str
    model: str
    reply: Reply


@dataclass(frozen=True, kw_only=True)
class LostCall:
    """A call that got no reply, though it may be paid for.

    Attributes:
        role: strong, weak or judge.
        model: Its name.
        amount: US dollars that were set aside for it.
    """

    role: str
    model: str
    amount: float


def key_of(role: str, endpoint: Endpoint, text: str) -> str:
    """What tells one call from every other: its role, the server and the whole request."""
    parts = json.dumps([role, endpoint.url, endpoint.request(text)], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()


class Journal:
    """The work file of one output: replies by key, the secret of the codes, and the settings of the output's rows.

    Args:
        path: The file.

    Attributes:
        secret: Of the codes.
        settings: What the rows were made with; None where that is not noted yet.
        calls: The last reply to each call, by its key.
        paid: Every reply.
        lost: Every call that may be paid for without one.
    """

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)
        self._is_new = True
        self.secret = secrets.token_bytes(_SECRET_BYTES)
        self.settings: dict[str, Any] | None = None
        self.calls: dict[str, PaidCall] = {}
        self.paid: list[PaidCall] = []
        self.lost: list[LostCall] = []

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def read(self) -> None:
        """Read what an earlier run left.

        Raises:
            DataError: It is no such file, or cannot be read.
        """
        lines = self._file.read()
        for line in lines:
            kind, value = line.get("kind"), line.get("value")
            if kind == "secret":
                self.secret, self._is_new = bytes.fromhex(str(value)), False
            elif kind == "settings" and isinstance(value, dict):
                self.settings = value
            elif kind == "call":
                self._note(_call(line))
            elif kind == "lost":
                self.lost.append(_lost(line))
        if lines and self._is_new:
            msg = f"{self.path} is no work file of prefroute label; move it away, or choose another output"
            raise DataError(msg)

    def start(self, settings: dict[str, Any]) -> None:
        """Note what the rows that follow are made with."""
        if self._is_new:
            self._file.append({"kind": "secret", "value": self.secret.hex()})
            self._is_new = False
        if settings != self.settings:
            self._file.append({"kind": "settings", "value": settings})
            self.settings = settings

    def add(self, call: PaidCall) -> None:
        """Put a reply on disk."""
        about = {"key": call.key, "role": call.role, "model": call.model}
        self._file.append({"kind": "call", **about, **asdict(call.reply)})
        self._note(call)

    def lose(self, call: LostCall) -> None:
        """Put on disk what may be paid for, for later runs to count."""
        self._file.append({"kind": "lost", **asdict(call)})
        self.lost.append(call)

    def forget(self, key: str) -> None:
        """Have a call made again: its reply was of no use. It stays in the file, and in what was paid for."""
        self.calls.pop(key, None)

    def _note(self, call: PaidCall) -> None:
        self.calls[call.key] = call
        self.paid.append(call)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_REPLY = tuple(field.name for field in fields(Reply))


def _call(line: dict[str, Any]) -> PaidCall:
    reply = Reply(**{name: line[name] for name in _REPLY if name in line})
    return PaidCall(key=str(line.get("key")), role=str(line.get("role")), model=str(line.get("model")), reply=reply)


def _lost(line: dict[str, Any]) -> LostCall:
    amount = max(finite_or_none(line.get("amount")) or 0.0, 0.0)
    return LostCall(role=str(line.get("role")), model=str(line.get("model")), amount=amount)
