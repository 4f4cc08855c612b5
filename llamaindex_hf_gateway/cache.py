"""LlamaIndex's `embeddings_cache`, with the vector space and the role in its keys.

LlamaIndex caches by the text alone, so that a query gets the vector of the same text as a document, and one model that of
another (run-llama/llama_index PR 23181).
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from llama_index.core.storage.kvstore.types import BaseKVStore

if TYPE_CHECKING:
    from hf_gateway.values.embedding import Role

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
    """A view of another store in which every key carries a space and a role. The other store is `store`.

    Nothing is found, and nothing kept, before it is settled in which space a chain answers (on_space_change="separate").
    """

    def __init__(self, store: BaseKVStore, space: Callable[[], str | None]) -> None:
        """Take the store that keeps the entries, and what says in which space they are."""
        self.store = store
        self._space = space

    def _key(self, text: str) -> str | None:
        space = self._space()
        return None if space is None else f"{space}|{_role.get()}|{text}"

    def put(self, key: str, val: dict[str, Any], collection: str = "data") -> None:
        """Keep a vector."""
        if (whole := self._key(key)) is not None:
            self.store.put(whole, val, collection)

    async def aput(self, key: str, val: dict[str, Any], collection: str = "data") -> None:
        """Keep a vector."""
        if (whole := self._key(key)) is not None:
            await self.store.aput(whole, val, collection)

    def get(self, key: str, collection: str = "data") -> dict[str, Any] | None:
        """Look a vector up."""
        whole = self._key(key)
        return None if whole is None else self.store.get(whole, collection)

    async def aget(self, key: str, collection: str = "data") -> dict[str, Any] | None:
        """Look a vector up."""
        whole = self._key(key)
        return None if whole is None else await self.store.aget(whole, collection)

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
        whole = self._key(key)
        return whole is not None and bool(self.store.delete(whole, collection))

    async def adelete(self, key: str, collection: str = "data") -> bool:
        """Forget a vector; says whether it was there."""
        whole = self._key(key)
        return whole is not None and bool(await self.store.adelete(whole, collection))
