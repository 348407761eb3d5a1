"""Train a router on one's own labels, and set its threshold for a strong-call rate.

Needs scikit-learn. The labels here are made up; yours say whose answer was better, prompt by prompt.
"""

from tempfile import TemporaryDirectory

import numpy as np
from sklearn.linear_model import LogisticRegression

from prefroute import RoutingStats, load_router
from prefroute.routers.matrix_factorization import MatrixFactorizationRouter

topics = ["bread", "Paris", "cats", "tea", "rain", "chess", "jazz", "maps", "roses", "trains", "cheese", "stars"]
easy = [f"Name a nice fact about {topic}, version {n}." for topic in topics for n in range(20)]
hard = [f"Prove a theorem about {topic} and criticise proof {n}." for topic in topics for n in range(20)]
prompts = np.array(easy + hard)
# 1: the strong model's answer was better, 0: the weak one's, 0.5: a tie.
outcome = np.array([0.5, 0.0, 0.5, 0.5] * 60 + [1.0, 1.0, 0.5, 1.0] * 60)

# Split by prompt: the threshold is chosen on prompts that training did not see.
order = np.random.default_rng(0).permutation(len(prompts))
train, held_out = order[:400], order[400:]

# For one pair of models, matrix factorization is logistic regression on the embedding. A tie counts as half a win.
embedder = MatrixFactorizationRouter.from_pretrained().embedder
rows = embedder.embed(prompts[train].tolist())
model = LogisticRegression(C=10).fit(
    np.vstack([rows, rows]),
    np.repeat([1, 0], len(rows)),
    sample_weight=np.concatenate([outcome[train], 1 - outcome[train]]),
)
router = MatrixFactorizationRouter(embedder=embedder, weights=model.coef_[0], bias=float(model.intercept_[0]))

# 30 % strong calls: the 70 % quantile of the scores of prompts like those to come.
router.threshold = float(np.quantile(router.win_probability(prompts[held_out].tolist()), 0.7))

stats = RoutingStats()
with TemporaryDirectory() as folder:  # in production a folder of your own
    router.save_pretrained(folder)
    load_router(folder).route_batch(prompts[held_out].tolist(), stats=stats)
print(f"threshold {router.threshold:.3f}, strong-call rate {stats.strong_rate:.0%} on {stats.total} held-out prompts")
