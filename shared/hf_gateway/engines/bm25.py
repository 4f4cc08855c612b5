"""BM25 over a list of documents that is given with the query: no model, no index.

Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with the inverse document frequency that
Lucene uses, which is never negative. All words are counted in the given documents, so a score means something among them alone.
"""

import math
from collections import Counter
from collections.abc import Sequence

from hf_gateway.engines.words import terms_of


def bm25_scores(query: str, documents: Sequence[str], *, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Return the score of each document, 0 for one that shares no word with the query.

    Args:
        query: what is searched for.
        documents: the collection, in which words are counted.
        k1: how much a word that occurs again adds.
        b: how much a document's length counts, from 0 to 1.
    """
    wanted = Counter(terms_of(query))
    lengths, found = [], []
    for document in documents:
        terms = terms_of(document)
        lengths.append(len(terms))
        found.append(Counter(term for term in terms if term in wanted))
    average = sum(lengths) / len(documents) if any(lengths) else 1.0
    containing = Counter(term for counts in found for term in counts)
    weights = {
        term: times * math.log1p((len(documents) - containing[term] + 0.5) / (containing[term] + 0.5))
        for term, times in wanted.items()
    }

    def score(counts: Counter[str], length: int) -> float:
        damping = k1 * (1 - b + b * length / average)
        return math.fsum(weights[term] * count * (k1 + 1) / (count + damping) for term, count in counts.items())

    return list(map(score, found, lengths))
