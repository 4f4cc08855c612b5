"""Bad input: a clear error, before anything is sent, and nothing lost."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hf_gateway import Gateway
from hf_gateway.errors import ConfigError, ContextOverflow, InvalidRequest
from tests.servers import unit_vectors
from tests.servers.tei import FakeTEI
from tests.support.doors import door
from tests.support.embedders import MODEL
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_hf_gateway import HFGatewayEmbeddings
    from llamaindex_hf_gateway import HFGatewayEmbedding


DOORS: dict[str, Callable[[str, list[Any]], Any]] = {
    "gateway": lambda url, texts: Gateway(MODEL, [f"tei:{url}"]).embed(texts).vectors.tolist(),
    "gateway async": lambda url, texts: asyncio.run(Gateway(MODEL, [f"tei:{url}"]).aembed(texts)).vectors.tolist(),
    "langchain": lambda url, texts: HFGatewayEmbeddings(model=MODEL, targets=[f"tei:{url}"]).embed_documents(texts),
    "langchain async": lambda url, texts: asyncio.run(
        HFGatewayEmbeddings(model=MODEL, targets=[f"tei:{url}"]).aembed_documents(texts)
    ),
    "llamaindex": lambda url, texts: HFGatewayEmbedding(model=MODEL, targets=[f"tei:{url}"]).get_text_embedding_batch(
        texts
    ),
    "llamaindex async": lambda url, texts: asyncio.run(
        HFGatewayEmbedding(model=MODEL, targets=[f"tei:{url}"]).aget_text_embedding_batch(texts)
    ),
}


@pytest.fixture(params=DOORS)
def embed(request: pytest.FixtureRequest) -> Callable[[str, list[Any]], Any]:
    return DOORS[request.param]


@pytest.fixture
def server() -> Iterator[FakeTEI]:
    with FakeTEI(model_id=MODEL) as tei:
        yield tei


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (None, "is NoneType, not a string"),
        (7, "is int, not a string"),
        (b"bytes", "is bytes, not a string"),
        ("", "is empty"),
        (" \n\t", "has nothing but blanks"),
        ("a \ud800 b", "has a lone surrogate at character 2"),
    ],
    ids=["None", "int", "bytes", "empty", "blanks", "lone surrogate"],
)
def test_a_bad_text_is_named_by_its_place_and_nothing_is_sent(
    embed: Callable[[str, list[Any]], Any], server: FakeTEI, bad: Any, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"text 1 of 3 {said}"):
        embed(server.url, ["good", bad, "good too"])
    assert server.requests == []


def test_an_empty_list_gives_an_empty_list_and_asks_nobody(
    embed: Callable[[str, list[Any]], Any], server: FakeTEI
) -> None:
    assert embed(server.url, []) == []
    assert server.requests == []


def test_a_single_string_where_a_list_belongs_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="pass a list of strings"):
        HFGatewayEmbeddings(targets=["hash"]).embed_documents("one text")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="pass a list of strings"):
        Gateway(targets=["hash"]).embed(7)  # type: ignore[arg-type]


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'query' or 'document'"):
        Gateway(targets=["hash"]).embed(["x"], role="passage")  # type: ignore[arg-type]


def test_ten_megabytes_of_text_are_refused_by_a_server_with_a_limit_and_never_cut_in_silence(
    embed: Callable[[str, list[Any]], Any], server: FakeTEI
) -> None:
    with pytest.raises(ContextOverflow, match="2000000 bytes"):
        embed(server.url, ["short", "word " * 2_000_000])
    assert all(len(request.json["inputs"]) == 1 for request in server.requests if request.path == "/embed")


def test_a_text_longer_than_the_model_takes_is_refused_unless_truncation_was_asked_for(server: FakeTEI) -> None:
    long = "word " * 400
    with pytest.raises(ContextOverflow, match="less than 256 tokens") as caught:
        Gateway(MODEL, [f"tei:{server.url}"]).embed([long])
    assert caught.value.limit == 256
    cut = Gateway(MODEL, [f"tei:{server.url}"], truncate=True).embed([long])
    assert cut.vectors.tolist() == unit_vectors([" ".join(["word"] * 254)])


@pytest.mark.slow
def test_a_hundred_thousand_texts_arrive_in_order() -> None:
    texts = [f"text number {number}" for number in range(100_000)]
    with FakeTEI(model_id=MODEL, max_client_batch_size=5_000, embed=lambda batch: unit_vectors(batch, dim=4)) as tei:
        result = Gateway(MODEL, [f"tei:{tei.url}"]).embed(texts)
        assert len(result.vectors) == 100_000
        for place in (0, 4_999, 5_000, 31_415, 99_999):
            assert result.vectors[place] == pytest.approx(unit_vectors([texts[place]], dim=4)[0], abs=1e-6)
        assert tei.count("/embed") == 20
        assert result.usage.input_tokens == 500_000


def test_a_generator_of_texts_is_taken(server: FakeTEI) -> None:
    texts = [f"text {number}" for number in range(70)]
    assert Gateway(MODEL, [f"tei:{server.url}"]).embed(text for text in texts).vectors.tolist() == unit_vectors(texts)


def test_more_dimensions_than_the_model_has_are_refused(server: FakeTEI) -> None:
    with pytest.raises(InvalidRequest, match=r"dimensions=512 is more than the model has \(384\)"):
        Gateway(MODEL, [f"tei:{server.url}"], dimensions=512).embed(["x"])


@pytest.mark.parametrize("dimensions", [0, -3, 1.5, "many"])
def test_a_dimension_that_is_none_is_refused_at_once(dimensions: Any) -> None:
    with pytest.raises(ValueError, match="dimensions"):
        HFGatewayEmbeddings(model=MODEL, dimensions=dimensions)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_must_be_a_time(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        HFGatewayEmbeddings(model=MODEL, timeout=timeout)


@pytest.mark.parametrize("name", ["HFGatewayEmbeddings", "HFGatewayEmbedding", "Gateway"])
def test_an_unknown_argument_names_the_nearest(name: str) -> None:
    with pytest.raises(ConfigError, match="did you mean 'dimensions'"):
        door(name)(model=MODEL, dimension=5)


@pytest.mark.parametrize("name", ["HFGatewayEmbeddings", "HFGatewayEmbedding", "Gateway"])
def test_an_empty_chain_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="targets is empty"):
        door(name)(model=MODEL, targets=[])


def test_settings_cannot_be_changed_behind_the_chains_back() -> None:
    for embedder in (HFGatewayEmbeddings(model=MODEL), HFGatewayEmbedding(model=MODEL)):
        with pytest.raises(ValueError, match="frozen"):
            embedder.dimensions = 3
