"""`prefroute train`, from files to a saved router."""

import csv
import gzip
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefroute import load_router
from prefroute.data import read_responses
from prefroute.embedding import SurfaceEmbedder
from prefroute.embedding.cache import CachedEmbedder
from prefroute.errors import EmbeddingError, PrefrouteError
from prefroute.evaluation.metrics import apgr
from prefroute.evaluation.validation import Validation
from prefroute.routers.baselines import PromptLengthRouter
from prefroute.types import ModelPair

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PREFROUTE_DATA", ROOT / "../shared/data"))

Run = Callable[..., tuple[int, str, str]]

HARD = [f"Prove rigorously, with every step, theorem number {n} about prime numbers." for n in range(60)]
EASY = [f"Say hello number {n} to my friend." for n in range(60)]
MODELS = ("big", "small", "tiny")


def battle_rows(prompts: list[str] = [*HARD, *EASY]) -> list[dict[str, Any]]:  # noqa: B006 - never changed
    """Big beats the others on hard prompts alone; every pair meets on every prompt."""
    generator = np.random.default_rng(1)
    rows = []
    for prompt in prompts:
        for a, b in (("big", "small"), ("tiny", "big"), ("small", "tiny")):
            lead = MODELS.index(b) - MODELS.index(a)
            chance = 0.5 + 0.2 * lead if prompt in HARD else 0.5
            winner = "model_a" if generator.random() < chance else "model_b"
            rows.append({"prompt": prompt, "model_a": a, "model_b": b, "winner": winner})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


PAIR = ("--strong", "big", "--weak", "tiny")


def beyond_length(err: str) -> str:
    """What else is on stderr: the hard prompts are the longer ones, so that length alone may tell them."""
    return "".join(line for line in err.splitlines(keepends=True) if "prompt length alone does as well" not in line)


@pytest.fixture
def battles(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "battles.csv", battle_rows())


KINDS = {
    "similarity-weighted": [],
    "matrix-factorization": ["--learning-rate", "0.003"],
    "knn": [],
    "logistic-regression": [],
    "prompt-length": [],
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_trained_saved_and_told(run: Run, battles: Path, tmp_path: Path, kind: str) -> None:
    output = tmp_path / "new" / "router"
    status, out, err = run("train", kind, "--data", str(battles), *PAIR, "--output", str(output), *KINDS[kind])
    assert (status, beyond_length(err)) == (0, "")
    lines = {line[:10].strip(): line[10:] for line in out.splitlines()}
    assert lines["read"] == f"{battles}: 360 of 360 rows, as fastchat"
    told = f"{kind} from 360 battles over 120 prompts between 3 models; 120 between big and tiny"
    assert told in lines["learnt"]
    assert lines["saved"] == str(output)
    assert lines["try"] == f"prefroute route --router {output} 'Why is the sky blue?'"
    router: Any = load_router(output)
    assert router.router_type == kind
    assert router.pair == ModelPair(strong="big", weak="tiny")
    assert lines["threshold"].startswith(f"{router.threshold:.4f}: about half of prompts like these go to big")
    hard = [decision.is_strong for decision in router.route_batch(HARD)]
    easy = [decision.is_strong for decision in router.route_batch(EASY)]
    assert np.mean(hard) > np.mean(easy) + 0.5
    status, out, err = run("route", "--json", "--router", str(output), HARD[0])
    assert (status, json.loads(out)["route"], err) == (0, "strong", "")


def test_the_summary_as_json_and_what_was_not_used(run: Run, tmp_path: Path) -> None:
    rows = [*battle_rows(), {"prompt": "Too short.", "model_a": "big", "model_b": "tiny", "winner": "tie"}]
    rows += [{"prompt": HARD[0], "model_a": "big", "model_b": "tiny", "winner": "nobody"}] * 2
    path = write_jsonl(tmp_path / "battles.jsonl.gz", rows)
    arguments = ["train", "prompt-length", "--data", str(path), *PAIR, "--output", str(tmp_path / "r")]
    status, out, err = run(*arguments, "--json")
    assert (status, err) == (0, "")
    summary = json.loads(out)
    assert summary["router_type"] == "prompt-length"
    assert summary["files"] == [{"file": str(path), "format": "fastchat", "rows": 363, "kept": 361, "bad": 2}]
    assert summary["bad_rows"]["count"] == 2
    assert [row["line"] for row in summary["bad_rows"]["first"]] == [362, 363]
    assert sum(summary["dropped"].values()) == 1
    pair = summary["pair"]
    assert (pair["strong"], pair["weak"], pair["battles"], pair["prompts"]) == ("big", "tiny", 120, 120)
    labels = pair["labels"]
    assert labels["strong_better"] + labels["weak_better"] == 120
    assert labels["tie"] == 0
    assert labels["strong_share"] == labels["strong_better"] / 120
    assert summary["warnings"] == []
    assert summary["held_out"] is None
    assert (summary["battles"], summary["prompts"], summary["models"]) == (360, 120, 3)
    assert summary["learnt"]["slope"] > 0
    assert summary["threshold"] == load_router(tmp_path / "r").threshold
    status, out, _ = run(*arguments)
    assert status == 0
    assert "unusable  2 x " in out
    assert f"{path}:362: " in out
    assert "dropped   1 battles: " in out
    status, _, err = run(*arguments, "--on-bad-row", "raise")
    assert status == 1
    assert f"{path}, line 362: " in err
    assert "--on-bad-row" in err
    status, out, _ = run(*arguments, "--min-characters", "0", "--json")
    assert json.loads(out)["battles"] == 361


def test_columns_and_outcomes_can_be_named_and_a_glob_can_follow(run: Run, tmp_path: Path) -> None:
    codes = {"model_a": 1, "model_b": 2}
    rows = [
        {"question": row["prompt"], "left": row["model_a"], "right": row["model_b"], "vote": codes[row["winner"]]}
        for row in battle_rows()
    ]
    paths = [write_csv(tmp_path / f"part{n}.csv", rows[n::3]) for n in range(3)]
    named = ["--prompt-column", "question", "--model-a-column", "left", "--model-b-column", "right"]
    named += ["--outcome-column", "vote", "--outcome", "1=1", "--outcome", "2=0"]
    status, out, err = run(
        "train", "prompt-length", "--data", *map(str, paths), *PAIR, *named, "--output", str(tmp_path / "r"), "--json"
    )
    assert (status, err) == (0, "")
    summary = json.loads(out)
    assert [file["file"] for file in summary["files"]] == [str(path) for path in paths]
    assert summary["pair"]["battles"] == 120
    plain = write_csv(tmp_path / "plain.csv", battle_rows())
    run("train", "prompt-length", "--data", str(plain), *PAIR, "--output", str(tmp_path / "plain"))
    assert load_router(tmp_path / "r").win_probability(HARD) == pytest.approx(
        load_router(tmp_path / "plain").win_probability(HARD)
    )


def test_a_response_table_is_recognised_by_the_two_names(run: Run, tmp_path: Path) -> None:
    rows = [{"prompt": p, "big": 1, "tiny": int(p in EASY), "other": "x"} for p in [*HARD, *EASY]]
    path = write_csv(tmp_path / "responses.csv", rows)
    status, out, err = run(
        "train", "similarity-weighted", "--data", str(path), *PAIR, "--output", str(tmp_path / "r"), "--json"
    )
    assert (status, beyond_length(err)) == (0, "")
    summary = json.loads(out)
    assert summary["files"][0]["format"] == "responses"
    assert summary["pair"]["battles"] == 120
    router = load_router(tmp_path / "r")
    assert router.win_probability(HARD).min() > router.win_probability(EASY).max()


@pytest.mark.parametrize(
    ("arguments", "learnt", "attributes"),
    [
        (
            ["similarity-weighted", "--base", "50", "--centred", "yes", "--tiers", "2", "--index-dtype", "int8"],
            {"base": 50.0, "centred": True, "index": {"prompts": 120, "dimensions": 265, "dtype": "int8"}},
            {"base": 50.0, "num_tiers": 2},
        ),
        (
            ["similarity-weighted", "--seed", "3", "--base", "10", "--centred", "no", "--embedder", "static"],
            {"base": 10.0, "centred": False, "index": {"prompts": 120, "dimensions": 256, "dtype": "float32"}},
            {"seed": 3},
        ),
        (
            ["matrix-factorization", "--published", "--epochs", "2", "--folds", "2", "--ties", "half"],
            {"epochs": [2, 2], "ties_dropped": 0, "prompts_held_out": 120},
            {},
        ),
        (["matrix-factorization", "--published", "--epochs", "1"], {"epochs": [1], "ties_dropped": 120}, {}),
        (["matrix-factorization", "--epochs", "40", "--learning-rate", "0.1"], {"ties_dropped": 0}, {}),
        (["knn", "--neighbours", "7"], {"neighbours": 7}, {"k": 7}),
        (["knn", "--neighbours", "5", "--neighbours", "6", "--index-dtype", "bfloat16"], {}, {}),
    ],
)
def test_options_reach_the_router(
    run: Run, tmp_path: Path, arguments: list[str], learnt: dict[str, Any], attributes: dict[str, Any]
) -> None:
    rows = battle_rows()
    ties = [{**row, "winner": "tie"} for row in rows[::3]]
    path = write_csv(tmp_path / "battles.csv", [*rows, *ties])
    status, out, err = run("train", *arguments, "--data", str(path), *PAIR, "--output", str(tmp_path / "r"), "--json")
    assert (status, beyond_length(err)) == (0, "")
    assert learnt.items() <= json.loads(out)["learnt"].items()
    router = load_router(tmp_path / "r")
    assert {name: getattr(router, name) for name in attributes} == attributes


def test_the_base_can_be_chosen_and_a_pair_be_tiers(run: Run, battles: Path, tmp_path: Path) -> None:
    several = ["--base", "2", "--base", "1000", "--centred", "choose"]
    output = str(tmp_path / "r")
    pair = ["--strong", "tier 1", "--weak", "tier 3"]
    status, out, err = run(
        "train", "similarity-weighted", "--data", str(battles), *pair, *several, "--output", output, "--json"
    )
    assert (status, beyond_length(err)) == (0, "")
    summary = json.loads(out)
    assert summary["learnt"]["base"] in {2.0, 1000.0}
    unknown = {"battles": None, "prompts": None, "labels": None}
    assert summary["pair"] == {"strong": "tier 1", "weak": "tier 3", **unknown}
    status, out, _ = run("train", "similarity-weighted", "--data", str(battles), *pair, "--output", output)
    assert (status, "about half of prompts like these go to tier 1" in out) == (0, True)


def test_many_files_are_summed_up(run: Run, tmp_path: Path) -> None:
    rows = battle_rows()
    paths = [str(write_csv(tmp_path / f"part{n}.csv", rows[n::9])) for n in range(9)]
    status, out, _ = run("train", "prompt-length", "--data", *paths, *PAIR, "--output", str(tmp_path / "r"))
    assert status == 0
    assert sum(line.startswith("read ") for line in out.splitlines()) == 6
    assert "... 9 files in all: 360 of 360 rows" in out


def test_votes_of_several_judges_are_kept_apart_by_their_column(run: Run, tmp_path: Path) -> None:
    rows = [{**row, "judge": judge} for row in battle_rows() for judge in ("x", "y")]
    path = write_csv(tmp_path / "battles.csv", rows)
    arguments = ["train", "prompt-length", "--data", str(path), *PAIR, "--output", str(tmp_path / "r"), "--json"]
    found = [
        json.loads(run(*arguments, *more)[1])["battles"]
        for more in ([], ["--source-column", "judge"], ["--keep-duplicates"])
    ]
    assert found == [360, 720, 720]


def test_embeddings_are_cached_and_the_router_saved_without_the_cache(run: Run, battles: Path, tmp_path: Path) -> None:
    cache = tmp_path / "embeddings.sqlite"
    arguments = ["train", "knn", "--data", str(battles), *PAIR, "--embedder", "static", "--cache", str(cache)]
    assert run(*arguments, "--output", str(tmp_path / "one"))[0] == 0
    size = cache.stat().st_size
    assert size > 0
    assert run(*arguments, "--output", str(tmp_path / "two"))[0] == 0
    assert cache.stat().st_size == size
    cache.unlink()
    one, two = (load_router(tmp_path / name).win_probability(EASY) for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)
    assert not cache.exists()


def test_only_models_are_cached_and_the_surface_is_that_of_the_training_prompts(
    run: Run, battles: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "embeddings.sqlite"
    arguments = ["train", "knn", "--data", str(battles), *PAIR, "--embedder", "static+surface", "--cache", str(cache)]
    assert run(*arguments, "--output", str(tmp_path / "r"))[0] == 0
    embedder = load_router(tmp_path / "r").embedder  # type: ignore[attr-defined]
    assert embedder.parts[1] == SurfaceEmbedder.fitted([*HARD, *EASY])
    assert CachedEmbedder(embedder.parts[0], cache).size().rows == 121  # and the word it was tried on


def test_training_again_replaces_the_router(run: Run, battles: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "r")
    assert run("train", "knn", "--data", str(battles), *PAIR, "--output", output)[0] == 0
    assert run("train", "prompt-length", "--data", str(battles), *PAIR, "--output", output)[0] == 0
    assert load_router(output).router_type == "prompt-length"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--strong", "big", "--output", "OUT"], 2, "Missing option '--weak'"),
        (["--strong", "big", "--weak", "big", "--output", "OUT"], 2, "must differ, got 'big' twice"),
        ([*PAIR], 2, "Missing option '--output'"),
        ([*PAIR, "--output", "FULL"], 2, "is not empty and holds no saved router"),
        ([*PAIR, "--output", "FILE"], 2, "is a file; name a folder"),
        ([*PAIR, "--output", "FILE/below"], 2, "cannot be written"),
        ([*PAIR, "--output", "OUT", "--outcome", "win"], 2, "--outcome must be VALUE=P"),
        ([*PAIR, "--output", "OUT", "--outcome", "win=much"], 2, "--outcome must be VALUE=P"),
        ([*PAIR, "--output", "OUT", "--outcome", "=1"], 2, "--outcome must be VALUE=P"),
        ([*PAIR, "--output", "OUT", "--outcome", "win=1.5"], 2, "--outcome must be VALUE=P"),
        ([*PAIR, "--output", "OUT", "--outcome", "win=nan"], 2, "--outcome must be VALUE=P"),
        ([*PAIR, "--output", "LINK"], 2, "is a link to what is not there"),
        ([*PAIR, "--output", "LINK/below"], 2, "is a link to what is not there"),
        ([*PAIR, "--output", "OUT", "--margin", "1"], 2, "--margin is for response tables"),
        ([*PAIR, "--output", "OUT", "--outcome", "big=1", "--outcome", "tiny=0"], 2, "'big', which is the name of a m"),
        ([*PAIR, "--output", "OUT", "--outcome", "1=1", "--on-bad-row", "raise"], 1, "or say with --outcome VALUE=P"),
        ([*PAIR, "--output", "OUT", "--outcome", "1=1"], 1, "Say what they mean: --outcome 'model_a'=P"),
        ([*PAIR, "--output", "OUT", "--tiers", "2", "--cache", "x"], 2, "--cache goes with --embedder"),
        ([*PAIR, "--output", "OUT", "--format", "odd"], 2, "format must be one of"),
        ([*PAIR, "--output", "OUT", "--on-bad-row", "weep"], 2, "--on-bad-row"),
        ([*PAIR, "--output", "OUT", "--data", "nowhere.csv"], 2, "nowhere.csv"),
        (
            ["--strong", "big", "--weak", "tine", "--output", "OUT"],
            2,
            "--weak 'tine' is none of the 3 models in the data; near it: tiny",
        ),
        (
            ["--strong", "BIG", "--weak", "tiny", "--output", "OUT"],
            2,
            "--strong 'BIG' is none of the 3 models in the d",
        ),
        ([*PAIR, "--output", "OUT", "--prompt-column", "ask"], 1, "Correct --prompt-column"),
        ([*PAIR, "--output", "OUT", "--min-characters", "5000"], 1, "all 360 battles are shorter than 5000"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    run: Run, battles: Path, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    places = {"OUT": tmp_path / "out", "FULL": tmp_path / "full", "FILE": battles}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    places |= {"FILE/below": battles / "below", "LINK": tmp_path / "link", "LINK/below": tmp_path / "link" / "below"}
    filled = [str(places.get(item, item)) for item in arguments]
    for kind in ("similarity-weighted",) if "--tiers" in filled else ("prompt-length", "similarity-weighted"):
        got, out, err = run("train", kind, "--data", str(battles), *filled)
        assert (got, out) == (status, ""), err
        assert err.startswith("prefroute: ")
        assert message in err
        assert err.count("\n") == 1
        assert len(err.replace(str(tmp_path), "")) < 300
        assert not any(argument in err for argument in ("columns=", "on_bad_row=", "format=", "models="))
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_no_data_is_told(run: Run, tmp_path: Path) -> None:
    status, out, err = run("train", "knn", *PAIR, "--output", str(tmp_path / "r"))
    assert (status, out, err) == (2, "", "prefroute: no data: name at least one file with --data\n")


@pytest.mark.parametrize(
    ("kind", "extra", "missing", "message"),
    [
        ("matrix-factorization", [], "torch", "prefroute[train]"),
        ("logistic-regression", [], "sklearn", "pip install scikit-learn is enough"),
        ("knn", ["--embedder", "sentence-transformers:some/model"], "sentence_transformers", "prefroute[sentence-"),
        ("knn", ["--embedder", "openai:some-model"], "openai", "prefroute[openai]"),
    ],
)
def test_a_missing_extra_is_told_before_the_data_are_read(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    extra: list[str],
    missing: str,
    message: str,
) -> None:
    unreadable = tmp_path / "data.csv"
    unreadable.write_text("no,known,format\n1,2,3\n")
    monkeypatch.setitem(sys.modules, missing, None)
    status, out, err = run("train", kind, "--data", str(unreadable), *PAIR, "--output", str(tmp_path / "r"), *extra)
    assert (status, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["static+nonsense", "nonsense"])
def test_an_unknown_embedder_is_told(run: Run, battles: Path, tmp_path: Path, name: str) -> None:
    output = str(tmp_path / "r")
    status, _, err = run("train", "knn", "--data", str(battles), *PAIR, "--output", output, "--embedder", name)
    assert status == 2
    assert "'nonsense'" in err


def test_an_interrupt_while_training_leaves_nothing(
    run: Run, battles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PromptLengthRouter, "fit", interrupt)
    status, out, err = run("train", "prompt-length", "--data", str(battles), *PAIR, "--output", str(tmp_path / "r"))
    assert (status, out, err) == (130, "", "prefroute: interrupted\n")
    assert not (tmp_path / "r").exists()


def test_random_is_told_to_need_no_training(run: Run, battles: Path, tmp_path: Path) -> None:
    for arguments in ([], ["--data", str(battles), *PAIR, "--output", str(tmp_path / "r")], ["--help"]):
        status, out, err = run("train", "random", *arguments)
        assert (status, out) == (2, "")
        assert "need no training (--router random)" in err
    assert "  random" not in run("train", "--help")[1]


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        (
            [{"prompt": "q" * 20, "GPT-big": 1, "gpt-small": 0}],
            [],
            "no column 'gpt-big'; columns: 'prompt', 'GPT-big', 'gpt-small'; did you mean GPT-big?",
        ),
        (
            [{"question": "q", "model_a": "gpt-big", "model_b": "gpt-small", "winner": "a"}],
            [],
            "it has: 'question', 'model_a', 'model_b', 'winner'. Name it with --prompt-column",
        ),
        ([{"x": 1, "y": 2}], [], "fit no known format: 'x', 'y'. Battles need prompt, model_a, model_b, winner (name"),
        (
            [{"prompt": "q", "model_a": "x", "model_b": "y", "winner": "tie", "outcome": 1.0}],
            [],
            "its columns fit battles and fastchat; say which with --format",
        ),
        (
            [{"prompt": "q", "model_a": "x", "model_b": "y", "vote": vote} for vote in "LLLRRRR"],
            ["--outcome-column", "vote"],
            "7 of 7 rows say 'R' (4) or 'L' (3), which is not understood. Say what they mean: --outcome 'R'=P",
        ),
    ],
)
def test_tables_that_cannot_be_read_are_told_in_options(
    run: Run, tmp_path: Path, rows: list[dict[str, Any]], arguments: list[str], message: str
) -> None:
    path = write_csv(tmp_path / "data.csv", rows)
    pair = ["--strong", "gpt-big", "--weak", "gpt-small", "--output", str(tmp_path / "r")]
    status, out, err = run("train", "knn", "--data", str(path), *pair, *arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert len(err.replace(str(tmp_path), "")) < 300
    assert not any(argument in err for argument in ("columns=", "values=", "format=", "models="))


def test_labels_are_told_and_a_margin_makes_ties(run: Run, tmp_path: Path) -> None:
    rows = [{"prompt": p, "big": 8 + n % 3, "tiny": 8} for n, p in enumerate([*HARD, *EASY])]
    path = write_csv(tmp_path / "scores.csv", rows)
    arguments = ["train", "prompt-length", "--data", str(path), *PAIR, "--output", str(tmp_path / "r")]
    for more, wanted in (
        ([], "big better 80, tie 40, tiny better 0"),
        (["--margin", "1"], "big better 40, tie 80, tiny better 0"),
    ):
        status, out, err = run(*arguments, *more)
        assert (status, err) == (0, "")
        assert f"labels    {wanted}\n" in out


def test_labels_of_weighted_votes_are_sums_of_weights(run: Run, tmp_path: Path) -> None:
    rows = [
        {"prompt": p, "model_a": "tiny", "model_b": "big", "outcome": n % 2, "weight": 1.5 - n % 2}
        for n, p in enumerate([*HARD, *EASY])
    ]
    path = write_csv(tmp_path / "votes.csv", rows)
    arguments = ["train", "prompt-length", "--data", str(path), *PAIR, "--output", str(tmp_path / "r")]
    assert "labels    big better 90, tie 0, tiny better 30\n" in run(*arguments)[1]
    labels = json.loads(run(*arguments, "--json")[1])["pair"]["labels"]
    assert labels == {"strong_better": 90.0, "tie": 0.0, "weak_better": 30.0, "strong_share": 0.75}


def pair_rows(outcomes: list[str], prompts: list[str]) -> list[dict[str, Any]]:
    return [
        {"prompt": p, "model_a": "big", "model_b": "tiny", "winner": outcomes[n % len(outcomes)]}
        for n, p in enumerate(prompts)
    ]


@pytest.mark.parametrize(
    ("rows", "warnings"),
    [
        (pair_rows(["tie"], [*HARD, *EASY]), ["all 120 battles of the pair tie", "all prompts get the same score"]),
        (pair_rows(["a"], [*HARD, *EASY]), ["big wins all 120 battles of the pair"]),
        (pair_rows(["tiny"], [*HARD, *EASY]), ["tiny wins all 120 battles", "are --strong and --weak swapped?"]),
        (
            pair_rows(["b", "tie", "b", "a"], [*HARD, *EASY]),
            ["big does worse than tiny in their battles; are --strong"],
        ),
        (pair_rows(["a", "tie", "a", "b"], HARD), ["only 60 prompts compare the pair"]),
    ],
)
def test_labels_that_teach_little_are_warned_of(
    run: Run, tmp_path: Path, rows: list[dict[str, Any]], warnings: list[str]
) -> None:
    path = write_csv(tmp_path / "votes.csv", rows)
    arguments = ["train", "prompt-length", "--data", str(path), *PAIR, "--output", str(tmp_path / "r")]
    status, out, err = run(*arguments, "--json")
    assert status == 0
    told = json.loads(out)["warnings"]
    assert [f"prefroute: warning: {warning}" for warning in told] == err.splitlines()
    for warning in warnings:
        assert any(warning in line for line in told), told
    assert len(told) == len(warnings) or "wins all" in warnings[0]


def told_of(run: Run, battles: Path, folder: Path, validation: Validation | None) -> tuple[list[str], Any]:
    """The `held out` lines and their JSON, of a router that is made to carry this validation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptLengthRouter, "validation", validation, raising=False)
        arguments = ["train", "prompt-length", "--data", str(battles), *PAIR, "--output", str(folder)]
        lines = run(*arguments)[1].splitlines()
        summary = json.loads(run(*arguments, "--json")[1])
    start = next((n for n, text in enumerate(lines) if text.startswith("held out")), None)
    return [] if start is None else [text[10:] for text in lines[start : start + 2]], summary["held_out"]


@pytest.mark.parametrize(
    ("apgr_and_ends", "verdict", "key"),
    [
        ((0.672, 0.61, 0.73), "better than random", "better"),
        (
            (0.52, 0.44, 0.60),
            "cannot be told from random with 198 prompts; prompt length alone does as well",
            "unknown",
        ),
        ((0.40, 0.33, 0.47), "worse than random; prompt length alone does as well", "worse"),
        ((0.581, 0.53, 0.63), "better than random; prompt length alone does as well", "better"),
        ((1.51, 1.03, 3.97), "better than random", "better"),
    ],
)
def test_what_prompts_that_were_kept_out_say(
    run: Run, battles: Path, tmp_path: Path, apgr_and_ends: tuple[float, float, float], verdict: str, key: str
) -> None:
    area, low, high = apgr_and_ends
    validation = Validation(prompts=198, apgr=area, low=low, high=high, length_apgr=0.581)
    lines, held_out = told_of(run, battles, tmp_path / "r", validation)
    figures = f"APGR {area:.3f} ({low:.2f} to {high:.2f}) on 198 prompts kept out; random 0.500, prompt length 0.581"
    assert lines[0] == f"{figures}: {verdict}"
    assert "share of the quality gap recovered" in lines[1]
    assert ("above 1" in lines[1]) == (area > 1)
    wanted = {"prompts": 198, "apgr": area, "low": low, "high": high, "length_apgr": 0.581, "against_random": key}
    assert held_out == wanted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptLengthRouter, "validation", validation, raising=False)
        err = run("train", "prompt-length", "--data", str(battles), *PAIR, "--output", str(tmp_path / "r"))[2]
    assert ("warning: prompt length alone does as well" in err) == (area <= 0.581)


def test_what_prompts_that_were_kept_out_cannot_say(run: Run, battles: Path, tmp_path: Path) -> None:
    assert told_of(run, battles, tmp_path / "r", None) == ([], None)
    unknown = Validation(prompts=7, apgr=None, low=None, high=None, length_apgr=None)
    lines, held_out = told_of(run, battles, tmp_path / "r", unknown)
    assert lines[0] == "not measured: big does no better than tiny on the 7 prompts kept out"
    assert held_out["apgr"] is None


def test_ratings_and_tiers_are_numbers_by_model(run: Run, battles: Path, tmp_path: Path) -> None:
    arguments = ["train", "similarity-weighted", "--data", str(battles), *PAIR, "--output", str(tmp_path / "r")]
    learnt = json.loads(run(*arguments, "--json")[1])["learnt"]
    assert learnt["tiers"] == {"big": 1, "small": 2, "tiny": 3}
    assert learnt["ratings"]["big"] > learnt["ratings"]["small"] > learnt["ratings"]["tiny"]
    out = run(*arguments)[1]
    assert "tiers: big 1, tiny 3\n" in out
    assert "index: prompts 120, dimensions 265, dtype float32\n" in out


def test_training_that_ends_too_early_is_told(run: Run, battles: Path, tmp_path: Path) -> None:
    arguments = ["train", "matrix-factorization", "--data", str(battles), *PAIR, "--output", str(tmp_path / "r")]
    err = run(*arguments, "--epochs", "2")[2]
    limit = "prefroute: warning: stopped at the limit of 2 epochs while still improving; raise --epochs\n"
    assert beyond_length(err) == limit
    assert beyond_length(run(*arguments, "--published", "--epochs", "2")[2]) == ""


def test_a_fault_in_the_summary_leaves_no_router(
    run: Run, battles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        msg = "a fault"
        raise PrefrouteError(msg)

    monkeypatch.setattr("prefroute.cli._summary._lines", fail)
    status, out, err = run("train", "prompt-length", "--data", str(battles), *PAIR, "--output", str(tmp_path / "r"))
    assert (status, out, err) == (1, "", "prefroute: a fault\n")
    assert not (tmp_path / "r").exists()


def test_scores_that_cannot_be_tried_do_not_lose_the_router(
    run: Run, battles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        msg = "the network is down"
        raise EmbeddingError(msg)

    def fit(*arguments: Any, **options: Any) -> PromptLengthRouter:
        router = learn(*arguments, **options)
        monkeypatch.setattr(PromptLengthRouter, "win_probability", fail)
        return router

    learn = PromptLengthRouter.fit
    monkeypatch.setattr(PromptLengthRouter, "fit", fit)
    status, _, err = run("train", "prompt-length", "--data", str(battles), *PAIR, "--output", str(tmp_path / "r"))
    assert (status, err) == (0, "prefroute: warning: its scores could not be tried: the network is down\n")
    assert load_router(tmp_path / "r").router_type == "prompt-length"


def test_help_names_every_kind_and_option(run: Run) -> None:
    for arguments in (["train"], ["train", "--help"]):
        status, out, err = run(*arguments)
        assert (status, err) == (0, "")
        assert all(f"\n  {kind} " in out for kind in KINDS)
    for kind in KINDS:
        status, out, _ = run("train", kind, "-h")
        assert status == 0
        assert all(option in out for option in ("--data FILE...", "--strong NAME", "--weak NAME", "--output DIR"))
        assert ("--embedder" in out) == (kind != "prompt-length")
        assert max(map(len, out.splitlines())) <= 120


def test_showing_help_loads_no_heavy_package() -> None:
    code = """
import sys
from prefroute.cli import main
sys.argv = ["prefroute", "train", "similarity-weighted", "--help"]
try:
    main()
except SystemExit:
    pass
print(sorted({"torch", "transformers", "openai", "pandas", "pyarrow", "sklearn"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data folder, or PREFROUTE_DATA")
def test_golden_labels_of_mmlu_beat_a_coin_and_the_length_of_the_prompt(run: Run, tmp_path: Path) -> None:
    strong, weak = "gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1"
    files = sorted((DATA / "routellm" / "mmlu").glob("mmlu_*.csv"))
    table = read_responses([str(file) for file in files], (strong, weak), on_bad_row="skip")
    order = np.random.default_rng(0).permutation(len(table))
    rows = [
        {"prompt": table.prompts[i], strong: q[table.models.index(strong)], weak: q[table.models.index(weak)]}
        for i in order
        for q in [table.quality[i]]
    ]
    path = write_csv(tmp_path / "labels.csv", rows[:1500])
    test = rows[1500:4500]
    gains = np.array([row[strong] - row[weak] for row in test])
    prompts = [str(row["prompt"]) for row in test]
    found = {}
    for kind in ("similarity-weighted", "prompt-length"):
        output = str(tmp_path / kind)
        status, _, err = run("train", kind, "--data", str(path), "--strong", strong, "--weak", weak, "--output", output)
        assert (status, err) == (0, "")
        router = load_router(output)
        found[kind] = apgr(router.win_probability(prompts), gains)
        rate = np.mean([decision.is_strong for decision in router.route_batch(prompts)])
        assert rate == pytest.approx(0.5, abs=0.06)
    assert found["prompt-length"] > 0.54
    assert found["similarity-weighted"] > found["prompt-length"] + 0.015


@pytest.mark.parametrize(("turn", "prompts"), [("first", 1), ("last", 30)])
def test_the_turn_that_is_the_prompt_can_be_chosen(run: Run, tmp_path: Path, turn: str, prompts: int) -> None:
    dialogue = "### Human: Tell me something about numbers. ### Assistant: Gladly. ### Human: "
    rows = [
        {
            "prompt": f"{dialogue}And now about number {n}? ### Assistant:",
            "model_a": "big",
            "model_b": "tiny",
            "winner": w,
        }
        for n in range(30)
        for w in ("model_a", "model_b")
    ]
    data = write_jsonl(tmp_path / "dialogues.jsonl", rows)
    done = run(
        "train", "prompt-length", "--data", str(data), *PAIR, "--turn", turn, "--json", "--output", str(tmp_path / "r")
    )
    assert done[0] == 0, done
    assert json.loads(done[1])["prompts"] == prompts


def test_what_a_killed_save_left_and_the_cache_do_not_fill_the_output(run: Run, battles: Path, tmp_path: Path) -> None:
    output = tmp_path / "r"
    (output / ".saving-abc").mkdir(parents=True)
    (output / ".saving-abc" / "config.json").write_text("{}")
    for name in ("cache.sqlite", "cache.sqlite-journal"):
        (output / name).touch()
    arguments = ["train", "knn", "--data", str(battles), *PAIR, "--output", str(output), "--embedder", "static"]
    status, _, err = run(*arguments)
    assert (status, "is not empty" in err) == (2, True)
    (output / "cache.sqlite-journal").unlink()
    status, _, err = run(*arguments, "--cache", str(output / "cache.sqlite"))
    assert (status, beyond_length(err)) == (0, "")
    assert load_router(output).router_type == "knn"


def test_a_cache_with_nothing_to_keep_is_refused(run: Run, battles: Path, tmp_path: Path) -> None:
    arguments = ["train", "knn", "--data", str(battles), *PAIR, "--output", str(tmp_path / "r")]
    status, _, err = run(*arguments, "--embedder", "length", "--cache", str(tmp_path / "c"))
    assert (status, "--cache has nothing to keep: length only looks at the text" in err) == (2, True)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weight-column", "w"], "a column of weight (--weight-column) does not apply"),
        (["--source-column", "w"], "a column of source (--source-column) does not apply"),
        (["--outcome", "a=1"], "values= (--outcome) does not apply"),
        (["--outcome-column", "w", "--format", "responses"], "a column of outcome (--outcome-column) does not apply"),
    ],
)
def test_options_of_battles_are_refused_for_responses(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    path = write_csv(tmp_path / "r.csv", [{"prompt": p, "big": 1, "tiny": 0, "w": 2} for p in HARD])
    given = ["train", "prompt-length", "--data", str(path), *PAIR, "--output", str(tmp_path / "r"), *arguments]
    status, out, err = run(*given)
    assert (status, out) == (2, "")
    assert message in err


def test_names_are_trimmed_and_the_command_to_try_can_be_pasted(run: Run, battles: Path, tmp_path: Path) -> None:
    output = tmp_path / "a  b"
    pair = ["--strong", " big ", "--weak", "tiny"]
    status, out, err = run("train", "prompt-length", "--data", str(battles), *pair, "--output", str(output))
    assert (status, err) == (0, "")
    command = next(line[10:] for line in out.splitlines() if line.startswith("try"))
    assert shlex.split(command)[3] == str(output)


def test_a_damaged_file_ends_the_command(run: Run, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "rows.csv", battle_rows()).read_bytes()
    path = tmp_path / "cut.csv"
    path.write_bytes(rows + b'"open,big,tiny,model_a\r\nnext,big,tiny,model_a\r\n')
    arguments = ["train", "prompt-length", "--data", str(path), *PAIR, "--output", str(tmp_path / "r")]
    status, out, err = run(*arguments, "--on-bad-row", "skip")
    assert (status, out) == (1, "")
    assert f"{path}: the file is damaged from line 362 on: lines 362 to 363 are lost" in err
    assert "cut it off there" in err
    assert not (tmp_path / "r").exists()


def test_control_characters_of_a_file_do_not_reach_the_terminal(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("prompt,\x1b[31mred\x07,\x1b[31mred\x07\n1,2,3\n")
    arguments = ["train", "prompt-length", "--data", str(path), *PAIR, "--output", str(tmp_path / "r")]
    status, _, err = run(*arguments)
    assert (status, "[31mred" in err) == (1, True)
    assert "\x1b" not in err
    assert "\x07" not in err
