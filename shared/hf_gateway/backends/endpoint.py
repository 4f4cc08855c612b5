"""`endpoint:<url>`: a dedicated Hugging Face Inference Endpoint, whichever container it runs."""

from hf_gateway.backends.base import ProbeReport
from hf_gateway.backends.openai_chat import OpenAIChat
from hf_gateway.backends.option_types import OPTION_TYPES
from hf_gateway.backends.served import ProbeOnce, space_from_info
from hf_gateway.backends.thoughts import OPTIONS as CHAT_OPTIONS
from hf_gateway.errors import ConfigError, ModelNotFound
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.wire import hf_inference, openai, tei
from hf_gateway.wire.http import get

MAX_TEXTS = 32


class EndpointBackend(OpenAIChat):
    """Speaks to the root path, which both containers for embeddings serve: TEI's and the inference toolkit's.

    For chat to `/v1/chat/completions`, as its containers for that do: TGI, vLLM, SGLang, llama.cpp. Options: `access` ("public"
    for an endpoint that needs no token); for chat `stream_usage` (False for a container that knows no stream_options), `stream`
    (False for one that cannot stream), `send_reasoning` and `think_tags`, as for `openai`.
    """

    kind = "endpoint"
    most_texts = MAX_TEXTS
    option_types = OPTION_TYPES
    option_names = frozenset({"access", "stream", "stream_usage"}) | CHAT_OPTIONS
    tuning_options = option_names

    def __init__(self, *args: object, **named: object) -> None:
        """Check that there is a URL."""
        super().__init__(*args, **named)
        if self.target.url is None:
            raise ConfigError(
                "target 'endpoint' needs its URL, such as 'endpoint:https://….endpoints.huggingface.cloud'"
            )
        if self.target.options.get("access", "protected") not in ("public", "protected", "private"):
            raise ConfigError(f"target {self.target.label!r}: access is 'public', 'protected' or 'private'")
        self._base = self.target.url
        self._asked = ProbeOnce()

    def served_space(self) -> Effects:
        """Ask TEI's `/info`, which other containers do not have."""
        return (yield from self._asked.run(self._fetch_space, self.target.label))

    def _fetch_space(self) -> Effects:
        response = yield from self.ask(tei.encode_info(self._base))
        info = tei.decode_info(response, target=self.target.label)
        return space_from_info(info, self) if info.kind == "embedding" else None

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch."""
        self.check_count(request)
        response = yield from self.ask(
            hf_inference.encode_feature_extraction(
                f"{self._base}/", self.add_prompts(request), truncate=request.truncate
            )
        )
        return hf_inference.decode_feature_extraction(
            response, len(request.texts), self.space().pooling, target=self.target.label
        )

    def probe(self) -> Effects:
        """Ask TEI's `/info`; an endpoint with another container has none, and answers nevertheless."""
        if self.options.task == "chat":
            response = yield from self.ask(openai.encode_models(self._base))
            return ProbeReport(openai.decode_models(response, target=self.target.label), "OpenAI-compatible")
        response = yield from self.ask(tei.encode_info(self._base))
        try:
            info = tei.decode_info(response, target=self.target.label)
        except ModelNotFound:
            yield from self.ask(get(f"{self._base}/health"))
            return ProbeReport([], "answers; its container does not say what it serves")
        return ProbeReport([info.model], f"text-embeddings-inference {info.version or ''}")
