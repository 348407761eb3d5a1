"""Asking models: each call once, its reply on disk first, and everything that ends a run early."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from prefroute.embedding._secrets import masked, secrets_of
from prefroute.inputs import as_prompt
from prefroute.labelling._gate import LONGEST_HOLD, Gate
from prefroute.labelling._replies import reply_of
from prefroute.labelling._sending import MayBePaidError
from prefroute.labelling._servers import Server
from prefroute.labelling._stopping import CallFailedError, StoppedError
from prefroute.labelling.journal import LostCall, PaidCall, Reply, key_of
from prefroute.labelling.spending import estimated_tokens, most_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefroute.labelling._stopping import Stop
    from prefroute.labelling.endpoints import Endpoint
    from prefroute.labelling.journal import Journal
    from prefroute.labelling.spending import Ledger

_SHOWN = 300
_NO_WORD = 16
"""Characters of a key that no answer holds by chance; a shorter one may be a word, such as "not-needed"."""


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
        self._servers: dict[Endpoint, Server] = {}
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
            is_known = any(call.model == endpoint.model for call in self._journal.calls.values())
            self._servers[endpoint] = Server(endpoint, self._gate(endpoint), self._stop, self.shown, is_known=is_known)

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
        may_repeat = endpoint.max_retries > 0
        async with self._slots:
            while True:
                try:
                    return await self._bought(key, role, endpoint, text)
                except MayBePaidError as error:
                    lost = error
                if not (may_repeat and lost.may_repeat):
                    # Outside of any `except`, which would chain it to the server's own words.
                    raise self._servers[endpoint].lost(role, lost)
                may_repeat = False

    async def _bought(self, key: str, role: str, endpoint: Endpoint, text: str) -> Reply:
        """The reply to one request, which is journalled and accounted for, as is what may be paid for without one."""
        self._check()
        most = most_tokens(text) + (0 if endpoint.system is None else most_tokens(endpoint.system))
        reserved = await self._ledger.reserve(role, endpoint, most)
        if reserved is None:
            self._stop.set("max_cost", self._too_little(role, endpoint))
            raise StoppedError
        with reserved:
            self._check()
            try:
                reply = await self._reply(role, endpoint, text)
            except (CallFailedError, MayBePaidError) as failure:
                if failure.may_be_paid:
                    reserved.lose()
                    lost = LostCall(role=role, model=endpoint.model, amount=reserved.amount)
                    await self.write(self._journal.lose, lost)
                raise
            call = PaidCall(key=key, role=role, model=endpoint.model, reply=reply)
            try:
                await self.write(self._journal.add, call)
            finally:
                self._ledger.record(call)
        return reply

    def _too_little(self, role: str, endpoint: Endpoint) -> str:
        ledger = self._ledger
        spent = f"{ledger.spent:.4g} of {ledger.max_cost:.4g} US dollars are spent"
        if ledger.lost:
            spent += f", up to {ledger.lost:.4g} more may be for calls that got no answer"
        longest = f"it may have {ledger.most_output(role, endpoint):.0f} output tokens"
        if endpoint.max_tokens is None:
            longest += ", unless max_tokens says less"
        return f"{spent}, and the next call to {endpoint.model} might cost more than is left: {longest}"

    def _check(self) -> None:
        if self._stop.reason is not None:
            raise StoppedError

    async def _reply(self, role: str, endpoint: Endpoint, text: str) -> Reply:
        server = self._servers[endpoint]
        self.made += 1
        server.under_way += 1
        try:
            sent = estimated_tokens(text) + estimated_tokens(endpoint.system or "")
            reply = reply_of(await server.answer(text), sent)
        except asyncio.CancelledError:
            if self._is_abandoned:
                raise
            raise StoppedError from None  # The gate was shut.
        except Exception as error:  # noqa: BLE001 - the package's own, and those of odd answers
            failure = server.failed(role, error)
        else:
            server.answered()
            secrets = {secret for secret in self._secrets() if len(secret) >= _NO_WORD}
            reason = reply.finish_reason and masked(reply.finish_reason, secrets)
            return replace(reply, text=masked(reply.text, secrets), finish_reason=reason)
        finally:
            server.under_way -= 1
            server.gate.forget()
        raise failure

    def _secrets(self) -> set[str]:
        return set().union(*(secrets_of(server.client) for server in self._servers.values()))
