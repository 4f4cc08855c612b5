"""The routes `/huggingface/…` and the Python names of the guide for embeddings and chat."""

import json
from typing import Any

import httpx
import pytest

from hf_gateway import Gateway
from hf_gateway.clients.guide_a import HuggingFaceClient, get_huggingface_client
from hf_gateway.errors import GatewayError, StreamInterrupted
from hf_gateway.values.target import Target
from tests.servers.chat import script
from tests.servers.loopback import Reply, cut_stream, error_in_stream
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeRouter
from tests.support.gateway_server import chat_chain, gateway_server
from tests.support.server_keys import bearer, make_key

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct"
ASK = [{"role": "user", "content": "say something"}]
TWO_CHAINS = """
[chains.docs]
targets = ["hash:64"]

[chains.other]
targets = ["hash:32"]

[server]
default_embedding = "docs"
"""


def events_of(answer: httpx.Response) -> list[Any]:
    """Return the data of a stream's events."""
    assert answer.text.endswith("\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in answer.text[:-2].split("\n\n")]


def hashed(*texts: str, dim: int = 64) -> list[list[float]]:
    """Return the vectors of the chain `docs`."""
    with Gateway(targets=[f"hash:{dim}"]) as gateway:
        return gateway.embed(texts).vectors.tolist()


def test_an_embedding_its_dimensions_and_its_model(client: httpx.Client) -> None:
    answer = client.post("/huggingface/embedding", json={"text": "a text"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"embedding": hashed("a text")[0], "dimensions": 64, "model": "docs"}
    assert answer.headers["x-hf-gateway-served-by"] == "hash:64"
    assert answer.headers["x-hf-gateway-space"]


def test_model_picks_the_chain() -> None:
    with gateway_server(TWO_CHAINS) as server, server.client() as client:
        named = client.post("/huggingface/embedding", json={"text": "x", "model": "other"}).json()
        default = client.post("/huggingface/embedding", json={"text": "x"}).json()
        batch = client.post("/huggingface/embedding/batch", json={"texts": ["x"], "model": "other"}).json()
    assert (named["dimensions"], named["model"]) == (32, "other")
    assert (default["dimensions"], default["model"]) == (64, "docs")
    assert (batch["dimensions"], batch["model"]) == (32, "other")


def test_the_guides_model_is_found_by_its_hub_id(primary: FakeOpenAI) -> None:
    config = f'[chains.docs]\nmodel = "{MINILM}"\ntargets = ["openai:{primary.url}"]\n'
    with gateway_server(config) as server, server.client() as client:
        answer = client.post("/huggingface/embedding", json={"text": "x", "model": MINILM})
    assert answer.json()["model"] == MINILM
    assert len(answer.json()["embedding"]) == answer.json()["dimensions"] == 384


def test_a_batch_keeps_the_order_of_the_texts(client: httpx.Client) -> None:
    texts = ["third", "first", "second", "first"]
    answer = client.post("/huggingface/embedding/batch", json={"texts": texts})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"embeddings": hashed(*texts), "dimensions": 64, "model": "docs"}


def test_a_demanded_space_is_held(client: httpx.Client) -> None:
    answer = client.post("/huggingface/embedding", json={"text": "x"}, headers={"x-hf-gateway-space": "another"})
    assert answer.status_code == 412
    assert answer.json()["code"] == "space_mismatch"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/huggingface/embedding", {}, "text"),
        ("/huggingface/embedding", {"text": 7}, "text"),
        ("/huggingface/embedding/batch", {"texts": []}, "texts"),
        ("/huggingface/embedding/batch", {"texts": "one"}, "texts"),
        ("/huggingface/chat", {"messages": []}, "messages"),
        ("/huggingface/chat", {"messages": ASK, "temperature": -1}, "temperature"),
        ("/huggingface/chat", {"messages": ASK, "max_tokens": 0}, "max_tokens"),
    ],
)
def test_an_invalid_field_is_named(client: httpx.Client, path: str, body: dict[str, Any], field: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert field in answer.json()["error"]
    assert answer.json()["code"] == "invalid_request"


def test_an_unknown_model_is_404_with_the_nearest_name(client: httpx.Client) -> None:
    answer = client.post("/huggingface/embedding", json={"text": "x", "model": "dosc"})
    assert answer.status_code == 404
    assert "docs" in answer.json()["error"]
    assert client.get("/huggingface/nothing").json()["code"] == "not_found"


def test_a_chat_is_a_stream_of_texts_and_a_last_done() -> None:
    with (
        FakeOpenAI(models=None, brain=script("One two three.")) as fake,
        gateway_server(chat_chain(fake.url)) as server,
        server.client() as client,
    ):
        answer = client.post("/huggingface/chat", json={"messages": ASK})
        sent = fake.requests[0].json
    assert answer.headers["content-type"].startswith("text/event-stream")
    *pieces, end = events_of(answer)
    assert len(pieces) > 1
    assert all(set(piece) == {"text"} for piece in pieces)
    assert "".join(piece["text"] for piece in pieces) == "One two three."
    assert end == {"done": True}
    assert (sent["temperature"], sent["max_tokens"], sent["messages"]) == (0.7, 4096, ASK)


def test_a_chat_without_a_stream_is_one_answer() -> None:
    with (
        FakeOpenAI(models=None, brain=script("Hello there.")) as fake,
        gateway_server(chat_chain(fake.url)) as server,
        server.client() as client,
    ):
        body = {"messages": ASK, "model": "owner/model", "temperature": 0.1, "max_tokens": 5, "stream": False}
        answer = client.post("/huggingface/chat", json=body)
        sent = fake.requests[0].json
    assert answer.json() == {"text": "Hello there.", "done": True, "model": "owner/model"}
    assert answer.headers["x-hf-gateway-served-by"] == "openai:owner/model"
    assert (sent["temperature"], sent["max_tokens"]) == (0.1, 5)


def test_the_default_of_max_tokens_is_at_most_what_the_server_allows(primary: FakeOpenAI) -> None:
    with gateway_server(chat_chain(primary.url), max_answer_tokens=100) as server, server.client() as client:
        by_default = client.post("/huggingface/chat", json={"messages": ASK})
        refused = client.post("/huggingface/chat", json={"messages": ASK, "max_tokens": 101})
    assert by_default.status_code == 200
    assert primary.requests[0].json["max_tokens"] == 100
    assert (refused.status_code, refused.json()["code"]) == (400, "too_many")


def test_an_error_before_the_first_piece_has_its_own_status(primary: FakeOpenAI) -> None:
    primary.always(Reply(429, {"error": {"message": "slow down"}}, {"retry-after": "7"}))
    with gateway_server(chat_chain(primary.url)) as server, server.client() as client:
        answer = client.post("/huggingface/chat", json={"messages": ASK})
    assert answer.status_code == 429
    assert answer.json()["code"] == "rate_limited"
    assert answer.headers["retry-after"] == "7"
    assert primary.url not in answer.text


@pytest.mark.parametrize("fault", [cut_stream(2), error_in_stream(2)], ids=["cut", "error"])
def test_a_stream_that_breaks_off_ends_with_an_error_and_without_done(primary: FakeOpenAI, fault: Any) -> None:
    primary.brain = script("One two three four five.")
    primary.always(fault)
    with gateway_server(chat_chain(primary.url)) as server, server.client() as client:
        *pieces, end = events_of(client.post("/huggingface/chat", json={"messages": ASK}))
    assert pieces
    assert all(set(piece) == {"text"} for piece in pieces)
    assert set(end) == {"error", "code"}
    assert end["code"] == "stream_interrupted"


def test_status_says_available_and_whether_there_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway_server() as server, server.client() as client:
        without = client.get("/huggingface/status").json()
        monkeypatch.setenv("HUGGINGFACE_API_KEY", "hf_the_servers_own")
        answer = client.get("/huggingface/status")
    assert (without["available"], without["has_api_key"], without["errors"]) == (True, False, [])
    assert answer.json()["has_api_key"] is True
    assert "hf_the_servers_own" not in answer.text
    (chain,) = without["chains"]
    assert chain == {
        "chain": "docs",
        "task": "embedding",
        "model": "docs",
        "available": True,
        "targets": [{"target": "hash:64", "available": True}],
    }


def test_status_names_what_is_missing(primary: FakeOpenAI) -> None:
    config = f"""
[chains.hosted]
model = "{MINILM}"
targets = ["hf"]
{chat_chain(primary.url)}
"""
    primary.always(Reply(401, {"error": {"message": "no"}}))
    with gateway_server(config) as server, server.client() as client:
        client.post("/huggingface/chat", json={"messages": ASK})
        answer = client.get("/huggingface/status")
    found = answer.json()
    assert found["has_api_key"] is False
    assert any("HF_TOKEN" in error and error.startswith("hosted: ") for error in found["errors"])
    assert primary.url.removeprefix("http://") not in answer.text
    by_name = {chain["chain"]: chain for chain in found["chains"]}
    assert by_name["hosted"]["available"] is False
    assert by_name["chat"]["targets"][0]["target"] == "openai:owner/model"


def test_status_shows_a_key_its_own_chains_only() -> None:
    from pathlib import Path

    url = f"sqlite:///{Path.cwd() / 'keys.sqlite'}"
    key = make_key(url, chains=("other",))
    config = TWO_CHAINS.replace("[server]", f'[server]\ndatabase = "{url}"')
    with gateway_server(config) as server, server.client() as client:
        refused = client.get("/huggingface/status")
        found = client.get("/huggingface/status", headers=bearer(key)).json()
        forbidden = client.post("/huggingface/embedding", json={"text": "x"}, headers=bearer(key))
    assert refused.status_code == 401
    assert [chain["chain"] for chain in found["chains"]] == ["other"]
    assert (forbidden.status_code, forbidden.json()["code"]) == (403, "chain_forbidden")


def hosted(router: FakeRouter) -> Target:
    return Target("hf", url=router.url, provider="hf-inference", credential="hf_test")


def pulled(ollama: FakeOllama) -> Target:
    return Target("ollama", model="all-minilm", url=ollama.url)


def test_the_python_client_asks_hugging_face_first() -> None:
    with FakeRouter() as router, FakeOllama() as ollama:
        with HuggingFaceClient(embedding_targets=[hosted(router), pulled(ollama), "hash:384"]) as client:
            vector = client.generate_embedding("a text")
        assert router.requests
        assert not ollama.requests
    assert len(vector) == 384


def test_the_python_client_falls_back_to_ollama_then_to_hashes() -> None:
    with FakeRouter() as router, FakeOllama() as ollama:
        router.always(Reply(503, {"error": "down"}))
        targets = [hosted(router), pulled(ollama), "hash:384"]
        with HuggingFaceClient(embedding_targets=targets) as client:
            assert len(client.generate_embedding("a text")) == 384
        assert any(request.path == "/api/embed" for request in ollama.requests)
        ollama.always(Reply(500, {"error": "down"}))
        with HuggingFaceClient(embedding_targets=targets) as client:
            vector = client.generate_embedding("a text")
    assert vector == hashed("a text", dim=384)[0]


def test_the_python_client_never_mixes_vectors_of_two_models() -> None:
    with FakeRouter() as router, HuggingFaceClient(embedding_targets=[hosted(router), "hash:384"]) as client:
        client.generate_embedding("a text")
        router.always(Reply(401, {"error": "Invalid username or password."}))
        with pytest.raises(GatewayError):
            client.generate_embedding("another text")


def test_the_python_client_streams_pieces_and_a_last_done() -> None:
    with FakeOpenAI(models=None, brain=script("One two three.")) as fake:
        with HuggingFaceClient(chat_targets=[f"openai:{fake.url}"]) as client:
            *pieces, end = client.stream_chat(messages=ASK)
        sent = fake.requests[0].json
    assert len(pieces) > 1
    assert "".join(piece["text"] for piece in pieces) == "One two three."
    assert end == {"done": True}
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == (LLAMA, 0.7, 4096)


def test_the_python_clients_chat_falls_back_to_ollama() -> None:
    models = {"llama3:8b": {"capabilities": ["completion"]}}
    with FakeOpenAI(models=None) as first, FakeOllama(models, brain=script("From Ollama.")) as ollama:
        first.always(Reply(503, {"error": {"message": "down"}}))
        targets = [Target("openai", url=first.url), Target("ollama", model="llama3:8b", url=ollama.url)]
        with HuggingFaceClient(chat_targets=targets) as client:
            found = list(client.stream_chat(messages=ASK))
    assert "".join(piece.get("text", "") for piece in found) == "From Ollama."
    assert found[-1] == {"done": True}


def test_the_python_client_raises_when_an_answer_breaks_off(primary: FakeOpenAI) -> None:
    primary.brain = script("One two three four five.")
    primary.always(cut_stream(2))
    found = []
    with HuggingFaceClient(chat_targets=[f"openai:{primary.url}"]) as client, pytest.raises(StreamInterrupted):
        found.extend(client.stream_chat(messages=ASK))
    assert {"done": True} not in found


async def test_its_async_methods_do_the_same() -> None:
    with FakeOpenAI(models=None, brain=script("One two.")) as fake:
        options: dict[str, Any] = {"embedding_targets": ["hash:384"], "chat_targets": [f"openai:{fake.url}"]}
        with HuggingFaceClient(**options) as client:
            assert await client.agenerate_embedding("a text") == client.generate_embedding("a text")
            pieces = [piece async for piece in client.astream_chat(ASK)]
    assert "".join(piece.get("text", "") for piece in pieces) == "One two."
    assert pieces[-1] == {"done": True}


def test_check_available_asks_targets_with_a_model() -> None:
    with FakeOllama() as ollama:
        targets: list[Target | str] = [pulled(ollama), "hash:384"]
        with HuggingFaceClient(embedding_targets=targets, chat_targets=["hf"]) as client:
            assert client.check_available() is True
            ollama.always(Reply(500, {"error": "down"}))
            assert client.check_available() is False
            assert len(client.generate_embedding("a text")) == 384


def test_the_client_of_a_process_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")
    first = get_huggingface_client()
    assert first is get_huggingface_client()
    assert first is not get_huggingface_client(chat_targets="ollama:another")
    assert first.embedding_gateway.model == MINILM
    assert first.chat_gateway.model == LLAMA
    assert [target.kind for target in first.embedding_gateway.targets] == ["hf", "ollama", "hash"]
    assert [target.kind for target in first.chat_gateway.targets] == ["hf", "ollama"]
    assert first.generate_embedding("without a key") == hashed("without a key", dim=384)[0]
    first.close()
