"""Browsers that sign in with a token: the cookie means what the token grants by the settings of now, and ends with it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers.issuer import AUDIENCE, JWKS, FakeIssuer
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, RunningServer, gateway_server
from tests.support.server_keys import bearer, make_key

OWN_PAGE = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer() as made:
        yield made


def config(issuer: FakeIssuer, more: str = "") -> str:
    return (
        f'{HASH_CHAIN}[server.jwt."{issuer.url}"]\naudience = ["{AUDIENCE}"]\njwks_url = "{issuer.url}{JWKS}"\n{more}'
    )


@pytest.fixture
def server(issuer: FakeIssuer, tmp_path: Path) -> Iterator[RunningServer]:
    with a_ledger("sqlite", tmp_path) as url, gateway_server(config(issuer), database=url) as running:
        yield running


@pytest.fixture
def browser(server: RunningServer) -> Iterator[httpx.Client]:
    """A browser on the server's own page."""
    with server.client(headers=OWN_PAGE) as client:
        yield client


def signed_in(browser: httpx.Client, token: str) -> str:
    """Sign in; returns what the cookie was set by."""
    answer = browser.post("/ui/session", headers=bearer(token))
    assert answer.status_code == 200, answer.text
    return answer.headers["set-cookie"]


def embedded(browser: httpx.Client) -> int:
    return browser.post("/v1/embeddings", json={"input": "x"}).status_code


def reload(server: RunningServer, text: str) -> None:
    Path("hf-gateway.toml").write_text(text, encoding="utf-8")
    with server.client(headers=bearer(make_key(server.state.database.url))) as administrator:
        assert administrator.post("/admin/reload").status_code == 200


def test_a_token_signs_in_once_with_its_own_rights_and_no_longer_than_it_lasts(
    browser: httpx.Client, issuer: FakeIssuer
) -> None:
    token = issuer.token(scope="read")
    cookie = signed_in(browser, token)
    assert token not in cookie
    parts = dict(part.strip().partition("=")[::2] for part in cookie.split(";")[1:])
    assert parts.keys() >= {"HttpOnly", "SameSite", "Max-Age"}
    assert int(parts["Max-Age"]) <= 600 + 30
    assert browser.get("/v1/models").status_code == 200
    assert embedded(browser) == 403
    shown = browser.post("/ui/session").json()
    assert (shown["tenant"], shown["scopes"]) == ("acme", ["read"])


def test_a_session_ends_with_its_issuer(browser: httpx.Client, issuer: FakeIssuer, server: RunningServer) -> None:
    signed_in(browser, issuer.token())
    assert embedded(browser) == 200
    with FakeIssuer() as other:
        reload(server, config(other))
        assert embedded(browser) == 401
    reload(server, HASH_CHAIN)
    assert embedded(browser) == 401
    reload(server, config(issuer))
    assert embedded(browser) == 200


@pytest.mark.parametrize(("more", "status"), [('scopes = ["read"]\n', 403), ('tenant = "globex"\n', 401)])
def test_what_a_reload_takes_from_an_issuer_its_sessions_lose(
    more: str, status: int, browser: httpx.Client, issuer: FakeIssuer, server: RunningServer
) -> None:
    signed_in(browser, issuer.token())
    reload(server, config(issuer, more))
    assert embedded(browser) == status


def test_a_reload_limits_sessions_too(browser: httpx.Client, issuer: FakeIssuer, server: RunningServer) -> None:
    signed_in(browser, issuer.token())
    reload(server, config(issuer, "requests_per_minute = 1\n"))
    assert [embedded(browser) for _ in range(2)] == [200, 429]
