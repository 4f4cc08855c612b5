"""LlamaIndex's `embeddings_cache`, with the vector space and the role in its keys.

LlamaIndex caches by the text alone, so that a query gets the vector of the same text as a document, and one model that of
another (run-llama/llama_index PR 23181).
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llama_index.core.storage.kvstore.types import BaseKVStore

if TYPE_CHECKING:
    from hf_gateway.embedding import Role

_role: "contextvars.ContextVar[Role]" = contextvars.ContextVar("role", default="document")


@contextlib.contextmanager
def as_role(role: "Role") -> Iterator[None]:
    """Say which role the texts looked up meanwhile are in."""
    before = _role.set(role)
    try:
        yield
    finally:
        _role.reset(before)


class SpaceCache(BaseKVStore):  # type: ignore[misc]
    """A view of another store in which every key carries a space and a role. The other store is `store`."""

    def __init__(self, store: BaseKVStore, space: str) -> None:
        """Take the store that keeps the entries, and the id of the space."""
        self.store = store
        self._space = space

    def _key(self, text: str) -> str:
        return f"{self._space}|{_role.get()}|{text}"

    def put(self, key: str, val: dict[str, Any], collection: str = "data") -> None:
        """Keep a vector."""
        self.store.put(self._key(key), val, collection)

    async def aput(self, key: str, val: dict[str, Any], collection: str = "data") -> None:
        """Keep a vector."""
        await self.store.aput(self._key(key), val, collection)

    def get(self, key: str, collection: str = "data") -> dict[str, Any] | None:
        """Look a vector up."""
        found: dict[str, Any] | None = self.store.get(self._key(key), collection)
        return found

    async def aget(self, key: str, collection: str = "data") -> dict[str, Any] | None:
        """Look a vector up."""
        found: dict[str, Any] | None = await self.store.aget(self._key(key), collection)
        return found

    def get_all(self, collection: str = "data") -> dict[str, dict[str, Any]]:
        """Return everything in the store, other spaces' entries too, under their whole keys."""
        found: dict[str, dict[str, Any]] = self.store.get_all(collection)
        return found

    async def aget_all(self, collection: str = "data") -> dict[str, dict[str, Any]]:
        """Return everything in the store, other spaces' entries too, under their whole keys."""
        found: dict[str, dict[str, Any]] = await self.store.aget_all(collection)
        return found

    def delete(self, key: str, collection: str = "data") -> bool:
        """Forget a vector; says whether it was there."""
        return bool(self.store.delete(self._key(key), collection))

    async def adelete(self, key: str, collection: str = "data") -> bool:
        """Forget a vector; says whether it was there."""
        return bool(await self.store.adelete(self._key(key), collection))
