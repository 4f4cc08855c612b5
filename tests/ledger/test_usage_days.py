"""The sums by day: equal to what the rows say, kept by the database, fast, and filled from a ledger of an earlier version."""

import datetime as dt
import random
import threading
import time
import uuid
from collections.abc import Iterator
from decimal import Decimal
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import a_ledger
from tests.support.late import COLLECTED
from tests.support.ledgers import admin, in_schema, schema

if COLLECTED:
    import sqlalchemy as sa
    from alembic import command
    from alembic.config import Config

    from benchmarks.usage import fill
    from hf_gateway.ledger import migrations, store
    from hf_gateway.ledger.latency_buckets import BUCKETS
    from hf_gateway.ledger.pruning import OldRows, prune
    from hf_gateway.ledger.store import insert_new, open_engine, open_ledger
    from hf_gateway.ledger.tables import observations, usage_days
    from hf_gateway.ledger.usage import UsageFilter, UsageReport, usage_report

DAY = dt.datetime(2026, 1, 30, tzinfo=dt.UTC)
BY = ("day", "model", "provider", "tenant", "chain", "key", "task")


def some_request(draw: random.Random) -> list[dict[str, Any]]:
    """Return the rows of a request with up to four attempts, which may be at one model again."""
    at = DAY - dt.timedelta(hours=draw.randrange(20, 24 * 9), minutes=30)
    request = uuid.uuid4()
    common: dict[str, Any] = {
        "request": request,
        "tenant": draw.choice(["acme", "globex", "", None]),
        "chain": draw.choice(["docs", None]),
        "caller_key": draw.choice(["k", "l"]),
        "task": draw.choice(["chat", "embedding"]),
        "shared": draw.random() < 0.1,
        "streamed": False,
        "user_tag": draw.choice(["ada", "bob"]),
    }
    tries = [draw.choice(["ok", "failed", "skipped", "cancelled"]) for _ in range(draw.randrange(5))]
    served = "ok" in tries or not tries
    rows = []
    for place, status in enumerate(tries):
        rows.append(
            {
                **{column.name: None for column in observations.c if column.nullable},
                **common,
                "id": uuid.uuid4(),
                "kind": "attempt",
                "time": at + dt.timedelta(seconds=place),
                "model": draw.choice(["a", "b", None]),
                "provider": draw.choice(["p", "q"]),
                "target": draw.choice(["t", "u"]),
                "status": status,
                "fallback": False,
                "error_class": draw.choice(["Overloaded", "RateLimited"]) if status in ("failed", "skipped") else None,
                "latency_ms": draw.lognormvariate(4, 1.5),
                "input_tokens": draw.choice([None, 3, 2**40]),
                "images": draw.choice([None, 1]),
                "seconds": draw.choice([None, 0.25]),
                "cost_usd": draw.choice([None, Decimal("0.000000000001"), Decimal("12.5")]),
            }
        )
    own = {
        **{column.name: None for column in observations.c if column.nullable},
        **common,
        "id": request,
        "kind": "request",
        "time": at,
        "model": rows[-1]["model"] if rows else None,
        "status": "ok" if served else "failed",
        "error_class": None if served else "Overloaded",
        "fallback": served and len(tries) > 1,
        "cached_texts": draw.choice([None, 0, 2]),
        "latency_ms": draw.lognormvariate(4, 1.5),
    }
    return [*rows, own]


def some_rows(seed: int, requests: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [row for _ in range(requests) for row in some_request(draw)]


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator["sa.Engine"]:
    """A ledger into which requests were inserted as the writer does it, some of them twice."""
    with a_ledger(request.param, tmp_path_factory.mktemp("ledger")) as url:
        engine = open_engine(url)
        found = some_rows(1, 300)
        with engine.begin() as connection:
            insert_new(connection, observations, found[: len(found) // 2])
        with engine.begin() as connection:
            insert_new(connection, observations, found)
        yield engine
        engine.dispose()


def of_rows(engine: "sa.Engine", by: tuple[str, ...], **which: Any) -> "UsageReport":
    """Return a report that reads no sums: its one day begins and ends a moment late."""
    shift = dt.timedelta(microseconds=1)
    day = DAY - dt.timedelta(days=3)
    return usage_report(engine, by, UsageFilter(day + shift, day + dt.timedelta(days=1), **which))


def without_latencies(report: "UsageReport") -> dict[Any, dict[str, Any]]:
    found = {names: figures.to_json() for names, figures in (*report.named.items(), (("total",), report.total))}
    return {names: {k: v for k, v in each.items() if not k.startswith("p")} for names, each in found.items()}


@pytest.mark.parametrize("by", [*((key,) for key in BY), *combinations(("day", "model", "provider", "tenant"), 2)])
def test_sums_are_those_of_the_rows(by: tuple[str, ...], filled: "sa.Engine") -> None:
    day = DAY - dt.timedelta(days=3)
    filters: list[dict[str, Any]] = [
        {},
        {"model": "a"},
        {"provider": "p"},
        {"model": "b", "provider": "q"},
        {"tenant": "acme", "chain": "docs"},
        {"chains": frozenset({"docs"}), "task": "chat"},
    ]
    for which in filters:
        summed = usage_report(filled, by, UsageFilter(day, day + dt.timedelta(days=1), **which))
        read = of_rows(filled, by, **which)
        assert without_latencies(summed) == without_latencies(read)
        assert [each.p95 for each in summed.named.values()] == [each.p95 for each in read.named.values()]
        assert summed.total.requests > 0


def test_whole_days_and_parts_of_days_make_the_whole(filled: "sa.Engine") -> None:
    halves = [DAY - dt.timedelta(days=9), DAY - dt.timedelta(hours=80), DAY - dt.timedelta(hours=79), DAY]
    parts = [usage_report(filled, "tenant", UsageFilter(a, b)).total for a, b in pairwise(halves)]
    whole = usage_report(filled, "tenant", UsageFilter()).total
    for name in ("requests", "failed", "attempts", "input_tokens", "cost", "cost_unknown", "shared", "cached"):
        assert sum(getattr(each, name) for each in parts) == getattr(whole, name)
    assert whole.requests == 300


def test_an_empty_name_is_not_an_unknown_one(filled: "sa.Engine") -> None:
    assert set(usage_report(filled, "tenant", UsageFilter()).groups) == {"acme", "globex", "", None}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_names_of_any_length_are_summed(kind: str, tmp_path: Path) -> None:
    name = "\N{SNOWMAN}" * 499
    with a_ledger(kind, tmp_path) as url, open_ledger(url) as engine:
        found = some_request(random.Random(2))
        for row in found:
            row.update(tenant=name, chain=name, model=name, provider=name, caller_key=name)
        with engine.begin() as connection:
            insert_new(connection, observations, found)
        assert usage_report(engine, "chain", UsageFilter()).groups[name].requests == 1


def test_replicas_that_write_to_one_day_at_once_lose_nothing() -> None:
    with schema() as name:
        engine = open_engine(in_schema(name))
        store.upgrade(engine)
        batches = [some_rows(seed, 60) for seed in range(8)]
        begin = threading.Barrier(len(batches))
        failures = []

        def write(batch: list[dict[str, Any]]) -> None:
            own = open_engine(in_schema(name))
            try:
                begin.wait(60)
                for place in range(0, len(batch), 40):
                    with own.begin() as connection:
                        insert_new(connection, observations, batch[place : place + 40])
            except Exception as error:
                failures.append(error)
            finally:
                own.dispose()

        # Whole requests, in batches of 40 rows: a batch may end within a request, whose own row comes last.
        writers = [threading.Thread(target=write, args=(batch,)) for batch in batches]
        for each in writers:
            each.start()
        for each in writers:
            each.join(120)
        assert failures == []
        assert usage_report(engine, "day", UsageFilter()).total.requests == 8 * 60
        cost = sum((row["cost_usd"] or 0 for batch in batches for row in batch if row["kind"] == "attempt"), Decimal(0))
        assert usage_report(engine, "model", UsageFilter()).total.cost == cost
        engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_sums_stay_when_rows_are_pruned(kind: str, tmp_path: Path) -> None:
    with a_ledger(kind, tmp_path) as url, open_ledger(url) as engine:
        with engine.begin() as connection:
            insert_new(connection, observations, some_rows(3, 50))
        before = without_latencies(usage_report(engine, "tenant", UsageFilter()))
        assert prune(engine, OldRows(DAY)) > 50
        assert without_latencies(usage_report(engine, "tenant", UsageFilter())) == before
        assert usage_report(engine, "user", UsageFilter()).total.requests == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_sums_of_one_tenant_go_with_its_rows(kind: str, tmp_path: Path) -> None:
    day = DAY - dt.timedelta(days=3)
    noon, after = day + dt.timedelta(hours=12), day + dt.timedelta(days=1)
    with a_ledger(kind, tmp_path) as url, open_ledger(url) as engine:
        with engine.begin() as connection:
            insert_new(connection, observations, some_rows(6, 300))

        def report(tenant: str, since: dt.datetime | None, until: dt.datetime | None) -> dict[Any, dict[str, Any]]:
            return without_latencies(usage_report(engine, BY, UsageFilter(since, until, tenant=tenant)))

        other, later = report("globex", None, None), report("acme", after, None)
        assert usage_report(engine, "tenant", UsageFilter(None, day, tenant="acme")).total.requests > 0
        assert prune(engine, OldRows(noon, "acme")) > 20
        assert usage_report(engine, "tenant", UsageFilter(None, day, tenant="acme")).total.attempts == 0
        left = report("acme", day, after)
        assert left == without_latencies(of_rows(engine, BY, tenant="acme"))
        assert left["total",]["requests"] > 0
        assert (report("globex", None, None), report("acme", after, None)) == (other, later)
        assert prune(engine, OldRows(noon, "acme")) == 0
        assert report("acme", day, after) == left
        prune(engine, OldRows(DAY, "acme"))
        with engine.connect() as connection:
            of_acme = sa.select(usage_days.c.day).where(usage_days.c.tenant == "acme")
            assert connection.execute(of_acme).all() == []


ANEW = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "0007", "0006", None, None
def upgrade():
    for table in ("llm_observations", "llm_usage_days"):
        with op.batch_alter_table(table) as batch:
            batch.alter_column("chain", existing_type=sa.Text, type_=sa.String(500))
def downgrade():
    pass
"""
"""A revision that changes a column: SQLite's tables are made anew for it."""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_sums_go_on_after_a_table_was_made_anew(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "versions"
    folder.mkdir()
    (folder / "v0007_anew.py").write_text(ANEW, encoding="utf-8")
    with a_ledger(kind, tmp_path) as url, open_ledger(url) as engine:
        with engine.begin() as connection:
            insert_new(connection, observations, some_rows(7, 10))
        _at_revision(engine, "0007", folder)
        assert store.revision(engine) == "0007"
        with engine.begin() as connection:
            insert_new(connection, observations, some_rows(8, 10))
        assert usage_report(engine, "day", UsageFilter()).total.requests == 20


def _at_revision(engine: "sa.Engine", revision: str, *folders: Path) -> None:
    config = Config()
    config.set_main_option("script_location", "hf_gateway.ledger:migrations")
    config.set_main_option("path_separator", "newline")
    own = Path(migrations.__file__).with_name("versions")
    config.set_main_option("version_locations", "\n".join(map(str, (own, *folders))))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_ledger_of_an_earlier_version_is_summed_by_its_upgrade(kind: str, tmp_path: Path) -> None:
    with schema() as name:
        url = f"sqlite:///{tmp_path / 'old.sqlite'}" if kind == "sqlite" else in_schema(name)
        engine = open_engine(url)
        _at_revision(engine, "0004")
        role = f"{name}_reader"
        if kind == "postgresql":
            admin(f"CREATE ROLE {role} LOGIN")
            admin(f"INSERT INTO {name}.llm_tenant_roles VALUES ('{role}', 'acme'), ('gone', 'acme')")
        with engine.begin() as connection:
            connection.execute(sa.insert(observations), some_rows(4, 80))
        assert store.upgrade(engine)
        with engine.begin() as connection:
            insert_new(connection, observations, some_rows(5, 20))
        assert usage_report(engine, "tenant", UsageFilter()).total.requests == 100
        day = UsageFilter(DAY - dt.timedelta(days=3), DAY - dt.timedelta(days=2))
        assert without_latencies(usage_report(engine, BY, day)) == without_latencies(of_rows(engine, BY))
        if kind == "postgresql":
            privilege = f"SELECT has_table_privilege('{role}', '{name}.llm_usage_days', 'SELECT')"
            with engine.connect() as connection:
                assert connection.exec_driver_sql(privilege).scalar() is True
            admin(f"DROP OWNED BY {role}")
            admin(f"DROP ROLE {role}")
        with engine.connect() as connection:
            made = {column["name"] for column in sa.inspect(connection).get_columns("llm_usage_days")}
        assert made == set(usage_days.c.keys())
        engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_whole_days_of_many_rows_are_read_without_the_rows(kind: str, tmp_path: Path) -> None:
    """`benchmarks/usage.py` has the times of a million rows; here the statements name no table of rows."""
    with a_ledger(kind, tmp_path) as url, open_ledger(url, patience=60.0) as engine:
        fill(engine, 2_000, days=2)
        statements: list[str] = []
        sa.event.listen(engine, "before_cursor_execute", lambda *event: statements.append(event[2]))
        for by in combinations(BY, 2):
            report = usage_report(engine, by, UsageFilter(DAY - dt.timedelta(days=30)))
            assert report.total.requests == 2_000
        assert statements
        assert not any("llm_observations" in each for each in statements)
        with engine.connect() as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(usage_days)).scalar_one() < 2_000


def test_reports_of_a_million_rows_take_less_than_ten_times_what_is_promised() -> None:
    """200 ms on PostgreSQL: the sums are those of a million rows, of 30 days, 20 tenants, 5 models and two kinds."""
    days, calls = 30, 500_000
    numbers = [
        column.name for column in usage_days.c if not column.nullable and column.name not in ("id", "day", "kind")
    ]
    values = {
        "id": "n::text",
        "day": f"date '{DAY.date()}' - n % {days}",
        "kind": "CASE WHEN n % 2 = 0 THEN 'request' ELSE 'attempt' END",
        "tenant": "'tenant ' || n / 60 % 20",
        "chain": "'chat'",
        "caller_key": "'key ' || n / 60 % 40",
        "task": "'chat'",
        "model": "'model ' || n / 2400 % 5",
        "provider": "'provider ' || n / 60 % 2",
        "latency_min_ms": "1",
        "latency_max_ms": "1000",
        **dict.fromkeys(numbers, "0"),
        **dict.fromkeys(BUCKETS, "2"),
        "rows": f"{2 * calls} / 12000 + CASE WHEN n < 4000 THEN 1 ELSE 0 END",
    }
    with schema() as name, open_ledger(in_schema(name)) as engine:
        with engine.begin() as connection:
            connection.exec_driver_sql(
                f"INSERT INTO llm_usage_days ({', '.join(values)}) "
                f"SELECT {', '.join(values.values()).replace('%', '%%')} FROM generate_series(0, 11999) AS n"
            )
        for by in (("day", "model"), ("tenant", "provider", "model"), ("key",)):
            took = []
            for _ in range(3):
                began = time.perf_counter()
                report = usage_report(engine, by, UsageFilter(DAY - dt.timedelta(days=days)))
                took.append(time.perf_counter() - began)
            assert report.total.requests == calls
            assert min(took) < 2.0


def test_rows_of_one_transaction_are_added_to_the_sums_at_once_in_sqlite(tmp_path: Path) -> None:
    with a_ledger("sqlite", tmp_path) as url, open_ledger(url) as engine, engine.begin() as connection:
        rows = []
        for _ in range(200):
            one = some_request(random.Random(6))
            ids = {row["id"]: uuid.uuid4() for row in one}
            rows += [row | {"id": ids[row["id"]], "request": ids[row["request"]]} for row in one]
        driver: Any = connection.connection.driver_connection
        before = driver.total_changes
        insert_new(connection, observations, rows)
        after = driver.total_changes
        sums = connection.execute(sa.select(sa.func.count()).select_from(usage_days)).scalar_one()
        # The rows, the number of the last one before them and its end, and each sum once.
        assert after - before == len(rows) + 2 + sums


def test_rows_of_an_earlier_versions_process_are_counted_once_in_sqlite(tmp_path: Path) -> None:
    with a_ledger("sqlite", tmp_path) as url, open_ledger(url) as engine:
        for seed in (7, 8):
            with engine.begin() as connection:
                connection.execute(sa.insert(observations), some_rows(seed, 20))
            with engine.begin() as connection:
                insert_new(connection, observations, some_rows(seed + 10, 30))
        assert usage_report(engine, "tenant", UsageFilter()).total.requests == 100
        day = UsageFilter(DAY - dt.timedelta(days=3), DAY - dt.timedelta(days=2))
        assert without_latencies(usage_report(engine, BY, day)) == without_latencies(of_rows(engine, BY))
