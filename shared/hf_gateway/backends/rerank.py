"""Base of all rerank abilities."""

from hf_gateway.backends.base import Server
from hf_gateway.backends.batching import BatchingAbility
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.rerank import RerankOptions
from hf_gateway.values.rerank import RerankRequest


class RerankAbility(BatchingAbility):
    """Scores documents by a query. A kind's class implements `rerank` and `probe`."""

    options: RerankOptions

    def __init__(self, server: Server, options: RerankOptions) -> None:
        super().__init__(server, options)
        self.options = options

    def rerank(self, request: RerankRequest) -> Effects:
        """Score each document of a batch; returns a `RerankAnswer`. Raises GatewayError."""
        raise NotImplementedError
