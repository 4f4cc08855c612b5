"""hf-gateway for LlamaIndex: `HFGatewayEmbedding`, `HFGatewayLLM`, `HFGatewayRerank`, `persist` and `load_index`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamaindex_hf_gateway.embedding import HFGatewayEmbedding as HFGatewayEmbedding
    from llamaindex_hf_gateway.image_tool import HFGatewayImageTool as HFGatewayImageTool
    from llamaindex_hf_gateway.indexes import load_index as load_index
    from llamaindex_hf_gateway.indexes import persist as persist
    from llamaindex_hf_gateway.llm import HFGatewayLLM as HFGatewayLLM
    from llamaindex_hf_gateway.rerank import HFGatewayRerank as HFGatewayRerank
    from llamaindex_hf_gateway.selector import HFGatewaySelector as HFGatewaySelector
    from llamaindex_hf_gateway.sparse_embedding import HFGatewaySparseEmbedding as HFGatewaySparseEmbedding

_HOME = {
    "HFGatewayEmbedding": "embedding",
    "HFGatewayImageTool": "image_tool",
    "HFGatewayLLM": "llm",
    "HFGatewaySelector": "selector",
    "HFGatewaySparseEmbedding": "sparse_embedding",
    "HFGatewayRerank": "rerank",
    "load_index": "indexes",
    "persist": "indexes",
}

__all__ = [
    "HFGatewayEmbedding",
    "HFGatewayImageTool",
    "HFGatewayLLM",
    "HFGatewayRerank",
    "HFGatewaySelector",
    "HFGatewaySparseEmbedding",
    "load_index",
    "persist",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'llamaindex_hf_gateway' has no attribute {name!r}")
    try:
        module = import_module(f"llamaindex_hf_gateway.{_HOME[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "llama_index":
            raise
        raise ImportError(
            "llamaindex_hf_gateway needs llama-index-core: pip install 'hf-gateway[llamaindex]'", name=error.name
        ) from None
    return getattr(module, name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
