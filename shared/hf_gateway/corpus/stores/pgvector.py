"""PostgreSQL with the extension pgvector: a table of ids, vectors, hashes of texts, and the copied columns as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from hf_gateway.corpus.stores.base import SPACE, StoreColumns, StorePlace, json_value
from hf_gateway.errors import ConfigError
from hf_gateway.values.vector_space import VectorSpace

SPACES = "hf_gateway_spaces"
"""The table with the space of each table of vectors."""


def open_collection(place: StorePlace, columns: StoreColumns) -> "PgvectorTable":
    """Connect to a database.

    Args:
        place: of the table.
        columns: of the rows.
    """
    return PgvectorTable(psycopg.connect(place.where, application_name="hf-gateway"), place.collection, columns)


class PgvectorTable:
    """A table in the schema in which the connection makes tables; ids are text."""

    def __init__(self, connection: "psycopg.Connection[Any]", name: str, columns: StoreColumns) -> None:
        """Take over a connection.

        Args:
            connection: open.
            name: of the table.
            columns: of the rows.
        """
        self._connection, self._name, self._columns = connection, name, columns
        self._names: dict[str, sql.Composable] = {
            "table": sql.Identifier(name),
            "id": sql.Identifier(columns.id),
            "spaces": sql.Identifier(SPACES),
        }

    def create(self, rows: Any, space: VectorSpace) -> Mapping[str, Any] | None:
        """Make the table, unless it is there; see `Store`.

        Args:
            rows: a table like those that will be written.
            space: is recorded with a new table.

        Returns:
            The space that is recorded; None if the table has no record.
        """
        kind = rows.schema.field("vector").type
        half = str(kind.value_type) == "halffloat"
        with self._connection.transaction():
            # Of several jobs that begin at once, one makes the tables.
            self._execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [SPACE])
            if self._value("SELECT 1 FROM pg_extension WHERE extname = 'vector'") is None:
                self._execute("CREATE EXTENSION vector")
            if half and self._value("SELECT to_regtype('halfvec')") is None:
                raise ConfigError("this PostgreSQL has a pgvector before 0.7, which has no float16: leave --dtype out")
            self._execute("CREATE TABLE IF NOT EXISTS {spaces} (collection text PRIMARY KEY, space jsonb NOT NULL)")
            if self._value("SELECT to_regclass(quote_ident(%s))", [self._name]) is None:
                self._names["vector"] = sql.SQL(f"{'halfvec' if half else 'vector'}({kind.list_size})")
                self._execute(
                    "CREATE TABLE {table} ({id} text PRIMARY KEY, vector {vector} NOT NULL, text_hash bytea NOT NULL, "
                    "columns jsonb NOT NULL)"
                )
                self._execute(
                    "INSERT INTO {spaces} VALUES (%s, %s) ON CONFLICT (collection) DO UPDATE SET space = EXCLUDED.space",
                    [self._name, json.dumps(space.to_dict())],
                )
            recorded: Mapping[str, Any] | None = self._value(
                "SELECT space FROM {spaces} WHERE collection = %s", [self._name]
            )
        return recorded

    def upsert(self, rows: Any) -> None:
        """Write rows, in one transaction. See `Store`."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            self._execute("CREATE TEMPORARY TABLE passing (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DROP")
            with cursor.copy("COPY passing FROM STDIN") as copy:
                for batch in rows.to_batches(1000):
                    columns = batch.to_pydict()
                    vectors, hashes = columns.pop("vector"), columns.pop("text_hash")
                    names = columns.pop(self._columns.id)
                    for row, name in enumerate(names):
                        others = {each: json_value(values[row]) for each, values in columns.items()}
                        copy.write_row((str(name), str(vectors[row]), hashes[row], json.dumps(others)))
            self._execute(
                "INSERT INTO {table} SELECT * FROM passing ON CONFLICT ({id}) DO UPDATE "
                "SET vector = EXCLUDED.vector, text_hash = EXCLUDED.text_hash, columns = EXCLUDED.columns"
            )

    def delete(self, ids: Sequence[Any]) -> None:
        """Remove rows. See `Store`."""
        with self._connection.transaction():
            self._execute("DELETE FROM {table} WHERE {id} = ANY(%s)", [[str(each) for each in ids]])

    def count(self) -> int:
        """Return the exact number of rows."""
        with self._connection.transaction():
            (found,) = self._execute("SELECT count(*) FROM {table}").fetchone() or (0,)
        return int(found)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        return self._connection.execute(sql.SQL(statement).format(**self._names), values or None)

    def _value(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Return the first value of the first row; None if there is no row."""
        found = self._execute(statement, values).fetchone()
        return None if found is None else found[0]
