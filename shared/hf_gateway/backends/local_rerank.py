"""Reranking by a cross-encoder in this process."""

from hf_gateway.backends.base import ProbeReport, Server
from hf_gateway.backends.local import LocalServer
from hf_gateway.backends.rerank import RerankAbility
from hf_gateway.engines import CrossEncoderEngine, open_cross_encoder, require_cross_encoder, sources
from hf_gateway.errors import BatchTooLarge, ConfigError, GatewayError
from hf_gateway.runtime.effects import Compute, Effects
from hf_gateway.settings.rerank import RerankOptions
from hf_gateway.values.http import json_size
from hf_gateway.values.rerank import RerankAnswer, RerankRequest

MAX_DOCUMENTS = 32
"""Limits the time between two chances to cancel: each document is read with the query by the whole model."""
MAX_BYTES = 64_000
"""The same for long documents."""


class LocalRerank(RerankAbility):
    """Scores pairs in this process, by sentence-transformers on torch."""

    server: LocalServer
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
        self._engine: CrossEncoderEngine | None = None

    @property
    def context(self) -> int | None:
        """Maximum tokens of a query with a document, once the model is loaded."""
        return self._engine.context if self._engine is not None else None

    def prepare(self) -> None:
        """Find a key, if there is something to download."""
        if self._engine is None and self._find_files() is None:
            super().prepare()

    def rerank(self, request: RerankRequest) -> Effects:
        """Score the documents in this process."""
        documents = request.documents
        if len(documents) > 1 and (len(documents) > MAX_DOCUMENTS or sum(map(json_size, documents)) > MAX_BYTES):
            raise BatchTooLarge(
                f"takes {MAX_DOCUMENTS} documents of {MAX_BYTES:,} bytes at once",
                max_texts=MAX_DOCUMENTS,
                max_bytes=MAX_BYTES,
            )
        return (yield Compute(lambda: self._compute(request), self.server.executor()))

    def probe(self) -> Effects:
        """Look for the model and the engine, and ask the Hub about a missing model; loads and downloads nothing."""
        report: ProbeReport = yield from self.server.find_model(require_cross_encoder)
        return report

    def close(self) -> None:
        """Release the model and the thread."""
        self._engine = None
        super().close()

    def engine(self) -> CrossEncoderEngine:
        """Return the engine, loading the model first if needed."""
        with self.server.loading:
            if self._engine is None:
                target = self.target
                assert target.model is not None
                require_cross_encoder()  # before a model of gigabytes is downloaded in vain
                trusted = bool(target.options.get("trust_remote_code"))
                files = self._find_files() or sources.fetch(
                    target.model, target.revision, self.server.credential(), code=trusted
                )
                self._engine = open_cross_encoder(files, target.options, target.revision)
            return self._engine

    def _find_files(self) -> sources.ModelFiles | None:
        """Return the model's files; None if something must be downloaded."""
        assert self.target.model is not None
        files = sources.find(self.target.model, self.target.revision)
        return files if files is not None and sources.is_complete(files, "safetensors") else None

    def _compute(self, request: RerankRequest) -> RerankAnswer:
        try:
            return self.engine().rerank(request)
        except GatewayError as error:
            error.target = error.target or self.target.label
            raise
