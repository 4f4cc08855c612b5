"""OpenTelemetry: spans and metrics of calls, read from the SDK's own exporters and over OTLP by a small receiver."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from hf_gateway import Gateway, errors, telemetry
from hf_gateway.observing import observer
from hf_gateway.telemetry import names
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED
from tests.support.ledgers import ctrl_c

if COLLECTED:
    from langchain_core.callbacks import UsageMetadataCallbackHandler
    from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import SpanKind, StatusCode

    from langchain_hf_gateway import ChatHFGateway, HFGatewayEmbeddings
    from llamaindex_hf_gateway import HFGatewayLLM


KEY = "sk-of-nobody-else-4711"
DOWN = Reply(503, b'{"error": "down"}')


class Told:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])

    @property
    def spans(self) -> "list[ReadableSpan]":
        return list(self.exporter.get_finished_spans())

    def operation(self, name: str = names.SPAN) -> "ReadableSpan":
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def attempts(self) -> "list[ReadableSpan]":
        return [span for span in self.spans if span.name == names.ATTEMPT]

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def told() -> Iterator[Told]:
    found = Told()
    telemetry.enable_otel(found.tracers, found.meters)
    yield found
    telemetry.disable()
    found.tracers.shutdown()
    found.meters.shutdown()


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as found:
        yield found


@pytest.fixture
def backup() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as found:
        yield found


class TestSpans:
    def test_an_embedding_call_has_the_fixed_name_and_the_conventions_attributes(self, told, server):
        with observer.tagged(tenant="acme"):
            result = Gateway("the/model", [f"openai:{server.url}"], chain="docs").embed(["one", "two"])
        span = told.operation("huggingface.generate")
        assert span.kind is SpanKind.CLIENT
        assert span.status.status_code is StatusCode.UNSET
        facts = dict(span.attributes)
        assert facts.pop("hf_gateway.space") == result.space.id
        assert facts.pop("gen_ai.response.model")
        assert facts == {
            "provider": "openai",
            "model_id": "the/model",
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "the/model",
            "gen_ai.usage.input_tokens": result.usage.input_tokens,
            "gen_ai.embeddings.dimension.count": result.vectors.dim,
            "hf_gateway.chain": "docs",
            "hf_gateway.tenant": "acme",
            "hf_gateway.texts": 2,
        }

    def test_a_chat_call_says_how_it_was_asked_and_how_it_ended(self, told, server):
        result = Gateway("m", [f"openai:{server.url}"], task="chat").chat(
            "Say it.", temperature=0.5, max_tokens=9, stop="END", seed=7, top_p=0.9
        )
        facts = told.operation().attributes
        assert facts["gen_ai.operation.name"] == "chat"
        assert facts["gen_ai.response.finish_reasons"] == (result.finish_reason,)
        assert (facts["gen_ai.usage.input_tokens"], facts["gen_ai.usage.output_tokens"]) == (
            result.usage.input_tokens,
            result.usage.output_tokens,
        )
        asked = {name: facts[f"gen_ai.request.{name}"] for name in ("temperature", "max_tokens", "seed", "top_p")}
        assert asked == {"temperature": 0.5, "max_tokens": 9, "seed": 7, "top_p": 0.9}
        assert facts["gen_ai.request.stop_sequences"] == ("END",)

    @pytest.mark.parametrize("form", ["blocking", "async"])
    def test_a_stream_has_the_time_to_its_first_chunk_and_is_over_when_it_is_read(self, told, server, form):
        gateway = Gateway("m", [f"openai:{server.url}"], task="chat")

        async def read() -> None:
            async for _ in gateway.astream("Say it."):
                assert not told.spans

        if form == "blocking":
            for _ in gateway.stream("Say it."):
                assert not told.spans
                assert trace.get_current_span() is trace.INVALID_SPAN
        else:
            asyncio.run(read())
        facts = told.operation().attributes
        assert facts["gen_ai.request.stream"] is True
        assert 0 < facts["gen_ai.response.time_to_first_chunk"] < 60

    def test_a_stream_that_is_left_early_ends_its_span_without_an_error(self, told, server):
        with Gateway("m", [f"openai:{server.url}"], task="chat").stream("Say it.") as stream:
            next(stream)
        span = told.operation()
        assert span.status.status_code is StatusCode.UNSET
        assert [attempt.attributes["hf_gateway.attempt.outcome"] for attempt in told.attempts()] == ["cancelled"]

    def test_a_model_in_the_process_is_internal(self, told):
        Gateway(targets=["hash"]).embed(["one"])
        assert {span.kind for span in told.spans} == {SpanKind.INTERNAL}
        assert told.operation().attributes["provider"] == "hash"

    def test_each_attempt_is_a_child_with_its_own_time(self, told, server, backup):
        server.always(DOWN)
        gateway = Gateway("m", [f"openai:{server.url}", f"openai:{backup.url}"], max_retries=1)
        gateway.embed(["one"])
        operation, attempts = told.operation(), told.attempts()
        outcomes = [
            (span.attributes["hf_gateway.attempt.number"], span.attributes["hf_gateway.attempt.outcome"])
            for span in attempts
        ]
        assert outcomes == [(1, "failed"), (2, "failed"), (3, "served")]
        assert {span.parent.span_id for span in attempts} == {operation.context.span_id}
        assert [span.attributes.get("error.type") for span in attempts] == ["Overloaded", "Overloaded", None]
        assert [span.status.status_code for span in attempts] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
        times = [time for span in attempts for time in (span.start_time, span.end_time)]
        assert times == sorted(times)
        # Two clocks are at work, one for the hour and one for how long; they agree to the microsecond.
        assert operation.start_time <= times[0] + 1000
        assert times[-1] <= operation.end_time + 1000
        assert attempts[2].attributes["server.port"] == int(backup.url.rpartition(":")[2])
        assert operation.status.status_code is StatusCode.UNSET

    def test_what_was_skipped_is_an_event(self, told, server):
        Gateway("m", ["hf", f"openai:{server.url}"]).embed(["one"])
        (event,) = told.operation().events
        assert event.name == "hf_gateway.attempt.skipped"
        assert event.attributes["error.type"] == "KeyMissing"
        assert len(told.attempts()) == 1

    def test_a_failure_is_named_by_its_class_and_quotes_no_key(self, told, server):
        server.always(Reply(401, f'{{"error": "invalid key {KEY}"}}'.encode()))
        with pytest.raises(errors.AuthenticationFailed):
            Gateway("m", [f"openai:{server.url}"], api_key=KEY).embed(["one"])
        span = told.operation()
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == "AuthenticationFailed"
        assert KEY not in str([each.to_json() for each in told.spans])

    @pytest.mark.parametrize("asked", ["", "true"], ids=["content off", "content on"])
    def test_a_server_that_quotes_the_prompt_is_quoted_only_where_content_is_asked_for(
        self, server, monkeypatch, asked
    ):
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", asked)
        secret = "the name of a patient"
        server.always(Reply(422, {"detail": f"no string: {secret}"}))
        found = Told()
        telemetry.enable_otel(found.tracers, found.meters)
        try:
            with pytest.raises(errors.GatewayError, match=secret):
                Gateway("m", [f"openai:{server.url}"], task="chat").chat(secret)
        finally:
            telemetry.disable()
        code = found.operation().attributes["error.type"]
        for span in (found.operation(), *found.attempts()):
            assert span.status.status_code is StatusCode.ERROR
            assert span.status.description.startswith(code)
            assert (span.status.description == f"{code}: HTTP 422") is not bool(asked)
        assert (secret in str([span.to_json() for span in found.spans])) is bool(asked)

    def test_a_call_that_is_interrupted_as_it_begins_ends_its_span(self, told, server):
        with ctrl_c(), pytest.raises(KeyboardInterrupt):
            Gateway("m", [f"openai:{server.url}"], task="chat").chat("Hi.")
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert told.operation().attributes["error.type"] == "KeyboardInterrupt"

    @pytest.mark.parametrize("form", ["blocking", "async", "many batches", "stream of texts"])
    def test_the_callers_span_is_the_parent(self, told, server, form):
        gateway = Gateway("m", [f"openai:{server.url}"])
        tracer = told.tracers.get_tracer("test")
        with tracer.start_as_current_span("caller") as caller:
            if form == "async":
                asyncio.run(gateway.aembed(["one"]))
            elif form == "stream of texts":
                list(gateway.embed_stream(["one"]))
            else:
                gateway.embed(["one"] if form == "blocking" else [f"text {number}" for number in range(600)])
            assert trace.get_current_span() is caller
        assert told.operation().parent.span_id == caller.get_span_context().span_id

    def test_what_is_called_meanwhile_stands_below_the_calls_span(self, told, server):
        seen: list[int] = []
        tracer = told.tracers.get_tracer("an HTTP library")

        class Below(observer.Watcher):  # a watcher that comes later begins while the span is current
            def begin(self, observation: Any) -> None:
                with tracer.start_as_current_span("POST") as span:
                    seen.append(span.parent.span_id)

            def end(self, observation: Any) -> None:
                pass

        watcher = Below()
        observer.register(watcher)
        try:
            Gateway("m", [f"openai:{server.url}"]).embed(["one"])
        finally:
            observer.unregister(watcher)
        assert seen == [told.operation().context.span_id]

    @pytest.mark.parametrize(("value", "there"), [("", False), ("true", True)])
    def test_what_was_said_is_left_out_unless_the_environment_asks_for_it(self, monkeypatch, server, value, there):
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)
        told = Told()
        telemetry.enable_otel(told.tracers, told.meters)
        try:
            Gateway("m", [f"openai:{server.url}"], task="chat").chat("of nobody's concern")
        finally:
            telemetry.disable()
        assert ("of nobody's concern" in told.operation().to_json()) is there

    def test_the_newer_names_are_used_where_they_are_asked_for(self, monkeypatch, server):
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http,gen_ai_latest_experimental")
        told = Told()
        telemetry.enable_otel(told.tracers, told.meters)
        try:
            Gateway("m", [f"openai:{server.url}"], task="chat").chat("Hi.")
            Gateway("m", [f"openai:{server.url}"]).embed(["one"])
        finally:
            telemetry.disable()
        assert {span.name for span in told.spans} == {"chat m", "embeddings m", names.ATTEMPT}
        for name in (
            "gen_ai.client.inference.duration",
            "gen_ai.client.embeddings.duration",
            "gen_ai.client.inference.operation.input_tokens",
            "gen_ai.client.inference.operation.output_tokens",
            "gen_ai.client.embeddings.operation.input_tokens",
        ):
            assert told.points(name), name
        assert not told.points("gen_ai.client.operation.duration")


class TestMetrics:
    def test_calls_are_timed_and_tokens_counted_once_a_call(self, told, server, backup):
        server.always(DOWN)
        gateway = Gateway("m", [f"openai:{server.url}", f"openai:{backup.url}"], max_retries=0)
        tokens = [gateway.embed(["one", "two"]).usage.input_tokens for _ in range(3)]
        (durations,) = told.points("gen_ai.client.operation.duration")
        assert durations.count == 3
        assert durations.explicit_bounds == names.DURATION_BUCKETS
        assert dict(durations.attributes) == {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "m",
        }
        (usage,) = told.points("gen_ai.client.token.usage")
        assert (usage.sum, usage.count) == (sum(tokens), 3)
        assert usage.explicit_bounds == names.TOKEN_BUCKETS
        assert usage.attributes["gen_ai.token.type"] == "input"

    def test_a_failed_call_is_timed_under_its_error(self, told, server):
        server.always(DOWN)
        with pytest.raises(errors.Overloaded):
            Gateway("m", [f"openai:{server.url}"], max_retries=0).embed(["one"])
        (durations,) = told.points("gen_ai.client.operation.duration")
        assert durations.attributes["error.type"] == "Overloaded"

    def test_a_stream_is_timed_to_its_first_chunk(self, told, server):
        list(Gateway("m", [f"openai:{server.url}"], task="chat").stream("Hi."))
        (point,) = told.points("gen_ai.client.operation.time_to_first_chunk")
        assert point.count == 1
        directions = {point.attributes["gen_ai.token.type"] for point in told.points("gen_ai.client.token.usage")}
        assert directions == {"input", "output"}

    def test_queries_that_share_a_request_are_calls_of_their_own_whose_tokens_count_once(self, told, server):
        gateway = Gateway("m", [f"openai:{server.url}"])

        async def ask() -> list[Any]:
            return await asyncio.gather(*(gateway.aembed([f"query {number}"], role="query") for number in range(20)))

        results = asyncio.run(ask())
        assert len([span for span in told.spans if span.name == names.SPAN]) == 20
        assert len(told.attempts()) == len(server.requests) < 20
        points = told.points("gen_ai.client.token.usage")
        assert sum(point.sum for point in points) == sum(result.usage.input_tokens for result in results)


class TestOverTheWire:
    def test_spans_arrive_over_otlp(self, server):
        received: list[ExportTraceServiceRequest] = []

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                received.append(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
            thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            provider = TracerProvider()
            endpoint = f"http://127.0.0.1:{receiver.server_port}/v1/traces"
            provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint)))
            telemetry.enable_otel(provider, MeterProvider())
            try:
                Gateway("m", [f"openai:{server.url}"]).embed(["one"])
            finally:
                telemetry.disable()
                provider.shutdown()
                receiver.shutdown()
                thread.join()
        spans = {
            span.name: span
            for request in received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }
        assert set(spans) == {"huggingface.generate", "hf_gateway.attempt"}
        assert spans["hf_gateway.attempt"].parent_span_id == spans["huggingface.generate"].span_id
        facts = {each.key: each.value.string_value for each in spans["huggingface.generate"].attributes}
        assert facts["model_id"] == "m"


class TestBesideTheFrameworksOwn:
    def test_langchain_llamaindex_and_the_span_have_the_same_numbers(self, told, server):
        target = [f"openai:{server.url}"]
        heard = UsageMetadataCallbackHandler()
        ChatHFGateway(model="m", targets=target).invoke("Count me.", config={"callbacks": [heard]})
        (usage,) = heard.usage_metadata.values()
        (span,) = (each for each in told.spans if each.name == names.SPAN)
        assert (usage["input_tokens"], usage["output_tokens"]) == (
            span.attributes["gen_ai.usage.input_tokens"],
            span.attributes["gen_ai.usage.output_tokens"],
        )
        told.exporter.clear()
        counter = TokenCountingHandler(tokenizer=str.split)
        HFGatewayLLM(model="m", targets=target, callback_manager=CallbackManager([counter])).complete("Count me.")
        (event,) = counter.llm_token_counts
        assert event.total_token_count > 0
        assert len([each for each in told.spans if each.name == names.SPAN]) == 1

    def test_the_langchain_class_traces_its_error_by_our_name(self, told, server):
        server.always(DOWN)
        with pytest.raises(errors.Overloaded):
            HFGatewayEmbeddings(model="m", targets=[f"openai:{server.url}"], max_retries=0).embed_query("one")
        assert told.operation().attributes["error.type"] == "Overloaded"


class TestSwitches:
    def test_off_means_that_nothing_is_imported_or_made(self):
        script = (
            "import sys\n"
            "from hf_gateway import Gateway, observe\n"
            "Gateway(targets=['hash']).embed(['one'])\n"
            "assert not observe.watchers\n"
            "theirs = ('opentelemetry', 'prometheus_client', 'sqlalchemy')\n"
            "assert not [name for name in sys.modules if name.split('.')[0] in theirs]\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)

    def test_the_environment_switches_it_on(self):
        script = (
            "from opentelemetry import trace\n"
            "from opentelemetry.sdk.trace import TracerProvider\n"
            "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
            "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
            "exporter = InMemorySpanExporter()\n"
            "provider = TracerProvider()\n"
            "provider.add_span_processor(SimpleSpanProcessor(exporter))\n"
            "trace.set_tracer_provider(provider)\n"
            "from hf_gateway import Gateway\n"
            "Gateway(targets=['hash']).embed(['one'])\n"
            "print([span.name for span in exporter.get_finished_spans()])\n"
        )
        environment = {"HF_GATEWAY_OTEL": "1", "HF_GATEWAY_CHECK_SPACE": "0"}
        told = subprocess.run(
            [sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True, env=environment
        )
        assert told.stdout.strip() == "['hf_gateway.attempt', 'huggingface.generate']"

    def test_a_missing_package_is_named_with_the_way_to_install_it(self):
        script = (
            "import sys\n"
            "sys.modules['opentelemetry'] = None\n"
            "from hf_gateway import errors, telemetry\n"
            "try:\n"
            "    telemetry.enable_otel()\n"
            "except errors.ConfigError as error:\n"
            "    print(error)\n"
        )
        told = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)
        assert "pip install 'hf-gateway[otel]'" in told.stdout


def test_a_name_that_no_encoding_has_does_not_take_a_batch_of_spans_with_it(told: Told) -> None:
    """Half of a surrogate pair comes out of JSON; an exporter that cannot write one text sends none of its batch."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    with observer.tagged(tenant="te\ud83dnant"), Gateway("half\ud83d", targets=["hash:8"]) as gateway:
        gateway.embed(["a text"])
    assert encode_spans(told.spans).SerializeToString()
    assert told.operation().attributes[names.REQUEST_MODEL] == "half?"
    assert told.operation().attributes[names.TENANT] == "te?nant"
    for name in ("gen_ai.client.operation.duration", "gen_ai.client.token.usage"):
        for point in told.points(name):
            "".join(str(value) for value in point.attributes.values()).encode()
