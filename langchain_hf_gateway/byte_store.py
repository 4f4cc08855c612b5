"""LangChain's byte stores as caches of vectors, for `cache=` and for LangChain's own `CacheBackedEmbeddings`.

Nothing here imports LangChain, so that any gateway can take such a store.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

from hf_gateway.errors import ConfigError
from hf_gateway.tasks.embedding.cache import Keys
from hf_gateway.values.embedding import Role


def adapt_byte_store(store: Any) -> "ByteStoreCache | None":
    """Return a cache over a `ByteStore`, or over anything with `mget` and `mset`; None for anything else."""
    return (
        ByteStoreCache(store)
        if callable(getattr(store, "mget", None)) and callable(getattr(store, "mset", None))
        else None
    )


class ByteStoreCache:
    """Vectors in a LangChain `ByteStore`."""

    def __init__(self, store: Any) -> None:
        """Use a store, which stays its owner's to close."""
        self.store = store

    def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Return one value per key, in order."""
        return list(self.store.mget(list(keys)))

    def set_many(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Store values under keys."""
        self.store.mset(list(items))

    def close(self) -> None:
        """Do nothing: the store is its owner's to close."""


def cache_backed(embeddings: Any, store: Any) -> dict[str, Any]:
    """Return the arguments with which LangChain's `CacheBackedEmbeddings` keeps spaces and roles apart.

    With `query_embedding_cache=True` LangChain looks up queries among the documents, and a namespace made of the model's name
    ignores its space. The keys consist of digits and letters, so that every store accepts them.

    Args:
        embeddings: an `HFGatewayEmbeddings`.
        store: a `ByteStore` for both roles, of any number of spaces.

    Raises:
        ConfigError: the chain's space is not decided yet (`on_space_change="separate"`); give the class itself `cache=`.

    Example:
        ```python
        cached = CacheBackedEmbeddings.from_bytes_store(embeddings, **cache_backed(embeddings, store))
        ```
    """
    gateway = embeddings.gateway
    if gateway.final_space is None:
        raise ConfigError(
            "no target has answered yet, and on_space_change='separate' leaves the space open until then, so there is no "
            "namespace; embed something first, or give the class cache= instead, which waits for that"
        )
    return {
        "document_embedding_cache": RoleStore(store, "document"),
        "query_embedding_cache": RoleStore(store, "query"),
        "key_encoder": _NamedKeys(gateway),
    }


class _NamedKeys:
    """Makes LangChain's keys in the current namespace; those made before the first measurement are never found."""

    def __init__(self, gateway: Any) -> None:
        self._gateway = gateway
        self._unmeasured = uuid4().hex

    def __call__(self, text: str) -> str:
        name = self._gateway.cache_namespace or self._unmeasured
        return Keys(name, "langchain", f"truncate={self._gateway.settings.truncate}")(text)


class RoleStore:
    """A view of another store in which every key contains a role, with the methods of a LangChain `ByteStore`."""

    def __init__(self, store: Any, role: Role) -> None:
        """Use a store for one role."""
        self.store = store
        self._before = f"{role}-"

    def mget(self, keys: Sequence[str]) -> Any:
        """Return one value per key."""
        return self.store.mget(self._with_role(keys))

    async def amget(self, keys: Sequence[str]) -> Any:
        """Return one value per key."""
        return await self.store.amget(self._with_role(keys))

    def mset(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Store values under keys."""
        self.store.mset([(self._before + name, value) for name, value in items])

    async def amset(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Store values under keys."""
        await self.store.amset([(self._before + name, value) for name, value in items])

    def mdelete(self, keys: Sequence[str]) -> None:
        """Delete values."""
        self.store.mdelete(self._with_role(keys))

    async def amdelete(self, keys: Sequence[str]) -> None:
        """Delete values."""
        await self.store.amdelete(self._with_role(keys))

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """Yield this role's keys."""
        for name in self.store.yield_keys(prefix=self._before + (prefix or "")):
            yield name.removeprefix(self._before)

    def _with_role(self, keys: Sequence[str]) -> list[str]:
        return [self._before + name for name in keys]
