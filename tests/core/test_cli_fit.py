"""`prefroute fit`, from a labelled file to a router with its card, and what routes with it."""

import csv
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from prefroute import cli, load_router
from prefroute.data import read_responses
from prefroute.evaluation import apgr
from prefroute.fitting.card import card_of
from prefroute.routers.baselines import PromptLengthRouter
from prefroute.types import ModelPair

DATA = Path(os.environ.get("PREFROUTE_DATA", Path(__file__).parents[2] / "../shared/data"))

Run = Callable[..., tuple[int, str, str]]

SIDES = ("--strong", "big", "--weak", "small")
QUICK = ("--router", "prompt-length", "--folds", "4", "--no-curve", "--no-report")
SECRET = "the combination of our safe"


def rows(n: int = 120, seed: int = 0, *, shuffled: bool = False, failed: int = 4) -> list[dict[str, Any]]:
    """As `prefroute label` writes them: the small model fails at what is to be proved; some rows have no label."""
    generator = np.random.default_rng(seed)
    hard = np.arange(n) % 2 == 0
    weak = (generator.random(n) < np.where(hard, 0.2, 0.9)).astype(float)
    if shuffled:
        weak = generator.permutation(weak)
    found = []
    for i, number in enumerate(1000 + seed + 10 * generator.permutation(800)[:n]):
        # The harder ones are longer, but not all.
        more = "step " * int(generator.integers(4, 20) if hard[i] else generator.integers(0, 12))
        text = f"Prove {more}theorem {number} rigorously." if hard[i] else f"Say {more}{number}, {SECRET}."
        is_bad = i < failed
        found.append(
            {
                "prompt": text,
                "big": None if is_bad else 1.0,
                "small": None if is_bad else weak[i],
                "strong_answer": None if is_bad else "An answer.",
                "weak_answer": "Another.",
                "verdict": None if is_bad else "strong",
                "input_tokens": 12,
                "strong_output_tokens": None if is_bad else 300,
                "weak_output_tokens": 200,
                "strong_cost": None if is_bad else 0.01,
                "weak_cost": 0.001,
                "judge_cost": 0.0,
                "error": "strong: HTTP 500" if is_bad else None,
            }
        )
    return found


def write(path: Path, table: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return write(tmp_path / "labels.jsonl", rows())


def finite(value: Any) -> bool:
    """Whether all numbers in it are."""
    if isinstance(value, dict | list):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


class Fitted(NamedTuple):
    folder: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """The command as it comes, but for fewer kinds and folds."""
    place = tmp_path_factory.mktemp("fit")
    file, output = write(place / "labels.jsonl", rows(160)), place / "new" / "router"
    given = ["fit", str(file), *SIDES, "--output", str(output), "--router", "prompt-length", "--router", "knn"]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["prefroute", *given, "--folds", "4"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code, err.getvalue()
    return Fitted(output, out.getvalue(), err.getvalue())


def test_a_file_of_label_becomes_a_router_and_all_is_told(whole: Fitted) -> None:
    assert whole.err == "prefroute: warning: 4 rows cannot be used: 4 x quality of big is missing\n"
    lines = {line[:10].strip(): line[10:].strip() for line in whole.out.splitlines() if line[:1].strip()}
    assert lines["labels"].startswith("156 prompts: big better ")
    assert lines["labels"].endswith(", small better 0")
    assert lines["chosen"] == "knn, static+surface"
    assert lines["held out"].endswith("; random 0.500")
    assert lines["verdict"].startswith("better than random; better than prompt length alone")
    assert [point.split()[0] for point in lines["curve"].split(", ")] == ["15", "29", "58", "117"]
    assert "about 50% strong calls; prefroute calibrate" in lines["threshold"]
    assert lines["saved"] == f"{whole.folder} (report in report/)"
    assert lines["try"] == f"prefroute route --router {whole.folder} 'Why is the sky blue?'"
    for name in ("prompt-length", "knn, static+surface", "log loss", "behind the best"):
        assert name in whole.out
    assert "to settle" not in whole.out
    assert not whole.folder.with_name("router.fitting").exists()


def test_the_card_and_the_report_lie_in_the_folder(whole: Fitted) -> None:
    card = (whole.folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# A router between big and small\n")
    assert "156 judged prompts, 156 of them different, from `labels.jsonl`." in card
    assert "**Better than random" in card
    for part in ("## Data", "## What it does", "## How it was chosen", "## Limits", "## Versions", "| oracle |"):
        assert part in card
    figures = next(line for line in whole.out.splitlines() if line.startswith("held out")).split()
    assert f"| {figures[3]} ({figures[4].strip('(')} to {figures[6].strip(');')}) |" in card
    report = (whole.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "156" in report
    # The report shows prompts; what else lies there may be passed on.
    for file in set(whole.folder.rglob("*")) - set((whole.folder / "report").rglob("*")):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes(), file


def test_the_router_tells_new_prompts_apart(whole: Fitted, run: Run) -> None:
    router = load_router(whole.folder)
    new = [row["prompt"] for row in rows(100, seed=3)]
    scores = router.win_probability(new)
    assert np.mean(scores[::2]) > np.mean(scores[1::2]) + 0.2
    assert router.validation is not None
    assert router.validation.prompts == 156
    for place, route in ((scores.argmax(), "strong"), (scores.argmin(), "weak")):
        status, out, err = run("route", "--json", "--router", str(whole.folder), new[int(place)])
        assert (status, json.loads(out)["route"], err) == (0, route, "")


def test_both_adapters_route_with_the_folder(whole: Fitted) -> None:
    chat = pytest.importorskip("langchain_core.language_models.fake_chat_models")
    llama = pytest.importorskip("llama_index.core.llms")
    from langchain_router import RoutedChatModel
    from llamaindex_router import RoutedLLM

    router = load_router(whole.folder)
    prompts = [row["prompt"] for row in rows(20, seed=4)]
    calibration = router.calibration
    assert calibration is not None
    scores = router.win_probability(prompts)
    models = {name: chat.FakeListChatModel(responses=[name]) for name in ("strong", "weak")}
    # The mock says as many words as it may.
    llms = {name: llama.MockLLM(max_tokens=words) for name, words in (("strong", 1), ("weak", 2))}
    for rate in (None, 0.2, 0.8):
        threshold = router.threshold if rate is None else calibration.threshold_for(rate).threshold
        wanted = ["strong" if score >= (threshold or 0.0) else "weak" for score in scores]
        assert set(wanted) == {"strong", "weak"}
        more: dict[str, Any] = {} if rate is None else {"strong_rate": rate}
        model = RoutedChatModel(**models, router=whole.folder, **more)
        assert [model.invoke(prompt).content for prompt in prompts] == wanted
        model = RoutedChatModel(**models, router=str(whole.folder))
        assert [model.invoke(prompt, **more).content for prompt in prompts] == wanted
        llm = RoutedLLM(**llms, router=str(whole.folder), **more)
        words = [len(llm.complete(prompt).text.split()) for prompt in prompts]
        assert words == [1 if route == "strong" else 2 for route in wanted]


def test_the_figures_as_json(run: Run, labels: Path, tmp_path: Path) -> None:
    output = tmp_path / "router"
    status, out, err = run("fit", str(labels), *SIDES, "--output", str(output), *QUICK, "--seed", "3", "--json")
    assert (status, err.count("\n")) == (0, 1)
    told = json.loads(out)
    assert finite(told)
    assert (told["files"], told["prompts"], told["folds"], told["seed"]) == (["labels.jsonl"], 116, 4, 3)
    assert told["labels"]["strong_better"] + told["labels"]["tie"] == 116
    assert told["chosen"] == "prompt-length"
    assert [item["name"] for item in told["tried"]] == ["prompt-length"]
    assert told["beats_random"] is True
    assert told["verdict"] == "better than random"
    assert told["figures"]["n_used"] == 116
    assert (told["learning_curve"], told["what_would_settle"], told["warnings"]) == ([], [], [])
    router = load_router(output)
    assert router.threshold == told["threshold"]["threshold"]
    assert router.validation is not None
    assert router.validation.apgr == told["figures"]["apgr"]
    assert told["saved"] == str(output)
    assert not (output / "report").exists()
    assert (output / "README.md").is_file()


@pytest.mark.parametrize("swapped", [False, True])
def test_what_cannot_be_told_is_said_plainly(run: Run, tmp_path: Path, swapped: bool) -> None:
    path = write(tmp_path / "labels.jsonl", rows(shuffled=True, failed=0))
    sides = ("--strong", "small", "--weak", "big") if swapped else SIDES
    given = ("fit", str(path), *sides, "--output", str(tmp_path / "r"), *QUICK)
    status, out, err = run(*given)
    assert status == 0
    said = (
        "none: small does no better than big, so there is nothing to recover"
        if swapped
        else "cannot be told from random with 120 prompts"
    )
    assert f"verdict   {said}\n" in out
    assert "to settle " in out
    card = (tmp_path / "r" / "README.md").read_text(encoding="utf-8")
    assert said in card[0] + card[1:].replace("**None", "**none").replace("**Cannot", "**cannot")
    assert "Do not rely on it" in card
    if swapped:
        assert err.startswith("prefroute: warning: small does no better than big on these prompts")
        assert "are --strong and --weak swapped?" in err
        assert load_router(tmp_path / "r").route("Prove it.").route == "weak"
        assert "held out  APGR is not defined: the strong model is no better\n" in out
    else:
        assert err == (
            "prefroute: warning: this router is not shown to beat a coin; label more, or send everything to one model\n"
        )
    if swapped:
        told = json.loads(run(*given, "--json")[1])
        assert finite(told)
        assert told["beats_random"] is False
        assert told["figures"]["apgr"] is None
        assert len(told["what_would_settle"]) == 1
    assert load_router(tmp_path / "r").win_probability(["Prove it."]).shape == (1,)


def test_a_rate_that_ties_keep_from_being_reached_is_told(run: Run, tmp_path: Path) -> None:
    table = [{"prompt": f"Name {number}.", "big": 1, "small": number % 2} for number in range(100, 160)]
    path = write(tmp_path / "labels.jsonl", table)
    given = ("--router", "prompt-length", "--folds", "3", "--no-report", "--no-curve")
    status, _, err = run("fit", str(path), *SIDES, "--output", str(tmp_path / "r"), *given)
    assert status == 0
    assert "60 prompts share the score where 50.0% would be cut" in err
    assert "so the rate is 100.0% here" in err


def test_a_router_that_does_otherwise_than_its_held_out_scores_is_told(run: Run, tmp_path: Path) -> None:
    table = [{"prompt": f"Name fact {number} of many.", "big": 0, "small": 1} for number in range(100, 160)]
    path = write(tmp_path / "labels.jsonl", table)
    given = ("--strong-rate", "0.5", "--router", "knn", "--folds", "3", "--no-report", "--no-curve", "--json")
    status, out, err = run("fit", str(path), *SIDES, "--output", str(tmp_path / "r"), *given)
    assert status == 0
    told = json.loads(out)["threshold"]
    prompts = [row["prompt"] for row in table]
    assert told["own_rate"] == np.mean([one.is_strong for one in load_router(tmp_path / "r").route_batch(prompts)])
    if abs(told["own_rate"] - told["sample_rate"]) > 0.1:
        assert "the router itself sends" in err
    else:
        assert "the router itself sends" not in err


def test_names_of_models_and_files_cannot_break_the_card(run: Run, tmp_path: Path) -> None:
    names = {"big": "big|<img src=x>\n# Ha", "small": "s`m|all"}
    table = [{names.get(key, key): value for key, value in row.items()} for row in rows(failed=0)]
    path = write(tmp_path / "la|be`ls<b>.jsonl", table)
    given = ("--strong", names["big"], "--weak", names["small"], "--output", str(tmp_path / "r"), *QUICK)
    status, _, err = run("fit", str(path), *given)
    assert (status, err) == (0, "")
    card = (tmp_path / "r" / "README.md").read_text(encoding="utf-8")
    # Nothing of a name is markup: each such sign is escaped.
    plain = re.sub(r"\\.", "", card)
    assert "<" not in plain
    assert "\n# Ha" not in card
    assert plain.count("`") % 2 == 0
    tables = [block.splitlines() for block in plain.split("\n\n") if block.startswith("|")]
    assert [{line.count("|") for line in block} for block in tables] == [{4}, {6}, {5}]


@pytest.mark.parametrize("json_", [False, True])
def test_a_quality_is_kept(run: Run, labels: Path, tmp_path: Path, json_: bool) -> None:
    given = ["fit", str(labels), *SIDES, "--output", str(tmp_path / "r"), *QUICK, "--quality", "0.8"]
    status, out, _ = run(*given, *(["--json"] if json_ else []))
    assert status == 0
    if not json_:
        assert "          keeps " in out
        return
    told = json.loads(out)["threshold"]
    assert told["quality_wanted"] == 0.8
    assert 0.8 <= told["quality"] < 1.0
    router = load_router(tmp_path / "r")
    assert router.threshold == told["threshold"]
    judged = rows()[4:]
    routes = router.route_batch([row["prompt"] for row in judged])
    kept = np.mean([row["big"] if one.is_strong else row["small"] for row, one in zip(judged, routes, strict=True)])
    assert kept == pytest.approx(told["quality"], abs=0.05)


def test_a_budget_is_kept(run: Run, labels: Path, tmp_path: Path) -> None:
    given = ("fit", str(labels), *SIDES, "--output", str(tmp_path / "r"), *QUICK, "--budget", "4")
    told = json.loads(run(*given, "--json")[1])["threshold"]
    # A third of the calls: 0.001 + rate x 0.009 is to be 0.004 at most.
    assert 0.28 <= told["sample_rate"] <= 1 / 3
    assert told["cost"] == pytest.approx(0.001 + 0.009 * told["sample_rate"])
    assert load_router(tmp_path / "r").threshold == told["threshold"]
    prices = tmp_path / "prices.json"
    # The tokens that the file names, 300 and 200, and twice the prices that it was paid at.
    prices.write_text(f'{{"big": {{"input": 0, "output": {200 / 3}}}, "small": {{"input": 0, "output": 10}}}}')
    status, out, _ = run(*given[:-1], "8", "--prices", str(prices))
    assert status == 0
    assert f"          1,000 requests cost ${2000 * told['cost']:.4g} at that threshold\n" in out
    assert load_router(tmp_path / "r").threshold == told["threshold"]


def test_a_rate_is_kept(run: Run, labels: Path, tmp_path: Path) -> None:
    given = ("fit", str(labels), *SIDES, "--output", str(tmp_path / "r"), *QUICK, "--strong-rate", "0.2", "--json")
    status, out, _ = run(*given)
    assert status == 0
    assert json.loads(out)["threshold"]["strong_rate"] == pytest.approx(0.2, abs=0.02)
    router = load_router(tmp_path / "r")
    assert router.calibration is not None
    assert np.mean(router.calibration.scores >= (router.threshold or 0.0)) == pytest.approx(0.2, abs=0.02)


def test_prompts_of_a_test_set_are_left_out_of_several_files(run: Run, labels: Path, tmp_path: Path) -> None:
    test = tmp_path / "test.txt"
    test.write_text("\n".join(row["prompt"].upper() for row in rows()[20:50]))
    more = tmp_path / "more.csv"
    with more.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["prompt", "big", "small"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows(40, seed=5, failed=0))
    output = tmp_path / "r"
    given = ("fit", str(labels), str(more), *SIDES, "--output", str(output), *QUICK, "--exclude", str(test))
    told = json.loads(run(*given, "--json")[1])
    assert (told["files"], told["prompts"]) == (["labels.jsonl", "more.csv"], 116 + 40 - 30)
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "from `labels.jsonl`, `more.csv`; 30 excluded." in card
    every = write(tmp_path / "every.jsonl", [*rows(), *rows(40, seed=5)])
    status, out, err = run(*given, "--exclude", str(every))
    assert (status, out) == (1, "")
    assert f"--exclude {every} leaves none of the 126 prompts; exclude fewer\n" in err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--router", "oracle"), 2, "routers to choose from must be some of prompt-length, "),
        (("--bert-steps", "3"), 2, "--bert-model and --bert-steps go with --router bert"),
        (("--bert-model", "x"), 2, "--bert-model and --bert-steps go with --router bert"),
        (("--strong-rate", "30"), 2, "strong_rate must be a share of strong calls in [0, 1], got 30.0; for 30 %"),
        (("--strong-rate", "0.3", "--quality", "0.9"), 2, "give one of --strong-rate, --quality or --budget, got 2"),
        (("--quality", "1.5"), 2, "quality must be a share of the strong model's quality"),
        (("--budget", "0"), 2, "above 0; got 0"),
        (("--budget", "nan"), 2, "above 0; got nan"),
        (("--budget", "5", "--weak-cost-column", "weak_cost"), 1, "there is no price of 'big'; prices: none"),
        (("--budget", "5", "--input-tokens", "9"), 2, "--input-tokens and --output-tokens go together; give both"),
        (("--input-tokens", "9"), 2, "--input-tokens says nothing without --budget; leave it out"),
        (("--strong-cost-column", "c"), 2, "--strong-cost-column says nothing without --budget; leave it out"),
        (("--strong", "small", "--weak", "big", "--quality", "0.9"), 1, "are --strong and --weak swapped?"),
        (("--embedder", "wrod2vec", "--router", "knn"), 2, "unknown embedder 'wrod2vec'"),
        (("--weak", "tiny"), 1, "'tiny'"),
        (("--weak", "big"), 2, "big"),
        (("--folds", "1"), 2, "--folds"),
        (("--router", "prompt-length", "--embedder", "nonsense"), 2, "--embedder says nothing for prompt-length"),
        (("--prompt-column", "text"), 1, "'text'"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_work(
    run: Run,
    labels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    def work(*_: Any, **__: Any) -> Any:
        pytest.fail("it was refused too late")

    monkeypatch.setattr(PromptLengthRouter, "fit", work)
    output = tmp_path / "r"
    found, out, err = run("fit", str(labels), *SIDES, "--output", str(output), *QUICK, *arguments)
    assert (found, out) == (status, ""), err
    assert message in err
    assert "Traceback" not in err
    assert not output.exists()


def test_settings_of_bert_reach_it(run: Run, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefroute import training

    seen = []

    def train(battles: Any, *, pair: ModelPair, config: Any, checkpoints: Path, resume: bool) -> PromptLengthRouter:
        seen.append((config.model, config.steps, config.seed, checkpoints.parent))
        return PromptLengthRouter.fit(battles, pair=pair)

    monkeypatch.setattr(training, "train_bert", train)
    given = ("fit", str(labels), *SIDES, "--output", str(tmp_path / "r"), "--router", "bert", "--folds", "3")
    more = ("--no-report", "--bert-model", "some/model", "--bert-steps", "7", "--seed", "2")
    status, out, err = run(*given, *more)
    assert (status, err.count("\n")) == (0, 1), err
    assert "chosen    bert\n" in out
    assert seen == [("some/model", 7, 2, tmp_path / "r.fitting")] * 4
    # What it had reached is no longer needed.
    assert not (tmp_path / "r.fitting").exists()


def test_an_output_that_holds_something_else_is_left_alone(run: Run, labels: Path, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("years of work")
    given = ("fit", str(labels), *SIDES, *QUICK, "--output")
    status, out, err = run(*given, str(tmp_path / "r"))
    assert (status, out) == (2, "")
    assert f"--output {tmp_path / 'r'} is not empty and holds no saved router" in err
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["thesis.txt"]
    status, _, err = run(*given, str(labels))
    assert (status, "is a file; name a folder" in err) == (2, True)


def test_a_router_that_is_there_is_replaced_card_and_all(run: Run, labels: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "r")
    assert run("fit", str(labels), *SIDES, *QUICK, "--output", output)[0] == 0
    (tmp_path / "r" / "report").mkdir()
    (tmp_path / "r" / "report" / "report.html").write_text("of the router that was there")
    more = write(tmp_path / "more.jsonl", rows(60, seed=2, failed=0))
    assert run("fit", str(more), *SIDES, *QUICK, "--output", output)[0] == 0
    assert "from `more.jsonl`" in (tmp_path / "r" / "README.md").read_text(encoding="utf-8")
    assert not (tmp_path / "r" / "report" / "report.html").exists()
    known = load_router(output).training_prompts
    assert known is not None
    assert len(known) == 60


@pytest.mark.parametrize(
    ("missing", "arguments", "message"),
    [
        ("sklearn", ("--no-report",), "fitting a router needs scikit-learn"),
        ("matplotlib", (), "the report (or --no-report) needs matplotlib"),
        ("jinja2", (), "the report (or --no-report) needs jinja2"),
        ("torch", ("--router", "matrix-factorization"), "--router matrix-factorization needs torch"),
        ("transformers", ("--router", "bert"), "--router bert needs transformers"),
    ],
)
def test_a_package_that_is_missing_is_told_first(
    run: Run,
    labels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *more: None if name == missing else find(name, *more))
    status, out, err = run("fit", str(labels), *SIDES, "--output", str(tmp_path / "r"), *arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert "pip install" in err
    assert not (tmp_path / "r").exists()


def test_too_few_labels_are_told(run: Run, tmp_path: Path) -> None:
    few = write(tmp_path / "few.jsonl", rows(49, failed=0))
    status, out, err = run("fit", str(few), *SIDES, *QUICK, "--output", str(tmp_path / "r"))
    assert (status, out) == (1, "")
    assert err == (
        "prefroute: 49 different prompts are too few to fit and to measure a router with; label 50 or more\n"
    )
    assert not (tmp_path / "r").exists()


def test_a_kind_that_fails_is_told_and_the_others_go_on(
    run: Run, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefroute.errors import DataError
    from prefroute.routers.knn import KNNRouter

    def fail(*_: Any, **__: Any) -> Any:
        msg = "no neighbours near\x1b[31m"
        raise DataError(msg)

    monkeypatch.setattr(KNNRouter, "fit", fail)
    status, out, err = run("fit", str(labels), *SIDES, *QUICK, "--router", "knn", "--output", str(tmp_path / "r"))
    assert status == 0
    assert "prefroute: warning: knn, static+surface: no neighbours near" in err
    assert "\x1b" not in err + out
    assert "chosen    prompt-length\n" in out
    assert "Left out: knn, static+surface" in (tmp_path / "r" / "README.md").read_text(encoding="utf-8")


def test_a_fault_in_the_card_leaves_no_router(
    run: Run, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefroute.errors import PrefrouteError

    def fail(*_: Any, **__: Any) -> str:
        msg = "a fault"
        raise PrefrouteError(msg)

    monkeypatch.setattr(f"{card_of.__module__}.card_of", fail)
    status, out, err = run("fit", str(labels), *SIDES, *QUICK, "--output", str(tmp_path / "r"))
    assert (status, out, err.splitlines()[-1]) == (1, "", "prefroute: a fault")
    assert not (tmp_path / "r").exists()


def test_help_names_what_can_be_said(run: Run) -> None:
    status, out, err = run("fit", "--help")
    assert (status, err) == (0, "")
    for option in ("--strong COL", "--output DIR", "--router KIND", "--exclude FILE", "--quality X", "--no-report"):
        assert option in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the shared data are not at {DATA}; set PREFROUTE_DATA")
def test_labels_of_mmlu_make_a_router_that_beats_a_coin_on_the_rest(run: Run, tmp_path: Path) -> None:
    pair = ModelPair("gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1")
    files = sorted((DATA / "routellm" / "mmlu").glob("mmlu_*.csv"))
    table = read_responses([str(file) for file in files], (pair.strong, pair.weak), on_bad_row="skip")
    strong, weak = (table.quality[:, table.models.index(name)] for name in (pair.strong, pair.weak))
    order = np.random.default_rng(0).permutation(len(table))
    judged, rest = order[:400], order[400:2400]
    path = write(
        tmp_path / "mmlu.jsonl",
        [{"prompt": table.prompts[i], pair.strong: float(strong[i]), pair.weak: float(weak[i])} for i in judged],
    )
    given = ("--strong", pair.strong, "--weak", pair.weak, "--output", str(tmp_path / "r"), "--router", "knn")
    status, out, _ = run("fit", str(path), *given, "--folds", "5", "--no-report", "--no-curve", "--json")
    assert status == 0
    told = json.loads(out)
    router = load_router(tmp_path / "r")
    prompts = [table.prompts[i] for i in rest]
    scores = router.win_probability(prompts)
    found = apgr(scores, strong[rest] - weak[rest])
    assert found > 0.56
    assert told["figures"]["apgr_low"] < found < told["figures"]["apgr_high"]
    rate = np.mean([decision.is_strong for decision in router.route_batch(prompts)])
    assert rate == pytest.approx(told["threshold"]["strong_rate"], abs=0.15)
