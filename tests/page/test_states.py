"""Every view has each of its states looked at, by name; and what is shown while a server that is too slow has not answered."""

import ast
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.page_build import ROOT
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, ServerProcess
from tests.support.page_views import Views
from tests.support.server_keys import make_key

Open = Callable[[str], Views]
STATES = ("forbidden", "empty", "loading", "failed", "offline")
TABLE = {
    # Who has signed in may see the health; of chains that the key may not use there is none.
    "Health": ("health, no chain", "health, no chain", "health, loading", "health, a dead target", "health, offline"),
    "Search": ("search, forbidden", "search, empty", "search, loading", "search, failed", "search, offline"),
    "Chat": ("chat, forbidden", "chat, no chain", "chat, loading", "chat, no answer", "chat, offline"),
    "Compare": (
        "compare, forbidden",
        "compare, no chain",
        "compare, loading",
        "compare, answers and a dead target",
        "compare, offline",
    ),
    "Images": ("images, forbidden", "images, no chain", "images, drawing", "images, failed", "images, offline"),
    "Models": ("models, forbidden", "models, no chain", "models, loading", "models, failed", "models, offline"),
    "Usage": ("usage, forbidden", "usage, empty", "usage, loading", "usage, failed", "usage, offline"),
    "Keys": ("keys, forbidden", "keys, empty", "keys, loading", "keys, failed", "keys, offline"),
}
"""View → the names by which its states are looked at; signed out, all views are the same one."""
SIGNED_OUT = (
    "signed out",
    "signed out, refused",
    "signed out, revoked",
    "signed out, revoked by another page",
    "signed out while comparing",
    "signed out while drawing",
)


def checked() -> Iterator[str]:
    """Yield the names of the states that the tests of this folder look at, as regular expressions."""
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "check":
                for argument in node.args:
                    if isinstance(argument, ast.JoinedStr):
                        parts = (each.value if isinstance(each, ast.Constant) else None for each in argument.values)
                        yield "".join(".*" if part is None else re.escape(str(part)) for part in parts)
                    elif isinstance(argument, ast.Constant):
                        yield re.escape(str(argument.value))


@pytest.mark.parametrize(
    "state",
    [*SIGNED_OUT, *(dict.fromkeys(name for names in TABLE.values() for name in names))],
)
def test_a_state_is_looked_at(state: str) -> None:
    assert any(re.fullmatch(pattern, state, re.IGNORECASE) for pattern in checked())


def test_the_table_has_every_view_and_every_state() -> None:
    source = (ROOT / "web" / "page" / "src" / "app.tsx").read_text("utf-8")
    assert set(TABLE) == set(re.findall(r'title: "(\w+)", View', source))
    assert {len(names) for names in TABLE.values()} == {len(STATES)}


@pytest.mark.complaints("status of 401")
def test_a_server_that_is_slow_is_waited_for_in_each_view(open_page: Open, tmp_path: Path) -> None:
    with a_ledger("sqlite", tmp_path) as database:
        key = make_key(database)
        with ServerProcess(f'{HASH_CHAIN}[server]\ndatabase = "{database}"\n') as process:
            views = open_page(process.url)
            views.go("keys")
            views.page.reload()
            views.sign_in(key)
            views.text("You are signed in with it")
            process.signal(signal.SIGSTOP)
            for view, words in (
                ("Health", "Asking the server …"),
                ("Search", "Asking for the models …"),
                ("Chat", "Asking for the models …"),
            ):
                views.show(view)
                views.text(words)
                views.check(f"{view}, loading")
            process.signal(signal.SIGCONT)
            views.show("Search")
            views.page.get_by_label("One passage a paragraph").wait_for()


@pytest.mark.complaints("status of 50")
def test_a_search_whose_target_is_dead_says_so(open_page: Open) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = f'[chains.docs]\nmodel = "m"\nmax_retries = 0\ntargets = ["openai:http://127.0.0.1:{taken.getsockname()[1]}/v1"]\n'
        with ServerProcess(config) as process:
            views = open_page(process.url)
            views.show("Search")
            views.button("Use the sample").click()
            views.page.get_by_label("What do you want to know?").fill("What stays?")
            views.button("Search", exact=True).click()
            views.text("The search failed")
            assert "openai:m" in views.page.get_by_role("alert").first.inner_text()
            views.check("search, failed")
