"""BM25 without a collection: the part of a term's weight that follows from one text alone, as sparse vectors.

BM25 multiplies what a term weighs in a document by how rare it is in the collection. The first factor is computed here; the
second, the inverse document frequency, is left to the store, which knows the collection (Qdrant: `modifier=idf`). The dot product
of a query's vector with a document's, with that factor, is the BM25 score, except that the average length is assumed and not
measured.

An entry's index is a hash of the term, the same on every machine; two terms of one text share one about once in 10,000 texts
of a thousand terms.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from hf_gateway.engines.words import terms_of

MAX_CHARS = 1 << 17
"""Characters of a text that are read."""


@dataclass(frozen=True)
class TermWeights:
    """The parameters of BM25."""

    k1: float = 1.2
    """How much a term that is repeated counts: 0 for no more than once."""
    b: float = 0.75
    """How much the length of a document counts, from 0 to 1."""
    average_terms: int = 256
    """The length of an average document, in terms."""

    def document(self, text: str) -> dict[int, float]:
        """Return the weight of each term of a document, by the term's index."""
        terms = terms_of(text[:MAX_CHARS])
        length = self.k1 * (1 - self.b + self.b * len(terms) / self.average_terms)
        weights: dict[int, float] = {}
        for term, count in Counter(terms).items():
            index = index_of(term)
            weights[index] = weights.get(index, 0.0) + count * (self.k1 + 1) / (count + length)
        return weights

    def query(self, text: str) -> dict[int, float]:
        """Return 1 for each term of a query, by the term's index."""
        return dict.fromkeys(map(index_of, terms_of(text[:MAX_CHARS])), 1.0)


@lru_cache(maxsize=1 << 15)
def index_of(term: str) -> int:
    """Return the index of a term, from 0 to 2**32 - 1."""
    digest = blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4, usedforsecurity=False).digest()
    return int.from_bytes(digest, "little")
