"""Images through the chain: how many requests they take, what is asked for, what is refused, and what is recorded."""

import logging
import traceback
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from hf_gateway import Gateway, ImageGateway, Target, errors
from hf_gateway.ledger.prices import Price, PriceEntry
from hf_gateway.values.image import GeneratedImage, file_type
from tests.servers.images import JPEG, WEBP, base64_of, image_list, png
from tests.servers.loopback import Loopback, Recorded, Reply, disconnect
from tests.servers.openai import FakeOpenAI
from tests.support.elsewhere import Elsewhere
from tests.support.embedders import chain
from tests.support.image_callers import FORMS, ImageCaller
from tests.support.late import COLLECTED
from tests.support.ledgers import kept, rows, sqlite

if COLLECTED:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from hf_gateway import telemetry
    from hf_gateway.ledger import models, store

__all__ = ["sqlite"]  # a fixture

PATH = "/v1/images/generations"
POLICY = {"error": {"message": "Your request was rejected by the safety system", "code": "content_policy_violation"}}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Toolkit(Loopback):
    """An Inference Endpoint with the inference toolkit: one image a request, as the body."""

    def handle(self, request: Recorded) -> Reply:
        if request.path == "/health":
            return Reply(200)
        body = request.json
        seed = body.get("parameters", {}).get("seed")
        return Reply(200, png(body["inputs"], seed), {"content-type": "image/png", "x-compute-time": "1.5"})


@pytest.fixture
def toolkit() -> Iterator[Toolkit]:
    with Toolkit() as server:
        yield server


def bodies(server: Loopback) -> list[Any]:
    return [request.json for request in server.requests if request.method == "POST"]


class TestRequests:
    def test_all_parameters_arrive_at_an_openai_server(self, form: str, primary: FakeOpenAI) -> None:
        call = ImageCaller(form, chain(primary))
        result = call.generate(
            "a cat", negative_prompt="a dog", width=640, height=480, steps=7, guidance_scale=3.5, seed=11
        )
        assert bodies(primary) == [
            {
                "prompt": "a cat",
                "model": "test/image-model",
                "n": 1,
                "size": "640x480",
                "response_format": "b64_json",
                "negative_prompt": "a dog",
                "num_inference_steps": 7,
                "guidance_scale": 3.5,
                "seed": 11,
            }
        ]
        assert [image.data for image in result] == [png("a cat", 11)]
        assert (result.mime, result.seed, result.usage.images) == ("image/png", 11, 1)

    def test_parameters_without_a_value_are_left_out(self, form: str, primary: FakeOpenAI) -> None:
        ImageCaller(form, chain(primary)).generate("a cat")
        assert bodies(primary) == [
            {"prompt": "a cat", "model": "test/image-model", "n": 1, "response_format": "b64_json"}
        ]

    def test_settings_are_defaults_of_calls(self, form: str, primary: FakeOpenAI) -> None:
        call = ImageCaller(form, chain(primary), negative_prompt="a dog", width=64, height=32, steps=5)
        call.generate("a cat", steps=6)
        call.generate("a cat", width=8, height=8)
        first, second = bodies(primary)
        assert (first["negative_prompt"], first["size"], first["num_inference_steps"]) == ("a dog", "64x32", 6)
        assert (second["size"], second["num_inference_steps"]) == ("8x8", 5)

    def test_several_images_without_a_seed_are_one_request_to_an_openai_server(
        self, form: str, primary: FakeOpenAI
    ) -> None:
        result = ImageCaller(form, chain(primary)).generate("a cat", n=3)
        assert len(result) == 3
        assert [body["n"] for body in bodies(primary)] == [3]
        assert result.usage.images == 3

    def test_several_images_with_a_seed_have_the_seeds_from_it_on_in_order(
        self, form: str, primary: FakeOpenAI
    ) -> None:
        result = ImageCaller(form, chain(primary)).generate("a cat", n=3, seed=5)
        assert [image.seed for image in result] == [5, 6, 7]
        assert [image.data for image in result] == [png("a cat", seed) for seed in (5, 6, 7)]
        assert [(body["n"], body["seed"]) for body in bodies(primary)] == [(1, 5), (1, 6), (1, 7)]

    def test_an_endpoint_makes_one_image_a_request_and_reports_the_seconds(self, form: str, toolkit: Toolkit) -> None:
        target = Target("endpoint", url=toolkit.url, credential="the-key")
        result = ImageCaller(form, [target]).generate("a cat", n=2, seed=1, width=16, height=8, steps=3)
        parameters = {"height": 8, "width": 16, "num_inference_steps": 3}
        assert bodies(toolkit) == [{"inputs": "a cat", "parameters": parameters | {"seed": seed}} for seed in (1, 2)]
        assert [request.headers["accept"] for request in toolkit.requests] == ["image/png"] * 2
        assert [request.bearer for request in toolkit.requests] == ["the-key"] * 2
        assert [image.data for image in result] == [png("a cat", 1), png("a cat", 2)]
        assert (result.usage.images, result.usage.seconds) == (2, 3.0)

    def test_the_next_target_makes_the_images_that_are_missing(
        self, form: str, toolkit: Toolkit, primary: FakeOpenAI
    ) -> None:
        target = Target("endpoint", url=toolkit.url)
        toolkit.fail(Reply(200, png("a cat", 1)), Reply(404))
        result = ImageCaller(form, [target, *chain(primary)]).generate("a cat", n=3, seed=1)
        assert [image.data for image in result] == [png("a cat", seed) for seed in (1, 2, 3)]
        assert result.served_by == (target.label, *chain(primary))
        assert (len(toolkit.requests), len(primary.requests)) == (2, 2)

    @pytest.mark.parametrize("path", ["", "/v1", "/v1/images/generations"])
    def test_a_url_is_completed_and_a_complete_one_is_used(self, form: str, primary: FakeOpenAI, path: str) -> None:
        call = ImageCaller(form, [f"openai:{primary.url}{path}"])
        call.generate("a cat")
        assert call.gateway.check()[0].answers
        assert [request.path for request in primary.requests] == [PATH, "/v1/models"]

    def test_a_model_that_refuses_response_format_is_asked_without_it_from_then_on(self, form: str) -> None:
        with FakeOpenAI(models=None, image_formats=()) as server:
            call = ImageCaller(form, chain(server))
            for _ in range(2):
                assert call.generate("a cat")[0].data == png("a cat")
        assert ["response_format" in body for body in bodies(server)] == [True, False, False]

    def test_jpeg_and_webp_are_told_by_their_bytes(self, form: str, primary: FakeOpenAI) -> None:
        primary.fail(Reply(200, image_list(JPEG, WEBP)))
        result = ImageCaller(form, chain(primary)).generate("a cat", n=2)
        assert [(image.mime, image.extension) for image in result] == [("image/jpeg", "jpg"), ("image/webp", "webp")]

    def test_the_tokens_of_an_answer_are_its_usage(self, form: str, primary: FakeOpenAI) -> None:
        usage = {"input_tokens": 13, "output_tokens": 4160, "total_tokens": 4173}
        primary.fail(Reply(200, image_list(png("a cat"), usage=usage)))
        result = ImageCaller(form, chain(primary)).generate("a cat")
        assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.images) == (13, 4160, 1)
        assert result.cost is None, "not reported, which is not 0"


class Files(Loopback):
    """A server of files, as providers have them for what they made."""

    def handle(self, request: Recorded) -> Reply:
        return Reply(200, png("a cat"), {"content-type": "application/octet-stream"})


@pytest.fixture
def files() -> Iterator[Files]:
    with Files() as server:
        yield server


class TestDownloads:
    def test_an_image_elsewhere_is_fetched_without_the_key(self, form: str, primary: FakeOpenAI, files: Files) -> None:
        primary.fail(Reply(200, {"data": [{"url": "https://files.test/one.png?signature=secret"}]}))
        transport = Elsewhere(files)
        call = ImageCaller(form, [Target("openai", url=primary.url, credential="the-key")], transport=transport)
        assert call.generate("a cat")[0].data == png("a cat")
        assert [request.bearer for request in primary.requests] == ["the-key"]
        assert transport.headers == [{}]
        (request,) = files.requests
        assert (request.method, request.target, request.bearer) == ("GET", "/one.png?signature=secret", None)

    def test_an_image_on_the_targets_own_server_is_fetched_with_its_key(self, form: str) -> None:
        class Own(FakeOpenAI):
            def handle(self, request: Recorded) -> Any:
                if request.path == PATH:
                    return Reply(200, {"data": [{"url": f"{self.url}/files/one.png"}]})
                return Reply(200, png("a cat")) if request.path == "/files/one.png" else super().handle(request)

        with Own(models=None) as server:
            call = ImageCaller(form, [Target("openai", url=server.url, credential="the-key")])
            assert call.generate("a cat")[0].data == png("a cat")
        assert [request.bearer for request in server.requests] == ["the-key", "the-key"]

    def test_a_data_url_is_read_as_it_is(self, form: str, primary: FakeOpenAI) -> None:
        primary.fail(Reply(200, {"data": [{"url": f"data:image/png;base64,{base64_of(png('x'))}"}]}))
        assert ImageCaller(form, chain(primary)).generate("a cat")[0].data == png("x")

    @pytest.mark.parametrize("answer", [Reply(503), Reply(500)], ids=["503", "500"])
    def test_a_download_that_failed_is_tried_once_more_without_making_the_image_again(
        self, form: str, primary: FakeOpenAI, files: Files, answer: Reply
    ) -> None:
        primary.always(Reply(200, {"data": [{"url": "https://files.test/one.png"}]}))
        files.fail(answer)
        transport = Elsewhere(files)
        assert ImageCaller(form, chain(primary), transport=transport).generate("a cat")[0].data == png("a cat")
        assert (len(primary.requests), len(files.requests)) == (1, 2)

    @pytest.mark.parametrize(
        "answer",
        [
            Reply(200, "<html>sign in</html>", {"content-type": "text/html"}),
            Reply(200, {"a": 1}),
            Reply(200, b""),
            Reply(302, b"", {"location": "http://127.0.0.2:9/elsewhere.png"}),
            Reply(200, png("x") + bytes(2 * 2**20)),
        ],
        ids=["HTML", "JSON", "nothing", "a redirect elsewhere", "too large"],
    )
    def test_what_is_there_has_to_be_an_image(
        self, form: str, primary: FakeOpenAI, files: Files, answer: Reply
    ) -> None:
        primary.always(Reply(200, {"data": [{"url": "https://files.test/one.png"}]}))
        files.always(answer)
        transport = Elsewhere(files)
        call = ImageCaller(form, chain(primary), transport=transport, max_image_bytes=2**20)
        with pytest.raises(errors.BadResponse):
            call.generate("a cat")
        assert (len(primary.requests), len(files.requests)) == (1, 1)

    @pytest.mark.parametrize(
        ("answer", "downloads"),
        [
            (Reply(429, b"", {"retry-after": "1"}), 3),
            (Reply(429, b"", {"retry-after": "3600"}), 1),
            (Reply(503), 3),
            (disconnect(), 3),
        ],
        ids=["429", "429 for an hour", "503", "no answer"],
    )
    def test_a_file_that_cannot_be_fetched_is_not_paid_for_again(
        self, form: str, primary: FakeOpenAI, files: Files, answer: Any, downloads: int
    ) -> None:
        primary.always(Reply(200, {"data": [{"url": "https://files.test/one.png"}]}))
        files.always(answer)
        with pytest.raises(errors.BadResponse, match=r"its image at https://files\.test/one\.png could not be fetched"):
            ImageCaller(form, chain(primary), transport=Elsewhere(files)).generate("a cat")
        assert (len(primary.requests), len(files.requests)) == (1, downloads)

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 451])
    def test_a_file_that_is_refused_is_the_targets_fault_and_the_next_one_serves(
        self, form: str, primary: FakeOpenAI, backup: FakeOpenAI, files: Files, status: int
    ) -> None:
        primary.always(Reply(200, {"data": [{"url": "https://files.test/one.png"}]}))
        files.always(Reply(status, {"error": {"message": "maximum context length"}}))
        result = ImageCaller(form, chain(primary, backup), transport=Elsewhere(files)).generate("a cat")
        assert result.served_by == tuple(chain(backup))
        assert (result.attempts[0].error or "").startswith("BadResponse: ")
        assert f"HTTP {status}" in (result.attempts[0].error or "")
        assert (len(primary.requests), len(files.requests)) == (1, 1)

    @pytest.mark.parametrize(
        "entry",
        [
            {"url": "https:///x"},
            {"url": "https://\u2024/x"},
            {"url": "https://files.test/a\r\nb: c"},
            {"url": "data:;base64," * 3000},
            {"b64_json": "data:;base64," * 3000},
        ],
        ids=["no host", "no name", "a line break", "nested in a URL", "nested in base64"],
    )
    def test_what_a_target_names_wrongly_is_its_own_fault_and_the_next_one_serves(
        self, form: str, primary: FakeOpenAI, backup: FakeOpenAI, entry: dict[str, str]
    ) -> None:
        primary.always(Reply(200, {"data": [entry]}))
        result = ImageCaller(form, chain(primary, backup)).generate("a cat")
        assert result.served_by == tuple(chain(backup))
        assert (result.attempts[0].error or "").startswith("BadResponse: ")

    def test_base64_may_be_broken_into_lines(self, form: str, primary: FakeOpenAI) -> None:
        text = base64_of(png("x"))
        primary.fail(Reply(200, {"data": [{"b64_json": f"{text[:40]}\r\n{text[40:]}\n"}]}))
        assert ImageCaller(form, chain(primary)).generate("a cat")[0].data == png("x")

    @pytest.mark.parametrize(
        "url",
        [
            *("http://127.0.0.2:9/a.png", "ftp://files.test/a.png", "https://files.test:port/a.png", "a.png"),
            *("OWN/a/%2e%2e/%2E./v1/models", "OWN/a/../../v1/models", "OWN/a/.%2e"),
        ],
    )
    def test_other_urls_are_not_fetched(self, form: str, primary: FakeOpenAI, url: str) -> None:
        primary.always(Reply(200, {"data": [{"url": url.replace("OWN", primary.url)}]}))
        with pytest.raises(errors.BadResponse, match="names an image"):
            ImageCaller(form, chain(primary)).generate("a cat")
        assert len(primary.requests) == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"prompt": ""}, "the prompt is empty"),
            ({"prompt": "  \n"}, "nothing but blanks"),
            ({"prompt": 7}, "is int, not a string"),
            ({"prompt": None}, "is NoneType"),
            ({"prompt": b"a cat"}, "is bytes"),
            ({"prompt": ["a cat"]}, "is list"),
            ({"prompt": "\ud800"}, "lone surrogate"),
            ({"prompt": "x" * 1_000_001}, "more than 1,000,000"),
            ({"negative_prompt": 7}, "negative_prompt is int"),
            ({"negative_prompt": "\ud800"}, "lone surrogate"),
            ({"n": 0}, "n is a whole number from 1 to 64, not 0"),
            ({"n": 65}, "not 65"),
            ({"n": True}, "not True"),
            ({"n": 1.0}, "not 1.0"),
            ({"n": b"\x89PNG"}, "not bytes"),
            ({"width": 64}, "together"),
            ({"height": 64}, "together"),
            ({"width": -1, "height": 64}, "width is a whole number"),
            ({"width": 64, "height": 20_000}, "height is a whole number"),
            ({"steps": 0}, "steps is a whole number"),
            ({"steps": "5"}, "steps is a whole number"),
            ({"seed": -1}, "seed is a whole number"),
            ({"seed": 2**63}, "seed is a whole number"),
            ({"seed": 2**63 - 1, "n": 2}, "would exceed"),
            ({"guidance_scale": float("nan")}, "guidance_scale is a number"),
            ({"guidance_scale": -0.1}, "guidance_scale is a number"),
            ({"guidance_scale": "7"}, "guidance_scale is a number"),
        ],
        ids=str,
    )
    def test_a_bad_argument_is_refused_before_anything_is_sent(
        self, form: str, primary: FakeOpenAI, given: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(errors.InvalidRequest, match=words):
            ImageCaller(form, chain(primary)).generate(**{"prompt": "a cat", **given})
        assert primary.requests == []

    @pytest.mark.parametrize(
        "setting",
        [
            {"steps": 0},
            {"steps": 1001},
            {"width": 64},
            {"height": 64},
            {"width": 20_000, "height": 64},
            {"max_image_bytes": 0},
            {"guidance_scale": -1},
            {"stepps": 3},
        ],
        ids=str,
    )
    def test_a_bad_setting_is_refused_when_the_chain_is_built(self, setting: dict[str, Any]) -> None:
        with pytest.raises(Exception, match=next(iter(setting))):
            ImageGateway("m", ["openai:http://127.0.0.1:9"], **setting)

    @pytest.mark.parametrize("name", ["n", "width", "steps", "guidance_scale", "seed"])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_number_that_python_refuses_to_write_is_not_written(
        self, form: str, primary: FakeOpenAI, name: str, sign: int
    ) -> None:
        with pytest.raises(errors.InvalidRequest, match=f"{name} is .* not a number of type int"):
            ImageCaller(form, chain(primary)).generate("a cat", **{name: sign * 10**5000})
        assert primary.requests == []

    def test_a_kind_without_images_is_refused_when_the_chain_is_built(self) -> None:
        with pytest.raises(errors.ConfigError, match="does not support image"):
            ImageGateway("m", ["tei:http://127.0.0.1:9"])

    def test_a_prompt_that_a_policy_refuses_is_not_sent_elsewhere(
        self, form: str, primary: FakeOpenAI, backup: FakeOpenAI
    ) -> None:
        primary.always(Reply(400, POLICY))
        with pytest.raises(errors.ContentFiltered, match="safety system"):
            ImageCaller(form, chain(primary, backup)).generate("a cat")
        assert (len(primary.requests), len(backup.requests)) == (1, 0)

    def test_a_prompt_that_a_policy_refuses_is_sent_elsewhere_if_that_is_set(
        self, form: str, primary: FakeOpenAI, backup: FakeOpenAI
    ) -> None:
        primary.always(Reply(400, POLICY))
        call = ImageCaller(form, chain(primary, backup), next_on_content_filter=True)
        assert call.generate("a cat").served_by == tuple(chain(backup))

    def test_an_image_above_the_limit_is_refused(self, form: str, primary: FakeOpenAI) -> None:
        primary.always(Reply(200, image_list(png("x") + bytes(2000))))
        with pytest.raises(errors.BadResponse, match="max_image_bytes"):
            ImageCaller(form, chain(primary), max_image_bytes=1000).generate("a cat")

    def test_an_answer_far_above_the_limit_is_not_read_to_its_end(self, form: str, primary: FakeOpenAI) -> None:
        primary.always(Reply(200, image_list(png("x") + bytes(4 * 2**20))))
        with pytest.raises(errors.BadResponse, match="the rest was not read"):
            ImageCaller(form, chain(primary), max_image_bytes=1000).generate("a cat")

    @pytest.mark.parametrize(
        "answer",
        [
            Reply(200, "<html>hello</html>", {"content-type": "text/html"}),
            Reply(200, {"image": "x"}),
            Reply(200, b""),
            Reply(200, b"GIF89a" + bytes(20), {"content-type": "image/gif"}),
            Reply(200, "plain text"),
        ],
        ids=["HTML", "JSON", "nothing", "GIF", "text"],
    )
    def test_an_endpoint_that_answers_without_an_image(self, form: str, toolkit: Toolkit, answer: Reply) -> None:
        toolkit.always(answer)
        with pytest.raises(errors.BadResponse, match="instead of an image"):
            ImageCaller(form, [f"endpoint:{toolkit.url}"]).generate("a cat")
        assert len(toolkit.requests) == 1

    def test_json_that_is_cut_off_is_named_so(self, form: str, primary: FakeOpenAI) -> None:
        primary.always(Reply(200, b'{"data": [', {"content-type": "application/json"}))
        with pytest.raises(errors.BadResponse, match=r"answered 200 with JSON that is cut off or invalid$"):
            ImageCaller(form, chain(primary)).generate("a cat")

    def test_an_error_in_the_json_of_a_200_is_that_error(self, form: str, toolkit: Toolkit) -> None:
        toolkit.always(Reply(200, {"error": "CUDA out of memory"}))
        with pytest.raises(errors.ServerError, match="CUDA out of memory"):
            ImageCaller(form, [f"endpoint:{toolkit.url}"], max_retries=0).generate("a cat")


MARK = "MARKED-IMAGE-BYTES"
PRIVATE = "a secret prompt of the caller"


def marked(prompt: str = "x") -> bytes:
    return png(prompt) + MARK.encode()


class TestWhatIsShown:
    def test_no_repr_has_the_bytes(self, primary: FakeOpenAI) -> None:
        primary.always(Reply(200, image_list(marked())))
        result = ImageCaller("sync", chain(primary)).generate("a cat")
        assert MARK.encode() in result[0].data
        for shown in (repr(result), str(result), f"{result[0]!r}", str(list(result))):
            assert MARK not in shown
            assert f"{len(result[0].data)} bytes" in shown

    @pytest.mark.parametrize(
        "answer",
        [
            Reply(200, marked(), {"content-type": "application/json"}),
            Reply(200, marked()[8:], {"content-type": "image/png"}),
            Reply(500, marked(), {"content-type": "image/png"}),
            Reply(400, marked()),
            Reply(200, {"data": [{"b64_json": MARK + "%%"}]}),
            Reply(200, {"data": [{"url": "data:image/png;base16," + MARK}]}),
            Reply(200, {"data": [{"b64_json": base64_of(b"GIF" + MARK.encode())}]}),
        ],
        ids=["as JSON", "cut", "500", "400", "not base64", "another encoding", "another format"],
    )
    def test_no_error_has_them(
        self, form: str, primary: FakeOpenAI, answer: Reply, caplog: pytest.LogCaptureFixture
    ) -> None:
        primary.always(answer)
        caplog.set_level(logging.DEBUG)
        with pytest.raises(errors.GatewayError) as caught:
            ImageCaller(form, chain(primary), max_retries=0).generate(PRIVATE)
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
        assert MARK not in told
        assert base64_of(MARK.encode())[:12] not in told
        assert PRIVATE not in told.replace(f'generate("{PRIVATE}")', "")

    def test_a_server_that_repeats_the_prompt_is_not_repeated(self, form: str, primary: FakeOpenAI) -> None:
        """The answer is recorded: hyperbolic's, from February 2025."""
        missing = [
            {"type": "missing", "loc": ["body", place], "msg": "Field required", "input": {"prompt": PRIVATE}}
            for place in ("height", "width")
        ]
        primary.always(Reply(422, {"detail": missing}))
        with pytest.raises(errors.InvalidRequest, match="Field required") as caught:
            ImageCaller(form, chain(primary)).generate(PRIVATE)
        assert PRIVATE not in str(caught.value)

    def test_a_fallback_is_logged_without_prompt_and_bytes(
        self, form: str, primary: FakeOpenAI, backup: FakeOpenAI, caplog: pytest.LogCaptureFixture
    ) -> None:
        primary.always(Reply(500, marked()))
        caplog.set_level(logging.DEBUG)
        ImageCaller(form, chain(primary, backup), max_retries=0).generate(PRIVATE)
        assert "made by" in caplog.text
        assert MARK not in caplog.text
        assert PRIVATE not in caplog.text


class TestRecords:
    def test_a_row_has_the_number_and_the_price_of_the_images_and_none_of_their_bytes(
        self, sqlite: str, primary: FakeOpenAI
    ) -> None:
        primary.always(Reply(200, image_list(marked(), marked("y"))))
        entry = PriceEntry("*", "text-to-image", f"openai:{primary.url}", Price(image=Decimal("0.005")))
        with store.open_ledger(sqlite) as engine:
            models.set_entry(engine, entry)
        with kept(sqlite, content=True):
            ImageCaller("sync", chain(primary)).generate(PRIVATE, n=2)
        request, attempt = rows(sqlite)
        assert (request["task"], request["texts"], request["status"]) == ("image", 2, "ok")
        assert request["cost_usd"] == attempt["cost_usd"] == Decimal("0.010")
        assert MARK not in str([request, attempt])
        assert PRIVATE in str(request)

    def test_a_row_has_no_prompt_unless_content_is_kept(self, sqlite: str, primary: FakeOpenAI) -> None:
        with kept(sqlite):
            ImageCaller("sync", chain(primary)).generate(PRIVATE)
        assert PRIVATE not in str(rows(sqlite))

    def test_a_span_has_the_operation_and_neither_prompt_nor_bytes(self, primary: FakeOpenAI) -> None:
        exporter, tracers, meters = InMemorySpanExporter(), TracerProvider(), MeterProvider()
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        telemetry.enable_otel(tracers, meters)
        try:
            primary.always(Reply(200, image_list(marked())))
            ImageCaller("sync", chain(primary)).generate(PRIVATE)
        finally:
            telemetry.disable()
            tracers.shutdown()
            meters.shutdown()
        spans = {span.name: dict(span.attributes or {}) for span in exporter.get_finished_spans()}
        assert spans["huggingface.generate"]["gen_ai.operation.name"] == "generate_content"
        assert PRIVATE not in str(spans)
        assert MARK not in str(spans)

    def test_an_observer_gets_every_result(self, form: str, primary: FakeOpenAI) -> None:
        call, seen = ImageCaller(form, chain(primary)), []
        call.gateway.observe(seen.append)
        result = call.generate("a cat")
        assert seen == [result]


class TestChain:
    def test_gateway_builds_it_by_the_name_of_the_task(self, primary: FakeOpenAI) -> None:
        gateway = Gateway("m", chain(primary), task="image", steps=3)
        assert isinstance(gateway, ImageGateway)
        assert gateway.generate("a cat")[0].data == png("a cat")
        with pytest.raises(errors.ConfigError, match="built for images"):
            gateway.embed(["text"])

    def test_the_environment_names_model_and_targets(
        self, primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_GATEWAY_IMAGE_MODEL", "the/model")
        monkeypatch.setenv("HF_GATEWAY_IMAGE_TARGETS", chain(primary)[0])
        ImageGateway().generate("a cat")
        assert bodies(primary)[0]["model"] == "the/model"

    def test_status_and_check_make_no_image(self, primary: FakeOpenAI, toolkit: Toolkit) -> None:
        gateway = ImageGateway("m", [*chain(primary), f"endpoint:{toolkit.url}"])
        assert [each.ready for each in gateway.status()] == [True, True]
        assert [each.answers for each in gateway.check()] == [True, True]
        assert [request.method for request in (*primary.requests, *toolkit.requests)] == ["GET", "GET"]

    def test_an_endpoint_that_is_down_does_not_pass_the_check(self, toolkit: Toolkit) -> None:
        toolkit.always(Reply(503, "no"))
        (check,) = ImageGateway("m", [f"endpoint:{toolkit.url}"]).check()
        assert (check.answers, check.error) == (False, "no (HTTP 503)")


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (png("x"), "image/png"),
        (JPEG, "image/jpeg"),
        (WEBP, "image/webp"),
        (b"", None),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"\x89PNG", None),
        (b"GIF89a", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
    ],
)
def test_the_type_of_an_image_is_that_of_its_first_bytes(data: bytes, mime: str | None) -> None:
    assert file_type(data) == mime


def test_an_image_is_saved_as_it_came(tmp_path: Any) -> None:
    image = GeneratedImage(JPEG, "image/jpeg")
    image.save(tmp_path / f"one.{image.extension}")
    assert (tmp_path / "one.jpg").read_bytes() == JPEG
