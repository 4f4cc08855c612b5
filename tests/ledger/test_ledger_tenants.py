"""PostgreSQL's row-level security: a tenant's role reads its own rows and no others, whatever it says of itself."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hf_gateway import Gateway
from hf_gateway.cli import main
from hf_gateway.errors import ConfigError
from hf_gateway.observing.observer import tagged
from tests.support.late import COLLECTED
from tests.support.ledgers import admin, in_schema, kept, rows, schema

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger import store
    from hf_gateway.ledger.usage import UsageFilter, usage_report


TENANTS = ("acme", "acme", "globex", None)


@contextmanager
def role(name: str) -> Iterator[str]:
    """Give a role of PostgreSQL that may log in, under a name that nobody else has."""
    unique = f"hf_gateway_{name}_{uuid.uuid4().hex[:8]}"
    admin(f"CREATE ROLE {unique} LOGIN")
    try:
        yield unique
    finally:
        admin(f"DROP OWNED BY {unique}")
        admin(f"DROP ROLE {unique}")


@pytest.fixture
def name() -> Iterator[str]:
    """A schema with a ledger of several tenants' calls."""
    with schema() as made:
        with kept(in_schema(made)) as book:
            for tenant in TENANTS:
                with tagged(tenant=tenant):
                    Gateway(targets=["hash:8"]).embed(["a text"])
            assert book.flush()
        yield made


@pytest.fixture
def acme(name: str) -> Iterator[str]:
    """A role that was given one tenant's rows."""
    with role("acme") as made:
        store.grant(in_schema(name), made, "acme")
        store.grant(in_schema(name), made, "acme")
        yield made


@pytest.fixture
def globex(name: str) -> Iterator[str]:
    """A role that was given another tenant's rows."""
    with role("globex") as made:
        store.grant(in_schema(name), made, "globex")
        yield made


def seen(name: str, user: str) -> list[str | None]:
    return sorted(row["tenant"] for row in rows(in_schema(name, user=user), kind="request"))


def ask(name: str, user: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements in one session of a role, and return the rows of the last one."""
    engine = sa.create_engine(in_schema(name, user=user))
    try:
        with engine.connect() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result]
    finally:
        engine.dispose()


def test_each_role_reads_its_own_tenants_rows(name: str, acme: str, globex: str) -> None:
    assert seen(name, acme) == ["acme", "acme"]
    assert seen(name, globex) == ["globex"]
    assert [row["tenant"] for row in rows(in_schema(name, user=acme), kind="attempt")] == ["acme", "acme"]


def test_the_owner_who_writes_is_not_bound(name: str, acme: str, globex: str) -> None:
    assert len(rows(in_schema(name), kind="request")) == 4


def test_an_owner_who_is_no_superuser_writes_and_sees_all_and_lets_others_see() -> None:
    with schema() as name, role("writer") as writer, role("reader") as reader:
        admin(f"GRANT ALL ON SCHEMA {name} TO {writer}")
        with kept(in_schema(name, user=writer)) as book:
            for tenant in TENANTS:
                with tagged(tenant=tenant):
                    Gateway(targets=["hash:8"]).embed(["a text"])
            assert book.flush()
        assert len(rows(in_schema(name, user=writer), kind="request")) == 4
        with pytest.raises(ConfigError, match="GRANT USAGE ON SCHEMA"):
            store.grant(in_schema(name, user=writer), reader, "globex")
        admin(f"GRANT USAGE ON SCHEMA {name} TO {reader}")
        store.grant(in_schema(name, user=writer), reader, "globex")
        assert seen(name, reader) == ["globex"]
        admin(f"DROP OWNED BY {writer} CASCADE")


def test_no_setting_widens_what_a_role_sees(name: str, acme: str, globex: str) -> None:
    count = "SELECT count(*) FROM llm_observations WHERE kind = 'request'"
    for setting in ("globex", "*", "acme' OR 'a' = 'a", ""):
        escaped = setting.replace("'", "''")
        ((found,),) = ask(name, acme, f"SET hf_gateway.tenant = '{escaped}'", count)
        assert found == (2 if setting == "" else 0)


@pytest.mark.parametrize(
    "statement",
    [
        "SET ROLE {other}",
        "SET SESSION AUTHORIZATION {other}",
        "ALTER TABLE llm_observations DISABLE ROW LEVEL SECURITY",
        "DROP POLICY own_tenant ON llm_observations",
        "SET row_security = off; SELECT * FROM llm_observations",
        "INSERT INTO llm_tenant_roles VALUES ('{me}', 'globex')",
        "UPDATE llm_tenant_roles SET tenant = '*'",
        "DELETE FROM llm_observations",
        "UPDATE llm_observations SET tenant = 'acme'",
        "INSERT INTO llm_observations SELECT * FROM llm_observations",
        "SELECT * FROM llm_observation_losses",
        "SELECT * FROM budgets",
        "SELECT * FROM budget_spending",
    ],
)
def test_a_role_may_not(statement: str, name: str, acme: str, globex: str) -> None:
    with pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner|query would be affected"):
        ask(name, acme, statement.format(other=globex, me=acme))


def test_a_role_does_not_learn_who_else_there_is(name: str, acme: str, globex: str) -> None:
    assert ask(name, acme, "SELECT role, tenant FROM llm_tenant_roles") == [(acme, "acme")]


def test_a_role_of_several_tenants_can_narrow_what_it_sees(name: str, acme: str) -> None:
    store.grant(in_schema(name), acme, "globex")
    count = "SELECT count(*) FROM llm_observations WHERE kind = 'request'"
    assert ask(name, acme, count) == [(3,)]
    assert ask(name, acme, "SET hf_gateway.tenant = 'globex'", count) == [(1,)]


def test_a_role_for_everybody_sees_also_calls_without_a_tenant(name: str) -> None:
    with role("auditor") as auditor:
        store.grant(in_schema(name), auditor, "*")
        assert len(rows(in_schema(name, user=auditor), kind="request")) == 4


def test_what_is_taken_from_a_role_it_sees_no_more(name: str, acme: str) -> None:
    store.grant(in_schema(name), acme, "globex")
    store.revoke(in_schema(name), acme, "acme")
    assert seen(name, acme) == ["globex"]
    store.revoke(in_schema(name), acme)
    assert seen(name, acme) == []


def test_usage_shows_a_role_its_own_figures(name: str, acme: str, capsys: pytest.CaptureFixture[str]) -> None:
    engine = store.open_engine(in_schema(name, user=acme), read_only=True)
    try:
        found = usage_report(engine, "tenant", UsageFilter())
    finally:
        engine.dispose()
    assert list(found.groups) == ["acme"]
    assert found.total.requests == 2
    assert main(["usage", "--ledger", in_schema(name, user=acme), "--by", "tenant", "--csv"]) == 0
    assert [line.split(",")[:2] for line in capsys.readouterr().out.splitlines()[1:]] == [["acme", "2"]]


def test_usage_tells_a_role_without_rights_what_to_do(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with role("nobody") as nobody:
        admin(f"GRANT USAGE ON SCHEMA {name} TO {nobody}")
        assert main(["usage", "--ledger", in_schema(name, user=nobody)]) == 1
    said = capsys.readouterr().err
    assert "this role may not read the ledger in postgresql" in said
    assert "its owner grants it with" in said


def test_sqlite_has_no_roles(tmp_path: object) -> None:
    with pytest.raises(ConfigError, match="SQLite has no roles"):
        store.grant(f"sqlite:///{tmp_path}/ledger.sqlite", "somebody", "acme")
