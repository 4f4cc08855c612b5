"""English-looking texts, the same for a seed everywhere. The standard library only: every environment imports this."""

import random
from collections.abc import Iterator
from typing import Literal

Kind = Literal["short", "mixed", "chunk"]

WORDS: dict[Kind, tuple[int, int]] = {"short": (5, 12), "mixed": (10, 180), "chunk": (200, 215)}
"""Words per text. A chunk is about 240 tokens, under the 256 that all-MiniLM-L6-v2 accepts, so that no text is truncated."""

_ARTICLES = ("the", "a", "this", "every", "another", "our", "their", "no")
_ADJECTIVES = (
    "small", "large", "old", "new", "open", "quiet", "early", "late", "simple", "dark", "bright", "public", "local", "common",
    "cold", "warm", "heavy", "light", "famous", "modern", "ancient", "direct", "final", "northern", "wooden", "empty", "green",
    "short", "long", "strong", "clear", "royal", "human", "natural", "rapid", "serious", "secret", "former", "young", "rich",
)  # fmt: skip
_NOUNS = (
    "river", "city", "report", "engine", "garden", "market", "teacher", "library", "bridge", "language", "server", "village",
    "mountain", "company", "story", "window", "signal", "winter", "museum", "machine", "doctor", "border", "forest", "network",
    "question", "answer", "station", "captain", "letter", "harbor", "theory", "method", "student", "island", "painting", "law",
    "memory", "surface", "energy", "crowd", "author", "kitchen", "program", "field", "storm", "railway", "battle", "species",
    "court", "factory", "novel", "song", "model", "planet", "road", "contract", "valley", "error", "budget", "child",
)  # fmt: skip
_VERBS = (
    "changes", "follows", "describes", "reaches", "supports", "crosses", "explains", "protects", "opens", "closes", "finds",
    "leaves", "meets", "builds", "needs", "becomes", "measures", "carries", "covers", "joins", "returns", "moves", "studies",
    "loses", "keeps", "wins", "holds", "serves", "watches", "remembers",
)  # fmt: skip
_LINKS = (
    "in", "near", "after", "before", "under", "behind", "with", "without", "because of", "along", "against", "between",
    "across", "during", "despite",
)  # fmt: skip
_OPENINGS = ("", "", "", "In 1904", "Today", "However", "At first", "For many years", "Later", "In the north")


def _sentence(draw: random.Random) -> list[str]:
    phrases = [draw.choice(_OPENINGS), draw.choice(_ARTICLES), draw.choice(_ADJECTIVES), draw.choice(_NOUNS)]
    phrases += [draw.choice(_VERBS), draw.choice(_ARTICLES), draw.choice(_NOUNS)]
    for _ in range(draw.randrange(3)):
        phrases += [draw.choice(_LINKS), draw.choice(_ARTICLES), draw.choice(_ADJECTIVES), draw.choice(_NOUNS)]
    return " ".join(filter(None, phrases)).split()


def _text(draw: random.Random, count: int) -> str:
    words: list[str] = []
    while len(words) < count:
        sentence = _sentence(draw)[: count - len(words)]
        words += [sentence[0].capitalize(), *sentence[1:-1], f"{sentence[-1]}."] if len(sentence) > 1 else sentence
    return " ".join(words)


def texts(kind: Kind, count: int, seed: int = 0) -> list[str]:
    """Return n texts; their lengths in words are spread evenly over the kind's range."""
    # A string seeds alike on every platform and in every process; a tuple would not.
    draw = random.Random(f"{kind}-{seed}")
    low, high = WORDS[kind]
    return [_text(draw, draw.randint(low, high)) for _ in range(count)]


def numbered(count: int, kind: Kind = "short", seed: int = 0) -> Iterator[str]:
    """Yield n texts, no two alike: a thousand texts over and over, each with its number."""
    known = texts(kind, min(count, 1000), seed)
    for number in range(count):
        yield f"{known[number % len(known)]} {number}"
