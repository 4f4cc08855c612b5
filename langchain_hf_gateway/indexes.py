"""Opens LangChain's stores in folders only with the vector space they were made with.

`locked` is for any store; the other functions open FAISS, Chroma and LanceDB, whose packages are imported when one is opened.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from hf_gateway.errors import ConfigError
from hf_gateway.spaces.index_lock import needs_adoption, warn_uncompared, warn_unlocked
from hf_gateway.spaces.stored_vectors import CANDIDATE_TEXTS, StoredVector

Embedder = TypeVar("Embedder", bound=Embeddings)


def locked(folder: str | Path, embeddings: Embedder, *, adopt: bool = False) -> Embedder:
    """Return the embeddings after locking the index in a folder to their space; sends no request.

    Example:
        ```python
        from langchain_core.vectorstores import InMemoryVectorStore
        from langchain_hf_gateway import HFGatewayEmbeddings
        from langchain_hf_gateway.indexes import locked

        embeddings = locked("notes", HFGatewayEmbeddings(targets=["hash"]))
        InMemoryVectorStore.from_texts(["a note"], embeddings).dump("notes/store.json")

        again = InMemoryVectorStore.load("notes/store.json", locked("notes", embeddings))
        ```

    Args:
        folder: where the index is; one lock holds for everything in it.
        embeddings: `HFGatewayEmbeddings`, or LangChain's `CacheBackedEmbeddings` over one.
        adopt: accept a folder that has files and no `space.json`, because you know that it was made with this space.

    Raises:
        SpaceMismatch: the index was made with another space; the message says what differs and what to do.
        ConfigError: embeddings without a known space, and what else `Gateway.lock_index` raises.
    """
    _lockable(embeddings).lock_index(folder, adopt=adopt)
    return embeddings


def _open_locked(
    folder: str | Path,
    embeddings: Embeddings,
    adopt: bool,
    lock: bool,
    open_store: Callable[[], Any],
    stored: Callable[[Any], Iterable[StoredVector]],
) -> VectorStore:
    """Lock the index and open it, or warn that it has no lock; an existing lock is always checked.

    Args:
        folder: where the index is.
        embeddings: what it is opened with.
        adopt: whether an index without a lock is compared with the embeddings, and then locked.
        lock: whether an index without a lock is refused otherwise.
        open_store: opens it.
        stored: returns texts of the opened store with their vectors.
    """
    inner = _lockable(embeddings) if adopt and needs_adoption(folder) else None
    if inner is None and (lock or not warn_unlocked(folder)):
        locked(folder, embeddings, adopt=adopt)
    store: VectorStore = open_store()
    if inner is not None:
        _adopt(folder, inner, stored(store))
    return store


def _adopt(folder: str | Path, embeddings: Any, stored: Iterable[StoredVector]) -> None:
    sample = list(itertools.islice(stored, CANDIDATE_TEXTS))
    embeddings.lock_index(folder, adopt=True, stored=sample)
    if not sample:
        warn_uncompared(folder)


def save_faiss(store: Any, folder: str | Path, *, adopt: bool = False, **arguments: Any) -> None:
    """Save a FAISS store, locked to the space of its embeddings.

    Raises like `locked`, before a file is written.

    Args:
        store: the store to save.
        folder: where to save it.
        adopt: accept a folder that has files and no `space.json`. Up to seven of the store's texts are embedded again and
            compared with their vectors first.
        arguments: those of its `save_local`.
    """
    if store.embeddings is None:
        raise ConfigError("this store was made with a function, not with Embeddings, so its space is not known")
    if adopt and needs_adoption(folder):
        _adopt(folder, _lockable(store.embeddings), _stored_in_faiss(store))
    else:
        locked(folder, store.embeddings)
    store.save_local(str(folder), **arguments)


def load_faiss(
    folder: str | Path, embeddings: Embeddings, *, adopt: bool = False, lock: bool = True, **arguments: Any
) -> VectorStore:
    """Load a FAISS store that was saved with the same space.

    Args:
        folder: where it was saved.
        embeddings: what it was made with.
        adopt: lock an index without a lock. Up to seven of its texts are embedded again and compared with their vectors first.
        lock: False to open an index without a lock, with a warning.
        arguments: those of `FAISS.load_local`; it needs `allow_dangerous_deserialization=True`, since documents are pickled.

    Raises:
        FileNotFoundError: there is no index in the folder.
        ImportError: a package is missing; the message contains the `pip install` line. Otherwise like `locked`.
    """
    store = _store("langchain_community.vectorstores", "FAISS", "langchain-community", "faiss-cpu", needs="faiss")
    if not Path(folder).is_dir() or not any(Path(folder).iterdir()):
        raise FileNotFoundError(f"there is no index in {folder}")

    def load() -> Any:
        return store.load_local(str(folder), embeddings, **arguments)

    return _open_locked(folder, embeddings, adopt, lock, load, _stored_in_faiss)


def open_chroma(
    folder: str | Path, embeddings: Embeddings, *, adopt: bool = False, lock: bool = True, **arguments: Any
) -> VectorStore:
    """Open or create a Chroma store in a folder; one lock holds for all its collections.

    Args:
        folder: where it is.
        embeddings: what it is made with.
        adopt: lock a folder with files and without a lock. Up to seven of the store's texts are embedded again and compared
            with their vectors first.
        lock: False to open a store without a lock, with a warning.
        arguments: those of `Chroma`.

    Raises ImportError with the `pip install` line if a package is missing; otherwise like `locked`.
    """
    store = _store("langchain_chroma", "Chroma", "langchain-chroma")

    def load() -> Any:
        return store(embedding_function=embeddings, persist_directory=str(folder), **arguments)

    return _open_locked(folder, embeddings, adopt, lock, load, _stored_in_chroma)


def open_lancedb(
    folder: str | Path, embeddings: Embeddings, *, adopt: bool = False, lock: bool = True, **arguments: Any
) -> VectorStore:
    """Open or create a LanceDB store in a folder; one lock holds for all its tables.

    Args:
        folder: where it is.
        embeddings: what it is made with.
        adopt: lock a folder with files and without a lock. Up to seven of the store's texts are embedded again and compared
            with their vectors first.
        lock: False to open a store without a lock, with a warning.
        arguments: those of LangChain's `LanceDB`; texts are appended unless `mode` is given, since its default "overwrite" would
            delete what is there.

    Raises ImportError with the `pip install` line if a package is missing; otherwise like `locked`.
    """
    store = _store("langchain_community.vectorstores", "LanceDB", "langchain-community", "lancedb", needs="lancedb")

    def load() -> Any:
        return store(embedding=embeddings, uri=str(folder), **{"mode": "append", **arguments})

    def stored(opened: Any) -> Iterable[StoredVector]:
        table = opened.get_table()
        rows = [] if table is None else table.head(CANDIDATE_TEXTS).to_pylist()
        text, vector = arguments.get("text_key", "text"), arguments.get("vector_key", "vector")
        return [(row[text], row[vector]) for row in rows]

    return _open_locked(folder, embeddings, adopt, lock, load, stored)


def _stored_in_faiss(store: Any) -> Iterator[StoredVector]:
    for place, key in store.index_to_docstore_id.items():
        found = store.docstore.search(key)  # a text that says so, if it is missing
        if not isinstance(found, str):
            yield found.page_content, store.index.reconstruct(place).tolist()


def _stored_in_chroma(store: Any) -> Iterable[StoredVector]:
    found = store.get(limit=CANDIDATE_TEXTS, include=["documents", "embeddings"])
    return list(zip(found["documents"], found["embeddings"], strict=True))


def _store(module: str, name: str, *packages: str, needs: str | None = None) -> Any:
    """Import a store's class, before anything is written for it."""
    try:
        if needs is not None:
            import_module(needs)
        return getattr(import_module(module), name)
    except ImportError as error:
        raise ImportError(
            f"a {name} store needs more packages: pip install {' '.join(packages)}", name=error.name
        ) from error


def _lockable(embeddings: Any) -> Any:
    """Return the embeddings whose space is known: these, or the ones behind a cache."""
    inner = embeddings
    while inner is not None and not hasattr(inner, "lock_index"):
        inner = getattr(inner, "underlying_embeddings", None)
    if inner is None:
        raise ConfigError(
            f"{type(embeddings).__name__} does not know its vector space, so no index can be locked to it; "
            "use HFGatewayEmbeddings"
        )
    return inner
