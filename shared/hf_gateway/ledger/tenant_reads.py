"""Reads of the ledger on behalf of one tenant: the database itself returns no row of another one.

PostgreSQL has row-level security for that: the transaction takes a role to which the policy `named_tenant` applies, since
none applies to the owner of the tables. In SQLite, views of the tenant's rows take the names of the tables.
"""

from typing import Any

import sqlalchemy as sa

from hf_gateway.errors import ConfigError
from hf_gateway.ledger.place import database_words, shown_url
from hf_gateway.ledger.store import AT_BEGIN
from hf_gateway.ledger.tables import budgets, metadata, models, observations, spending, tenant_roles, usage_days
from hf_gateway.values.logs import logger

log = logger(__name__)

READER = "hf_gateway_reader"
"""The role of PostgreSQL by which the rows of one tenant are read; it cannot log in."""
TENANT_SETTING = "hf_gateway.tenant"
_OF_TENANTS = (observations, usage_days, budgets, spending)


def engine_of_tenant(engine: sa.Engine, tenant: str) -> sa.Engine:
    """Return an engine with the same connections, whose transactions only read, and only rows of a tenant.

    Args:
        engine: the ledger's database.
        tenant: the tenant.

    Raises:
        ValueError: the tenant's name is empty.
    """
    if not tenant:
        raise ValueError("a tenant has a name")
    narrow = _narrow_postgresql if engine.dialect.name == "postgresql" else _narrow_sqlite
    view = engine.execution_options(reading=True, **{AT_BEGIN: lambda connection: narrow(connection, tenant)})

    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(view, "commit")
        def _commit(connection: sa.Connection) -> None:
            connection.exec_driver_sql("ROLLBACK")

    return view


def _narrow_postgresql(connection: sa.Connection, tenant: str) -> None:
    connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    # Both end with the transaction.
    connection.execute(sa.select(sa.func.set_config(TENANT_SETTING, tenant, True)))
    connection.exec_driver_sql(f"SET LOCAL ROLE {READER}")


def _narrow_sqlite(connection: sa.Connection, tenant: str) -> None:
    """Make views that a rollback removes; a name without a schema means the one in `temp` first."""
    connection.exec_driver_sql("CREATE TEMP TABLE tenant_in_force AS SELECT ? AS tenant", (tenant,))
    own = "tenant = (SELECT tenant FROM temp.tenant_in_force)"
    conditions: dict[str, str] = {models.name: "1", **{table.name: own for table in _OF_TENANTS}}
    for table in metadata.sorted_tables:
        condition = conditions.get(table.name, "0")
        statement = f"CREATE TEMP VIEW {table.name} AS SELECT * FROM main.{table.name} WHERE {condition}"  # noqa: S608 - constants
        connection.exec_driver_sql(statement)


def prepare_reader(connection: sa.Connection) -> bool:
    """Create the role for reads of one tenant, let this user take it, and let it read; return whether all of it succeeded.

    The rest of the transaction is not affected by a failure, which is logged with the statements for an administrator.

    Args:
        connection: a connection of the tables' owner to PostgreSQL, in a transaction.
    """
    quote = connection.dialect.identifier_preparer.quote_identifier
    schema = quote(str(connection.exec_driver_sql("SELECT current_schema()").scalar()))
    user = quote(str(connection.exec_driver_sql("SELECT current_user").scalar()))
    # The policy for other roles reads the table of roles, where this one has no row.
    tables = ", ".join(table.name for table in (*_OF_TENANTS, models, tenant_roles))
    statements = [f"GRANT USAGE ON SCHEMA {schema} TO {READER}", f"GRANT SELECT ON {tables} TO {READER}"]
    exists = sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role")
    if not connection.execute(exists, {"role": READER}).scalar():
        statements[:0] = [f"CREATE ROLE {READER} NOLOGIN", f"GRANT {READER} TO {user}"]
    elif not connection.execute(sa.select(sa.func.pg_has_role(READER, "MEMBER"))).scalar():
        statements[:0] = [f"GRANT {READER} TO {user}"]
    usable = sa.select(sa.func.has_schema_privilege(READER, sa.func.current_schema(), "USAGE"))
    reason = "this user may not grant the use of the schema"
    try:
        with connection.begin_nested():
            for statement in statements:
                connection.exec_driver_sql(statement)
        # PostgreSQL only warns if this user may not grant a privilege.
        if connection.execute(usable).scalar():
            return True
    except sa.exc.DBAPIError as error:
        reason = database_words(error)
    log.warning(
        "reads of the ledger for one tenant are refused until an administrator of PostgreSQL runs: %s (%s)",
        "; ".join(statements),
        reason,
    )
    return False


def check_reader(engine: sa.Engine) -> None:
    """Make sure that a tenant's rows can be read, once, before the first read.

    Raises:
        ConfigError: the role does not exist, or this user may not take it.
        SQLAlchemyError: the database cannot be reached.
    """
    if engine.dialect.name != "postgresql":
        return
    try:
        with engine_of_tenant(engine, "no tenant").connect() as connection:
            for table in (observations, usage_days):
                connection.execute(sa.select(table.c.id).limit(1))
            return
    except sa.exc.ProgrammingError:
        pass
    except sa.exc.DBAPIError as error:
        if not _is_missing_role(error):
            raise
    with engine.begin() as connection:
        ready = prepare_reader(connection)
    if not ready:
        raise ConfigError(
            f"{shown_url(str(engine.url))} has no role {READER} that this user may take, so that rows of one tenant "
            "cannot be read; the log has the statements for an administrator of PostgreSQL"
        )


def _is_missing_role(error: Any) -> bool:
    """Return whether PostgreSQL refused a name of a role (invalid_parameter_value, undefined_object)."""
    return getattr(error.orig, "sqlstate", None) in ("22023", "42704")
