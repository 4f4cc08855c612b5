"""Reranking by `POST /v1/rerank`, as vLLM, infinity, Jina, Cohere and llama.cpp serve it."""

from collections.abc import Sequence
from dataclasses import replace

from hf_gateway.backends.base import ProbeReport, Server
from hf_gateway.backends.openai import OpenAIServer
from hf_gateway.backends.rerank import RerankAbility
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.rerank import RerankOptions
from hf_gateway.values.rerank import RerankRequest, Scale
from hf_gateway.wire import openai, ranking

DEFAULT_MAX_DOCUMENTS = 200
"""A multiple of 100, by which Cohere bills, and few enough for a server without a GPU to score in one attempt."""
PROBE_TEXT = "word"
"""A single token: the cost of finding out whether a server reranks."""


class OpenAIRerank(RerankAbility):
    """Calls `/v1/rerank`.

    The scale of the scores is the option `scores`, or found by their values: scores outside of 0 to 1 are logits, from then on.
    """

    server: OpenAIServer
    max_bytes = 8_000_000

    def __init__(self, server: Server, options: RerankOptions) -> None:
        super().__init__(server, options)
        given = self.target.options.get("scores", "auto")
        self._scale: Scale | None = None if given == "auto" else given
        self._refuses_truncation = False
        self.most_texts = self.target.options.get("max_texts") or DEFAULT_MAX_DOCUMENTS

    def rerank(self, request: RerankRequest) -> Effects:
        """Score a batch. With `truncate` the server is asked to truncate, unless it refuses that field."""
        self.check_count(request)
        return (yield from self._score(request.query, request.documents, request.truncate))

    def probe(self) -> Effects:
        """List the models, and score one word, since a list does not show which models rerank."""
        report: ProbeReport = yield from self.server.list_models()
        yield from self._score(PROBE_TEXT, [PROBE_TEXT], False)
        return report

    def _score(self, query: str, documents: Sequence[str], truncate: bool) -> Effects:
        url, model = openai.endpoint(self.server.base_url, "rerank"), self.target.model
        truncate = truncate and not self._refuses_truncation
        response = yield from self.ask(ranking.encode_rerank(url, model, query, documents, truncate=truncate))
        if truncate and ranking.refuses_truncation(response):
            response = yield from self.ask(ranking.encode_rerank(url, model, query, documents))
            self._refuses_truncation = 200 <= response.status < 300
        answer = ranking.decode_rerank(response, len(documents), self._scale, target=self.target.label)
        if self._scale is None and not all(0 <= score <= 1 for score in answer.scores):
            self._scale = "logit"
            return replace(answer, scale="logit")
        return answer
