"""The page serves its own server alone, whatever its address says."""

from collections.abc import Callable

from tests.servers.loopback import Loopback
from tests.support.gateway_server import ServerProcess
from tests.support.page_views import Views

NAMES = (
    "gatewayUrl",
    "gateway",
    "url",
    "base",
    "baseUrl",
    "api",
    "server",
    "host",
    "endpoint",
    "token",
    "key",
    "redirect",
)


def test_an_address_in_the_pages_own_is_not_asked(open_page: Callable[[str], Views]) -> None:
    """CVE-2026-25253: a page took the server's address from its own, and sent its token there."""
    with Loopback() as elsewhere, ServerProcess() as process:
        views = open_page(process.url)
        place = elsewhere.url.removeprefix("http:")
        for address in (elsewhere.url, f"ws:{place}", place):
            query = "&".join(f"{name}={address}" for name in NAMES)
            views.page.goto(f"{process.url}/ui/?{query}#/health?{query}")
            views.text("The only target answers")
            views.page.goto(f"{process.url}/ui/?{query}#/{address}")
            views.page.reload()
            views.page.get_by_role("navigation", name="Views").wait_for()
        assert views.foreign == []
        assert elsewhere.connections == 0
