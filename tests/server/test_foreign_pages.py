"""Pages of other origins in a real browser: they read nothing and use nothing, unless their origin is listed."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.chat import script
from tests.servers.loopback import Loopback, Recorded, Reply
from tests.servers.openai import FakeOpenAI
from tests.support.chromium import Chromium, Page, chromium
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, ServerProcess, chat_chain
from tests.support.server_keys import bearer, make_key
from tests.support.ways import until

REBOUND = "rebound.example"
"""A name of an attacker that leads to this machine."""
ASK = json.dumps({"messages": [{"role": "user", "content": "hello"}]})
TRIES = """
(async (base, ask) => {
  const post = (more) => fetch(base + "/v1/chat/completions", {method: "POST", body: ask, ...more});
  const json = {"content-type": "application/json"};
  const tries = {
    "reads the models": () => fetch(base + "/v1/models"),
    "reads the health": () => fetch(base + "/livez"),
    "reads the document": () => fetch(base + "/openapi.json"),
    "posts JSON": () => post({headers: json}),
    "posts JSON with a key": () => post({headers: {...json, authorization: "Bearer KEY"}}),
    "posts a simple request": () => post({headers: {"content-type": "text/plain"}}),
    "posts with cookies": () => post({headers: {"content-type": "text/plain"}, credentials: "include"}),
    "posts without CORS": () => post({mode: "no-cors"}),
    "posts an image": () => post({mode: "no-cors", headers: {"content-type": "image/png"}}),
    "reloads": () => fetch(base + "/admin/reload", {method: "POST", mode: "no-cors"}),
    "signs in": () => fetch(base + "/ui/session", {method: "POST", mode: "no-cors", credentials: "include"}),
    "deletes": () => fetch(base + "/ui/session", {method: "DELETE"}),
    "reads without CORS": () => fetch(base + "/v1/models", {mode: "no-cors", credentials: "include"}),
    "asks the function": () => fetch(base + "/functions/v1/huggingface-inference", {method: "POST", headers: json, body: "{}"}),
  };
  const found = {};
  for (const [name, attempt] of Object.entries(tries)) {
    try {
      const answer = await attempt();
      found[name] = answer.type === "opaque" ? "opaque" : answer.status + " " + (await answer.text()).slice(0, 300);
    } catch (error) {
      found[name] = "refused by the browser";
    }
  }
  const element = (tag, fields) => new Promise((done) => {
    const made = Object.assign(document.createElement(tag), fields);
    made.onload = made.onerror = () => done();
    document.body.append(made);
  });
  await element("img", {src: base + "/v1/models"});
  await element("script", {src: base + "/v1/models"});
  await element("iframe", {src: base + "/v1/models", name: "frame"});
  for (const enctype of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]) {
    const form = Object.assign(document.createElement("form"), {
      action: base + "/v1/chat/completions", method: "post", enctype, target: "frame",
    });
    // With text/plain the field's name and value make up a JSON document.
    form.append(Object.assign(document.createElement("input"), {name: ask.slice(0, -1) + ', "user": "', value: '"}'}));
    document.body.append(form);
    await new Promise((done) => { document.querySelector("iframe").onload = done; form.submit(); });
  }
  try {
    found["looks into a frame"] = document.querySelector("iframe").contentDocument?.body.innerText ?? "refused by the browser";
  } catch (error) {
    found["looks into a frame"] = "refused by the browser";
  }
  navigator.sendBeacon(base + "/v1/chat/completions", ask);
  await new Promise((done) => {
    const events = new EventSource(base + "/v1/models");
    events.onerror = () => { events.close(); done(); };
  });
  await new Promise((done) => { new WebSocket(base.replace("http", "ws") + "/v1/models").onerror = done; });
  return found;
})
"""
"""All that a page can send, with what it learns of the answers."""


class Site(Loopback):
    """A site whose pages are empty."""

    def handle(self, request: Recorded) -> Reply:
        return Reply(200, b"<!doctype html><title>A site</title><body></body>", {"content-type": "text/html"})


def tried(page: Page, url: str, key: str = "none") -> dict[str, str]:
    """Let a page try everything; returns what it learned."""
    found: dict[str, str] = page.evaluate(f"{TRIES.replace('KEY', key)}({json.dumps(url)}, {json.dumps(ASK)})")
    return found


def requests_of(client: httpx.Client, **headers: str) -> dict[tuple[str, str], int]:
    """Return how many requests the server has answered, by route and status."""
    text = client.get("/metrics", headers=headers).text
    pattern = r'^hf_gateway_server_requests_total\{route="(.*?)",status="(.*?)",surface=".*?"\} (.*)$'
    return {(route, status): int(float(count)) for route, status, count in re.findall(pattern, text, re.MULTILINE)}


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None, brain=script("One two three.")) as made:
        yield made


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


@contextlib.contextmanager
def served(fake: FakeOpenAI, server: str = "", **options: Any) -> Iterator[ServerProcess]:
    with ServerProcess(HASH_CHAIN + chat_chain(fake.url) + f"[server]\n{server}", **options) as process:
        yield process


@pytest.fixture(scope="module")
def browser(_late_imports: None) -> Iterator[Chromium]:
    with chromium(hosts=(REBOUND,)) as started:
        yield started


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", REBOUND])
def test_a_page_of_another_origin_reads_nothing_and_causes_no_use(
    host: str, browser: Chromium, fake: FakeOpenAI, site: Site
) -> None:
    """Of another port, of another name of this machine, of another site."""
    with served(fake) as process, process.client() as client:
        with browser.page(f"http://{host}:{site.port}/") as page:
            found = tried(page, process.url)
            # The beacon is the last of what is posted; nothing tells the page of its end.
            until(lambda: sum(n for (_, status), n in requests_of(client).items() if status == "403") >= 12)
        counted = requests_of(client)
        # This one is not of a page, and shows that the way to the target is open.
        assert client.post("/v1/chat/completions", content=ASK).status_code == 200
    assert set(found.values()) <= {"refused by the browser", "opaque"}, found
    assert fake.count("/v1/chat/completions") == 1
    served_statuses = {status for (route, status), _ in counted.items() if route not in ("/metrics", "/v1/models")}
    # 400 is the WebSocket's, which is refused whatever page opens it.
    assert served_statuses == {"400", "403"}, counted
    assert sum(n for (_, status), n in counted.items() if status == "400") == 1, counted


def test_a_page_of_the_server_itself_may_do_all_of_it(browser: Chromium, fake: FakeOpenAI) -> None:
    """The same attempts, so that it is the origin for which the others fail."""
    with served(fake) as process, browser.page(f"{process.url}/livez") as page:
        found = tried(page, process.url)
    assert found["reads the models"].startswith("200 ")
    assert found["posts JSON"].startswith("200 ")
    assert found["deletes"].startswith("204")
    assert fake.count("/v1/chat/completions") >= 5


def test_a_listed_origin_reads_answers_and_streams_but_has_no_cookies(
    browser: Chromium, fake: FakeOpenAI, site: Site
) -> None:
    origin = f"http://{REBOUND}:{site.port}"
    stream = """
    (async () => {
      const headers = {"content-type": "application/json", "x-api-key": "none"};
      const answer = await fetch(URL, {method: "POST", headers, body: BODY});
      const read = answer.body.getReader(), pieces = [];
      for (let one; !(one = await read.read()).done;) pieces.push(new TextDecoder().decode(one.value));
      return [answer.headers.get("x-request-id"), pieces.join("")];
    })()
    """
    body = json.dumps({**json.loads(ASK), "stream": True})
    with served(fake, f'cors_origins = ["{origin}"]\n') as process:
        with browser.page(origin) as page:
            found = tried(page, process.url)
            url = json.dumps(f"{process.url}/v1/chat/completions")
            request_id, text = page.evaluate(stream.replace("URL", url).replace("BODY", json.dumps(body)))
        with browser.page(f"http://localhost:{site.port}") as page:
            other = tried(page, process.url)
    assert found["reads the models"].startswith("200 ")
    assert found["posts JSON"].startswith("200 ")
    assert found["posts JSON with a key"].startswith("200 ")
    assert found["asks the function"].startswith("400 ")
    assert found["posts with cookies"] == "refused by the browser"
    assert request_id.startswith("req_")
    assert text.endswith("data: [DONE]\n\n")
    assert set(other.values()) <= {"refused by the browser", "opaque"}


def test_the_cookie_of_who_signed_in_serves_the_servers_own_pages_alone(
    browser: Chromium, fake: FakeOpenAI, site: Site, tmp_path: Path
) -> None:
    """A page of another port is of the same site, so that a browser sends it along, SameSite or not."""
    sign_in = """
    fetch("/ui/session", {method: "POST", headers: {authorization: "Bearer KEY"}}).then((answer) => answer.status)
    """
    with a_ledger("sqlite", tmp_path) as database:
        key = make_key(database)
        with served(fake, f'database = "{database}"\n') as process, process.client() as client:
            with browser.page(f"{process.url}/livez") as page:
                assert page.evaluate("fetch('/v1/models').then((answer) => answer.status)") == 401
                assert page.evaluate(sign_in.replace("KEY", key)) == 200
                assert page.evaluate("fetch('/v1/models').then((answer) => answer.status)") == 200
                assert page.evaluate("document.cookie") == ""
            before = requests_of(client, **bearer(key))
            for host in ("127.0.0.1", "localhost"):
                with browser.page(f"http://{host}:{site.port}/") as page:
                    found = tried(page, process.url, key)
                assert set(found.values()) <= {"refused by the browser", "opaque"}, found
            after = requests_of(client, **bearer(key))
            with browser.page(f"{process.url}/livez") as page:
                assert page.evaluate("fetch('/v1/models').then((answer) => answer.status)") == 200
    assert after["/v1/models", "200"] == before["/v1/models", "200"]
    assert fake.count("/v1/chat/completions") == 0


def test_a_name_that_is_pointed_at_the_server_is_not_its_own(browser: Chromium, fake: FakeOpenAI) -> None:
    """DNS rebinding (CVE-2024-28224): to the browser page and server are of one origin."""
    with served(fake) as process:
        port = process.url.rpartition(":")[2]
        with browser.page(f"http://{REBOUND}:{port}/livez") as page:
            shown = page.evaluate("document.body.innerText")
            found = tried(page, f"http://{REBOUND}:{port}")
    assert "host_not_allowed" in shown
    assert {each.partition(" ")[0] for each in found.values()} <= {"403", "refused"} | {
        found["looks into a frame"].split()[0]
    }
    assert fake.requests == []
