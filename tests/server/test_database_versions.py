"""Databases of other versions: a file of an earlier one is upgraded at the start, a PostgreSQL by `hf-gateway db upgrade`."""

from pathlib import Path

import pytest

from hf_gateway.cli import main
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, ServerProcess
from tests.support.late import COLLECTED
from tests.support.server_keys import bearer, make_key

if COLLECTED:
    import sqlalchemy as sa
    from alembic import command
    from alembic.config import Config

    from hf_gateway.ledger import store
    from tests.support.ledgers import in_schema, rows, schema

ROW = (
    "INSERT INTO llm_observations (id, request, kind, time, task, shared, streamed, fallback, latency_ms, status) VALUES "
    "('01a2286bc5b9705cabdcdc6b3696c1ea', '01a2286bc5b9705cabdcdc6b3696c1ea', 'request', '2026-01-01 00:00:00', 'chat', "
    "false, false, false, 1.0, 'ok')"
)


def made_by(url: str, version: str) -> None:
    """Make the tables of an earlier version, and a row in them."""
    engine = store.open_engine(url)
    config = Config()
    config.set_main_option("script_location", "hf_gateway.ledger:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        connection.execute(sa.text(ROW))
    engine.dispose()


def version_of(url: str) -> str | None:
    engine = store.open_engine(url)
    try:
        return store.revision(engine)
    finally:
        engine.dispose()


def written(url: str) -> str:
    """Write the configuration of a server with a database; returns its path."""
    Path("gateway.toml").write_text(f'{HASH_CHAIN}[server]\ndatabase = "{url}"\n', encoding="utf-8")
    return "gateway.toml"


@pytest.mark.parametrize("version", ["0001", "0003", "0005"])
def test_a_file_of_an_earlier_version_is_upgraded_at_the_start_and_keeps_its_rows(version: str) -> None:
    url = f"sqlite:///{Path.cwd() / 'old.sqlite'}"
    made_by(url, version)
    with ServerProcess(f'{HASH_CHAIN}[server]\ndatabase = "{url}"\n') as process, process.client() as client:
        assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 200
        key = make_key(url)
    assert version_of(url) == store.HEAD
    assert {row["task"] for row in rows(url, kind="request")} == {"chat", "embedding"}
    with ServerProcess(f'{HASH_CHAIN}[server]\ndatabase = "{url}"\n') as process, process.client() as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize("version", ["0001", "0005"])
def test_a_postgresql_of_an_earlier_version_is_refused_until_it_is_upgraded(
    version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with schema() as name:
        url = in_schema(name)
        made_by(url, version)
        path = written(url)
        assert main(["serve", "--port", "0", "--config", path]) == 2
        assert "hf-gateway db upgrade" in capsys.readouterr().err
        assert version_of(url) == version
        assert main(["db", "upgrade", "--config", path]) == 0
        assert version_of(url) == store.HEAD
        with ServerProcess(Path(path).read_text(encoding="utf-8")) as process, process.client() as client:
            assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 200
        assert {row["task"] for row in rows(url, kind="request")} == {"chat", "embedding"}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_of_a_later_version_is_refused_and_left_alone(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_ledger(kind, tmp_path) as url:
        engine = store.open_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text(f"UPDATE {store.VERSION_TABLE} SET version_num = '9999'"))
        engine.dispose()
        assert main(["serve", "--port", "0", "--config", written(url)]) == 2
        assert "pip install -U hf-gateway" in capsys.readouterr().err
        assert version_of(url) == "9999"
