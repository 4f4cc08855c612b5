"""Usage over HTTP: the sums of the database, and who may see whose."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from hf_gateway.cli import main
from tests.support.databases import a_ledger
from tests.support.gateway_server import RunningServer, gateway_server
from tests.support.late import COLLECTED
from tests.support.ledgers import requests_last
from tests.support.server_keys import bearer, make_key, public_part
from tests.support.usage_rows import call_rows

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger.store import open_ledger
    from hf_gateway.ledger.tables import losses, observations

CHAINS = '[chains.docs]\ntargets = ["hash:64"]\n[chains.other]\ntargets = ["hash:32"]\n'
NOW = datetime.now(UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with a_ledger(request.param, tmp_path) as made:
        fill(made)
        yield made


@pytest.fixture
def one_url(tmp_path: Path) -> Iterator[str]:
    with a_ledger("sqlite", tmp_path) as made:
        fill(made)
        yield made


def fill(url: str) -> None:
    rows = [
        *call_rows("acme", Decimal("0.5")),
        *call_rows("acme", None, model="unpriced"),
        *call_rows("acme", Decimal(1), chain="other", time=NOW - timedelta(days=3), model="old"),
        *call_rows("globex", Decimal(70), model="secret-model"),
        *call_rows(None, Decimal(900), status="failed", error_class="RateLimited"),
    ]
    with open_ledger(url) as engine, engine.begin() as connection:
        connection.execute(sa.insert(observations), requests_last(rows))
        connection.execute(sa.insert(losses), [{"id": uuid.uuid4(), "time": NOW, "rows": 3, "reason": "full"}])


def asked(url: str, path: str, **rights: Any) -> httpx.Response:
    with (
        gateway_server(CHAINS, database=url) as server,
        server.client(headers=bearer(make_key(url, **rights))) as client,
    ):
        return client.get(path)


def by_name(answer: httpx.Response) -> dict[str | None, dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return {each["name"]: each for each in answer.json()["groups"]}


def test_an_administrator_of_all_sees_every_tenant(url: str) -> None:
    answer = asked(url, "/admin/usage?by=tenant", scopes={"admin"})
    found = by_name(answer)
    assert set(found) == {"acme", "globex", None}
    assert found["globex"]["cost_usd"] == "70.000000000000"
    assert found[None]["failed"] == 1
    assert answer.json()["total"]["requests"] == 5
    assert answer.json()["lost"] == {"full": 3}
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("scope", ["read", "admin"])
@pytest.mark.parametrize("by", ["model", "provider", "task", "day", "tenant", "user", "chain", "key"])
def test_a_key_with_a_tenant_sees_its_own_calls_by_any_grouping(url: str, scope: str, by: str) -> None:
    answer = asked(url, f"/admin/usage?by={by}", scopes={scope}, tenant="acme")
    assert "secret-model" not in answer.text
    assert "globex" not in answer.text
    assert answer.json()["total"]["attempts"] == 3
    assert answer.json()["lost"] == {}


@pytest.mark.parametrize("tenant", ["globex", "' OR '1'='1", "*", "%"])
def test_a_key_with_a_tenant_gets_nothing_of_another(url: str, tenant: str) -> None:
    with gateway_server(CHAINS, database=url) as server:
        headers = bearer(make_key(url, scopes={"read"}, tenant="acme"))
        with server.client(headers=headers) as client:
            answer = client.get("/admin/usage", params={"tenant": tenant})
    assert answer.json()["groups"] == []
    assert answer.json()["total"]["requests"] == 0


def test_reading_without_a_tenant_is_no_right_to_the_money_of_all(one_url: str) -> None:
    assert asked(one_url, "/admin/usage", scopes={"read"}).status_code == 403


def test_without_keys_nobody_sees_usage() -> None:
    with gateway_server(CHAINS) as server, server.client() as client:
        assert client.get("/admin/usage").status_code == 401


def test_a_key_for_some_chains_sees_their_calls_alone(url: str) -> None:
    answer = asked(url, "/admin/usage?by=chain", scopes={"admin"}, chains=frozenset({"other"}))
    assert set(by_name(answer)) == {"other"}
    assert answer.json()["total"]["cost_usd"] == "1.000000000000"
    assert answer.json()["lost"] == {}


def test_an_unknown_cost_is_null_and_never_0(url: str) -> None:
    found = by_name(asked(url, "/admin/usage?by=model", scopes={"admin"}))
    assert found["unpriced"]["cost_usd"] is None
    assert found["unpriced"]["cost_unknown"] == 1
    assert found["old"]["cost_usd"] == "1.000000000000"


@pytest.mark.parametrize(
    ("query", "models"),
    [
        ("since=1d", {"m", "unpriced", "secret-model"}),
        ("until=1d", {"old"}),
        ("model=old", {"old"}),
        ("provider=novita&chain=other", {"old"}),
        ("provider=nobody", set()),
        ("tenant=globex", {"secret-model"}),
        ("task=embedding", set()),
        ("limit=1", {"m"}),
    ],
)
def test_filters_choose_rows(url: str, query: str, models: set[str]) -> None:
    assert set(by_name(asked(url, f"/admin/usage?{query}", scopes={"admin"}))) == models


def test_keys_are_told_apart_by_their_public_part(one_url: str) -> None:
    with gateway_server(CHAINS, database=one_url) as server:
        server.state.keeps_ledger = False
        assert set(by_name(asked_of(server, "by=key"))) == {"k"}


def asked_of(server: RunningServer, query: str) -> httpx.Response:
    key = make_key(server.state.database.url)
    assert public_part(key)
    with server.client(headers=bearer(key)) as client:
        return client.get(f"/admin/usage?{query}")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("by=target", "by"),
        ("by=", "by"),
        ("by=model,", "by"),
        ("by=day,target", "by"),
        ("by=day,day", "by"),
        ("by=model&by=day", "by"),
        ("since=yesterday", "since"),
        ("since=1d&until=2d", "since"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("unknown=1", "unknown"),
        ("task=%00", "task"),
        ("model=%00", "model"),
        ("model=%ff", None),
    ],
)
def test_an_invalid_query_is_refused_by_name(one_url: str, query: str, param: str | None) -> None:
    with gateway_server(CHAINS, database=one_url) as server:
        answer = asked_of(server, query)
    assert answer.status_code == 400
    assert param is None or param in answer.json()["error"]


def test_the_document_describes_the_query(one_url: str) -> None:
    with gateway_server(CHAINS, database=one_url) as server, server.client() as client:
        found = client.get("/openapi.json").json()["paths"]["/admin/usage"]["get"]["parameters"]
    assert {each["name"]: each["in"] for each in found}["since"] == "query"
    assert all(each["required"] is False for each in found)
    assert all("anyOf" not in each["schema"] for each in found)


def test_several_keys_group_together(url: str) -> None:
    answer = asked(url, "/admin/usage?by=tenant,model", scopes={"admin"})
    found = {tuple(each["keys"].values()): each["cost_usd"] for each in answer.json()["groups"]}
    assert list(found)[:3] == [("acme", "m"), ("acme", "old"), ("acme", "unpriced")]
    assert found["acme", "old"] == "1.000000000000"
    assert found["acme", "unpriced"] is None
    assert found[None, "m"] == "900.000000000000"
    assert answer.json()["by"] == "tenant,model"
    assert {each["name"] for each in answer.json()["groups"]} == {None}
    assert answer.json()["of_attempts"] is True


def test_a_limit_on_groups_by_day_and_model_keeps_the_last(one_url: str) -> None:
    answer = asked(one_url, "/admin/usage?by=day,model&limit=1", scopes={"admin"}, tenant="acme").json()
    assert [each["keys"] for each in answer["groups"]] == [{"day": NOW.date().isoformat(), "model": "unpriced"}]
    assert answer["left_out"] == 2


def test_the_command_has_the_same_sums(one_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--ledger", one_url, "--by", "key", "--provider", "novita", "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("k,5,")
    assert main(["usage", "--ledger", one_url, "--model", "unpriced", "--json"]) == 0
    assert '"cost_usd": null' in capsys.readouterr().out
