"""Images by Inference Providers: each provider's form, its jobs and files, and the same image as huggingface_hub's client."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from hf_gateway import ImageGateway, Target, errors
from hf_gateway.wire.provider_images import FORMS
from tests.conftest import RECORDINGS
from tests.servers.image_router import TOKEN, FakeImageRouter
from tests.servers.images import base64_of, png
from tests.servers.loopback import Loopback, Recorded, Reply, disconnect, html
from tests.servers.router import FakeHub, HubModel
from tests.support.elsewhere import HOST, Elsewhere
from tests.support.image_callers import FORMS as CALLS
from tests.support.image_callers import ImageCaller
from tests.support.late import COLLECTED

if COLLECTED:
    import huggingface_hub.inference._providers as providers
    from huggingface_hub import InferenceClient, constants
    from huggingface_hub.hf_api import InferenceProviderMapping
    from huggingface_hub.inference._providers import _common, hf_inference, wavespeed, zai_org
    from PIL import Image

MODEL = "test/image-model"
OWN = {provider: MODEL if provider == "hf-inference" else f"{provider}/own-name" for provider in FORMS}
"""The model's name at each provider."""
JOBS = ("replicate", "wavespeed", "zai-org")
"""Providers that answer with a job."""
CALL: dict[str, Any] = {
    "negative_prompt": "a dog",
    "width": 64,
    "height": 32,
    "steps": 4,
    "guidance_scale": 3.5,
    "seed": 7,
}


def routes(*names: str, status: str = "live", task: str = "text-to-image") -> HubModel:
    return HubModel(
        providers=[{"provider": name, "providerId": OWN[name], "status": status, "task": task} for name in names],
        pipeline_tag="text-to-image",
        library_name="diffusers",
    )


@pytest.fixture(params=CALLS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=FORMS)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub that lists all providers for the model."""
    with FakeHub(models={MODEL: routes(*FORMS)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def router() -> Iterator[FakeImageRouter]:
    with FakeImageRouter() as server:
        yield server


def target(router: Loopback, provider: str | None = None, **options: Any) -> Target:
    return Target("hf", url=router.url, provider=provider, credential=TOKEN, options=options)


class TestForms:
    def test_a_provider_makes_the_image(self, form: str, provider: str, hub: FakeHub, router: FakeImageRouter) -> None:
        call = ImageCaller(form, [target(router, provider)])
        result = call.generate("a cat", seed=7)
        assert result[0].data == png("a cat", 7)
        assert (result.seed, result.mime, result.usage.images) == (7, "image/png", 1)
        assert len(router.orders) == 1
        assert {request.bearer for request in router.requests} == {TOKEN}
        assert call.clock.waited == ([0.5, 0.75] if provider in JOBS[1:] else [0.5] if provider == "replicate" else [])

    def test_the_seconds_of_computing_are_its_usage_where_the_provider_reports_them(
        self, provider: str, hub: FakeHub, router: FakeImageRouter
    ) -> None:
        result = ImageCaller("sync", [target(router, provider)]).generate("a cat")
        reported = {"hf-inference": 5.457, "fal-ai": 0.75, "replicate": 1.25, "wavespeed": 2.5}
        assert result.usage.seconds == reported.get(provider)

    def test_several_images_are_several_requests_with_the_seeds_in_order(
        self, form: str, provider: str, hub: FakeHub, router: FakeImageRouter
    ) -> None:
        result = ImageCaller(form, [target(router, provider)]).generate("a cat", n=3, seed=1)
        assert [image.data for image in result] == [png("a cat", seed) for seed in (1, 2, 3)]
        assert [image.seed for image in result] == [1, 2, 3]
        assert len(router.orders) == 3

    def test_a_seed_that_the_provider_chose_is_reported(self, hub: FakeHub, router: FakeImageRouter) -> None:
        assert ImageCaller("sync", [target(router, "fal-ai")]).generate("a cat").seed == 4711

    def test_the_first_live_provider_of_the_hubs_list_is_asked(
        self, form: str, hub: FakeHub, router: FakeImageRouter
    ) -> None:
        hub.models = {MODEL: routes("together", "fal-ai")}
        result = ImageCaller(form, [target(router)]).generate("a cat")
        assert [request.path for request in router.orders] == ["/together/v1/images/generations"]
        assert result.attempts[-1].outcome == "served"

    def test_the_organisation_that_pays_is_named(self, hub: FakeHub, router: FakeImageRouter) -> None:
        ImageCaller("sync", [target(router, "together", bill_to="acme")]).generate("a cat")
        assert [request.headers.get("x-hf-bill-to") for request in router.orders] == ["acme"]

    def test_a_lora_adapter_of_the_model_is_named(self, hub: FakeHub, router: FakeImageRouter) -> None:
        entry = {
            "provider": "fal-ai",
            "providerId": "fal-ai/flux-lora",
            "status": "live",
            "task": "text-to-image",
            "adapterWeightsPath": "lora.safetensors",
        }
        hub.models = {MODEL: HubModel(providers=[entry])}
        ImageCaller("sync", [target(router)]).generate("a cat")
        (lora,) = router.orders[0].json["loras"]
        assert lora["path"].endswith(f"/{MODEL}/resolve/main/lora.safetensors")

    def test_without_the_hub_the_model_is_asked_for_at_hf_inference(
        self, form: str, router: FakeImageRouter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert ImageCaller(form, [target(router)]).generate("a cat")[0].data == png("a cat")
        assert [request.path for request in router.orders] == [f"/hf-inference/models/{MODEL}"]

    def test_every_provider_of_huggingface_hub_for_images_is_known(self) -> None:
        assert set(FORMS) == {name for name, tasks in providers.PROVIDERS.items() if "text-to-image" in tasks}


class TestBesideHuggingFaceHub:
    """The same request, and the same image, as huggingface_hub's `InferenceClient` in the installed version."""

    @pytest.mark.parametrize("given", [{}, CALL], ids=["prompt alone", "all parameters"])
    def test_the_request_and_the_image_are_those_of_its_client(
        self,
        provider: str,
        hub: FakeHub,
        router: FakeImageRouter,
        monkeypatch: pytest.MonkeyPatch,
        given: dict[str, Any],
    ) -> None:
        result = ImageCaller("sync", [target(router, provider)]).generate("a cat", **given)
        (ours,) = router.orders
        router.requests.clear()
        router.asked = router.pending  # huggingface_hub does not wait for replicate
        self._lead_to(router, monkeypatch, provider)
        names = {"steps": "num_inference_steps"}
        client = InferenceClient(provider=provider, api_key=TOKEN)
        theirs = client.text_to_image(
            "a cat", model=MODEL, **{names.get(name, name): value for name, value in given.items()}
        )
        (order,) = router.orders
        assert (ours.path, ours.json) == (order.path, order.json)
        assert ours.headers.get("prefer") == order.headers.get("prefer")
        assert ours.bearer == order.bearer
        with Image.open(io.BytesIO(result[0].data)) as image:
            assert image.tobytes() == theirs.tobytes()

    def _lead_to(self, router: FakeImageRouter, patch: pytest.MonkeyPatch, provider: str) -> None:
        """Lead huggingface_hub to the router on loopback, and answer for the Hub."""
        mapping = InferenceProviderMapping(
            provider=provider, hf_model_id=MODEL, providerId=OWN[provider], status="live", task="text-to-image"
        )
        patch.setattr(constants, "INFERENCE_PROXY_TEMPLATE", router.url + "/{provider}")
        patch.setattr(_common, "_fetch_inference_provider_mapping", lambda _: [mapping])
        patch.setattr(hf_inference, "_check_supported_task", lambda *_: None)
        patch.setattr(providers.PROVIDERS["hf-inference"]["text-to-image"], "base_url", f"{router.url}/hf-inference")
        for module in (wavespeed, zai_org):
            patch.setattr(module, "_POLLING_INTERVAL", 0)


class TestFiles:
    @pytest.mark.parametrize("name", ["fal-ai", *JOBS])
    def test_files_are_fetched_over_https_without_the_key(self, form: str, name: str, hub: FakeHub) -> None:
        with FakeImageRouter(files=HOST) as router:
            transport = Elsewhere(router)
            result = ImageCaller(form, [target(router, name)], transport=transport).generate("a cat", seed=3)
            assert result[0].data == png("a cat", 3)
            assert transport.headers == [{}]
            (file,) = (request for request in router.requests if request.path.startswith("/files/"))
            assert "authorization" not in file.headers

    @pytest.mark.parametrize("name", ["fal-ai", *JOBS])
    def test_a_file_that_is_a_page_is_a_bad_response_and_is_not_ordered_again(
        self, form: str, name: str, hub: FakeHub, router: FakeImageRouter
    ) -> None:
        router.always(html(200), path="/files/0.png")
        with pytest.raises(errors.BadResponse, match="an HTML page instead of an image"):
            ImageCaller(form, [target(router, name)]).generate("a cat")
        assert len(router.orders) == 1


class TestJobs:
    @pytest.mark.parametrize("name", JOBS)
    def test_a_job_is_asked_for_until_it_is_done_with_growing_pauses(self, form: str, name: str, hub: FakeHub) -> None:
        with FakeImageRouter(pending=8) as router:
            call = ImageCaller(form, [target(router, name)])
            assert call.generate("a cat")[0].data == png("a cat")
        assert len(router.orders) == 1
        assert call.clock.waited[:3] == [0.5, 0.75, 1.125]
        assert call.clock.waited[-1] == 4.0

    @pytest.mark.parametrize("name", JOBS)
    def test_a_job_that_takes_longer_than_an_attempt_may_is_given_up(self, form: str, name: str, hub: FakeHub) -> None:
        with FakeImageRouter(pending=10_000) as router:
            call = ImageCaller(form, [target(router, name)], attempt_timeout=20)
            with pytest.raises(errors.AttemptTimedOut, match="not done in the time"):
                call.generate("a cat")
        assert len(router.orders) == 1
        assert sum(call.clock.waited) < 20

    @pytest.mark.parametrize("name", JOBS)
    @pytest.mark.parametrize("answer", [Reply(503), Reply(429), Reply(500), disconnect()], ids=str)
    def test_a_question_that_fails_is_asked_again_and_nothing_is_ordered_twice(
        self, form: str, name: str, hub: FakeHub, router: FakeImageRouter, answer: Any
    ) -> None:
        place = {
            "replicate": "/replicate/v1/predictions/job-1",
            "wavespeed": "/wavespeed/api/v3/predictions/job-1/result",
            "zai-org": "/zai-org/api/paas/v4/async-result/job-1",
        }[name]
        router.fail(answer, path=place)
        assert ImageCaller(form, [target(router, name)]).generate("a cat")[0].data == png("a cat")
        assert len(router.orders) == 1

    @pytest.mark.parametrize("answer", [Reply(503), Reply(429), disconnect()], ids=str)
    def test_a_job_that_cannot_be_asked_for_is_not_ordered_again(
        self, form: str, hub: FakeHub, router: FakeImageRouter, answer: Any
    ) -> None:
        router.always(answer, path="/replicate/v1/predictions/job-1")
        with pytest.raises(errors.BadResponse, match="its job could not be asked for"):
            ImageCaller(form, [target(router, "replicate")]).generate("a cat")
        assert len(router.orders) == 1

    @pytest.mark.parametrize("name", JOBS)
    def test_a_job_that_fails_is_a_failure_of_the_server(self, form: str, name: str, hub: FakeHub) -> None:
        with FakeImageRouter(failed="the GPU fell over") as router:
            with pytest.raises(errors.ServerError, match="the GPU fell over"):
                ImageCaller(form, [target(router, name)], max_retries=0).generate("a cat")
            assert len(router.orders) == 1

    @pytest.mark.parametrize("name", JOBS)
    def test_a_job_that_fails_for_its_content_is_not_tried_again(self, form: str, name: str, hub: FakeHub) -> None:
        with FakeImageRouter(failed="NSFW content detected. Try another prompt.") as router:
            with pytest.raises(errors.ContentFiltered, match="NSFW content detected"):
                ImageCaller(form, [target(router, name), "openai:http://127.0.0.1:9"]).generate("a cat")
            assert len(router.orders) == 1

    @pytest.mark.parametrize("name", ["fal-ai", "wavespeed"])
    def test_an_image_that_a_safety_checker_withheld_is_none(self, form: str, name: str, hub: FakeHub) -> None:
        with FakeImageRouter(nsfw=True) as router:
            with pytest.raises(errors.ContentFiltered, match="safety checker"):
                ImageCaller(form, [target(router, name)]).generate("a cat")
            assert len(router.orders) == 1

    def test_a_queue_of_fal_is_waited_for(self, form: str, hub: FakeHub) -> None:
        class Queue(FakeImageRouter):
            def handle(self, request: Recorded) -> Reply:
                if request.path.endswith("/status"):
                    return Reply(200, {"status": "COMPLETED" if self._done() else "IN_PROGRESS", **job})
                if request.method == "GET" and "/requests/" in request.path:
                    return Reply(200, {"images": [{"url": f"data:image/png;base64,{base64_of(png('a cat'))}"}]})
                return Reply(200, {"status": "IN_QUEUE", **job})

        job = {"request_id": "job-1", "response_url": "https://queue.fal.run/fal-ai/own-name/requests/job-1"}
        with Queue(pending=2) as router:
            result = ImageCaller(form, [target(router, "fal-ai")]).generate("a cat")
        assert result[0].data == png("a cat")
        root = "/fal-ai/fal-ai/own-name/requests/job-1"
        assert [request.path for request in router.requests[1:]] == [*[f"{root}/status"] * 3, root]

    @pytest.mark.parametrize(
        "url",
        [
            *(None, "", 7, "https://evil.test/../../secret", "https://evil.test/a b", "not a url", "https://x:port:y"),
            *(
                f"https://evil.test/{dots}/api/whoami-v2"
                for dots in ("%2e%2e", ".%2E", "a%2F..", "%5c..", "%252e%252e", ".")
            ),
        ],
        ids=str,
    )
    def test_a_job_that_names_no_place_is_a_bad_response(self, hub: FakeHub, router: FakeImageRouter, url: Any) -> None:
        router.always(Reply(201, {"status": "processing", "output": None, "urls": {"get": url}}))
        with pytest.raises(errors.BadResponse):
            ImageCaller("sync", [target(router, "replicate")]).generate("a cat")
        assert len(router.requests) == 1

    def test_a_question_has_the_headers_of_its_provider_and_the_payer(
        self, hub: FakeHub, router: FakeImageRouter
    ) -> None:
        ImageCaller("sync", [target(router, "zai-org", bill_to="acme")]).generate("a cat")
        asked = [request for request in router.requests if "/async-result/" in request.path]
        assert {(each.headers["x-source-channel"], each.headers["x-hf-bill-to"]) for each in asked} == {
            ("hugging_face", "acme")
        }

    def test_questions_go_to_the_router_whatever_host_the_job_names(
        self, hub: FakeHub, router: FakeImageRouter
    ) -> None:
        ImageCaller("sync", [target(router, "replicate")]).generate("a cat")
        assert "/replicate/v1/predictions/job-1" in [request.path for request in router.requests]


class TestBadAnswers:
    @pytest.mark.parametrize(
        ("name", "answer"),
        [
            (name, answer)
            for name in FORMS
            for answer in (html(200), Reply(200, b""), Reply(200, {}), Reply(200, []), Reply(200, b"GIF89a......"))
        ],
        ids=lambda value: value if isinstance(value, str) else str(value.body)[:12],
    )
    def test_what_is_no_image_is_a_bad_response(
        self, form: str, name: str, answer: Reply, hub: FakeHub, router: FakeImageRouter
    ) -> None:
        router.always(answer)
        with pytest.raises(errors.BadResponse):
            ImageCaller(form, [target(router, name)]).generate("a cat")
        assert len(router.orders) == 1

    @pytest.mark.parametrize("name", ["together", "nscale"])
    @pytest.mark.parametrize("entries", [[], [{"b64_json": "%%"}], [{"b64_json": None}], [{}, {}], "x", [7]], ids=str)
    def test_another_number_of_images_or_no_base64(
        self, name: str, entries: Any, hub: FakeHub, router: FakeImageRouter
    ) -> None:
        router.always(Reply(200, {"data": entries}))
        with pytest.raises(errors.BadResponse):
            ImageCaller("sync", [target(router, name)]).generate("a cat")

    def test_a_token_that_is_refused_is_that_error(
        self, form: str, provider: str, hub: FakeHub, router: FakeImageRouter
    ) -> None:
        refused = Target("hf", url=router.url, provider=provider, credential="hf_other")
        with pytest.raises(errors.AuthenticationFailed):
            ImageCaller(form, [refused]).generate("a cat")
        assert len(router.orders) == 1


class TestChoice:
    @pytest.mark.parametrize(
        ("model", "words"),
        [
            (routes(), "the Hub lists no provider"),
            (routes("fal-ai", status="staging"), "staging"),
            (routes("fal-ai", task="image-to-image"), "image-to-image"),
        ],
        ids=["none", "staging", "another task"],
    )
    def test_a_model_without_a_provider_is_not_found(
        self, form: str, hub: FakeHub, router: FakeImageRouter, model: HubModel, words: str
    ) -> None:
        hub.models = {MODEL: model}
        with pytest.raises(errors.ModelNotFound, match=words):
            ImageCaller(form, [target(router)]).generate("a cat")
        assert router.orders == []

    @pytest.mark.parametrize("name", ["cheapest", "groq", "scaleway"])
    def test_a_provider_without_images_is_refused_when_the_chain_is_built(self, name: str) -> None:
        with pytest.raises(errors.ConfigError, match="together"):
            ImageGateway(MODEL, [f"hf:{name}"])

    def test_a_missing_key_is_told_before_anything_is_sent(self, hub: FakeHub, router: FakeImageRouter) -> None:
        gateway = ImageGateway(MODEL, [Target("hf", url=router.url)])
        assert "Inference Providers answer only with a token" in gateway.status()[0].key_reason
        with pytest.raises(errors.KeyMissing):
            gateway.generate("a cat")
        assert router.requests == []

    def test_check_asks_the_hub_and_makes_no_image(self, hub: FakeHub, router: FakeImageRouter) -> None:
        (check,) = ImageGateway(MODEL, [target(router)]).check()
        assert check.answers
        assert "served by fal-ai" in check.report.detail
        assert router.requests == []


def recorded_image() -> bytes:
    """Return the JPEG that hf-inference answered with in February 2025."""
    path = (
        RECORDINGS
        / "huggingface_hub/cassettes/TestInferenceClient.test_text_to_image_default[hf-inference,text-to-image].yaml"
    )
    if not path.is_file():
        pytest.skip("no recordings here")
    with path.open(encoding="utf-8") as file:
        interactions = yaml.load(file, yaml.CSafeLoader)["interactions"]
    body = interactions[-1]["response"]["body"]["string"]
    return body if isinstance(body, bytes) else base64.b64decode(body)


def test_the_recorded_answer_of_hf_inference_is_read(form: str, hub: FakeHub, router: FakeImageRouter) -> None:
    image = recorded_image()
    headers = {
        "content-type": "image/jpeg",
        "x-compute-time": "5.457",
        "x-compute-type": "cache",
        "x-request-id": "Root=1",
    }
    router.always(Reply(200, image, headers))
    result = ImageCaller(form, [target(router, "hf-inference")]).generate("An astronaut riding a horse on the moon.")
    assert (result[0].data, result.mime) == (image, "image/jpeg")
    assert result.usage.seconds == 5.457
    with Image.open(io.BytesIO(result[0].data)) as opened:
        assert opened.format == "JPEG"
