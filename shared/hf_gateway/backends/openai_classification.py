"""Classification by servers with OpenAI's API and the route `/classify`."""

from collections.abc import Sequence

from hf_gateway.backends.base import ProbeReport, Server
from hf_gateway.backends.classification import ClassifyAbility
from hf_gateway.backends.openai import DEFAULT_MAX_TEXTS, PROBE_TEXT, OpenAIServer
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.classification import ClassifyOptions
from hf_gateway.values.labels import ClassifyRequest
from hf_gateway.wire.openai_classification import decode_classify, encode_classify


class OpenAIClassify(ClassifyAbility):
    """Calls `/classify` of infinity, vLLM or SGLang. infinity truncates a text that is too long, others refuse it."""

    server: OpenAIServer
    max_bytes = 8_000_000

    def __init__(self, server: Server, options: ClassifyOptions) -> None:
        super().__init__(server, options)
        self.most_texts = self.target.options.get("max_texts") or DEFAULT_MAX_TEXTS

    def classify(self, request: ClassifyRequest) -> Effects:
        """Label each text of a batch."""
        self.refuse_images(request)
        self.refuse_pairs(request)
        self.refuse_labels(request, "'hf', 'tei' or 'local'")
        self.check_count(request)
        return (yield from self._classify(request.texts, request.scale == "logit"))

    def _classify(self, texts: Sequence[str], raw_scores: bool = False) -> Effects:
        message = encode_classify(self.server.base_url, self.target.model, texts, raw_scores=raw_scores)
        response = yield from self.ask(message)
        return decode_classify(response, len(texts), target=self.target.label, raw_scores=raw_scores)

    def probe(self) -> Effects:
        """List the models, and classify one word, since a list does not show which models have labels."""
        report: ProbeReport = yield from self.server.list_models()
        yield from self._classify([PROBE_TEXT])
        return report
