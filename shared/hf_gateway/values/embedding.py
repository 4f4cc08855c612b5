"""The values of an embedding call: request, answer of a target, result."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, Self, TypeVar

from hf_gateway.errors import BatchTooLarge, InvalidRequest
from hf_gateway.values.result import Result
from hf_gateway.values.text_batches import checked_texts, split_texts
from hf_gateway.values.usage import Usage
from hf_gateway.values.vectors import ComparableVectors, Vectors

if TYPE_CHECKING:
    from hf_gateway.values.vector_space import VectorSpace

VectorsT = TypeVar("VectorsT", bound=ComparableVectors)
Role = Literal["query", "document"]
"""Which side of a search a text is on; many models put another prompt before a query than before a document."""


@dataclass(frozen=True)
class EmbedRequest:
    """n texts of one role."""

    texts: Sequence[str]
    """The texts, checked by `of`."""
    role: Role = "document"
    """The role of all of them, but for `documents`."""
    truncate: bool = False
    """Whether a text that is too long is truncated rather than refused."""
    documents: int = 0
    """How many texts at the end are documents whatever the role: canaries of the space's guard may be."""
    lists: bool = False
    """Whether the caller will read the vectors as lists of floats, which are then made while other answers are under way."""

    @classmethod
    def of(cls, texts: Iterable[str], role: Role, truncate: bool, lists: bool = False) -> Self:
        """Check a caller's arguments before anything is sent.

        Args:
            texts: any iterable of strings.
            role: "query" or "document".
            truncate: whether a text that is too long is truncated rather than refused.
            lists: whether the caller will read the vectors as lists of floats.

        Raises:
            InvalidRequest: an argument is invalid; names a text by its index.
        """
        check_role(role)
        return cls(checked_texts(texts, "nothing was embedded"), role, truncate, lists=lists)

    @property
    def inputs(self) -> Sequence[str]:
        """The texts, by the name that all tasks' inputs have."""
        return self.texts

    def split(self, limit: BatchTooLarge) -> list[Self] | None:
        """Return the fewest parts that respect the limit, in order; None if one text is too large by itself."""
        parts = split_texts(self.texts, limit)
        return None if parts is None else [dataclasses.replace(self, texts=part) for part in parts]


def check_role(role: str) -> None:
    """Raise InvalidRequest for an unknown role."""
    if role not in ("query", "document"):
        raise InvalidRequest(f"role is 'query' or 'document', not {role!r}")


@dataclass(frozen=True)
class VectorAnswer(Generic[VectorsT]):
    """The answer of a backend to one request, with vectors of any form."""

    vectors: VectorsT
    """n vectors in the order of the texts."""
    usage: Usage = field(default_factory=Usage)
    """Tokens, as far as the server reported them."""
    model: str | None = None
    """The model that served, as the server reports it."""
    provider: str | None = None
    """Who ran it, if the server reports that."""
    request_id: str | None = None
    """The server's or provider's id of the request."""
    server: str | None = None
    """Identity of the machine or program that answered, from its headers; the same for each of its answers."""


@dataclass(frozen=True)
class EmbedAnswer(VectorAnswer[Vectors]):
    """The answer of a backend to one request for embeddings."""


@dataclass(frozen=True, kw_only=True)
class EmbedResult(Result):
    """The vectors with the targets that made them, and the attempts that failed before."""

    served_by: tuple[str, ...]
    """Labels of the targets that answered, in their order; "cache" if a cache did."""
    vectors: Vectors
    """(n, dim) float32, in the order of the texts."""
    space: "VectorSpace"
    """The vector space of the vectors."""
    shared: bool = False
    """Whether the vectors came with another call's request, whose result has the tokens."""
    cached: int = 0
    """How many different texts were found in the cache."""
