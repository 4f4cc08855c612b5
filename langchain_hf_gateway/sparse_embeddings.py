"""HFGatewaySparseEmbeddings: Qdrant's interface for sparse vectors, as langchain-qdrant calls it, over a hf-gateway chain."""

from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr

from hf_gateway.framework_base import SparseMixin, build_gateway
from hf_gateway.settings.sparse import SparseSettings
from hf_gateway.values.sparse import SparseVector
from langchain_hf_gateway.errors import as_model_errors

if TYPE_CHECKING:
    from langchain_qdrant.sparse_embeddings import SparseEmbeddings
    from langchain_qdrant.sparse_embeddings import SparseVector as QdrantVector

    from hf_gateway.tasks.sparse.gateway import SparseGateway
    from hf_gateway.values.embedding import Role
    from hf_gateway.values.sparse import SparseVectors
else:
    try:
        from langchain_qdrant.sparse_embeddings import SparseEmbeddings
        from langchain_qdrant.sparse_embeddings import SparseVector as QdrantVector
    except ImportError:
        # Any object with these methods and fields serves other stores, too.
        SparseEmbeddings, QdrantVector = object, SparseVector


class HFGatewaySparseEmbeddings(SparseMixin, SparseSettings, SparseEmbeddings):
    """Sparse embeddings of a Hugging Face model, or by `bm25` of none, from the first of its targets that can serve.

    It is a `SparseEmbeddings` of langchain-qdrant if that is installed; without it, the methods are the same.

    Setup:
        ```bash
        pip install "hf-gateway[langchain]" langchain-qdrant
        ```

    Example:
        ```python
        from langchain_hf_gateway import HFGatewaySparseEmbeddings

        sparse = HFGatewaySparseEmbeddings(targets=["bm25"])
        vector = sparse.embed_query("How do I catch an exception?")
        print(vector.indices, vector.values)
        ```

    With `bm25` the store has to apply the inverse document frequency: `QdrantVectorStore.from_texts(...,
    sparse_vector_params={"modifier": Modifier.IDF})`.

    Args:
        model: Hub id of the model, or a folder; `bm25` needs none.
        targets: where to go, in this order, such as "local", "tei:http://localhost:8080" or "bm25".
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

    Errors are hf-gateway's own, and at the same time the matching subclass of
    `langchain_core.exceptions.ModelError`.
    """

    _gateway: "SparseGateway" = PrivateAttr()

    def model_post_init(self, _context: Any, /) -> None:
        """Build the chain, so that invalid settings fail here; nothing is loaded or connected to."""
        self._adopt(build_gateway(self, self.model))

    def embed_documents(self, texts: list[str]) -> "list[QdrantVector]":
        """Embed n texts as documents; returns n objects with `indices` and `values`, in order."""
        return _as_qdrant(self._embed(texts, "document"))

    def embed_query(self, text: str) -> "QdrantVector":
        """Embed a text as a query; returns an object with `indices` and `values`."""
        return _as_qdrant(self._embed([text], "query"))[0]

    async def aembed_documents(self, texts: list[str]) -> "list[QdrantVector]":
        """Embed n texts as documents, without blocking the event loop."""
        return _as_qdrant(await self._aembed(texts, "document"))

    async def aembed_query(self, text: str) -> "QdrantVector":
        """Embed a text as a query, without blocking the event loop."""
        return _as_qdrant(await self._aembed([text], "query"))[0]

    def _embed(self, texts: list[str], role: "Role") -> "SparseVectors":
        with as_model_errors():
            return self._gateway.embed(texts, role=role).vectors

    async def _aembed(self, texts: list[str], role: "Role") -> "SparseVectors":
        with as_model_errors():
            return (await self._gateway.aembed(texts, role=role)).vectors


def _as_qdrant(vectors: "SparseVectors") -> list[QdrantVector]:
    return [QdrantVector(indices=vector.indices, values=vector.values) for vector in vectors]
