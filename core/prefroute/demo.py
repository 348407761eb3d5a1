"""The material of `prefroute demo`: prompts, and what an adapter's own `demo` module gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefroute.types import RoutingDecision

PROMPTS = (
    "What is the capital of Australia?",
    "Hi! How are you today?",
    "Translate 'good morning' into Spanish.",
    "Give me three synonyms for 'happy'.",
    "How many days are there in a leap year?",
    "Write a short thank-you note to my neighbour who watered the plants.",
    "What's a good recipe for banana bread?",
    "Who wrote Pride and Prejudice?",
    "Suggest a name for a golden retriever puppy.",
    "Turn this into a bullet list: eggs, milk, flour and butter.",
    "What does HTTP status 404 mean?",
    "A tray holds 12 rolls and I need 30 rolls. How many trays do I have to bake?",
    "Summarise the plot of Romeo and Juliet in two sentences.",
    "Prove that there are infinitely many primes congruent to 3 modulo 4.",
    "Implement a lock-free multi-producer queue in C++ and explain the memory ordering of every atomic operation.",
    (
        "A 62-year-old on warfarin with new atrial fibrillation starts amiodarone. Which interaction matters most, "
        "and how should the dose change?"
    ),
    "Derive the Black-Scholes equation from a delta-hedging argument and state every assumption it needs.",
    "Under the parol evidence rule, when may a court admit testimony that contradicts a fully integrated contract?",
    "Why does my asyncio server leak file descriptors when clients disconnect in the middle of TLS handshakes?",
    "Compare Kant's and Mill's likely answers to the trolley problem, and find the weakest premise of each.",
    "Is the ring of Gaussian integers modulo 5 a field? Decide, and describe its ideals.",
    (
        "A uniform rod of length L is hinged at one end and released from horizontal. Find its angular acceleration "
        "as a function of the angle."
    ),
    (
        "Design a database schema for a multi-tenant booking system that must survive the loss of a region, and argue "
        "for the consistency level of each table."
    ),
    "Write a regular expression that matches balanced parentheses, or prove that none exists.",
    "Explain to a graduate student why the Lasso selects variables and ridge regression does not.",
)
"""Prompts written for the demo: the first half easy, the second half hard, over several domains."""


@dataclass(frozen=True)
class AdapterRun:
    """Prompts routed through one framework.

    Attributes:
        framework: Its name, and what in it was used.
        decisions: One a prompt, in order.
        answers: One a prompt, in order.
        strong_rate: Strong-call rate as the framework's own callback handler counted it.
        in_earnest: The lines of a program that does it with real models, after what to install for it.
    """

    framework: str
    decisions: list[RoutingDecision]
    answers: list[str]
    strong_rate: float
    in_earnest: tuple[str, ...] = ()
