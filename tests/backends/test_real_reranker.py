"""A real third-party reranker, infinity-emb with a tiny cross-encoder; and its answer from a cassette, where it is missing.

`HF_GATEWAY_TEST_RECORD=1 pytest tests/backends/test_real_reranker.py` writes the cassette again.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hf_gateway import RerankGateway, errors
from tests.servers.infinity import Infinity, interpreter
from tests.servers.loopback import dead_url
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED
from tests.support.tiny_rerankers import cross_encoder

if COLLECTED:
    import vcr

    from langchain_hf_gateway import HFGatewayReranker

MODEL = "test/tiny-reranker"
CASSETTES = Path(__file__).parents[1] / "cassettes" / "infinity"
RECORDED_AT = "http://infinity.test:7997"
"""The address in the cassette; the real one has another port each time."""
QUERY = "What is the capital of France?"
DOCUMENTS = ["the lazy dog lives in France", "people and the capital", "a long text, that goes on and on", "how many"]

pytestmark = [pytest.mark.real_server, pytest.mark.xdist_group("torch")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("models") / "reranker")


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[Infinity]:
    if interpreter() is None:
        pytest.skip("infinity-emb is not installed in .venv-infinity; `make setup` does it")
    with Infinity(folder, name=MODEL) as server:
        yield server


def gateway(url: str, **settings: Any) -> RerankGateway:
    return RerankGateway(MODEL, [f"openai:{url}"], **settings)


@pytest.mark.parametrize("scale", ["probability", "logit"])
def test_the_live_server_gives_the_scores_of_the_local_model(live: Infinity, folder: Path, scale: Any) -> None:
    documents = [*DOCUMENTS, *(f"{text} {DOCUMENTS[0]}" for text in DOCUMENTS)]
    remote = gateway(live.url, scale=scale).rerank(QUERY, documents)
    local = RerankGateway(str(folder), ["local"], scale=scale).rerank(QUERY, documents)
    scores = {hit.index: hit.score for hit in local}
    assert [hit.score for hit in remote] == pytest.approx([scores[hit.index] for hit in remote], abs=1e-3)
    assert (remote.scale, remote.usage.documents) == (scale, 8)
    assert (remote.usage.input_tokens or 0) > 0


async def test_the_live_server_through_langchain_and_async(live: Infinity) -> None:
    from langchain_core.documents import Document

    found = [Document(page_content=text) for text in DOCUMENTS]
    reranker = HFGatewayReranker(model=MODEL, targets=[f"openai:{live.url}"], top_n=2)
    first = [document.page_content for document in reranker.compress_documents(found, QUERY)]
    assert first == [document.page_content for document in await reranker.acompress_documents(found, QUERY)]
    assert len(first) == 2


def test_the_live_server_divides_and_stands_in(live: Infinity) -> None:
    documents = [f"{DOCUMENTS[number % 4]} {'how many people ' * (number % 9)}{number}" for number in range(450)]
    result = RerankGateway(MODEL, [f"openai:{dead_url()}", f"openai:{live.url}"], max_retries=0).rerank(
        QUERY, documents
    )
    assert (len(result), result.served_by) == (450, (f"openai:{live.url}",))
    assert sum(attempt.calls for attempt in result.attempts if attempt.outcome == "served") == 3


def test_the_live_server_is_described_by_check_and_does_not_embed(live: Infinity) -> None:
    (checked,) = gateway(live.url).check()
    assert (checked.answers, checked.report.serves) == (True, [MODEL])
    from hf_gateway import Gateway

    with pytest.raises(errors.GatewayError):
        Gateway(MODEL, [f"openai:{live.url}"]).embed(["a text"])


def test_the_fake_answers_in_its_form(live: Infinity) -> None:
    bodies: list[dict[str, Any]] = [{}, {"documents": []}, {"documents": ["a"] * 2049}, {"top_n": 2}]
    with FakeOpenAI(models=None, reranks_like="infinity", max_inputs=2048) as fake:
        for body in bodies:
            asked = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS, **body}
            theirs, ours = (httpx.post(f"{each.url}/v1/rerank", json=asked, timeout=60) for each in (live, fake))
            assert theirs.status_code == ours.status_code, body
            if theirs.is_success:
                assert set(ours.json()) <= set(theirs.json())
                assert set(ours.json()["usage"]) == set(theirs.json()["usage"])
                assert len(ours.json()["results"]) == len(theirs.json()["results"])
                assert set(ours.json()["results"][0]) <= set(theirs.json()["results"][0])


# The same server's answer from the cassette.


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """The live server while recording, otherwise an address that does not exist."""
    return request.getfixturevalue("live").url if os.environ.get("HF_GATEWAY_TEST_RECORD") else RECORDED_AT


def test_the_recorded_answer_is_read(url: str) -> None:
    def anonymous(request: Any) -> Any:
        request.uri = request.uri.replace(url, RECORDED_AT)
        return request

    recorder = vcr.VCR(
        cassette_library_dir=str(CASSETTES),
        record_mode="all" if os.environ.get("HF_GATEWAY_TEST_RECORD") else "none",
        match_on=["method", "uri", "body"],
        filter_headers=["authorization", "user-agent", "host"],
        before_record_request=anonymous,
        decode_compressed_response=True,
    )
    with recorder.use_cassette("rerank.yaml"):
        result = gateway(url).rerank(QUERY, DOCUMENTS)
    assert sorted(hit.index for hit in result) == [0, 1, 2, 3]
    assert all(0 < hit.score < 1 for hit in result)
    assert (result.usage.documents, result.scale) == (4, "probability")
    assert result.usage.input_tokens
