"""The evaluation report: what it says, that it survives any text and any numbers, and how a browser shows it."""

import base64
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from prefroute import MissingExtraError, ModelPair, Router
from prefroute.costs import savings
from prefroute.data import read_battles
from prefroute.data.fingerprints import prompt_hashes
from prefroute.evaluation import _figures
from prefroute.evaluation._format import (
    between,
    change,
    dollars,
    listed,
    named,
    number,
    p_value,
    percent,
    quality,
    shown,
)
from prefroute.evaluation._tables import categories_table, costs_table, examples, routers_table
from prefroute.evaluation._verdict import RouterVerdict, statements, verdicts
from prefroute.evaluation.benchmarks import Benchmark
from prefroute.evaluation.evaluate import evaluate, evaluate_scores
from prefroute.evaluation.report import write_report
from prefroute.evaluation.resampling import Comparison
from prefroute.evaluation.results import Evaluation, PairedComparison, RouterResult
from prefroute.testing import FixedRouter

PAIR = ModelPair("big", "small")
SCRIPT = "<script>alert('x')</script>\"&"
HOSTILE = [
    SCRIPT,
    "$x^{2$ \\frac_",
    "_hidden",
    "lone \ud800 surrogate",
    "\N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED} \N{RIGHT-TO-LEFT OVERRIDE}abc",
    "\N{PARTY POPPER}" * 40,
    "word" * 300,
    "a\x00b\x1b[31mred\r\nline",
    "\N{CJK UNIFIED IDEOGRAPH-8DEF}\N{CJK UNIFIED IDEOGRAPH-7531}",
    "",
]


def benchmark(n: int = 200, *, ahead: float = 0.3, **more: Any) -> Benchmark:
    """Prompts of different lengths; the strong model is right more often by `ahead`."""
    random = np.random.default_rng(1)
    given = {
        "name": "toy",
        "pair": PAIR,
        "prompts": tuple(f"prompt {row} " + "x" * int(random.integers(1, 99)) for row in range(n)),
        "strong": (random.random(n) < 0.5 + ahead / 2).astype(float),
        "weak": (random.random(n) < 0.5 - ahead / 2).astype(float),
    }
    return Benchmark(**(given | more))


def knowing(rows: Benchmark, share: float, seed: int = 0) -> Any:
    """Scores from 0 to 1 that know the gain by so much; below 0 they have it the wrong way round."""
    noise = np.random.default_rng(seed).random(len(rows))
    return abs(share) * (np.sign(share) * np.sign(rows.gains) + 1) / 2 + (1 - abs(share)) * noise


class Scored(Router):
    """Gives each prompt of a benchmark its score."""

    def __init__(self, rows: Benchmark, scores: Any, *, learnt: list[str] | None = None) -> None:
        self.threshold = 0.5
        self.scores = dict(zip(rows.prompts, scores, strict=True))
        self.training_prompts = None if learnt is None else prompt_hashes(learnt)

    def win_probability(self, prompts: Any) -> Any:
        return np.array([self.scores[prompt] for prompt in prompts])


@pytest.fixture(scope="module")
def rows() -> Benchmark:
    return benchmark(categories=tuple(["common"] * 150 + ["rare"] * 20 + ["other"] * 30), removed=7)


@pytest.fixture(scope="module")
def evaluation(rows: Benchmark) -> Evaluation:
    """A good router that learnt from some of the prompts, a flat one, and one that is worse than a coin."""
    routers = {
        "good": Scored(rows, knowing(rows, 0.6), learnt=list(rows.prompts[:10])),
        "flat": FixedRouter(0.4, threshold=0.5),
        "bad": Scored(rows, knowing(rows, -0.6), learnt=[]),
    }
    training = read_battles(
        [{"prompt": f"other {n}", "big": 1, "small": n % 2} for n in range(40)], models=["big", "small"]
    )
    return evaluate(routers, rows, training=training, resamples=50)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten routers whose names, like all prompts and categories, are what no one should be shown as it is."""
    prompts = tuple(f"{HOSTILE[row % 10]} {row}" for row in range(200))
    rows = benchmark(
        name=SCRIPT, prompts=prompts, pair=ModelPair(SCRIPT, HOSTILE[4] + "\ud800"), categories=tuple(HOSTILE * 20)
    )
    found = evaluate_scores({name: knowing(rows, 0.1 * k, k) for k, name in enumerate(HOSTILE)}, rows, resamples=50)
    costs = {SCRIPT: {"cpt50": savings(0.2, 0.5, strong_cost=0.01, weak_cost=0.001, router_cost=0.0)}}
    return write_report(found, tmp_path_factory.mktemp("hostile"), savings=costs)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.parts: list[str] = []
        self._raw = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.parts).replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag

    def handle_data(self, data: str) -> None:
        if self._raw != "style":
            self.parts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def said(evaluation: Evaluation, name: str) -> RouterVerdict:
    return next(item for item in verdicts(evaluation, evaluation.benchmark.groups) if item.name == name)


def whole(verdict: RouterVerdict) -> str:
    """All that is said, with plain spaces."""
    text = " ".join([verdict.sentence, *verdict.evidence, *verdict.cautions])
    return text.replace("\N{NO-BREAK SPACE}", " ")


def summary(evaluation: Evaluation) -> str:
    found = statements(evaluation, evaluation.benchmark.groups)
    return " ".join(item.text for item in found).replace("\N{NO-BREAK SPACE}", " ")


def changed(evaluation: Evaluation, name: str, **figures: Any) -> Evaluation:
    """The evaluation with other figures of one router."""
    result = evaluation.results[name]
    assert result.figures is not None
    results = evaluation.results | {name: replace(result, figures=replace(result.figures, **figures))}
    return replace(evaluation, results=results)


def compared(evaluation: Evaluation, first: str, second: str, p: float) -> Evaluation:
    """The evaluation with another p of one comparison."""
    others = [item for item in evaluation.comparisons if {item.first, item.second} != {first, second}]
    mine = PairedComparison(first=first, second=second, n=200, result=Comparison(0.1, 0.05, 0.15, p))
    return replace(evaluation, comparisons=[*others, mine])


def test_numbers_and_names_are_written_as_people_read_them() -> None:
    nan, inf = float("nan"), float("inf")
    dash, minus = "\N{EN DASH}", "\N{MINUS SIGN}"
    assert [form(nan) for form in (number, quality, percent, change)] == [dash] * 4
    assert [form(None) for form in (number, quality, percent, change)] == [dash] * 4
    assert number(inf) == dash
    assert (number(-0.1234), number(-0.0001)) == (f"{minus}0.123", "0.000")
    assert (quality(8.25), quality(123.456), quality(98765.4), quality(1e12), quality(0.00012)) == (
        "8.250",
        "123.5",
        "98,765",
        "1e+12",
        "0.00012",
    )
    assert (change(0.5), change(0.0), change(-0.5)) == ("+0.500", "0.000", f"{minus}0.500")
    assert (dollars(None), dollars(0.0), dollars(0.00123), dollars(1234.5)) == (
        "unknown",
        "$0.00",
        "$0.0012",
        "$1,234.50",
    )
    assert (dollars(-1.5, signed=True), dollars(1.5, signed=True)) == (f"{minus}$1.50", "+$1.50")
    assert (p_value(0.0005), p_value(0.0312)) == ("< 0.001", "= 0.031")
    assert between(nan, nan) == "not bounded"
    assert (between(nan, 0.5), between(0.5, nan)) == ("0.500 or less", "0.500 or more")
    assert shown("  a\n b\x07 ") == "a b\N{REPLACEMENT CHARACTER}"
    assert shown("x" * 100, 10) == "x" * 9 + "\N{HORIZONTAL ELLIPSIS}"
    assert shown("") == "(empty)"
    assert (
        named("\N{HEBREW LETTER SHIN}") == "\N{FIRST STRONG ISOLATE}\N{HEBREW LETTER SHIN}\N{POP DIRECTIONAL ISOLATE}"
    )
    assert (listed(["a"]), listed(["a", "b", "c"]), listed(list("abcdefg"))) == (
        "a",
        "a, b and c",
        "a, b, c, d, e and 2 more",
    )


def test_a_router_that_beats_chance_and_prompt_length(evaluation: Evaluation) -> None:
    verdict = said(evaluation, "good")
    assert (verdict.tone, verdict.badge) == ("good", "Better than chance")
    assert verdict.sentence == "beats random routing, and also routing by prompt length."
    figures = evaluation.results["good"].figures
    assert figures is not None
    text = whole(verdict)
    assert f"APGR {figures.apgr:.3f}, 95 % interval {figures.apgr_low:.3f} to {figures.apgr_high:.3f}" in text
    assert f"50 % of it takes {figures.cpt50:.0%} strong calls".replace("%", " %").replace("50  %", "50 %") in text
    assert "random routing needs 50 % and 80 %" in text
    assert "10 prompts that it was trained on are left out; it is measured on the other 190." in text
    assert verdict.cautions == ()


def test_a_router_that_is_worse_than_chance(evaluation: Evaluation) -> None:
    verdict = said(evaluation, "bad")
    assert (verdict.tone, verdict.badge) == ("bad", "Worse than chance")
    assert verdict.sentence == "does worse than random routing, and also worse than routing by prompt length."


def test_a_router_that_cannot_be_told_from_chance(evaluation: Evaluation) -> None:
    verdict = said(evaluation, "flat")
    assert (verdict.tone, verdict.badge) == ("open", "Cannot tell")
    assert verdict.sentence.startswith("cannot be told from random routing on these 200 prompts")
    assert "It is not known which prompts it was trained on." in whole(verdict)


@pytest.mark.parametrize("found", ["yes", "no", "cannot tell"])
@pytest.mark.parametrize(
    ("name", "p", "part"), [("good", 0.01, "beats"), ("good", 0.5, "told from"), ("bad", 0.01, "worse than")]
)
def test_chance_and_prompt_length_are_told_apart(
    evaluation: Evaluation, found: Any, name: str, p: float, part: str
) -> None:
    crafted = compared(changed(evaluation, name, better_than_random=found), name, "prompt-length", p)
    chance, _, length = said(crafted, name).sentence.partition(",")
    assert chance.startswith({"yes": "beats", "no": "does worse", "cannot tell": "cannot be told"}[found])
    is_nor = found == "cannot tell" and part == "told from"
    is_also = found == "yes" and part == "beats"
    assert ("nor from" if is_nor else "also" if is_also else part) in length
    assert length.endswith("routing by prompt length.")
    # Whichever of the two stands first.
    turned = replace(
        crafted,
        comparisons=[replace(item, first=item.second, second=item.first) for item in crafted.comparisons],
    )
    assert said(turned, name).sentence == said(crafted, name).sentence


def test_no_gap_is_said_and_nothing_is_recovered() -> None:
    rows = benchmark(strong=np.ones(200), weak=np.ones(200))
    equal = evaluate_scores({"a": knowing(rows, 0.0)}, rows, resamples=50)
    assert "big is not better than small here (mean quality 1.000 against 1.000)" in summary(equal)
    text = whole(said(equal, "a"))
    assert "no gap to recover, so APGR and the shares of strong calls are not defined." in text
    assert "Yet" not in text
    assert "recovers" not in text
    behind = benchmark(ahead=-0.4)
    worse = evaluate_scores({"a": knowing(behind, 0.9)}, behind, resamples=50)
    verdict = said(worse, "a")
    assert verdict.sentence == "beats random routing."
    assert "Yet it picks better prompts for the strong model than chance does." in whole(verdict)


def test_few_prompts_and_unbounded_intervals_are_said(evaluation: Evaluation) -> None:
    rows = benchmark(30)
    few = evaluate_scores({"a": knowing(rows, 0.9)}, rows, resamples=50)
    assert "Only 30 different prompts: too few to rely on." in said(few, "a").cautions
    twice = replace(rows, prompts=("one", "two", "three") * 10)
    assert "Only 3 different prompts" in whole(said(evaluate_scores({"a": knowing(rows, 1)}, twice, resamples=50), "a"))
    unbounded = changed(evaluation, "good", apgr_low=float("nan"), apgr_high=float("nan"), cpt50_low=float("nan"))
    text = whole(said(unbounded, "good"))
    assert "95 % interval not bounded" in text
    assert "The interval has no bound" in text


def test_training_prompts_that_were_kept_are_told_loudly(rows: Benchmark) -> None:
    router = Scored(rows, knowing(rows, 0.6), learnt=list(rows.prompts[:10]))
    kept = evaluate({"good": router}, rows, keep_overlap=True, resamples=50)
    first = statements(kept, rows.groups)[0]
    assert (first.tone, first.text) == (
        "bad",
        "Training prompts are counted here, as was asked: the figures of good are too good.",
    )
    assert (said(kept, "good").tone, said(kept, "good").badge) == ("bad", "Trained on these prompts")
    assert said(kept, "good").cautions == (
        "Trained on 10 of the 200 prompts it is measured on: its figures are too good.",
    )


def test_a_router_without_a_row_was_not_measured(rows: Benchmark, tmp_path: Path) -> None:
    router = Scored(rows, knowing(rows, 0.6), learnt=list(rows.prompts))
    none = evaluate({"all": router}, rows, resamples=50)
    verdict = said(none, "all")
    assert verdict.badge == "Not measured"
    assert verdict.sentence == "was not measured: no prompt is left that it was not trained on."
    unscored = evaluate_scores({"nothing": np.full(200, np.nan)}, rows, resamples=50)
    assert said(unscored, "nothing").sentence == "was not measured: it scored none of the prompts."
    assert "Not measured" in Page(write_report(none, tmp_path)).text


def test_the_strong_models_lead_is_told_with_its_doubt(evaluation: Evaluation) -> None:
    assert "big is better than small: mean quality" in summary(evaluation)
    close = benchmark(ahead=0.02)
    assert close.gains.mean() > 0
    assert "but that may be chance" in summary(evaluate_scores({"a": knowing(close, 0.5)}, close, resamples=50))
    few = benchmark(40, ahead=0.9)
    assert "on these few prompts" in summary(evaluate_scores({"a": knowing(few, 0.5)}, few, resamples=50))


def ranked(evaluation: Evaluation, p_values: dict[tuple[str, str], float], resamples: int = 1000) -> str:
    evaluation = replace(evaluation, resamples=resamples)
    for (first, second), p in p_values.items():
        evaluation = compared(evaluation, first, second, p)
    return summary(evaluation)


def test_the_best_router_is_named_only_where_comparisons_bear_it(evaluation: Evaluation) -> None:
    """By their scores good is better than flat, and flat than bad; p decides what may be said."""
    pairs = [("good", "flat"), ("good", "bad"), ("flat", "bad")]
    sure = ranked(evaluation, dict.fromkeys(pairs, 0.001))
    assert "good is the best: it beats each of the other 2 routers in paired comparison" in sure
    assert "The 3 routers cannot be told apart" in ranked(evaluation, dict.fromkeys(pairs, 0.9))
    # Two comparisons bear the claim, so each must be twice as sure.
    assert "is the best" not in ranked(evaluation, dict.fromkeys(pairs, 0.03))
    open_top = ranked(evaluation, dict.fromkeys(pairs, 0.001) | {pairs[0]: 0.9})
    assert "No router is shown to be the best: good and flat cannot be told apart" in open_top
    alone = ranked(evaluation, {pairs[0]: 0.001, pairs[1]: 0.9, pairs[2]: 0.001})
    assert "No router is shown to be the best: only good is beaten by no other." in alone
    assert "The 3 routers cannot be told apart" in ranked(replace(evaluation, comparisons=[]), {})
    assert "30 resamples are too few to compare 3 routers" in ranked(evaluation, {}, resamples=30)


def test_what_speaks_against_the_best_router_is_said(rows: Benchmark) -> None:
    scores = {"good": knowing(rows, 0.9), "bad": knowing(rows, -0.9)}
    assert "only if it was not trained on these prompts" in summary(evaluate_scores(scores, rows, resamples=99))
    known = {name: Scored(rows, found, learnt=list(rows.prompts[:5])) for name, found in scores.items()}
    kept = evaluate(known, rows, keep_overlap=True, resamples=99)
    assert "it was trained on some of these prompts, so that shows little" in summary(kept)
    clean = evaluate(known, rows, resamples=99)
    assert "good is the best: it beats the other router in paired comparison on the same prompts." in summary(clean)
    assert "not shown to beat random" in summary(changed(clean, "good", better_than_random="cannot tell"))
    few = benchmark(60)
    small = evaluate_scores({"good": knowing(few, 0.9), "bad": knowing(few, -0.9)}, few, resamples=99)
    doubts = "That holds only if it was not trained on these prompts. With so few prompts that shows little."
    assert summary(small).endswith(doubts)


COSTS = {"good": {"cpt50": savings(0.2, 0.5, strong_cost=0.01, weak_cost=0.001, router_cost=None)}}


@pytest.fixture(scope="module")
def page_path(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(evaluation, tmp_path_factory.mktemp("report") / "new" / "folder", savings=COSTS)


def test_the_page_and_its_figures_are_written(page_path: Path) -> None:
    path = page_path
    assert path.parts[-3:] == ("new", "folder", "report.html")
    page = Page(path)
    names = sorted(file.name for file in (path.parent / "figures").iterdir())
    assert {Path(name).suffix for name in names} == {".svg", ".png"}
    assert len(names) == 2 * len(page.all("img")) == 2 * (2 + 3 * 3)
    embedded = [base64.b64decode(image["src"].partition(",")[2]) for image in page.all("img")]
    assert sorted(embedded) == sorted(file.read_bytes() for file in (path.parent / "figures").glob("*.svg"))
    assert all(len(image["alt"]) > 40 for image in page.all("img"))
    assert path.stat().st_size < 1_000_000
    assert {file.name for file in path.parent.iterdir()} == {"report.html", "figures"}
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    assert page.all("html") == [{"lang": "en"}]
    asked = ("Routing on toy", "big, mean quality", "unknown", "Contaminated or excluded prompts 7", "by prefroute")
    for wanted in asked:
        assert wanted in page.text


def test_the_same_evaluation_gives_the_same_files_whatever_matplotlib_is_set_to(
    evaluation: Evaluation, page_path: Path, tmp_path: Path
) -> None:
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "text.parse_math": True, "axes.facecolor": "black"}):
        before = dict(mpl.rcParams)
        write_report(evaluation, tmp_path, savings=COSTS)
        assert dict(mpl.rcParams) == before
    for file in sorted(page_path.parent.rglob("*.*")):
        once, again = (
            re.sub(rb"20\d\d-\d\d-\d\d", b"", at.read_bytes())
            for at in (file, tmp_path / file.relative_to(page_path.parent))
        )
        assert once == again, file


def test_hostile_text_is_only_text(hostile_page: Path) -> None:
    page = Page(hostile_page)
    assert page.all("script") == []
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert f"Routing on {SCRIPT}" in page.text
    assert f"{SCRIPT} cannot be told from random routing" in page.text
    raw = hostile_page.read_text(encoding="utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", raw)
    figures = hostile_page.parent / "figures"
    assert not [file for file in figures.glob("*.svg") if b"<script" in file.read_bytes()]
    names = ["router-8-call-rate", "router-8-reliability", "router-8-scores"]
    assert sorted(file.stem for file in figures.glob("router-8-*.svg")) == names
    assert "Shown for the first 8 of 10 routers" in page.text
    assert not (figures / "router-9-scores.svg").exists()


def extreme() -> dict[str, Callable[[], Evaluation]]:
    one = benchmark(1, strong=np.ones(1), weak=np.zeros(1), prompts=("only",))
    same, behind, large = benchmark(strong=np.ones(200), weak=np.ones(200)), benchmark(ahead=-0.4), benchmark(50)
    large = replace(large, strong=large.strong * 1e12, weak=-large.weak * 1e12)
    flat = np.full(200, 0.3)
    return {
        "one prompt": lambda: evaluate_scores({"a": np.array([0.5])}, one, resamples=50),
        "equal models": lambda: evaluate_scores({"flat": flat}, same, resamples=50),
        "strong is worse": lambda: evaluate_scores({"a": knowing(behind, 0.5)}, behind, resamples=50),
        "large numbers": lambda: evaluate_scores({"a": 1e9 * knowing(large, 0.5)}, large, resamples=50),
        "no router": lambda: evaluate({}, benchmark(), resamples=50),
    }


@pytest.mark.parametrize("case", extreme())
def test_it_survives_extreme_evaluations(case: str, tmp_path: Path) -> None:
    page = Page(write_report(extreme()[case](), tmp_path))
    assert not re.search(r"\b(nan|inf|None|undefined)\b", page.text), page.text
    assert "Verdict" in page.text
    assert ("no curve of its recovery" in page.text) == (case in {"equal models", "strong is worse"})


def test_many_routers_are_cut_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_figures, "CURVES", 3)
    monkeypatch.setattr("prefroute.evaluation.report.ROUTERS", 1)
    rows = benchmark()
    found = evaluate_scores({f"r{k}": knowing(rows, 0.2 * k) for k in range(5)}, rows, resamples=50)
    page = Page(write_report(found, tmp_path))
    assert "Curves are drawn for the first 3 of 5 routers" in page.text
    assert "Shown for the first 1 of 5 routers" in page.text


def test_a_failure_leaves_the_earlier_page(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.html").write_text("earlier", encoding="utf-8")

    def fail(*_: Any) -> None:
        msg = "no room"
        raise OSError(msg)

    monkeypatch.setattr(_figures, "call_rate", fail)
    with pytest.raises(OSError, match="no room"):
        write_report(evaluation, tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "earlier"
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_a_missing_package_names_the_extra_before_anything_is_written(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r'pip install "prefroute\[eval\]"'):
        write_report(evaluation, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_importing_loads_neither() -> None:
    code = "import sys, prefroute.evaluation.report; print(sorted({'matplotlib', 'jinja2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_baselines_are_marked_and_figures_that_are_not_defined_are_dashes(evaluation: Evaluation) -> None:
    table = routers_table(evaluation)
    found = {row.cells[0].text: row for row in table.rows}
    assert [name for name, row in found.items() if row.is_baseline] == ["random", "prompt-length", "knn", "oracle"]
    assert (found["good"].cells[-1].text, found["good"].cells[-1].note) == ("10", "left out")
    assert found["flat"].cells[-1].text == "unknown"
    assert all(len(row.cells) == len(table.columns) for row in table.rows)
    rows = benchmark(strong=np.ones(200), weak=np.ones(200))
    same = routers_table(evaluate_scores({"a": np.full(200, np.nan), "b": knowing(rows, 0)}, rows, resamples=50))
    assert {cell.text for cell in same.rows[0].cells[1:-2]} == {"\N{EN DASH}"}
    assert (same.rows[1].cells[2].text, same.rows[1].cells[2].note) == ("\N{EN DASH}", "not defined")


def test_categories_are_sorted_and_small_ones_marked(evaluation: Evaluation) -> None:
    table = categories_table(evaluation, evaluation.results["bad"])
    assert table is not None
    assert [(row.cells[0].text, row.cells[1].text, row.cells[1].note) for row in table.rows] == [
        ("common", "150", ""),
        ("other", "30", ""),
        ("rare", "20", "few"),
    ]
    assert all(len(row.cells) == len(table.columns) == 8 for row in table.rows)
    rows = benchmark()
    without = evaluate_scores({"a": knowing(rows, 0)}, rows, resamples=50)
    assert categories_table(without, without.results["a"]) is None


def test_costs_are_signed_and_unknown_is_not_zero() -> None:
    known = savings(0.6, 0.5, strong_cost=0.01, weak_cost=0.001, router_cost=0.0)
    unknown = savings(0.0, 0.5, strong_cost=0.01, weak_cost=None, router_cost=None)
    table = costs_table({"a": {"cpt80": known, "threshold": unknown}})
    first, second = ([cell.text for cell in row.cells] for row in table.rows)
    assert first[3:] == ["$6.40", "$0.00", "$10.00", "$5.50", "+$3.60", "\N{MINUS SIGN}$0.90", "0.83", "0.86"]
    assert second[3:] == ["unknown", "unknown", "$10.00", *["unknown"] * 3, "\N{EN DASH}", "unknown"]
    assert [row.cells[1].text for row in table.rows] == ["80 % of the gap", "its own threshold"]


def test_examples_are_the_prompts_whose_rank_agrees_most_and_least() -> None:
    strong = np.array([1, 1, 1, 0, 0, 1, 1, 0.0])
    weak = np.array([0, 1, 1, 1, 1, 0, 0, 1.0])
    rows = Benchmark(name="t", pair=PAIR, prompts=tuple("abcdefgg"), strong=strong, weak=weak)
    scores = np.array([0.9, 0.5, 0.4, 0.1, 0.8, 0.2, 0.7, 0.0])
    found = evaluate_scores({"r": scores}, rows, resamples=50)
    right, wrong = examples(found, found.results["r"])
    # g is there twice, and shown once.
    assert [item.prompt for item in right] == ["a", "g", "d"]
    assert [item.prompt for item in wrong] == ["e", "f"]
    assert right[0].facts == "Score 0.9 (rank 1 of 8); strong model 1.000, weak model 0.000."
    flat = evaluate_scores({"r": np.full(8, 0.5)}, rows, resamples=50)
    assert examples(flat, flat.results["r"]) == ([], [])


def test_a_threshold_beyond_the_scores_and_infinite_scores_are_drawn(evaluation: Evaluation) -> None:
    result: RouterResult = replace(evaluation.results["bad"], threshold=5.0, strong_rate=0.0)
    scores = result.scores.copy()
    scores[:50] = np.inf
    found = _figures.call_rate(replace(result, scores=scores), "x")
    assert found is not None
    assert "At its own threshold, 5," in found.alt
    infinite = replace(result, scores=np.full(200, np.inf))
    assert _figures.call_rate(infinite, "x") is None
    assert _figures.score_histogram(evaluation, infinite, "x") is None


def browser() -> str:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        reason = "needs Chromium: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def looked_at(path: Path, executable: str, **device: Any) -> dict[str, Any]:
    """What a browser makes of a page."""
    from playwright.sync_api import sync_playwright

    seen: dict[str, Any] = {"console": [], "errors": [], "requests": []}
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"] if is_root else [])
        page = window.new_context(**device).new_page()
        page.on("console", lambda message: seen["console"].append(message.text))
        page.on("pageerror", lambda error: seen["errors"].append(str(error)))
        page.on("request", lambda request: seen["requests"].append(request.url))
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
        seen["width"] = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        seen["images"] = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
        seen["scrolls"] = page.evaluate(
            "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth > e.clientWidth)"
        )
        seen["verdict"] = page.locator("#verdict .verdicts li").first.is_visible()
        window.close()
    return seen


@pytest.mark.parametrize(
    "device",
    [
        {"viewport": {"width": 1280, "height": 800}},
        {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "color_scheme": "dark"},
    ],
    ids=["desk", "phone"],
)
def test_a_browser_shows_it_without_errors_requests_or_sideways_scrolling(
    hostile_page: Path, device: dict[str, Any]
) -> None:
    executable, path = browser(), hostile_page
    seen: dict[str, Any] = {}
    # In a thread of its own: playwright's plain interface refuses one in which an event loop runs.
    thread = threading.Thread(target=lambda: seen.update(looked_at(path, executable, **device)))
    thread.start()
    thread.join()
    assert seen, "the browser failed"
    assert (seen["console"], seen["errors"]) == ([], [])
    assert [url for url in seen["requests"] if url != path.as_uri() and not url.startswith("data:")] == []
    assert seen["width"] <= 0
    assert len(seen["images"]) == 26
    assert all(seen["images"])
    assert seen["verdict"]
    if device.get("is_mobile"):
        assert any(seen["scrolls"])
