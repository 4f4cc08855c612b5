"""The page of a server that was only started: no configuration, no key, no network."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.gateway_server import ServerProcess
from tests.support.page_views import Views

Open = Callable[[str], Views]


@pytest.fixture
def bare() -> Iterator[ServerProcess]:
    with ServerProcess(None, environment={"HF_HUB_OFFLINE": "1"}) as process:
        yield process


def test_health_search_and_chat_work_or_say_what_to_do(bare: ServerProcess, open_page: Open) -> None:
    views = open_page(bare.url)
    assert f"{bare.url}/ui" in bare.log
    views.text("The only target answers")
    assert views.page.title() == "Health · hf-gateway"
    views.text("HF_HUB_OFFLINE is set")
    views.text("No key needed")
    assert views.page.evaluate("crossOriginIsolated")
    views.check("health")

    views.show("Search")
    views.text("Results come here")
    views.check("search, empty")
    views.button("Use the sample").click()
    views.text("10 passages")
    views.button("Why is my range so short in January?").click()
    best = views.page.locator(".hits li").first
    best.wait_for()
    assert "In frost it holds about a third less" in best.inner_text()
    assert "10 passages embedded by local:sentence-transformers/all-MiniLM-L6-v2" in views.page.content()
    assert views.page.get_by_label("Rerank the 25 nearest").is_disabled()
    views.picture("search")
    views.page.get_by_text("No chain for reranking").click()
    views.check("search, answered")

    views.show("Chat")
    views.text("This server has no chain for chat yet")
    views.check("chat, no chain")


def test_the_main_job_is_done_by_the_keyboard_alone(bare: ServerProcess, open_page: Open) -> None:
    views = open_page(bare.url)
    views.text("The only target answers")
    press = views.page.keyboard.press
    press("Tab")
    assert views.page.evaluate("document.activeElement.innerText") == "Skip to the content"
    for _ in range(3):
        press("Tab")
    assert views.page.evaluate("document.activeElement.innerText") == "Search"
    press("Enter")
    views.text("Results come here")
    views.page.locator("main:focus").wait_for()
    press("Tab")
    views.page.keyboard.type("The harbour freezes in winter.\n\nBread is baked at four in the morning.")
    while views.page.evaluate("document.activeElement.id") != "question":
        press("Tab")
    views.page.keyboard.type("When does the baker get up?")
    press("Enter")
    best = views.page.locator(".hits li").first
    best.wait_for()
    assert "Bread is baked" in best.inner_text()
    heard = views.page.get_by_role("status").filter(has_text="2 passages found; the nearest: Bread is baked")
    heard.wait_for(state="attached")
