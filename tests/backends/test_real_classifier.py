"""infinity-emb, a real third-party server, asked for labels: a tiny classifier made here, compared with transformers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hf_gateway import ClassifyGateway, Gateway, errors
from tests.servers.infinity import Infinity, interpreter
from tests.servers.loopback import dead_url
from tests.servers.openai import FakeOpenAI
from tests.support.classifiers import FORMS, Classifier, assert_same_labels, pairs
from tests.support.late import COLLECTED
from tests.support.tiny_classifiers import text_classifier
from tests.support.tiny_encoders import TEXTS

if COLLECTED:
    import transformers

    from langchain_hf_gateway import HFGatewayClassifier


MODEL = "tiny/emotions"
SHORT = [text for text in TEXTS if len(text) < 50]

pytestmark = [pytest.mark.real_server, pytest.mark.xdist_group("torch")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = text_classifier(tmp_path_factory.mktemp("emotions") / "model")
    config = transformers.AutoTokenizer.from_pretrained(made)
    config.model_max_length = 64  # by which infinity truncates
    config.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[Infinity]:
    if interpreter() is None:
        pytest.skip("infinity-emb is not installed in .venv-infinity; `make setup` does it")
    with Infinity(folder, name=MODEL) as server:
        yield server


@pytest.mark.parametrize("form", FORMS)
def test_the_live_server_gives_the_labels_of_the_model_in_order(live: Infinity, folder: Path, form: str) -> None:
    texts = [*SHORT, *(f"text {number}" for number in range(300)), SHORT[0]]
    remote = Classifier(form, [f"openai:{live.url}"], model=MODEL)(texts)
    local = ClassifyGateway(str(folder)).classify(texts)
    for one, other in zip(remote, local, strict=True):
        assert_same_labels(one, pairs(other))
    assert remote.attempts[0].calls == 2  # 256 texts at once
    # infinity leaves the two marks around each text out of its count.
    assert remote.usage.input_tokens == (local.usage.input_tokens or 0) - 2 * len(set(texts))


def test_the_live_server_truncates_a_long_text_by_itself(live: Infinity, folder: Path) -> None:
    long = "a very long text that goes on and on " * 40
    remote = ClassifyGateway(MODEL, [f"openai:{live.url}"]).classify([long])
    local = ClassifyGateway(str(folder), truncate=True).classify([long])
    assert [each.score for each in remote[0]] == pytest.approx([each.score for each in local[0]], abs=1e-4)


def test_the_live_server_is_described_by_check_and_stands_in_for_another(live: Infinity) -> None:
    gateway = ClassifyGateway(MODEL, [f"openai:{dead_url()}", f"openai:{live.url}"])
    assert [each.answers for each in gateway.check()] == [False, True]
    assert gateway.classify(["a cat"]).served_by == (f"openai:{live.url}",)


def test_the_live_server_routes_in_a_chain(live: Infinity) -> None:
    runnable = HFGatewayClassifier(model=MODEL, targets=[f"openai:{live.url}"], top_k=1)
    assert [each["label"] for each in runnable.batch(SHORT)] == [
        labels[0].label for labels in ClassifyGateway(MODEL, [f"openai:{live.url}"]).classify(SHORT)
    ]


def test_the_live_servers_refusal_is_an_error(live: Infinity) -> None:
    with pytest.raises(errors.GatewayError):
        Gateway(MODEL, [f"openai:{live.url}"]).embed(["a cat"])


def test_the_fake_answers_in_the_form_of_the_live_server(live: Infinity) -> None:
    questions: list[dict[str, Any]] = [{"input": ["a cat", "a dog"]}, {"input": []}, {"input": [7]}, {}]
    with FakeOpenAI(models=None) as fake:
        for question in questions:
            body = {"model": MODEL, **question}
            theirs, ours = (httpx.post(f"{server.url}/v1/classify", json=body, timeout=60) for server in (live, fake))
            assert theirs.status_code == ours.status_code, question
            if theirs.is_success:
                assert set(theirs.json()) == set(ours.json())
                assert set(theirs.json()["usage"]) == set(ours.json()["usage"])
                assert [[set(label) for label in labels] for labels in theirs.json()["data"]] == [
                    [{"label", "score"}] * 4
                ] * 2
                assert [[set(label) for label in labels] for labels in ours.json()["data"]] == [
                    [{"label", "score"}] * 3
                ] * 2
