"""Judges: models that compare two answers, or score one."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, ClassVar

from prefroute.labelling._stopping import together
from prefroute.labelling.instructions import bundled_instructions, check_instructions, filled
from prefroute.labelling.labellers import STRONG_FIRST, WEAK_FIRST, Answered, Label, Question, UnlabelledError
from prefroute.labelling.verdicts import fenced, form_of, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefroute.labelling.endpoints import Endpoint
    from prefroute.labelling.instructions import Kind
    from prefroute.labelling.journal import Reply
    from prefroute.labelling.labellers import AskJudge

_KEPT = 500
"""Characters of a reply without a verdict that are kept in the row."""

_REMINDER = (
    "\n\nMind the last line: a reply that does not end with it, exactly in the form above and with the code above, "
    "cannot be used."
)


class _Judge:
    """A model that judges: asks each question, and once more where the reply holds no verdict."""

    kind: ClassVar[Kind]
    word: ClassVar[str]
    values: ClassVar[tuple[str, ...]]
    needs_reference = False

    def __init__(self, endpoint: Endpoint, *, instructions: str | None = None) -> None:
        """Note who judges, and how.

        Args:
            endpoint: The judge.
            instructions: Text with the placeholders of `PLACEHOLDERS`; None for what comes along.

        Raises:
            ConfigurationError: A placeholder is missing or unknown.
        """
        self.judge: Endpoint | None = endpoint
        self._instructions = bundled_instructions(self.kind) if instructions is None else instructions
        check_instructions(self._instructions, self.kind)

    def __repr__(self) -> str:
        """The judge."""
        return f"{type(self).__name__}({self.judge!r})"

    def settings(self) -> dict[str, Any]:
        """The judge, and a digest of its instructions."""
        assert self.judge is not None  # noqa: S101 - set above
        digest = hashlib.sha256(self._instructions.encode()).hexdigest()
        return {"labels": self.kind, "judge": self.judge.settings(), "instructions": digest}

    def questions(self, answered: Answered, code: Callable[..., str]) -> list[Question]:
        """One question a view."""
        if self._given(answered) is not None:
            return []
        return [self._question(name, parts, code, 0) for name, parts in self._views(answered).items()]

    def has_verdict(self, question: Question, reply: str) -> bool:
        """Whether a reply to a question can be read."""
        return parse(reply, self.word, question.code, self.values) is not None

    def _given(self, answered: Answered) -> Label | None:  # noqa: ARG002 - of one kind only
        """A label that needs no judge."""
        return None

    def _views(self, answered: Answered) -> dict[str, dict[str, tuple[str, str]]]:
        """By name of a question: for each placeholder what it is, for the judge, and the text."""
        raise NotImplementedError

    def _question(
        self, name: str, parts: dict[str, tuple[str, str]], code: Callable[..., str], attempt: int
    ) -> Question:
        secret = code(self.settings(), name, attempt, parts)
        texts = {place: fenced(what, text, secret) for place, (what, text) in parts.items()}
        text = filled(self._instructions, {**texts, "form": form_of(self.word, secret, self.values)})
        return Question(name, text + _REMINDER * attempt, secret)

    async def _verdicts(self, answered: Answered, ask: AskJudge) -> dict[str, str]:
        views = self._views(answered)
        given = await together(*(self._verdict(name, parts, ask) for name, parts in views.items()))
        verdicts = {name: verdict for name, (verdict, _) in zip(views, given, strict=True)}
        if any(verdict is None for verdict in verdicts.values()):
            raw = {
                name: _end_of(reply.text) if verdict is None else verdict
                for name, (verdict, reply) in zip(views, given, strict=True)
            }
            kind = "unparsable verdict"
            why = next(filter(None, (self._why(reply) for verdict, reply in given if verdict is None)), "")
            msg = f"{kind}: no reply of the judge, asked twice, has the line that was asked for{why}"
            raise UnlabelledError(kind, msg, raw, is_final=True)
        return {name: verdict for name, verdict in verdicts.items() if verdict is not None}

    async def _verdict(self, name: str, parts: dict[str, tuple[str, str]], ask: AskJudge) -> tuple[str | None, Reply]:
        for attempt in (0, 1):
            question = self._question(name, parts, ask.code, attempt)
            reply = await ask.reply(question.text)
            verdict = parse(reply.text, self.word, question.code, self.values)
            if verdict is not None:
                break
        return verdict, reply

    def _why(self, reply: Reply) -> str:
        """What is known of why a reply has no verdict."""
        if reply.fault is not None:
            return f"; the last one cannot be read: {reply.fault}"
        if reply.finish_reason != "length":
            return ""
        limit = None if self.judge is None else self.judge.max_tokens
        at = "the server's limit of tokens" if limit is None else f"max_tokens, {limit:,}"
        return f"; the last one was cut off at {at}: give the judge more (--judge-max-tokens, max_tokens)"


def _end_of(text: str) -> str:
    return text if len(text) <= _KEPT else f"... {text[-_KEPT:]}"


class PairwiseJudge(_Judge):
    """A judge that compares the answers, in both orders: one wins only where both orders say so, else they tie.

    As in MT-Bench (arXiv 2306.05685): judges favour a position, and what they say in one order only is worth nothing.
    Qualities are 1 and 0, or 0.5 each. Answers that are the same text tie, and nobody is asked.
    """

    kind: ClassVar[Kind] = "pairwise"
    word: ClassVar[str] = "VERDICT"
    values: ClassVar[tuple[str, ...]] = ("A", "B", "tie")

    def _views(self, answered: Answered) -> dict[str, dict[str, tuple[str, str]]]:
        question = ("question", answered.prompt)
        orders = {STRONG_FIRST: (answered.strong, answered.weak), WEAK_FIRST: (answered.weak, answered.strong)}
        return {
            name: {"question": question, "answer_a": ("answer A", first), "answer_b": ("answer B", second)}
            for name, (first, second) in orders.items()
        }

    def _given(self, answered: Answered) -> Label | None:
        strong, weak = answered.strong.strip(), answered.weak.strip()
        return Label(0.5, 0.5, "same text") if strong and strong == weak else None

    async def label(self, answered: Answered, ask: AskJudge) -> Label:
        """Ask in both orders."""
        given = self._given(answered)
        if given is not None:
            return given
        verdicts = await self._verdicts(answered, ask)
        strong = {("A", "B"): 1.0, ("B", "A"): 0.0}.get((verdicts[STRONG_FIRST], verdicts[WEAK_FIRST]), 0.5)
        return Label(strong, 1.0 - strong, verdicts)


class ReferenceScore(_Judge):
    """A judge that scores the weak model's answer from 1 to 5, with the strong model's as reference.

    Qualities are 1 for the strong model's answer and (score - 1) / 4 for the weak one's.
    """

    kind: ClassVar[Kind] = "score"
    word: ClassVar[str] = "SCORE"
    values: ClassVar[tuple[str, ...]] = ("1", "2", "3", "4", "5")

    def _views(self, answered: Answered) -> dict[str, dict[str, tuple[str, str]]]:
        return {
            "score": {
                "question": ("question", answered.prompt),
                "reference": ("reference answer", answered.strong),
                "answer": ("answer", answered.weak),
            }
        }

    async def label(self, answered: Answered, ask: AskJudge) -> Label:
        """Ask for the score."""
        verdicts = await self._verdicts(answered, ask)
        score = int(verdicts["score"])
        return Label(1.0, (score - 1) / 4.0, score)
