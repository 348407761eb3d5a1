"""One model's server: its client, how its calls went, and whether there is any use in more of them."""

from __future__ import annotations

import time
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from prefroute.labelling._clients import client_of
from prefroute.labelling._stopping import CallFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefroute.labelling._gate import Gate
    from prefroute.labelling._sending import MayBePaidError
    from prefroute.labelling._stopping import Stop
    from prefroute.labelling.endpoints import Endpoint

IN_A_ROW = 10
"""Calls of one model that fail one after the other before the run stops: the next ones would fail as well."""

PATIENCE = 240.0
"""Seconds without an answer until refusals for load are such failures, where the server does not say how long it is to
be left alone; it was then left alone for the longest time three times."""

_HOPELESS = {301, 302, 303, 307, 308, 401, 402}
_HOPELESS_AT_FIRST = {403, 404}
_OF_LOAD = {429, 503}
_OF_THE_PROMPT = {400, 413, 422}
"""What a server says to a prompt that is too long or not allowed, if it takes others."""

_PATH = "/chat/completions"


class Server:
    """The client of one endpoint, and how its calls went.

    Args:
        endpoint: Whom it asks.
        gate: What each request passes.
        stop: Ends the run.
        shown: Makes a message fit to be shown.
        is_known: Whether its model has answered in an earlier run.

    Attributes:
        client: Of the openai package.
        gate: As given.
        under_way: Calls.

    Raises:
        ConfigurationError: There is no key, or it cannot be sent.
        MissingExtraError: openai is not installed.
    """

    def __init__(
        self, endpoint: Endpoint, gate: Gate, stop: Stop, shown: Callable[[str], str], *, is_known: bool
    ) -> None:
        self.client = client_of(endpoint, gate)
        self.gate = gate
        self.under_way = 0
        self._endpoint = endpoint
        self._stop = stop
        self._shown = shown
        self._is_known = is_known
        self._has_answered = False
        self._failures = 0
        self._refused_since: float | None = None

    async def answer(self, text: str) -> Any:
        """The body of the answer to a message.

        Raises:
            MayBePaidError: There is none, and it may be paid for.
            openai.APIError: There is none.
            ValueError: It is no JSON.
        """
        completions = self.client.chat.completions.with_raw_response
        raw = await completions.create(**self._endpoint.request(text))
        return raw.http_response.json()

    def answered(self) -> None:
        """Note a reply."""
        self._has_answered, self._failures, self._refused_since = True, 0, None

    def lost(self, role: str, error: MayBePaidError) -> CallFailedError:
        """Note a call that may be paid for without a reply, and say so."""
        self._failures += 1
        lost = "it may be paid for, so it is not asked for again in this run"
        message = self._shown(f"{role} {self._endpoint.model}: {error}; {lost}")
        if self._failures >= IN_A_ROW:
            self._stop.set("failed", message)
        return CallFailedError(f"{role}: {error.kind}", message, may_be_paid=True)

    def failed(self, role: str, error: Exception) -> CallFailedError:
        """Note any other call without a reply, and say why; ends the run where others would get the same."""
        status, url = getattr(error, "status_code", None), self._endpoint.url
        kind = f"{role}: {type(error).__name__}" + ("" if status is None else f" {status}")
        cause = error.__cause__
        why = f" ({type(cause).__name__}: {cause})" if status is None and cause is not None else ""
        said = str(error) if status is not None else f"{error}{why}, at {url}"
        if isinstance(error, JSONDecodeError):
            said = f"the answer is no JSON, at {url}; is that the base URL, which often ends in /v1?"
        message = self._shown(f"{role} {self._endpoint.model}: {type(error).__name__}: {said}")
        is_final = status in _OF_THE_PROMPT and (self._has_answered or self._is_known)
        self._failures += not (is_final or (status in _OF_LOAD and self._may_pass()))
        if self._is_hopeless(status, error):
            self._stop.set("failed", f"{message}; {self._remedy(status, error)}")
        # What cannot be read came with status 200.
        may_be_paid = isinstance(error, ValueError | RecursionError)
        return CallFailedError(kind, message, is_final=is_final, may_be_paid=may_be_paid)

    def _may_pass(self) -> bool:
        """Whether a refusal for load may be over soon."""
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        return not self.gate.is_told and now - self._refused_since < PATIENCE

    def _is_hopeless(self, status: int | None, error: Exception) -> bool:
        """Whether the other rows would get the same error."""
        is_spent = getattr(error, "code", None) == "insufficient_quota"
        at_first = status in _HOPELESS_AT_FIRST or type(error).__name__ == "APIConnectionError"
        return status in _HOPELESS or is_spent or (at_first and not self._has_answered) or self._failures >= IN_A_ROW

    def _remedy(self, status: int | None, error: Exception) -> str:
        if status == 401 and self._endpoint.is_stranger and self._endpoint.key_env is None:  # noqa: PLR2004 - unauthorized
            return "it was sent no key: name the variable of its key (key_env, --weak-key-env and the like)"
        response = getattr(error, "response", None)
        if response is not None and response.is_redirect:
            parts = urlsplit(urljoin(f"{self._endpoint.url}{_PATH}", response.headers["location"]))
            place = self._shown(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.removesuffix(_PATH)}")
            return f"it redirects to {place}: if you trust that, name it as the base URL"
        return _REMEDIES.get(status, "see that the server runs and takes such requests; then run this again")


_REMEDIES: dict[object, str] = {
    401: "check the key and the variable that is named for it",
    402: "check the account's credit",
    403: "check the key and what it may do",
    404: "check the model's name and the base URL",
    429: "check the account's limits and credit, or lower the concurrency; then run this again",
}
