"""What each remote backend puts on the wire, and what it makes of the answers."""

import base64
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from hf_gateway import Gateway, Target, VectorSpace, errors
from hf_gateway.runtime.driver import Clock
from hf_gateway.values.http import HttpResponse
from hf_gateway.values.usage import Usage
from hf_gateway.wire import hf_inference
from hf_gateway.wire import tei as tei_wire
from tests.servers import float32_base64, unit_vectors
from tests.servers.loopback import Reply
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeHub, FakeRouter, HubModel
from tests.servers.tei import FakeTEI
from tests.support.embedders import MODEL, Caller

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
Make = Callable[..., Caller]
TEXTS = [f"text {number}" for number in range(100)]


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Make:
    return functools.partial(Caller, request.param == "async")


# Roles: prompts go before the texts of their role, everywhere the same.


@pytest.mark.parametrize("kind", ["tei", "openai", "ollama", "endpoint"])
def test_each_role_gets_its_prompt(caller: Make, kind: str) -> None:
    with (
        FakeTEI(model_id=MODEL) as tei,
        FakeOpenAI(models=None) as openai,
        FakeOllama({MODEL: {"embedding_length": 384}}) as ollama,
    ):
        server = {"tei": tei, "openai": openai, "ollama": ollama, "endpoint": tei}[kind]
        make = caller([Target(kind, url=server.url)], query_prompt="query: ", document_prompt="passage: ")
        assert make.query("one") == unit_vectors(["query: one"])[0]
        assert make.documents(["one"]) == unit_vectors(["passage: one"])


def test_the_models_saved_prompts_are_used_when_its_files_are_here(caller: Make, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 384}')
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer", "path": ""}]')
    (tmp_path / "config_sentence_transformers.json").write_text('{"prompts": {"query": "Q: ", "document": "D: "}}')
    with FakeOpenAI(models=None) as server:
        make = caller([f"openai:{server.url}"], model=str(tmp_path))
        assert make.query("one") == unit_vectors(["Q: one"])[0]
        assert make.documents(["one"]) == unit_vectors(["D: one"])
        off = caller([f"openai:{server.url}"], model=str(tmp_path), query_prompt="")
        assert off.query("one") == unit_vectors(["one"])[0]


def test_a_model_whose_prompts_nobody_knows_is_noticed_once(caller: Make, caplog: pytest.LogCaptureFixture) -> None:
    with FakeOpenAI(models=None) as server:
        make = caller([f"openai:{server.url}"])
        for _ in range(3):
            make.query("one")
        assert caplog.text.count("wants a prompt before queries is not known") == 1
        caplog.clear()
        caller([f"openai:{server.url}"], query_prompt="").query("one")
        assert caplog.text == ""


def test_dimensions_are_cut_and_scaled_the_same_way_for_every_server(caller: Make) -> None:
    with FakeTEI(model_id=MODEL) as tei, FakeOpenAI(models=None) as openai:
        found = [
            caller([f"{kind}:{server.url}"], dimensions=64).documents(["one"])
            for kind, server in (("tei", tei), ("openai", openai))
        ]
    assert found[0] == found[1]
    assert len(found[0][0]) == 64
    assert sum(value * value for value in found[0][0]) == pytest.approx(1.0, abs=1e-6)


# tei


@pytest.mark.parametrize(("limit", "requests"), [(32, 4), (100, 1), (7, 15)])
def test_tei_is_sent_what_info_allows_in_order(caller: Make, limit: int, requests: int) -> None:
    with FakeTEI(model_id=MODEL, max_client_batch_size=limit) as tei:
        make = caller([f"tei:{tei.url}"])
        assert make.documents(TEXTS) == unit_vectors(TEXTS)
        assert make.documents(TEXTS[:1]) == unit_vectors(TEXTS[:1])
        assert (tei.count("/info"), tei.count("/embed")) == (1, requests + 1)


def test_tei_batches_are_split_by_bytes_too(caller: Make) -> None:
    texts = [f"{number} " + "é" * 150_000 for number in range(10)]
    with FakeTEI(model_id=MODEL) as tei:
        assert caller([f"tei:{tei.url}"]).documents(texts) == unit_vectors(texts)
        bodies = [len(request.body) for request in tei.requests if request.path == "/embed"]
    assert len(bodies) == 2
    assert max(bodies) <= 2_000_000


def test_tei_tokens_come_from_the_response_headers() -> None:
    with FakeTEI(model_id=MODEL) as tei:
        assert Gateway(MODEL, [f"tei:{tei.url}"]).embed(TEXTS).usage.input_tokens == 400


@pytest.mark.parametrize(
    "told", ["", "-4", "4.5", "²", "9" * 5000, "many"], ids=["none", "negative", "part", "raised", "endless", "word"]
)
def test_tokens_that_are_no_count_are_unknown(told: str) -> None:
    response = HttpResponse(200, {"x-compute-tokens": told}, b"[[1.0, 0.0]]")
    assert tei_wire.decode_embed(response, 1, target="tei").usage == Usage(None)
    assert hf_inference.decode_feature_extraction(response, 1, "mean", target="hf").usage == Usage(None)


def test_tei_is_never_left_to_cut_in_silence(caller: Make) -> None:
    with FakeTEI(model_id=MODEL) as tei:
        caller([f"tei:{tei.url}"]).documents(["one"])
        assert tei.requests[-1].json["truncate"] is False


def test_tei_speaks_the_openai_form_behind_a_flag(caller: Make) -> None:
    with FakeTEI(model_id=MODEL) as tei:
        make = caller([Target("tei", url=tei.url, options={"openai": True})])
        assert make.documents(TEXTS) == unit_vectors(TEXTS)
        assert (tei.count("/embed"), tei.count("/v1/embeddings")) == (0, 4)


def test_tei_can_put_its_own_saved_prompts(caller: Make) -> None:
    with FakeTEI(model_id=MODEL, prompts={"q": "query: "}) as tei:
        make = caller([Target("tei", url=tei.url, options={"prompt_names": {"query": "q"}})])
        assert make.query("one") == unit_vectors(["query: one"])[0]
        assert make.documents(["one"]) == unit_vectors(["one"])


def test_a_tei_that_serves_a_reranker_is_told_apart(caller: Make) -> None:
    with (
        FakeTEI(model_id=MODEL, model_type="reranker") as tei,
        pytest.raises(errors.ModelNotFound, match="serves a reranker"),
    ):
        caller([f"tei:{tei.url}"]).documents(["one"])


def test_a_tei_with_a_key_is_served_its_key_on_info_too(caller: Make) -> None:
    with FakeTEI(model_id=MODEL, api_key="mine") as tei:
        assert caller([Target("tei", url=tei.url, credential="mine")]).documents(["one"]) == unit_vectors(["one"])
        with pytest.raises(errors.AuthenticationFailed):
            caller([f"tei:{tei.url}"]).documents(["one"])


# openai


@pytest.mark.parametrize("encoding", ["auto", "float", "base64"])
@pytest.mark.parametrize("ignored", [False, True])
def test_openai_floats_and_base64_give_the_same_vectors(caller: Make, encoding: str, ignored: bool) -> None:
    with FakeOpenAI(models=None, ignore_encoding_format=ignored) as server:
        make = caller([Target("openai", url=server.url, options={"encoding": encoding})])
        assert make.documents(TEXTS) == unit_vectors(TEXTS)


def test_openai_rows_are_put_in_the_order_of_their_index(caller: Make) -> None:
    with FakeOpenAI(models=None, shuffled=True) as server:
        assert caller([f"openai:{server.url}"]).documents(TEXTS) == unit_vectors(TEXTS)


def test_openai_base64_of_uneven_length_is_a_bad_response(caller: Make) -> None:
    rows = [float32_base64([0.1, 0.2]), base64.b64encode(b"12345").decode()]
    with FakeOpenAI(models=None) as server:
        server.always(Reply(200, {"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}))
        with pytest.raises(errors.BadResponse, match="base64"):
            caller([f"openai:{server.url}"]).documents(["one", "two"])


@pytest.mark.parametrize(
    ("prefix", "url"),
    [("/v1", "{}"), ("/v1", "{}/v1"), ("/v1", "{}/v1/"), ("/api/v3", "{}/api/v3"), ("", "{}/embeddings")],
)
def test_openai_urls_are_completed(caller: Make, prefix: str, url: str) -> None:
    with FakeOpenAI(models=None, prefix=prefix) as server:
        assert caller([f"openai:{url.format(server.url)}"]).documents(["one"]) == unit_vectors(["one"])


def test_openai_sends_no_null_and_no_default_that_a_server_might_refuse(caller: Make) -> None:
    with FakeOpenAI(models=None) as server:
        caller([Target("openai", url=server.url, options={"encoding": "float"})]).documents(["one"])
        assert server.requests[0].json == {"input": ["one"], "model": MODEL}


# ollama


def test_ollama_is_called_by_the_librarys_own_name_and_never_cuts_in_silence(caller: Make) -> None:
    with FakeOllama({"all-minilm": {"embedding_length": 384, "context_length": 256}}) as ollama:
        make = caller([Target("ollama", url=ollama.url)], model=MINILM)
        assert make.documents(["one"]) == unit_vectors(["one"])
        assert ollama.requests[-1].json == {"model": "all-minilm", "input": ["one"], "truncate": False}
        with pytest.raises(errors.ContextOverflow):
            make.documents(["word " * 300])
        cut = caller([Target("ollama", url=ollama.url)], model=MINILM, truncate=True)
        assert len(cut.documents(["word " * 300])[0]) == 384


@pytest.mark.parametrize(
    "name",
    [
        "mxbai-embed-large",
        "mxbai-embed-large:335m",
        "nomic-embed-text",
        "nomic-embed-text:latest",
        "nomic-embed-text:v1.5",
        "nomic-embed-text:137m-v1.5-fp16",
        "bge-m3:latest",
        "qwen3-embedding:0.6b",
        "embeddinggemma:300m",
        "snowflake-arctic-embed:l",
        "me/mine",
        "me/mine:v2",
        "hf.co/org/model-GGUF:Q4_K_M",
        "registry.local:5000/me/mine:v2",
    ],
)
def test_every_name_that_ollama_lists_can_be_embedded_with(caller: Make, name: str) -> None:
    with FakeOllama({name: {"embedding_length": 384}}) as ollama:
        made = caller([Target("ollama", url=ollama.url, model=name)], model=None)
        assert made.documents(["one"]) == unit_vectors(["one"])
        assert ollama.requests[-1].json["model"] == name


@pytest.mark.parametrize(
    "name",
    [
        "nomic-embed-text:v1.5",
        "text-embedding-nomic-embed-text-v1.5@q8_0",
        "/models/bge-small.gguf",
        r"C:\models\bge-small.gguf",
        "./bge-small.gguf",
        "an embedder, ours",
    ],
)
def test_a_server_may_call_its_model_anything(caller: Make, name: str) -> None:
    with FakeOpenAI(models=[name]) as server:
        made = caller([Target("openai", url=server.url, model=name)], model=None)
        assert made.documents(["one"]) == unit_vectors(["one"])
        assert server.requests[-1].json["model"] == name


def test_ollama_counts_tokens_over_all_parts() -> None:
    with FakeOllama({"all-minilm": {"embedding_length": 384}}) as ollama:
        result = Gateway(targets=[Target("ollama", url=ollama.url, model="all-minilm")]).embed(TEXTS)
        assert result.vectors.tolist() == unit_vectors(TEXTS)
        assert result.usage.input_tokens == 400
        assert ollama.count("/api/embed") == 2


def test_a_model_that_is_not_pulled_says_how_to_pull_it(caller: Make) -> None:
    with FakeOllama({}) as ollama:
        with pytest.raises(errors.ModelNotFound, match="ollama pull all-minilm"):
            caller([Target("ollama", url=ollama.url)], model=MINILM).documents(["one"])
        with pytest.raises(errors.ModelNotFound, match=r"ollama pull hf\.co/BAAI/bge-base-en-v1\.5"):
            caller([Target("ollama", url=ollama.url)], model="BAAI/bge-base-en-v1.5").documents(["one"])


def test_a_cloud_model_behind_ollama_says_how_to_sign_in(caller: Make) -> None:
    cloud = {"embedding_length": 8, "remote_host": "https://ollama.com"}
    with FakeOllama({"big": cloud}) as ollama, pytest.raises(errors.AuthenticationFailed, match="ollama signin"):
        caller([Target("ollama", url=ollama.url, model="big")], model=None).documents(["one"])


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("gpu-box", "http://gpu-box:11434"),
        ("https://ollama.example.org", "https://ollama.example.org:443"),
        ("http://ollama.example.org", "http://ollama.example.org:80"),
        (":1234", "http://127.0.0.1:1234"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(value: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", value)
    gateway = Gateway(targets=["ollama:m"])
    assert gateway.candidates[0].server.url == url


# hf


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeRouter, FakeHub]]:
    routes = [
        {"provider": "unheard-of", "providerId": "u", "status": "live", "task": "feature-extraction"},
        {"provider": "together", "providerId": "t", "status": "staging", "task": "feature-extraction"},
        {"provider": "hf-inference", "providerId": MINILM, "status": "live", "task": "sentence-similarity"},
        {"provider": "scaleway", "providerId": "all-minilm-l6-v2", "status": "live", "task": "feature-extraction"},
        {"provider": "deepinfra", "providerId": "d", "status": "live", "task": "conversational"},
    ]
    with FakeRouter() as router, FakeHub({MINILM: HubModel(providers=routes)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield router, hub


def hf(router: FakeRouter, provider: str | None = None, **fields: object) -> Target:
    return Target("hf", url=router.url, provider=provider, credential="hf_test", **fields)  # type: ignore[arg-type]


def test_hf_names_the_pipeline_since_the_model_is_tagged_for_another_task(
    caller: Make, hosted: tuple[FakeRouter, FakeHub]
) -> None:
    router, _ = hosted
    assert caller([hf(router)], model=MINILM).documents(TEXTS) == unit_vectors(TEXTS)
    assert {request.path for request in router.requests} == {
        f"/hf-inference/models/{MINILM}/pipeline/feature-extraction"
    }
    assert sorted(len(request.json["inputs"]) for request in router.requests) == [4, 32, 32, 32]


def test_hf_partners_are_called_by_their_own_route_and_model_name(
    caller: Make, hosted: tuple[FakeRouter, FakeHub]
) -> None:
    router, _ = hosted
    assert caller([hf(router, "scaleway")], model=MINILM).documents(["one"]) == unit_vectors(["one"])
    assert (router.requests[0].path, router.requests[0].json["model"]) == (
        "/scaleway/v1/embeddings",
        "all-minilm-l6-v2",
    )


@pytest.mark.parametrize("provider", ["together", "deepinfra"])
def test_hf_filters_the_mapping_by_task_and_status(
    caller: Make, hosted: tuple[FakeRouter, FakeHub], provider: str
) -> None:
    router, _ = hosted
    with pytest.raises(errors.ModelNotFound, match="does not serve embeddings") as caught:
        caller([hf(router, provider)], model=MINILM).documents(["one"])
    assert "together (feature-extraction, staging)" in str(caught.value)
    assert "targets=['local']" in str(caught.value)
    assert router.count() == 0


@pytest.mark.parametrize("form", ["list", "dict"])
def test_hf_reads_both_forms_of_the_mapping(caller: Make, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeRouter() as router, FakeHub(mapping_form=form) as hub:  # type: ignore[arg-type]
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert caller([hf(router)], model=MINILM).documents(["one"]) == unit_vectors(["one"])


def test_hf_asks_for_the_mapping_once_in_its_lifetime(
    caller: Make, hosted: tuple[FakeRouter, FakeHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    router, hub = hosted
    make = caller([hf(router)], model=MINILM)
    now = 1000.0
    monkeypatch.setattr(Clock, "now", lambda _self: now)
    for _ in range(3):
        make.documents(["one"])
    assert hub.count() == 1
    now += 601
    make.documents(["one"])
    assert hub.count() == 2


@pytest.mark.parametrize("way", ["environment", "api_key", "credential"])
def test_hf_shows_the_hub_its_token_so_that_private_models_are_found(
    caller: Make, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    # huggingface_hub looks the mapping up without the key it was given.
    routes = [{"provider": "hf-inference", "providerId": MINILM, "status": "live", "task": "feature-extraction"}]
    private = HubModel(providers=routes, private=True, readers=("hf_test",))
    with FakeRouter() as router, FakeHub({MINILM: private}) as hub:
        # Loopback stands for Hugging Face's own hosts here.
        for module in ("keys.credentials", "backends.hub_routes", "tasks.given_key", "keys.policy"):
            monkeypatch.setattr(
                f"hf_gateway.{module}.is_hugging_face", lambda url: url.startswith((router.url, hub.url))
            )
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        if way == "environment":
            monkeypatch.setenv("HF_TOKEN", "hf_test")
        target = Target("hf", credential="hf_test" if way == "credential" else None)
        make = caller([target], model=MINILM, api_key="hf_test" if way == "api_key" else None)
        assert make.documents(["one"]) == unit_vectors(["one"])
        assert [request.bearer for request in (*hub.requests, *router.requests)] == ["hf_test", "hf_test"]


def test_hf_bound_to_another_router_shows_the_hub_nothing(caller: Make, hosted: tuple[FakeRouter, FakeHub]) -> None:
    router, hub = hosted
    caller([hf(router)], model=MINILM).documents(["one"])
    assert [request.bearer for request in hub.requests] == [None]
    assert [request.bearer for request in router.requests] == ["hf_test"]


def test_hf_goes_on_with_hf_inference_when_the_hub_is_away(caller: Make, hosted: tuple[FakeRouter, FakeHub]) -> None:
    router, hub = hosted
    hub.always(Reply(503, {"error": "down"}))
    assert caller([hf(router)], model=MINILM).documents(["one"]) == unit_vectors(["one"])


def test_hf_bills_the_organisation_that_was_named(caller: Make, hosted: tuple[FakeRouter, FakeHub]) -> None:
    router, _ = hosted
    caller([hf(router, options={"bill_to": "my-org"})], model=MINILM).documents(["one"])
    assert router.requests[0].headers["x-hf-bill-to"] == "my-org"


@pytest.mark.parametrize("policy", ["cheapest", "fastest", "nobody"])
def test_hf_refuses_providers_that_serve_no_embeddings(policy: str) -> None:
    with pytest.raises(errors.ConfigError, match="hf-inference, deepinfra, scaleway, together"):
        Gateway(MINILM, [f"hf:{policy}"])


def test_hf_token_vectors_are_pooled_as_the_models_files_say(caller: Make, hosted: tuple[FakeRouter, FakeHub]) -> None:
    _, _hub = hosted
    with FakeRouter(nested=True) as router:
        found = caller([hf(router)], model=MINILM).documents(["one two", "three"])
        assert [len(request.json["inputs"]) for request in router.requests] == [2, 1, 1]
        nested = router.handle(router.requests[-1]).body
    tokens = nested[0] if isinstance(nested[0][0], list) else nested  # type: ignore[index]
    mean = [sum(column) / len(tokens) for column in zip(*tokens, strict=True)]  # type: ignore[arg-type]
    assert found[1] == pytest.approx(mean, abs=1e-6)


def test_hf_token_vectors_of_a_model_with_unknown_pooling_are_refused(
    caller: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = "facebook/bart-base"
    routes = [{"provider": "hf-inference", "providerId": plain, "status": "live", "task": "feature-extraction"}]
    with (
        FakeRouter(nested=True, models={plain: {"hf-inference": plain}}) as router,
        FakeHub({plain: HubModel(providers=routes)}) as hub,
    ):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(errors.BadResponse, match="how the model pools them is not known"):
            caller([hf(router)], model=plain).documents(["one"])
        declared = hf(router, space=VectorSpace(plain, pooling="cls"))
        assert len(caller([declared], model=plain).documents(["one"])[0]) > 1


def test_recorded_feature_extraction_answers_decode(recordings: Path, caller: Make) -> None:
    folder = recordings / "huggingface_hub" / "cassettes"
    for path in folder.glob("TestInferenceClient.test_feature_extraction*.yaml"):
        body = yaml.safe_load(path.read_text())["interactions"][-1]["response"]["body"]["string"]
        with FakeTEI() as server:
            server.always(Reply(200, body, {"content-type": "application/json"}))
            with pytest.raises(errors.BadResponse, match="one vector a token"):
                caller([f"endpoint:{server.url}"], model="facebook/bart-base").documents(["Hi, who are you?"])
            known = Target("endpoint", url=server.url, space=VectorSpace("facebook/bart-base", pooling="mean"))
            assert len(caller([known], model="facebook/bart-base").documents(["Hi, who are you?"])[0]) == 768


# endpoint


def test_an_endpoint_with_either_container_answers(caller: Make) -> None:
    with FakeTEI(model_id=MODEL) as tei:
        assert caller([f"endpoint:{tei.url}"]).documents(TEXTS) == unit_vectors(TEXTS)
        tei.always(Reply(200, {"embeddings": unit_vectors(["one"])}))
        assert caller([f"endpoint:{tei.url}"]).documents(["one"]) == unit_vectors(["one"])
