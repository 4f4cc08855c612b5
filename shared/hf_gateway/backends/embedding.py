"""Base of all embedding abilities."""

import dataclasses
from typing import Any

from hf_gateway.backends.base import Server
from hf_gateway.backends.vectors import VectorAbility
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.vector_space import VectorSpace


class EmbeddingAbility(VectorAbility):
    """Embeds texts. A kind's class implements `embed` and `probe`, and overrides what differs."""

    options: EmbedOptions

    def __init__(self, server: Server, options: EmbedOptions) -> None:
        super().__init__(server, options)
        self.options = options

    def space(self) -> VectorSpace:
        """Return the space that is declared for this target: by the target itself, the model's files, the chain's options.

        Reads only files of this machine; what is not declared is None.
        """
        options = self.options
        changes: dict[str, Any] = {}
        if options.dimensions is not None:
            changes["dimension"] = options.dimensions
        if options.normalize:
            changes["normalized"] = True
        space = super().space()
        return dataclasses.replace(space, **changes) if changes else space

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed; returns an `EmbedAnswer` with the model's whole vectors. Raises GatewayError."""
        raise NotImplementedError
