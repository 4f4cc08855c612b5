"""A server that is restarted while views of its administration are open: each says so, and goes on without signing in again."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.child import reserved_port
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, ServerProcess
from tests.support.page_views import Views
from tests.support.server_keys import make_key

Open = Callable[[str], Views]


@pytest.mark.complaints("status of 401", "ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "Failed to fetch")
def test_usage_keys_and_models_wait_for_a_slow_server_and_go_on_after_a_restart(
    open_page: Open, tmp_path: Path
) -> None:
    holder, number = reserved_port()
    port = str(number)
    with holder, a_ledger("sqlite", tmp_path) as database:
        key = make_key(database)
        config = f'{HASH_CHAIN}[server]\ndatabase = "{database}"\n'
        environment = {"HF_HUB_OFFLINE": "1"}
        with ServerProcess(config, "--port", port, environment=environment) as first:
            views = open_page(first.url)
            views.sign_in(key)
            for view, words in (
                ("Usage", "No calls yet"),
                ("Keys", "You are signed in with it"),
                ("Models", "hash:64"),
            ):
                views.show(view)
                views.text(words)
            first.signal(signal.SIGSTOP)
            for view, words in (
                ("Keys", "Asking for the keys …"),
                ("Usage", "Asking the ledger …"),
                ("Compare", "Loading the view …"),
                ("Models", "Asking for the models …"),
            ):
                views.show(view)
                views.text(words)
                views.check(f"{view}, loading")
            first.signal(signal.SIGCONT)
            views.text("hash:64")
        views.button("Search the Hub").click()
        views.text("The server does not answer.")
        views.text("The Hub was not searched")
        views.check("models, offline")
        views.show("Images")
        views.text("This part of the page could not be loaded")
        views.check("a view that was not loaded, offline")
        views.show("Keys")
        views.text("The keys could not be listed")
        views.check("keys, offline")
        views.show("Usage")
        views.text("The usage could not be summed up")
        views.check("usage, offline")
        with ServerProcess(config, "--port", port, environment=environment):
            views.page.get_by_text("The server does not answer.").wait_for(state="detached")
            views.text("No calls yet")
            views.show("Keys")
            views.text("You are signed in with it")
            views.show("Models")
            views.text("hash:64")
            views.show("Images")
            views.page.get_by_role("heading", name="Images", exact=True).wait_for()
