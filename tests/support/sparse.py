"""Both forms of a call for sparse vectors behind one name."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hf_gateway import SparseGateway, errors
from hf_gateway.testing import ManualClock
from hf_gateway.values.embedding import Role
from hf_gateway.values.sparse import SparseResult
from tests.servers.tei import FakeTEI, word_weights

FORMS = ("sync", "async")
MODEL = "test/splade"
"""A model that no file describes."""
PATH = "/embed_sparse"


class SparseCall:
    """A chain of sparse embeddings, called in one of the forms. clock: stands still until somebody waits."""

    def __init__(self, form: str, targets: Sequence[Any], **settings: Any) -> None:
        """Build it."""
        self.form = form
        self.clock = ManualClock()
        self.gateway = SparseGateway(settings.pop("model", MODEL), list(targets), clock=self.clock, **settings)

    def embed(self, texts: Any, role: Role = "document") -> SparseResult:
        """Embed."""
        if self.form == "async":
            return asyncio.run(self.gateway.aembed(texts, role=role))
        return self.gateway.embed(texts, role=role)

    def served_by(self, texts: Sequence[str] = ("one", "two words")) -> tuple[str, ...]:
        """Embed, check that the vectors are right, and return the targets that made them."""
        result = self.embed(texts)
        assert [vector.to_dict() for vector in result.vectors] == weights(texts)
        return result.served_by

    def refused(self, error: type[errors.GatewayError], texts: Any = ("one", "two words")) -> Any:
        """Embed, and return the error, which is of this class."""
        with pytest.raises(error) as caught:
            self.embed(texts)
        return caught.value


Make = Callable[..., SparseCall]


def weights(texts: Sequence[str]) -> list[dict[int, float]]:
    """Return the weights that the fake server gives to texts."""
    return [{entry["index"]: entry["value"] for entry in row} for row in word_weights(list(texts))]


def splade(**settings: Any) -> FakeTEI:
    """Start a server with a SPLADE model."""
    return FakeTEI(**{"pooling": "splade", "model_id": MODEL, "embed": lambda texts: [[1.0]] * len(texts), **settings})


def chain(*servers: FakeTEI) -> list[str]:
    """Name servers as targets."""
    return [f"tei:{server.url}" for server in servers]
