"""Vector spaces: what makes two vectors comparable.

A model's name and a dimension are not an identity: another pooling, a missing prompt or a lost normalisation gives other
vectors of the same width. A `VectorSpace` names everything that changes a vector. An unknown value is None, and None differs
from nothing.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from hf_gateway.errors import ConfigError, did_you_mean

# sentence-transformers looks these families up under its own organisation when no owner is named.
_OWNERLESS = re.compile(
    r"(all|multi-qa|paraphrase|msmarco|distiluse|gtr|sentence-t5|clip|LaBSE|stsb|nli|average_word)[-_\w.]*",
    re.IGNORECASE,
)

MAX_DIMENSION = 10**9
"""Above the dimension and the token limit of any model; some files write 10**30 for no limit."""
_SURROGATES = re.compile(r"[\ud800-\udfff]")

_WHY = {
    "model": "another model's vectors cannot be compared, whatever their dimension",
    "revision": "the weights may have changed between revisions",
    "dimension": "vectors of different length cannot be compared",
    "pooling": "the same tokens pooled another way give another vector",
    "normalized": "dot products change when only one side has length 1",
    "query_prompt": "a prompt is part of the text that is embedded",
    "document_prompt": "a prompt is part of the text that is embedded",
    "max_tokens": "long texts are cut at another place",
    "precision": "quantised weights give other vectors",
}


@dataclass(frozen=True)
class Difference:
    """A field in which two spaces differ."""

    field: str
    """Name of the field."""
    left: Any
    """Its value in the first space."""
    right: Any
    """Its value in the second space."""
    why: str
    """Why the difference matters, in words for users."""

    def __str__(self) -> str:
        """Return it as one line of a list."""
        return f"{self.field}: {self.left!r} and {self.right!r} ({self.why})"


@dataclass(frozen=True)
class VectorSpace:
    """Everything that changes a vector; None for what is unknown."""

    model: str
    """Canonical model id, such as `sentence-transformers/all-MiniLM-L6-v2`."""
    revision: str | None = None
    """Commit or tag of the weights."""
    dimension: int | None = None
    """Numbers per vector."""
    pooling: str | None = None
    """The pooling as sentence-transformers calls it: mean, cls, lasttoken, max …"""
    normalized: bool | None = None
    """Whether vectors have length 1."""
    query_prompt: str | None = None
    """What is put before a query; "" for no prompt."""
    document_prompt: str | None = None
    """What is put before a document; "" for no prompt."""
    max_tokens: int | None = None
    """The length from which a text is truncated or refused."""
    precision: str | None = None
    """`float` for 32-bit, 16-bit and bfloat16 weights; quantised ones by their own name, such as `int8`."""

    def __post_init__(self) -> None:
        """Check the types, which files and servers may get wrong. Raises ConfigError."""
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value is not None and (fault := _field_fault(item.name, value)):
                raise ConfigError(f"a vector space's {item.name} is {str(value)[:80]!r}, which is {fault}")
        if self.model is None:
            raise ConfigError("a vector space needs the model's name")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote. Raises ConfigError for an unknown field."""
        names = {item.name for item in dataclasses.fields(cls)}
        for name in data:
            if name not in names:
                raise ConfigError(f"a vector space has no field {name!r}{did_you_mean(name, names)}")
        if "model" not in data:
            raise ConfigError("a vector space needs the model's name")
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields whose value is known."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @cached_property
    def id(self) -> str:
        """A short name for caches and indexes: the model, and a hash over every known field."""
        known = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        digest = hashlib.blake2b(known.encode(), digest_size=6, person=b"hf-gw-space").hexdigest()
        return f"{self.model}#{digest}"

    def differences(self, other: "VectorSpace") -> list[Difference]:
        """List the fields that are known in both spaces and differ; an empty list if the vectors may be mixed."""
        found: list[Difference] = []
        if self is other:
            return found
        for item in dataclasses.fields(self):
            left, right = getattr(self, item.name), getattr(other, item.name)
            if item.name == "model":
                same = canonical(left).lower() == canonical(right).lower()
            else:
                same = left is None or right is None or left == right
            if not same:
                found.append(Difference(item.name, left, right, _WHY[item.name]))
        return found

    def merged(self, other: "VectorSpace") -> "VectorSpace":
        """Return this space with its unknown fields filled from another one that does not differ from it."""
        known = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return VectorSpace(**{name: getattr(other, name) if value is None else value for name, value in known.items()})


def _field_fault(name: str, value: Any) -> str | None:
    """Return what is wrong with a field's value, or None."""
    if name in ("dimension", "max_tokens"):
        whole = isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_DIMENSION
        return None if whole else "not a whole number above 0"
    if name == "normalized":
        return None if isinstance(value, bool) else "not true or false"
    if not isinstance(value, str):
        return "not a text"
    return "not a text in any encoding" if _SURROGATES.search(value) else None


def canonical(model: str) -> str:
    """Return the full Hub id of a model: `all-MiniLM-L6-v2` belongs to sentence-transformers."""
    return f"sentence-transformers/{model}" if _OWNERLESS.fullmatch(model) else model
