"""The site's contents have every page, links are rewritten for it, and a broken one is found; the build itself is `make docs`."""

from pathlib import Path

import pytest

from docs_site import pictures, sources
from docs_site.build import broken_links
from docs_site.contents import CONTENTS
from tests.config_pages import ROOT


def test_every_page_is_in_the_contents_and_every_link_has_a_goal(tmp_path: Path) -> None:
    places = sources.write(tmp_path / "sources")
    assert {"index.md", "results/local.md", "errors.md"} <= set(places)
    line, whole = sources.llms(tmp_path / "sources")
    assert all(title in line for section in CONTENTS.values() for title in section.values())
    assert "# Every error" in whole


@pytest.mark.parametrize(
    ("page", "written", "expected"),
    [
        ("README.md", "[a](docs/hub.md#log-in)", "[a](hub.md#log-in)"),
        ("docs/hub.md", "[a](../README.md)", "[a](index.md)"),
        ("docs/hub.md", "[a](../benchmarks/results/local.md)", "[a](results/local.md)"),
        ("benchmarks/results/local.md", "![a](local.svg)", "![a](local.svg)"),
        ("docs/hub.md", "[`x`](../examples/chat_streaming.py)", "[`x`](examples.md#chat-streaming)"),
        ("docs/hub.md", "[pyproject](../pyproject.toml)", "`pyproject`"),
        ("docs/hub.md", "[a](https://huggingface.co)", "[a](https://huggingface.co)"),
        ("docs/hub.md", "```\n[a](nowhere.md)\n```\n", "```\n[a](nowhere.md)\n```\n"),
    ],
)
def test_a_link_is_one_of_the_site(page: str, written: str, expected: str) -> None:
    path = ROOT / page
    assert sources.rewritten(written, path, sources.place_of(path) or "") == expected


def test_a_link_that_leads_nowhere_stops_the_build() -> None:
    with pytest.raises(ValueError, match="leads nowhere"):
        sources.rewritten("[a](nowhere.md)", ROOT / "docs" / "hub.md", "hub.md")


def test_broken_links_of_the_result_are_found(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "index.html").write_text('<a href="page/#there">a</a><a href="page/#gone">b</a><img src="none.png">')
    (tmp_path / "page" / "index.html").write_text('<h1 id="there">x</h1><a href="https://elsewhere">c</a>')
    assert list(broken_links(tmp_path)) == [
        "index.html: page/#gone names an anchor that is not there",
        "index.html: none.png leads nowhere",
    ]


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_a_picture_is_the_drawn_one(name: str) -> None:
    assert (pictures.DOCS / name).read_text("utf-8") == pictures.picture(name), "run python -m docs_site.pictures"
