"""Models in the browser: what is served, the catalogue's rows, and the Hub with licences and whether models fit the machine."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.hub import Listed, ReadHub
from tests.servers.router import FakeRouter
from tests.support.databases import a_ledger
from tests.support.gateway_server import ServerProcess
from tests.support.late import COLLECTED
from tests.support.page_views import NARROW, Views
from tests.support.server_keys import make_key

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger.store import open_ledger
    from hf_gateway.ledger.tables import models as table

Open = Callable[[str], Views]
CHAT = Path(__file__).parents[1] / "models" / "tiny-chat"
HUB = {
    "org/embedder": Listed(
        tags=("sentence-transformers", "license:apache-2.0"),
        card={"license": "apache-2.0"},
        parameters={"F32": 22_713_728},
        config={"architectures": ["BertModel"]},
        downloads=1_200_000,
    ),
    "org/chatter": Listed(
        CHAT,
        pipeline_tag="text-generation",
        library_name="transformers",
        tags=("transformers", "license:llama3.1"),
        card={"license": "llama3.1"},
        parameters={"F32": 398_000},
        config={"architectures": ["LlamaForCausalLM"]},
        providers=[{"provider": "novita", "status": "live", "task": "conversational", "providerId": "x"}],
        downloads=800,
    ),
    "org/large": Listed(
        declared={"model.safetensors": 10**15},
        pipeline_tag="text-generation",
        library_name="transformers",
        tags=("transformers",),
        parameters={"F32": 25 * 10**13},
        gated="manual",
        downloads=700,
    ),
}
CHAINS = """
[chains.docs]
model = "org/embedder"
targets = ["hash:64"]

[chains.talk]
task = "chat"
model = "org/talk"
targets = ["hf", "openai:http://127.0.0.1:9/v1"]
"""


@dataclass
class World:
    """A server in a process of its own, its database, its Hub, and keys for it."""

    url: str
    database: str
    keys: dict[str, str] = field(repr=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, _late_imports: None) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("models")
    with (
        a_ledger("sqlite", folder) as database,
        ReadHub(HUB) as hub,
        FakeRouter() as router,
        contextlib.chdir(folder),
    ):
        keys = {
            "admin": make_key(database),
            "reader": make_key(database, scopes={"read"}),
            "acme": make_key(database, scopes={"read", "admin"}, tenant="acme"),
            "none": make_key(database, scopes={"read"}, chains=frozenset({"another"})),
        }
        asked = {"HF_ENDPOINT": hub.url, "HUGGINGFACE_BASE_URL": router.url, "HF_GATEWAY_HOME": str(folder / "home")}
        with ServerProcess(f'{CHAINS}[server]\ndatabase = "{database}"\n', environment=asked) as process:
            yield World(process.url, database, keys)


def shown(open_page: Open, world: World, key: str) -> Views:
    """Open the models, signed in."""
    views = open_page(world.url)
    views.sign_in(world.keys[key])
    views.show("Models")
    views.page.get_by_role("heading", name="Models", exact=True).wait_for()
    return views


def row(views: Views, name: str) -> str:
    """Return what stands in a row of a table, after waiting for it."""
    found = views.page.locator("tbody tr").filter(has_text=name).first
    found.wait_for()
    return " ".join(found.inner_text().split())


@pytest.mark.complaints("status of 401", "status of 400")
def test_a_row_of_the_catalogue_is_added_found_and_removed(world: World, open_page: Open) -> None:
    views = shown(open_page, world, "admin")
    # The targets come by a request of their own.
    views.text("hash:64")
    docs = row(views, "docs")
    views.picture("models-dark", dark=True, width=NARROW)
    assert docs.startswith("docs embedding org/embedder")
    assert "hash:64" in docs
    views.button("Add a model").click()
    views.button("Set the row").click()
    views.text("Name the model by its id on the Hub")
    views.page.get_by_label("Model", exact=True).fill("org/talk")
    views.button("Set the row").click()
    views.text("Give at least one price")
    views.page.get_by_label("USD a million input tokens").fill("0.15")
    views.page.get_by_label("USD a million output tokens").fill("0.6")
    views.page.get_by_label("Context, in tokens").fill("4096")
    views.page.get_by_role("textbox", name="Provider").fill("openai:http://127.0.0.1:1/v1")
    views.check("models, the form")
    views.button("Set the row").click()
    views.text("The row was not set")
    views.text("No chain has a target of this kind and address")
    views.page.get_by_role("textbox", name="Provider").fill("")
    views.button("Set the row").click()
    views.text("The row of org/talk was added")
    views.page.get_by_label("Find a model").fill("ORG/ta")
    views.page.get_by_role("button", name="Remove org/talk").wait_for()
    views.page.locator(".catalogue tbody tr").nth(1).wait_for(state="detached")
    assert "$0.15 per 1M in, $0.60 per 1M out 4,096" in row(views, "Remove")
    views.check("models, a row")
    views.picture("models")
    views.page.get_by_label("Find a model").fill("nothing of this name")
    views.text("No model of the catalogue has this in its name")
    views.page.get_by_label("Find a model").fill("org/talk")
    remove = views.page.get_by_role("button", name="Remove org/talk")
    remove.focus()
    views.page.keyboard.press("Enter")
    views.page.locator("button:focus", has_text="Keep").wait_for()
    views.check("models, removing")
    views.page.keyboard.press("Shift+Tab")
    views.page.keyboard.press("Enter")
    views.text("1 row of org/talk removed")
    remove.wait_for(state="detached")


@pytest.mark.complaints("status of 401")
def test_the_hub_is_searched_and_a_model_said_to_fit_or_not(world: World, open_page: Open) -> None:
    views = shown(open_page, world, "admin")
    views.page.get_by_label("Words in the name").fill("org")
    views.page.keyboard.press("Enter")
    views.text("3 models found; this machine has")
    items = views.page.locator(".found > li")
    embedder, chatter, large = (items.nth(place).inner_text() for place in range(3))
    assert "Fits this machine, estimated" in embedder
    assert "apache-2.0" in embedder
    assert "1.2M downloads a month" in embedder.replace("1.20M", "1.2M")
    assert "llama3.1" in chatter
    assert "hf:novita" in chatter
    assert "Too big for this machine" in large
    assert "Gated" in large
    assert "No licence" in large
    views.page.get_by_text("Why, and how to serve it").first.click()
    command = views.page.get_by_role("group", name="Command").first.inner_text()
    assert command.startswith('[chains.embedder]\nmodel = "org/embedder"')
    views.page.locator("#hub").scroll_into_view_if_needed()
    views.check("models, the Hub")
    views.page.locator("#hub").evaluate("(heading) => scrollTo(0, heading.offsetTop - 80)")
    views.picture("models-hub")
    views.button("Set a price of org/embedder").click()
    assert views.page.get_by_label("Model", exact=True).input_value() == "org/embedder"
    views.page.get_by_label("Words in the name").fill("chatter")
    views.page.get_by_label("Look at the files").check()
    views.button("Search the Hub").click()
    views.text("1 model found")
    assert "estimated" not in items.first.inner_text()
    assert "Fits this machine" in items.first.inner_text()
    views.page.get_by_label("Words in the name").fill("no such model")
    views.button("Search the Hub").click()
    views.text("No model has these words and tags")


@pytest.mark.complaints("status of 401")
def test_without_the_hub_what_this_machine_knows_is_found_and_the_page_says_so(open_page: Open, tmp_path: Path) -> None:
    config = '[chains.docs]\ntargets = ["hash:64"]\n'
    with a_ledger("sqlite", tmp_path) as database, ReadHub(HUB) as hub:
        key = make_key(database)
        asked = {"HF_ENDPOINT": hub.url, "HF_GATEWAY_HOME": str(tmp_path / "home")}
        with ServerProcess(f'{config}[server]\ndatabase = "{database}"\n', environment=asked) as process:
            views = shown(open_page, World(process.url, database, {"admin": key}), "admin")
            views.page.get_by_label("Words in the name").fill("org/embedder")
            views.page.get_by_label("Look at the files").check()
            views.button("Search the Hub").click()
            views.text("1 model found")
            hub.close()
            views.page.get_by_label("Words in the name").fill("embedder")
            views.button("Search the Hub").click()
            views.text("The Hub was not reached; these are models that this machine knows already")
            assert "org/embedder" in views.page.locator(".found").inner_text()
            views.page.get_by_label("Words in the name").fill("no such model")
            views.button("Search the Hub").click()
            views.text("The Hub was not reached, and this machine knows no such model")
            assert views.page.get_by_text("Fewer of them find more").count() == 0
            views.button("Try again").scroll_into_view_if_needed()
            views.check("models, the Hub is away")


@pytest.mark.complaints("status of 401", "status of 503")
def test_a_catalogue_that_cannot_be_read(world: World, open_page: Open) -> None:
    with open_ledger(world.database) as engine, engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {table.name} RENAME TO away"))
    try:
        views = shown(open_page, world, "admin")
        views.text("The catalogue could not be read")
        views.check("models, failed")
    finally:
        with open_ledger(world.database) as engine, engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE away RENAME TO {table.name}"))
    views.button("Try again").click()
    views.page.get_by_text("The catalogue could not be read").wait_for(state="detached")


@pytest.mark.complaints("status of 401")
def test_callers_of_few_rights_are_told_what_they_lack(world: World, open_page: Open) -> None:
    views = shown(open_page, world, "reader")
    views.text("Your key does not allow seeing and setting prices")
    assert "openai:http" not in views.page.content()
    views.check("models, forbidden")
    views.button("Sign out").click()
    views.sign_in(world.keys["acme"])
    views.text("Prices are the same for all tenants")
    views.text("your key is one tenant's")
    views.check("models, of a tenant")
    views.button("Sign out").click()
    views.sign_in(world.keys["none"])
    views.text("Your key may use no chain of this server")
    views.check("models, no chain")
