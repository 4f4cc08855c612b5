"""The ledger's database: where it is, how it is opened, and that it has its tables.

Importing this imports SQLAlchemy, which takes tenths of a second: never on an event loop.
"""

import contextlib
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
from hf_gateway.ledger.tables import observations, tenant_roles
from hf_gateway.storage.sqlite import gate, set_wal_mode
from hf_gateway.values.logs import logger

log = logger(__name__)

HEAD = "0001"
"""The revision of the tables that this code knows."""
VERSION_TABLE = "hf_gateway_version"
"""Not Alembic's own name: the database may be another program's, too."""
_MIGRATION_LOCK_ID = 0x68665F6777  # for PostgreSQL's advisory lock


def open_engine(
    url: str, *, patience: float = 5.0, read_only: bool = False, connected: Callable[[Any], None] | None = None
) -> sa.Engine:
    """Return an engine for the ledger's database; nothing is connected to yet.

    patience: seconds for SQLite's lock and PostgreSQL's connection; a statement of PostgreSQL's may take twice that.
    connected: is told of each of the driver's connections, before anything is said on it.

    A transaction of SQLite takes the write lock when it begins, so that two that read and then write cannot block each other;
    with read_only it takes none, nor where its connection has the execution option `reading`.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, patience, read_only)
    options: dict[str, Any] = {
        "connect_timeout": max(2, round(patience)),
        "application_name": "hf-gateway",
        "tcp_user_timeout": int(2000 * patience),
        # What is prepared does not survive a pooler that changes connections between transactions.
        "prepare_threshold": None,
    }
    engine = sa.create_engine(
        parsed, connect_args={**options, **parsed.query}, pool_pre_ping=True, pool_size=2, hide_parameters=True
    )

    @sa.event.listens_for(engine, "connect")
    def _limit(connection: Any, _record: Any) -> None:
        if connected is not None:
            connected(connection)
        # Said on the connection: a pooler may refuse options in the URL.
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {int(2000 * patience)}")
        connection.commit()

    return engine


class _Idle:
    """What a fork closes of an engine: the connections that wait in its pool."""

    def __init__(self, engine: sa.Engine, file: str) -> None:
        self._engine, self._file = engine, file

    def let_go(self) -> None:
        self._engine.dispose()

    def idle_resource(self) -> str | None:
        pool: Any = self._engine.pool
        return self._file if pool.checkedin() else None


_IN_USE = "hf_gateway_in_use"
"""Where a connection's record says which thread has it."""


class _GatedPool(sa.pool.QueuePool):
    """A pool whose connections are within the gate of forks from before they leave it until they are back.

    SQLAlchemy tells of a checkout when the connection is out already, and of a checkin when it is not yet in: a fork between
    would find it neither in use nor in the pool, and leave it open in the child.
    """

    file: str
    """Path of the database."""
    replaced = False
    """Whether the engine has another pool by now: what comes back to this one is closed."""

    def _do_get(self) -> Any:
        thread = gate.enter(self.file)
        try:
            record: Any = super()._do_get()
        except BaseException:
            gate.leave(self.file, thread)
            raise
        if _IN_USE in record.record_info:  # it called itself, since another thread was faster
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
        # In autocommit, since transactions are begun below: the driver would begin none for tables and PRAGMAs.
        connect_args={"timeout": patience, "isolation_level": None, "check_same_thread": False},
        hide_parameters=True,
    )
    idle = _Idle(engine, path)
    gate.register(idle)

    @sa.event.listens_for(engine, "do_connect")
    def _connect(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        if not read_only and not Path(path).exists():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch(mode=0o600)
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
        """Do nothing; keeps what forks close for as long as the engine lives."""

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        reading = read_only or connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def revision(engine: sa.Engine) -> str | None:
    """Return the revision that the database's tables have; None where there are none. Raises SQLAlchemyError, OSError."""
    with engine.connect() as connection:
        return _revision(connection.execution_options(reading=True))


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - our own name
    return None if found is None else str(found)


def upgrade(engine: sa.Engine) -> bool:
    """Make the tables, or bring them to what this code knows, once, whoever else tries at the same time.

    Returns whether there was anything to do.

    Raises:
        ConfigError: a newer hf-gateway made them.
        SQLAlchemyError, OSError: the database is not there, or does not let us.
    """
    found = revision(engine)
    if found == HEAD:
        return False
    if found is not None and found > HEAD:
        raise ConfigError(
            f"the tables in {shown_url(str(engine.url))} are of revision {found}, made by a newer hf-gateway, and this one knows "
            f"{HEAD}: upgrade with `pip install -U hf-gateway`"
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "hf_gateway.ledger:migrations")
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK_ID})")
        # SQLite's transaction holds the write lock already; so whoever comes second sees what the first one made.
        if _revision(connection) != HEAD:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return True


@contextmanager
def open_ledger(url: str, *, patience: float = 5.0) -> Iterator[sa.Engine]:
    """Give an engine whose database has its tables, and close its connections afterwards. Raises what `upgrade` does."""
    engine = open_engine(url, patience=patience)
    with contextlib.ExitStack() as closing:
        closing.callback(engine.dispose)
        upgrade(engine)
        yield engine


def grant(url: str, role: str, tenant: str) -> None:
    """Let a role of PostgreSQL read one tenant's rows, and no others; "*" for those of all.

    A role may be given several tenants; within a session it can narrow what it sees with `SET hf_gateway.tenant = '…'`,
    and never widen it. Run by the owner of the tables, whom the policy does not bind.

    Raises:
        ConfigError: the database is no PostgreSQL; the role may not look into the schema.
        SQLAlchemyError: there is no such role, or it may not be given rights by us.
    """
    with open_ledger(url) as engine, engine.begin() as connection:
        if connection.dialect.name != "postgresql":
            raise ConfigError("SQLite has no roles: whoever can read the file reads all of it")
        quoted = connection.dialect.identifier_preparer.quote_identifier(role)
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar()
        quoted_schema = connection.dialect.identifier_preparer.quote_identifier(str(schema))
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {quoted_schema} TO {quoted}")
        # PostgreSQL only warns of a right that is not ours to give.
        usable = sa.select(sa.func.has_schema_privilege(role, schema, "USAGE"))
        if not connection.execute(usable).scalar():
            raise ConfigError(
                f"{role} may not look into the schema {schema}, and this user may not let it; its owner can: "
                f"GRANT USAGE ON SCHEMA {quoted_schema} TO {quoted}"
            )
        for table in (observations.name, tenant_roles.name, VERSION_TABLE):
            connection.exec_driver_sql(f"GRANT SELECT ON {table} TO {quoted}")
        known = connection.execute(
            sa.select(tenant_roles).where(tenant_roles.c.role == role, tenant_roles.c.tenant == tenant)
        ).first()
        if known is None:
            connection.execute(sa.insert(tenant_roles).values(role=role, tenant=tenant))


def revoke(url: str, role: str, tenant: str | None = None) -> None:
    """Take a tenant's rows from a role, or all of them. Raises SQLAlchemyError."""
    with open_ledger(url) as engine, engine.begin() as connection:
        taken = sa.delete(tenant_roles).where(tenant_roles.c.role == role)
        connection.execute(taken if tenant is None else taken.where(tenant_roles.c.tenant == tenant))


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> set[uuid.UUID]:
    """Insert the rows whose id is not there yet; returns the ids of those. Raises SQLAlchemyError."""
    if not rows:
        return set()
    if connection.dialect.name == "sqlite":
        # The transaction holds the write lock, so what lies behind the last row afterwards is what was inserted.
        rowid = sa.literal_column("rowid", sa.Integer)
        last = connection.execute(sa.select(sa.func.max(rowid)).select_from(table)).scalar() or 0
        done = connection.execute(sqlite.insert(table).on_conflict_do_nothing(), list(rows))
        if done.rowcount == len(rows):
            return {row["id"] for row in rows}
        return set(connection.execute(sa.select(table.c.id).where(rowid > last)).scalars())
    # One statement with one parameter: several times faster than one a row, and any pooler lets it through.
    name = connection.dialect.identifier_preparer.format_table(table)
    columns = ", ".join(table.c.keys())
    found = connection.exec_driver_sql(
        f"INSERT INTO {name} ({columns}) "  # noqa: S608 - our own names
        f"SELECT {columns} FROM json_populate_recordset(NULL::{name}, %s::json) ON CONFLICT DO NOTHING RETURNING id",
        (json.dumps(rows, default=str, ensure_ascii=False),),
    )
    return set(found.scalars())
