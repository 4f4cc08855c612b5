"""Who may see the page: signed out, signed in, of few rights, revoked meanwhile; a server that ends and comes back."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.server.access.keys import new_key
from tests.servers.child import reserved_port
from tests.support.gateway_server import HASH_CHAIN, RunningServer, ServerProcess, gateway_server
from tests.support.page_views import Views
from tests.support.server_keys import make_key, public_part, revoke

Open = Callable[[str], Views]


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with gateway_server(HASH_CHAIN) as running:
        yield running


def new(server: RunningServer, **rights: Any) -> str:
    """Make a key, which the server knows of at once."""
    made = make_key(server.state.database.url, **rights)
    server.state.authenticator.forget()
    return made


@pytest.mark.complaints("status of 401", "status of 403")
def test_a_key_is_exchanged_for_a_cookie_and_the_page_goes_on(server: RunningServer, open_page: Open) -> None:
    key = new(server, tenant="acme")
    views = open_page(server.url)
    views.text("This server needs a key.")
    views.picture("sign-in")
    views.page.get_by_text("I have no key").click()
    views.check("signed out")
    views.sign_in(new_key()[0])
    views.text("Not signed in")
    views.text("Check that the whole key was pasted")
    views.check("signed out, refused")
    views.sign_in(key)
    views.text("The only target answers")
    assert views.page.get_by_text("acme").is_visible()
    assert key not in views.page.content()
    (cookie,) = views.page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert views.page.evaluate("[document.cookie, JSON.stringify({...localStorage})].join()") == ",{}"
    views.go("search")
    views.text("Results come here")
    views.button("Sign out").click()
    views.text("This server needs a key.")
    views.go()
    views.text("This server needs a key.")


@pytest.mark.complaints("status of 401")
def test_a_key_that_is_revoked_while_the_page_is_open(server: RunningServer, open_page: Open) -> None:
    key = new(server)
    views = open_page(server.url)
    views.sign_in(key)
    views.text("The only target answers")
    revoke(server.state.database.url, key)
    server.state.authenticator.forget()
    views.button("Refresh all").click()
    views.text("You were signed out")
    views.text("Sign in again to go on")
    views.check("signed out, revoked")
    views.sign_in(new(server))
    views.text("The only target answers")


@pytest.mark.complaints("status of 401", "status of 403")
def test_a_key_of_few_rights_is_told_what_it_lacks(server: RunningServer, open_page: Open) -> None:
    reads = new(server, scopes={"read"}, chains=frozenset({"another"}))
    views = open_page(server.url)
    views.sign_in(new(server, scopes={"embed"}))
    views.text("Signing in needs the scope read")
    views.sign_in(reads)
    views.text("There is no chain to look at")
    assert views.page.get_by_text(f"hf-gateway keys change {public_part(reads)} --chains NAME").is_visible()
    views.check("health, no chain")
    views.show("Search")
    views.text("Your key does not allow embedding texts")
    views.check("search, forbidden")
    views.show("Chat")
    views.text("Your key does not allow chat")
    views.check("chat, forbidden")


@pytest.mark.complaints("status of 401")
def test_views_without_a_chain_of_their_task_for_this_key(server: RunningServer, open_page: Open) -> None:
    key = new(server, chains=frozenset({"another"}))
    views = open_page(server.url)
    views.sign_in(key)
    views.text("There is no chain to look at")
    views.show("Search")
    views.text("Your key may use no chain for embeddings")
    views.check("search, no chain")
    views.show("Chat")
    views.text("Your key may use no chain for chat")
    views.check("chat, no chain for the key")


@pytest.mark.complaints("ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "Failed to fetch")
def test_a_server_that_ends_and_comes_back(open_page: Open, tmp_path: Path) -> None:
    holder, number = reserved_port()
    port = str(number)
    environment = {"HF_HUB_OFFLINE": "1"}
    with ServerProcess(HASH_CHAIN, "--port", port, environment=environment) as first:
        views = open_page(first.url)
        views.text("The only target answers")
        views.show("Search")
        views.page.get_by_label("One passage a paragraph").fill("What was written stays.")
    views.page.get_by_label("What do you want to know?").fill("What stays?")
    views.button("Search").click()
    views.text("The server does not answer.")
    views.text("The search failed")
    views.check("search, offline")
    views.show("Health")
    views.text("The health of the targets could not be asked for")
    views.check("health, offline")
    views.show("Chat")
    views.text("The models could not be listed")
    views.check("chat, offline")
    views.show("Search")
    with ServerProcess(HASH_CHAIN, "--port", port, environment=environment):
        views.page.get_by_text("The server does not answer.").wait_for(state="detached")
        views.text("1 passage")
        views.button("Search", exact=True).click()
        views.page.locator(".hits li").first.wait_for()
    holder.close()
