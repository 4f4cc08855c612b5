"""Administration over HTTP, and reloading the configuration while requests are under way."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hf_gateway.chain import circuit_breaker
from tests.server.test_openai_chat import ASK, events_of
from tests.server.test_streams import WAITS, raw_request
from tests.servers.loopback import Reply, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import START_S, RunningServer, ServerProcess, chat_chain, gateway_server
from tests.support.server_keys import bearer, make_key
from tests.support.ways import until

TWO = '[chains.docs]\ntargets = ["hash:64"]\n[chains.old]\ntargets = ["hash:16"]\n'


def rights_of(server: RunningServer) -> dict[str, str]:
    """Make a key with every right; returns the header that carries it."""
    return bearer(make_key(server.state.database.url))


@pytest.fixture
def two() -> Iterator[RunningServer]:
    """A server with two chains."""
    with gateway_server(TWO) as server:
        yield server


def rewrite(config: str) -> None:
    Path("hf-gateway.toml").write_text(config, encoding="utf-8")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/admin/reload"), ("GET", "/admin/status"), ("GET", "/admin/in-flight"), ("GET", "/admin/health")],
)
def test_administration_needs_a_key_on_loopback_too(client: httpx.Client, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 401


def test_a_reload_keeps_equal_chains_and_replaces_the_others(two: RunningServer) -> None:
    kept = two.state.chains.get("docs")
    with two.client(headers=rights_of(two)) as client:
        rewrite(
            '[chains.docs]\ntargets = ["hash:64"]\n[chains.new]\ntargets = ["hash:8"]\n[server]\nmax_texts = 1\nport = 99\n'
        )
        done = client.post("/admin/reload")
        names = [each["id"] for each in client.get("/v1/models").json()["data"]]
        refused = client.post("/v1/embeddings", json={"input": ["a", "b"], "model": "docs"})
        gone = client.post("/v1/embeddings", json={"input": "a", "model": "old"})
        again = client.post("/admin/reload").json()
    assert done.json() == {"kept": ["docs"], "built": ["new"], "removed": ["old"], "needs_restart": []}
    assert names == ["docs", "new"]
    assert two.state.chains.get("docs") is kept
    assert refused.status_code == 400
    assert gone.status_code == 404
    assert again["kept"] == ["docs", "new"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[chains.docs\n", ":1: not TOML"),
        ('[chains.docs]\ntargets = ["hash:64"]\nunknown = 1\n', ":3: unknown setting 'unknown'"),
        (TWO + "[server]\nmax_texts = 0\n", ":6: max_texts"),
        (TWO + '[server.aliases]\nx = "nowhere"\n', "'nowhere'"),
        (TWO + '[server]\ndefault_embedding = "x"\n', "default_embedding = 'x'"),
        (TWO + '[prices."m"]\ninput = "a lot"\n', "m: "),
    ],
)
def test_a_wrong_file_changes_nothing(two: RunningServer, config: str, words: str) -> None:
    before = (two.state.chains, two.state.settings)
    rewrite(config)
    with two.client(headers=rights_of(two)) as client:
        answer = client.post("/admin/reload")
        assert client.post("/v1/embeddings", json={"input": "x", "model": "old"}).status_code == 200
    assert answer.status_code == 422
    assert words in answer.json()["error"]
    assert (two.state.chains, two.state.settings) == before


def test_settings_that_need_a_restart_are_named_and_kept() -> None:
    with gateway_server(TWO) as server:
        rewrite(TWO + '[server]\ndatabase = "sqlite:///other.sqlite"\nping_seconds = 3\n')
        with server.client(headers=rights_of(server)) as client:
            done = client.post("/admin/reload").json()
        assert done["needs_restart"] == ["database"]
        assert server.state.settings.database is None
        assert server.state.settings.ping_seconds == 3


def test_issuers_of_tokens_change_without_a_restart() -> None:
    with gateway_server(TWO) as server, server.client(headers=rights_of(server)) as client:
        rewrite(TWO + '[server.jwt."https://login.example.org"]\naudience = ["hf-gateway"]\n')
        assert client.post("/admin/reload").json()["needs_restart"] == []
        assert set(server.state.settings.jwt) == {"https://login.example.org"}
        assert client.get("/v1/models").status_code == 200


def test_connections_of_replaced_rules_are_closed_after_their_last_request() -> None:
    with gateway_server(TWO) as server, server.client(headers=rights_of(server)) as client:
        old, closed = server.state.authenticator, threading.Event()

        async def aclose() -> None:
            closed.set()

        old.aclose = aclose  # type: ignore[method-assign]
        assert client.post("/admin/reload").status_code == 200
        assert server.state.authenticator is not old
        assert closed.wait(START_S)


def test_a_stream_ends_on_the_old_chain_which_is_closed_afterwards(primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    stall = stall_stream(2)
    primary.fail(stall)
    with gateway_server(chat_chain(primary.url, more=WAITS)) as server:
        headers = rights_of(server)
        closed: list[str] = []
        chain = server.state.chains.get("chat")
        assert chain is not None
        close = chain.gateway.aclose

        async def aclose() -> None:
            closed.append("chat")
            await close()

        chain.gateway.aclose = aclose
        body = {"messages": ASK, "stream": True}
        with (
            server.client(headers=headers) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            assert stall.reached.wait(START_S)
            rewrite(chat_chain(backup.url, more=WAITS))
            with server.client(headers=headers) as other:
                assert other.post("/admin/reload").json()["built"] == ["chat"]
                assert other.post("/v1/chat/completions", json={"messages": ASK}).status_code == 200
            assert closed == []
            stall.release()
            text = answer.read().decode()
        assert events_of(text)[-1] == "[DONE]"
        assert (primary.count(), backup.count()) == (1, 1)
        until(lambda: closed)
        assert closed == ["chat"]


async def test_no_request_fails_while_the_configuration_is_reloaded(two: RunningServer) -> None:
    options = {"base_url": two.url, "trust_env": False, "timeout": START_S, "headers": rights_of(two)}
    async with httpx.AsyncClient(**options) as client:

        async def ask(number: int) -> int:
            answer = await client.post("/v1/embeddings", json={"input": f"text {number}", "model": "docs"})
            return answer.status_code

        async def reload(number: int) -> int:
            rewrite(TWO + f'[chains.extra{number}]\ntargets = ["hash:{number + 8}"]\n')
            return (await client.post("/admin/reload")).status_code

        for number in range(5):
            statuses = await asyncio.gather(*map(ask, range(20)), reload(number), *map(ask, range(20)))
            assert set(statuses) == {200}


def test_sighup_reloads_and_a_wrong_file_is_logged() -> None:
    with ServerProcess(TWO) as process, process.client() as client:

        def wait_for(done: Any) -> None:
            deadline = time.monotonic() + START_S
            while not done():
                assert time.monotonic() < deadline, process.log

        def names() -> list[str]:
            return [each["id"] for each in client.get("/v1/models").json()["data"]]

        path = Path("served.toml")
        path.write_text(TWO.replace("old", "new"), encoding="utf-8")
        process.signal(signal.SIGHUP)
        wait_for(lambda: names() == ["docs", "new"])
        path.write_text("[chains.docs\n", encoding="utf-8")
        process.signal(signal.SIGHUP)
        wait_for(lambda: client.get("/livez").is_success and "served.toml:1: not TOML" in process.log)
        assert names() == ["docs", "new"]


def test_several_workers_are_reloaded_by_their_parent(two: RunningServer) -> None:
    two.state.settings = two.state.settings.model_copy(update={"workers": 2})
    with two.client(headers=rights_of(two)) as client:
        answer = client.post("/admin/reload")
    assert answer.status_code == 409
    assert "SIGHUP" in answer.json()["error"]


def test_the_status_shows_breakers_without_asking(primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "FIRST_COOL_DOWN_S", 600.0)
    primary.always(Reply(500, "broken"))
    with gateway_server(chat_chain(primary.url)) as server, server.client(headers=rights_of(server)) as client:
        for _ in range(3):
            client.post("/v1/chat/completions", json={"messages": ASK})
        asked = primary.count()
        found = client.get("/admin/status").json()
    (chain,) = found["chains"]
    assert (chain["name"], chain["task"]) == ("chat", "chat")
    assert chain["targets"][0]["breaker"] == "open"
    assert found["ready"] is True
    assert found["in_flight"] == 1
    assert primary.count() == asked


def test_requests_under_way_are_listed(primary: FakeOpenAI) -> None:
    stall = stall_stream(0)
    primary.always(stall)
    with gateway_server(chat_chain(primary.url, more=WAITS)) as server:
        headers = rights_of(server)
        connection = raw_request(server.url, {"messages": ASK}, **headers)
        assert stall.reached.wait(START_S)
        with server.client(headers=headers) as client:
            first, own = client.get("/admin/in-flight").json()["requests"]
        connection.close()
        assert stall.disconnected.wait(START_S)
    assert (first["route"], first["chain"], first["key"]) == ("/v1/chat/completions", "chat", own["key"])
    assert own["route"] == "/admin/in-flight"


def test_health_asks_the_targets_and_remembers_their_answers(primary: FakeOpenAI) -> None:
    with gateway_server(chat_chain(primary.url)) as server, server.client(headers=rights_of(server)) as client:
        (chain,) = client.get("/admin/health").json()["chains"]
        asked = primary.count()
        client.get("/admin/health")
        assert primary.count() == asked > 0
        client.get("/admin/health?refresh=true")
        assert primary.count() == 2 * asked
    assert chain["works"] is True
    assert chain["targets"][0]["answers"] is True
