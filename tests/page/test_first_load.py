"""The first load in the browser: its bytes, its first contentful paint, and the page below a path of a proxy."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.project.test_page_build import FIRST_LOAD_BYTES
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, START_S, gateway_server
from tests.support.page_views import PATIENCE_MS, Views
from tests.support.server_keys import make_key

Open = Callable[[str], Views]
ROOT = "/of/the/company/ai"
PAINT = """new Promise((done) => new PerformanceObserver((list) => {
  const [first] = list.getEntriesByName("first-contentful-paint");
  if (first !== undefined) done(first.startTime);
}).observe({type: "paint", buffered: true}))"""
LOADED = """[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
.filter((each) => /\\/ui\\/($|assets)/.test(each.name)).map((each) => [each.name.split("/").pop(), each.transferSize])"""


@contextmanager
def proxy(upstream: str) -> Iterator[str]:
    """Serve a server below ROOT as a proxy does, which cuts the path; yields the address with it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length)
            path = self.path.removeprefix(ROOT)
            assert path != self.path, f"asked for {self.path}, which is above the page"
            connection = http.client.HTTPConnection(upstream.removeprefix("http://"), timeout=START_S)
            connection.request(self.command, path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            if answer.status not in (204, 304):
                self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = forward  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{ROOT}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(START_S)


@pytest.mark.complaints("status of 401")
def test_the_page_works_below_a_path_of_a_proxy(open_page: Open, tmp_path: Path) -> None:
    with a_ledger("sqlite", tmp_path) as url, gateway_server(HASH_CHAIN, database=url, root_path=ROOT) as server:
        key = make_key(url)
        server.state.authenticator.forget()
        with proxy(server.url) as address:
            views = open_page(address)
            views.page.get_by_label("Key, or token of your identity provider").fill(key)
            views.button("Sign in").click()
            views.text("The only target answers")
            (cookie,) = views.page.context.cookies()
            assert cookie["path"] == ROOT
            views.show("Search")
            views.page.get_by_label("One passage a paragraph").fill("The harbour freezes.\n\nBread is baked.")
            views.page.get_by_label("What do you want to know?").fill("The harbour freezes.")
            views.button("Search", exact=True).click()
            assert "The harbour freezes." in views.page.locator(".hits li").first.inner_text()
            # A view whose code is loaded when it is shown, from below the same path.
            views.show("Compare")
            views.text("This server has no chain for chat to compare")
            views.page.reload()
            views.text("This server has no chain for chat to compare")
            views.button("Sign out").click()
            views.text("This server needs a key.")


def test_the_first_load_is_small_and_painted(open_page: Open, record_property: Callable[[str, object], None]) -> None:
    with gateway_server(HASH_CHAIN) as server:
        views = open_page(server.url)
        views.text("The only target answers")
        loaded = dict(views.page.evaluate(LOADED))
        painted_ms = views.page.evaluate(PAINT)
    record_property("first load, bytes", loaded)
    record_property("first contentful paint, ms", painted_ms)
    assert any(name.endswith(".js") for name in loaded)
    assert all(loaded.values()), loaded
    assert sum(loaded.values()) < FIRST_LOAD_BYTES
    assert 0 < painted_ms < PATIENCE_MS
