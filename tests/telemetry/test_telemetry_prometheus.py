"""Prometheus: what is counted, read the way Prometheus reads it."""

import asyncio
import gc
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors, ledger, telemetry
from hf_gateway.runtime.effects import Send
from hf_gateway.testing import Answering, ManualClock
from hf_gateway.values.http import HttpResponse
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI
from tests.support.databases import a_ledger
from tests.support.late import COLLECTED
from tests.support.ledgers import ctrl_c, drained, kept, rows, waiting

if COLLECTED:
    import prometheus_client
    from prometheus_client.parser import text_string_to_metric_families

    from hf_gateway.ledger import store
    from hf_gateway.telemetry.prometheus import MAX_LABEL_VALUES, OTHER, Metrics


DOWN = Reply(503, b'{"error": "down"}')


class Everywhere(Answering):
    """Answers whatever the host is."""

    def __init__(self) -> None:
        super().__init__({})

    def send(self, send: Send, **named: Any) -> HttpResponse:
        self.requests.append(send.request.url)
        body = json.dumps([[1.0, 2.0]]).encode()
        return HttpResponse(200, {"content-type": "application/json"}, body)


class Scrape:
    """The metrics of a registry, served on loopback and read by prometheus_client's own parser."""

    def __init__(self, metrics: "Metrics") -> None:
        self.metrics = metrics

    def __call__(self, name: str, **labels: str) -> float | None:
        server, thread = prometheus_client.start_http_server(0, "127.0.0.1", self.metrics.registry)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as response:
                text = response.read().decode()
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
        found = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.labels.items() >= labels.items()
        ]
        return sum(found) if found else None


@pytest.fixture
def scrape() -> Iterator[Scrape]:
    yield Scrape(telemetry.enable_prometheus(prometheus_client.CollectorRegistry()))
    telemetry.disable()


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as found:
        yield found


@pytest.fixture
def backup() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as found:
        yield found


def test_the_two_fixed_names_are_there_as_they_are_written(scrape, server):
    gateway = Gateway("m", [f"openai:{server.url}"], max_retries=0)
    gateway.embed(["one"])
    server.always(DOWN)
    with pytest.raises(errors.Overloaded):
        gateway.embed(["one"])
    assert scrape("cmp_hf_inference_latency_seconds_count", model="m") == 2
    assert scrape("cmp_hf_inference_latency_seconds_bucket", model="m", le="+Inf") == 2
    assert scrape("cmp_hf_inference_errors_total", code="Overloaded") == 1


def test_attempts_and_fallbacks_are_counted_by_target(scrape, server, backup):
    server.always(DOWN)
    first, second = f"openai:{server.url}", f"openai:{backup.url}"
    Gateway("m", [first, second], max_retries=1).embed(["one"])
    assert scrape("hf_gateway_attempts_total", target=first, outcome="failed") == 2
    assert scrape("hf_gateway_attempts_total", target=second, outcome="served") == 1
    assert scrape("hf_gateway_fallbacks_total", target=second) == 1
    assert scrape("hf_gateway_fallbacks_total", target=first) is None
    assert scrape("cmp_hf_inference_errors_total") is None


def test_tokens_are_counted_by_direction_and_those_nobody_counted_are_said_to_be_unknown(scrape, server):
    result = Gateway("m", [f"openai:{server.url}"], task="chat").chat("Count me.")
    assert scrape("hf_gateway_tokens_total", model="m", direction="input") == result.usage.input_tokens
    assert scrape("hf_gateway_tokens_total", model="m", direction="output") == result.usage.output_tokens
    assert scrape("hf_gateway_tokens_unknown_total") is None
    server.always(Reply(200, {"data": [{"index": 0, "embedding": [1.0, 2.0]}]}))
    Gateway("silent", [f"openai:{server.url}"]).embed(["one"])
    assert scrape("hf_gateway_tokens_unknown_total", model="silent") == 1
    assert scrape("hf_gateway_tokens_total", model="silent") is None


def test_cache_hits_and_misses_are_counted(scrape, server, tmp_path):
    gateway = Gateway("m", [f"openai:{server.url}"], cache=tmp_path / "vectors.sqlite")
    gateway.embed(["one", "two"])
    gateway.embed(["one", "two", "three", "three"])
    gateway.close()
    assert scrape("hf_gateway_cache_texts_total", result="hit") == 2
    assert scrape("hf_gateway_cache_texts_total", result="miss") == 3


def test_a_breaker_shows_its_state_for_as_long_as_its_gateway_lives(scrape, server):
    gc.collect()  # gateways of earlier tests in this process, of whose targets only so many are shown
    target, clock = f"openai:{server.url}", ManualClock()
    gateway = Gateway("m", [target], max_retries=0, clock=clock)
    gateway.embed(["one"])
    assert scrape("hf_gateway_breaker_state", target=target, state="closed") == 1
    server.always(DOWN)
    for _ in range(3):
        with pytest.raises(errors.Overloaded):
            gateway.embed(["one"])
    assert scrape("hf_gateway_breaker_state", target=target, state="open") == 1
    assert scrape("hf_gateway_breaker_state", target=target, state="closed") == 0
    clock.advance(60)
    assert scrape("hf_gateway_breaker_state", target=target, state="half-open") == 1


def test_of_too_many_targets_those_with_an_open_breaker_are_shown(scrape, server):
    others = [Gateway("m", [f"openai:http://127.0.0.1:1/{number}"]) for number in range(120)]
    target = f"openai:{server.url}/z"
    gateway = Gateway("m", [target], max_retries=0)
    server.always(DOWN)
    for _ in range(3):
        with pytest.raises(errors.Overloaded):
            gateway.embed(["one"])
    assert len(others) == 120
    assert scrape("hf_gateway_breaker_state", target=target, state="open") == 1


def test_calls_under_way_go_up_and_down_also_when_they_fail(scrape, server):
    gateway = Gateway("m", [f"openai:{server.url}"], task="chat", max_retries=0)
    with gateway.stream("Hi.") as stream:
        next(stream)
        assert scrape("hf_gateway_calls_under_way", task="chat") == 1
    assert scrape("hf_gateway_calls_under_way", task="chat") == 0
    assert scrape("hf_gateway_calls_total", task="chat", outcome="cancelled") == 1
    server.always(DOWN)
    with pytest.raises(errors.Overloaded):
        gateway.chat("Hi.")
    assert scrape("hf_gateway_calls_under_way", task="chat") == 0


def test_a_call_that_is_interrupted_as_it_begins_is_under_way_no_more(scrape, server):
    with ctrl_c(), pytest.raises(KeyboardInterrupt):
        Gateway("m", [f"openai:{server.url}"], task="chat").chat("Hi.")
    assert scrape("hf_gateway_calls_under_way", task="chat") == 0
    assert scrape("hf_gateway_calls_total", task="chat", outcome="cancelled") == 1


def test_a_label_has_a_bounded_number_of_values(scrape, server):
    for number in range(MAX_LABEL_VALUES + 20):
        Gateway(f"model-{number}", [f"openai:{server.url}"]).embed(["one"])
    assert scrape("cmp_hf_inference_latency_seconds_count") == MAX_LABEL_VALUES + 20
    assert scrape("cmp_hf_inference_latency_seconds_count", model=OTHER) == 20


def test_an_error_code_is_a_class_of_ours_however_it_was_raised(scrape, server):
    server.always(Reply(200, b"<html>"))
    with pytest.raises(errors.BadResponse):
        Gateway("m", [f"openai:{server.url}"]).embed(["one"])
    assert scrape("cmp_hf_inference_errors_total", code="BadResponse") == 1


def test_costs_and_the_queue_come_from_the_ledger(scrape, server, tmp_path):
    book, _away = ledger.enable(f"sqlite:///{tmp_path}/ledger.sqlite"), "endpoint:https://x.endpoints.huggingface.cloud"
    try:
        Gateway("m", [f"openai:{server.url}"]).embed(["one"])
        Gateway(
            "elsewhere",
            ["endpoint:https://x.endpoints.huggingface.cloud"],
            transport=Everywhere(),
            api_key="hf_nobodys",
        ).embed(["one"])
        assert scrape("hf_gateway_ledger_queue_depth") in (0, 1, 2)
        assert book.flush()
        assert scrape("hf_gateway_ledger_queue_depth") == 0
        assert scrape("hf_gateway_ledger_dropped_total") == 0
    finally:
        ledger.disable()
    # One's own server costs nothing, and nobody said what the endpoint costs.
    assert scrape("hf_gateway_cost_usd_total", model="m") == 0
    assert scrape("hf_gateway_cost_unknown_total", model="elsewhere") == 1
    scrape.metrics.record_cost("acme", "m", Decimal("0.25"))
    scrape.metrics.record_cost("acme", "m", Decimal("0.5"))
    assert scrape("hf_gateway_cost_usd_total", model="m", provider="acme") == 0.75


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_cost_is_counted_once_though_the_database_was_slow_and_the_call_was_handed_over_twice(
    scrape, server, tmp_path, monkeypatch, kind
):
    choice = {"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}
    server.always(Reply(200, {"choices": [choice], "usage": {"cost": 0.25}}))
    go_on, insert_new = threading.Event(), store.insert_new

    def slow(*arguments: Any) -> Any:
        assert go_on.wait(30)
        return insert_new(*arguments)

    monkeypatch.setattr(store, "insert_new", slow)
    with a_ledger(kind, tmp_path) as url, kept(url) as book:
        assert book.flush()
        gateway = Gateway("m", [f"openai:{server.url}"], task="chat")
        for number in range(1, 4):
            gateway.chat("Hi.")
            drained(book)
            assert len(waiting(url)) == number
        go_on.set()
        assert book.flush()
        assert len(rows(url, kind="attempt")) == 3
    assert scrape("hf_gateway_cost_usd_total", model="m") == 0.75


def test_async_calls_and_threads_add_up(scrape, server):
    gateway = Gateway("m", [f"openai:{server.url}"])

    async def ask() -> list[Any]:
        return await asyncio.gather(*(gateway.aembed([f"query {number}"]) for number in range(30)))

    results = asyncio.run(ask())
    assert scrape("hf_gateway_calls_total", task="embedding", outcome="ok") == 30
    tokens = sum(result.usage.input_tokens for result in results)
    assert scrape("hf_gateway_tokens_total", model="m") == tokens
    assert scrape("hf_gateway_attempts_total", outcome="served") == len(server.requests)


def test_the_environment_switches_it_on_and_a_missing_package_is_named():
    script = (
        "import prometheus_client\n"
        "from hf_gateway import Gateway\n"
        "Gateway(targets=['hash']).embed(['one'])\n"
        "print(prometheus_client.generate_latest().decode())\n"
    )
    environment = {"HF_GATEWAY_PROMETHEUS": "1", "HF_GATEWAY_CHECK_SPACE": "0"}
    told = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True, env=environment
    )
    assert 'cmp_hf_inference_latency_seconds_count{model=""} 1.0' in told.stdout
    script = f"import sys\nsys.modules['prometheus_client'] = None\n{script.partition(chr(10))[2]}"
    told = subprocess.run(
        [sys.executable, "-c", script], check=False, timeout=60, capture_output=True, text=True, env=environment
    )
    assert "pip install 'hf-gateway[prometheus]'" in told.stderr


def test_a_name_that_no_encoding_has_does_not_take_the_other_metrics_with_it(scrape: Scrape) -> None:
    """Half of a surrogate pair comes out of JSON, and the whole answer to Prometheus is one text."""
    with Gateway("half\ud83d", targets=["hash:8"]) as gateway, Gateway("whole", targets=["hash:8"]) as other:
        gateway.embed(["a text"])
        other.embed(["a text"])
        scrape.metrics.record_cost("pro\udc00vider", "half\ud83d", None)
        assert scrape("hf_gateway_calls_total", outcome="ok") == 2
        assert scrape("cmp_hf_inference_latency_seconds_count", model="half?") == 1
        assert scrape("cmp_hf_inference_latency_seconds_count", model="whole") == 1
        assert scrape("hf_gateway_cost_unknown_total", provider="pro?vider", model="half?") == 1
        assert scrape("hf_gateway_breaker_state") is not None


def test_nor_does_the_name_of_a_target(scrape: Scrape, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeOpenAI() as server:
        server.fallback = DOWN
        target = Target("openai", "half\ud83d", server.url)
        with Gateway(targets=[target], task="chat", max_retries=0) as gateway:
            with pytest.raises(errors.GatewayError):
                gateway.chat("a text")
            assert scrape("hf_gateway_attempts_total") == 1
            assert scrape("hf_gateway_breaker_state") is not None
