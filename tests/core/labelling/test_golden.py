"""Whether an answer is right, by a reference."""

from __future__ import annotations

import math
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute.errors import ConfigurationError
from prefroute.labelling import Golden
from prefroute.labelling.golden import check, choice, exact, numeric


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("42", 42.0),
        ("It is 3.", 3.0),
        ("First 5, then 7.", 7.0),
        ("The answer is $1,234.50.", 1234.5),
        ("12,345,678", 12345678.0),
        ("12\u202f345", 12345.0),
        ("Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 72", 72.0),
        ("#### -42", -42.0),
        ("\N{MINUS SIGN}7", -7.0),
        ("-$5", -5.0),
        ("$-5", -5.0),
        ("10-5", 5.0),
        ("from 5-10", 10.0),
        ("50%", 50.0),
        ("She makes €18 every day", 18.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1/2 cup", 0.5),
        ("1 1/2 miles", 1.5),
        ("-3/4", -0.75),
        (r"\boxed{\frac{1}{2}}", 0.5),
        (r"so $\boxed{18}$, of 20 in all", 18.0),
        ("The final answer is **18**.", 18.0),
        ("**Answer:** 12", 12.0),
        ("Answer: 42 apples of 50", 42.0),
        ("The answer is 3 + 4 = 7. I am 100% sure.", 7.0),
        ("The answer is 5. No: the answer is 6.", 6.0),
        ("The answer is clear: we get 9", 9.0),
        ("1/0", None),
        ("9" * 400, None),
        ("none at all", None),
        ("", None),
    ],
)
def test_a_number_is_found(answer: str, number: float | None) -> None:
    assert numeric(answer) == number


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("[B]", "B"),
        ("**B**", "B"),
        ("**B. Paris**", "B"),
        ("B) Paris", "B"),
        ("B: Paris", "B"),
        ("The answer is B.", "B"),
        ("The answer is (b).", "B"),
        ("The answer is B because A is false.", "B"),
        ("The correct answer is: **D**", "D"),
        ("Answer: B) Paris", "B"),
        ("Answer:\nB", "B"),
        ("**Answer: (C)**", "C"),
        ("Option C is correct.", "C"),
        ("The answer is option C", "C"),
        (r"$\boxed{\text{C}}$", "C"),
        ("We weigh them all.\n\nC", "C"),
        ("A. Paris\nB. Rome\nThe answer is B. Rome", "B"),
        ("The answer is not A. The answer is C.", "C"),
        ("The answer is A. No, the answer is B.", "B"),
        ("A) Paris\nB) Rome", None),
        ("A or B", None),
        ("Answer: Both", None),
        ("answer is a mistake", None),
        ("I think so.", None),
        ("A good try", None),
        ("", None),
    ],
)
def test_an_option_is_found_and_never_guessed(answer: str, letter: str | None) -> None:
    assert choice(answer) == letter


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("Paris.", "paris"),
        ("  **New \n York** ", "new york"),
        ("I think.\nThe answer is: 'Paris'", "paris"),
        ("Answer: no. Wait.\nAnswer: yes", "yes"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (" . ", None),
        ("", None),
    ],
)
def test_a_text_is_found(answer: str, text: str | None) -> None:
    assert exact(answer) == text


@pytest.mark.parametrize(
    ("match", "reference", "answer", "is_right"),
    [
        ("exact", "Paris", "The answer is  PARIS.", True),
        ("exact", "Paris", "Paris or Rome", False),
        ("numeric", "#### 1,000", "It is 1000.0", True),
        ("numeric", "0.333333", "1/3", True),
        ("numeric", "1000000", "1000000.5", True),
        ("numeric", "1000000", "1000002", False),
        ("numeric", "5", "-5", False),
        ("numeric", "5", "many", False),
        ("choice", "(b)", "B) Paris", True),
        ("choice", "B", "C", False),
        ("choice", "B", "no idea", False),
    ],
)
def test_an_answer_is_compared_with_its_reference(match: str, reference: str, answer: str, is_right: bool) -> None:
    found = check(answer, reference, match)  # type: ignore[arg-type] # parametrised
    assert found is not None
    assert found.is_right == is_right


@pytest.mark.parametrize(("match", "reference"), [("exact", " . "), ("numeric", "many"), ("choice", "A or B")])
def test_a_reference_that_states_nothing_is_none(match: str, reference: str) -> None:
    assert check("A", reference, match) is None  # type: ignore[arg-type] # parametrised


@given(st.floats(min_value=-1e9, max_value=1e9).map(lambda value: round(value, 4)), st.text())
def test_a_number_after_the_mark_counts_whatever_stands_before(number: float, before: str) -> None:
    assert numeric(f"{before.replace('#', '')}\n#### {number:,.4f}") == pytest.approx(number)


@given(st.text())
def test_any_text_is_an_answer(text: str) -> None:
    found = numeric(text)
    assert found is None or math.isfinite(found)
    assert choice(text) is None or len(choice(text) or "") == 1
    assert exact(text) is None or exact(text)


@pytest.mark.parametrize(
    "text",
    [
        "1,234" * 20_000,
        "9" * 50_000,
        "answer is " * 10_000,
        "(" * 50_000,
        " " * 50_000,
        "*" * 50_000,
        "\\boxed{" * 2_000,
        "A\n" * 20_000,
        "1 " * 20_000,
        "-$" * 20_000,
        "answer" + '"' * 100_000,
        "answer" + " " * 100_000,
        "answer to" + "_" * 100_000,
        "answer to a b c d e f " * 5_000,
        "1" + ",22" * 33_000,
        "1" + " 234" * 25_000,
        "1 \\times 10^" * 8_000,
        "A, " * 33_000,
        "A is" + " " * 100_000,
        "so (" * 25_000,
        "#### A\n" * 14_000,
        "a" + "\u0301\u0316" * 50_000,
    ],
)
def test_long_answers_are_read_in_little_time(text: str) -> None:
    def too_long(*_: object) -> None:
        pytest.fail("took over 5 s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(5)
    try:
        numeric(text)
        choice(text)
        exact(text)
    finally:
        signal.alarm(0)


@pytest.mark.parametrize(
    "settings", [{"match": "fuzzy"}, {"match": "numeric", "tolerance": -1.0}, {"match": "numeric", "tolerance": "x"}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="must be"):
        Golden(**settings)  # type: ignore[arg-type] # wrong on purpose
