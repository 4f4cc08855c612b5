"""LlamaIndex's `embeddings_cache`, with the vector space and the role in its keys.

LlamaIndex's keys are texts only, so that a query gets the vector of the same text as a document, and one model that of
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
    """Set the role of the texts that are looked up in the block."""
    before = _role.set(role)
    try:
        yield
    finally:
        _role.reset(before)


class SpaceCache(BaseKVStore):  # type: ignore[misc]
    """A view of another store in which every key contains a space and a role. The other store is `store`.

    Before it is decided in which space a chain answers (on_space_change="separate"), lookups find nothing and nothing is stored.
    """

    def __init__(self, store: BaseKVStore, space: Callable[[], str | None]) -> None:
        """Use a store; `space` returns the key's space, or None while it is undecided."""
        self.store = store
        self._space = space

    def _key(self, text: str) -> str | None:
        space = self._space()
        return None if space is None else f"{space}|{_role.get()}|{text}"

    def put(self, key: str, val: dict[str, Any], collection: str = "data") -> None:
        """Store a vector.

        Args:
            key: the text.
            val: the entry.
            collection: LlamaIndex's collection.
        """
        if (whole := self._key(key)) is not None:
            self.store.put(whole, val, collection)

    async def aput(self, key: str, val: dict[str, Any], collection: str = "data") -> None:
        """Store a vector.

        Args:
            key: the text.
            val: the entry.
            collection: LlamaIndex's collection.
        """
        if (whole := self._key(key)) is not None:
            await self.store.aput(whole, val, collection)

    def get(self, key: str, collection: str = "data") -> dict[str, Any] | None:
        """Look up a vector.

        Args:
            key: the text.
            collection: LlamaIndex's collection.
        """
        whole = self._key(key)
        return None if whole is None else self.store.get(whole, collection)

    async def aget(self, key: str, collection: str = "data") -> dict[str, Any] | None:
        """Look up a vector.

        Args:
            key: the text.
            collection: LlamaIndex's collection.
        """
        whole = self._key(key)
        return None if whole is None else await self.store.aget(whole, collection)

    def get_all(self, collection: str = "data") -> dict[str, dict[str, Any]]:
        """Return all entries of the store, including other spaces', under their full keys."""
        found: dict[str, dict[str, Any]] = self.store.get_all(collection)
        return found

    async def aget_all(self, collection: str = "data") -> dict[str, dict[str, Any]]:
        """Return all entries of the store, including other spaces', under their full keys."""
        found: dict[str, dict[str, Any]] = await self.store.aget_all(collection)
        return found

    def delete(self, key: str, collection: str = "data") -> bool:
        """Delete a vector; returns whether it existed.

        Args:
            key: the text.
            collection: LlamaIndex's collection.
        """
        whole = self._key(key)
        return whole is not None and bool(self.store.delete(whole, collection))

    async def adelete(self, key: str, collection: str = "data") -> bool:
        """Delete a vector; returns whether it existed.

        Args:
            key: the text.
            collection: LlamaIndex's collection.
        """
        whole = self._key(key)
        return whole is not None and bool(await self.store.adelete(whole, collection))
