"""Reranking by text-embeddings-inference, on a server of one's own or in a dedicated endpoint."""

from hf_gateway.backends.base import ProbeReport
from hf_gateway.backends.endpoint import EndpointServer
from hf_gateway.backends.rerank import RerankAbility
from hf_gateway.backends.tei import TeiAbility
from hf_gateway.errors import ModelNotFound
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.rerank import RerankRequest
from hf_gateway.wire import tei


class _TeiForm(RerankAbility):
    """Calls `/rerank`."""

    max_bytes = tei.DEFAULT_MAX_BYTES

    def _score(self, request: RerankRequest) -> Effects:
        scale = self.options.scale
        message = tei.encode_rerank(
            self.server.base_url,
            request.query,
            request.documents,
            truncate=request.truncate,
            raw_scores=scale == "logit",
        )
        response = yield from self.ask(message)
        return tei.decode_rerank(response, len(request.documents), scale, target=self.target.label)


class TeiRerank(TeiAbility, _TeiForm):
    """Calls `/rerank`, within the limits of `/info`."""

    def rerank(self, request: RerankRequest) -> Effects:
        """Score a batch that fits; raises BatchTooLarge, before anything is sent, for one that does not."""
        yield from self.fetch_info()
        self.check_count(request)
        return (yield from self._score(request))

    def limits(self, info: tei.Info) -> str:
        """Return how many documents the server takes at once."""
        return f"{info.max_texts} documents at once"

    def check_info(self, info: tei.Info) -> None:
        """Raise ModelNotFound for a server without a reranker."""
        _require_reranker(info, self.target.label)


class EndpointRerank(_TeiForm):
    """Calls `/rerank` of the endpoint's container, text-embeddings-inference."""

    server: EndpointServer
    most_texts = tei.DEFAULT_MAX_TEXTS

    def rerank(self, request: RerankRequest) -> Effects:
        """Score a batch."""
        self.check_count(request)
        return (yield from self._score(request))

    def probe(self) -> Effects:
        """Ask `/info`."""
        info = tei.decode_info((yield from self.ask(tei.encode_info(self.server.base_url))), target=self.target.label)
        _require_reranker(info, self.target.label)
        return ProbeReport([info.model], f"text-embeddings-inference {info.version or ''}")


def _require_reranker(info: tei.Info, target: str) -> None:
    if info.kind != tei.RERANKER:
        raise ModelNotFound(f"serves a {info.kind}, {info.model}, not a reranker", target=target)
