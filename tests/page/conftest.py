"""One browser for the tests of a file, and a page for each."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.page_views import Views, browser_for_views

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups, also where only this folder is run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of this folder in one process, which starts few browsers."""
    for item in items:
        if "tests/page/" in item.nodeid:
            item.add_marker(pytest.mark.xdist_group("page"))


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium; no longer than a file, since playwright's event loop counts as running, so that no other test could have one."""
    with browser_for_views() as started:
        yield started


@pytest.fixture
def open_page(browser: "Browser", request: pytest.FixtureRequest) -> Iterator[Callable[[str], Views]]:
    """Open the page of a server; the mark `complaints` names what the browser may complain of."""
    opened: list[Views] = []

    def opening(url: str) -> Views:
        views = Views(browser, url)
        opened.append(views)
        return views

    yield opening
    mark = request.node.get_closest_marker("complaints")
    for views in opened:
        views.close(*(mark.args if mark is not None else ()))
