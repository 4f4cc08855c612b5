"""What an embedding request and its result are: the values that travel between gateway, chain and backends."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from hf_gateway.errors import Attempt, BatchTooLarge, InvalidRequest
from hf_gateway.values.http import json_size
from hf_gateway.values.usage import Usage
from hf_gateway.values.vectors import Vectors

if TYPE_CHECKING:
    from hf_gateway.values.vector_space import VectorSpace

Role = Literal["query", "document"]
"""Which side of a search a text is on; many models put another prompt before a query than before a document."""


@dataclass(frozen=True)
class EmbedRequest:
    """n texts, all in one role.

    truncate: cut what is too long instead of refusing it; documents: so many at the end are documents whatever the role,
    which the guard's canaries may be.
    """

    texts: Sequence[str]
    role: Role = "document"
    truncate: bool = False
    documents: int = 0

    @classmethod
    def of(cls, texts: Iterable[str], role: Role, truncate: bool) -> Self:
        """Check what a caller gave, before anything is sent. Raises InvalidRequest, naming the text by its place."""
        check_role(role)
        listed = list(iterable(texts, "a list"))
        for index, text in enumerate(listed):
            if fault := text_fault(text):
                raise InvalidRequest(f"text {index} of {len(listed)} {fault}; nothing was embedded")
        return cls(listed, role, truncate)

    def split(self, limit: BatchTooLarge) -> list[Self] | None:
        """Cut into the fewest parts that respect the limit, in order; None when one text is too large by itself."""
        if len(self.texts) < 2:
            return None
        max_texts = limit.max_texts
        if not max_texts and not limit.max_bytes:
            max_texts = (len(self.texts) + 1) // 2
        parts = list(_split_by_size(self.texts, max_texts or len(self.texts), limit.max_bytes))
        if len(parts) == 1:
            # The server refused what should have fitted by its own words: halve, or it would be sent for ever.
            middle = len(self.texts) // 2
            parts = [self.texts[:middle], self.texts[middle:]]
        return [dataclasses.replace(self, texts=part) for part in parts]


def check_role(role: str) -> None:
    """Raise InvalidRequest for a role that there is not."""
    if role not in ("query", "document"):
        raise InvalidRequest(f"role is 'query' or 'document', not {role!r}")


def iterable(texts: Any, wanted: str) -> Iterable[Any]:
    """Return what can be iterated for strings. Raises InvalidRequest for one string, and for what is no collection."""
    if isinstance(texts, str | bytes):
        raise InvalidRequest(f"texts is one {type(texts).__name__}; pass {wanted} of strings")
    try:
        return iter(texts)  # type: ignore[no-any-return]
    except TypeError:
        raise InvalidRequest(f"texts is {type(texts).__name__}; pass {wanted} of strings") from None


def text_fault(text: Any) -> str | None:
    """Say what keeps something from being embedded, in words that follow "text 3"; None for a good text."""
    if not isinstance(text, str):
        return f"is {type(text).__name__}, not a string"
    if not text or text.isspace():
        return "is empty" if not text else "has nothing but blanks in it"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return (
                f"has a lone surrogate at character {error.start}, which is no text in any encoding; "
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
    """Return how many texts from the first one on fit; one at least."""
    if _MOST_BYTES * sum(map(len, texts)) + _AROUND * len(texts) <= max_bytes:
        return len(texts)
    size = 0
    for count, text in enumerate(texts):
        size += json_size(text)
        if count and size > max_bytes:
            return count
    return len(texts)


_MOST_BYTES, _AROUND = 6, 3
"""Bytes in JSON of a character at most, as of \\u0000, and of what is around a text; counting exactly takes its time."""


@dataclass(frozen=True)
class EmbedAnswer:
    """What a backend gives back for one request: n vectors in the order of the texts.

    model: the one that served, by its own word; provider: who ran it, and request_id: what they call the request, where that
    was said; server: what headers say of the machine or program that answered, the same for each of its answers.
    """

    vectors: Vectors
    usage: Usage = field(default_factory=Usage)
    model: str | None = None
    provider: str | None = None
    request_id: str | None = None
    server: str | None = None


@dataclass(frozen=True)
class EmbedResult:
    """What the caller gets: the vectors, who made them, and why others did not.

    vectors: (n, dim) float32; served_by: labels of the targets that answered, first to last; attempts: everything tried;
    seconds: the time the whole call took; shared: another call's request brought it, whose result has its tokens; cached: how
    many different texts were found in the cache.
    """

    vectors: Vectors
    usage: Usage
    served_by: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    space: "VectorSpace"
    seconds: float
    shared: bool = False
    cached: int = 0
