"""hf-gateway: any Hugging Face model, from the first place that can serve it, behind LangChain's and LlamaIndex's own classes.

Names are loaded when they are first used: `import hf_gateway` imports no other package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_gateway._version import __version__

if TYPE_CHECKING:
    from hf_gateway.errors import Attempt as Attempt
    from hf_gateway.errors import EmbeddingUnavailable as EmbeddingUnavailable
    from hf_gateway.errors import GatewayError as GatewayError
    from hf_gateway.gateway import Gateway as Gateway
    from hf_gateway.observing import observer as observe
    from hf_gateway.tasks.chat.gateway import ChatGateway as ChatGateway
    from hf_gateway.tasks.classification.gateway import ClassifyGateway as ClassifyGateway
    from hf_gateway.tasks.embedding.gateway import EmbeddingGateway as EmbeddingGateway
    from hf_gateway.tasks.image.gateway import ImageGateway as ImageGateway
    from hf_gateway.tasks.rerank.gateway import RerankGateway as RerankGateway
    from hf_gateway.tasks.sparse.gateway import SparseGateway as SparseGateway
    from hf_gateway.values.chat import ChatEvent as ChatEvent
    from hf_gateway.values.chat import ChatRequest as ChatRequest
    from hf_gateway.values.chat import ChatResult as ChatResult
    from hf_gateway.values.chat import ToolCall as ToolCall
    from hf_gateway.values.embedding import EmbedResult as EmbedResult
    from hf_gateway.values.image import GeneratedImage as GeneratedImage
    from hf_gateway.values.image import ImageResult as ImageResult
    from hf_gateway.values.labels import ClassifyResult as ClassifyResult
    from hf_gateway.values.labels import Label as Label
    from hf_gateway.values.rerank import RerankHit as RerankHit
    from hf_gateway.values.rerank import RerankResult as RerankResult
    from hf_gateway.values.sparse import SparseResult as SparseResult
    from hf_gateway.values.sparse import SparseVector as SparseVector
    from hf_gateway.values.sparse import SparseVectors as SparseVectors
    from hf_gateway.values.target import Target as Target
    from hf_gateway.values.usage import Usage as Usage
    from hf_gateway.values.vector_space import VectorSpace as VectorSpace
    from hf_gateway.values.vectors import Vectors as Vectors

_HOME = {
    "Attempt": "errors",
    "ChatEvent": "values.chat",
    "ChatGateway": "tasks.chat.gateway",
    "ChatRequest": "values.chat",
    "ChatResult": "values.chat",
    "ClassifyGateway": "tasks.classification.gateway",
    "ClassifyResult": "values.labels",
    "EmbedResult": "values.embedding",
    "EmbeddingGateway": "tasks.embedding.gateway",
    "EmbeddingUnavailable": "errors",
    "Gateway": "gateway",
    "GatewayError": "errors",
    "GeneratedImage": "values.image",
    "ImageGateway": "tasks.image.gateway",
    "ImageResult": "values.image",
    "Label": "values.labels",
    "RerankGateway": "tasks.rerank.gateway",
    "RerankHit": "values.rerank",
    "RerankResult": "values.rerank",
    "SparseGateway": "tasks.sparse.gateway",
    "SparseResult": "values.sparse",
    "SparseVector": "values.sparse",
    "SparseVectors": "values.sparse",
    "Target": "values.target",
    "ToolCall": "values.chat",
    "Usage": "values.usage",
    "VectorSpace": "values.vector_space",
    "Vectors": "values.vectors",
}
_MODULES = {"observe": "observing.observer"}
"""Modules with a public name."""

__all__ = [
    "Attempt",
    "ChatEvent",
    "ChatGateway",
    "ChatRequest",
    "ChatResult",
    "ClassifyGateway",
    "ClassifyResult",
    "EmbedResult",
    "EmbeddingGateway",
    "EmbeddingUnavailable",
    "Gateway",
    "GatewayError",
    "GeneratedImage",
    "ImageGateway",
    "ImageResult",
    "Label",
    "RerankGateway",
    "RerankHit",
    "RerankResult",
    "SparseGateway",
    "SparseResult",
    "SparseVector",
    "SparseVectors",
    "Target",
    "ToolCall",
    "Usage",
    "VectorSpace",
    "Vectors",
    "__version__",
    "observe",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name in _MODULES:
        return import_module(f"hf_gateway.{_MODULES[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'hf_gateway' has no attribute {name!r}")
    return getattr(import_module(f"hf_gateway.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
