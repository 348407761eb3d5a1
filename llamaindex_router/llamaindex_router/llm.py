"""One LLM in place of two: each call goes to the strong or the weak one, as a learned router decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.callbacks import CallbackManager

from llamaindex_router.base import HOOKS, as_llm
from llamaindex_router.spans import watch_spans
from llamaindex_router.text import asked_in_chat, asked_in_completion, asked_in_template
from llamaindex_router.tools import RoutedTools
from prefroute.conversation import TurnPolicy
from prefroute.decider import Decider
from prefroute.fallback import as_fallback
from prefroute.inputs import as_hook

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence
    from pathlib import Path

    from llama_index.core.base.llms.types import (
        ChatResponseAsyncGen,
        ChatResponseGen,
        CompletionResponseAsyncGen,
        CompletionResponseGen,
    )
    from llama_index.core.llms import LLM, ChatMessage, ChatResponse, CompletionResponse
    from llama_index.core.program.utils import FlexibleModel
    from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
    from llama_index.core.types import Model, TokenAsyncGen, TokenGen

    from llamaindex_router.base import TextFunction
    from prefroute import OnError, Route, Router, RoutingDecision, RoutingStats
    from prefroute.conversation import Decide
    from prefroute.recording import Recorder


class RoutedLLM(RoutedTools):
    """An LLM that sends each call to a strong or a weak LLM.

    A call is decided once and handed on whole: the chosen LLM does its own prompting, tool preparation and
    parsing, and fires its own events. System prompts, output parsers and the like are therefore set on the
    two LLMs.

    Before the router is asked: a call that one LLM cannot take, by its metadata (context window, tools), goes to the
    other one. The router is asked the person's question alone: the query in a synthesizer's prompt, the last message
    that the person wrote in a conversation, all of a raw `complete` prompt. The later steps of a turn (tool results,
    ReAct observations, further calls on one question within a query) keep its decision, which is counted once.
    Where the LLMs' classes differ, one is given the other's answers as text and tool calls, for only their author can
    read signed thinking and the like; your own list of messages stays as it is.

    A response carries its decision (`RoutingDecision.as_dict()`) in `additional_kwargs["routing"]`, and so do the tags
    of all events and spans of the call. Chat, completion and tool calls take `threshold=`, or `strong_rate=` in its
    place, or `route="strong"` or `"weak"`; the structured ones take them in `llm_kwargs`. For whatever passes no
    keywords on, such as query engines and agents, there is `routing_options`.

    Example:
        ```python
        llm = RoutedLLM(strong=OpenAI("gpt-5"), weak=OpenAI("gpt-5-mini"))
        Settings.llm = llm
        print(llm.complete("What is 2 + 2?").additional_kwargs["routing"]["route"])
        print(llm.complete("Prove it.", route="strong").text)  # whatever the score
        print(llm.stats.strong_rate)
        ```

    Args:
        strong: The better, more expensive LLM.
        weak: The cheaper one.
        router: A router, a name or folder for `prefroute.load_router`, or None for the bundled default.
        threshold: Scores at or above it go to the strong LLM; None for the router's own at each call.
            `strong_rate=0.3` in its place sends that share of calls there, by the calibration of the router.
        on_router_error: Side taken when the router fails, or `"raise"`; None for the router's own setting.
        router_time_limit: Seconds the router may take; None for the router's own setting.
        decide: `"per_turn"`: by what the person said, so the steps of an agent's turn stay with one LLM. `"per_step"`:
            by that and the newest tool result, anew for each call, so they may change. `"per_conversation"`: the LLM
            of the latest answer stays, where this object has given it; prompt templates show no conversation.
        lock_tool_loop: Whether the answer to a tool's result comes from the LLM that called the tool, where this
            object has called it.
        escalate_after: So many identical tool calls in one turn send its rest to `strong`.
        text_fn: Finds what the router is asked in the messages of a call, a template's among them. Where it fails, the
            router has failed.
        fallback_to_other: Whether the other LLM answers where the chosen one fails before its first chunk; once. Not in
            `predict_and_call`, which may have run tools by then. The record of the decision says so, under `fallback`.
        shadow: The side that answers every call whatever is decided: what routing would do can be watched first.
        on_route: Called with each `RoutingDecision`; a quick, plain function.
        record: A `prefroute.recording.Recorder`, or the path of a file, that keeps each decision with its text and
            what came of it; None to keep nothing.
        stats: Where decisions are counted; None for statistics of its own.
        callback_manager: Its handlers are lent to the chosen LLM for each call, besides that LLM's own. Query engines
            put their own in its place, as they do with any LLM: `Settings.callback_manager`, if nothing else is said.
        rate_limiter: Waited for before each call, besides the chosen LLM's own.

    Raises:
        ConfigurationError: An argument cannot be used.
        ThresholdError: Neither `threshold` nor the router has a threshold.
        PersistenceError: There is no readable router of that name.
    """

    # Here, beside the docstring and not in the base class: type checkers make up a constructor from the fields
    # for every pydantic class that has none of its own.
    def __init__(
        self,
        *,
        strong: LLM,
        weak: LLM,
        router: Router | str | Path | None = None,
        threshold: float | None = None,
        strong_rate: float | None = None,
        on_router_error: OnError | None = None,
        router_time_limit: float | None = None,
        decide: Decide = "per_turn",
        lock_tool_loop: bool = False,
        escalate_after: int | None = None,
        text_fn: TextFunction | None = None,
        fallback_to_other: bool = False,
        shadow: Route | None = None,
        on_route: Callable[[RoutingDecision], object] | None = None,
        record: Recorder | str | Path | None = None,
        stats: RoutingStats | None = None,
        callback_manager: CallbackManager | None = None,
        rate_limiter: Any | None = None,
    ) -> None:
        strong, weak = as_llm(strong, "strong"), as_llm(weak, "weak")
        decider = Decider.of(
            router,
            threshold=threshold,
            strong_rate=strong_rate,
            on_error=on_router_error,
            time_limit=router_time_limit,
            stats=stats,
            on_route=on_route,
            shadow=shadow,
            record=record,
        )
        TurnPolicy(decide=decide, lock_tool_loop=lock_tool_loop, escalate_after=escalate_after)
        watch_spans()
        super().__init__(
            strong=strong,
            weak=weak,
            router=decider.router,
            threshold=decider.threshold,
            on_router_error=on_router_error,
            router_time_limit=router_time_limit,
            decide=decide,
            lock_tool_loop=lock_tool_loop,
            escalate_after=escalate_after,
            text_fn=as_hook(text_fn, "text_fn", HOOKS["text_fn"]),
            fallback_to_other=as_fallback(fallback_to_other, shadow),
            shadow=shadow,
            on_route=on_route,
            record=decider.recorder,
            stats=decider.stats,
            callback_manager=CallbackManager() if callback_manager is None else callback_manager,
            rate_limiter=rate_limiter,
        )

    # Not decorated with llm_chat_callback and its like: the chosen LLM's methods are, and events count once.

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        chosen = self._choose(asked_in_chat(messages), kwargs)
        return chosen.call(lambda to: to.llm.chat(to.fit(messages), **kwargs))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        chosen = await self._achoose(asked_in_chat(messages), kwargs)
        return await chosen.acall(lambda to: to.llm.achat(to.fit(messages), **kwargs))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation, in growing pieces; decided before this returns."""
        chosen = self._choose(asked_in_chat(messages), kwargs)
        return chosen.stream(lambda to: to.llm.stream_chat(to.fit(messages), **kwargs))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation, in growing pieces; decided before this returns."""
        chosen = await self._achoose(asked_in_chat(messages), kwargs)
        return await chosen.astream(lambda to: to.llm.astream_chat(to.fit(messages), **kwargs))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: FBT001, FBT002 - the framework's signature
        """Complete a prompt."""
        chosen = self._choose(asked_in_completion(prompt), kwargs)
        return chosen.call(lambda to: to.llm.complete(prompt, formatted=formatted, **kwargs))

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: FBT001, FBT002 - as above
        """Complete a prompt."""
        chosen = await self._achoose(asked_in_completion(prompt), kwargs)
        return await chosen.acall(lambda to: to.llm.acomplete(prompt, formatted=formatted, **kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:  # noqa: FBT001, FBT002 - as above
        """Complete a prompt, in growing pieces; decided before this returns."""
        chosen = self._choose(asked_in_completion(prompt), kwargs)
        return chosen.stream(lambda to: to.llm.stream_complete(prompt, formatted=formatted, **kwargs))

    async def astream_complete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: FBT001, FBT002 - as above
        **kwargs: Any,
    ) -> CompletionResponseAsyncGen:
        """Complete a prompt, in growing pieces; decided before this returns."""
        chosen = await self._achoose(asked_in_completion(prompt), kwargs)
        return await chosen.astream(lambda to: to.llm.astream_complete(prompt, formatted=formatted, **kwargs))

    # Prompt templates. Left to the base class, they would be filled in and parsed by the proxy, and the chosen
    # LLM's system prompt, output parser, template variant and native structured output would be lost.

    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Fill in a template and answer it."""
        chosen = self._choose(asked_in_template(self, prompt, prompt_args), {})
        return chosen.call(lambda to: to.llm.predict(to.fit_template(prompt), **prompt_args))

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Fill in a template and answer it."""
        chosen = await self._achoose(asked_in_template(self, prompt, prompt_args), {})
        return await chosen.acall(lambda to: to.llm.apredict(to.fit_template(prompt), **prompt_args))

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """Fill in a template and answer it, token by token."""
        chosen = self._choose(asked_in_template(self, prompt, prompt_args), {})
        return chosen.stream(lambda to: to.llm.stream(to.fit_template(prompt), **prompt_args))

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """Fill in a template and answer it, token by token."""
        chosen = await self._achoose(asked_in_template(self, prompt, prompt_args), {})
        return await chosen.astream(lambda to: to.llm.astream(to.fit_template(prompt), **prompt_args))

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Fill in a template and answer it with an object."""
        kwargs = dict(llm_kwargs or {})
        chosen = self._choose(asked_in_template(self, prompt, prompt_args), kwargs)
        answer: Model = chosen.call(
            lambda to: to.llm.structured_predict(output_cls, to.fit_template(prompt), {**kwargs}, **prompt_args)
        )
        return answer

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Fill in a template and answer it with an object."""
        kwargs = dict(llm_kwargs or {})
        chosen = await self._achoose(asked_in_template(self, prompt, prompt_args), kwargs)
        return await chosen.acall(
            lambda to: to.llm.astructured_predict(output_cls, to.fit_template(prompt), {**kwargs}, **prompt_args)
        )

    def stream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Model | FlexibleModel]:
        """Fill in a template and answer it with an object that fills up; decided before this returns."""
        kwargs = dict(llm_kwargs or {})
        chosen = self._choose(asked_in_template(self, prompt, prompt_args), kwargs)
        return chosen.stream(
            lambda to: to.llm.stream_structured_predict(output_cls, to.fit_template(prompt), {**kwargs}, **prompt_args)
        )

    async def astream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Model | FlexibleModel]:
        """Fill in a template and answer it with an object that fills up; decided before this returns."""
        kwargs = dict(llm_kwargs or {})
        chosen = await self._achoose(asked_in_template(self, prompt, prompt_args), kwargs)
        return await chosen.astream(
            lambda to: to.llm.astream_structured_predict(output_cls, to.fit_template(prompt), {**kwargs}, **prompt_args)
        )
