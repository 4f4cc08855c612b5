"""What each kind of target sends to be told labels, and reads of the answer."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from hf_gateway import ClassifyGateway, Target, errors
from hf_gateway.values.http import HttpResponse
from hf_gateway.values.labels import ClassifyRequest
from hf_gateway.values.secret import Secret
from hf_gateway.wire.hf_classification import decode_labels, encode_hosted, model_url
from tests.conftest import RECORDINGS
from tests.servers.images import JPEG, png
from tests.servers.labels import NLI, FakeToolkit, expected, label_list, paired
from tests.servers.loopback import Normal, Reply
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeHub, FakeRouter, HubModel
from tests.servers.tei import FakeTEI
from tests.support.classifiers import FORMS, MODEL, Classifier, same

TEXTS, ZERO_SHOT, IMAGES = "text-classification", "zero-shot-classification", "image-classification"
MODELS = {f"test/{pipeline}": pipeline for pipeline in (TEXTS, ZERO_SHOT, IMAGES)}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeRouter, FakeHub]]:
    """A router and a Hub with one model for each of the three pipelines."""
    listed = {
        name: HubModel(
            providers=[{"provider": "hf-inference", "providerId": name, "status": "live", "task": pipeline}],
            pipeline_tag=pipeline,
        )
        for name, pipeline in MODELS.items()
    }
    with FakeRouter(classifiers=MODELS) as router, FakeHub(listed) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield router, hub


def hf(router: FakeRouter, **fields: Any) -> Target:
    return Target("hf", url=router.url, credential=Secret("hf_test"), **fields)


class TestHosted:
    def test_texts_go_one_by_one_in_the_documented_form(self, form: str, hosted: tuple[FakeRouter, FakeHub]) -> None:
        router, hub = hosted
        result = Classifier(form, [hf(router)], model=f"test/{TEXTS}")(["one", "two", "three"])
        assert all(same(labels, expected(text)) for text, labels in zip(("one", "two", "three"), result, strict=True))
        assert [request.json for request in router.requests] == [
            {"inputs": text, "parameters": {}} for text in ("one", "two", "three")
        ]
        assert {request.path for request in router.requests} == {f"/hf-inference/models/test/{TEXTS}"}
        assert {request.bearer for request in router.requests} == {"hf_test"}
        assert hub.count() == 1
        assert (result.usage.documents, result.usage.input_tokens) == (3, None)

    def test_top_k_and_truncation_are_parameters(self, form: str, hosted: tuple[FakeRouter, FakeHub]) -> None:
        router, _ = hosted
        result = Classifier(form, [hf(router)], model=f"test/{TEXTS}", truncate=True)(["one"], top_k=2)
        assert same(result[0], expected("one")[:2])
        assert router.requests[0].json["parameters"] == {"top_k": 2, "truncation": True}

    def test_labels_of_the_caller_go_to_the_pipeline_for_them(
        self, form: str, hosted: tuple[FakeRouter, FakeHub]
    ) -> None:
        router, _ = hosted
        classify = Classifier(form, [hf(router, options={"bill_to": "my-team"})], model=f"test/{ZERO_SHOT}")
        result = classify(["one"], ["a", "b", "c"], hypothesis_template="It is {}.")
        answer = paired("one", ["a", "b", "c"], "It is {}.")
        assert same(result[0], list(zip(answer["labels"], answer["scores"], strict=True)))
        assert router.requests[0].json == {
            "inputs": "one",
            "parameters": {
                "candidate_labels": ["a", "b", "c"],
                "multi_label": False,
                "hypothesis_template": "It is {}.",
            },
        }
        assert router.requests[0].headers["x-hf-bill-to"] == "my-team"

    def test_images_go_as_bytes_or_with_parameters_in_base64(
        self, form: str, hosted: tuple[FakeRouter, FakeHub]
    ) -> None:
        router, _ = hosted
        images = [png("a"), JPEG]
        classify = Classifier(form, [hf(router)], model=f"test/{IMAGES}")
        result = classify(images)
        assert all(same(labels, expected(image)) for image, labels in zip(images, result, strict=True))
        assert [(request.headers["content-type"], request.body) for request in router.requests] == [
            ("image/png", images[0]),
            ("image/jpeg", images[1]),
        ]
        assert (result.usage.images, result.usage.documents) == (2, 0)
        assert same(classify(images[:1], top_k=1)[0], expected(images[0])[:1])
        assert router.requests[-1].json == {
            "inputs": base64.b64encode(images[0]).decode(),
            "parameters": {"top_k": 1},
        }

    def test_an_image_that_is_too_large_for_the_server_is_named(
        self, form: str, hosted: tuple[FakeRouter, FakeHub]
    ) -> None:
        router, _ = hosted
        router.fail(Normal(), Reply(413, "length limit exceeded"))
        with pytest.raises(errors.ContextOverflow, match="input 1 of 3: too large for this target") as caught:
            Classifier(form, [hf(router)], model=f"test/{IMAGES}")([png("a"), png("b"), JPEG])
        assert caught.value.place == 1
        assert router.count() == 2

    def test_a_model_of_another_pipeline_is_not_called(self, form: str, hosted: tuple[FakeRouter, FakeHub]) -> None:
        router, _ = hosted
        for model, inputs, labels in (
            (TEXTS, ["a"], ["x", "y"]),
            (TEXTS, [png("a")], None),
            (IMAGES, ["a"], None),
            (ZERO_SHOT, ["a"], None),
        ):
            with pytest.raises(errors.ModelNotFound, match=rf"the Hub lists hf-inference \({model}, live\)"):
                Classifier(form, [hf(router)], model=f"test/{model}")(inputs, labels)
        assert router.requests == []

    def test_a_router_whose_hub_is_away_is_called_nevertheless(
        self, form: str, hosted: tuple[FakeRouter, FakeHub]
    ) -> None:
        router, hub = hosted
        hub.always(Reply(503, {"error": "away"}))
        assert len(Classifier(form, [hf(router)], model=f"test/{TEXTS}")(["a"])) == 1

    def test_providers_and_policies_that_do_not_classify_are_refused_when_the_chain_is_built(self) -> None:
        for provider in ("cheapest", "together"):
            with pytest.raises(errors.ConfigError, match="hf-inference"):
                ClassifyGateway(MODEL, [f"hf:{provider}"])
        with pytest.raises(errors.ConfigError, match="needs a model"):
            ClassifyGateway(targets=["hf"])

    def test_a_missing_key_is_named_and_nothing_is_sent(self, form: str, hosted: tuple[FakeRouter, FakeHub]) -> None:
        router, _ = hosted
        with pytest.raises(errors.KeyMissing, match="a required key is missing"):
            Classifier(form, [Target("hf", url=router.url)], model=f"test/{TEXTS}")(["a"])
        assert router.requests == []

    def test_check_asks_the_hub_alone(self, hosted: tuple[FakeRouter, FakeHub]) -> None:
        router, _ = hosted
        (checked,) = ClassifyGateway(f"test/{ZERO_SHOT}", [hf(router)]).check()
        assert checked.answers
        assert f"served by hf-inference ({ZERO_SHOT})" in checked.report.detail
        assert router.requests == []


class TestEndpoint:
    def test_with_the_toolkit_gets_one_text_in_a_request(self, form: str) -> None:
        with FakeToolkit(token="hf_test") as server:
            target = Target("endpoint", url=server.url, credential=Secret("hf_test"))
            result = Classifier(form, [target])(["one", "two"])
            assert all(same(labels, expected(text)) for text, labels in zip(("one", "two"), result, strict=True))
            assert [(request.method, request.path) for request in server.requests] == [
                ("GET", "/info"),
                ("POST", "/"),
                ("POST", "/"),
            ]
            assert server.requests[1].json["inputs"] == "one"

    def test_with_the_toolkit_gets_a_pair_as_its_pipeline_takes_it(self, form: str) -> None:
        with FakeToolkit() as server:
            result = Classifier(form, [f"endpoint:{server.url}"])([("one", "two"), ("three", "four")])
            assert all(map(same, result, [expected("one\ntwo"), expected("three\nfour")]))
            assert server.requests[1].json["inputs"] == {"text": "one", "text_pair": "two"}

    def test_with_tei_labels_pairs(self, form: str) -> None:
        with FakeTEI(model_type="classifier", model_id=MODEL) as server:
            result = Classifier(form, [f"endpoint:{server.url}"])([("one", "two")])
        assert same(result[0], expected("one\ntwo"))

    def test_with_the_toolkit_takes_labels_of_the_caller(self, form: str) -> None:
        with FakeToolkit(ZERO_SHOT) as server:
            result = Classifier(form, [f"endpoint:{server.url}"])(["one"], ["a", "b"])
        answer = paired("one", ["a", "b"])
        assert same(result[0], list(zip(answer["labels"], answer["scores"], strict=True)))

    def test_with_the_toolkit_gets_an_image_as_bytes_with_parameters_in_the_query(self, form: str) -> None:
        with FakeToolkit(IMAGES) as server:
            classify = Classifier(form, [f"endpoint:{server.url}"])
            assert same(classify([JPEG])[0], expected(JPEG))
            assert same(classify([JPEG], top_k=1)[0], expected(JPEG)[:1])
            assert server.requests[-1].query == {"top_k": ["1"]}

    def test_with_the_toolkit_refuses_or_truncates_a_long_text(self, form: str) -> None:
        long = "word " * 100
        with FakeToolkit() as server:
            with pytest.raises(errors.ContextOverflow):
                Classifier(form, [f"endpoint:{server.url}"])([long])
            assert len(Classifier(form, [f"endpoint:{server.url}"], truncate=True)([long])) == 1

    def test_with_tei_is_asked_by_its_own_route(self, form: str) -> None:
        with FakeTEI(model_type="classifier", model_id=MODEL, max_client_batch_size=2) as server:
            result = Classifier(form, [f"endpoint:{server.url}"])(["one", "two", "three"])
            sent = [request.json["inputs"] for request in server.requests if request.path == "/predict"]
        assert sent == [[["one"], ["two"]], [["three"]]]
        assert same(result[1], expected("two"))

    def test_with_tei_refuses_images(self, form: str) -> None:
        with FakeTEI(model_type="classifier", model_id=MODEL, labels=NLI) as server:
            with pytest.raises(errors.Unsupported, match="does not accept images"):
                Classifier(form, [f"endpoint:{server.url}"])([JPEG])
            assert server.count("/predict") == 0

    def test_is_described_by_check(self) -> None:
        with FakeToolkit() as toolkit, FakeTEI(model_type="classifier", model_id=MODEL) as tei, FakeTEI() as other:
            gateway = ClassifyGateway(MODEL, [f"endpoint:{server.url}" for server in (toolkit, tei, other)])
            assert [each.answers for each in gateway.check()] == [True, True, False]


class TestOpenAICompatible:
    def test_infinitys_form(self, form: str) -> None:
        with FakeOpenAI(models=None) as server:
            result = Classifier(form, [f"openai:{server.url}"])(["one", "two"])
        assert all(same(labels, expected(text)) for text, labels in zip(("one", "two"), result, strict=True))
        assert result.usage.input_tokens == 6
        assert server.requests[0].json == {"model": MODEL, "input": ["one", "two"]}

    @pytest.mark.parametrize("path", ["", "/v1", "/v1/classify"])
    def test_a_url_may_name_the_route(self, form: str, path: str) -> None:
        with FakeOpenAI(models=None) as server:
            Classifier(form, [f"openai:{server.url}{path}"])(["one"])
            assert server.count("/v1/classify") == 1

    def test_vllms_form_names_the_best_label_only(self, form: str) -> None:
        with FakeOpenAI(models=None, best_label=True, shuffled=True) as server:
            result = Classifier(form, [f"openai:{server.url}"])(["one", "two"])
        assert all(same(labels, expected(text)[:1]) for text, labels in zip(("one", "two"), result, strict=True))

    @pytest.mark.parametrize(
        "data",
        [
            None,
            {},
            [{"index": 0, "label": "a", "probs": [0.5]}],
            [{"index": 0, "label": "a", "probs": [0.5]}] * 2,
            [{"index": 2, "label": "a", "probs": [0.5]}, {"index": 0, "label": "a", "probs": [0.5]}],
            [{"index": 0, "label": "a", "probs": []}, {"index": 1, "label": "a", "probs": [0.5]}],
            [{"index": 0, "label": None, "probs": [0.5]}, {"index": 1, "label": "a", "probs": [0.5]}],
            [{"index": 0, "label": "a", "probs": [None]}, {"index": 1, "label": "a", "probs": [0.5]}],
            [label_list("a"), {"label": "a", "probs": [0.5]}],
        ],
    )
    def test_anything_else_is_a_bad_answer(self, form: str, data: Any) -> None:
        with FakeOpenAI(models=None) as server:
            server.always(Reply(200, {"data": data}))
            with pytest.raises(errors.BadResponse):
                Classifier(form, [f"openai:{server.url}"])(["one", "two"])

    def test_images_and_labels_of_the_caller_are_refused_before_anything_is_sent(self, form: str) -> None:
        with FakeOpenAI(models=None) as server:
            for inputs, labels in (([JPEG], None), (["one"], ["a", "b"])):
                with pytest.raises(errors.Unsupported):
                    Classifier(form, [f"openai:{server.url}"])(inputs, labels)
            assert server.requests == []


class TestLogits:
    def test_are_asked_for_in_the_form_of_each_kind(self, form: str, hosted: tuple[FakeRouter, FakeHub]) -> None:
        router, _ = hosted
        tei = FakeTEI(model_type="classifier", model_id=MODEL)
        with tei, FakeOpenAI(models=None) as infinity, FakeToolkit() as toolkit, FakeToolkit(IMAGES) as pictures:
            targets = [f"tei:{tei.url}", f"endpoint:{tei.url}", f"openai:{infinity.url}", f"endpoint:{toolkit.url}"]
            for target in targets:
                assert same(Classifier(form, [target], scale="logit")(["one"])[0], expected("one", raw=True))
            image = Classifier(form, [f"endpoint:{pictures.url}"], scale="logit")([JPEG])
            assert same(image[0], expected(JPEG, raw=True))
            for model, given in ((TEXTS, "one"), (IMAGES, JPEG)):
                found = Classifier(form, [hf(router)], model=f"test/{model}", scale="logit")([given])
                assert same(found[0], expected(given, raw=True))
            assert toolkit.requests[-1].json["parameters"]["function_to_apply"] == "none"
            assert pictures.requests[-1].query["function_to_apply"] == ["none"]
            assert infinity.requests[-1].json["raw_scores"] is True
            assert router.requests[0].json["parameters"] == {"function_to_apply": "none"}

    def test_are_not_what_a_server_answers_that_does_not_know_the_parameter(self, form: str) -> None:
        with FakeOpenAI(models=None, best_label=True) as vllm, FakeOpenAI(models=None) as other:
            with pytest.raises(errors.Unsupported, match="reports probabilities"):
                Classifier(form, [f"openai:{vllm.url}"], scale="logit")(["one"])
            other.always(Reply(200, {"data": [label_list("one")]}))
            with pytest.raises(errors.BadResponse, match="probabilities where logits"):
                Classifier(form, [f"openai:{other.url}"], scale="logit")(["one"])

    def test_of_labels_of_the_caller_are_refused(self, form: str) -> None:
        with pytest.raises(errors.InvalidRequest, match="probabilities"):
            Classifier(form, ["tei:http://127.0.0.1:9"], scale="logit")(["one"], ["a", "b"])


# What the hosted pipelines really answered.


def recorded(name: str) -> list[dict[str, Any]]:
    path = RECORDINGS / "huggingface_hub" / f"{name}.yaml"
    if not path.exists():
        pytest.skip("the recordings lie beside the repository only on the project's own machines")
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["interactions"]
    return found


def response_of(interaction: dict[str, Any]) -> HttpResponse:
    answer = interaction["response"]
    headers = {name.lower(): values[0] for name, values in answer["headers"].items()}
    return HttpResponse(answer["status"]["code"], headers, answer["body"]["string"].encode())


def test_the_recorded_answer_to_a_text_is_read_and_its_request_is_ours() -> None:
    loading, served = recorded(
        "errors/503_5f9d9460d4_TestInferenceClient.test_text_classification_hf-inference_text-classification_"
    )
    with pytest.raises(errors.ModelLoading):
        decode_labels(response_of(loading), target="hf")
    (labels,) = decode_labels(response_of(served), target="hf").labels
    assert [each.label for each in labels] == ["POSITIVE", "NEGATIVE"]
    assert labels[0].score == pytest.approx(0.99987)
    ours = encode_hosted("http://router", ClassifyRequest.of(["I like you"]))
    assert yaml.safe_load(ours.body or b"") == yaml.safe_load(served["request"]["body"])


def test_the_recorded_answer_to_an_image_is_read_and_its_request_is_ours() -> None:
    served = recorded("cassettes/TestInferenceClient.test_image_classification[hf-inference,image-classification]")[-1]
    (labels,) = decode_labels(response_of(served), target="hf").labels
    assert len(labels) == 5
    assert labels[0].label == "brassiere, bra, bandeau"
    sent = served["request"]
    image = sent["body"]
    ours = encode_hosted(
        model_url("https://router.huggingface.co", "google/vit-base-patch16-224"), ClassifyRequest.of([image])
    )
    assert (ours.url, ours.body) == (sent["uri"], image)
