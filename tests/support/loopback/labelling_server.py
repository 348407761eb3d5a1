"""A strong model, a weak model and a judge on one server, which answer the same request the same each time."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from .answers import count_tokens, text_of
from .openai_server import OpenAIServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .serving import Body, Fault

FENCED = r"<<<{name} (?P<code>[0-9a-f]{{16}})>>>\n(?P<text>.*?)\n<<<end of {name} (?P=code)>>>"
STRONG, WEAK, JUDGE = "big", "small", "judge"


class LabellingServer(OpenAIServer):
    """Plays three models; what they say may be replaced.

    Attributes:
        says: By model: what is answered to the text of the last message.
    """

    def __init__(self, faults: Callable[[Body], Fault | None] | None = None, *, keep_alive: bool = True) -> None:
        super().__init__(faults, keep_alive=keep_alive)
        self.says: dict[str, Callable[[str], str]] = {STRONG: strong_answer, WEAK: weak_answer, JUDGE: judge_reply}

    def complete(self, body: Body) -> Body:
        said = text_of(body["messages"][-1]["content"])
        text = self.says[body["model"]](said)
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        words = text.split(" ")
        cut = limit is not None and len(words) > limit
        text = " ".join(words[:limit]) if cut else text
        message: Body = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length" if cut else "stop"}
        sent = count_tokens(message["content"] for message in body["messages"])
        usage = {"prompt_tokens": sent, "completion_tokens": len(text.split(" ")), "total_tokens": 0}
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        return {**self._head(body, "chat.completion"), "choices": [choice], "usage": usage}

    def asked(self, *models: str) -> list[Body]:
        """The requests to these models."""
        return [body for body in self.requests if body["model"] in models]


def chance(text: str) -> int:
    """0 to 99, the same each time for one text."""
    return int(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(), 16) % 100


def strong_answer(said: str) -> str:
    return f"Strong on {said[:60]}: worth {50 + chance('s' + said) // 2}."


def weak_answer(said: str) -> str:
    return f"Weak on {said[:60]}: worth {chance('w' + said)}."


def parts(said: str) -> dict[str, str]:
    """What stands in the marks of a judge's question, by name, and the code."""
    found = {}
    for name in ("question", "answer A", "answer B", "reference answer", "answer"):
        match = re.search(FENCED.format(name=name), said, re.DOTALL)
        if match:
            found[name] = match["text"]
            found["code"] = match["code"]
    return found


def worth(answer: str) -> int:
    found = re.findall(r"worth (\d+)", answer)
    return int(found[-1]) if found else 0


def judge_reply(said: str) -> str:
    """By the worth that the answers name; where they are near, whatever stands first wins."""
    shown = parts(said)
    if "answer A" in shown:
        gap = worth(shown["answer A"]) - worth(shown["answer B"])
        verdict = "A" if gap > -10 else "B"
        return f"They are worth this and that.\nVERDICT {shown['code']}: {verdict}"
    gap = worth(shown["reference answer"]) - worth(shown["answer"])
    return f"Gap {gap}.\n**SCORE {shown['code']}: {max(1, min(5, 5 - gap // 15))}**"


def questions(count: int) -> list[str]:
    return [f"Question number {number}: what is it worth?" for number in range(count)]
