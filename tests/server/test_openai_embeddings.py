"""POST /v1/embeddings and GET /v1/models, as the openai package and LangChain call them."""

import base64
import struct

import httpx
import pytest

from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import RunningServer, gateway_server
from tests.support.late import COLLECTED

if COLLECTED:
    import openai
    from openai.types import CreateEmbeddingResponse, Model

TWO_CHAINS = """
[chains.docs]
targets = ["hash:64"]

[chains.other]
targets = ["hash:32"]

[server]
default_embedding = "docs"

[server.aliases]
"text-embedding-3-small" = "other"
"""


def sdk(server: RunningServer, **options: object) -> "openai.OpenAI":
    client = httpx.Client(trust_env=False)
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", http_client=client, **options)  # type: ignore[arg-type]


def test_both_forms_hold_the_same_numbers_as_the_gateway_gives(client: httpx.Client) -> None:
    from hf_gateway import Gateway

    texts = ["first", "second", "\N{SNOWMAN} third"]
    with Gateway(targets=["hash:64"]) as gateway:
        expected = gateway.embed(texts).vectors.tolist()
    plain = client.post("/v1/embeddings", json={"input": texts, "model": "docs"})
    packed = client.post("/v1/embeddings", json={"input": texts, "model": "docs", "encoding_format": "base64"})
    assert [each["embedding"] for each in plain.json()["data"]] == expected
    unpacked = [struct.unpack("<64f", base64.b64decode(each["embedding"])) for each in packed.json()["data"]]
    assert [list(row) for row in unpacked] == expected
    for answer in (plain, packed):
        CreateEmbeddingResponse.model_validate(answer.json() | {"data": plain.json()["data"]}, strict=True)
        assert answer.headers["x-hf-gateway-served-by"] == "hash:64"


def test_the_openai_package_reads_the_vectors(server: RunningServer) -> None:
    answer = sdk(server).embeddings.create(model="docs", input=["one", "two"])
    assert [len(each.embedding) for each in answer.data] == [64, 64]
    assert [each.index for each in answer.data] == [0, 1]
    assert sdk(server).embeddings.create(model="docs", input="one").data[0].embedding == answer.data[0].embedding


async def test_the_async_package_reads_them_too(server: RunningServer) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        found = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", http_client=client)
        answer = await found.embeddings.create(model="docs", input=["one"], encoding_format="float")
    assert len(answer.data[0].embedding) == 64


def test_the_role_of_a_query_reaches_the_model(primary: FakeOpenAI) -> None:
    config = f"""
[chains.docs]
model = "intfloat/e5-small-v2"
[[chains.docs.targets]]
kind = "openai"
url = "{primary.url}"
[chains.docs.targets.space]
model = "intfloat/e5-small-v2"
query_prompt = "query: "
document_prompt = "passage: "
"""
    with gateway_server(config) as server, server.client() as client:
        for form in ("query", "document", None):
            body = {"input": ["x"]} | ({"input_type": form} if form else {})
            assert client.post("/v1/embeddings", json=body).status_code == 200
    assert [request.json["input"] for request in primary.requests] == [["query: x"], ["passage: x"], ["passage: x"]]


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2], [3]]])
def test_token_ids_are_refused_with_what_to_set(client: httpx.Client, ids: list[object]) -> None:
    answer = client.post("/v1/embeddings", json={"input": ids, "model": "docs"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input"
    assert "check_embedding_ctx_length=False" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "input", "Field required"),
        ({"input": ["a", ""]}, None, "text 1 of 2 is empty"),
        ({"input": []}, "input", "an empty list"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "x", "dimensions": 0}, "dimensions", "greater than 0"),
        ({"input": "x", "dimensions": 65}, "dimensions", "hash:64"),
        ({"input": ["x"] * 3000}, "input", "3,000 entries, and this server accepts 2,048"),
    ],
)
def test_an_invalid_body_is_400_with_the_field(
    client: httpx.Client, body: object, param: str | None, words: str
) -> None:
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"input": "\xff"}'])
def test_a_body_that_is_no_object_is_400(client: httpx.Client, content: bytes) -> None:
    assert client.post("/v1/embeddings", content=content).status_code == 400


def test_unknown_fields_are_ignored(client: httpx.Client) -> None:
    body = {"input": "x", "model": "docs", "user": "u", "truncation": "auto", "metadata": {"a": 1}}
    assert client.post("/v1/embeddings", json=body).status_code == 200


def test_shorter_vectors_are_of_another_space(primary: FakeOpenAI) -> None:
    config = f'[chains.docs]\nmodel = "m"\ntargets = ["openai:{primary.url}"]\n'
    with gateway_server(config) as server, server.client() as client:
        whole = client.post("/v1/embeddings", json={"input": "x"})
        short = client.post("/v1/embeddings", json={"input": "x", "dimensions": 4})
    assert len(short.json()["data"][0]["embedding"]) == 4
    assert short.headers["x-hf-gateway-space"] != whole.headers["x-hf-gateway-space"]


def test_a_demanded_space_is_served_and_another_one_is_412_before_any_target_is_asked(primary: FakeOpenAI) -> None:
    config = f'[chains.docs]\nmodel = "m"\ntargets = ["openai:{primary.url}"]\n'
    with gateway_server(config) as server, server.client() as client:
        space = client.post("/v1/embeddings", json={"input": "x"}).headers["x-hf-gateway-space"]
        asked = len(primary.requests)
        same = client.post("/v1/embeddings", json={"input": "x"}, headers={"x-hf-gateway-space": space})
        assert same.status_code == 200
        assert len(primary.requests) == asked + 1
        other = client.post("/v1/embeddings", json={"input": "x"}, headers={"x-hf-gateway-space": "m#000000000000"})
    assert other.status_code == 412
    assert other.headers["x-hf-gateway-space"] == space
    assert len(primary.requests) == asked + 1


def test_a_model_is_a_chain_or_the_id_of_one_chains_model_or_an_alias(primary: FakeOpenAI) -> None:
    config = f"""
[chains.docs]
model = "BAAI/bge-small-en-v1.5"
targets = ["openai:{primary.url}"]
[chains.other]
targets = ["hash:32"]
[server]
default_embedding = "other"
[server.aliases]
"text-embedding-3-small" = "docs"
"""
    with gateway_server(config) as server, server.client() as client:

        def served(model: str | None) -> str:
            answer = client.post("/v1/embeddings", json={"input": "x", "model": model})
            assert answer.status_code == 200, answer.text
            return answer.headers["x-hf-gateway-served-by"]

        names = ["docs", "docs:latest", "BAAI/bge-small-en-v1.5", "baai/BGE-small-en-v1.5", "text-embedding-3-small"]
        assert {served(name) for name in names} == {"openai:BAAI/bge-small-en-v1.5"}
        assert {served(None), served(""), served("other")} == {"hash:32"}
        unknown = client.post("/v1/embeddings", json={"input": "x", "model": "BAAI/bge-small-en"})
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "model_not_found"
    assert "did you mean 'BAAI/bge-small-en-v1.5'?" in unknown.json()["error"]["message"]


def test_without_a_default_several_chains_have_to_be_named() -> None:
    config = '[chains.a]\ntargets = ["hash:8"]\n[chains.b]\ntargets = ["hash:16"]\n'
    with gateway_server(config) as server, server.client() as client:
        answer = client.post("/v1/embeddings", json={"input": "x"})
    assert answer.status_code == 404
    assert "several chains for embeddings: a, b" in answer.json()["error"]["message"]


def test_the_list_of_models_asks_nobody_and_has_the_types_of_the_package(primary: FakeOpenAI) -> None:
    config = TWO_CHAINS + f'[chains.far]\nmodel = "owner/name"\ntargets = ["openai:{primary.url}"]\n'
    with gateway_server(config) as server:
        listed = sdk(server).models.list().data
        assert [each.id for each in listed] == ["docs", "other", "far", "text-embedding-3-small"]
        one = sdk(server).models.retrieve("owner/name")
        with server.client() as client:
            raw = client.get("/v1/models").json()["data"]
            missing = client.get("/v1/models/owner/nam")
    for each in raw:
        Model.model_validate(each, strict=True)
        assert each["task"] == "embedding"
        assert each["space"]
    assert one.id == "owner/name"
    assert missing.status_code == 404
    assert primary.requests == []


def test_a_failing_chain_is_an_error_that_no_client_repeats(primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    from tests.servers.loopback import Reply

    for fake in (primary, backup):
        fake.always(Reply(500, "broken"))
    config = f'[chains.docs]\nmodel = "m"\nmax_retries = 0\ntargets = ["openai:{primary.url}", "openai:{backup.url}"]\n'
    with gateway_server(config) as server, pytest.raises(openai.InternalServerError) as failed:
        sdk(server, max_retries=2).embeddings.create(model="docs", input="x")
    assert failed.value.status_code == 502
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert len(primary.requests) == len(backup.requests) == 1
    for fake in (primary, backup):
        assert fake.url not in failed.value.response.text
        assert fake.url.partition("//")[2] not in failed.value.response.text


def test_retry_after_of_a_target_is_passed_on(primary: FakeOpenAI) -> None:
    from tests.servers.loopback import Reply

    primary.always(Reply(429, {"error": {"message": "slow down"}}, {"retry-after": "44"}))
    config = f'[chains.docs]\nmodel = "m"\ntimeout = 10\ntargets = ["openai:{primary.url}"]\n'
    with gateway_server(config) as server, server.client() as client:
        answer = client.post("/v1/embeddings", json={"input": "x"})
    assert answer.status_code == 429
    assert 30 <= int(answer.headers["retry-after"]) <= 44


def test_a_models_facts_come_from_configuration_and_cache(primary: FakeOpenAI) -> None:
    config = f"""
[chains.chat]
task = "chat"
model = "owner/name"
context_window = 4096
targets = ["openai:{primary.url}"]

[chains.far]
model = "owner/far"
targets = ["hf"]

[chains.own]
targets = ["hash:32"]

[prices."owner/far"]
task = "embedding"
input = 0.5
"""
    with gateway_server(config) as server, server.client() as client:
        chat, far, own = client.get("/v1/models").json()["data"]
    assert chat["context_length"] == 4096
    assert chat["price"] == {"input_usd_per_million_tokens": 0.0, "output_usd_per_million_tokens": 0.0}
    assert far["price"] == {"input_usd_per_million_tokens": 0.5}
    assert own["dimension"] == 32
    assert primary.requests == []


@pytest.mark.parametrize("others_first", [False, True])
def test_of_two_demanded_spaces_the_answer_has_to_be_of_both(others_first: bool, client: httpx.Client) -> None:
    """A proxy's header before the client's own was the only one that was read."""
    space = client.post("/v1/embeddings", json={"input": "x"}).headers["x-hf-gateway-space"]
    demands = [("x-hf-gateway-space", each) for each in (space, "another/model#0")]
    headers = demands[::-1] if others_first else demands
    assert client.post("/v1/embeddings", json={"input": "x"}, headers=headers).status_code == 412
    assert client.post("/v1/embeddings", json={"input": "x"}, headers=[demands[0]] * 2).status_code == 200
