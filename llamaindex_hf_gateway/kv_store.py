"""LlamaIndex's key-value stores as caches of vectors, for `cache=`.

Nothing here imports LlamaIndex, so that any gateway can take such a store.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any


def adapt_kv_store(store: Any) -> "KVStoreCache | None":
    """Return a cache over a `BaseKVStore`, or over anything with `put` and `get`; None for anything else."""
    return (
        KVStoreCache(store) if callable(getattr(store, "put", None)) and callable(getattr(store, "get", None)) else None
    )


class KVStoreCache:
    """Vectors in a LlamaIndex `BaseKVStore`, in base64, since its values are JSON."""

    collection = "hf_gateway_vectors"

    def __init__(self, store: Any) -> None:
        """Use a store, which stays its owner's to close."""
        self.store = store

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return one value per key, in order; a foreign value becomes an empty one, which the cache takes for damaged."""
        return [_from_json(self.store.get(name, collection=self.collection)) for name in keys]

    def set_many(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Store values under keys."""
        for name, value in items:
            self.store.put(name, {"vector": b64encode(value).decode()}, collection=self.collection)

    def close(self) -> None:
        """Do nothing: the store is its owner's to close."""


def _from_json(value: Any) -> bytes | None:
    if value is None:
        return None
    try:
        return b64decode(value["vector"], validate=True)
    except (KeyError, TypeError, ValueError):
        return b""
