"""The ledger's database: its connections, its tables, and roles of tenants.

Importing this module imports SQLAlchemy, which takes tenths of a second: not on an event loop.
"""

import contextlib
import functools
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from hf_gateway.errors import ConfigError
from hf_gateway.ledger.place import database_words as database_words
from hf_gateway.ledger.place import shown_url
from hf_gateway.ledger.tables import observations, tenant_roles, usage_batches, usage_days
from hf_gateway.storage.sqlite import gate, set_wal_mode
from hf_gateway.values.logs import logger

log = logger(__name__)

HEAD = "0006"
"""Revision of the tables that this code uses."""
VERSION_TABLE = "hf_gateway_version"
"""Not Alembic's default name: the database may belong to another program too."""
AT_BEGIN = "hf_gateway_at_begin"
"""Execution option with a function that is called with the connection at the begin of each transaction."""
_MIGRATION_LOCK_ID = 0x68665F6777  # for PostgreSQL's advisory lock


def open_engine(
    url: str, *, patience: float = 5.0, read_only: bool = False, connected: Callable[[Any], None] | None = None
) -> sa.Engine:
    """Return an engine for the ledger's database; nothing is connected yet.

    A SQLite transaction takes the write lock when it begins, so that two transactions that read and then write cannot
    deadlock; not with `read_only`, nor through `reading`.

    Args:
        url: URL of the database.
        patience: seconds for SQLite's lock and PostgreSQL's connection; a PostgreSQL statement may take twice that.
        read_only: whether transactions only read.
        connected: called with each new driver connection before it is used.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, patience, read_only)
    options: dict[str, Any] = {
        "connect_timeout": max(2, round(patience)),
        "application_name": "hf-gateway",
        "tcp_user_timeout": int(2000 * patience),
        # A server whose machine is gone is noticed also by who only waits for its answer, for two hours otherwise.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        # Prepared statements do not survive a pooler that changes connections between transactions.
        "prepare_threshold": None,
    }
    engine = sa.create_engine(
        parsed, connect_args={**options, **parsed.query}, pool_pre_ping=True, pool_size=2, hide_parameters=True
    )

    @sa.event.listens_for(engine, "connect")
    def _limit(connection: Any, _record: Any) -> None:
        if connected is not None:
            connected(connection)
        # Set on the connection: a pooler may refuse options in the URL.
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {int(2000 * patience)}")
        connection.commit()

    sa.event.listen(engine, "begin", _call_at_begin)
    return engine


def reading(engine: sa.Engine) -> sa.Engine:
    """Return a view of an engine whose transactions only read: on SQLite they wait for no process that writes."""
    return engine.execution_options(reading=True)


class _Idle:
    """The idle connections of an engine, which a fork closes."""

    def __init__(self, engine: sa.Engine, file: str) -> None:
        self._engine, self._file = engine, file

    def let_go(self) -> None:
        self._engine.dispose()

    def idle_resource(self) -> str | None:
        pool: Any = self._engine.pool
        return self._file if pool.checkedin() else None


_IN_USE = "hf_gateway_in_use"
"""Key in a connection's record for the thread that uses it."""


class _GatedPool(sa.pool.QueuePool):
    """A pool whose connections hold the fork gate from before their checkout until after their return.

    SQLAlchemy reports a checkout after the connection has left the pool, and a return before it is back: a fork in
    between would find it neither in use nor in the pool, and leave it open in the child.
    """

    file: str
    """Path of the database."""
    replaced = False
    """Whether the engine has another pool now: connections that return to this one are closed."""

    def _do_get(self) -> Any:
        thread = gate.enter(self.file)
        try:
            record: Any = super()._do_get()
        except BaseException:
            gate.leave(self.file, thread)
            raise
        if _IN_USE in record.record_info:  # a recursive call, since another thread was faster
            gate.leave(self.file, thread)
        else:
            record.record_info[_IN_USE] = thread
        return record

    def _do_return_conn(self, record: Any) -> None:
        thread = record.record_info.pop(_IN_USE)
        try:
            super()._do_return_conn(record)
            if self.replaced:
                self.dispose()
        finally:
            gate.leave(self.file, thread)

    def dispose(self) -> None:
        self.replaced = True
        super().dispose()


def _sqlite(parsed: sa.URL, patience: float, read_only: bool) -> sa.Engine:
    path = str(Path(str(parsed.database)).absolute())

    class FilePool(_GatedPool):
        file = path

    engine = sa.create_engine(
        parsed,
        poolclass=FilePool,
        # In autocommit, since transactions are begun below: the driver would not begin any for tables and PRAGMAs.
        connect_args={"timeout": patience, "isolation_level": None, "check_same_thread": False},
        hide_parameters=True,
    )
    idle = _Idle(engine, path)
    gate.register(idle)

    @sa.event.listens_for(engine, "do_connect")
    def _connect(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        if not read_only:
            _make_file(Path(path))
        connection = dialect.connect(*arguments, **options)
        with contextlib.ExitStack() as failing:
            failing.callback(connection.close)
            if not read_only:
                set_wal_mode(connection, patience)
            connection.execute("PRAGMA synchronous=NORMAL")
            failing.pop_all()
        return connection

    @sa.event.listens_for(engine, "engine_disposed")
    def _disposed(_engine: Any, idle: _Idle = idle) -> None:
        """Do nothing; keeps the object that forks use alive as long as the engine."""

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        reads = read_only or connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
        _call_at_begin(connection)

    return engine


def _make_file(path: Path) -> None:
    """Make the file of a database unless it exists. Raises OSError."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(
            f"the database {path} cannot be made: {why}; HF_GATEWAY_HOME names the folder of databases, and HF_GATEWAY_LEDGER or "
            "[server] database a single one"
        ) from error


def _call_at_begin(connection: sa.Connection) -> None:
    if (action := connection.get_execution_options().get(AT_BEGIN)) is not None:
        action(connection)


def revision(engine: sa.Engine) -> str | None:
    """Return the revision of the database's tables; None if they do not exist. Raises SQLAlchemyError, OSError."""
    with reading(engine).connect() as connection:
        return _revision(connection)


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    return None if found is None else str(found)


def other_revision(url: str, found: str | None, upgrade: str = "`hf-gateway db upgrade`") -> str:
    """Return that a database's tables are not those of this version, and what to do.

    Args:
        url: URL of the database.
        found: the revision of its tables; None if it has none.
        upgrade: what creates or upgrades them.
    """
    if found is not None and found > HEAD:
        cure = "they are of a newer hf-gateway: upgrade with `pip install -U hf-gateway`"
    else:
        cure = f"{upgrade} creates or upgrades them"
    return f"the tables in {shown_url(url)} have revision {found or 'none'}, and this hf-gateway needs {HEAD}; {cure}"


def upgrade(engine: sa.Engine) -> bool:
    """Create the tables or migrate them, once, even if several processes try at the same time.

    Returns whether there was anything to do.

    Raises:
        ConfigError: a newer hf-gateway created the tables.
        SQLAlchemyError, OSError: the database cannot be reached or refuses.
    """
    found = revision(engine)
    if found == HEAD:
        return False
    if found is not None and found > HEAD:
        raise ConfigError(
            f"the tables in {shown_url(str(engine.url))} have revision {found} of a newer hf-gateway, and this one supports "
            f"{HEAD}: upgrade with `pip install -U hf-gateway`"
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "hf_gateway.ledger:migrations")
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # Adding up the rows of a large ledger takes longer than any other statement.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK_ID})")
        # SQLite's transaction holds the write lock already, so a second process sees the tables of the first.
        if _revision(connection) != HEAD:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return True


@contextmanager
def open_ledger(url: str, *, patience: float = 5.0) -> Iterator[sa.Engine]:
    """Yield an engine for a database with its tables, and close its connections afterwards. Raises as `upgrade`.

    Args:
        url: URL of the database.
        patience: seconds for SQLite's lock and PostgreSQL's connection.
    """
    engine = open_engine(url, patience=patience)
    with contextlib.ExitStack() as closing:
        closing.callback(engine.dispose)
        upgrade(engine)
        yield engine


def grant(url: str, role: str, tenant: str) -> None:
    """Allow a PostgreSQL role to read the rows of one tenant; "*" for the rows of all tenants.

    A role may be granted several tenants; within a session it can restrict itself with `SET hf_gateway.tenant = '…'`,
    and never extend its access. Run by the owner of the tables, to whom the policy does not apply.

    Args:
        url: URL of the database.
        role: the role.
        tenant: the tenant.

    Raises:
        ConfigError: the database is not PostgreSQL, or the role has no access to the schema.
        SQLAlchemyError: the role does not exist, or this user may not grant it access.
    """
    with open_ledger(url) as engine, engine.begin() as connection:
        if connection.dialect.name != "postgresql":
            raise ConfigError("SQLite has no roles: a user who can read the file can read all of it")
        quoted = connection.dialect.identifier_preparer.quote_identifier(role)
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar()
        quoted_schema = connection.dialect.identifier_preparer.quote_identifier(str(schema))
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {quoted_schema} TO {quoted}")
        # PostgreSQL only warns if this user may not grant a privilege.
        usable = sa.select(sa.func.has_schema_privilege(role, schema, "USAGE"))
        if not connection.execute(usable).scalar():
            raise ConfigError(
                f"{role} has no access to the schema {schema}, and this user may not grant it; its owner can: "
                f"GRANT USAGE ON SCHEMA {quoted_schema} TO {quoted}"
            )
        for table in (observations.name, usage_days.name, tenant_roles.name, VERSION_TABLE):
            connection.exec_driver_sql(f"GRANT SELECT ON {table} TO {quoted}")
        known = connection.execute(
            sa.select(tenant_roles).where(tenant_roles.c.role == role, tenant_roles.c.tenant == tenant)
        ).first()
        if known is None:
            connection.execute(sa.insert(tenant_roles).values(role=role, tenant=tenant))


def revoke(url: str, role: str, tenant: str | None = None) -> None:
    """Revoke a role's access.

    Args:
        url: URL of the database.
        role: the role.
        tenant: only the access to this tenant's rows.

    Raises:
        SQLAlchemyError: the database failed.
    """
    with open_ledger(url) as engine, engine.begin() as connection:
        taken = sa.delete(tenant_roles).where(tenant_roles.c.role == role)
        connection.execute(taken if tenant is None else taken.where(tenant_roles.c.tenant == tenant))


@functools.lru_cache(8)
def _sqlite_insert(table: sa.Table, dialect: sa.Dialect) -> tuple[str, list[str], list[tuple[int, Any]]]:
    """Return the statement that inserts a row whose id does not exist yet, its columns, and what converts values, by place.

    SQLAlchemy would build the parameters of each row by name, which takes as long as the insert itself.

    Args:
        table: the table.
        dialect: of SQLite.
    """
    statement = str(sqlite.insert(table).on_conflict_do_nothing().compile(dialect=dialect))
    converters = [each.type.dialect_impl(dialect).bind_processor(dialect) for each in table.columns]
    converted = [(place, process) for place, process in enumerate(converters) if process is not None]
    return statement, [each.key for each in table.columns], converted


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> set[uuid.UUID]:
    """Insert the rows whose id does not exist yet, and return their ids.

    Args:
        connection: a connection in a transaction.
        table: the table.
        rows: the rows by column.

    Raises:
        SQLAlchemyError: the database failed.
    """
    if not rows:
        return set()
    if connection.dialect.name == "sqlite":
        # The transaction holds the write lock, so the rows after the last one are those that were inserted.
        rowid = sa.literal_column("rowid", sa.Integer)
        last = connection.execute(sa.select(sa.func.max(rowid)).select_from(table)).scalar() or 0
        if table is observations:
            connection.execute(sa.insert(usage_batches).values(last_row=last))
        statement, names, converted = _sqlite_insert(table, connection.dialect)
        inserted: list[tuple[Any, ...]] = []
        for row in rows:
            values = list(map(row.get, names))
            for place, process in converted:
                values[place] = process(values[place])
            inserted.append(tuple(values))
        done = connection.exec_driver_sql(statement, inserted)
        if table is observations:
            connection.execute(sa.delete(usage_batches))  # which adds the rows to the sums by day
        if done.rowcount == len(rows):
            return {row["id"] for row in rows}
        return set(connection.execute(sa.select(table.c.id).where(rowid > last)).scalars())
    # One statement with one parameter: several times faster than one per row, and compatible with poolers.
    name = connection.dialect.identifier_preparer.format_table(table)
    columns = ", ".join(table.c.keys())
    found = connection.exec_driver_sql(
        f"INSERT INTO {name} ({columns}) "  # noqa: S608 - names of the table and its columns
        f"SELECT {columns} FROM json_populate_recordset(NULL::{name}, %s::json) ON CONFLICT DO NOTHING RETURNING id",
        (json.dumps(rows, default=str, ensure_ascii=False),),
    )
    return set(found.scalars())
