"""HFGatewayReranker: LangChain's `BaseDocumentCompressor` over a hf-gateway chain."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import PrivateAttr

from hf_gateway.framework_base import RerankMixin, build_gateway
from hf_gateway.settings.rerank import RerankSettings
from langchain_hf_gateway.errors import as_model_errors

if TYPE_CHECKING:
    from hf_gateway.tasks.rerank.gateway import RerankGateway


class HFGatewayReranker(RerankMixin, RerankSettings, BaseDocumentCompressor):
    """A Hugging Face reranker, from the first of its targets that can serve.

    Setup:
        ```bash
        pip install "hf-gateway[langchain,torch]"
        ```

    Example:
        ```python
        from langchain_core.documents import Document
        from langchain_hf_gateway import HFGatewayReranker

        reranker = HFGatewayReranker(targets=["lexical"], top_n=1)  # or model="BAAI/bge-reranker-base"
        found = [Document(page_content="list comprehensions"), Document(page_content="how to catch an exception")]
        best = reranker.compress_documents(found, "catch an exception")
        print(best[0].page_content, best[0].metadata["relevance_score"])
        ```

    Args:
        model: Hub id of the model, or a folder.
        targets: where to go, in this order, such as "local", "tei:http://localhost:8080" or, as the last one, "lexical".
        revision: commit, branch or tag of the model, for targets that load it themselves.
        api_key: a Hugging Face token, sent to Hugging Face alone; or the key of the one server of your own in `targets`.
        timeout: seconds for one request over all targets and retries.
        attempt_timeout: seconds for one call to one target.
        connect_timeout: seconds to connect.
        max_retries: how often one target is asked again after a failure that may pass.
        config: the config file whose `[keys]` hold; `from_config` fills it in.
        chain: what the chain is called in ledgers and metrics; `from_config` fills it in.
        top_n: how many documents are returned, the best ones.
        scale: of the scores of models: "probability" or "logit".
        truncate: truncate a query with a document that is longer than the model accepts, instead of raising `ContextOverflow`.

    A document's score is in its metadata: `relevance_score`, with its scale in `relevance_scale`; the caller's documents are not
    changed. Documents without text come last, without a score. Use it as the `base_compressor` of a
    `ContextualCompressionRetriever`.

    Errors are hf-gateway's own, and at the same time the matching subclass of `langchain_core.exceptions.ModelError`.
    """

    _gateway: "RerankGateway" = PrivateAttr()

    def model_post_init(self, _context: Any, /) -> None:
        """Build the chain, so that invalid settings fail here; nothing is loaded or connected to."""
        self._adopt(build_gateway(self, self.model))

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - of the interface; a compressor has no run of its own
    ) -> list[Document]:
        """Return copies of the documents that answer the query best, best first.

        Args:
            documents: what a retriever found.
            query: what is searched for.
            callbacks: not used.
        """
        with as_model_errors():
            ranks, scale = self._rank(query, [document.page_content for document in documents])
        return [_scored(documents[place], score, scale) for place, score in ranks]

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002
    ) -> list[Document]:
        """Like `compress_documents`, without blocking the event loop.

        Args:
            documents: what a retriever found.
            query: what is searched for.
            callbacks: not used.
        """
        with as_model_errors():
            ranks, scale = await self._arank(query, [document.page_content for document in documents])
        return [_scored(documents[place], score, scale) for place, score in ranks]


def _scored(document: Document, score: float | None, scale: str) -> Document:
    added = {} if score is None else {"relevance_score": score, "relevance_scale": scale}
    return document.model_copy(update={"metadata": {**document.metadata, **added}})
