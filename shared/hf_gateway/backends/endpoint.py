"""`endpoint:<url>`: a dedicated Hugging Face Inference Endpoint, whichever container it runs for embeddings."""

from hf_gateway.backends.base import Backend, Report
from hf_gateway.drive import Effects
from hf_gateway.embedding import EmbedRequest
from hf_gateway.errors import ConfigError, ModelNotFound
from hf_gateway.wire import hf_inference, tei
from hf_gateway.wire.http import get

MAX_TEXTS = 32


class EndpointBackend(Backend):
    """Speaks to the root path, which both containers for embeddings serve: TEI's and the inference toolkit's.

    Options: `access` ("public" for an endpoint that needs no token).
    """

    kind = "endpoint"
    option_names = frozenset({"access"})
    tuning_options = option_names

    def __init__(self, *args: object, **named: object) -> None:
        """Check that there is a URL."""
        super().__init__(*args, **named)  # type: ignore[arg-type]
        if self.target.url is None:
            raise ConfigError(
                "target 'endpoint' needs its URL, such as 'endpoint:https://….endpoints.huggingface.cloud'"
            )
        if self.target.options.get("access", "protected") not in ("public", "protected", "private"):
            raise ConfigError(f"target {self.target.label!r}: access is 'public', 'protected' or 'private'")
        self._base = self.target.url

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch."""
        self.check_count(request, MAX_TEXTS)
        response = yield from self.ask(
            hf_inference.encode_feature_extraction(f"{self._base}/", self.prompted(request), truncate=request.truncate)
        )
        return hf_inference.decode_feature_extraction(
            response, len(request.texts), self.space().pooling, target=self.target.label
        )

    def probe(self) -> Effects:
        """Ask TEI's `/info`; an endpoint with another container has none, and answers nevertheless."""
        response = yield from self.ask(tei.encode_info(self._base))
        try:
            info = tei.decode_info(response, target=self.target.label)
        except ModelNotFound:
            yield from self.ask(get(f"{self._base}/health"))
            return Report([], "answers; its container does not say what it serves")
        return Report([info.model], f"text-embeddings-inference {info.version or ''}")
