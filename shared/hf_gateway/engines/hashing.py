"""Feature hashing: a lexical embedder that needs only the standard library, the last resort of an embedding chain.

A text becomes a bag of words and character n-grams; each is hashed to a bucket and a sign (Weinberger et al. 2009,
"Feature Hashing for Large Scale Multitask Learning"), and each bucket becomes the signed square root of its sum
(power normalisation: Perronnin et al. 2010, "Improving the Fisher Kernel"). Cosine similarity then measures how much
wording two texts share. It does not capture meaning: synonyms and translations are unrelated.

A text gives the same bits on every platform and every Python from 3.11 on, whatever else is in its batch:

- words are found, and their characters normalised, by frozen tables (`words.py`).
- hashes are BLAKE2b, not the salted `hash()`.
- sums are of integers; only a division and a square root round, and IEEE 754 rounds both correctly.

There are no corpus statistics to tell common words from rare ones. Instead, a longer word has more n-grams and so
more weight, and a word of one or two letters has none.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import chain

from hf_gateway.engines.words import SCRIPT_RUN, SYLLABIC_GRAMS, SYLLABLE, UNSPACED_GRAMS, compose, ngrams, split_words
from hf_gateway.values.vectors import Vectors

DEFAULT_DIM = 1024
"""Enough for the 750 or so features of a 900-character passage; 4096 ranks a few per cent better, 256 a fifth worse."""

MAX_DIM = 65536
"""256 KiB per vector."""

MAX_CHARS = 1 << 17
"""Characters of a text that are used, from its first visible one: the 32k tokens of the longest embedding models,
and a bound on the cost of a hostile text (two seconds, 100 MB).
"""

_WORD_GRAMS = (3, 4, 5)

_SIGN_BIT = 1 << 63
_SYLLABIC_BIT = 1 << 62
# By the two top bits. A word of two Han characters has 3 features and an English one 20, so that a few English names in
# a Chinese text would outweigh it; measured, twice is better than once, and than four times.
_FACTORS = (1, 2, -1, -2)


class HashingEngine:
    """Embeds any text in any language without a model, a download or the network.

    >>> vectors = HashingEngine(256).embed(["a stack of pancakes", "Pfannkuchen"])
    >>> len(vectors), vectors.dim
    (2, 256)
    """

    def __init__(self, dim: int = DEFAULT_DIM) -> None:
        """Set the number of buckets, 1 to 65536; raises ValueError outside that range."""
        if not 1 <= dim <= MAX_DIM:
            raise ValueError(f"dim must be between 1 and {MAX_DIM}, not {dim}")
        self.dim = dim

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return n strings as (n, dim) float32, every vector of length 1.

        Characters after the first `MAX_CHARS` of a text are ignored. Raises ValueError for a text that is empty or
        white space.
        """
        data = array("f")
        for index, text in enumerate(texts):
            counts = features(text)
            if not counts:
                raise ValueError(f"text {index} is empty or white space, which has no embedding")
            data.extend(_row(counts, self.dim))
        return Vectors(data, self.dim)


def features(text: str) -> Counter[int]:
    """Return how often each feature, a 64-bit hash, occurs in a text; empty for an empty or white text.

    The top bit of a feature is its sign, the next doubles its weight, and its remainder by the dimension is its
    bucket.
    """
    text = text.strip()[:MAX_CHARS]
    counts = Counter(chain.from_iterable(map(_word_features, split_words(text))))
    # Only punctuation or controls: "?!" should match "?!" rather than nothing.
    return counts or Counter(map(_feature, "".join(text.split())))


def _row(counts: Counter[int], dim: int) -> "array[float]":
    """Fold features into a vector of dim values and length 1."""
    buckets: dict[int, int] = {}
    for feature, count in counts.items():
        weight = _FACTORS[feature >> 62] * (1024 if count == 1 else _term_weight(count))
        bucket = feature % dim
        buckets[bucket] = buckets.get(bucket, 0) + weight
    # The sum of the squares of the square roots below, so the length needs no separate root.
    total = sum(map(abs, buckets.values()))
    if total == 0:
        # In few dimensions the signs can cancel everything; without signs nothing can cancel.
        return _row(Counter({feature % _SIGN_BIT: count for feature, count in counts.items()}), dim)
    row = array("f", bytes(4 * dim))
    for bucket, weight in buckets.items():
        row[bucket] = math.copysign(math.sqrt(abs(weight) / total), weight)
    return row


@lru_cache(maxsize=1024)
def _term_weight(count: int) -> int:
    """Return 1024 * (1 + log2(count)), with log2 interpolated linearly between the powers of two.

    C libraries' `log2` may differ in the last bit; this cannot.
    """
    octave = count.bit_length() - 1
    return 1024 * octave + ((1024 * count) >> octave)


@lru_cache(maxsize=1 << 15)
def _word_features(word: str) -> "array[int]":
    return array("Q", map(_feature, _grams(compose(word))))


@lru_cache(maxsize=1 << 15)
def _feature(gram: str) -> int:
    """Hash an n-gram to 64 bits; the second-highest bit tells whether its script is syllabic."""
    # FIPS mode may reject BLAKE2 for security, which is not its use here.
    digest = blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=8, usedforsecurity=False).digest()
    hashed = int.from_bytes(digest, "little")
    return hashed | _SYLLABIC_BIT if SYLLABLE.match(gram) else hashed & ~_SYLLABIC_BIT


def _grams(word: str) -> Iterator[str]:
    """Yield the n-grams of a word: parts of it, and the word in brackets if its script uses spaces."""
    for match in SCRIPT_RUN.finditer(word):
        run = match.group()
        if match.lastindex == 1:
            yield from ngrams(run, SYLLABIC_GRAMS)
        elif match.lastindex == 2:
            yield from ngrams(run, UNSPACED_GRAMS) if len(run) > 1 else run
        else:
            # The brackets are symbols, so no word contains them; they distinguish a beginning or an end from a middle.
            bounded = f"<{run}>"
            if len(run) > 2:
                yield from ngrams(bounded, _WORD_GRAMS)
            # A word of three letters is its own last n-gram.
            if len(run) != 3:
                yield bounded
