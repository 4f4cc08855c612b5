"""Search in the browser: the nearest passages, and the same by a model that reads question and passage together."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.databases import a_ledger
from tests.support.gateway_server import gateway_server
from tests.support.page_views import Views

Open = Callable[[str], Views]
CONFIG = """
[chains.docs]
model = "sentence-transformers/all-MiniLM-L6-v2"
targets = ["local"]
[chains.rerank]
task = "rerank"
targets = ["lexical"]
"""
QUESTION = "Which passage mentions a harbour twice?"
TEXTS = "Ships wait in the port.\n\nThe harbour freezes, which mentions a harbour twice.\n\nBread is baked at four."


def ways(views: Views) -> str:
    """Return how the passages that are shown were found."""
    return views.page.locator(".hits > p").inner_text()


def test_reranking_is_turned_on_and_off(open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with a_ledger("sqlite", tmp_path) as url, gateway_server(CONFIG, database=url) as server:
        views = open_page(server.url)
        views.show("Search")
        views.page.get_by_label("One passage a paragraph").fill(TEXTS)
        views.page.get_by_label("What do you want to know?").fill(QUESTION)
        views.button("Search", exact=True).click()
        views.page.locator(".hits li").nth(2).wait_for()
        assert "reranked" not in ways(views)
        cosines = scores(views)
        reranking = views.page.get_by_label("Rerank the 25 nearest")
        reranking.check()
        views.button("Search", exact=True).click()
        views.text("reranked by lexical")
        assert "harbour twice" in views.page.locator(".hits li").first.inner_text()
        assert scores(views) != cosines
        views.check("search, reranked")
        reranking.uncheck()
        views.button("Search", exact=True).click()
        views.page.locator(".hits > p").filter(has_not_text="reranked").wait_for()
        assert scores(views) == cosines


def scores(views: Views) -> list[str]:
    return re.findall(r"-?\d\.\d{3}", " ".join(views.page.locator(".hits .score").all_inner_texts()))
