"""What watchers may know of a request for a ranking."""

from collections.abc import Mapping
from typing import Any

from hf_gateway.observing.record import RequestDetails
from hf_gateway.values.rerank import RerankRequest, RerankResult
from hf_gateway.values.task_facts import RERANK
from hf_gateway.values.text import utf8_bytes
from hf_gateway.values.usage import Usage

PAIR_TOKENS = 8
"""Maximum that a model puts around a query and a document."""


class RerankDetails(RequestDetails[RerankRequest, RerankResult]):
    """A request for a ranking, as the service of the task records it."""

    task = RERANK

    def request_columns(self) -> Mapping[str, Any]:
        """Count the documents."""
        return {"inputs": len(self.request.documents)}

    def ceiling(self) -> Usage:
        """Count the documents and the bytes: each document is read with the query, and no text has more tokens than bytes."""
        documents = self.request.documents
        pairs = len(documents) * (utf8_bytes(self.request.query) + PAIR_TOKENS)
        return Usage(sum(map(utf8_bytes, documents)) + pairs, documents=len(documents))

    def prompt(self) -> Any:
        """Return the query and the documents."""
        return {"query": self.request.query, "documents": list(self.request.documents)}

    def answer(self) -> Any:
        """Return the indexes and scores, best first."""
        return None if self.result is None else [[hit.index, hit.score] for hit in self.result.hits]
