"""Models that no chain has, by `[server.open]`: the last ones are kept, and others are closed after their last request."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hf_gateway.server.dispatch.chain import MAX_VARIANTS_COUNT
from tests.server.test_openai_chat import ASK
from tests.servers.loopback import stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import HASH_CHAIN, RunningServer, gateway_server
from tests.support.server_keys import bearer, make_key
from tests.support.ways import until


def config_of(target: str, kept: int = 1) -> str:
    return f'{HASH_CHAIN}\n[server.open]\ntargets = ["openai:{target}"]\nmax_models = {kept}\n'


@pytest.fixture
def upstream() -> Iterator[FakeOpenAI]:
    """A target that has every model."""
    with FakeOpenAI(models=None) as fake:
        yield fake


@pytest.fixture
def server(upstream: FakeOpenAI) -> Iterator[RunningServer]:
    """A server that keeps one open model."""
    with gateway_server(config_of(upstream.url)) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    """A client that may name any model."""
    scopes = {"embed", "chat", "read", "any-model", "admin"}
    with server.client(headers=bearer(make_key(server.state.database.url, scopes=scopes))) as made:
        yield made


def embed(client: httpx.Client, model: str, **more: object) -> None:
    answer = client.post("/v1/embeddings", json={"input": "a text", "model": model, **more})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/chat/completions", "/api/embed"])
def test_a_key_without_the_scope_names_no_other_model(path: str, server: RunningServer, upstream: FakeOpenAI) -> None:
    body = {"model": "owner/model", "input": "a text", "messages": ASK}
    for scopes in ({"embed", "chat", "read", "admin"}, None):
        key = {} if scopes is None else bearer(make_key(server.state.database.url, scopes=scopes))
        server.state.authenticator.forget()
        with server.client(headers=key) as client:
            assert client.post(path, json=body).status_code == (401 if scopes is None else 404)
    assert upstream.requests == []


def test_a_caller_of_a_server_without_keys_names_no_other_model(server: RunningServer, upstream: FakeOpenAI) -> None:
    with server.client() as client:
        answer = client.post("/v1/embeddings", json={"model": "owner/model", "input": "a text"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert upstream.requests == []


def test_connections_of_models_that_are_not_kept_are_closed(client: httpx.Client, upstream: FakeOpenAI) -> None:
    for number in range(8):
        embed(client, f"owner/model-{number}")
    assert upstream.connections == 8
    until(lambda: upstream.open_connections == 1)
    embed(client, "owner/model-7")
    assert upstream.connections == 8


def test_a_running_request_ends_on_a_model_that_is_not_kept_any_more(
    client: httpx.Client, upstream: FakeOpenAI
) -> None:
    held = stall_stream(2)
    upstream.fail(held, path="/v1/chat/completions")
    body = {"messages": ASK, "model": "owner/a", "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data:")
        for name in ("b", "c"):
            embed(client, f"owner/{name}")
        until(lambda: upstream.open_connections == 2)
        held.release()
        assert "data: [DONE]" in list(lines)
    until(lambda: upstream.open_connections == 1)


def test_variants_of_a_chain_that_are_not_kept_are_closed(client: httpx.Client, upstream: FakeOpenAI) -> None:
    for size in range(1, MAX_VARIANTS_COUNT + 5):
        embed(client, "owner/a", dimensions=size)
    assert upstream.connections > MAX_VARIANTS_COUNT
    until(lambda: upstream.open_connections <= MAX_VARIANTS_COUNT + 1)
    embed(client, "owner/b")
    until(lambda: upstream.open_connections == 1)


def test_open_models_survive_a_reload_until_their_targets_change(client: httpx.Client, upstream: FakeOpenAI) -> None:
    embed(client, "owner/a")
    assert client.post("/admin/reload").status_code == 200
    embed(client, "owner/a")
    assert (upstream.connections, upstream.open_connections) == (1, 1)
    with FakeOpenAI(models=None) as other:
        Path("hf-gateway.toml").write_text(config_of(other.url), encoding="utf-8")
        assert client.post("/admin/reload").status_code == 200
        embed(client, "owner/a")
        until(lambda: upstream.open_connections == 0)
        assert other.open_connections == 1


def test_the_end_of_the_server_closes_them(upstream: FakeOpenAI) -> None:
    with gateway_server(config_of(upstream.url, kept=4)) as server:
        headers = bearer(make_key(server.state.database.url, scopes={"embed", "any-model"}))
        with server.client(headers=headers) as client:
            for name in "abcdef":
                embed(client, f"owner/{name}")
        until(lambda: upstream.open_connections == 4)
    until(lambda: upstream.open_connections == 0)


def test_a_chain_of_another_task_is_named_as_such_and_is_no_open_model(
    client: httpx.Client, upstream: FakeOpenAI
) -> None:
    answer = client.post("/v1/chat/completions", json={"messages": ASK, "model": "docs"})
    assert answer.status_code == 404
    assert "'docs' is a chain for embeddings, and the request is for chat; of those there are: none" in answer.text
    assert upstream.count() == 0


def test_without_targets_for_them_the_nearest_chain_is_named() -> None:
    with gateway_server(HASH_CHAIN) as running:
        headers = bearer(make_key(running.state.database.url, scopes={"embed", "any-model"}))
        with running.client(headers=headers) as client:
            answer = client.post("/v1/embeddings", json={"input": "a text", "model": "dosc"})
    assert answer.status_code == 404
    assert "there is no model 'dosc' for embeddings; did you mean 'docs'?" in answer.text
