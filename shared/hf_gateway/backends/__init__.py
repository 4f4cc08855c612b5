"""Backends: one small file a kind, found by the entry-point group `hf_gateway.backends`. Ours are registered the same way.

A package of yours adds a kind with

    [project.entry-points."hf_gateway.backends"]
    mykind = "my_package:MyBackend"

where MyBackend is a subclass of `hf_gateway.backends.base.Backend`.
"""

from hf_gateway.backends.base import Backend
from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.values.kinds import registered
from hf_gateway.values.redaction import quoted


def backend_class(kind: str) -> type[Backend]:
    """Load the class of a kind. Raises ConfigError, with the nearest kind, for one that nobody registered."""
    kinds = registered()
    if kind not in kinds:
        raise ConfigError(f"there is no kind of target {quoted(kind, 'as was given')}{did_you_mean(kind, set(kinds))}")
    loaded: type[Backend] = kinds[kind].load()
    return loaded
