"""Dense, sparse and hybrid retrieval of Python's help topics, and what reranking adds: nDCG@10 and hit@1.

The corpus is `pydoc_data.topics`, cut into passages; a topic is as good as its best passage. The 60 questions and the topics
that answer them were fixed before the first run (`benchmarks/data/python_topics_questions.json`): 44 in words of one's own, 16
that name what is looked for. All runs in this process: all-MiniLM-L6-v2 and the targets `bm25` and `lexical`. No cross-encoder's
weights can be installed as a package, so that reranking is measured with `lexical` alone.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.bench import Bench
from benchmarks.harness.measure import Report, Row, Table
from benchmarks.hash import Passage, passages
from hf_gateway import Gateway, RerankGateway, SparseGateway

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
QUESTIONS = Path(__file__).with_name("data") / "python_topics_questions.json"
NAMED = 16
"""How many questions, the last ones, name what is looked for."""
TOP = 10
FUSED = 100
"""Passages of each search that are fused."""
RERANKED = 30
"""Passages that are reranked."""
RRF = 60
"""The constant of reciprocal-rank fusion (Cormack et al. 2009)."""

Search = Callable[[str], list[int]]
"""Question → indexes of passages, the best first."""


def dense_search(texts: Sequence[str]) -> Search:
    """Search by the cosine of MiniLM's vectors."""
    gateway = Gateway(MODEL, ["local"], truncate=True)
    rows = gateway.embed(texts).vectors.normalized().numpy()

    def search(question: str) -> list[int]:
        asked = gateway.embed([question], role="query").vectors.normalized().numpy()[0]
        return [int(place) for place in (-(rows @ asked)).argsort(kind="stable")]

    return search


def sparse_search(texts: Sequence[str]) -> Search:
    """Search by BM25's weights, with the inverse document frequency as Qdrant computes it."""
    gateway = SparseGateway(targets=["bm25"])
    vectors = list(gateway.embed(texts).vectors)
    seen_in = Counter(index for vector in vectors for index in vector.indices)
    postings: dict[int, list[tuple[int, float]]] = {}
    for place, vector in enumerate(vectors):
        for index, value in zip(vector.indices, vector.values, strict=True):
            postings.setdefault(index, []).append((place, value))

    def search(question: str) -> list[int]:
        scores: dict[int, float] = {}
        for index in gateway.embed([question], role="query").vectors[0].indices:
            rarity = math.log(1 + (len(vectors) - seen_in[index] + 0.5) / (seen_in[index] + 0.5))
            for place, value in postings.get(index, ()):
                scores[place] = scores.get(place, 0.0) + rarity * value
        return sorted(scores, key=lambda place: (-scores[place], place))

    return search


def fused(*searches: Search) -> Search:
    """Fuse searches by reciprocal ranks."""

    def search(question: str) -> list[int]:
        scores: dict[int, float] = {}
        for each in searches:
            for rank, place in enumerate(each(question)[:FUSED], 1):
                scores[place] = scores.get(place, 0.0) + 1 / (RRF + rank)
        return sorted(scores, key=lambda place: (-scores[place], place))

    return search


def reranked(search: Search, texts: Sequence[str]) -> Search:
    """Put the first passages of a search into the order of a reranker."""
    gateway = RerankGateway(targets=["lexical"])

    def again(question: str) -> list[int]:
        found = search(question)
        head = found[:RERANKED]
        hits = gateway.rerank(question, [texts[place] for place in head]).hits
        return [*(head[hit.index] for hit in hits), *found[RERANKED:]]

    return again


def topics_of(order: Sequence[int], corpus: Sequence[Passage]) -> list[str]:
    """Return the first topics, each at the place of its best passage."""
    return list(dict.fromkeys(corpus[place].topic for place in order))[:TOP]


def ndcg(found: Sequence[str], wanted: Sequence[str]) -> float:
    """Return nDCG@10 with each wanted topic worth 1."""
    gain = sum(1 / math.log2(place + 2) for place, topic in enumerate(found) if topic in wanted)
    return gain / sum(1 / math.log2(place + 2) for place in range(min(len(wanted), TOP)))


def measured(search: Search, corpus: Sequence[Passage], questions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Ask every question; returns what was found and how good that is."""
    results = []
    for each in questions:
        found = topics_of(search(each["question"]), corpus)
        score = ndcg(found, each["topics"])
        results.append({"question": each["question"], "found": found, "ndcg": score, "hit": found[0] in each["topics"]})
    return results


def run(bench: Bench) -> Report:  # noqa: ARG001 - nothing is timed
    """Ask the questions of each search."""
    corpus = passages()
    texts = [passage.text for passage in corpus]
    questions = json.loads(QUESTIONS.read_text(encoding="utf-8"))["questions"]
    dense, sparse = dense_search(texts), sparse_search(texts)
    hybrid = fused(dense, sparse)
    searches = {
        "dense (MiniLM)": dense,
        "sparse (bm25)": sparse,
        "hybrid (dense + sparse, RRF)": hybrid,
        "dense, reranked by lexical": reranked(dense, texts),
        "hybrid, reranked by lexical": reranked(hybrid, texts),
    }
    columns = ["hit@1", "nDCG@10, own words", "nDCG@10, by name", "better than dense", "worse than dense"]
    table = Table(
        "60 questions about Python's topics", "nDCG@10", "dense (MiniLM)", more=True, digits=3, columns=columns
    )
    raw = {name: measured(search, corpus, questions) for name, search in searches.items()}
    alone = raw["dense (MiniLM)"]
    for name, results in raw.items():
        scores = [result["ndcg"] for result in results]
        row = Row(name, ours=True, values={0: mean(scores)})
        row.extra["hit@1"] = f"{sum(result['hit'] for result in results)} of {len(results)}"
        row.extra["nDCG@10, own words"] = f"{mean(scores[:-NAMED]):.3f}"
        row.extra["nDCG@10, by name"] = f"{mean(scores[-NAMED:]):.3f}"
        pairs = [(result["ndcg"], other["ndcg"]) for result, other in zip(results, alone, strict=True)]
        row.extra["better than dense"] = str(sum(mine > theirs for mine, theirs in pairs))
        row.extra["worse than dense"] = str(sum(mine < theirs for mine, theirs in pairs))
        table.rows.append(row)
    report = Report("Hybrid retrieval of Python's help topics", [table], raw={"results": raw})
    report.notes.append(f"{len(corpus)} passages of {len({passage.topic for passage in corpus})} topics.")
    report.notes.append(
        "Reranking is that of the target `lexical`, BM25 over the passages found: no cross-encoder's weights come as a package."
    )
    return report


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean."""
    return sum(values) / len(values)
