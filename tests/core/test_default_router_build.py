"""What `scripts/build_default_router.py` is made of, the router it writes, and that what it wrote belongs together."""

import importlib
import json
import os
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from prefroute import load_router
from prefroute.data import prompt_key
from prefroute.embedding import StaticEmbedder
from prefroute.embedding.registry import BUNDLED
from prefroute.evaluation import apgr
from prefroute.persistence import DEFAULT_ROUTER

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PREFROUTE_DATA", ROOT / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the shared data are not at {DATA}; set PREFROUTE_DATA")
RECORD = json.loads((DEFAULT_ROUTER / "training.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def part(name: str) -> ModuleType:
    assert str(ROOT / "scripts") in sys.path
    return importlib.import_module(f"default_router.{name}")


@cache
def small_corpus() -> Any:
    """MT-Bench, Arena and OpenAssistant: quick to read and to embed."""
    sources = part("sources")
    read = [
        sources.read_mt_bench(DATA / "routellm/mt_bench"),
        sources.read_arena_hard(DATA / "battles/arena_hard.jsonl.gz"),
        sources.read_open_assistant(DATA / "battles/qlora_oa.jsonl.gz"),
    ]
    return read, part("validation").corpus(read, StaticEmbedder.from_pretrained(BUNDLED))


def candidate_named(name: str) -> Any:
    (found,) = [candidate for candidate in part("candidates").all_candidates() if candidate.name == name]
    return found


def test_text_is_cut_down_to_what_a_person_asks() -> None:
    sources = part("sources")
    assert sources.without_choices("Which is prime?\nA. 4\nB. 7\nC. 8\nD. 9\nAnswer:") == "Which is prime?"


def test_the_fit_finds_what_separates_and_not_the_source() -> None:
    candidates = part("candidates")
    generator = np.random.default_rng(1)
    design = generator.normal(size=(400, 3))
    sources = np.arange(400) % 2
    design[:, 2] += 5 * sources  # tells the source and nothing else
    outcomes = (design[:, 0] > 0) * 0.4 + sources * 0.5
    sums = [candidates.Sums.of(design[sources == i], outcomes[sources == i]) for i in (0, 1)]
    weights, bias = candidates.fit(sums, candidates.Candidate("embedding", "every prompt the same", 1.0))
    assert weights[0] > 0.1
    assert abs(weights[2]) < 0.02
    # Where a source lies as a whole changes nothing.
    moved = [candidates.Sums.of(design[sources == i] + 3.0 * i + 1.0, outcomes[sources == i]) for i in (0, 1)]
    again, _ = candidates.fit(moved, candidates.Candidate("embedding", "every prompt the same", 1.0))
    np.testing.assert_allclose(again, weights, rtol=0, atol=1e-9)
    # The score is right for a prompt that is as likely from either.
    assert np.mean([(design[sources == i] @ weights + bias).mean() for i in (0, 1)]) == pytest.approx(
        np.mean([outcomes[sources == i].mean() for i in (0, 1)])
    )


@pytest.mark.parametrize(
    ("shares", "of_the_small"),
    [("every prompt the same", 0.1), ("sources by sqrt(prompts)", 0.25), ("every source the same", 0.5)],
)
def test_a_source_weighs_as_its_shares_say(shares: str, of_the_small: float) -> None:
    candidates = part("candidates")
    generator = np.random.default_rng(2)
    sums = []
    for count, slope in ((9000, 0.0), (1000, 1.0)):
        design = generator.normal(size=(count, 1))
        sums.append(candidates.Sums.of(design, slope * design[:, 0]))
    (weight,), _ = candidates.fit(sums, candidates.Candidate("embedding", shares, 0.0))
    assert weight == pytest.approx(of_the_small, abs=0.03)


def test_sums_of_parts_add_up_to_sums_of_the_whole() -> None:
    candidates = part("candidates")
    design, outcomes = np.random.default_rng(3).random((10, 2)), np.random.default_rng(4).random(10)
    whole = candidates.Sums.of(design, outcomes)
    added = candidates.Sums.of(design[:3], outcomes[:3]) + candidates.Sums.of(design[3:], outcomes[3:])
    for name in ("count", "x", "y", "xx", "xy"):
        np.testing.assert_allclose(getattr(added, name), getattr(whole, name))


def test_the_simpler_has_fewer_features_then_a_stronger_ridge_then_plainer_weights() -> None:
    candidates = part("candidates")
    found = sorted(candidates.all_candidates(), key=lambda candidate: candidate.simplicity)
    assert [candidate.name for candidate in (found[0], found[1], found[3], found[9])] == [
        "embedding, every prompt the same, ridge 100",
        "embedding, sources by sqrt(prompts), ridge 100",
        "embedding, every prompt the same, ridge 30",
        "embedding and length, every prompt the same, ridge 100",
    ]


def test_quantiles_count_every_weight() -> None:
    quantile = part("validation").weighted_quantile
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 8.0, 1.0])
    assert [quantile(values, weights, share) for share in (0.5, 0.85, 1.0)] == [1.0, 2.0, 3.0]


def test_the_curve_is_found_again_and_true_probabilities_are_as_far_off_as_chance_says() -> None:
    calibration = part("calibration")
    generator = np.random.default_rng(5)
    scores = generator.normal(size=20_000)
    chances = 1 / (1 + np.exp(-(2.0 * scores - 0.5)))
    outcomes = (generator.random(20_000) < chances).astype(float)
    curve = calibration.fit_curve(scores, outcomes, np.ones(20_000))
    assert curve == pytest.approx((2.0, -0.5), abs=0.1)
    true, wrong = (calibration.reliability(p, outcomes, np.ones(20_000)) for p in (chances, chances**2))
    assert 0.3 < true["error"] / true["error_by_chance"] < 2.5
    assert wrong["error"] > 5 * wrong["error_by_chance"]
    assert true["predicted"] == pytest.approx(true["observed"], abs=0.01)


def test_a_prompt_weighs_in_the_reliability_what_it_is_given() -> None:
    chances, outcomes = np.array([0.2, 0.8, 0.5]), np.array([0.0, 1.0, 1.0])
    found = part("calibration").reliability(chances, outcomes, np.array([1.0, 1.0, 0.0]))
    assert (found["predicted"], found["observed"], found["error"]) == (0.5, 0.5, 0.2)


def test_scores_that_fall_with_the_outcome_get_no_curve() -> None:
    scores = np.linspace(-1, 1, 50)
    with pytest.raises(RuntimeError, match="no rising logistic curve"):
        part("calibration").fit_curve(scores, (scores < 0.2) * 0.8 + 0.1, np.ones(50))


def test_a_probability_is_held_out_from_its_own_curve() -> None:
    calibration = part("calibration")
    scores = np.random.default_rng(6).normal(size=40)
    outcomes, folds = (scores > 0) * 0.6 + 0.2, np.arange(40) % 2
    before = calibration.cross_fitted(scores, outcomes, np.ones(40), folds)
    outcomes[folds == 1] = 0.3 + 0.4 * (scores[folds == 1] > 1)
    after = calibration.cross_fitted(scores, outcomes, np.ones(40), folds)
    np.testing.assert_array_equal(before[folds == 1], after[folds == 1])
    assert (before[folds == 0] != after[folds == 0]).all()


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("What is 2 + 2?", 0),
        ("12 + 7", 0),
        ("", 0),
        ("¿Qué es esto?", 1),
        ("Что это? (API)", 2),
        ("这是什么 API?", 3),
        ("これは何", 3),
        ("이것은", 3),
        ("ما هذا", 4),
        ("यह क्या है", 4),
    ],
)
def test_the_script_of_a_text_is_that_of_most_letters(text: str, script: int) -> None:
    languages = part("languages")
    assert languages.script_of(text) == languages.SCRIPTS[script]


def test_int8_rows_times_their_scales_are_the_vectors() -> None:
    vectors = np.random.default_rng(2).normal(size=(5, 8)).astype(np.float32)
    vectors[3] = 0.0
    rows, scales = part("distil").quantised(vectors)
    assert rows.dtype == np.int8
    assert np.abs(rows * scales[:, None] - vectors).max() <= np.abs(vectors).max() / 127


@needs_data
def test_the_sources_are_read_whole_and_without_contaminated_prompts() -> None:
    sources = part("sources")
    read = sources.read_training_sources(DATA)
    assert {
        name: len(s.prompts) for s in read if (name := s.name) in sources.EXPECTED_COUNTS
    } == sources.EXPECTED_COUNTS
    for source in read:
        assert len(source.prompts) == len(source.gains) == len(source.outcomes)
        assert source.outcomes.min() >= 0
        assert source.outcomes.max() <= 1
        assert source.outcomes.mean() > 0.5
    mmlu, gsm8k = read[0], read[1]
    assert mmlu.gains.mean() == pytest.approx(0.8059 - 0.6809, abs=1e-4)
    assert gsm8k.gains.mean() == pytest.approx(0.8577 - 0.6373, abs=1e-4)
    assert read[2].gains.mean() == pytest.approx(9.212 - 8.281, abs=2e-3)
    trained = {prompt_key(prompt) for source in read for prompt in source.prompts}
    alpaca = sources.read_alpaca_eval(DATA / "battles/alpaca_eval.jsonl.gz", trained)
    assert len(alpaca.prompts) > 500
    assert not trained & {prompt_key(prompt) for prompt in alpaca.prompts}


@needs_data
def test_what_is_scored_is_never_fitted_on() -> None:
    validation = part("validation")
    _, data = small_corpus()
    candidate = candidate_named(RECORD["chosen"])
    held_out = validation.out_of_fold(data, [candidate] * validation.FOLDS)
    unseen = validation.left_out(data, [candidate] * 3)
    for rows, before, score in (
        (data.folds == 2, held_out, lambda d: validation.out_of_fold(d, [candidate] * validation.FOLDS)),
        (data.sources == 1, unseen, lambda d: validation.left_out(d, [candidate] * 3)),
    ):
        other = replace(data, outcomes=np.where(rows, 1.0 - data.outcomes, data.outcomes))
        np.testing.assert_array_equal(score(other)[rows], before[rows])
        assert not np.array_equal(score(other), before)


@needs_data
def test_the_choice_is_the_simplest_that_is_not_told_from_the_best() -> None:
    choice = part("validation").choose(small_corpus()[1], (0, 1, 2), (0, 1))
    assert choice.behind[choice.best][0] == 0.0
    distance, error = choice.behind[choice.chosen]
    assert distance <= error
    for candidate, (behind, its_error) in choice.behind.items():
        assert candidate.simplicity >= choice.chosen.simplicity or behind > its_error


def test_a_prompt_in_two_sources_is_refused() -> None:
    validation, sources = part("validation"), part("sources")
    twice = [sources.Source(name, ["Why?", name], np.zeros(2), np.full(2, 0.5)) for name in "ab"]
    with pytest.raises(ValueError, match="in two sources"):
        validation.corpus(twice, StaticEmbedder.from_pretrained(BUNDLED))


@needs_data
def test_the_card_says_of_the_shipped_router_on_alpaca_eval_what_is_measured_again() -> None:
    sources, build = part("sources"), importlib.import_module("build_default_router")
    router = load_router()
    found = build.evaluate_alpaca(DATA, sources.read_training_sources(DATA), router)
    assert found == RECORD["alpaca_eval"]
    card = (DEFAULT_ROUTER / "README.md").read_text(encoding="utf-8")
    assert f"| AlpacaEval | {found['chosen']['apgr']:.3f} (" in card


@needs_data
def test_the_shipped_weights_are_of_the_chosen_candidate() -> None:
    (_, arena, _), _ = small_corpus()
    router: Any = load_router()
    fits = apgr(router.win_probability(arena.prompts), arena.gains)
    assert fits > RECORD["held_out"]["arena_hard"]["apgr"]
    embedder = part("validation").embedder_of(RECORD["chosen"].split(",")[0], StaticEmbedder.from_pretrained(BUNDLED))
    np.testing.assert_array_equal(router.embedder.embed(arena.prompts), embedder.embed(arena.prompts))


def test_the_bundled_readme_says_what_was_measured() -> None:
    assert (DEFAULT_ROUTER / "README.md").read_text(encoding="utf-8") == part("report").render(RECORD)


def test_held_out_it_is_never_worse_than_random_or_prompt_length_beyond_noise() -> None:
    for figures in (RECORD["held_out"], RECORD["held_out_chosen_anew"]):
        for name, figure in figures.items():
            assert figure["interval"][1] >= 0.5, name
            assert figure["over_length"]["interval"][1] >= 0.0, name


def test_on_the_mix_it_is_off_by_hardly_more_than_chance() -> None:
    mix = RECORD["calibration"]["mean"]
    assert mix["error"] <= 1.5 * mix["error_by_chance"]
    assert mix["predicted"] == pytest.approx(mix["observed"], abs=0.005)


def test_the_card_names_where_it_is_worse() -> None:
    render, record = part("report").render, json.loads(json.dumps(RECORD))
    record["held_out"]["gsm8k"]["interval"] = [0.4, 0.49]
    assert "**worse on: GSM8K.**" in render(record)
    assert "**worse on: GSM8K.**" not in render(RECORD)


def test_the_projects_readme_quotes_what_was_measured() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, unseen in RECORD["one_source_left_out"].items():
        both = RECORD["held_out"][name], unseen
        cells = [f"{f['apgr']:.3f} ({f['interval'][0]:.3f} to {f['interval'][1]:.3f})" for f in both]
        assert f" | {' | '.join(cells)} |" in readme, name
    low, high = RECORD["alpaca_eval"]["chosen"]["interval"]
    assert f"| AlpacaEval | | {RECORD['alpaca_eval']['chosen']['apgr']:.3f} ({low:.3f} to {high:.3f}) |" in readme


def test_the_bundled_files_are_small_and_name_no_machine() -> None:
    files = [path for path in DEFAULT_ROUTER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}
    for path in files:
        if path.name in {"config.json", "training.json", "README.md"}:
            text = path.read_text(encoding="utf-8")
            assert not any(word in text for word in ("/tmp", "/home", "/work", "site-packages", "://"))
