"""Health in the browser: targets that answer and die, breakers, the Hub and its token, the database, the Redis."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hf_gateway.chain import circuit_breaker
from hf_gateway.keys import os_keyring
from hf_gateway.keys.credentials import origin_of
from hf_gateway.server.dispatch import target_checks
from hf_gateway.values.secret import Secret
from tests.servers.hub import ReadHub, whoami
from tests.servers.loopback import Reply, dead_url
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import RunningServer, chat_chain, gateway_server
from tests.support.keyrings import encrypted_file, in_force
from tests.support.page_views import NARROW, Views
from tests.support.redis_servers import redis_server
from tests.support.server_keys import make_key

Open = Callable[[str], Views]
TOKEN = "hf_Adas0123456789"


@pytest.fixture(autouse=True)
def _without_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(target_checks, "REST_S", 0.0)  # on a fast machine a click comes within that second


def row(views: Views, place: int) -> str:
    """Return what stands in the row of a target."""
    return views.page.locator("li.target").nth(place).inner_text()


def test_a_target_that_dies_and_comes_back(primary: FakeOpenAI, backup: FakeOpenAI, open_page: Open) -> None:
    primary.always(Reply(500, "broken"))
    config = chat_chain(primary.url, backup.url) + '[chains.docs]\ntargets = ["hash:64"]\n'
    with gateway_server(config) as server:
        views = open_page(server.url)
        views.text("2 of 3 targets answer")
        assert "Does not answer" in row(views, 0)
        assert "Broken (HTTP 500)" in row(views, 0)
        assert "failed after" in row(views, 0)
        assert "Answers" in row(views, 1)
        assert "Works by target 2" in views.page.content()
        # Addresses are an administrator's.
        assert primary.url not in views.page.content()
        views.check("health, a dead target")
        asked = (primary.count(), backup.count())
        primary.recover()
        views.button("Refresh openai:owner/model of chat").first.click()
        views.page.locator("li.target").nth(0).get_by_text("Answers").first.wait_for()
        assert "Does not answer" not in row(views, 0)
        assert (primary.count() > asked[0], backup.count()) == (True, asked[1])


def test_an_own_server_that_is_away_and_the_model_in_this_process(open_page: Open) -> None:
    model = "sentence-transformers/all-MiniLM-L6-v2"
    config = (
        f'[chains.docs]\nmodel = "{model}"\ntargets = ["tei:{dead_url()}", "local"]\n[chains.rerank]\ntask = "rerank"\n'
    )
    with gateway_server(config + 'targets = ["lexical"]\n') as server, server.client() as client:
        client.post("/v1/embeddings", json={"input": "A text", "model": "docs"})
        views = open_page(server.url)
        views.text("2 of 3 targets answer")
        views.text("Works by target 2")
        assert "is the server running, and the URL right?" in row(views, 0)
        assert "in this process" in row(views, 1)
        views.picture("health")
        views.picture("health-dark", dark=True, width=NARROW)


def test_a_breaker_that_is_open_says_when_it_is_asked_again(
    primary: FakeOpenAI, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "FIRST_COOL_DOWN_S", 600.0)  # a loaded machine opens a page in more than 5 s
    primary.always(Reply(500, "broken"), path="/v1/chat/completions")
    with gateway_server(chat_chain(primary.url)) as server:
        with server.client() as client:
            for _ in range(3):
                client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]})
        views = open_page(server.url)
        views.text("The only target answers")
        assert "Answers, but rests" in row(views, 0)
        assert "open, asked again in" in row(views, 0)
        views.check("health, an open breaker")


def signed_in(server: RunningServer, open_page: Open) -> Views:
    key = make_key(server.state.database.url)
    server.state.authenticator.forget()
    views = open_page(server.url)
    views.sign_in(key)
    return views


@pytest.mark.complaints("status of 401")
def test_an_administrator_sees_addresses_and_whose_token_it_is(
    primary: FakeOpenAI, open_page: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ReadHub({}, accounts={TOKEN: whoami("ada")}) as hub, in_force(encrypted_file(tmp_path)):
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        os_keyring.store(origin_of(hub.url), Secret(TOKEN))
        with gateway_server(chat_chain(primary.url)) as server:
            views = signed_in(server, open_page)
            views.text("Valid", exact=True)
            views.text("of ada")
            views.text(f"openai:{primary.url}")
            assert TOKEN not in views.page.content()
            assert views.page.get_by_role("link", name="Token settings").first.get_attribute("href") == (
                "https://huggingface.co/settings/tokens"
            )
            views.check("health, a valid token")
            os_keyring.store(origin_of(hub.url), Secret("hf_Nobodys0123456789"))
            server.state.target_checks.services.forget("hub")
            views.button("Refresh Hugging Face Hub").click()
            views.text("Not valid")
            views.text("The Hub refuses the token from")
            views.check("health, an invalid token")


def test_a_hub_that_is_away_is_no_fault_of_the_targets(open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", dead_url())
    with gateway_server() as server:
        views = open_page(server.url)
        views.text("The only target answers")
        views.text("models on this machine and servers of your own need no Hub")
        views.check("health, no Hub")


def test_a_redis_that_answers_and_dies(open_page: Open, tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis, gateway_server(redis=redis.url) as server:
        views = open_page(server.url)
        views.text("The only target answers")
        card = views.page.locator("li.service").filter(has_text="Redis")
        assert "Answers" in card.inner_text()
        assert "SQLite" in views.page.locator("li.service").filter(has_text="Database").inner_text()
        redis.stop()
        server.state.target_checks.services.forget("redis")
        views.button("Refresh Redis").click()
        views.text("The Redis of [server] redis does not answer")
        views.check("health, a dead Redis")
