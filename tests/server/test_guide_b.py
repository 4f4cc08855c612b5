"""POST and OPTIONS /functions/v1/huggingface-inference: the function of the guide for inference with costs."""

import base64
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from hf_gateway import Gateway
from tests.servers.chat import script
from tests.servers.image_router import FakeImageRouter
from tests.servers.images import png
from tests.servers.labels import FakeToolkit, label_list
from tests.servers.loopback import Hang, Loopback, Reply
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeRouter, loading, rate_limited
from tests.support.gateway_server import HASH_CHAIN, ServerProcess, chat_chain, gateway_server
from tests.support.ledgers import rows
from tests.support.server_keys import bearer, make_key

URL = "/functions/v1/huggingface-inference"
IMAGE = png("a cat")
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def hosted(router: Loopback, model: str = MINILM, task: str = "embedding", credential: str = "hf_test") -> str:
    """Return the configuration of a chain over the router of Inference Providers."""
    target = f'{{ kind = "hf", url = "{router.url}", provider = "hf-inference", credential = "{credential}" }}'
    return f'[chains.hosted]\ntask = "{task}"\nmodel = "{model}"\nmax_retries = 0\ntargets = [{target}]\n'


def prompt(**fields: Any) -> dict[str, Any]:
    """Return a body that asks for a text."""
    return {"modelId": "owner/model", "task": "text-generation", "inputs": "Say something", **fields}


def text(**fields: Any) -> dict[str, Any]:
    """Return a body that asks for a vector."""
    return {"modelId": "docs", "task": "feature-extraction", "inputs": "a text", **fields}


def refused(answer: httpx.Response, status: int) -> str:
    """Check the form of a failure; returns its words."""
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert set(found) == {"success", "error"}
    assert found["success"] is False
    words: str = found["error"]
    return words


def test_text_generation_has_a_generated_text(primary: FakeOpenAI) -> None:
    primary.brain = script("Hello there.")
    with gateway_server(chat_chain(primary.url)) as server, server.client() as client:
        answer = client.post(URL, json=prompt(parameters={"max_tokens": 7, "temperature": 0.2}))
    found = answer.json()
    assert set(found) == {"success", "result", "cost_credits", "latency_ms"}
    assert found["success"] is True
    assert found["result"] == [{"generated_text": "Hello there."}]
    assert answer.headers["x-hf-gateway-served-by"] == "openai:owner/model"
    sent = primary.requests[0].json
    assert (sent["max_tokens"], sent["temperature"]) == (7, 0.2)
    assert sent["messages"] == [{"role": "user", "content": "Say something"}]


def test_feature_extraction_is_a_vector_or_one_for_each_text(client: httpx.Client) -> None:
    with Gateway(targets=["hash:64"]) as gateway:
        expected = gateway.embed(["a text", "another"]).vectors.tolist()
    assert client.post(URL, json=text()).json()["result"] == expected[0]
    assert client.post(URL, json=text(inputs=["a text", "another"])).json()["result"] == expected


def test_text_to_image_is_a_data_url() -> None:
    with FakeImageRouter() as router:
        with gateway_server(hosted(router, "owner/draw", "image")) as server, server.client() as client:
            body = {"modelId": "owner/draw", "task": "text-to-image", "inputs": "a cat"}
            parameters = {"num_inference_steps": 4, "guidance_scale": 2.5, "seed": 3}
            answer = client.post(URL, json=body | {"parameters": parameters})
        assert answer.status_code == 200, answer.text
        sent = router.orders[0].json["parameters"]
    kind, _, data = answer.json()["result"]["image"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data, validate=True) == png("a cat", 3)
    assert (sent["num_inference_steps"], sent["guidance_scale"]) == (4, 2.5)


@pytest.mark.parametrize("before", ["", "data:image/png;base64,"], ids=["base64", "data URL"])
def test_image_classification_takes_base64_or_a_data_url(before: str) -> None:
    with FakeToolkit("image-classification") as fake:
        config = f'[chains.see]\ntask = "classification"\nmodel = "owner/see"\ntargets = ["endpoint:{fake.url}"]\n'
        with gateway_server(config) as server, server.client() as client:
            body = {"modelId": "owner/see", "task": "image-classification"}
            answer = client.post(URL, json=body | {"inputs": before + base64.b64encode(IMAGE).decode()})
    expected = label_list(IMAGE)
    assert [each["label"] for each in answer.json()["result"]] == [each["label"] for each in expected]


def test_an_image_is_never_fetched() -> None:
    with FakeToolkit("image-classification") as fake, FakeOpenAI(models=None) as elsewhere:
        config = f'[chains.see]\ntask = "classification"\nmodel = "owner/see"\ntargets = ["endpoint:{fake.url}"]\n'
        with gateway_server(config) as server, server.client() as client:
            body = {"modelId": "owner/see", "task": "image-classification", "inputs": f"{elsewhere.url}/cat.png"}
            answer = client.post(URL, json=body)
        assert not elsewhere.requests
        assert not [request for request in fake.requests if request.method == "POST"]
    assert "nothing is fetched" in refused(answer, 400)


def test_the_cost_is_the_price_of_the_tokens(primary: FakeOpenAI) -> None:
    prices = f'[prices."owner/model"]\nprovider = "openai:{primary.url}"\ninput = 1000\noutput = 2000\n'
    with gateway_server(chat_chain(primary.url) + prices) as server, server.client() as client:
        found = client.post(URL, json=prompt()).json()
        usage = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Say something"}]})
    tokens = usage.json()["usage"]
    assert found["cost_credits"] == (tokens["prompt_tokens"] + 2 * tokens["completion_tokens"]) / 1000 > 0
    assert isinstance(found["latency_ms"], int)
    assert found["latency_ms"] >= 0


def test_what_runs_on_ones_own_machine_costs_nothing(client: httpx.Client) -> None:
    assert client.post(URL, json=text()).json()["cost_credits"] == 0


def test_an_unknown_price_is_null_and_not_nothing() -> None:
    with (
        FakeRouter(models={"owner/new": {"hf-inference": "owner/new"}}) as router,
        gateway_server(hosted(router, "owner/new")) as server,
        server.client() as client,
    ):
        answer = client.post(URL, json=text(modelId="owner/new"))
    assert answer.json()["success"] is True
    assert answer.json()["cost_credits"] is None


@pytest.mark.parametrize("field", ["modelId", "task", "inputs"])
def test_a_missing_field_is_named(client: httpx.Client, field: str) -> None:
    body = text()
    del body[field]
    assert field in refused(client.post(URL, json=body), 400)


def test_an_unknown_task_is_answered_with_those_there_are(client: httpx.Client) -> None:
    words = refused(client.post(URL, json=text(task="text-to-speech")), 400)
    for name in ("text-generation", "feature-extraction", "text-to-image", "image-classification"):
        assert name in words


def test_an_unknown_model_is_404_with_the_nearest_name(client: httpx.Client) -> None:
    assert "docs" in refused(client.post(URL, json=text(modelId="dosc")), 404)


def test_an_invalid_parameter_is_400(primary: FakeOpenAI) -> None:
    with gateway_server(chat_chain(primary.url)) as server, server.client() as client:
        words = refused(client.post(URL, json=prompt(parameters={"max_tokens": -1})), 400)
    assert "max_tokens" in words
    assert not primary.requests


def failing(fault: Reply, more: str = "") -> httpx.Response:
    """Call a model on a router that answers every request with a fault; `more` are lines of the chain."""
    with FakeRouter() as router:
        router.always(fault)
        with gateway_server(hosted(router) + more) as server, server.client() as client:
            answer = client.post(URL, json=text(modelId=MINILM))
        assert router.requests
        assert router.url.removeprefix("http://") not in answer.text
        return answer


def test_a_rate_limit_has_the_guides_words() -> None:
    answer = failing(rate_limited("7"))
    assert refused(answer, 429) == "HuggingFace rate limit exceeded. Please try again later."
    assert answer.headers["retry-after"] == "7"


def test_a_model_that_loads_has_the_guides_words() -> None:
    answer = failing(loading(), "timeout = 0.5\n")
    assert refused(answer, 503) == "Model is loading. Please try again in a few seconds."


def test_a_refused_key_is_401_and_names_the_variable() -> None:
    words = refused(failing(Reply(401, {"error": "Invalid username or password."})), 401)
    assert "refused" in words
    assert "HUGGINGFACE_API_KEY" in words
    assert "hf_test" not in words


def test_a_missing_key_is_401_and_names_the_variable() -> None:
    config = f'[chains.hosted]\nmodel = "{MINILM}"\ntargets = ["hf:hf-inference"]\n'
    with gateway_server(config) as server, server.client() as client:
        words = refused(client.post(URL, json=text(modelId=MINILM)), 401)
    assert "has no key" in words
    assert "HUGGINGFACE_API_KEY" in words


def test_a_network_error_says_to_retry() -> None:
    with FakeOpenAI(models=None) as gone:
        pass
    with gateway_server(chat_chain(gone.url)) as server, server.client() as client:
        words = refused(client.post(URL, json=prompt()), 502)
    assert "try again" in words
    assert gone.url.removeprefix("http://") not in words


def test_a_server_that_does_not_answer_in_time_says_to_retry(primary: FakeOpenAI) -> None:
    primary.always(Hang())
    with gateway_server(chat_chain(primary.url, more="timeout = 0.5")) as server, server.client() as client:
        assert "try again" in refused(client.post(URL, json=prompt()), 504)


def test_another_failure_carries_its_status(primary: FakeOpenAI) -> None:
    primary.always(Reply(400, {"error": {"message": "max_tokens is too large", "type": "invalid_request_error"}}))
    with gateway_server(chat_chain(primary.url)) as server, server.client() as client:
        assert "max_tokens is too large" in refused(client.post(URL, json=prompt()), 400)


def test_apikey_is_no_credential_and_does_no_harm_beside_one() -> None:
    url = f"sqlite:///{Path.cwd() / 'keys.sqlite'}"
    key = make_key(url)
    narrow = make_key(url, scopes=("chat",))
    with gateway_server(HASH_CHAIN + f'[server]\ndatabase = "{url}"\n') as server, server.client() as client:
        refused(client.post(URL, json=text(), headers={"apikey": key}), 401)
        both = client.post(URL, json=text(), headers={**bearer(key), "apikey": "anon", "x-client-info": "supabase-js"})
        words = refused(client.post(URL, json=text(), headers=bearer(narrow)), 403)
    assert both.json()["success"] is True
    assert "embed" in words


def test_a_listed_page_may_call_it() -> None:
    config = HASH_CHAIN + '[server]\ncors_origins = ["https://app.example.org"]\n'
    wanted = "authorization, x-client-info, apikey, content-type"
    asked = {"access-control-request-method": "POST", "access-control-request-headers": wanted}
    with gateway_server(config) as server, server.client() as client:
        answer = client.options(URL, headers={"origin": "https://app.example.org", **asked})
        called = client.post(URL, json=text(), headers={"origin": "https://app.example.org"})
        foreign = client.options(URL, headers={"origin": "https://elsewhere.example.org", **asked})
    assert answer.status_code == 204
    allowed = {name.strip() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert allowed >= {"authorization", "apikey", "x-client-info", "content-type"}
    assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
    assert called.headers["access-control-allow-origin"] == "https://app.example.org"
    refused(foreign, 403)


def test_options_names_methods_and_headers(client: httpx.Client) -> None:
    answer = client.options(URL)
    assert answer.status_code == 204
    assert answer.headers["allow"] == "POST, OPTIONS"
    assert answer.headers["access-control-allow-headers"] == "authorization, apikey, x-client-info, content-type"


def test_each_call_is_a_row_with_its_provider_and_cost() -> None:
    url = f"sqlite:///{Path.cwd() / 'calls.sqlite'}"
    price = f'[prices."{MINILM}"]\ntask = "embedding"\nprovider = "hf-inference"\nper_second = 0.01\n'
    with FakeRouter() as router:
        config = hosted(router) + price + f'[server]\ndatabase = "{url}"\n'
        with ServerProcess(config) as process, process.client() as client:
            answer = client.post(URL, json=text(modelId=MINILM))
            router.always(rate_limited())
            failed = client.post(URL, json=text(modelId=MINILM, inputs="another"))
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
    assert failed.status_code == 429
    first, second = rows(url, kind="request")
    assert first["http_request_id"] == answer.headers["x-request-id"]
    assert (first["target_kind"], first["provider"], first["status"]) == ("hf", "hf-inference", "ok")
    assert first["cost_usd"] > 0
    assert float(first["cost_usd"]) == answer.json()["cost_credits"]
    assert (second["status"], second["http_status"], second["cost_usd"]) == ("failed", 429, 0)
