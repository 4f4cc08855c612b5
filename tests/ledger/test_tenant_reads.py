"""What is read of the ledger for one tenant: the database itself returns no row of another one."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from hf_gateway import Gateway
from hf_gateway.errors import ConfigError
from hf_gateway.observing.observer import tagged
from tests.ledger.test_ledger_tenants import role
from tests.support.late import COLLECTED
from tests.support.ledgers import admin, in_schema, kept, postgres, schema, sqlite, url

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger import budgets, store
    from hf_gateway.ledger.budget import Budget
    from hf_gateway.ledger.tables import metadata, observations
    from hf_gateway.ledger.tenant_reads import READER, check_reader, engine_of_tenant
    from hf_gateway.ledger.usage import UsageFilter, usage_report

__all__ = ["postgres", "sqlite", "url"]

TENANTS = ("acme", "acme", "globex", None)


@pytest.fixture
def engine(url: str) -> Iterator["sa.Engine"]:
    """A ledger with calls and budgets of several tenants."""
    with kept(url) as book:
        for tenant in TENANTS:
            with tagged(tenant=tenant):
                Gateway(targets=["hash:8"]).embed(["a text"])
        assert book.flush()
    with store.open_ledger(url) as made:
        for tenant in ("acme", "globex", "*"):
            budgets.set_budget(made, Budget(tenant, "day", Decimal(1)))
        yield made


def tenants_seen(engine: "sa.Engine") -> list[str | None]:
    with engine.connect() as connection:
        of_requests = sa.select(observations.c.tenant).where(observations.c.kind == "request")
        return sorted(connection.execute(of_requests).scalars(), key=str)


def test_a_query_without_a_condition_returns_the_tenants_rows_alone(engine: "sa.Engine") -> None:
    assert tenants_seen(engine_of_tenant(engine, "acme")) == ["acme", "acme"]
    assert tenants_seen(engine_of_tenant(engine, "globex")) == ["globex"]
    assert len(tenants_seen(engine)) == 4


@pytest.mark.parametrize("tenant", ["*", "acme' OR 'a' = 'a", "%", "ACME", "initech", "\N{SNOWMAN}"])
def test_no_name_of_a_tenant_widens_what_is_read(tenant: str, engine: "sa.Engine") -> None:
    assert tenants_seen(engine_of_tenant(engine, tenant)) == []


def test_a_tenant_without_a_name_is_refused(engine: "sa.Engine") -> None:
    with pytest.raises(ValueError, match="has a name"):
        engine_of_tenant(engine, "")


def test_a_report_and_budgets_are_the_tenants_own(engine: "sa.Engine") -> None:
    mine = engine_of_tenant(engine, "acme")
    report = usage_report(mine, "tenant", UsageFilter())
    assert list(report.groups) == ["acme"]
    assert report.total.requests == 2
    assert [each.tenant for each in budgets.all_budgets(mine)] == ["acme"]


def test_another_tenant_may_be_asked_for_and_is_not_found(engine: "sa.Engine") -> None:
    report = usage_report(engine_of_tenant(engine, "acme"), "tenant", UsageFilter(tenant="globex"))
    assert dict(report.groups) == {}


def test_a_later_read_on_the_same_connection_is_not_narrowed(engine: "sa.Engine") -> None:
    for _ in range(5):
        assert tenants_seen(engine_of_tenant(engine, "acme")) == ["acme", "acme"]
        assert len(tenants_seen(engine)) == 4


def test_nothing_is_written_for_a_tenant(engine: "sa.Engine") -> None:
    mine = engine_of_tenant(engine, "acme")
    with pytest.raises(sa.exc.DBAPIError), mine.connect() as connection:
        connection.execute(sa.delete(observations))
    with mine.begin() as connection:
        connection.execute(sa.select(observations))
    assert len(tenants_seen(engine)) == 4


def test_tables_about_all_tenants_show_a_tenant_nothing(engine: "sa.Engine") -> None:
    mine = engine_of_tenant(engine, "acme")
    open_to_tenants = {"llm_observations", "llm_usage_days", "budgets", "budget_spending", "huggingface_models"}
    for table in metadata.sorted_tables:
        if table.name in open_to_tenants:
            continue
        try:
            with mine.connect() as connection:
                assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0
        except sa.exc.ProgrammingError as error:
            assert "permission denied" in str(error)  # noqa: PT017 - one database refuses, the other returns nothing


def test_an_owner_who_may_not_take_the_role_is_told_the_statements(caplog: pytest.LogCaptureFixture) -> None:
    with schema() as other, store.open_ledger(in_schema(other)):
        pass  # the role belongs to the whole server, and is there from the first ledger on
    with schema() as name, role("owner") as owner:
        admin(f"GRANT ALL ON SCHEMA {name} TO {owner}")
        with store.open_ledger(in_schema(name, user=owner)) as engine:
            with pytest.raises(ConfigError, match=f"no role {READER} that this user may take"):
                check_reader(engine)
            assert f"GRANT {READER} TO" in caplog.text
            with pytest.raises(sa.exc.DBAPIError):
                tenants_seen(engine_of_tenant(engine, "acme"))
            admin(f"GRANT {READER} TO {owner}")
            with pytest.raises(ConfigError, match="no role"):
                check_reader(engine)
            admin(f"GRANT USAGE ON SCHEMA {name} TO {READER}")
            check_reader(engine)
            assert tenants_seen(engine_of_tenant(engine, "acme")) == []
        admin(f"DROP OWNED BY {owner} CASCADE")
