"""Measure a router on judged prompts, set its threshold by a strong-call rate, and see whether traffic stays the same.

Needs nothing beside prefroute. The labels are made up; yours say how good both models' answers were, prompt by prompt.
On the command line: `prefroute evaluate --help` and `prefroute calibrate --help`; docs/evaluation.md and
docs/calibration.md say what the figures promise.
"""

import numpy as np

from prefroute import ModelPair
from prefroute.data import read_battles
from prefroute.decider import Ask, Decider
from prefroute.evaluation.benchmarks import read_benchmark
from prefroute.evaluation.evaluate import evaluate
from prefroute.routers.similarity_weighted import SimilarityWeightedRouter

topics = ("bread", "chess", "comets", "jazz", "maps", "rain", "rivers", "roses", "taxes", "tea")
# How often both models are right on such prompts.
right = {"Name {} facts on {}.": (0.9, 0.85), "List {} books on {}.": (0.9, 0.8), "Prove {} laws of {}.": (0.9, 0.4)}
draw, pair = np.random.default_rng(0), ModelPair(strong="big", weak="small")
rows = [
    {"prompt": ask.format(n, topic), **dict(zip(("big", "small"), draw.binomial(1, chances).tolist(), strict=True))}
    for ask, chances in right.items()
    for topic in topics
    for n in range(3, 73)
]
rows = [rows[place] for place in draw.permutation(len(rows))]
labels = read_battles(rows[:600], models=["big", "small"])
router = SimilarityWeightedRouter.fit(labels, pair=pair)

# Does it beat chance, and the baselines? On prompts that it did not learn from.
test = read_benchmark(rows[600:1200], pair, name="judged prompts")
found = evaluate({"mine": router}, test, training=labels)
for name, result in found.results.items():
    figures = result.figures
    if figures is not None:
        ends = f"{figures.apgr_low:.3f} to {figures.apgr_high:.3f}"
        print(f"{name:14} APGR {figures.apgr:.3f} ({ends}), beats random: {figures.better_than_random}")

# 30 % strong calls, by prompts alone; the interval is for the next 450 prompts.
sample, traffic = ([str(row["prompt"]) for row in part] for part in (rows[1200:1650], rows[1650:]))
calibrated = router.calibrate(sample, 0.3, next_prompts=len(traffic))
print(f"threshold {calibrated.threshold:.3f}: {calibrated.low:.1%} to {calibrated.high:.1%} of {len(traffic)} strong")

decider = Decider.of(router, strong_rate=0.3)  # what RoutedChatModel and RoutedLLM hold
for texts in (traffic, [f"Refute claim {n} about {topic}, step by step." for topic in topics for n in range(3)]):
    decider.stats.reset()
    decider.decide_batch([Ask(text=text) for text in texts])
    seen = decider.stats.drift()
    if seen is not None:
        print(f"{seen.n} prompts, {seen.strong_rate:.1%} strong; e-value {seen.e_value:.3g}, drifted: {seen.drifted}")
