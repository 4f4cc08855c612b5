"""`openai:<url>`: any server with OpenAI's API, for embeddings or chat."""

from hf_gateway.backends.base import ProbeReport, Server
from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.backends.gateway_space import GatewaySpace
from hf_gateway.backends.openai_chat import OpenAIFormChat
from hf_gateway.backends.openai_embeddings import Embeddings
from hf_gateway.backends.option_types import OPTION_TYPES
from hf_gateway.backends.served import ProbeOnce
from hf_gateway.backends.thoughts import OPENAI_REASONING
from hf_gateway.backends.thoughts import OPTIONS as CHAT_OPTIONS
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.values import kinds
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.http import HttpResponse
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.wire import openai, spaces
from hf_gateway.wire.http import read_json

DEFAULT_MAX_TEXTS = 256
PROBE_TEXT = "word"
"""A single token: the cost of finding out whether a server supports embeddings."""


class OpenAIEmbedding(EmbeddingAbility):
    """Embeddings by a server with OpenAI's API."""

    server: "OpenAIServer"
    max_bytes = 8_000_000

    def __init__(self, server: Server, options: EmbedOptions) -> None:
        super().__init__(server, options)
        self._embeddings = Embeddings(self, self.target.options.get("encoding", "auto"))
        self.most_texts = self.target.options.get("max_texts") or DEFAULT_MAX_TEXTS
        self._asked = ProbeOnce()
        self._gateway = GatewaySpace(self, self._fetch_reported)

    @property
    def one_role(self) -> bool:
        """Whether queries and documents get the same vectors here; not known of a server that has the prompts itself."""
        return super().one_role and self._gateway.reported is None

    @property
    def mixes_roles(self) -> bool:
        """Whether one request may contain texts of both roles: a request to such a server names one."""
        return self._gateway.reported is None

    @property
    def reported_space(self) -> VectorSpace | None:
        """The space that a server of this package has reported."""
        return self._gateway.comparable()

    def served_space(self) -> Effects:
        """Return the space that a server of this package has reported with an answer.

        Others are asked at `/v1/models` where texts are truncated, if they may be; they report no more about their vectors.
        """
        if (reported := self.reported_space) is not None or not self.options.truncate:
            return reported
        return (yield from self._asked.run(self._fetch_space, self.target.label))

    def _fetch_reported(self, space_id: str) -> Effects:
        response = yield from self.ask(spaces.encode_space(self.server.base_url, space_id))
        return spaces.decode_space(response, target=self.target.label)

    def _fetch_space(self) -> Effects:
        response = yield from self.ask(openai.encode_models(self.server.base_url))
        length = context_length(response, self.target.model, self.target.label)
        return VectorSpace(self.model_space().model, max_tokens=length) if length else None

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch."""
        self.check_count(request)
        url = openai.embeddings_url(self.server.base_url)
        return (yield from self._embeddings.in_space(url, request, self._gateway))

    def probe(self) -> Effects:
        """List the models, and embed one word, since a list does not show which models support embeddings."""
        report: ProbeReport = yield from self.server.list_models()
        yield from self._embeddings.of(openai.embeddings_url(self.server.base_url), [PROBE_TEXT])
        return report


class OpenAIChat(OpenAIFormChat):
    """Chat with a server that has OpenAI's API."""

    server: "OpenAIServer"

    def probe(self) -> Effects:
        """List the models."""
        return self.server.list_models()


class OpenAIServer(Server):
    """A server of vLLM, TGI, llama.cpp, LM Studio, transformers serve, infinity and the like.

    A URL without a path gets `/v1/embeddings` (or `/v1/chat/completions`), one with a path `/embeddings`, and one that ends in
    `/embeddings` is used unchanged; for reranking likewise with `/rerank`. Options: `encoding` ("auto": base64, a quarter of the
    bytes, unless the server refuses it; "float" and "base64" request only that one), `max_texts` (texts per request, 256;
    documents, 200); for reranking `scores` ("auto": found by their values; "probability" or "logit"); for chat `stream_usage`
    (False for a server without stream_options), `stream` (False for one that cannot stream), `send_reasoning` ("auto": the
    reasoning of turns with tool calls is sent back under the name in the server's answers, unless it refuses that; "never"; or
    the name, "reasoning_content" or "reasoning") and `think_tags` ("auto": `<think>…</think>` at the beginning of an answer is
    reasoning; "opened": the prompt ends with the opening tag; "keep": the text is not changed).
    """

    kind = kinds.OPENAI
    abilities = {
        "embedding": OpenAIEmbedding,
        "chat": OpenAIChat,
        "image": "hf_gateway.backends.openai_image:OpenAIImage",
        "classification": "hf_gateway.backends.openai_classification:OpenAIClassify",
        "rerank": "hf_gateway.backends.openai_rerank:OpenAIRerank",
    }
    option_types = {**OPTION_TYPES, "send_reasoning": OPENAI_REASONING}
    option_names = frozenset({"encoding", "max_texts", "scores", "stream", "stream_usage"}) | CHAT_OPTIONS
    tuning_options = option_names

    def list_models(self) -> Effects:
        """List the models; returns a `ProbeReport`."""
        response = yield from self.ask(openai.encode_models(self.base_url))
        return ProbeReport(openai.decode_models(response, target=self.target.label), "OpenAI-compatible")


def context_length(response: HttpResponse, model: str | None, target: str) -> int | None:
    """Read the maximum tokens of a model, as vLLM, llama.cpp or a hosted provider report it.

    Args:
        response: the server's response.
        model: the model's name there.
        target: label for errors.
    """
    data = read_json(response, target=target)
    entries = data.get("data") if isinstance(data, dict) else None
    listed = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    mine = [entry for entry in listed if entry.get("id") == model] or (listed if len(listed) == 1 else [])
    if not mine:
        return None
    meta = mine[0].get("meta")
    said = [
        meta.get("n_ctx") if isinstance(meta, dict) else None,
        *(mine[0].get(name) for name in ("max_model_len", "context_length", "context_window")),
    ]
    return next((length for length in said if type(length) is int and length > 0), None)
