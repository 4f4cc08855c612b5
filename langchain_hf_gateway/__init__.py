"""hf-gateway for LangChain: `ChatHFGateway`, `HFGatewayEmbeddings`, `HFGatewayReranker`, and `register` for LangChain's `init_…`.

`locked` and the functions for stores open an index only with the vector space it was made with; `with_text` filters documents;
`cache_backed` keeps LangChain's own cache from mixing spaces and roles.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_hf_gateway.byte_store import cache_backed as cache_backed
    from langchain_hf_gateway.chat_models import ChatHFGateway as ChatHFGateway
    from langchain_hf_gateway.classifier import HFGatewayClassifier as HFGatewayClassifier
    from langchain_hf_gateway.documents import with_text as with_text
    from langchain_hf_gateway.embeddings import HFGatewayEmbeddings as HFGatewayEmbeddings
    from langchain_hf_gateway.image_tool import HFGatewayImageTool as HFGatewayImageTool
    from langchain_hf_gateway.indexes import load_faiss as load_faiss
    from langchain_hf_gateway.indexes import locked as locked
    from langchain_hf_gateway.indexes import open_chroma as open_chroma
    from langchain_hf_gateway.indexes import open_lancedb as open_lancedb
    from langchain_hf_gateway.indexes import save_faiss as save_faiss
    from langchain_hf_gateway.registration import register as register
    from langchain_hf_gateway.reranker import HFGatewayReranker as HFGatewayReranker
    from langchain_hf_gateway.sparse_embeddings import HFGatewaySparseEmbeddings as HFGatewaySparseEmbeddings

_HOME = {
    "ChatHFGateway": "chat_models",
    "HFGatewayClassifier": "classifier",
    "HFGatewayEmbeddings": "embeddings",
    "HFGatewayImageTool": "image_tool",
    "HFGatewayReranker": "reranker",
    "HFGatewaySparseEmbeddings": "sparse_embeddings",
    "cache_backed": "byte_store",
    "load_faiss": "indexes",
    "locked": "indexes",
    "open_chroma": "indexes",
    "open_lancedb": "indexes",
    "register": "registration",
    "save_faiss": "indexes",
    "with_text": "documents",
}

__all__ = [
    "ChatHFGateway",
    "HFGatewayClassifier",
    "HFGatewayEmbeddings",
    "HFGatewayImageTool",
    "HFGatewayReranker",
    "HFGatewaySparseEmbeddings",
    "cache_backed",
    "load_faiss",
    "locked",
    "open_chroma",
    "open_lancedb",
    "register",
    "save_faiss",
    "with_text",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'langchain_hf_gateway' has no attribute {name!r}")
    try:
        module = import_module(f"langchain_hf_gateway.{_HOME[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "langchain_core":
            raise
        raise ImportError(
            "langchain_hf_gateway needs langchain-core: pip install 'hf-gateway[langchain]'", name=error.name
        ) from None
    return getattr(module, name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
