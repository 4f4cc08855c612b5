"""Chroma: a server by its URL, or a folder, which one process at a time may open."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import chromadb
from chromadb.config import Settings
from chromadb.errors import NotFoundError

from hf_gateway.corpus.stores.base import SPACE, StoreColumns, StorePlace, hold_folder
from hf_gateway.errors import ConfigError
from hf_gateway.retrieval.files import numpy
from hf_gateway.values.vector_space import VectorSpace


def open_collection(place: StorePlace, columns: StoreColumns) -> "ChromaCollection":
    """Connect to a server, or wait for the folder and open it.

    Args:
        place: of the collection.
        columns: of the rows.
    """
    settings = Settings(anonymized_telemetry=False)
    with contextlib.ExitStack() as resources:
        if place.is_remote:
            url = urlsplit(place.where)
            token = os.environ.get("CHROMA_API_KEY")
            client = chromadb.HttpClient(
                host=url.hostname or "localhost",
                port=url.port or (443 if url.scheme == "https" else 8000),
                ssl=url.scheme == "https",
                headers={"x-chroma-token": token} if token else None,
                settings=settings,
            )
        else:
            hold_folder(place.where, resources)
            client = chromadb.PersistentClient(place.where, settings)
        resources.callback(client.close)  # type: ignore[attr-defined]
        return ChromaCollection(client, place.collection, columns, resources.pop_all())
    raise AssertionError("an exit stack swallows nothing")


class ChromaCollection:
    """A collection with cosine distance; copied columns become metadata, the texts among them documents."""

    def __init__(self, client: Any, name: str, columns: StoreColumns, resources: contextlib.ExitStack) -> None:
        """Take over an open client.

        Args:
            client: of the server or folder.
            name: of the collection.
            columns: of the rows.
            resources: are closed with it.
        """
        self._client, self._name, self._columns, self._resources = client, name, columns, resources

    def create(self, rows: Any, space: VectorSpace) -> Mapping[str, Any] | None:
        """Make the collection, unless it is there; see `Store`.

        Args:
            rows: a table like those that will be written.
            space: is recorded with a new collection.

        Returns:
            The space that is recorded; None if the collection has no record.
        """
        if str(rows.schema.field("vector").type.value_type) == "halffloat":
            raise ConfigError("Chroma keeps vectors as float32: leave --dtype out")
        try:
            found = self._collection
        except NotFoundError:
            found = self._client.create_collection(
                self._name,
                configuration={"hnsw": {"space": "cosine"}},
                metadata={SPACE: json.dumps(space.to_dict())},
                embedding_function=None,
            )
        recorded = (found.metadata or {}).get(SPACE)
        return None if recorded is None else json.loads(recorded)

    def upsert(self, rows: Any) -> None:
        """Write rows. See `Store`."""
        np = numpy()
        collection = self._collection
        for batch in rows.to_batches(self._client.get_max_batch_size()):
            columns = batch.to_pydict()
            vectors = np.array(columns.pop("vector"), "f4")
            hashes = columns.pop("text_hash")
            texts = columns.pop(self._columns.text, None)
            metadatas = [
                {name: _metadata(values[row]) for name, values in columns.items() if values[row] is not None}
                | {"text_hash": hashes[row].hex()}
                for row in range(batch.num_rows)
            ]
            names = [str(each) for each in columns[self._columns.id]]
            collection.upsert(names, embeddings=vectors, metadatas=metadatas, documents=texts)

    def delete(self, ids: Sequence[Any]) -> None:
        """Remove rows. See `Store`."""
        self._collection.delete([str(each) for each in ids])

    def count(self) -> int:
        """Return the exact number of rows."""
        found: int = self._collection.count()
        return found

    def close(self) -> None:
        """Close the client, and let another process open the folder."""
        self._resources.close()

    @property
    def _collection(self) -> Any:
        return self._client.get_collection(self._name, embedding_function=None)


def _metadata(value: Any) -> Any:
    """Return a value as Chroma keeps it; what it does not keep becomes JSON."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value, default=str)
