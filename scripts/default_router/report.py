"""The README beside the bundled files, rendered from what the build measured."""

from __future__ import annotations

from typing import Any

TITLES = {
    "mmlu": "MMLU",
    "gsm8k": "GSM8K",
    "mt_bench": "MT-Bench",
    "arena_hard": "Arena, hard prompts",
    "open_assistant": "OpenAssistant",
    "mean": "mean of the five",
}

PAGE = """\
# The bundled default router

What `prefroute.load_router()` loads. Written by `scripts/build_default_router.py`, this page too; every figure is also
in `training.json`.

* **Embedding** (`embedder/`): all-MiniLM-L6-v2 distilled with model2vec to one vector of {dimensions} numbers a token;
  {tokens:,} tokens share {rows:,} int8 rows. English for the most part.
* **Router** (`config.json`, `router.safetensors`): {chosen}.
  For one pair of models that is a ridge logistic regression on the embedding{length}. Ties are trained
  as 0.5. Each source has its own intercept, so that the weights learn what is hard within a source rather than which
  source a prompt is from.
* **Default threshold**: the median held-out score with the sources counted equally.
* **Training prompts** (`training_prompts.safetensors`): a hash of each, so that evaluation can leave them out.

## Trained on
| source | prompts | strong / weak | labels | mean outcome | licence |
|---|---|---|---|---|---|
{source_rows}

Contaminated prompts are left out as RouteLLM does. Votes are turned into outcomes by Bradley-Terry abilities of the
models: a vote counts where the abler model is expected to win at least {min_expected_win:.0%} of the time, and a
prompt's outcome is the mean over its votes. OpenAssistant votes count where both presentation orders agree; the prompt
is the last human turn. A source of n prompts weighs sqrt(n). Nothing from AlpacaEval was used for training or choosing.

## Held-out figures
Average performance gap recovered (APGR; random routing gets .500), {folds}-fold cross-validation with equal prompts
kept together, 95 % intervals from {resamples:,} resamples of the prompts.

| | {candidate_header} |
|---|{candidate_rule}|
{figure_rows}

{verdicts}

MMLU with the options left out of the prompt, as people would ask it: {plain:.3f}.

### Every candidate
APGR of each source and their mean. The rule, fixed in the build script: the simplest matrix factorization (leaning
least on length) that cannot be told from the best candidate. The best was: {best}.
It is ahead by {ahead:.3f} ({ahead_low:+.3f} to {ahead_high:+.3f}).

The figures of the chosen one are slightly optimistic: it was chosen by them, and the rule and the few settings compared
were settled after trials on the same prompts (figures on AlpacaEval were seen then, and decided nothing). The weaker
use of length was put among them because with the full one nearly every one of 25 everyday chat prompts of our own fell
below the threshold for being short.

| candidate | {all_header} |
|---|{all_rule}|
{all_rows}

### On a source that it never saw
| | APGR, trained on the other four |
|---|---|
{left_out_rows}
| AlpacaEval ({alpaca_prompts} prompts, GPT-4 Turbo against Mixtral; trained on all five) | {alpaca} |
| the same by prompt length alone | {alpaca_length} |

### What the small embedding costs
| embedding | mean APGR | shipped minus this, 95 % interval |
|---|---|---|
{cost_rows}
| int8, {rows:,} rows (shipped) | {shipped_mean:.3f} | |

## Limits
* It was trained on answers of models of 2023 and 2024 (GPT-4 Turbo against Mixtral, and older ones). For another pair
  the order of prompts may still help; the scores are no longer probabilities.
* On kinds of prompts that it was not trained on, expect little: see the tables above.
  {random_limits}
* Share of held-out prompts that the default threshold sends to the strong model: {shares}.
  Your traffic will have another share; short prompts score low. Calibrate the threshold on your own prompts.
* Text outside the embedding's vocabulary (many scripts, most emoji) is scored by its length alone, if at all.
* A router trained on your own traffic is likely to do better.

## Licence and sources
The files are Apache-2.0, computed from: RouteLLM (lm-sys/RouteLLM, Apache-2.0: MMLU, GSM8K and MT-Bench labels);
FastChat (Apache-2.0) with prompts of Chatbot Arena (CC BY 4.0), changed as told above; QLoRA (artidoro/qlora, MIT:
GPT-4 votes on OpenAssistant prompts); all-MiniLM-L6-v2 (Apache-2.0). No text of these is included but the vocabulary
of the tokenizer.
"""

SOURCES = {
    "mmlu": ("GPT-4 Turbo / Mixtral 8x7B", "right or wrong", "Apache-2.0 (RouteLLM)"),
    "gsm8k": ("GPT-4 Turbo / Mixtral 8x7B", "right or wrong", "Apache-2.0 (RouteLLM)"),
    "mt_bench": ("GPT-4 Turbo / Mixtral 8x7B", "GPT-4's scores, both turns", "Apache-2.0 (RouteLLM)"),
    "arena_hard": ("29 models", "people's votes", "Apache-2.0 (FastChat), prompts CC BY 4.0"),
    "open_assistant": ("7 models", "GPT-4's votes", "MIT (qlora)"),
}


def render(training: dict[str, Any]) -> str:
    """The page.

    Args:
        training: What `training.json` holds.

    Returns:
        Markdown.
    """
    rows = {row["name"]: row for row in training["candidates"]}
    chosen = rows[training["chosen"]]
    shown = {"this router": chosen, "prompt length alone": rows["prompt length"]}
    embedding, alpaca, ahead = training["embedding"], training["alpaca_eval"], training["best_minus_chosen"]
    left_out = training["one_source_left_out"]
    return PAGE.format(
        **{key: embedding[key] for key in ("dimensions", "tokens", "rows")},
        **{key: training[key] for key in ("chosen", "min_expected_win", "folds", "resamples", "best")},
        length="" if "no length" in training["chosen"] else " and the log length of the prompt",
        source_rows=_source_rows(training["sources"]),
        candidate_header=" | ".join(shown),
        candidate_rule="|".join("---" for _ in shown),
        figure_rows=_lines(
            [title, *(_figure(row["figures"][name]) for row in shown.values())] for name, title in TITLES.items()
        ),
        verdicts=_verdicts(chosen["figures"], training["chosen_minus_length"]),
        plain=chosen["mmlu_questions_only"],
        ahead=ahead["apgr"],
        ahead_low=ahead["interval"][0],
        ahead_high=ahead["interval"][1],
        all_header=" | ".join(TITLES.values()),
        all_rule="|".join("---" for _ in TITLES),
        all_rows=_lines(
            [_marked(name, training), *(f"{row['figures'][key]['apgr']:.3f}" for key in TITLES)]
            for name, row in rows.items()
        ),
        left_out_rows=_lines([title, _figure(left_out[name])] for name, title in TITLES.items()),
        alpaca_prompts=alpaca["prompts"],
        alpaca=_figure(alpaca["chosen"]),
        alpaca_length=_figure(alpaca["prompt length"]),
        cost_rows=_lines(
            [name, f"{row['mean']:.3f}", _range(row["shipped_minus_this"], sign=True)]
            for name, row in embedding["cost"].items()
        ),
        shipped_mean=chosen["figures"]["mean"]["apgr"],
        random_limits=_not_above_random({TITLES[name]: left_out[name] for name in SOURCES}, alpaca["chosen"]),
        shares=", ".join(
            f"{TITLES[name]} {share:.0%}" for name, share in training["strong_share_at_threshold"].items()
        ),
    )


def _verdicts(figures: dict[str, Any], over_length: dict[str, Any]) -> str:
    """Plain words on where it beats random, and whether it beats prompt length."""
    above = [TITLES[name] for name in SOURCES if figures[name]["interval"][0] > 0.5]  # noqa: PLR2004 - random
    unsure = [TITLES[name] for name in SOURCES if TITLES[name] not in above]
    text = f"Better than random beyond the interval on: {', '.join(above) or 'none'}."
    if unsure:
        text += f" **Not told apart from random on: {', '.join(unsure)}.**"
    value, (low, high) = over_length["apgr"], over_length["interval"]
    sure = "beyond the interval" if low > 0 else "which the interval does not settle"
    return f"{text} On the mean it is {value:+.3f} over prompt length ({low:+.3f} to {high:+.3f}), {sure}."


def _not_above_random(left_out: dict[str, Any], alpaca: dict[str, Any]) -> str:
    named = {**left_out, "AlpacaEval": alpaca}
    weak = [name for name, figure in named.items() if figure["interval"][0] <= 0.5]  # noqa: PLR2004 - random
    worse = [name for name, figure in named.items() if figure["interval"][1] < 0.5]  # noqa: PLR2004 - random
    text = f"Never having seen them, it does not beat random beyond the interval on: {', '.join(weak) or 'none'}."
    return text + (f" **On {', '.join(worse)} it is worse than random.**" if worse else "")


def _source_rows(sources: dict[str, Any]) -> str:
    return _lines(
        [TITLES[name], f"{row['prompts']:,}", pair, labels, f"{row['mean_outcome']:.2f}", licence]
        for name, row in sources.items()
        for pair, labels, licence in [SOURCES[name]]
    )


def _marked(name: str, training: dict[str, Any]) -> str:
    return f"**{name}**" if name == training["chosen"] else name


def _figure(figure: dict[str, Any]) -> str:
    return f"{figure['apgr']:.3f} ({_range(figure['interval'])})"


def _range(bounds: list[float], *, sign: bool = False) -> str:
    low, high = (f"{bound:+.3f}" if sign else f"{bound:.3f}" for bound in bounds)
    return f"{low} to {high}"


def _lines(rows: Any) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
