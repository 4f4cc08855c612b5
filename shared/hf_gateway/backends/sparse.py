"""Base of all abilities that make sparse vectors."""

import dataclasses

from hf_gateway.backends.base import Server
from hf_gateway.backends.vectors import VectorAbility
from hf_gateway.engines import sources, sparse_files
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.sparse import SparseOptions
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.vector_space import VectorSpace


class SparseAbility(VectorAbility):
    """Makes sparse vectors of texts. A kind's class implements `embed` and `probe`, and overrides what differs."""

    options: SparseOptions

    def __init__(self, server: Server, options: SparseOptions) -> None:
        super().__init__(server, options)
        self.options = options

    def read_model_space(self) -> VectorSpace:
        """Determine the model's space, from the target and from files of this machine.

        Its pooling is never unknown, so that it is another space than that of the same model's dense vectors.
        """
        target = self.target
        named = VectorSpace(self.space_model(), target.revision)
        if target.model is not None and (files := self.find_files(named.model)) is not None:
            named = sparse_files.space_of(files, named.model, target.revision)
        if target.space is not None:
            named = target.space.merged(named)
        return named if named.pooling is not None else dataclasses.replace(named, pooling=sparse_files.SPLADE)

    def find_files(self, model: str) -> sources.ModelFiles | None:
        """Return the files of a sparse model on this machine; None also for a name that only the server knows."""
        return sources.find_served(model, self.target.revision)

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed; returns a `SparseAnswer`. Raises GatewayError."""
        raise NotImplementedError
