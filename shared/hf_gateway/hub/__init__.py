"""The Hub: search models, check their licence and whether they fit this machine, download them, publish adapters.

Offline first: metadata are cached for a day, and served with their age while the Hub cannot be reached. Names load
when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_gateway.hub.cache import ModelCache as ModelCache
    from hf_gateway.hub.compatibility import Compatibility as Compatibility
    from hf_gateway.hub.connector import HubConnector as HubConnector
    from hf_gateway.hub.download import Download as Download
    from hf_gateway.hub.licenses import License as License
    from hf_gateway.values.hub_model import ModelFile as ModelFile
    from hf_gateway.values.hub_model import ModelMetadata as ModelMetadata
    from hf_gateway.values.hub_model import Models as Models
    from hf_gateway.wire.hub_account import HubAccount as HubAccount

_HOME = {
    "HubAccount": "wire.hub_account",
    "Compatibility": "hub.compatibility",
    "Download": "hub.download",
    "HubConnector": "hub.connector",
    "License": "hub.licenses",
    "ModelCache": "hub.cache",
    "ModelFile": "values.hub_model",
    "ModelMetadata": "values.hub_model",
    "Models": "values.hub_model",
}

__all__ = [
    "Compatibility",
    "Download",
    "HubAccount",
    "HubConnector",
    "License",
    "ModelCache",
    "ModelFile",
    "ModelMetadata",
    "Models",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'hf_gateway.hub' has no attribute {name!r}")
    return getattr(import_module(f"hf_gateway.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
