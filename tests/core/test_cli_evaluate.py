"""`prefroute evaluate` and `prefroute calibrate`, from files to figures and saved thresholds."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefroute import Router, load_router
from prefroute.data import read_battles
from prefroute.evaluation import apgr
from prefroute.routers.baselines import PromptLengthRouter
from prefroute.routers.calibrated import CalibratedRouter
from prefroute.routers.knn import KNNRouter
from prefroute.types import ModelPair

DATA = Path(os.environ.get("PREFROUTE_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the shared data are not at {DATA}; set PREFROUTE_DATA")

Run = Callable[..., tuple[int, str, str]]

PAIR = ModelPair("big", "small")
PUBLISHED = ("--strong", "gpt-4-1106-preview", "--weak", "mistralai/Mixtral-8x7B-Instruct-v0.1")
SIDES = ("--strong", "big", "--weak", "small")


def rows(n: int = 400, seed: int = 0) -> list[dict[str, Any]]:
    """The longer the prompt, the less the small model knows."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(n):
        hard = generator.random()
        text = f"{'very ' * int(30 * hard)}hard question {number} of {seed}"
        small = int(generator.random() > hard)
        found.append({"prompt": text, "big": 1, "small": small, "kind": "odd" if number % 2 else "even", "cost": 0.01})
    return found


def write(path: Path, table: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "labels.csv", rows())


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    battles = read_battles(rows(seed=1), models=["big", "small"])
    folder = tmp_path / "routers" / "mine"
    KNNRouter.fit(battles, pair=PAIR).save_pretrained(folder)
    return folder


def test_figures_of_every_router_and_baseline(run: Run, data: Path, trained: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "out.json"
    training = write(tmp_path / "training.csv", rows(seed=1))
    status, out, err = run(
        *("evaluate", str(trained), "prompt-length", "--data", str(data), *SIDES, "--json", str(out_file)),
        *("--training-data", str(training), "--resamples", "100"),
    )
    assert (status, err) == (0, "")
    told = json.loads(out_file.read_text())
    assert told["n"] == 400
    assert list(told["routers"]) == ["mine", "prompt-length", "random", "knn", "oracle"]
    mine = told["routers"]["mine"]
    prompts, gains = zip(*((row["prompt"], row["big"] - row["small"]) for row in rows()), strict=True)
    assert mine["apgr"] == pytest.approx(apgr(load_router(trained).win_probability(prompts), np.array(gains)))
    assert (mine["n_used"], mine["n_overlap"], mine["better_than_random"]) == (400, 0, "yes")
    assert "savings" not in mine
    assert "labels.csv: 400 prompts" in out
    for name in ("mine", "random *", "knn *", "oracle *"):
        assert name in out
    assert "mine: at its threshold of " in out
    assert "prompt length alone" in out


def test_prompts_learnt_from_are_left_out_unless_asked_for(run: Run, trained: Path, tmp_path: Path) -> None:
    both = write(tmp_path / "both.csv", [*rows(seed=1)[:100], *rows()])
    arguments = ("evaluate", str(trained), "--data", str(both), *SIDES, "--resamples", "50", "--json", "-")
    status, out, _ = run(*arguments)
    mine = json.loads(out)["routers"]["mine"]
    assert (status, mine["n_used"], mine["n_overlap"]) == (0, 400, 100)
    told = json.loads(run(*arguments, "--keep-overlap")[1])
    assert (told["overlap"], told["routers"]["mine"]["n_used"]) == ("kept", 500)
    _, _, err = run(*arguments[:-2])
    assert "warning: mine learnt from 100 of the prompts; they are left out for it" in err
    _, _, err = run(*arguments[:-2], "--keep-overlap")
    assert "warning: mine learnt from 100 of the prompts it is measured on (--keep-overlap)" in err
    only = write(tmp_path / "only.csv", rows(seed=1))
    status, out, err = run("evaluate", str(trained), "--data", str(only), *SIDES, "--resamples", "50")
    assert status == 0
    assert "learnt from every prompt of the data" in err


def test_the_bundled_router_does_not_hide_what_it_learnt_from(run: Run, tmp_path: Path) -> None:
    table = [
        {"prompt": "Janet\u2019s ducks lay 16 eggs per day. ", "big": 1, "small": 0},
        {"prompt": "What is it?", "big": 1, "small": 1},
    ]
    file = write(tmp_path / "some.csv", table)
    _, out, err = run("evaluate", "default", "--data", str(file), *SIDES, "--resamples", "20", "--json", "-")
    assert json.loads(out)["routers"]["default"]["n_overlap"] == 0
    assert err == ("prefroute: warning: 2 prompts are few: intervals are wide, and a real advantage may not show\n")


def test_two_folders_of_one_name_are_told_apart(run: Run, data: Path, tmp_path: Path) -> None:
    for place in ("a", "b"):
        PromptLengthRouter(slope=1.0 + len(place)).save_pretrained(tmp_path / place / "same")
    paths = [str(tmp_path / place / "same") for place in ("a", "b")]
    _, out, _ = run("evaluate", *paths, "--data", str(data), *SIDES, "--resamples", "20", "--json", "-")
    assert list(json.loads(out)["routers"])[:2] == paths


def test_costs_are_told_and_unknown_ones_too(run: Run, data: Path, trained: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"big": {"input": 10, "output": 30}, "small": {"input": 1, "output": 2}}))
    arguments = ("evaluate", str(trained), "--data", str(data), *SIDES, "--resamples", "20")
    _, _, err = run(*arguments, "--prices", str(prices))
    assert "prices are known, tokens are not; give --input-tokens and --output-tokens" in err
    tokens = ("--prices", str(prices), "--input-tokens", "100", "--output-tokens", "200")
    _, out, _ = run(*arguments, *tokens, "--router-cost", "0.0001")
    assert "mine, cpt50: costs $" in out
    assert "(router itself $0.1)" in out
    assert "against random of equal quality" in out
    _, out, _ = run(*arguments, *tokens)
    assert "saves unknown against always strong" in out
    assert "give --router-cost" in out
    _, out, _ = run(*arguments, "--strong-cost-column", "cost", "--router-cost", "0")
    assert "costs unknown per 1,000 requests" in out
    _, out, _ = run(*arguments, *tokens, "--json", "-")
    savings = json.loads(out)["routers"]["mine"]["savings"]
    assert set(savings) == {"cpt50", "cpt80", "threshold"}
    assert savings["cpt50"]["saved_against_strong"] is None
    status, _, err = run(*arguments, "--input-tokens", "100")
    assert (status, err) == (2, "prefroute: --input-tokens and --output-tokens go together; give both\n")


def test_a_report_is_written(run: Run, data: Path, trained: Path, tmp_path: Path) -> None:
    status, out, err = run(
        *("evaluate", str(trained), "--data", str(data), *SIDES, "--resamples", "50"),
        *("--category-column", "kind", "--report", str(tmp_path / "new" / "report")),
    )
    assert (status, err) == (0, "")
    page = tmp_path / "new" / "report" / "report.html"
    assert str(page) in out
    text = page.read_text(encoding="utf-8")
    assert "mine" in text
    assert "even" in text
    assert list(page.parent.rglob("*.svg"))
    assert list(page.parent.rglob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "no saved router at nowhere"),
        (("random", "--strong", "bigger"), "no column 'bigger'"),
        (("random", "--strong", "gpt", "--weak", "mix"), "no column 'gpt', 'mix'; columns: 'prompt'"),
        (("random", "--prompt-column", "question"), "no column 'question'"),
        (("random", "--json", "no/where/out.json"), "--json: there is no folder"),
        (("random", "--prices", "labels.csv"), "cannot be read as prices"),
        (("random", "--router-cost", "inf"), "--router-cost must be US dollars a request, got inf"),
        (("random", "--resamples", "1000000000"), "less than or equal to 100000"),
        (("random", "--exclude", "labels.csv"), "leaves none of the 400 prompts"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Run, data: Path, arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    status, out, err = run("evaluate", "--data", str(data), *SIDES, *arguments)
    assert status != 0
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_bad_rows_are_counted_and_excluded_prompts_left_out(run: Run, tmp_path: Path) -> None:
    table = [*rows(50), {**rows(1)[0], "small": "?"}]
    file, names = write(tmp_path / "some.csv", table), tmp_path / "names.txt"
    names.write_text("\n".join(row["prompt"].upper() for row in rows(50)[:20]))
    arguments = ("evaluate", "random", "--data", str(file), *SIDES, "--resamples", "20")
    _, out, err = run(*arguments, "--exclude", str(names))
    assert "some.csv: 30 prompts, 20 contaminated or excluded ones left out" in out
    assert "1 rows cannot be used: 1 x quality of small is not a number" in err
    status, _, err = run(*arguments, "--on-bad-row", "raise")
    assert status == 1
    assert "quality of small must be a finite number, got '?'. Correct it, or leave such rows out" in err


@needs_data
def test_a_folder_in_routellms_layout_is_read_less_its_contaminated_prompts(run: Run) -> None:
    folder = str(DATA / "routellm/gsm8k")
    arguments = ("evaluate", "prompt-length", "--data", folder, *PUBLISHED, "--resamples", "100")
    _, out, _ = run(*arguments, "--json", "-")
    told = json.loads(out)
    assert (told["n"], told["n_contaminated"]) == (1307, 12)
    assert told["routers"]["prompt-length"]["apgr"] == pytest.approx(0.598, abs=0.001)
    status, _, err = run(*arguments, "--category-column", "x")
    assert status == 2
    assert "give it alone, without options about columns" in err


@needs_data
def test_the_bundled_router_learnt_from_the_published_benchmarks(run: Run) -> None:
    folder = str(DATA / "routellm/gsm8k")
    _, _, err = run("evaluate", "default", "--data", folder, *PUBLISHED, "--resamples", "20")
    assert "default learnt from every prompt of the data" in err


def calibrated(run: Run, *arguments: str) -> dict[str, Any]:
    status, out, err = run("calibrate", *arguments, "--json")
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_rate_is_reached_and_saved_with_the_router(run: Run, data: Path, trained: Path) -> None:
    told = calibrated(run, str(trained), "--prompts", str(data), "--strong-rate", "0.3")
    assert set(told) >= {"threshold", "strong_rate", "low", "high", "n", "saved"}
    assert told["n"] == 400
    assert told["low"] < told["strong_rate"] < told["high"]
    loaded = load_router(trained)
    scores = loaded.win_probability([row["prompt"] for row in rows()])
    assert (loaded.threshold, (scores >= told["threshold"]).mean()) == (told["threshold"], told["sample_rate"])
    assert loaded.threshold_for(0.5) < told["threshold"]
    assert load_router(trained).training_prompts is not None
    wide = calibrated(run, str(trained), "--prompts", str(data), "--strong-rate", "0.3", "--next", "20")
    assert wide["high"] - wide["low"] > told["high"] - told["low"]


def test_another_folder_gets_the_whole_router(run: Run, data: Path, trained: Path, tmp_path: Path) -> None:
    before = load_router(trained).threshold
    told = calibrated(
        run, str(trained), "--prompts", str(data), "--strong-rate", "0.1", "--output", str(tmp_path / "other")
    )
    assert told["saved"] == str(tmp_path / "other")
    assert load_router(tmp_path / "other").threshold == told["threshold"]
    assert load_router(trained).threshold == before


def test_plain_words_and_what_to_be_wary_of(run: Run, data: Path, trained: Path, tmp_path: Path) -> None:
    status, out, err = run("calibrate", "random", "--prompts", str(data), "--strong-rate", "0.3")
    assert status == 0
    assert "about 30.0%" in out or "about 29.9%" in out
    assert "95 % of the time" in out
    assert "nothing is saved" in err
    assert "to be within 5% takes about" in err
    few = tmp_path / "few.txt"
    few.write_text("".join(f"{row['prompt']}\n" for row in rows(12)))
    status, _, err = run("calibrate", "random", "--prompts", str(few), "--strong-rate", "0.02")
    assert (status, err) == (
        1,
        "prefroute: 12 prompts cannot tell a strong-call rate of 0.02 from 0; give 49 or more\n",
    )
    training = write(tmp_path / "training.csv", rows(seed=1))
    _, _, err = run("calibrate", str(trained), "--prompts", str(training), "--strong-rate", "0.3")
    assert "the router learnt from 400 of these 400 prompts" in err


def test_a_quality_is_kept(run: Run, data: Path) -> None:
    told = calibrated(run, "prompt-length", "--prompts", str(data), "--quality", "0.8", *SIDES)
    table = rows()
    scores = PromptLengthRouter().win_probability([row["prompt"] for row in table])
    kept = np.where(scores >= told["threshold"], 1, [row["small"] for row in table]).mean()
    assert kept == pytest.approx(told["quality"])
    assert told["quality"] >= told["quality_wanted"] == 0.8
    assert told["strong_rate"] < 0.7
    _, out, _ = run("calibrate", "prompt-length", "--prompts", str(data), "--quality", "0.8", *SIDES)
    assert "with 95 % confidence at least 80.0%" in out
    everything = calibrated(run, "prompt-length", "--prompts", str(data), "--quality", "1", *SIDES)
    assert (everything["threshold"], everything["low"], everything["strong_rate"]) == (0.0, 1.0, 1.0)


def test_a_budget_is_kept(run: Run, data: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"gpt": {"input": 10, "output": 30}, "mini": {"input": 1, "output": 2}}))
    names = ("--strong", "gpt", "--weak", "mini")  # not columns: nothing of the answers need be known
    arguments = ("prompt-length", "--prompts", str(data), "--budget", "3")
    tokens = ("--input-tokens", "100", "--output-tokens", "200")
    told = calibrated(run, *arguments, *names, "--prices", str(prices), *tokens)
    assert told["cost"] <= 0.003
    assert told["cost"] == pytest.approx(0.0005 + told["sample_rate"] * 0.0065)
    status, _, err = run("calibrate", *arguments, *names, *tokens)
    assert status == 1
    assert "there is no price of 'gpt' nor of 'mini'; prices: none; give --prices" in err
    status, _, err = run("calibrate", *arguments[:-1], "0.1", *names, "--prices", str(prices), *tokens)
    assert "1,000 requests cost $0.5 at the least, above the budget of $0.1" in err


def test_probabilities_are_mapped_and_decisions_stay(run: Run, data: Path, trained: Path) -> None:
    calibrated(run, str(trained), "--prompts", str(data), "--strong-rate", "0.3")
    before = load_router(trained)
    told = calibrated(run, str(trained), "--prompts", str(data), "--probabilities", *SIDES)
    assert told["probabilities"]["ece_after"] <= told["probabilities"]["ece_before"] + 0.02
    after = load_router(trained)
    assert isinstance(after, CalibratedRouter)
    prompts = [row["prompt"] for row in rows(seed=5)]
    assert routes(before, prompts) == routes(after, prompts)
    again = calibrated(run, str(trained), "--prompts", str(data), "--probabilities", "--strong-rate", "0.2", *SIDES)
    assert again["strong_rate"] == pytest.approx(0.2, abs=0.05)
    _, out, _ = run("calibrate", str(trained), "--prompts", str(data), "--probabilities", *SIDES)
    assert "expected calibration error" in out


def routes(router: Router, prompts: list[str]) -> list[str]:
    return [decision.route for decision in router.route_batch(prompts)]


def test_a_quality_is_kept_on_prompts_that_the_router_did_not_learn_from(
    run: Run, data: Path, trained: Path, tmp_path: Path
) -> None:
    both = write(tmp_path / "both.csv", [*rows(seed=1)[:100], *rows()])
    status, out, err = run("calibrate", str(trained), "--prompts", str(both), "--quality", "0.8", *SIDES, "--json")
    assert status == 0
    assert json.loads(out)["n"] == 400
    assert "the router learnt from 100 prompts; they are left out" in err
    only = write(tmp_path / "only.csv", rows(seed=1))
    status, _, err = run("calibrate", str(trained), "--prompts", str(only), "--quality", "0.8", *SIDES)
    assert status == 1
    assert "the router learnt from every one of these prompts" in err


def test_models_the_wrong_way_round_are_told(run: Run, data: Path, trained: Path) -> None:
    swapped = ("--strong", "small", "--weak", "big")
    status, _, err = run("calibrate", str(trained), "--prompts", str(data), "--quality", "0.9", *swapped)
    assert (status, err) == (
        2,
        "prefroute: the router was trained with big as the strong model; --strong and --weak are swapped\n",
    )
    status, _, err = run("calibrate", "random", "--prompts", str(data), "--quality", "0.9", *swapped)
    assert status == 1
    assert "small does worse here than big" in err
    _, _, err = run("evaluate", str(trained), "--data", str(data), *swapped, "--resamples", "20")
    assert "mine was trained with big as the strong model; are --strong and --weak swapped?" in err


def test_probabilities_that_need_no_map_leave_the_router_as_it_is(run: Run, tmp_path: Path) -> None:
    router = PromptLengthRouter(slope=2.0)
    router.save_pretrained(tmp_path / "mine")
    generator = np.random.default_rng(0)
    table = []
    for length in generator.integers(20, 3000, 300).tolist():
        won = generator.random() < router.win_probability(["x" * length])[0]
        table.append({"prompt": "x" * length, "big": int(won), "small": int(not won)})
    file = write(tmp_path / "judged.csv", table)
    status, out, _ = run("calibrate", str(tmp_path / "mine"), "--prompts", str(file), "--probabilities", *SIDES)
    assert status == 0
    assert "no map is better: scores stay as they are" in out
    assert isinstance(load_router(tmp_path / "mine"), PromptLengthRouter)


def test_labels_of_a_map_count_as_learnt(run: Run, data: Path, trained: Path) -> None:
    calibrated(run, str(trained), "--prompts", str(data), "--probabilities", *SIDES)
    assert isinstance(load_router(trained), CalibratedRouter)
    _, out, _ = run("evaluate", str(trained), "--data", str(data), *SIDES, "--resamples", "20", "--json", "-")
    assert json.loads(out)["routers"]["mine"]["n_overlap"] == 400


def test_probabilities_alone_keep_the_rate_that_was_calibrated(
    run: Run, data: Path, trained: Path, tmp_path: Path
) -> None:
    sample = write(tmp_path / "sample.csv", rows(200, seed=9))
    asked = [row["prompt"] for row in rows(200, seed=9)]
    for rate in ("0.5", "0.1"):
        calibrated(run, str(trained), "--prompts", str(sample), "--strong-rate", rate)
        before = routes(load_router(trained), asked)
        calibrated(run, str(trained), "--prompts", str(data), "--probabilities", *SIDES)
        loaded = load_router(trained)
        assert routes(loaded, asked) == before
        assert loaded.calibration is not None
        assert len(loaded.calibration) == 200


def test_what_stands_in_the_way_loses_no_router(run: Run, data: Path, trained: Path) -> None:
    before = load_router(trained).win_probability(["Why?"])
    (trained / "router").write_text("in the way")
    status, _, err = run("calibrate", str(trained), "--prompts", str(data), "--probabilities", *SIDES)
    assert status == 1
    assert "cannot write the router" in err
    assert load_router(trained).win_probability(["Why?"]) == before


def test_a_folder_called_default_is_not_the_bundled_router(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    PromptLengthRouter(slope=3.0).save_pretrained("default")
    _, _, err = run("calibrate", "default", "--prompts", str(data), "--strong-rate", "0.3")
    assert "nothing is saved" in err
    assert load_router(tmp_path / "default").calibration is None


def test_a_foreign_folder_is_not_written_over(run: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"model_type": "bert"}')
    arguments = ("calibrate", "random", "--prompts", str(data), "--strong-rate", "0.3", "--output")
    status, _, err = run(*arguments, str(tmp_path / "foreign"))
    assert status == 2
    assert "is not empty and holds no saved router" in err


def test_a_router_called_as_a_baseline_does_not_stand_in_for_it(
    run: Run, data: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained.rename(tmp_path / "random")
    arguments = ("--data", str(data), *SIDES, "--resamples", "20", "--json", "-")
    _, out, _ = run("evaluate", str(tmp_path / "random"), *arguments)
    assert list(json.loads(out)["routers"])[:2] == [str(tmp_path / "random"), "random"]
    _, out, _ = run("evaluate", "random", *arguments)  # as load_router does, the folder first
    assert list(json.loads(out)["routers"])[:2] == ["./random", "random"]


def test_json_goes_into_a_pipe_and_through_a_link(run: Run, data: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("before")
    link.symlink_to(target)
    arguments = ("evaluate", "random", "--data", str(data), *SIDES, "--resamples", "20", "--json")
    assert run(*arguments, str(link))[0] == 0
    assert link.is_symlink()
    assert json.loads(target.read_text())["n"] == 400
    status, out, _ = run(*arguments, os.devnull)
    assert (status, Path(os.devnull).is_char_device()) == (0, True)
    assert "random" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say what to calibrate for"),
        (("--strong-rate", "0.3", "--strong", "big", "--input-tokens", "3"), "--input-tokens, --strong says nothing"),
        (("--quality", "0.9", *SIDES, "--input-tokens", "3"), "--input-tokens says nothing without --budget"),
        (("--strong-rate", "0.3", "--budget", "1"), "give one of --strong-rate, --quality or --budget, got 2 of them"),
        (("--strong-rate", "30"), "for 30 % pass 0.3"),
        (("--quality", "0.9"), "need --strong and --weak"),
        (("--quality", "90", *SIDES), "for 90 % pass 0.9"),
        (("--budget", "-5", *SIDES), "--budget must be US dollars for 1,000 requests, above 0; got -5"),
        (("--strong-rate", "0.3", "--prompt-column", "question"), "Name the column with --prompt-column"),
    ],
)
def test_what_makes_no_sense_is_one_line(run: Run, data: Path, arguments: tuple[str, ...], words: str) -> None:
    status, out, err = run("calibrate", "random", "--prompts", str(data), *arguments)
    assert status != 0
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


@needs_data
def test_half_of_mmlu_lands_within_the_interval_on_the_other_half(run: Run, tmp_path: Path) -> None:
    from prefroute.evaluation.benchmarks import read_mmlu

    prompts = read_mmlu(DATA / "routellm/mmlu").prompts
    order = np.random.default_rng(7).permutation(len(prompts))[:6000]
    half = write(tmp_path / "half.csv", [{"prompt": prompts[place]} for place in order[::2]])
    told = calibrated(run, "default", "--prompts", str(half), "--strong-rate", "0.3")
    scores = load_router().win_probability([prompts[place] for place in order[1::2]])
    assert told["low"] <= (scores >= told["threshold"]).mean() <= told["high"]
