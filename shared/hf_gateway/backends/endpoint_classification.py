"""Classification by a dedicated Inference Endpoint: the inference toolkit's container, or text-embeddings-inference."""

from hf_gateway.backends.base import ProbeReport, Server
from hf_gateway.backends.classification import ClassifyAbility
from hf_gateway.backends.endpoint import EndpointServer
from hf_gateway.backends.tei_classification import Prediction, check_classifier, check_texts_at_once
from hf_gateway.errors import BadResponse, InvalidRequest, ModelNotFound
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.classification import ClassifyOptions
from hf_gateway.values.labels import ClassifyRequest
from hf_gateway.wire import tei
from hf_gateway.wire.hf_classification import decode_labels, encode_toolkit
from hf_gateway.wire.http import get


class EndpointClassify(ClassifyAbility):
    """Asks `/info` once, which only text-embeddings-inference has: it reads lists of texts otherwise than the toolkit."""

    server: EndpointServer
    max_bytes = 20_000_000

    def __init__(self, server: Server, options: ClassifyOptions) -> None:
        super().__init__(server, options)
        self._info: tei.Info | None = None
        self._asked = False

    def classify(self, request: ClassifyRequest) -> Effects:
        """Label a batch; the toolkit gets one input in a request."""
        info: tei.Info | None = yield from self._fetch_info()
        if info is not None:
            self.refuse_images(request)
            check_classifier(info, self.target.label)
            check_texts_at_once(request, info.max_texts, tei.DEFAULT_MAX_BYTES)
            return (yield from Prediction(self, self.server.base_url).of(request, info))
        self.check_one(request)
        response = yield from self.ask(encode_toolkit(f"{self.server.base_url}/", request))
        return decode_labels(response, target=self.target.label)

    def probe(self) -> Effects:
        """Ask `/info`; an endpoint with another container does not have it, and counts as available nevertheless."""
        self._asked = False
        info: tei.Info | None = yield from self._fetch_info()
        if info is None:
            yield from self.ask(get(f"{self.server.base_url}/health"))
            return ProbeReport([], "answers; its container does not report what it serves")
        check_classifier(info, self.target.label)
        return ProbeReport([info.model], f"text-embeddings-inference {info.version or ''}, {len(info.labels)} labels")

    def _fetch_info(self) -> Effects:
        """Return the report of text-embeddings-inference; None for another container."""
        if not self._asked:
            response = yield from self.ask(tei.encode_info(self.server.base_url))
            try:
                self._info = tei.decode_info(response, target=self.target.label)
            except (BadResponse, InvalidRequest, ModelNotFound):
                self._info = None
            self._asked = True
        return self._info
