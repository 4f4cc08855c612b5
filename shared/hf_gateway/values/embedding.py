"""The values of an embedding call: request, answer of a target, result."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from hf_gateway.errors import BatchTooLarge, InvalidRequest
from hf_gateway.values.http import json_size
from hf_gateway.values.result import Result
from hf_gateway.values.usage import Usage
from hf_gateway.values.vectors import Vectors

if TYPE_CHECKING:
    from hf_gateway.values.vector_space import VectorSpace

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

    @classmethod
    def of(cls, texts: Iterable[str], role: Role, truncate: bool) -> Self:
        """Check a caller's arguments before anything is sent.

        Args:
            texts: any iterable of strings.
            role: "query" or "document".
            truncate: whether a text that is too long is truncated rather than refused.

        Raises:
            InvalidRequest: an argument is invalid; names a text by its index.
        """
        check_role(role)
        listed = list(iterable(texts, "a list"))
        for index, text in enumerate(listed):
            if fault := text_fault(text):
                raise InvalidRequest(f"text {index} of {len(listed)} {fault}; nothing was embedded")
        return cls(listed, role, truncate)

    def split(self, limit: BatchTooLarge) -> list[Self] | None:
        """Return the fewest parts that respect the limit, in order; None if one text is too large by itself."""
        if len(self.texts) < 2:
            return None
        max_texts = limit.max_texts
        if not max_texts and not limit.max_bytes:
            max_texts = (len(self.texts) + 1) // 2
        parts = list(_split_by_size(self.texts, max_texts or len(self.texts), limit.max_bytes))
        if len(parts) == 1:
            # The server refused what its own limit allows: halve, or the same request would be sent for ever.
            middle = len(self.texts) // 2
            parts = [self.texts[:middle], self.texts[middle:]]
        return [dataclasses.replace(self, texts=part) for part in parts]


def check_role(role: str) -> None:
    """Raise InvalidRequest for an unknown role."""
    if role not in ("query", "document"):
        raise InvalidRequest(f"role is 'query' or 'document', not {role!r}")


def iterable(texts: Any, wanted: str) -> Iterable[Any]:
    """Return an iterator over a caller's texts.

    Args:
        texts: the argument.
        wanted: what to pass instead, for the error: "a list".

    Raises:
        InvalidRequest: a single string, or not iterable.
    """
    if isinstance(texts, str | bytes):
        raise InvalidRequest(f"texts is one {type(texts).__name__}; pass {wanted} of strings")
    try:
        return iter(texts)  # type: ignore[no-any-return]
    except TypeError:
        raise InvalidRequest(f"texts is {type(texts).__name__}; pass {wanted} of strings") from None


def text_fault(text: Any) -> str | None:
    """Return why a value cannot be embedded, in words that follow "text 3"; None for a valid text."""
    if not isinstance(text, str):
        return f"is {type(text).__name__}, not a string"
    if not text or text.isspace():
        return "is empty" if not text else "has nothing but blanks in it"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return (
                f"has a lone surrogate at character {error.start}, which no encoding can represent; "
                "clean it with text.encode('utf-8', 'replace').decode()"
            )
    return None


def _split_by_size(texts: Sequence[str], max_texts: int, max_bytes: int | None) -> Iterator[Sequence[str]]:
    start = 0
    while start < len(texts):
        part = texts[start : start + max_texts]
        if max_bytes is not None:
            part = part[: _texts_within(part, max_bytes)]
        yield part
        start += len(part)


def _texts_within(texts: Sequence[str], max_bytes: int) -> int:
    """Return how many texts fit, counted from the first; at least one."""
    if _MOST_BYTES * sum(map(len, texts)) + _AROUND * len(texts) <= max_bytes:
        return len(texts)
    size = 0
    for count, text in enumerate(texts):
        size += json_size(text)
        if count and size > max_bytes:
            return count
    return len(texts)


_MOST_BYTES, _AROUND = 6, 3
"""Maximum bytes in JSON of a character (\\u0000) and of the quotes and comma around a text; counting exactly is slow."""


@dataclass(frozen=True)
class EmbedAnswer:
    """The answer of a backend to one request."""

    vectors: Vectors
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
