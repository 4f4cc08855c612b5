"""`local` for sparse embeddings: a SPLADE model, or another sparse one, in this process."""

from hf_gateway.backends.base import Server
from hf_gateway.backends.local import LocalVectors
from hf_gateway.backends.sparse import SparseAbility
from hf_gateway.engines import open_sparse_engine, require_sparse_engine, sources
from hf_gateway.engines.choosing import engine_order
from hf_gateway.engines.protocols import SparseEngine
from hf_gateway.errors import ConfigError
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.sparse import SparseOptions

ENGINE = "sentence_transformers"
"""The engine that runs sparse models."""


class LocalSparse(LocalVectors[SparseEngine], SparseAbility):
    """Makes sparse vectors in this process, by sentence-transformers' SparseEncoder."""

    def __init__(self, server: Server, options: SparseOptions) -> None:
        super().__init__(server, options)
        named = self.target.options.get("engine")
        if named is not None and engine_order(self.target.options, cuda=False) != (ENGINE,):
            raise ConfigError(f"target {self.target.label!r}: sparse models run on torch, not on {named}")

    def probe(self) -> Effects:
        """Look for the model and the engine, and ask the Hub about a missing model; loads and downloads nothing."""
        runs = f", on {self._engine.device} by {self._engine.name}" if self._engine is not None else ""
        return self.server.find_model(self.require, runs)

    def require(self) -> None:
        """Raise EngineMissing if sentence-transformers is not installed."""
        require_sparse_engine()

    def open(self, files: sources.ModelFiles) -> SparseEngine:
        """Load the model."""
        return open_sparse_engine(files, self.whole_space(), self.target.options, self.target.revision)
