"""Reranking by text-embeddings-inference, on a server of one's own or in a dedicated endpoint."""

from hf_gateway.backends.base import ProbeReport
from hf_gateway.backends.batching import Texts
from hf_gateway.backends.endpoint import EndpointServer
from hf_gateway.backends.rerank import RerankAbility
from hf_gateway.backends.tei import TeiServer
from hf_gateway.errors import BatchTooLarge, ModelNotFound
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


class TeiRerank(_TeiForm):
    """Calls `/rerank`, within the limits of `/info`."""

    server: TeiServer

    @property
    def context(self) -> int | None:
        """The server's maximum tokens of a query with a document; None until it was asked."""
        return self.server.info.max_tokens if self.server.info else None

    @property
    def most_texts(self) -> int:  # type: ignore[override]
        """Maximum documents per request; until the server was asked, its default."""
        return self.server.info.max_texts if self.server.info else tei.DEFAULT_MAX_TEXTS

    def note_batch_limit(self, limit: BatchTooLarge, request: Texts) -> None:
        """Ask `/info` again after a refusal: the server must have been replaced.

        Args:
            limit: the refusal.
            request: the refused batch.
        """
        super().note_batch_limit(limit, request)
        if limit.status is not None:
            self.server.info = None

    def rerank(self, request: RerankRequest) -> Effects:
        """Score a batch that fits; raises BatchTooLarge, before anything is sent, for one that does not."""
        yield from self.server.fetch_info(self._check)
        self.check_count(request)
        return (yield from self._score(request))

    def probe(self) -> Effects:
        """Ask `/info`; `/health` would answer without a key too."""
        self.server.info = None
        info = yield from self.server.fetch_info(self._check)
        return ProbeReport(
            [info.model], f"text-embeddings-inference {info.version or ''}, {info.max_texts} documents at once"
        )

    def _check(self, info: tei.Info) -> None:
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
