"""Scores of a judge as they are often kept: one row a question, model and turn, with the questions apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute.data.formats import Layout, hints_of
from prefroute.data.reading import TableReader
from prefroute.data.report import refuse, shown
from prefroute.data.responses import ResponseTable, _checked_scale
from prefroute.data.tables import refuse_twice, tables_of
from prefroute.data.values import Turn, as_turn, is_missing, name_of, number_of, prompt_of
from prefroute.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefroute.data.reading import OnBadRow, Source
    from prefroute.data.report import ReadReport

_SCORES = ("question_id", "model", "score", "turn")


def read_judgements(
    judgements: Source,
    questions: Source,
    models: Sequence[str],
    *,
    scale: tuple[float, float] = (1.0, 10.0),
    turn: Turn = "first",
    on_bad_row: OnBadRow = "raise",
    report: ReadReport | None = None,
) -> ResponseTable:
    """Read the scores that a judge gave single answers, as FastChat keeps those of MT-Bench.

    Args:
        judgements: Rows of question_id, model, score and optionally turn; as for `read_battles`.
        questions: Rows of question_id and prompt or turns.
        models: Those wanted; the rows of others are passed over.
        scale: Lowest and highest score possible; a judge that failed writes -1, say, and such a row is bad.
        turn: Which turn of a question is the prompt.
        on_bad_row: As for `read_battles`.
        report: As for `read_battles`.

    Returns:
        One row for each question and judged turn that has a score of every model, ordered by the questions,
        then the turns. Several scores of one model for one turn are averaged.

    Raises:
        DataError: As for `read_battles`; or a question is missing, or a turn has no score of one of the models.
        ConfigurationError: As for `read_battles`.
        MissingExtraError: As for `read_battles`.
    """
    low, high = _checked_scale(scale)
    reader = TableReader(hints_of("responses", None, None, models), as_turn(turn), on_bad_row, report, progress=False)
    texts = dict(_questions(reader, questions))
    reader.finish()
    found: dict[tuple[Any, float], dict[str, list[float]]] = {}

    def parse(values: tuple[Any, ...]) -> tuple[Any, float, str, float]:
        question, model = _key(values[0]), name_of(values[1], "model")
        number = 1.0 if is_missing(values[3]) else number_of(values[3], "turn")
        if model not in models:
            return question, number, model, 0.0
        if question not in texts:
            refuse("unknown question_id", f"question_id {shown(values[0])} is not among the questions")
        score = number_of(values[2], "score")
        if not low <= score <= high:
            refuse("score is off the scale", f"score must be {low:g} to {high:g}, got {score:g}; see scale=")
        return question, number, model, score

    layout = Layout(format="judgements", prompt="", columns=_SCORES)
    for table in tables_of(judgements):
        _require(table.name, table.columns(), _SCORES[:3])
        for question, number, model, score in reader.rows(table, layout, list(_SCORES), parse):
            if model in models:
                found.setdefault((question, number), {}).setdefault(model, []).append(score)
    reader.finish()
    return _table(texts, found, models)


def _questions(reader: TableReader, questions: Source) -> Iterator[tuple[Any, str]]:
    for table in tables_of(questions):
        columns = table.columns()
        prompt = "prompt" if "prompt" in columns else "turns"
        _require(table.name, columns, ("question_id", prompt))
        layout = Layout(format="questions", prompt=prompt, columns=("question_id",))
        yield from reader.rows(
            table, layout, ["question_id", prompt], lambda values: (_key(values[0]), prompt_of(values[1], reader.turn))
        )


def _table(
    texts: dict[Any, str], found: dict[tuple[Any, float], dict[str, list[float]]], models: Sequence[str]
) -> ResponseTable:
    place = {question: number for number, question in enumerate(texts)}
    keys = sorted(found, key=lambda key: (place[key[0]], key[1]))
    for question, number in keys:
        missing = [model for model in models if model not in found[question, number]]
        if missing:
            msg = f"question {question!r}, turn {number:g}: no score of {', '.join(missing)}; add it or drop the turn"
            raise DataError(msg)
    quality = [[np.mean(found[key][model]) for model in models] for key in keys]
    return ResponseTable(
        prompts=tuple(texts[question] for question, _ in keys),
        models=tuple(models),
        quality=np.array(quality, dtype=np.float64).reshape(len(keys), len(models)),
    )


def _key(value: Any) -> Any:
    """A question_id, the same whether a file writes it as number or text."""
    if is_missing(value):
        refuse("question_id is missing")
    return str(value).strip()


def _require(name: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    refuse_twice(found, name)
    lacking = [column for column in wanted if column not in found]
    if lacking:
        msg = (
            f"{name} has no column {', '.join(lacking)}; wanted {', '.join(wanted)}, found {', '.join(found) or 'none'}"
        )
        raise DataError(msg)
