"""The classes that users meet, by name, so that collecting a test of several imports no framework."""

from typing import Any

import hf_gateway
import langchain_hf_gateway
import llamaindex_hf_gateway

_PACKAGES = {
    "Gateway": hf_gateway,
    "HFGatewayEmbeddings": langchain_hf_gateway,
    "ChatHFGateway": langchain_hf_gateway,
    "HFGatewayEmbedding": llamaindex_hf_gateway,
    "HFGatewayLLM": llamaindex_hf_gateway,
    "HFGatewayImageTool": langchain_hf_gateway,
    "HFGatewaySparseEmbeddings": langchain_hf_gateway,
    "HFGatewaySparseEmbedding": llamaindex_hf_gateway,
    "HFGatewayClassifier": langchain_hf_gateway,
    "HFGatewaySelector": llamaindex_hf_gateway,
    "HFGatewayReranker": langchain_hf_gateway,
    "HFGatewayRerank": llamaindex_hf_gateway,
}


def door(name: str) -> Any:
    """Return the class of this name."""
    return getattr(_PACKAGES[name], name)
