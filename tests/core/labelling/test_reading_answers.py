"""What answers state in the ways models write it, and what becomes of those that state nothing."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from prefroute.cli._label_report import show_summary
from prefroute.labelling import Answered, Golden, OwnLabel, PairwiseJudge, ReferenceScore
from prefroute.labelling.golden import check, choice, exact, numeric
from prefroute.labelling.labellers import UnlabelledError

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopback import Body, LabellingServer

    from prefroute.labelling import Endpoint

Rows = list[dict[str, Any]]
Label = "Callable[..., LabelSummary]"


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("It is -7.", -7.0),
        ("x = -7", -7.0),
        ("x = - 7", -7.0),
        ("\n-7", -7.0),
        ("I get -1,234", -1234.0),
        ("Answer: about -3/4", -0.75),
        ("We get \N{MINUS SIGN}7", -7.0),
        ("We get \N{EN DASH}7", -7.0),
        ("-$7", -7.0),
        ("$ -7", -7.0),
        ("5 - 3", 3.0),
        ("5 - 3 = 2", 2.0),
        ("10-7", 7.0),
        ("3\N{EN DASH}5", 5.0),
        ("2024-01-05", 5.0),
        ("- 7 apples", 7.0),
        ("(2)-7", 7.0),
    ],
)
def test_a_minus_is_a_sign_where_nothing_is_taken_from(answer: str, number: float) -> None:
    assert numeric(answer) == number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (r"\boxed{\frac{-3}{4}}", -0.75),
        (r"-\dfrac{3}{ 4 }", -0.75),
        (r"\frac34", 0.75),
        (r"\frac3{40}", 0.075),
        (r"\boxed{3\frac{1}{2}}", 3.5),
        (r"\frac{1}{0}", None),
        ("-3\N{VULGAR FRACTION ONE HALF} cups", -3.5),
        (r"\boxed{1{,}234}", 1234.0),
        (r"\boxed{1\,234}", 1234.0),
        (r"\boxed{12\!,\!345}", 12345.0),
        (r"3 \times 10^5", 3e5),
        (r"-2\cdot10^{-3}", -0.002),
        ("5 x 10^3", 5e3),
        ("10^6", 1e6),
        ("10^999", None),
        ("1,00,000", 1e5),
        ("12,34,567.5", 1234567.5),
        ("1'234", 1234.0),
        ("1\u2009234", 1234.0),
        ("Answer: 10 000 people", 10000.0),
        ("1 200 000", 1200000.0),
        ("10 000 000 or 10 0000", 0.0),
        ("7 100", 100.0),
        ("\uff11\uff12\uff0e\uff15", 12.5),
    ],
)
def test_numbers_are_read_as_they_are_typeset(answer: str, number: float | None) -> None:
    assert numeric(answer) == number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("#### Step 1: April\n48.\n#### Step 2: May\n48/2 = 24.\n\nAltogether Natalia sold **72** clips.", 72.0),
        ("#### 1. April\n48\n\n#### 2) May\nIn all **72** clips", 72.0),
        ("#### Solution\n48 + 24 = 72\n\n**72 clips**", 72.0),
        ("#### 5\n\n#### 6\n\nChecked in 2 ways.", 6.0),
        ("#### $-6.\nChecked in 2 ways.", -6.0),
        ("It took 3 days.\n#### Thus we get 6 of 7", 6.0),
        ("The cheapest option is to buy 3 packs. That costs 3 * 8 = 24 dollars.", 24.0),
        ("The best choice is 2 boxes. Total: $24.", 24.0),
        ("The answer to question 3 is 42, of 50.", 42.0),
        ("The answer is 72 (48 + 24 = 72 in 2 months)", 72.0),
        ("<answer>18</answer>, from 3 steps", 18.0),
        ("Die Antwort lautet 42 von 50.", 42.0),
        ("La r\u00e9ponse est 42 sur 50.", 42.0),
        ("La respuesta correcta es 42 de 50.", 42.0),
        ("\u7b54\u6848\uff1a42\u3002\u5171\u670950\u4eba\u3002", 42.0),
    ],
)
def test_a_number_counts_where_it_is_claimed(answer: str, number: float) -> None:
    assert numeric(answer) == number


@pytest.mark.parametrize(
    "answer",
    [
        "Option B",
        "Answer B",
        "B is correct.",
        "A. Paris: wrong\nB. Rome: right\n\nTherefore, B is correct.",
        "**B** is the right answer",
        "**B** \N{EN DASH} Paris",
        "B - Paris",
        "**B** Paris",
        "B, because it is",
        "The answer must be B",
        "The answer will be B",
        "The answer to this question is B.",
        "The correct option among these is B.",
        "The answer is b because",
        r"$\boxed{\textbf{(B)}}$",
        r"\boxed{\mathrm{B}}",
        '{"answer": "B"}',
        "<answer>B</answer>",
        "\uff08B\uff09",
        "Answer\uff1aB",
        "B\uff0e",
        "Let me see whether the answer is A. It is not. So the answer is B.",
        "The answer is B.\n\nNote: if X held, the answer would be A.",
        "Answer: B\n\nOption A is the best of the others.",
        "Answer: A patient with fever has X. The answer is (B).",
        "Answer: T cells. The answer is (B).",
        "The answer is I, II and III, hence (B).",
        "I would not choose A. I would choose B.",
        "The answer is A. No, the answer is B.",
        "The answer is B, A is wrong.",
        "The answer is B and I am sure.",
        "If we add them, the answer is B.",
        "#### A tale\n\nThe answer is B.",
        "#### B\n\nSince 2 of 3 say so.",
        "Die richtige Antwort ist (B).",
        "Antwort: B",
        "La r\u00e9ponse est B.",
        "La respuesta es B.",
        "\u6b63\u786e\u7b54\u6848\u662f B",
        "\u7b54\u6848\uff1aB",
    ],
)
def test_an_option_is_chosen_in_many_words(answer: str) -> None:
    assert choice(answer) == "B"


@pytest.mark.parametrize(
    "answer",
    [
        "The answer is A and B.",
        "The answer is A, B or C.",
        "The answer is I, II and III.",
        "Answer: A patient with fever",
        "Answer: A Tale of Two Cities",
        "The answer is vitamin C",
        "Answer: T-cells",
        "Answer: T cells",
        "#### A\nParis\n#### B\nRome\n#### Thus",
        "Let me see whether the answer is A.",
        "Do not choose A.",
        "A - Paris\nB - Rome",
        "Option A: Paris\nOption B: Rome",
        "Hepatitis B is correct.",
        "A is correct French",
        "You may choose (A) or (B).",
    ],
)
def test_what_is_not_clear_is_no_choice(answer: str) -> None:
    assert choice(answer) is None


@pytest.mark.parametrize(
    ("answer", "reference", "is_right"),
    [
        ("The answer is St. Louis.", "St. Louis", True),
        ("The answer is **St. Louis**. It is big.", "St. Louis", True),
        ("The answer is J. K. Rowling.", "#### J. K. Rowling", True),
        ("Answer: Dr. Seuss", "Dr. Seuss", True),
        ("The answer is the U.S. Army.", "the U.S. Army", True),
        ("The answer is St. Paul.", "#### St. Louis", False),
        ("The answer is Paris, Texas.", "Paris", False),
        ("The answer is Parish. No.", "Paris", False),
        ("Answer: New York City", "New York", False),
        (unicodedata.normalize("NFD", "Besan\u00e7on"), "Besan\u00e7on", True),
        ("\uff30aris", "Paris", True),
        ("Paris", "\uff30aris", True),
        ("\u5df4\u9ece\u3002", "\u5df4\u9ece", True),
        ("\u7b54\u6848\u662f\u5df4\u9ece\u3002", "\u5df4\u9ece", True),
        ("Paris,", "Paris", True),
        ("Paris?", "Paris", True),
        ("#### Paris\n\nIt lies on the Seine.", "Paris", True),
        ("<answer>Paris</answer>", "Paris", True),
        ("\u201cParis\u201d", "Paris", True),
        ("The answer is \u2018Paris\u2019.", "Paris", True),
    ],
)
def test_texts_are_compared_as_they_are_meant(answer: str, reference: str, is_right: bool) -> None:
    found = check(answer, reference, "exact")
    assert found is not None
    assert found.is_right == is_right


def test_a_long_line_after_the_mark_is_no_text_that_is_claimed() -> None:
    assert exact("#### " + "long " * 20 + "\nAnd so on") == "#### " + "long " * 20 + "and so on"


def test_answers_with_nothing_to_compare_are_counted(
    label: Label, server: LabellingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.says["big"] = lambda said: "7" if said == "q" else "I cannot say"
    server.says["small"] = lambda said: "none at all"
    show_summary(label(["q", "r"], labeller=Golden("numeric"), references=["7", "8"]))
    assert (
        "unread    nothing to compare in 1 strong and 2 weak answers, which count as wrong\n" in capsys.readouterr().out
    )
    summary = label(["q", "r", "s"], labeller=Golden("numeric"), references=["7", "8", "9"])
    figures = json.loads(json.dumps(summary.as_dict()))
    assert (figures["unread_strong"], figures["unread_weak"]) == (2, 3), "rows of earlier runs too"


def test_nothing_is_unread_where_no_reference_is_compared(label: Label, capsys: pytest.CaptureFixture[str]) -> None:
    show_summary(label(["q"]))
    assert "\nunread" not in capsys.readouterr().out


class _HostileError(Exception):
    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


class _Sequence:
    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> float:
        msg = "no items"
        raise RuntimeError(msg)


def _raising(error: BaseException) -> Callable[..., NoReturn]:
    def function(*_: object) -> NoReturn:
        raise error

    return function


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (_raising(StopIteration()), "f raised StopIteration: "),
        (_raising(SystemExit("bye")), "f raised SystemExit: bye"),
        (_raising(_HostileError()), "f raised _HostileError: what cannot be shown (ValueError)"),
        (lambda *_: _Sequence(), "f raised RuntimeError: no items"),
        (lambda *_: _HostileError(), "got what cannot be shown (ValueError)"),
        (lambda *_: b"\x00\x01", r"f gave no label: wanted two finite numbers or one in [0, 1], got b'\x00\x01'"),
    ],
)
async def test_whatever_a_function_does_is_an_error_that_is_met(function: Any, error: str) -> None:
    labelled = OwnLabel(function, "f").label(Answered("q", "s", "w"), None)  # type: ignore[arg-type] # not asked
    with pytest.raises(UnlabelledError) as raised:
        await asyncio.wait_for(labelled, 20)
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (4, "; the last one was cut off at max_tokens, 4: give the judge more (--judge-max-tokens,"),
        (None, "has the line that was asked for"),
    ],
)
@pytest.mark.parametrize("kind", [PairwiseJudge, ReferenceScore])
def test_a_judge_that_is_cut_off_is_said_to_be(
    kind: Any,
    limit: int | None,
    said: str,
    label: Label,
    rows: Callable[[], Rows],
    server: LabellingServer,
    endpoint: Callable[..., Endpoint],
) -> None:
    server.says["judge"] = lambda said: "I think that the first one"
    summary = label(["q"], labeller=kind(endpoint(model="judge", max_tokens=limit)))
    assert said in rows()[0]["error"]
    assert ("cut off" in rows()[0]["error"]) == (limit is not None)
    assert summary.errors == {"unparsable verdict": 1}
    assert summary.final_errors == 1
    assert not summary.is_to_be_continued


def test_a_judge_that_gives_no_choices_is_said_to(
    label: Label, rows: Callable[[], Rows], server: LabellingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = server.complete

    def broken(body: Body) -> Body:
        return {**complete(body), **({"choices": []} if body["model"] == "judge" else {})}

    monkeypatch.setattr(server, "complete", broken)
    label(["q"])
    assert rows()[0]["error"].endswith("; the last one cannot be read: it has no choices")
