"""Two servers over one PostgreSQL: one budget, one ledger, connections that are cut, and a server that is killed."""

import contextlib
import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.server.faults.load import KINDS, STREAM, WHOLE, Load, ask, wait_until
from tests.servers.openai import FakeOpenAI
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, ServerProcess, chat_chain
from tests.support.late import COLLECTED
from tests.support.ledgers import admin, lost, rows
from tests.support.server_keys import make_key, public_part

if COLLECTED:
    import time

    import sqlalchemy as sa

    from hf_gateway.ledger.budget import Budget, BudgetStatus
    from hf_gateway.ledger.budgets import budget_statuses, set_budget
    from hf_gateway.ledger.models import set_entry
    from hf_gateway.ledger.prices import Price, PriceEntry
    from hf_gateway.ledger.store import open_ledger

LIMIT = Decimal("0.004321")
"""In US dollars: some hundred calls."""
CUTS = 3
"""How often all connections to the database are cut."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    with a_ledger("postgresql", tmp_path) as url:
        yield url


@contextlib.contextmanager
def replica(config: str, database: str, folder: Path) -> Iterator[ServerProcess]:
    """A server whose files are in a folder of its own."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        with contextlib.chdir(folder):
            process = stack.enter_context(ServerProcess(f'{config}\n[server]\ndatabase = "{database}"\n'))
        yield process


def stop(*processes: ServerProcess) -> None:
    """End servers as an operator does, so that they write what they still have to write."""
    for process in processes:
        process.signal(signal.SIGTERM)
    for process in processes:
        assert process.wait() == 0, process.log
        assert "Traceback" not in process.log, process.log


def status_of(database: str, tenant: str) -> "BudgetStatus":
    """Return what a budget says of itself."""
    with open_ledger(database) as engine:
        (found,) = (each for each in budget_statuses(engine, time.time()) if each.budget.tenant == tenant)
    return found


def test_callers_of_two_servers_spend_one_budget_to_the_digit(
    database: str, primary: FakeOpenAI, tmp_path: Path
) -> None:
    key = make_key(database)
    tenant = f"key:{public_part(key)}"
    with open_ledger(database) as engine:
        set_budget(engine, Budget(tenant, "day", LIMIT))
        price = Price(Decimal("1.234567"), Decimal("2.345678"))
        set_entry(engine, PriceEntry("*", "text-generation", f"openai:{primary.url}", price))
    config = chat_chain(primary.url)
    with replica(config, database, tmp_path / "a") as one, replica(config, database, tmp_path / "b") as other:
        with Load([one.url, other.url], 64, key, [WHOLE, STREAM]) as load:
            wait_until(lambda: load.count("402") >= 200, f"the budget does not end: {load.seen}")
        stop(one, other)
    assert set(load.seen) == {"200", "402"}
    recorded = rows(database, kind="request", status="ok")
    status = status_of(database, tenant)
    assert len(recorded) == load.seen["200"] > 64
    assert {row["caller_key"] for row in recorded} == {public_part(key)}
    assert sum(row["cost_usd"] for row in recorded) == status.spent <= LIMIT
    assert (status.reserved, status.spent + status.remaining) == (0, LIMIT)


def cut_connections(database: str) -> None:
    """End all connections to a test's schema at the database."""
    name = sa.make_url(database).query["application_name"]
    admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'")


def test_connections_that_the_database_ends_lose_no_call(database: str, primary: FakeOpenAI, tmp_path: Path) -> None:
    key = make_key(database)
    with open_ledger(database) as engine:
        set_budget(engine, Budget("*", "day", Decimal(1000)))
        for task in ("feature-extraction", "text-generation"):
            set_entry(engine, PriceEntry("*", task, f"openai:{primary.url}", Price(Decimal(1), Decimal(1))))
    with replica(HASH_CHAIN + chat_chain(primary.url), database, tmp_path / "a") as process:
        with process.client() as client, Load([process.url], 8, key) as load:
            for _ in range(CUTS):
                load.more(40)
                cut_connections(database)
            # It serves again, and nobody has done anything for that.
            load.more(40)
            assert [ask(client, kind, key) for kind in KINDS] == ["200"] * len(KINDS)
        stop(process)
    assert set(load.seen) <= {"200", "503"}
    recorded = rows(database, kind="request", status="ok")
    assert len(recorded) == load.seen["200"] + len(KINDS)
    assert not lost(database)


def test_one_server_goes_on_when_the_other_is_killed(database: str, primary: FakeOpenAI, tmp_path: Path) -> None:
    key = make_key(database)
    config = HASH_CHAIN + chat_chain(primary.url)
    with replica(config, database, tmp_path / "a") as one, replica(config, database, tmp_path / "b") as other:
        with Load([other.url], 4, key) as load, Load([one.url], 4, key) as ending:
            ending.more(20)
            load.more(20)
            one.signal(signal.SIGKILL)
            one.wait()
            ending.join()
            load.more(80)
        assert set(load.seen) == {"200"}
        assert ending.seen["refused"] == 4
        stop(other)
    recorded = rows(database, kind="request", status="ok")
    assert len(recorded) >= load.seen["200"]
    assert not lost(database)
