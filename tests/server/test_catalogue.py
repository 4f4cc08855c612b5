"""The catalogue of models over HTTP: rows of prices, for payees that the configuration has."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.databases import a_ledger
from tests.support.gateway_server import gateway_server
from tests.support.server_keys import bearer, make_key

CHAINS = """
[chains.docs]
targets = ["hash:64"]

[chains.talk]
task = "chat"
model = "org/talk"
targets = ["hf", "openai:http://127.0.0.1:9/v1"]
"""
PRICES = {"input": "0.15", "output": "0.6"}


@pytest.fixture(params=["sqlite", "postgresql"])
def admin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        a_ledger(request.param, tmp_path) as url,
        gateway_server(CHAINS, database=url) as server,
        server.client(headers=bearer(make_key(url))) as client,
    ):
        yield client


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with a_ledger("sqlite", tmp_path) as made:
        yield made


def found(client: httpx.Client, search: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.get("/admin/models", params={"search": search}).json()["models"]
    return rows


def test_a_row_is_set_replaced_listed_and_removed(admin: httpx.Client) -> None:
    body = {"model": "org/talk", "usd": PRICES, "context_length": 4096}
    first = admin.post("/admin/models", json=body)
    assert first.status_code == 200, first.text
    assert first.json()["replaced"] is False
    again = admin.post("/admin/models", json={**body, "usd": {"input": "0.2", "output": 0}})
    assert again.json()["replaced"] is True
    (row,) = found(admin, "ORG/talk")
    assert row == again.json()["model"]
    assert (row["usd"]["input"], row["usd"]["output"], row["usd"]["cached"]) == ("0.2", "0", None)
    assert (row["context_length"], row["source"], row["pinned"]) == (4096, "configured", True)
    assert len(admin.delete("/admin/models/org/talk").json()["models"]) == 1
    assert found(admin, "org/talk") == []
    assert admin.delete("/admin/models/org/talk").status_code == 404


def test_a_payee_is_a_target_of_the_configuration(admin: httpx.Client) -> None:
    made = admin.post("/admin/models", json={"model": "x", "provider": "openai:http://127.0.0.1:9/v1", "usd": PRICES})
    assert made.status_code == 200, made.text
    assert made.json()["model"]["provider"].startswith("openai:http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"provider": "openai:http://evil.example/v1"}, "no chain has a target"),
        ({"provider": "tei:http://127.0.0.1:9/v1"}, "no chain has a target"),
        ({"provider": "ollama"}, "no chain has a target"),
        ({"provider": "nokind:x"}, "kind"),
        ({"usd": {}}, "no price"),
        ({"usd": {"input": -1}}, "usd.input"),
        ({"usd": {"input": "NaN"}}, "usd.input"),
        ({"task": "nothing"}, "unknown task"),
        ({"model": "a\0b"}, "id"),
        ({"url": "http://evil.example"}, "url"),
        ({"api_key": "hf_x"}, "api_key"),
        ({"chain": "talk"}, "chain"),
        ({"targets": ["hf"]}, "targets"),
        ({"context_length": "4096"}, "context_length"),
    ],
)
def test_nothing_else_can_be_set(url: str, change: dict[str, Any], words: str) -> None:
    config = Path("hf-gateway.toml")
    with gateway_server(CHAINS, database=url) as server, server.client(headers=bearer(make_key(url))) as client:
        before = client.get("/admin/models").json()
        answer = client.post("/admin/models", json={"model": "org/talk", "usd": PRICES, **change})
        assert client.get("/admin/models").json() == before
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert config.read_text() == CHAINS


def test_a_server_without_the_router_has_no_prices_of_it(url: str) -> None:
    with gateway_server(database=url) as server, server.client(headers=bearer(make_key(url))) as client:
        answer = client.post("/admin/models", json={"model": "org/talk", "usd": PRICES})
    assert answer.status_code == 400
    assert "router" in answer.json()["error"]


@pytest.mark.parametrize("rights", [{"tenant": "acme"}, {"chains": frozenset({"docs"})}, {"scopes": {"read"}}])
def test_prices_are_of_all_tenants(url: str, rights: dict[str, Any]) -> None:
    with (
        gateway_server(CHAINS, database=url) as server,
        server.client(headers=bearer(make_key(url, **rights))) as client,
    ):
        answers = [
            client.get("/admin/models"),
            client.post("/admin/models", json={"model": "org/talk", "usd": PRICES}),
            client.delete("/admin/models/org/talk"),
        ]
    assert [answer.status_code for answer in answers] == [403, 403, 403]


def test_removing_chooses_by_task_and_provider(admin: httpx.Client) -> None:
    for provider in ("novita", "together"):
        admin.post("/admin/models", json={"model": "org/talk", "provider": provider, "usd": PRICES})
    gone = admin.delete("/admin/models/org/talk", params={"provider": "novita"}).json()["models"]
    assert [row["provider"] for row in gone] == ["novita"]
    assert [row["provider"] for row in found(admin, "org/talk")] == ["together"]
    assert admin.delete("/admin/models/org/talk", params={"task": "' OR 1=1"}).status_code == 404
    assert admin.delete("/admin/models/org/talk", params={"nothing": "x"}).status_code == 400
    assert len(found(admin, "org/talk")) == 1


def test_the_row_for_any_provider_is_removed_alone(admin: httpx.Client) -> None:
    for provider in (None, "novita"):
        admin.post("/admin/models", json={"model": "org/talk", "provider": provider, "usd": PRICES})
    again = admin.post("/admin/models", json={"model": "org/talk", "provider": "hf", "usd": PRICES})
    assert (again.json()["replaced"], again.json()["model"]["provider"]) == (True, None)
    gone = admin.delete("/admin/models/org/talk", params={"provider": "hf"}).json()["models"]
    assert [row["provider"] for row in gone] == [None]
    assert [row["provider"] for row in found(admin, "org/talk")] == ["novita"]
