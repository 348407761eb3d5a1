"""Asking models: each call once, its reply on disk first, and everything that ends a run early."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any

from prefroute.embedding._secrets import masked, secrets_of
from prefroute.inputs import as_prompt
from prefroute.labelling._clients import MayBePaidError, client_of
from prefroute.labelling._gate import LONGEST_HOLD, Gate
from prefroute.labelling._replies import reply_of
from prefroute.labelling._stopping import CallFailedError, StoppedError
from prefroute.labelling.journal import PaidCall, Reply, key_of
from prefroute.labelling.spending import estimated_tokens, most_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefroute.labelling._stopping import Stop
    from prefroute.labelling.endpoints import Endpoint
    from prefroute.labelling.journal import Journal
    from prefroute.labelling.spending import Ledger

IN_A_ROW = 10
"""Calls of one model that fail one after the other before the run stops: the next ones would fail as well."""

_SHOWN = 300
_HOPELESS = {401, 402}
_HOPELESS_AT_FIRST = {403, 404}
_OF_THE_PROMPT = {400, 413, 422}
"""What a server says to a prompt that is too long or not allowed, if it takes others."""


@dataclass
class _Server:
    """The client of one endpoint, and how its calls went.

    `is_known` is whether its model has answered in an earlier run.
    """

    client: Any
    completions: Any
    gate: Gate
    is_known: bool = False
    under_way: int = 0
    has_answered: bool = False
    failures: int = 0


class Asker:
    """Makes the calls of one run.

    Args:
        journal: Where replies are, and go.
        ledger: What they cost.
        stop: Ends the run.
        concurrency: Calls under way at once.
    """

    def __init__(self, journal: Journal, ledger: Ledger, stop: Stop, concurrency: int) -> None:
        self.made = 0
        self._journal = journal
        self._ledger = ledger
        self._stop = stop
        self._slots = asyncio.Semaphore(concurrency)
        self._servers: dict[Endpoint, _Server] = {}
        self._gates: dict[tuple[str, str | None], Gate] = {}
        self._on_their_way: dict[str, asyncio.Task[Reply]] = {}
        self._is_abandoned = False
        self._writer = ThreadPoolExecutor(1, "prefroute-label")

    @property
    def waiting(self) -> int:
        """Calls to servers that asked to be left alone for a while."""
        return sum(server.under_way for server in self._servers.values() if server.gate.is_holding)

    @property
    def refusals(self) -> int:
        """How often servers refused a call for load."""
        return sum(gate.refusals for gate in self._gates.values())

    def open(self, endpoint: Endpoint) -> None:
        """Make the client of an endpoint.

        Raises:
            ConfigurationError: There is no key, or it cannot be sent.
            MissingExtraError: openai is not installed.
        """
        if endpoint not in self._servers:
            gate = self._gate(endpoint)
            client = client_of(endpoint, gate)
            is_known = any(call.model == endpoint.model for call in self._journal.calls.values())
            self._servers[endpoint] = _Server(
                client, client.chat.completions.with_raw_response, gate, is_known=is_known
            )

    def _gate(self, endpoint: Endpoint) -> Gate:
        """The one that all models of a server share, since limits are those of a key."""
        place = endpoint.url, endpoint.key_env
        if place not in self._gates:

            def too_long(seconds: float) -> None:
                limits = (
                    f"asks to be left alone for {seconds:.0f} seconds, and no more than {LONGEST_HOLD:.0f} are waited"
                )
                self._stop.set(
                    "failed", f"{endpoint.url} {limits}; check the account's limits, and run this again then"
                )

            self._gates[place] = Gate(too_long)
            self._stop.then(self._gates[place].shut)
        return self._gates[place]

    async def ask(self, role: str, endpoint: Endpoint, text: str) -> Reply:
        """The reply to a message, from the work file if it is there.

        Args:
            role: strong, weak or judge.
            endpoint: An opened one.
            text: The message.

        Returns:
            The reply.

        Raises:
            CallFailedError: There is none, after the retries.
            StoppedError: The run ends first.
        """
        key = key_of(role, endpoint, text)
        known = self._journal.calls.get(key)
        if known is not None:
            return known.reply
        task = self._on_their_way.get(key)
        if task is None:
            task = asyncio.create_task(self._call(key, role, endpoint, text))
            self._on_their_way[key] = task
            task.add_done_callback(lambda _: self._on_their_way.pop(key, None))
        # Whoever waits may be cancelled; the call is cancelled by `abandon` alone.
        return await asyncio.shield(task)

    async def write(self, function: Callable[..., object], *arguments: object) -> None:
        """Write to a file on the one thread that does so, in the order asked; done even if the caller is cancelled.

        Raises:
            StoppedError: It could not be written; the run ends.
        """
        loop = asyncio.get_running_loop()
        try:
            await asyncio.shield(loop.run_in_executor(self._writer, function, *arguments))
        except (OSError, TypeError, ValueError, RecursionError) as error:
            self._stop.set("failed", f"the files cannot be written: {error}")
            raise StoppedError from error

    def abandon(self) -> None:
        """Give up the calls on their way."""
        self._is_abandoned = True
        for task in tuple(self._on_their_way.values()):
            task.cancel()

    def shown(self, text: str) -> str:
        """A message, short and without the secrets that the clients know."""
        return as_prompt(masked(text, self._secrets())[:_SHOWN])

    async def close(self) -> None:
        """Close the connections and end the writer, when all is written."""
        await asyncio.gather(*self._on_their_way.values(), return_exceptions=True)
        for server in self._servers.values():
            await server.client.close()
        await asyncio.to_thread(self._writer.shutdown)

    async def _call(self, key: str, role: str, endpoint: Endpoint, text: str) -> Reply:
        sent = estimated_tokens(text) + estimated_tokens(endpoint.system or "")
        async with self._slots:
            self._check()
            most = most_tokens(text) + (0 if endpoint.system is None else most_tokens(endpoint.system))
            reserved = await self._ledger.reserve(role, endpoint, most)
            if reserved is None:
                limit = f"{self._ledger.spent:.4g} of {self._ledger.max_cost:.4g} US dollars are spent"
                might = f"the next call to {endpoint.model} might cost more than is left"
                longest = f"it may have {self._ledger.most_output(role, endpoint):.0f} output tokens"
                if endpoint.max_tokens is None:
                    longest += ", unless max_tokens says less"
                self._stop.set("max_cost", f"{limit}, and {might}: {longest}")
                raise StoppedError
            with reserved:
                self._check()
                try:
                    reply = await self._reply(role, endpoint, text, sent)
                except CallFailedError as failure:
                    if failure.may_be_paid:
                        reserved.lose()
                    raise
                call = PaidCall(key=key, role=role, model=endpoint.model, reply=reply)
                self._ledger.record(call)
                await self.write(self._journal.add, call)
            return reply

    def _check(self) -> None:
        if self._stop.reason is not None:
            raise StoppedError

    async def _reply(self, role: str, endpoint: Endpoint, text: str, sent: int) -> Reply:
        server = self._servers[endpoint]
        self.made += 1
        server.under_way += 1
        try:
            answer = await server.completions.create(**endpoint.request(text))
            reply = reply_of(answer.http_response.json(), sent)
        except MayBePaidError:
            failure = self._late(role, endpoint, server)
        except asyncio.CancelledError:
            if self._is_abandoned:
                raise
            raise StoppedError from None  # The gate was shut.
        except Exception as error:  # noqa: BLE001 - the package's own, and those of odd answers
            failure = self._failure(role, endpoint, server, error)
        else:
            server.has_answered, server.failures = True, 0
            secrets = self._secrets()
            reason = reply.finish_reason and masked(reply.finish_reason, secrets)
            return replace(reply, text=masked(reply.text, secrets), finish_reason=reason)
        finally:
            server.under_way -= 1
            server.gate.forget()
        # Outside of any `except`, which would chain it to the server's own words.
        raise failure

    def _late(self, role: str, endpoint: Endpoint, server: _Server) -> CallFailedError:
        """No answer in time."""
        server.failures += 1
        waited = f"{role} {endpoint.model}: no answer within {endpoint.timeout:g} seconds"
        message = f"{waited}; it may be paid for, so it is not asked for again in this run; a longer timeout may help"
        if server.failures >= IN_A_ROW:
            self._stop.set("failed", message)
        return CallFailedError(f"{role}: APITimeoutError", message, may_be_paid=True)

    def _failure(self, role: str, endpoint: Endpoint, server: _Server, error: Exception) -> CallFailedError:
        status = getattr(error, "status_code", None)
        kind = f"{role}: {type(error).__name__}" + ("" if status is None else f" {status}")
        cause = error.__cause__
        why = f" ({type(cause).__name__}: {cause})" if status is None and cause is not None else ""
        said = str(error) if status is not None else f"{error}{why}, at {endpoint.url}"
        if isinstance(error, JSONDecodeError):
            said = f"the answer is no JSON, at {endpoint.url}; is that the base URL, which often ends in /v1?"
        message = self.shown(f"{role} {endpoint.model}: {type(error).__name__}: {said}")
        is_final = status in _OF_THE_PROMPT and (server.has_answered or server.is_known)
        server.failures += not is_final
        if self._is_hopeless(server, status, error):
            remedy = _REMEDIES.get(status, "see that the server runs and takes such requests; then run this again")
            if status == 401 and endpoint.is_stranger and endpoint.key_env is None:  # noqa: PLR2004 - unauthorized
                remedy = "it was sent no key: name the variable of its key (key_env, --weak-key-env and the like)"
            self._stop.set("failed", f"{message}; {remedy}")
        # What is no JSON came with status 200.
        return CallFailedError(kind, message, is_final=is_final, may_be_paid=isinstance(error, ValueError))

    @staticmethod
    def _is_hopeless(server: _Server, status: int | None, error: Exception) -> bool:
        """Whether the other rows would get the same error."""
        is_spent = getattr(error, "code", None) == "insufficient_quota"
        at_first = status in _HOPELESS_AT_FIRST or type(error).__name__ == "APIConnectionError"
        return status in _HOPELESS or is_spent or (at_first and not server.has_answered) or server.failures >= IN_A_ROW

    def _secrets(self) -> set[str]:
        return set().union(*(secrets_of(server.client) for server in self._servers.values()))


_REMEDIES: dict[object, str] = {
    401: "check the key and the variable that is named for it",
    402: "check the account's credit",
    403: "check the key and what it may do",
    404: "check the model's name and the base URL",
    429: "check the account's limits and credit, or lower the concurrency; then run this again",
}
