"""Qdrant: a server by its URL, or a folder of the client's local mode, which one process at a time may open."""

import contextlib
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import QdrantClient, models

from hf_gateway.corpus.stores.base import SPACE, StoreColumns, StorePlace, hold_folder, json_value
from hf_gateway.values.vector_space import VectorSpace

NAMESPACE = uuid.UUID("5b0f4c1c-9f7a-5d0e-8a3b-0d5d4d0f2a61")
"""Of the points' UUIDs: point ids are integers or UUIDs, so a row's is the UUIDv5 of its id, which is in the payload."""
BATCH_ROWS = 500
TIMEOUT_S = 60


def point_id(row_id: Any) -> str:
    """Return the id of the point of a row."""
    return str(uuid.uuid5(NAMESPACE, str(row_id)))


def open_collection(place: StorePlace, columns: StoreColumns) -> "QdrantCollection":
    """Connect to a server, or wait for the folder and open it.

    Args:
        place: of the collection.
        columns: of the rows.
    """
    resources = contextlib.ExitStack()
    with resources:
        if place.is_remote:
            client = QdrantClient(url=place.where, api_key=os.environ.get("QDRANT_API_KEY"), timeout=TIMEOUT_S)
        else:
            hold_folder(place.where, resources)
            client = QdrantClient(path=place.where)
        resources.callback(client.close)
        return QdrantCollection(client, place.collection, columns, resources.pop_all())
    raise AssertionError("an exit stack swallows nothing")


class QdrantCollection:
    """A collection with one unnamed vector and cosine distance, as the frameworks' classes make it."""

    def __init__(self, client: QdrantClient, name: str, columns: StoreColumns, resources: contextlib.ExitStack) -> None:
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
        if not self._client.collection_exists(self._name):
            kind = rows.schema.field("vector").type
            half = str(kind.value_type) == "halffloat"
            self._client.create_collection(
                self._name,
                vectors_config=models.VectorParams(
                    size=kind.list_size,
                    distance=models.Distance.COSINE,
                    datatype=models.Datatype.FLOAT16 if half else models.Datatype.FLOAT32,
                ),
                metadata={SPACE: space.to_dict()},
            )
        found = self._client.get_collection(self._name).config.metadata
        recorded: Mapping[str, Any] | None = (found or {}).get(SPACE)
        return recorded

    def upsert(self, rows: Any) -> None:
        """Write rows. See `Store`."""
        for batch in rows.to_batches(BATCH_ROWS):
            columns = batch.to_pydict()
            vectors = columns.pop("vector")
            hashes = columns.pop("text_hash")
            names = columns[self._columns.id]
            payloads = [
                {name: json_value(values[row]) for name, values in columns.items()} | {"text_hash": hashes[row].hex()}
                for row in range(batch.num_rows)
            ]
            points = models.Batch(ids=[point_id(name) for name in names], vectors=vectors, payloads=payloads)
            self._client.upsert(self._name, points, wait=True)

    def delete(self, ids: Sequence[Any]) -> None:
        """Remove rows. See `Store`."""
        self._client.delete(self._name, models.PointIdsList(points=[point_id(each) for each in ids]), wait=True)

    def count(self) -> int:
        """Return the exact number of rows."""
        return self._client.count(self._name, exact=True).count

    def close(self) -> None:
        """Close the client, and let another process open the folder."""
        self._resources.close()
