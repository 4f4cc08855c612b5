"""`endpoint:<url>`: a dedicated Hugging Face Inference Endpoint, whichever container it runs."""

from hf_gateway.backends.base import ProbeReport, Server
from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.backends.openai_chat import OpenAIFormChat
from hf_gateway.backends.option_types import OPTION_TYPES
from hf_gateway.backends.served import ProbeOnce, space_from_info
from hf_gateway.backends.thoughts import OPENAI_REASONING
from hf_gateway.backends.thoughts import OPTIONS as CHAT_OPTIONS
from hf_gateway.errors import ModelNotFound
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.values import kinds
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.wire import hf_inference, openai, tei
from hf_gateway.wire.http import get

MAX_TEXTS = 32


class EndpointEmbedding(EmbeddingAbility):
    """Calls the root path, which both containers for embeddings serve: TEI's and the inference toolkit's."""

    most_texts = MAX_TEXTS

    def __init__(self, server: Server, options: EmbedOptions) -> None:
        super().__init__(server, options)
        self._asked = ProbeOnce()

    def served_space(self) -> Effects:
        """Ask TEI's `/info`, which other containers do not have."""
        return (yield from self._asked.run(self._fetch_space, self.target.label))

    def _fetch_space(self) -> Effects:
        response = yield from self.ask(tei.encode_info(self.server.base_url))
        info = tei.decode_info(response, target=self.target.label)
        return space_from_info(info, self) if info.embeds else None

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch."""
        self.check_count(request)
        response = yield from self.ask(
            hf_inference.encode_feature_extraction(
                f"{self.server.base_url}/", self.add_prompts(request), truncate=request.truncate
            )
        )
        return hf_inference.decode_feature_extraction(
            response, len(request.texts), self.space().pooling, target=self.target.label
        )

    def probe(self) -> Effects:
        """Ask TEI's `/info`; an endpoint with another container does not have it, and counts as available nevertheless."""
        response = yield from self.ask(tei.encode_info(self.server.base_url))
        try:
            info = tei.decode_info(response, target=self.target.label)
        except ModelNotFound:
            yield from self.ask(get(f"{self.server.base_url}/health"))
            return ProbeReport([], "answers; its container does not report what it serves")
        return ProbeReport([info.model], f"text-embeddings-inference {info.version or ''}")


class EndpointChat(OpenAIFormChat):
    """Calls `/v1/chat/completions`, as the containers for chat serve it: TGI, vLLM, SGLang, llama.cpp."""

    def probe(self) -> Effects:
        """List the models."""
        response = yield from self.ask(openai.encode_models(self.server.base_url))
        return ProbeReport(openai.decode_models(response, target=self.target.label), "OpenAI-compatible")


class EndpointServer(Server):
    """A dedicated endpoint.

    Options: `access` ("public" for an endpoint that needs no token); for chat `stream_usage` (False for a container without
    stream_options), `stream` (False for one that cannot stream), `send_reasoning` and `think_tags`, as for `openai`.
    """

    kind = kinds.ENDPOINT
    abilities = {
        "embedding": EndpointEmbedding,
        "chat": EndpointChat,
        "image": "hf_gateway.backends.endpoint_image:EndpointImage",
        "classification": "hf_gateway.backends.endpoint_classification:EndpointClassify",
        "rerank": "hf_gateway.backends.tei_rerank:EndpointRerank",
    }
    option_types = {**OPTION_TYPES, "send_reasoning": OPENAI_REASONING}
    option_names = frozenset({"access", "stream", "stream_usage"}) | CHAT_OPTIONS
    tuning_options = option_names
