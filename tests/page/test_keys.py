"""Keys in the browser: made, narrowed, rotated and revoked, each shown once, and what a page says whose key has ended."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.servers.issuer import FakeIssuer
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, START_S, ServerProcess
from tests.support.late import COLLECTED
from tests.support.page_views import NARROW, Views
from tests.support.server_keys import bearer, expire, make_key, public_part

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger.store import open_ledger
    from hf_gateway.ledger.tables import keys as table

Open = Callable[[str], Views]
CONFIG = '{chain}[chains.other]\ntargets = ["hash:32"]\n[server]\ndatabase = "{database}"\n[server.jwt."{issuer}"]\n'


@dataclass
class World:
    """A server in a process of its own, its database, and keys for it."""

    url: str
    database: str
    issuer: FakeIssuer
    keys: dict[str, str] = field(repr=False)

    def embeds(self, key: str) -> int:
        """Return the status of an embedding that is asked for by a key."""
        body = {"input": ["A text"], "model": "docs"}
        url = f"{self.url}/v1/embeddings"
        with httpx.Client(trust_env=False, timeout=START_S) as client:
            return client.post(url, json=body, headers=bearer(key)).status_code


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, _late_imports: None) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("keys")
    with a_ledger("sqlite", folder) as database, FakeIssuer() as issuer, contextlib.chdir(folder):
        acme = {"embed", "read", "admin"}
        keys = {
            "admin": make_key(database, name="the administrator's"),
            "reader": make_key(database, name="a reader's", scopes={"read"}),
            "acme": make_key(
                database, name="acme's administrator's", scopes=acme, tenant="acme", chains=frozenset({"docs"})
            ),
            "old": make_key(database, name="an old one", tenant="acme"),
        }
        expire(database, keys["old"])
        config = CONFIG.format(chain=HASH_CHAIN, database=database, issuer=issuer.url)
        config += 'audience = ["hf-gateway"]\nscopes = ["read", "admin"]\n'
        environment = {"HF_GATEWAY_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
        with ServerProcess(config, environment=environment) as process:
            yield World(process.url, database, issuer, keys)


def shown(open_page: Open, world: World, credential: str) -> Views:
    """Open the keys, signed in."""
    views = open_page(world.url)
    views.sign_in(credential)
    views.show("Keys")
    return views


def make(views: Views, name: str) -> str:
    """Make a key as the form suggests it, and return it."""
    views.button("New key").click()
    views.page.get_by_label("Name").fill(name)
    views.button("Make the key").click()
    return secret(views, name)


def secret(views: Views, name: str) -> str:
    """Return the secret that is shown, and put it away."""
    views.text(f"Copy the key “{name}” now")
    found = views.page.get_by_role("group", name="Key", exact=True).inner_text().strip()
    views.button("I have it").click()
    views.page.get_by_text("It is shown this once").wait_for(state="detached")
    assert found.startswith("hfg_")
    assert found not in views.page.content()
    return found


@pytest.mark.complaints("status of 401")
def test_a_key_is_made_narrowed_rotated_and_revoked(world: World, open_page: Open) -> None:
    views = shown(open_page, world, world.keys["admin"])
    views.text("valid keys, 1 ended")
    views.button("New key").click()
    views.page.locator("input[name=name]:focus").wait_for()
    views.button("Make the key").click()
    views.text("Give the key a name")
    views.page.get_by_label("Name").fill("nightly job")
    views.page.get_by_label("Only these").check()
    views.button("Make the key").click()
    views.text("Choose at least one chain")
    views.page.get_by_label("docs", exact=True).check()
    views.page.get_by_text("Limits and budgets").click()
    views.page.get_by_label("Requests a minute").fill("0.5")
    views.button("Make the key").click()
    views.text("a whole number above 0")
    views.page.get_by_label("Requests a minute").fill("600")
    views.page.get_by_label("USD a day").fill("2.50")
    views.page.get_by_label("Expires").select_option("In 30 days")
    views.check("keys, the form")
    views.picture("keys-form", width=NARROW)
    views.button("Make the key").click()
    views.text("Copy the key “nightly job” now")
    views.check("keys, the secret")
    views.picture("keys")
    key = secret(views, "nightly job")
    assert world.embeds(key) == 200

    row = views.page.locator("li.key").filter(has_text="nightly job")
    assert "600 requests a minute" in row.inner_text()
    views.button("Change nightly job").click()
    row.get_by_label("embed", exact=False).first.uncheck()
    views.button("Save").click()
    views.text("The key “nightly job” was changed")
    assert world.embeds(key) == 403

    views.button("Change nightly job").click()
    row.get_by_label("embed", exact=False).first.check()
    views.button("Save").click()
    row.get_by_role("form").wait_for(state="detached")
    views.button("Rotate nightly job").click()
    views.check("keys, rotating")
    views.button("Rotate the key").click()
    fresh = secret(views, "nightly job")
    assert (world.embeds(key), world.embeds(fresh)) == (401, 200)

    views.button("Revoke nightly job").click()
    views.page.locator("button:focus", has_text="Keep it").wait_for()
    views.check("keys, revoking")
    views.button("Revoke the key").click()
    views.text("The key “nightly job” was revoked")
    assert world.embeds(fresh) == 401
    views.text("2 keys that have ended").click()
    assert "Revoked" in row.inner_text()
    assert row.get_by_role("button").count() == 0
    views.check("keys, ended ones")


@pytest.mark.complaints("status of 401", "status of 403")
def test_a_tenants_administrator_sees_and_grants_only_its_own(world: World, open_page: Open) -> None:
    views = shown(open_page, world, world.keys["acme"])
    views.text("1 valid key, 1 ended")
    assert "a reader's" not in views.page.content()
    views.button("New key").click()
    assert views.page.get_by_role("textbox", name="Tenant").input_value() == "acme"
    assert views.page.get_by_label("chat", exact=False).first.is_disabled()
    assert views.page.get_by_role("radio", name="All chains").is_disabled()
    views.page.get_by_label("Name").fill("for all chains")
    views.page.get_by_label("docs", exact=True).check()
    views.page.get_by_label("Expires").select_option("In a day")
    views.button("Make the key").click()
    made = secret(views, "for all chains")
    assert world.embeds(made) == 200
    views.button("Change for all chains").click()
    views.page.get_by_role("radio", name="All chains").evaluate("(field) => { field.disabled = false; }")
    views.page.get_by_role("radio", name="All chains").check()
    views.button("Save").click()
    views.text("The key was not changed")
    views.text("Your own key does not allow other chains")
    views.check("keys, refused")


@pytest.mark.complaints("status of 401")
def test_a_page_whose_key_is_revoked_says_so_and_asks_for_another(world: World, open_page: Open) -> None:
    views = shown(open_page, world, world.keys["admin"])
    own = make(views, "the other page's")
    other = open_page(world.url)
    other.sign_in(own)
    other.text("Answers")
    views.button("Revoke the other page's").click()
    views.button("Revoke the key").click()
    views.text("The key “the other page's” was revoked")
    other.show("Search")
    other.text("You were signed out")
    other.text("Sign in again to go on")
    other.check("signed out, revoked by another page")


@pytest.mark.complaints("status of 401")
def test_who_rotates_the_own_key_stays_and_who_revokes_it_is_signed_out(world: World, open_page: Open) -> None:
    first = make_key(world.database, name="mine")
    views = shown(open_page, world, first)
    views.text("You are signed in with it")
    views.button("Rotate mine").click()
    views.text("This page signs in again by the new one")
    views.button("Rotate the key").click()
    fresh = secret(views, "mine")
    assert (world.embeds(first), world.embeds(fresh)) == (401, 200)
    press = views.page.keyboard.press
    views.button("Revoke mine").focus()
    press("Enter")
    views.text("You are signed in with it, and will be signed out.")
    views.page.locator("button:focus", has_text="Keep it").wait_for()
    press("Shift+Tab")
    assert views.page.evaluate("document.activeElement.innerText") == "Revoke the key"
    press("Enter")
    views.text("You were signed out")
    assert public_part(first) not in views.page.content()


@pytest.mark.complaints("status of 401", "status of 503")
def test_states_without_keys(world: World, open_page: Open) -> None:
    views = shown(open_page, world, world.keys["reader"])
    views.text("Your key does not allow administering keys")
    views.check("keys, forbidden")
    views.button("Sign out").click()
    views.sign_in(world.issuer.token(tenant="nobody", scope="read admin"))
    views.text("There are no keys that you may see")
    views.check("keys, empty")
    with open_ledger(world.database) as engine, engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {table.name} RENAME TO away"))
    try:
        views.show("Health")
        views.show("Keys")
        views.text("The keys could not be listed")
        views.check("keys, failed")
    finally:
        with open_ledger(world.database) as engine, engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE away RENAME TO {table.name}"))
    views.button("Try again").click()
    views.text("There are no keys that you may see")
