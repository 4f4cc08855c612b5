"""Reranking by a cross-encoder in this process."""

from hf_gateway.backends.base import Server
from hf_gateway.backends.local import LocalAbility, check_size
from hf_gateway.backends.rerank import RerankAbility
from hf_gateway.engines import CrossEncoderEngine, open_cross_encoder, require_cross_encoder, sources
from hf_gateway.errors import ConfigError
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.rerank import RerankOptions
from hf_gateway.values.rerank import RerankRequest

MAX_DOCUMENTS = 32
"""Limits the time between two chances to cancel: each document is read with the query by the whole model."""
MAX_BYTES = 64_000
"""The same for long documents."""


class LocalRerank(LocalAbility[CrossEncoderEngine], RerankAbility):
    """Scores pairs in this process, by sentence-transformers on torch."""

    most_texts = MAX_DOCUMENTS

    def __init__(self, server: Server, options: RerankOptions) -> None:
        super().__init__(server, options)
        if (named := self.target.options.get("engine")) not in (
            None,
            "torch",
            "sentence-transformers",
            "sentence_transformers",
        ):
            raise ConfigError(
                f"target {self.target.label!r}: rerankers run on torch only, not on {named!r}; omit the option engine"
            )

    @property
    def context(self) -> int | None:
        """Maximum tokens of a query with a document, once the model is loaded."""
        return self._engine.context if self._engine is not None else None

    def rerank(self, request: RerankRequest) -> Effects:
        """Score the documents in this process."""
        check_size(request.documents, MAX_DOCUMENTS, MAX_BYTES, "documents")
        return (yield from self.compute(lambda engine: engine.rerank(request)))

    def require(self) -> None:
        """Raise EngineMissing if sentence-transformers is not installed."""
        require_cross_encoder()

    def open(self, files: sources.ModelFiles) -> CrossEncoderEngine:
        """Load the model."""
        return open_cross_encoder(files, self.target.options, self.target.revision)
