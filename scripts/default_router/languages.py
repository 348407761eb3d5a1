"""What becomes of text that is not English: held-out prompts by their script, and some texts of every kind."""

from __future__ import annotations

import unicodedata
from collections import Counter

_LATIN = "LATIN"
_EAST_ASIAN = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI"}

SCRIPTS = ("Latin, ASCII alone", "Latin with other letters", "Cyrillic", "Chinese, Japanese, Korean, Thai", "other")

PROBES = {
    "English": "Prove that there are infinitely many primes.",
    "German": "Beweise, dass es unendlich viele Primzahlen gibt.",
    "Russian": "Докажи, что простых чисел бесконечно много.",
    "Chinese": "证明素数有无穷多个。",
    "Japanese": "素数が無限に存在することを証明してください。",
    "Korean": "소수가 무한히 많음을 증명하세요.",
    "Arabic": "أثبت أن هناك عددا لا نهائيا من الأعداد الأولية.",
    "Hindi": "सिद्ध कीजिए कि अभाज्य संख्याएँ अनंत हैं।",
    "code": "def primes(n):\n    return [p for p in range(2, n) if all(p % d for d in range(2, p))]",
    "emoji": "🙂🚀🔥",
    "nothing": "",
    "a word": "Hi",
    "a word a hundred thousand times": "why? " * 100_000,
}
"""One question in several languages, and what else comes along."""


def script_of(text: str) -> str:
    """The script that most letters of a text are of, one of `SCRIPTS`; text without letters counts as ASCII's."""
    names = Counter(unicodedata.name(char, "?").split(" ")[0].split("-")[0] for char in text if char.isalpha())
    most = names.most_common(1)[0][0] if names else _LATIN
    if most == _LATIN:
        letters = "".join(filter(str.isalpha, text))
        return SCRIPTS[0] if letters.isascii() else SCRIPTS[1]
    if most == "CYRILLIC":
        return SCRIPTS[2]
    return SCRIPTS[3] if most in _EAST_ASIAN else SCRIPTS[4]
