"""`[ledger] keep_days`: the server removes older rows at its start, once a day and after a reload, and keeps the sums by day."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from hf_gateway.errors import ConfigError
from hf_gateway.server.dispatch.retention import oldest_kept
from hf_gateway.settings.ledger import LedgerSection
from hf_gateway.settings.server import ServerSettings
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, gateway_server
from tests.support.late import COLLECTED
from tests.support.server_keys import bearer, make_key
from tests.support.ways import until

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger.store import open_ledger
    from hf_gateway.ledger.tables import observations

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
AGES = (0, 3, 30, 31, 400)
"""Days, of a request each."""
A_MOMENT = timedelta(seconds=1)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with a_ledger(request.param, tmp_path) as made:
        common: dict[str, Any] = {"kind": "request", "task": "chat", "status": "ok", "latency_ms": 1.0}
        flags = dict.fromkeys(("shared", "streamed", "fallback"), False)
        rows = [
            {**common, **flags, "id": name, "request": name, "time": TODAY - timedelta(days=age) + A_MOMENT}
            for age in AGES
            for name in [uuid.uuid4()]
        ]
        with open_ledger(made) as engine, engine.begin() as connection:
            connection.execute(sa.insert(observations), rows)
        yield made


def ages(url: str) -> list[int]:
    with open_ledger(url) as engine, engine.connect() as connection:
        times = connection.execute(sa.select(observations.c.time)).scalars()
        return sorted((TODAY + A_MOMENT - each).days for each in times)


def test_older_rows_are_gone_after_the_start_and_their_sums_are_not(url: str) -> None:
    with gateway_server(f"{HASH_CHAIN}\n[ledger]\nkeep_days = 30\n", database=url) as server:
        until(lambda: ages(url) == [0, 3, 30])
        with server.client(headers=bearer(make_key(url))) as client:
            found = client.get("/admin/usage?by=day&since=2000-01-01").json()
    assert found["total"]["requests"] == len(AGES)
    assert len(found["groups"]) == len(AGES)


def test_a_reload_changes_how_long_rows_are_kept(url: str) -> None:
    with gateway_server(HASH_CHAIN, database=url) as server:
        headers = bearer(make_key(url, scopes={"admin"}))
        Path("hf-gateway.toml").write_text(f"{HASH_CHAIN}\n[ledger]\nkeep_days = 3\n", encoding="utf-8")
        with server.client(headers=headers) as client:
            assert client.post("/admin/reload").status_code == 200
            until(lambda: ages(url) == [0, 3])
            Path("hf-gateway.toml").write_text(f"{HASH_CHAIN}\n[ledger]\nkeep_days = 0\n", encoding="utf-8")
            assert client.post("/admin/reload").status_code >= 400
    assert ages(url) == [0, 3]


def test_by_default_all_rows_are_kept(url: str) -> None:
    with gateway_server(HASH_CHAIN, database=url) as server, server.client() as client:
        assert client.get("/livez").status_code == 200
    assert ages(url) == sorted(AGES)


def test_whole_days_are_kept() -> None:
    noon = datetime(2026, 3, 31, 12, tzinfo=UTC)
    assert oldest_kept(30, noon) == datetime(2026, 3, 1, tzinfo=UTC)
    assert oldest_kept(100_000, noon).year < 1800


@pytest.mark.parametrize("value", ["0", "-1", '"a month"', "1.5"])
def test_an_invalid_number_of_days_is_refused_with_its_line(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("hf-gateway.toml").write_text(f"{HASH_CHAIN}\n[ledger]\nkeep_days = {value}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"hf-gateway\.toml:6"):
        LedgerSection.load()
    assert main(["config", "check"]) == 1
    assert "keep_days" in capsys.readouterr().out


def test_an_unknown_setting_is_named() -> None:
    Path("hf-gateway.toml").write_text("[ledger]\nkeep_day = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean 'keep_days'"):
        LedgerSection.load()
    assert ServerSettings.load().database is None
