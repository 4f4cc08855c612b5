"""`local` for sparse embeddings: a SPLADE model, or another sparse one, in this process."""

from hf_gateway.backends.base import Server
from hf_gateway.backends.local import MAX_BYTES, MAX_TEXTS, LocalServer
from hf_gateway.backends.sparse import SparseAbility
from hf_gateway.engines import SparseEngine, open_sparse_engine, require_sparse_engine, sources
from hf_gateway.engines.choosing import engine_order
from hf_gateway.errors import BatchTooLarge, ConfigError, GatewayError
from hf_gateway.runtime.effects import Compute, Effects
from hf_gateway.settings.sparse import SparseOptions
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.http import json_size
from hf_gateway.values.sparse import SparseAnswer

ENGINE = "sentence_transformers"
"""The engine that runs sparse models."""


class LocalSparse(SparseAbility):
    """Makes sparse vectors in this process, by sentence-transformers' SparseEncoder."""

    server: LocalServer
    most_texts = MAX_TEXTS

    def __init__(self, server: Server, options: SparseOptions) -> None:
        super().__init__(server, options)
        named = self.target.options.get("engine")
        if named is not None and engine_order(self.target.options, cuda=False) != (ENGINE,):
            raise ConfigError(f"target {self.target.label!r}: sparse models run on torch, not on {named}")
        self._engine: SparseEngine | None = None

    @property
    def authoritative(self) -> bool:
        """Always True: the model's own files make the vectors."""
        return True

    @property
    def mixes_roles(self) -> bool:
        """Always False: a request is of one role."""
        return False

    def prepare(self) -> None:
        """Read the model's description; and find a key, if there is something to download."""
        if self._engine is not None:
            return
        if self._find_model() is not None:
            self.model_space()
            return
        super().prepare()

    def find_files(self, model: str) -> sources.ModelFiles | None:
        """Return the model's files on this machine. Raises ConfigError for a name that neither it nor the Hub can have."""
        return sources.find(model, self.target.revision)

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed in this process."""
        texts = request.texts
        if len(texts) > 1 and (len(texts) > MAX_TEXTS or sum(map(json_size, texts)) > MAX_BYTES):
            raise BatchTooLarge(
                f"takes {MAX_TEXTS} texts of {MAX_BYTES:,} bytes at once", max_texts=MAX_TEXTS, max_bytes=MAX_BYTES
            )
        return (yield Compute(lambda: self._compute(request), self.server.executor()))

    def probe(self) -> Effects:
        """Look for the model and the engine, and ask the Hub about a missing model; loads and downloads nothing."""
        runs = f", on {self._engine.device} by {self._engine.name}" if self._engine is not None else ""
        return self.server.find_model(require_sparse_engine, runs)

    def close(self) -> None:
        """Release the model and the thread."""
        self._engine = None
        super().close()

    def engine(self) -> SparseEngine:
        """Return the engine, loading the model first if needed."""
        with self.server.loading:
            engine = self._engine
            if engine is None:
                target = self.target
                assert target.model is not None
                require_sparse_engine()  # before a model is downloaded in vain
                files = self._find_model()
                if files is None:
                    trusted = bool(target.options.get("trust_remote_code"))
                    files = sources.fetch(target.model, target.revision, self.server.credential(), code=trusted)
                self._model_space = self.read_model_space()  # the files contain more than was known without them
                engine = self._engine = open_sparse_engine(files, self.space(), target.options, target.revision)
            return engine

    def _find_model(self) -> sources.ModelFiles | None:
        """Return the model's files; None if something must be downloaded."""
        assert self.target.model is not None
        files = sources.find(self.target.model, self.target.revision)
        return files if files is not None and sources.is_complete(files, "safetensors") else None

    def _compute(self, request: EmbedRequest) -> SparseAnswer:
        try:
            return self.engine().embed(request)
        except GatewayError as error:
            error.target = error.target or self.target.label
            raise
