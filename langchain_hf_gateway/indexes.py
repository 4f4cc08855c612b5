"""Opens LangChain's stores in folders only with the vector space they were made with.

`locked` is for any store; the other functions open FAISS, Chroma and LanceDB, whose packages are imported when one is opened.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from hf_gateway.errors import ConfigError
from hf_gateway.spaces.index_lock import warn_unlocked

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


def _open_locked(folder: str | Path, embeddings: Embeddings, adopt: bool, lock: bool) -> Embeddings:
    """Lock the index, or warn that it has no lock; an existing lock is always checked."""
    if not lock and warn_unlocked(folder):
        return embeddings
    return locked(folder, embeddings, adopt=adopt)


def save_faiss(store: Any, folder: str | Path, *, adopt: bool = False, **arguments: Any) -> None:
    """Save a FAISS store, locked to the space of its embeddings.

    Raises like `locked`, before a file is written.

    Args:
        store: the store to save.
        folder: where to save it.
        adopt: accept a folder that has files and no `space.json`, because you know that it was made with this space.
        arguments: those of its `save_local`.
    """
    if store.embeddings is None:
        raise ConfigError("this store was made with a function, not with Embeddings, so its space is not known")
    locked(folder, store.embeddings, adopt=adopt)
    store.save_local(str(folder), **arguments)


def load_faiss(
    folder: str | Path, embeddings: Embeddings, *, adopt: bool = False, lock: bool = True, **arguments: Any
) -> VectorStore:
    """Load a FAISS store that was saved with the same space.

    Args:
        folder: where it was saved.
        embeddings: what it was made with.
        adopt: lock an index without a lock, because you know that it was made with this space.
        lock: False to open an index without a lock, with a warning.
        arguments: those of `FAISS.load_local`; it needs `allow_dangerous_deserialization=True`, since documents are pickled.

    Raises:
        FileNotFoundError: there is no index in the folder.
        ImportError: a package is missing; the message contains the `pip install` line. Otherwise like `locked`.
    """
    store = _store("langchain_community.vectorstores", "FAISS", "langchain-community", "faiss-cpu", needs="faiss")
    if not Path(folder).is_dir() or not any(Path(folder).iterdir()):
        raise FileNotFoundError(f"there is no index in {folder}")
    opened: VectorStore = store.load_local(str(folder), _open_locked(folder, embeddings, adopt, lock), **arguments)
    return opened


def open_chroma(
    folder: str | Path, embeddings: Embeddings, *, adopt: bool = False, lock: bool = True, **arguments: Any
) -> VectorStore:
    """Open or create a Chroma store in a folder; one lock holds for all its collections.

    Args:
        folder: where it is.
        embeddings: what it is made with.
        adopt: lock a folder with files and without a lock, because you know that they were made with this space.
        lock: False to open a store without a lock, with a warning.
        arguments: those of `Chroma`.

    Raises ImportError with the `pip install` line if a package is missing; otherwise like `locked`.
    """
    store = _store("langchain_chroma", "Chroma", "langchain-chroma")
    checked = _open_locked(folder, embeddings, adopt, lock)
    opened: VectorStore = store(embedding_function=checked, persist_directory=str(folder), **arguments)
    return opened


def open_lancedb(
    folder: str | Path, embeddings: Embeddings, *, adopt: bool = False, lock: bool = True, **arguments: Any
) -> VectorStore:
    """Open or create a LanceDB store in a folder; one lock holds for all its tables.

    Args:
        folder: where it is.
        embeddings: what it is made with.
        adopt: lock a folder with files and without a lock, because you know that they were made with this space.
        lock: False to open a store without a lock, with a warning.
        arguments: those of LangChain's `LanceDB`; texts are appended unless `mode` is given, since its default "overwrite" would
            delete what is there.

    Raises ImportError with the `pip install` line if a package is missing; otherwise like `locked`.
    """
    store = _store("langchain_community.vectorstores", "LanceDB", "langchain-community", "lancedb", needs="lancedb")
    checked = _open_locked(folder, embeddings, adopt, lock)
    opened: VectorStore = store(embedding=checked, uri=str(folder), **{"mode": "append", **arguments})
    return opened


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
