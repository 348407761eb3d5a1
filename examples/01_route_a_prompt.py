"""Route prompts with the bundled default router: no model, no key, no download."""

from prefroute import RoutingStats, load_router

PROMPTS = [
    "What is the capital of Australia?",
    "Suggest a name for a golden retriever puppy.",
    "Prove that there are infinitely many primes congruent to 3 modulo 4.",
    "Which interaction matters most when a patient on warfarin starts amiodarone?",
]

router = load_router()
stats = RoutingStats()

for prompt, decision in zip(PROMPTS, router.route_batch(PROMPTS, stats=stats), strict=True):
    print(f"{decision.score:.3f} {decision.route:6} {prompt}")
print(f"\nstrong-call rate at the router's own threshold {router.threshold:.3f}: {stats.strong_rate:.0%}")

for threshold in (0.0, 0.5, 1.1):
    at_threshold = RoutingStats()
    router.route_batch(PROMPTS, threshold, stats=at_threshold)
    print(f"strong-call rate at {threshold}: {at_threshold.strong_rate:.0%}")
