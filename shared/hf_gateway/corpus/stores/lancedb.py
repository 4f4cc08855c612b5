"""LanceDB: a folder or URL of tables; rows are merged by their ids."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import lancedb

from hf_gateway.corpus.stores.base import SPACE, StoreColumns, StorePlace
from hf_gateway.retrieval.files import arrow
from hf_gateway.values.vector_space import VectorSpace


def open_collection(place: StorePlace, columns: StoreColumns) -> "LanceTable":
    """Open a database.

    Args:
        place: of the table.
        columns: of the rows.
    """
    return LanceTable(lancedb.connect(place.where), place.collection, columns)


class LanceTable:
    """A table whose columns are those of the parts; the space is in the metadata of its schema."""

    def __init__(self, database: Any, name: str, columns: StoreColumns) -> None:
        """Take a database.

        Args:
            database: open.
            name: of the table.
            columns: of the rows.
        """
        self._database, self._name, self._columns = database, name, columns

    def create(self, rows: Any, space: VectorSpace) -> Mapping[str, Any] | None:
        """Make the table, unless it is there; see `Store`.

        Args:
            rows: a table like those that will be written.
            space: is recorded with a new table.

        Returns:
            The space that is recorded; None if the table has no record.
        """
        try:
            self._table  # noqa: B018 - raises if it is missing
        except ValueError:
            schema = rows.schema.with_metadata({SPACE: json.dumps(space.to_dict())})
            self._database.create_table(self._name, schema=schema)
        recorded = (self._table.schema.metadata or {}).get(SPACE.encode())
        return None if recorded is None else json.loads(recorded)

    def upsert(self, rows: Any) -> None:
        """Write rows. See `Store`."""
        table = self._table
        merge = table.merge_insert(self._columns.id).when_matched_update_all().when_not_matched_insert_all()
        merge.execute(rows.replace_schema_metadata().cast(table.schema.remove_metadata()))

    def delete(self, ids: Sequence[Any]) -> None:
        """Remove rows. See `Store`."""
        self._table.delete(f"{self._columns.id} IN ({', '.join(map(_literal, ids))})")

    def count(self) -> int:
        """Return the exact number of rows."""
        found: int = self._table.count_rows()
        return found

    def close(self) -> None:
        """Do nothing: a database holds no connection."""

    @property
    def _table(self) -> Any:
        return self._database.open_table(self._name)


def _literal(value: Any) -> str:
    """Return a value as SQL has it."""
    pa, _ = arrow()
    if isinstance(value, int):
        return str(value)
    return "'" + str(pa.scalar(value)).replace("'", "''") + "'"
