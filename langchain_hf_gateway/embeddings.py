"""HFGatewayEmbeddings: LangChain's `Embeddings` over a hf-gateway chain."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings
from pydantic import PrivateAttr

from hf_gateway.framework_base import EmbeddingMixin, build_gateway
from hf_gateway.settings.embedding import EmbedSettings
from langchain_hf_gateway.errors import as_model_errors

if TYPE_CHECKING:
    from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
    from hf_gateway.values.embedding import Role
    from hf_gateway.values.vectors import Vectors


class HFGatewayEmbeddings(EmbeddingMixin, EmbedSettings, Embeddings):
    """Embeddings of a Hugging Face model, from the first of its targets that can serve.

    Setup:
        ```bash
        pip install "hf-gateway[langchain,torch]"
        ```

    Example:
        ```python
        from langchain_hf_gateway import HFGatewayEmbeddings

        embeddings = HFGatewayEmbeddings(
            model="sentence-transformers/all-MiniLM-L6-v2",
            targets=["tei:http://localhost:8080", "local"],
        )
        vector = embeddings.embed_query("How do I catch an exception?")
        ```

    Args:
        model: Hub id of the model, or a folder.
        targets: where to go, in this order, such as "local", "hf" or "tei:http://localhost:8080".
        revision: commit, branch or tag of the model, for targets that load it themselves.
        api_key: a Hugging Face token, sent to Hugging Face alone; or the key of the one server of your own in `targets`.
        timeout: seconds for one request over all targets and retries.
        attempt_timeout: seconds for one call to one target.
        connect_timeout: seconds to connect.
        max_retries: how often one target is asked again after a failure that may pass.
        config: the config file whose `[keys]` hold; `from_config` fills it in.
        chain: what the chain is called in ledgers and metrics; `from_config` fills it in.
        truncate: cut a text that is longer than the model takes, instead of raising `ContextOverflow`.
        query_prompt: put before a query, instead of the model's own saved prompt.
        document_prompt: put before a document, instead of the model's own saved prompt.
        on_space_change: "refuse" targets of different vector spaces, or keep them "separate".
        check_space: compare a target's first vectors with the fingerprint of the space.
        canary_every: requests to a server after which its space is measured again; 0 for never.
        dimensions: keep only the first so many numbers (Matryoshka).
        normalize: scale vectors to length 1 even where the model does not.
        max_concurrency: batches under way at once, at most.
        coalesce: seconds for which a call of one text waits for others to share its request with, at most.
        cache: where vectors are kept: True, a path, or a key-value store of a framework.

    Errors are hf-gateway's own, and at the same time the matching subclass of
    `langchain_core.exceptions.ModelError`.
    """

    _gateway: "EmbeddingGateway" = PrivateAttr()

    def model_post_init(self, _context: Any, /) -> None:
        """Build the chain, so that invalid settings fail here; nothing is loaded or connected to."""
        self._adopt(build_gateway(self, self.model))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed n texts as documents; returns n lists of dim floats, in order."""
        return self._embed(texts, "document").tolist()

    def embed_query(self, text: str) -> list[float]:
        """Embed a text as a query; returns dim floats."""
        return self._embed([text], "query").tolist()[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed n texts as documents, without blocking the event loop."""
        return (await self._aembed(texts, "document")).tolist()

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a text as a query, without blocking the event loop."""
        return (await self._aembed([text], "query")).tolist()[0]

    def _translated_errors(self) -> AbstractContextManager[None]:
        return as_model_errors()

    def _embed(self, texts: Iterable[str], role: "Role") -> "Vectors":
        with as_model_errors():
            return self._gateway.embed(texts, role=role, lists=True).vectors

    async def _aembed(self, texts: Iterable[str], role: "Role") -> "Vectors":
        with as_model_errors():
            return (await self._gateway.aembed(texts, role=role, lists=True)).vectors
