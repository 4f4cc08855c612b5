"""Reranking by a cross-encoder in this process."""

from hf_gateway.backends.local import LocalLabelled, check_size
from hf_gateway.backends.rerank import RerankAbility
from hf_gateway.engines import open_cross_encoder, require_cross_encoder, sources
from hf_gateway.engines.choosing import PACKAGES
from hf_gateway.engines.protocols import CrossEncoderEngine
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.rerank import RerankRequest

MAX_DOCUMENTS = 32
"""Limits the time between two chances to cancel: each document is read with the query by the whole model."""
MAX_BYTES = 64_000
"""The same for long documents."""


class LocalRerank(LocalLabelled[CrossEncoderEngine], RerankAbility):
    """Scores pairs in this process, by a graph of the model's weights, or by sentence-transformers on torch."""

    most_texts = MAX_DOCUMENTS
    on_torch = PACKAGES["sentence_transformers"]

    @property
    def context(self) -> int | None:
        """Maximum tokens of a query with a document, once the model is loaded."""
        return self._engine.context if self._engine is not None else None

    def rerank(self, request: RerankRequest) -> Effects:
        """Score the documents in this process."""
        check_size(request.documents, MAX_DOCUMENTS, MAX_BYTES, "documents")
        return (yield from self.compute(lambda engine: engine.rerank(request)))

    def require(self) -> None:
        """Raise EngineMissing if no engine is installed that the options allow."""
        require_cross_encoder(self.target.options)

    def open(self, files: sources.ModelFiles) -> CrossEncoderEngine:
        """Load the model."""
        return open_cross_encoder(files, self.target.options, self.target.revision)
