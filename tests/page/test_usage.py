"""Usage in the browser: sums by day, model, provider and tenant, what is unknown, and who may see whose."""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.servers.issuer import FakeIssuer
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, RunningServer, ServerProcess, gateway_server
from tests.support.late import COLLECTED
from tests.support.page_views import NARROW, Views
from tests.support.server_keys import bearer, make_key
from tests.support.usage_rows import call_rows

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger.store import open_ledger
    from hf_gateway.ledger.tables import losses, observations, usage_days

Open = Callable[[str], Views]
OLD_DAYS = 60
"""Age of the calls that no period but the longest has."""


def fill(url: str) -> None:
    """Write calls of a month: of two tenants, three models and two providers, dearer and slower from day to day."""
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = []
    for age in (0, 1, 2, 3, 5, 6, 7, 8, 9, 12, 13, 14, 15, 19, 20, 21, 22, 26, 27, 28):
        time = now - timedelta(days=age)
        for place in range(1 + (29 - age) % 6):
            slow: dict[str, Any] = {
                "time": time,
                "latency_ms": 200.0 + 30 * place + 9 * (29 - age),
                "output_tokens": 90,
            }
            rows += call_rows("acme", Decimal("0.0125"), model="owner/large", input_tokens=700 + 10 * age, **slow)
            rows += call_rows("globex", Decimal("0.001"), model="owner/small", input_tokens=300, **slow)
        if age % 4 == 0:
            rows += call_rows("acme", None, model="owner/unpriced", provider="tgi", time=time)
            failed: dict[str, Any] = {"status": "failed", "error_class": "RateLimited", "input_tokens": None}
            rows += call_rows("acme", Decimal(0), model="owner/large", time=time, **failed)
    rows += call_rows("initech", Decimal(3), model="owner/large", time=now - timedelta(days=OLD_DAYS))
    with open_ledger(url) as engine, engine.begin() as connection:
        connection.execute(sa.insert(observations), rows)
        connection.execute(sa.insert(losses), [{"id": uuid.uuid4(), "time": now, "rows": 3, "reason": "full"}])


@dataclass
class World:
    """A server with a month of calls, in a process of its own, and an issuer of tokens for it."""

    url: str
    issuer: FakeIssuer
    keys: dict[str, str] = field(repr=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, _late_imports: None) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("usage")
    with a_ledger("sqlite", folder) as database, FakeIssuer() as issuer, contextlib.chdir(folder):
        fill(database)
        keys = {
            "admin": make_key(database, tenant=None),
            "reader": make_key(database, scopes={"read", "embed"}),
            "acme": make_key(database, scopes={"read", "embed"}, tenant="acme"),
            "initech": make_key(database, scopes={"read"}, tenant="initech"),
        }
        config = (
            f'{HASH_CHAIN}[server]\ndatabase = "{database}"\n[server.jwt."{issuer.url}"]\naudience = ["hf-gateway"]\n'
        )
        environment = {"HF_GATEWAY_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
        with ServerProcess(config, environment=environment) as process:
            yield World(process.url, issuer, keys)


def shown(open_page: Open, url: str, credential: str) -> Views:
    """Open the usage, signed in."""
    views = open_page(url)
    views.sign_in(credential)
    views.text("Health")
    views.show("Usage")
    return views


def tile(views: Views, name: str) -> str:
    """Return what stands in a tile."""
    found = views.page.locator(".tiles > div").filter(has=views.page.locator("dt", has_text=name))
    found.wait_for()
    return found.inner_text()


def row(views: Views, name: str) -> str:
    """Return what stands in a row of the table, after waiting for it."""
    found = views.page.get_by_role("row").filter(has_text=name)
    found.wait_for()
    return " ".join(found.inner_text().split())


@pytest.mark.complaints("status of 401")
def test_an_administrator_sees_the_sums_and_what_is_unknown(world: World, open_page: Open) -> None:
    views = shown(open_page, world.url, world.keys["admin"])
    views.text("calls in the last 30 days, 5 failed")
    assert "and 5 attempts of unknown cost" in tile(views, "Cost")
    assert "3 (full) are missing here" in views.page.content()
    assert "unknown" in row(views, "owner/unpriced")
    assert "$" not in row(views, "owner/unpriced")
    assert "5 5 RateLimited" in row(views, "owner/large")
    views.page.locator(".plot canvas").wait_for()
    views.picture("usage")
    views.picture("usage-dark", dark=True, width=NARROW)
    views.check("usage, calls by model")


@pytest.mark.complaints("status of 401")
def test_the_table_is_by_day_model_provider_tenant_chain_or_task(world: World, open_page: Open) -> None:
    views = shown(open_page, world.url, world.keys["admin"])
    found = {}
    for by in ("Day", "Model", "Provider", "Tenant", "Chain", "Task"):
        views.page.get_by_role("combobox", name="Table by").select_option(by)
        views.page.locator(".groups h2", has_text=f"By {by.lower()}").wait_for()
        found[by] = views.page.locator(".groups tbody th").all_inner_texts()
    days = found.pop("Day")
    assert (len(days), days[0]) == (20, f"{datetime.now(UTC):%a %-d %b}")
    assert {by: sorted(names) for by, names in found.items()} == {
        "Model": ["owner/large", "owner/small", "owner/unpriced"],
        "Provider": ["novita", "tgi"],
        "Tenant": ["acme", "globex"],
        "Chain": ["docs"],
        "Task": ["chat"],
    }


@pytest.mark.complaints("status of 401")
def test_measures_are_chosen_by_the_keyboard_and_a_model_looked_at_alone(world: World, open_page: Open) -> None:
    views = shown(open_page, world.url, world.keys["admin"])
    row(views, "owner/large")
    press = views.page.keyboard.press
    for measure, said in (("Tokens", "Tokens: most on"), ("Cost", "Known cost: most on"), ("Latency", "p50: most on")):
        while views.page.evaluate("document.activeElement.innerText") != measure:
            press("Tab")
        press("Enter")
        views.text(said)
        views.page.locator(".plot canvas").wait_for()
        assert views.button(measure, exact=True).get_attribute("aria-pressed") == "true"
    views.check("usage, latency")
    while views.page.evaluate("document.activeElement.innerText") != "owner/unpriced":
        press("Tab")
    press("Enter")
    views.text("5 calls in the last 30 days")
    views.page.locator(".groups h2", has_text="By day").wait_for()
    assert "unknown" in tile(views, "Cost")
    views.button("Cost", exact=True).click()
    views.text("Cost: unknown on every day")
    views.check("usage, one model of unknown cost")
    views.button("Show more than the model owner/unpriced").click()
    views.text("calls in the last 30 days, 5 failed")


@pytest.mark.complaints("status of 401")
def test_pointing_at_a_day_reads_its_figures(world: World, open_page: Open) -> None:
    views = shown(open_page, world.url, world.keys["acme"])
    box = views.page.locator(".plot .u-over").bounding_box()
    assert box is not None
    views.page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 50)
    views.text(f"{datetime.now(UTC):%a %-d %b}: Calls")


@pytest.mark.complaints("status of 401")
def test_a_tenant_sees_its_own_calls_by_a_token_of_its_identity_provider(world: World, open_page: Open) -> None:
    views = shown(open_page, world.url, world.issuer.token(tenant="globex", sub="ann"))
    views.text("calls in the last 30 days, none failed")
    assert views.page.get_by_title(f"Signed in with the key {world.issuer.url}#ann").inner_text() == "globex"
    views.page.locator(".groups tbody th").first.wait_for()
    assert views.page.locator(".groups tbody th").all_inner_texts() == ["owner/small"]
    assert "acme" not in views.page.content()
    (cookie,) = views.page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    # For as long as the token is valid, and not for as long as a key's session.
    assert cookie["expires"] - datetime.now(UTC).timestamp() < 700
    views.check("usage, by a token")
    views.button("Sign out").click()
    views.sign_in(world.issuer.token(tenant="globex", aud="another"))
    views.text("its signature, times or audience are not right")
    views.sign_in(world.issuer.token(tenant="globex", scope="read"))
    views.show("Search")
    views.text("Your token does not allow embedding texts")
    views.check("search, forbidden for a token")


@pytest.mark.complaints("status of 401")
def test_a_key_without_a_tenant_and_without_admin_is_told_what_it_lacks(world: World, open_page: Open) -> None:
    views = shown(open_page, world.url, world.keys["reader"])
    views.text("Your key does not allow looking at everybody's usage")
    views.check("usage, forbidden")


@pytest.mark.complaints("status of 401")
def test_without_calls_the_next_step_is_named(world: World, open_page: Open) -> None:
    views = shown(open_page, world.url, world.keys["initech"])
    views.text("No calls yet")
    views.check("usage, empty")
    views.button("Look at the last 90 days").click()
    views.text("1 call in the last 90 days")
    assert "$3.00" in tile(views, "Cost")


@pytest.mark.complaints("status of 401")
def test_a_call_that_is_made_meanwhile_is_counted(world: World, open_page: Open) -> None:
    views = shown(open_page, world.url, world.keys["acme"])
    views.page.get_by_role("combobox", name="Period").select_option("Last 24 hours")
    views.page.get_by_role("combobox", name="Table by").select_option("Task")
    row(views, "chat")
    assert views.page.get_by_role("row").filter(has_text="embedding").count() == 0
    body = {"input": ["A text"], "model": "docs"}
    answer = views.page.context.request.post(
        f"{world.url}/v1/embeddings", data=body, headers=bearer(world.keys["acme"])
    )
    assert answer.ok
    while views.page.get_by_role("row").filter(has_text="embedding").count() == 0:
        views.button("Refresh").click()
        views.page.get_by_text("in the last 24 hours").wait_for()
    assert row(views, "embedding").startswith("embedding 1 0")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with a_ledger("sqlite", tmp_path) as database, gateway_server(HASH_CHAIN, database=database) as running:
        yield running


@pytest.mark.complaints("status of 401", "status of 503")
def test_a_ledger_that_cannot_be_read(server: RunningServer, open_page: Open) -> None:
    views = open_page(server.url)
    views.show("Usage")
    views.text("Without a key, this server does not allow looking at everybody's usage")
    views.check("usage, no key")
    key = make_key(server.state.database.url)
    server.state.authenticator.forget()
    views.go()
    views.sign_in(key)
    views.show("Usage")
    views.text("No calls yet")
    with open_ledger(server.state.database.url) as engine, engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {usage_days.name} RENAME TO away"))
    views.button("Refresh").click()
    views.text("The usage could not be summed up")
    views.check("usage, failed")
    with open_ledger(server.state.database.url) as engine, engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE away RENAME TO {usage_days.name}"))
    views.button("Try again").click()
    views.page.get_by_text("The usage could not be summed up").wait_for(state="detached")
