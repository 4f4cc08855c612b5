"""How long a report of a ledger with a million rows takes, on SQLite and PostgreSQL."""

import datetime as dt
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import sqlalchemy as sa

from benchmarks.harness.bench import Bench
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate
from hf_gateway.ledger.store import open_engine, upgrade
from hf_gateway.ledger.usage import UsageFilter, usage_report

ROUNDS, REQUESTS, DAYS, TENANTS, MODELS = 5, 500_000, 30, 20, 5
BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SERVER = os.environ.get("HF_GATEWAY_TEST_POSTGRES", "postgresql+psycopg://root@127.0.0.1:5432/test")
SCHEMA = "hf_gateway_usage_benchmark"
REPORTS: dict[str, tuple[tuple[str, ...], UsageFilter]] = {
    "by model": (("model",), UsageFilter(BEGIN)),
    "by day and model": (("day", "model"), UsageFilter(BEGIN)),
    "by tenant, provider and model": (("tenant", "provider", "model"), UsageFilter(BEGIN)),
    "by model, of one tenant": (("model",), UsageFilter(BEGIN, tenant="tenant 3")),
    "by model, from noon": (("model",), UsageFilter(BEGIN + dt.timedelta(hours=12))),
}


def fill(engine: sa.Engine, requests: int, days: int = DAYS) -> None:
    """Insert requests, each with one attempt.

    Args:
        engine: a ledger's database with its tables.
        requests: number of requests.
        days: number of days over which they are spread.
    """
    on_sqlite = engine.dialect.name == "sqlite"
    seconds = f"(n / {10 * TENANTS} % {days}) * 86400 + (n * 37) % 86400"
    begin = BEGIN.strftime("%Y-%m-%d %H:%M:%S")
    words = {
        "id": "printf('%032x', {n})" if on_sqlite else "lpad(to_hex({n}), 32, '0')::uuid",
        "time": f"datetime('{begin}', '+' || ({seconds}) || ' seconds')"
        if on_sqlite
        else f"timestamptz '{begin}+00' + ({seconds}) * interval '1 second'",
        "tenant": f"'tenant ' || (n % {TENANTS})",
        "chain": "'chat'",
        "caller_key": f"'key ' || (n % {2 * TENANTS})",
        "task": "'chat'",
        "model": f"'model ' || (n / {TENANTS} % {MODELS})",
        "provider": "'provider ' || (n % 2)",
        "target": "'hf'",
        "shared": "false",
        "streamed": "false",
        "fallback": "false",
        "latency_ms": "1.0 + (n * 37) % 1000",
        "status": "CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'ok' END",
        "error_class": "CASE WHEN n % 50 = 0 THEN 'Overloaded' END",
        "input_tokens": "n % 1000",
        "output_tokens": "n % 100",
        "cost_usd": "n % 1000" if on_sqlite else "(n % 1000) * 0.000000000001",
    }
    with engine.begin() as connection:
        if not on_sqlite:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        # A request's own row is the last of its rows.
        for kind, number in (("attempt", "2 * n + 1"), ("request", "2 * n")):
            values = words | {
                "id": words["id"].format(n=number),
                "request": words["id"].format(n="2 * n"),
                "kind": f"'{kind}'",
            }
            series = f"WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {requests})"
            selected = f"SELECT {', '.join(values.values())} FROM series"
            insert = f"INSERT INTO llm_observations ({', '.join(values)})"
            statement = f"{insert} {series} {selected}" if on_sqlite else f"{series} {insert} {selected}"
            connection.exec_driver_sql(statement.replace("%", "%%") if not on_sqlite else statement)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def run(bench: Bench) -> Report:
    """Measure reports and writes on both databases."""
    requests = REQUESTS // 50 if bench.quick else REQUESTS
    report = Report(f"Usage of {2 * requests:,} rows, of {DAYS} days, {TENANTS} tenants and {MODELS} models")
    for name, opened in (("SQLite", _sqlite(bench)), ("PostgreSQL", _postgresql())):
        reports = Table(f"{name}: a report", "ms", None, digits=1)
        report.tables.append(reports)
        cells: list[Cell] = []
        with opened as engine:
            upgrade(engine)
            fill(engine, requests)
            for title, (by, selected) in REPORTS.items():
                reports.rows.append(Row(title, ours=True))
                cells.append(Cell.of(reports.rows[-1], _milliseconds, partial(usage_report, engine, by, selected)))
            alternate(cells, bench.rounds(ROUNDS))
    report.notes.append("From the sums by day, but for the half day of the last line, which is read from its rows.")
    return report


@contextmanager
def _sqlite(bench: Bench) -> Iterator[sa.Engine]:
    engine = open_engine(f"sqlite:///{bench.folder / 'usage.sqlite'}")
    yield engine
    engine.dispose()


@contextmanager
def _postgresql() -> Iterator[sa.Engine]:
    owner = sa.create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with owner.connect() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
        url = sa.make_url(SERVER).update_query_dict({"options": f"-csearch_path={SCHEMA}"})
        engine = open_engine(url.render_as_string(hide_password=False), patience=60.0)
        try:
            yield engine
        finally:
            engine.dispose()
            connection.exec_driver_sql(f"DROP SCHEMA {SCHEMA} CASCADE")
    owner.dispose()


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000
