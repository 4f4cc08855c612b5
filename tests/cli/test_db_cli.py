"""`hf-gateway db`: tables and old rows of the server's database."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hf_gateway import Gateway
from hf_gateway.cli import main
from hf_gateway.observing.observer import tagged
from tests.support.databases import a_ledger
from tests.support.late import COLLECTED
from tests.support.ledgers import in_schema, kept, schema

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger.pruning import OldRows, count_old, prune
    from hf_gateway.ledger.store import open_ledger
    from hf_gateway.ledger.tables import observations


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with a call of 100 days ago and one of now, of two tenants each."""
    with a_ledger(request.param, tmp_path) as made:
        with kept(made) as book:
            for tenant in ("acme", "globex"):
                with tagged(tenant=tenant):
                    Gateway(targets=["hash:8"]).embed(["a text"])
            assert book.flush()
            old = datetime.now(UTC) - timedelta(days=100)
            with open_ledger(made) as engine, engine.begin() as connection:
                connection.execute(sa.update(observations).values(time=old))
            for tenant in ("acme", "globex"):
                with tagged(tenant=tenant):
                    Gateway(targets=["hash:8"]).embed(["a text"])
            assert book.flush()
        yield made


def requests(url: str) -> list[str]:
    with open_ledger(url) as engine, engine.connect() as connection:
        query = sa.select(observations.c.tenant).where(observations.c.kind == "request").order_by("tenant")
        return list(connection.execute(query).scalars())


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["db", *words]) == 0
    return capsys.readouterr().out


def test_a_dry_run_counts_and_removes_nothing(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = printed(capsys, "prune", "--older-than", "90d", "--dry-run", "--database", url)
    assert words.startswith("4 rows from before")
    assert "would be removed" in words
    assert requests(url) == ["acme", "acme", "globex", "globex"]


def test_old_rows_of_one_tenant_are_removed(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "prune", "--older-than", "90d", "--tenant", "acme", "--json", "--database", url))
    assert (found["rows"], found["removed"], found["tenant"]) == (2, True, "acme")
    assert requests(url) == ["acme", "globex", "globex"]
    assert printed(capsys, "prune", "--older-than", "90d", "--database", url).startswith("2 rows")
    assert requests(url) == ["acme", "globex"]


def test_reports_forget_a_tenant_whose_rows_are_removed(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = printed(capsys, "prune", "--older-than", "0d", "--tenant", "acme", "--database", url)
    assert words.startswith("4 rows of acme, with their sums by day, from before")
    assert main(["usage", "--by", "tenant", "--csv", "--ledger", url]) == 0
    report = capsys.readouterr().out
    assert "globex,2," in report
    assert "acme" not in report


@pytest.mark.parametrize("tenant", ["' OR '1'='1", "*", "%", "nobody"])
def test_no_name_of_a_tenant_means_more_rows(url: str, tenant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "prune", "--older-than", "0d", "--tenant", tenant, "--database", url).startswith("0 rows")
    assert len(requests(url)) == 4


def test_rows_are_removed_in_batches_to_the_last(url: str) -> None:
    old = OldRows(datetime.now(UTC) - timedelta(days=90))
    with open_ledger(url) as engine:
        assert count_old(engine, old) == 4
        assert prune(engine, old, batch=2) == 4
        assert prune(engine, old, batch=2) == 0


def test_a_postgresql_is_created_checked_and_upgraded(capsys: pytest.CaptureFixture[str]) -> None:
    with schema() as name:
        url = in_schema(name)
        assert main(["db", "check", "--database", url]) == 1
        assert "`hf-gateway db upgrade`" in capsys.readouterr().err
        assert main(["db", "prune", "--older-than", "1d", "--database", url]) == 1
        capsys.readouterr()
        assert "created or upgraded" in printed(capsys, "upgrade", "--database", url)
        assert "up to date already" in printed(capsys, "upgrade", "--database", url)
        assert json.loads(printed(capsys, "check", "--json", "--database", url))["ok"] is True


def test_a_check_makes_no_file(tmp_path: Path) -> None:
    assert main(["db", "check", "--database", f"sqlite:///{tmp_path / 'none.sqlite'}"]) == 1
    assert not (tmp_path / "none.sqlite").exists()


@pytest.mark.parametrize("age", ["2999-01-01", "soon", "-1d", ""])
def test_an_age_that_is_none_is_refused(age: str, tmp_path: Path) -> None:
    assert main(["db", "prune", f"--older-than={age}", "--database", f"sqlite:///{tmp_path / 'x.sqlite'}"]) == 2


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("usage", "--by", "tenant", "--csv"), "globex,2,"),
        (("budgets", "set", "acme", "--per-day", "1", "--json"), '"tenant": "acme"'),
        (("budgets", "list", "--json"), '"budgets": []'),
        (("budgets", "remove", "acme", "--json"), '"removed": 0'),
        (("models", "list", "--json"), "per-file/model"),
        (("models", "add", "own/model", "--input", "1", "--json"), "own/model"),
        (("models", "remove", "nobody/nothing", "--json"), '"removed": []'),
    ],
)
def test_commands_read_the_file_that_the_server_reads(
    words: tuple[str, ...], answer: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f'[server]\ndatabase = "{url}"\n[prices."per-file/model"]\ninput = 1\n'
    Path("served.toml").write_text(text, encoding="utf-8")
    main([*words, "--config", "served.toml"])
    assert answer in capsys.readouterr().out


def test_commands_use_the_database_of_the_server(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("hf-gateway.toml").write_text(f'[server]\ndatabase = "{url}"\n', encoding="utf-8")
    assert printed(capsys, "prune", "--older-than", "90d", "--dry-run").startswith("4 rows")
    assert main(["usage", "--by", "tenant", "--csv"]) == 0
    assert "globex,2," in capsys.readouterr().out
    assert main(["budgets", "set", "acme", "--per-day", "1"]) == 0
    capsys.readouterr()
    assert main(["budgets", "list", "--ledger", url, "--json"]) == 0
    assert "acme" in capsys.readouterr().out
