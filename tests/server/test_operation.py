"""Health, readiness, version, metrics, the OpenAPI document, and the process itself."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.support.gateway_server import HASH_CHAIN, START_S, RunningServer, ServerProcess, gateway_server
from tests.support.server_keys import bearer, make_key

FOUND_BY_UVICORN = """
from fastapi import FastAPI
from uvicorn.importer import import_from_string

app = import_from_string("hf_gateway.server:app")
print(isinstance(app, FastAPI), [chain.name for chain in app.state.gateway.chains])
"""


@pytest.mark.parametrize("path", ["/livez", "/health", "/healthz"])
def test_a_process_that_lives_says_ok(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.text) == (200, "ok")
    assert client.head(path).status_code == 200


def test_readiness_is_one_word(server: RunningServer, client: httpx.Client) -> None:
    assert (client.get("/readyz").status_code, client.get("/readyz").text) == (200, "ready")
    server.state.unready["database"] = "postgresql://user:secret@db/x does not answer"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "unready")
    assert client.get("/livez").status_code == 200


def test_what_does_not_work_as_it_is_set_is_for_who_may_read(server: RunningServer, client: httpx.Client) -> None:
    server.state.notes["limits"] = "Redis does not answer"
    told = "ready\nnote: limits, see /admin/status"
    assert client.get("/readyz").text == told, "without keys everybody may read"
    reader, other = (make_key(server.state.database.url, scopes={scope}) for scope in ("read", "embed"))
    server.state.authenticator.check_keys()
    assert client.get("/readyz", headers=bearer(reader)).text == told
    for headers in ({}, bearer(other), bearer("hfg_wrong"), {**bearer(reader), "x-api-key": other}):
        answer = client.get("/readyz", headers=headers)
        assert (answer.status_code, answer.text) == (200, "ready")


def test_each_answer_has_an_id_of_its_own(client: httpx.Client) -> None:
    ids = {client.get(path).headers["x-request-id"] for path in ("/livez", "/livez", "/nowhere", "/v1/models")}
    assert len(ids) == 4


def test_the_version_is_the_packages(client: httpx.Client) -> None:
    from hf_gateway import __version__

    assert client.get("/version").json() == {"name": "hf-gateway", "version": __version__}


def test_metrics_are_in_prometheus_format(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "# HELP python_info" in answer.text


def test_the_document_lists_every_route(client: httpx.Client) -> None:
    from hf_gateway.server.application import ROUTES

    document = client.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    listed = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert listed == {(route.method, route.path.replace(":path}", "}")) for route in ROUTES}
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


def test_a_proxys_root_path_is_in_the_document_and_cut_from_paths() -> None:
    with gateway_server(root_path="/ai") as running, running.client() as client:
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/ai"}]
        assert client.get("/ai/livez").text == "ok"
        assert client.get("/livez").text == "ok"


def test_headers_that_are_too_large_are_refused(client: httpx.Client) -> None:
    answer = client.get("/livez", headers={"x-filling": "x" * 40_000})
    assert answer.status_code == 431


def test_a_body_that_is_too_large_is_refused_with_and_without_its_length() -> None:
    with gateway_server(max_body_bytes=1000) as running, running.client() as client:
        body = json.dumps({"input": "x" * 2000}).encode()
        for content in (body, iter([body[:600], body[600:]])):
            answer = client.post("/v1/embeddings", content=content)
            assert answer.status_code == 413
            assert "1,000 bytes" in answer.json()["error"]["message"]
        assert client.post("/v1/embeddings", json={"input": "short"}).status_code == 200


def test_a_fault_of_the_program_shows_its_id_alone(server: RunningServer, client: httpx.Client) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret words")

    server.state.chains.find = fail  # type: ignore[method-assign, assignment]
    answer = client.post("/v1/embeddings", json={"input": "x"})
    assert answer.status_code == 500
    assert "secret words" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]


def test_a_process_prints_its_address_and_ends_with_sigterm() -> None:
    with ServerProcess() as process, process.client() as client:
        assert client.get("/readyz").text == "ready"
        vectors = client.post("/v1/embeddings", json={"input": ["a", "b"]}).json()["data"]
        assert [len(each["embedding"]) for each in vectors] == [64, 64]
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert "docs (embedding: docs)" in process.log
    assert "Traceback" not in process.log


def test_a_server_without_any_configuration_serves_the_model_in_this_process() -> None:
    with ServerProcess(None) as process, process.client() as client:
        (found,) = client.get("/v1/models").json()["data"]
        assert (found["id"], found["model"]) == ("default", "sentence-transformers/all-MiniLM-L6-v2")


@pytest.mark.parametrize("first", ["", "import hf_gateway.server.application, hf_gateway.server.process"])
def test_any_asgi_server_finds_the_application_whatever_was_imported_before(first: str) -> None:
    Path("hf-gateway.toml").write_text(HASH_CHAIN, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-c", f"{first}\n{FOUND_BY_UVICORN}"], capture_output=True, text=True, check=False
    )
    assert (run.stdout.split(), run.returncode) == (["True", "['docs']"], 0), run.stderr


def test_workers_share_the_port_and_warn_of_models_that_each_loads() -> None:
    config = '[chains.here]\ntargets = ["local:sentence-transformers/all-MiniLM-L6-v2"]\n'
    with ServerProcess(config, "--workers", "2") as process, process.client() as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "here"
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert "2 workers load the models of here 2 times" in process.log
    assert "2 workers limit callers each by itself" in process.log


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--addr", "8080"), "--addr is [HOST]:PORT"),
        (("--addr", ":8080", "--port", "9"), "give --addr, or --host and --port"),
        (("--workers", "0"), "workers: Input should be greater than or equal to 1"),
        (("--root-path", "ai"), "root_path begins with a slash"),
    ],
)
def test_a_wrong_flag_is_wrong_usage(flags: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    from hf_gateway.cli import main

    assert main(["serve", *flags]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", ["--addr {host}:{port}", "--addr :{port}", "--host {host} --port {port}", "--port {port}"]
)
def test_a_port_that_is_taken_is_wrong_usage_that_names_another_way(
    flags: str, server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    from hf_gateway.cli import main

    address = server.url.removeprefix("http://")
    host, _, port = address.partition(":")
    assert main(["serve", *flags.format(host=host, port=port).split()]) == 2
    written = capsys.readouterr().err
    assert f"cannot listen at {address}: " in written
    assert "give another --port (0 for a free one)" in written


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed"])
def test_an_error_shows_no_address_of_a_target_not_even_what_its_name_resolves_to(host: str, path: str) -> None:
    with socket.socket() as taken:
        # Bound, and not listening: whoever connects is refused.
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        chain = f'[chains.docs]\nmodel = "owner/model"\ntargets = ["openai:http://{host}:{port}"]\nmax_retries = 0\n'
        with gateway_server(chain) as running, running.client() as client:
            answer = client.post(path, json={"input": "a", "inputs": "a"})
    assert answer.status_code == 502
    assert "no connection to openai:owner/model" in answer.text
    assert [part for part in (host, "127.0.0.1", "::1", port) if part in answer.text] == []


def value_of(metrics: str, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    from prometheus_client.parser import text_string_to_metric_families

    return sum(
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_requests_are_counted_by_route_and_never_by_what_a_caller_wrote(client: httpx.Client) -> None:
    for path in ("/v1/models/secret-name", "/secret-path", "/livez"):
        client.get(path)
    client.post("/v1/embeddings", json={"input": "x"})
    text = client.get("/metrics").text
    assert "secret" not in text
    counted = "hf_gateway_server_requests_total"
    assert value_of(text, counted, route="/v1/models/{id:path}", status="404", surface="openai") == 1
    assert value_of(text, counted, route="none", status="404") == 1
    assert value_of(text, counted, route="/v1/embeddings", status="200") == 1
    assert value_of(text, "hf_gateway_server_request_seconds_count", route="/livez") == 1
    assert value_of(text, "hf_gateway_server_requests_under_way") == 1  # the one that asks


def test_calls_of_the_gateways_are_in_the_same_metrics() -> None:
    with ServerProcess() as process, process.client() as client:
        client.post("/v1/embeddings", json={"input": ["a", "b"]})
        text = client.get("/metrics").text
    assert value_of(text, "hf_gateway_calls_total", task="embedding", outcome="ok") == 1
    assert value_of(text, "cmp_hf_inference_latency_seconds_count") == 1


def test_the_counts_of_several_workers_are_added_up() -> None:
    """litellm #10595, #14929: each worker showed its own counts."""
    with ServerProcess(HASH_CHAIN, "--workers", "2") as process:
        for _ in range(20):
            with process.client() as client:  # a connection each, which either worker may accept
                assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 200
        counted: list[float] = []
        # A worker counts a request right after its answer, when another one may be asked for the counts already.
        deadline = time.monotonic() + START_S
        while counted[-4:] != [20.0] * 4:
            assert time.monotonic() < deadline, counted[-10:]
            with process.client() as client:
                text = client.get("/metrics").text
            counted.append(value_of(text, "hf_gateway_server_requests_total", route="/v1/embeddings"))
        assert max(counted) == 20
        assert value_of(text, "hf_gateway_calls_total", task="embedding") == 20
