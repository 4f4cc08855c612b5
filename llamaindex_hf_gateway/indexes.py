"""Opens LlamaIndex's indexes in folders only with the vector space they were made with."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.base import BaseIndex
from llama_index.core.indices.loading import load_index_from_storage
from llama_index.core.schema import MetadataMode
from llama_index.core.storage.storage_context import StorageContext
from llama_index.core.vector_stores.simple import SimpleVectorStore

from hf_gateway.errors import ConfigError
from hf_gateway.spaces.index_lock import needs_adoption, warn_uncompared, warn_unlocked
from hf_gateway.spaces.stored_vectors import CANDIDATE_TEXTS, StoredVector


def persist(
    index: BaseIndex[Any], folder: str | Path, embed_model: BaseEmbedding | None = None, *, adopt: bool = False
) -> None:
    """Persist an index into a folder that is locked to the space of its embedding model.

    Example:
        ```python
        from llama_index.core import Document, VectorStoreIndex
        from llamaindex_hf_gateway import HFGatewayEmbedding
        from llamaindex_hf_gateway.indexes import load_index, persist

        embed_model = HFGatewayEmbedding(targets=["hash"])
        persist(VectorStoreIndex.from_documents([Document(text="a note")], embed_model=embed_model), "notes")
        index = load_index("notes", embed_model)
        ```

    Args:
        index: its stores must be able to persist into a folder, like `SimpleVectorStore`.
        folder: where to; one lock holds for everything in it.
        embed_model: what the index was made with; by default the index's own.
        adopt: accept a folder that has files and no `space.json`. Up to seven of the index's texts are embedded again and
            compared with their vectors first.

    Raises:
        SpaceMismatch: the folder contains an index of another space. Nothing was written.
        ConfigError: an embedding model without a known space, and what else `Gateway.lock_index` raises.
    """
    embed_model = embed_model or getattr(index, "_embed_model", None)
    _lock(folder, embed_model, adopt, index if adopt and needs_adoption(folder) else None)
    index.storage_context.persist(persist_dir=str(folder))


def load_index(
    folder: str | Path,
    embed_model: BaseEmbedding,
    *,
    index_id: str | None = None,
    adopt: bool = False,
    lock: bool = True,
    **arguments: Any,
) -> BaseIndex[Any]:
    """Load the index of a folder that was made with the same space; sends no request, unless it is adopted.

    Args:
        folder: where it was persisted.
        embed_model: what it was made with.
        index_id: which index, if the folder contains several.
        adopt: lock an index without a lock. Up to seven of its texts are embedded again and compared with their vectors first.
        lock: False to open an index without a lock, with a warning.
        arguments: those of the index, such as `show_progress`.

    Raises:
        SpaceMismatch: it was made with another space; the message says what differs and what to do.
        ConfigError: an embedding model without a known space, and what else `Gateway.lock_index` raises.
        FileNotFoundError: there is no index in the folder.
    """
    if not Path(folder).is_dir() or not any(Path(folder).iterdir()):
        raise FileNotFoundError(f"there is no index in {folder}")
    adopting = adopt and needs_adoption(folder)
    if not adopting and (lock or not warn_unlocked(folder)):
        _lock(folder, embed_model, adopt)
    storage = StorageContext.from_defaults(persist_dir=str(folder))
    index: BaseIndex[Any] = load_index_from_storage(storage, index_id=index_id, embed_model=embed_model, **arguments)
    if adopting:
        _lock(folder, embed_model, adopt, index)
    return index


def _lock(folder: str | Path, embed_model: Any, adopt: bool, adopted: BaseIndex[Any] | None = None) -> None:
    if not hasattr(embed_model, "lock_index"):
        name = "an index without an embedding model" if embed_model is None else type(embed_model).__name__
        raise ConfigError(
            f"{name} does not know its vector space, so no index can be locked to it; use HFGatewayEmbedding"
        )
    sample = [] if adopted is None else list(itertools.islice(_stored_in(adopted), CANDIDATE_TEXTS))
    embed_model.lock_index(folder, adopt=adopt, stored=sample)
    if adopted is not None and not sample:
        warn_uncompared(folder)


def _stored_in(index: BaseIndex[Any]) -> Iterator[StoredVector]:
    store = index.storage_context.vector_store
    if not isinstance(store, SimpleVectorStore):
        return
    nodes = index.docstore.docs
    for key, vector in store.data.embedding_dict.items():
        if key in nodes:
            yield nodes[key].get_content(metadata_mode=MetadataMode.EMBED), vector
