"""LangChain's door to hf-gateway: `ChatHFGateway`, `HFGatewayEmbeddings`, and `register` for `init_chat_model` and its like."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_hf_gateway.chat_models import ChatHFGateway as ChatHFGateway
    from langchain_hf_gateway.embeddings import HFGatewayEmbeddings as HFGatewayEmbeddings
    from langchain_hf_gateway.registration import register as register

_HOME = {"ChatHFGateway": "chat_models", "HFGatewayEmbeddings": "embeddings", "register": "registration"}

__all__ = ["ChatHFGateway", "HFGatewayEmbeddings", "register"]


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
