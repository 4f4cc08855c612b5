"""The values of a rerank call: request, answer of a target, hits."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from hf_gateway.errors import BatchTooLarge, InvalidRequest
from hf_gateway.values.result import Result
from hf_gateway.values.text_batches import checked_texts, split_texts, text_fault
from hf_gateway.values.usage import Usage
from hf_gateway.values.wording import preview

ModelScale = Literal["probability", "logit"]
"""What a score of a model is: a probability from 0 to 1, or its logit."""
Scale = Literal["probability", "logit", "bm25"]
"""What a score is: a probability from 0 to 1, its logit (any number, 0 for even odds), or a BM25 score (0 and above). Scores of
different models, or of BM25 for different lists of documents, cannot be compared whatever their scale."""


@dataclass(frozen=True)
class RerankRequest:
    """A query, and the documents to rank by it."""

    query: str
    """What is searched for."""
    documents: Sequence[str]
    """The documents, checked by `of`."""
    truncate: bool = False
    """Whether a query with a document that is too long for the model is truncated rather than refused."""
    top_n: int | None = None
    """How many documents are wanted; None for all."""

    @classmethod
    def of(cls, query: str, documents: Iterable[str], truncate: bool, top_n: int | None = None) -> Self:
        """Check a caller's arguments before anything is sent.

        Args:
            query: what is searched for.
            documents: any iterable of strings.
            truncate: whether texts that are too long may be truncated.
            top_n: how many documents are wanted; None for all.

        Raises:
            InvalidRequest: an argument is invalid; names a document by its index.
        """
        if fault := text_fault(query):
            raise InvalidRequest(f"the query {fault}; nothing was ranked")
        if top_n is not None and (type(top_n) is not int or top_n < 1):
            raise InvalidRequest(
                f"top_n is a whole number above 0, or None for all, not {preview(top_n)}; nothing was ranked"
            )
        listed = checked_texts(documents, "nothing was ranked", argument="documents", noun="document")
        return cls(query, listed, truncate, top_n)

    @property
    def texts(self) -> Sequence[str]:
        """The documents, which a server's limit of texts is about."""
        return self.documents

    @property
    def inputs(self) -> Sequence[str]:
        """The documents, by the name that all tasks' inputs have."""
        return self.documents

    def split(self, limit: BatchTooLarge) -> list[Self] | None:
        """Return the fewest parts that respect the limit, in order; None if one document is too large by itself."""
        parts = split_texts(self.documents, limit)
        return None if parts is None else [dataclasses.replace(self, documents=part) for part in parts]


@dataclass(frozen=True)
class RerankAnswer:
    """The answer of a backend to one request."""

    scores: Sequence[float]
    """n scores in the order of the documents; higher is better."""
    scale: Scale | None = None
    """Their scale; None if the server does not report it."""
    usage: Usage = field(default_factory=Usage)
    """Tokens, as far as the server reported them."""
    model: str | None = None
    """The model that served, as the server reports it."""
    provider: str | None = None
    """Who ran it, if the server reports that."""
    request_id: str | None = None
    """The server's or provider's id of the request."""


@dataclass(frozen=True)
class RerankHit:
    """A document and its score."""

    index: int
    """Its index in the caller's list."""
    score: float
    """Its score, on the scale of `RerankResult.scale`."""
    document: str
    """The document."""


@dataclass(frozen=True, kw_only=True)
class RerankResult(Result):
    """The best documents, best first; those of equal scores are in the order of the caller. A sequence of its hits."""

    served_by: tuple[str, ...]
    """Label of the target that scored the documents; empty for no documents."""
    hits: tuple[RerankHit, ...]
    """The hits, best first."""
    scale: Scale
    """The scale of all scores."""

    def __len__(self) -> int:
        """Return the number of hits."""
        return len(self.hits)

    def __iter__(self) -> Iterator[RerankHit]:
        """Iterate over the hits, best first."""
        return iter(self.hits)

    def __getitem__(self, index: int) -> RerankHit:
        """Return a hit by its rank, from 0."""
        return self.hits[index]


def probability_of(logit: float) -> float:
    """Return the probability of a logit, without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)


_LOWEST, _HIGHEST = math.ulp(0.0), 1.0 - math.ulp(0.5)
"""The probabilities nearest to 0 and 1 whose logits are finite."""


def logit_of(probability: float) -> float:
    """Return the logit of a probability; 0 and 1, to which servers round, get the nearest finite ones."""
    inner = min(max(probability, _LOWEST), _HIGHEST)
    return math.log(inner) - math.log1p(-inner)
