"""A chat model that may turn out to be either of two: what it says about itself."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable
from pydantic import field_serializer
from typing_extensions import override

from langchain_router._children import Routes, describe, find_model


class ChatModelPair(Routes, BaseChatModel):
    """Two chat models seen from outside as one.

    Attributes:
        strong: A chat model or a Runnable around one.
        weak: Likewise.
    """

    strong: Runnable[Any, Any]
    weak: Runnable[Any, Any]

    @property
    @override
    def _llm_type(self) -> str:
        return "prefroute-chat"

    @property
    @override
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"strong": describe(self.strong), "weak": describe(self.weak)}

    @field_serializer("strong", "weak")
    def _without_keys(self, child: Runnable[Any, Any]) -> dict[str, Any]:
        return describe(child)

    @override
    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        # Not the models' own reprs: a binding shows its arguments, and a key may be among them.
        yield from self._identifying_params.items()

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        strong, weak = (describe(child) for child in self._sides)
        provider = strong.get("ls_provider")
        asked = kwargs.get("model")
        models = [str(side.get("ls_model_name") or side["type"]) for side in (strong, weak)]
        params = LangSmithParams(
            ls_provider=provider if provider and provider == weak.get("ls_provider") else "router",
            ls_model_name=asked if isinstance(asked, str) else "|".join(dict.fromkeys(models)),
            ls_model_type="chat",
        )
        if stop:
            params["ls_stop"] = stop
        return params

    @override
    def _resolve_model_profile(self) -> ModelProfile | None:
        return cast("ModelProfile | None", _shared_profile(self._sides))

    @override
    def get_token_ids(self, text: str) -> list[int]:
        """Token ids by the strong model's tokenizer, unless `custom_get_token_ids` is set."""
        found = find_model(self.strong)
        if self.custom_get_token_ids is not None or found is None:
            return super().get_token_ids(text)
        return found.model.get_token_ids(text)

    @override
    def get_num_tokens(self, text: str) -> int:
        """Token count by the model that counts more, so that what fits by this count fits both."""
        models = self._counting_models
        return max(model.get_num_tokens(text) for model in models) if models else super().get_num_tokens(text)

    @override
    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Token count by the model that counts more, so that what fits by this count fits both."""
        models = self._counting_models
        if not models:
            return super().get_num_tokens_from_messages(messages, tools)
        return max(model.get_num_tokens_from_messages(messages, tools) for model in models)

    @property
    def _counting_models(self) -> list[BaseChatModel]:
        if self.custom_get_token_ids is not None:
            return []
        return [found.model for found in map(find_model, self._sides) if found is not None]

    @property
    def _sides(self) -> tuple[Runnable[Any, Any], Runnable[Any, Any]]:
        return self.strong, self.weak


def _shared_profile(children: tuple[Runnable[Any, Any], Runnable[Any, Any]]) -> dict[str, Any] | None:
    """The profile of a model that may turn out to be either child, or None where one has none.

    A capability is there if both have it, a limit is the lower one, and of anything else only what is equal counts.
    """
    found = [find_model(child) for child in children]
    profiles = [one.model.profile for one in found if one is not None and one.model.profile]
    if len(profiles) < len(children):
        return None
    first, second = (dict(profile) for profile in profiles)
    both = {key: _common(first[key], second[key]) for key in first if key in second}
    shared = {key: value for key, value in both.items() if value is not None}
    if any(_structures_without_tools_only(child) for child in children):
        shared["structured_output"] = False
    return shared


def _common(first: Any, second: Any) -> Any:
    if isinstance(first, bool) and isinstance(second, bool):
        return first and second
    if isinstance(first, int | float) and isinstance(second, int | float):
        return min(first, second)
    return first if first == second else None


def _structures_without_tools_only(child: Runnable[Any, Any]) -> bool:
    # Gemini before version 3 cannot combine native structured output with tools. create_agent knows that by the
    # model's name, which a routed pair does not show.
    name = str(describe(child).get("ls_model_name", ""))
    return "gemini" in name and "gemini-3" not in name
