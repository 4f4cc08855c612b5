"""What watchers may know of a request for sparse vectors."""

from collections.abc import Mapping
from typing import Any

from hf_gateway.observing.record import RequestDetails
from hf_gateway.tasks.vectors import CHECK_TOKENS
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.sparse import SparseResult
from hf_gateway.values.task_facts import SPARSE
from hf_gateway.values.text import utf8_bytes
from hf_gateway.values.usage import Usage


class SparseDetails(RequestDetails[EmbedRequest, SparseResult]):
    """A request for sparse vectors, as the service of the task records it."""

    task = SPARSE

    def request_columns(self) -> Mapping[str, Any]:
        """Count the texts."""
        return {"inputs": len(self.request.texts)}

    def result_columns(self, result: SparseResult) -> Mapping[str, Any]:
        """Take the result's space."""
        return {"space_id": result.space.id}

    def ceiling(self) -> Usage:
        """Count the texts' bytes: no vocabulary needs more tokens than a text has bytes in UTF-8."""
        return Usage(sum(map(utf8_bytes, self.request.texts)) + CHECK_TOKENS)

    def span_attributes(self, *, content: bool) -> Mapping[str, Any]:  # noqa: ARG002 - texts are in no span
        """Return the number of texts, and the space of the vectors."""
        from hf_gateway.telemetry import names

        attributes: dict[str, Any] = {names.TEXTS: len(self.request.texts)}
        if self.result is not None:
            attributes[names.SPACE] = self.result.space.id
        return attributes

    def prompt(self) -> Any:
        """Return the texts."""
        return list(self.request.texts)
