"""How well feature hashing finds the right passage, next to plain word hashing and BM25.

The corpus is Python's own help topics (`pydoc_data.topics`), cut into some 650 passages of about 900 characters; the
questions are below, each with the topics that answer it. Numbers move a little with the Python version, whose topics
differ, and 24 questions are few: one question found first instead of second moves MRR by 0.02.
"""

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from operator import mul
from pydoc_data.topics import topics

from benchmarks.harness.bench import Bench
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate
from hf_gateway.engines.hashing import HashingEngine
from hf_gateway.values.vectors import Vectors

PASSAGE_CHARS = 900
DIMS = (256, 1024, 4096)

QUESTIONS: dict[str, set[str]] = {
    "How do I catch an exception?": {"try", "exceptions", "compound", "execmodel"},
    "What does the with statement do?": {"with", "context-managers", "compound"},
    "Slicing a list: what do the start, stop and step mean?": {
        "slicings", "typesseq", "sequence-types", "subscriptions", "typesseq-mutable", "types", "specialnames", "lists",
    },
    "How can I write an anonymous function in one line?": {"lambda"},
    "How do I set a breakpoint and step through my program?": {"debugger"},
    "Which operators bind more tightly than others?": {"operator-summary"},
    "How do I make my own class support addition and multiplication?": {"numeric-types", "specialnames"},
    "How can I skip to the next iteration of a loop?": {"continue"},
    "Getting out of a loop early": {"break", "for", "while", "compound", "else"},
    "Can I use a variable of the enclosing function and assign to it?": {"nonlocal", "naming", "execmodel"},
    "How does Python find a module when I import it?": {"import", "typesmodules"},
    "What is the difference between is and ==?": {"comparisons", "in"},
    "How do I pad a number with zeros when formatting it?": {"formatstrings", "string-methods"},
    "When is an object's memory freed?": {"objects", "customization", "specialnames", "del"},
    "How do default argument values work in a function definition?": {"function", "compound"},
    "What is a generator and how do I send values into it?": {"yield"},
    "Which values count as false in a condition?": {"truth", "booleans"},
    "How do I write hexadecimal and binary integer literals?": {"integers", "numbers"},
    "Removing an item from a dictionary": {"typesmapping", "del", "dict", "types", "typesseq-mutable"},
    "Splitting a string at commas": {"string-methods"},
    "Waiting for a coroutine to finish": {"await", "async", "compound"},
    "How do I compute a power?": {"power", "numeric-types"},
    "What happens when attribute lookup fails?": {
        "attribute-access", "attribute-references", "specialnames", "types", "customization", "specialattrs",
    },
    "Raising an error again inside the handler": {"raise", "try", "exceptions", "compound"},
}  # fmt: skip
"""Question → the topics that answer it. Some topics repeat others whole, so both are right."""

Score = Callable[[str], list[float]]
"""Question → one score a passage, the higher the better."""


@dataclass(frozen=True)
class Passage:
    """A piece of about 900 characters of one help topic."""

    topic: str
    text: str


def passages() -> list[Passage]:
    """Cut every topic between paragraphs, or inside a paragraph that is too long by itself."""
    found = []
    for topic, body in sorted(topics.items()):
        current = ""
        for paragraph in re.split(r"\n\s*\n", body):
            if current and len(current) + len(paragraph) > PASSAGE_CHARS:
                found.append(Passage(topic, current))
                current = ""
            current += paragraph + "\n\n"
            while len(current) > 2 * PASSAGE_CHARS:
                found.append(Passage(topic, current[:PASSAGE_CHARS]))
                current = current[PASSAGE_CHARS:]
        if current.strip():
            found.append(Passage(topic, current))
    return found


def words(text: str) -> list[str]:
    """Lower-case words, as the two yardsticks see them."""
    return re.findall(r"\w+", text.lower())


def plain_hashing(dim: int) -> Callable[[Sequence[str]], Vectors]:
    """Return the least one could do: counts of words in hashed buckets, no signs, no damping, length 1."""

    def embed(texts: Sequence[str]) -> Vectors:
        rows = []
        for text in texts:
            row = [0.0] * dim
            for word in words(text):
                row[int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little") % dim] += 1.0
            rows.append(row)
        return Vectors.of(rows).normalized()

    return embed


def cosine(embed: Callable[[Sequence[str]], Vectors], corpus: Sequence[str]) -> Score:
    """Score by the dot product of unit vectors."""
    rows = embed(corpus).tolist()

    def score(question: str) -> list[float]:
        asked = embed([question])[0]
        return [sum(map(mul, asked, row)) for row in rows]

    return score


def bm25(corpus: Sequence[str], k1: float = 1.5, b: float = 0.75) -> Score:
    """Score by Okapi BM25 (Robertson and Zaragoza 2009), which knows how rare each word is in the corpus."""
    bags = [Counter(words(text)) for text in corpus]
    mean_length = sum(bag.total() for bag in bags) / len(bags)
    seen_in = Counter(word for bag in bags for word in bag)

    def score(question: str) -> list[float]:
        scores = [0.0] * len(bags)
        for word in set(words(question)):
            rarity = math.log(1 + (len(bags) - seen_in[word] + 0.5) / (seen_in[word] + 0.5))
            for index, bag in enumerate(bags):
                if count := bag[word]:
                    norm = k1 * (1 - b + b * bag.total() / mean_length)
                    scores[index] += rarity * count * (k1 + 1) / (count + norm)
        return scores

    return score


def ranks(score: Score, corpus: Sequence[Passage]) -> list[int]:
    """For each question, return the place (from 1) of the best passage that answers it; ties count against it."""
    places = []
    for question, wanted in QUESTIONS.items():
        scores = score(question)
        best = max(value for value, passage in zip(scores, corpus, strict=True) if passage.topic in wanted)
        places.append(
            1 + sum(v >= best for v, passage in zip(scores, corpus, strict=True) if passage.topic not in wanted)
        )
    return places


def run(bench: Bench) -> Report:
    """Find passages with each, and time the hashing."""
    corpus = passages()
    texts = [passage.text for passage in corpus]
    contenders = {f"hash:{dim}": cosine(HashingEngine(dim).embed, texts) for dim in DIMS}
    contenders |= {f"plain words, {dim}": cosine(plain_hashing(dim), texts) for dim in DIMS}
    contenders["BM25"] = bm25(texts)
    found = Table("Mean reciprocal rank", "MRR", "BM25", more=True, digits=3, columns=["found first", "among five"])
    for name, score in contenders.items():
        places = ranks(score, corpus)
        row = Row(name, name.startswith("hash"), {0: sum(1 / place for place in places) / len(places)})
        row.extra["found first"] = f"{sum(place == 1 for place in places)} of {len(places)}"
        row.extra["among five"] = f"{sum(place <= 5 for place in places)} of {len(places)}"
        found.rows.append(row)
    everything = "".join(texts)
    exact = [everything[start : start + PASSAGE_CHARS] for start in range(0, len(everything), PASSAGE_CHARS)]
    speed = Table(f"Hashing texts of {PASSAGE_CHARS} characters, one thread", "texts/s", None, more=True)
    speed.rows = [Row(f"hash:{dim}", ours=True) for dim in DIMS]
    engines = [HashingEngine(dim) for dim in DIMS]
    alternate(
        [Cell.of(row, _speed, made, exact) for row, made in zip(speed.rows, engines, strict=True)],
        bench.rounds(5),
    )
    report = Report("The hash target: finding passages of Python's help", [found, speed])
    mean = sum(map(len, texts)) / len(texts)
    report.notes.append(f"{len(corpus)} passages of {mean:.0f} characters on average, {len(QUESTIONS)} questions.")
    if unknown := set().union(*QUESTIONS.values()) - topics.keys():
        report.notes.append(f"Not in this Python's help: {', '.join(sorted(unknown))}.")
    return report


def _speed(engine: HashingEngine, texts: list[str]) -> float:
    started = time.perf_counter()
    engine.embed(texts)
    return len(texts) / (time.perf_counter() - started)
