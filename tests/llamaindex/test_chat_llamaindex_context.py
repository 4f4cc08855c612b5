"""HFGatewayLLM: the context that LlamaIndex plans with, which is the one that servers are told of."""

from collections.abc import Iterator

import pytest

from hf_gateway import Gateway, Target
from tests.servers.chat import script
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED

if COLLECTED:
    from llama_index.core import Document, VectorStoreIndex

    from langchain_hf_gateway import ChatHFGateway
    from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM


ASSUMED = 3900
"""Tokens of context that LlamaIndex takes for granted of every model."""


@pytest.fixture
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama({"m": {"capabilities": ["completion", "tools"], "context_length": 32768}}) as running:
        yield running


@pytest.fixture(scope="module")
def passages() -> "VectorStoreIndex":
    filling = "Rivers carry sand to the sea, and the sea grinds it. " * 80
    documents = [Document(text=f"Chapter {number}. {filling}") for number in range(4)]
    return VectorStoreIndex.from_documents(documents, embed_model=HFGatewayEmbedding(targets=["hash"]))


def requests_of_a_query(passages: "VectorStoreIndex", **fields: int) -> int:
    with FakeOpenAI(models=None, brain=script("sand")) as server:
        llm = HFGatewayLLM(model="m", targets=[f"openai:{server.url}"], **fields)
        assert str(passages.as_query_engine(llm=llm, similarity_top_k=4).query("What do rivers carry?")) == "sand"
        return server.count()


@pytest.mark.parametrize("most", [1024, 3000, 3500, 3900, 4096, 32768])
def test_max_tokens_takes_nothing_from_a_context_that_is_only_assumed(passages: "VectorStoreIndex", most: int) -> None:
    assert requests_of_a_query(passages, max_tokens=most) == requests_of_a_query(passages)


@pytest.mark.parametrize("fields", [{"max_tokens": 8192}, {"max_tokens": 20_000}, {"max_tokens": 8000}])
def test_max_tokens_of_a_whole_known_context_leaves_room_for_prompts(
    passages: "VectorStoreIndex", fields: dict[str, int]
) -> None:
    assert requests_of_a_query(passages, context_window=8192, **fields) <= 4


@pytest.mark.parametrize(
    ("fields", "context", "output"),
    [
        ({}, ASSUMED, 256),
        ({"max_tokens": 100}, ASSUMED, 100),
        ({"num_output": 5000}, ASSUMED + 5000 - 256, 5000),
        ({"context_window": 8192, "max_tokens": 4000}, 8192, 4000),
        ({"context_window": 8192, "max_tokens": 8192}, 8192, 8192 - 2000),
        ({"context_window": 2048, "max_tokens": 4096}, 2048, 1024),
        ({"context_window": 2048, "max_tokens": 4096, "num_output": 512}, 2048, 512),
    ],
)
def test_what_llamaindex_is_told_of_the_context(fields: dict[str, int], context: int, output: int) -> None:
    metadata = HFGatewayLLM(model="m", targets=["openai:http://127.0.0.1:9"], **fields).metadata
    assert (metadata.context_window, metadata.num_output) == (context, output)


def test_ollama_is_told_the_context_window_and_a_targets_own_num_ctx_goes_before_it(ollama: FakeOllama) -> None:
    plain, told = Target("ollama", url=ollama.url), Target("ollama", url=ollama.url, options={"num_ctx": 4096})
    nested = Target("ollama", url=ollama.url, options={"options": {"num_ctx": 1024}})
    for target in (plain, told, nested):
        HFGatewayLLM(model="m", targets=[target], context_window=16384).complete("hi")
    ChatHFGateway(model="m", targets=[plain], context_window=8192).invoke("hi")
    Gateway("m", [plain], task="chat").chat("hi")
    sent = [request.json.get("options", {}).get("num_ctx") for request in ollama.requests]
    assert sent == [16384, 4096, 1024, 8192, None]


def test_another_context_is_another_key_in_langchains_cache() -> None:
    keys = [
        ChatHFGateway(model="m", targets=["ollama"], context_window=window)._identifying_params
        for window in (2048, 4096)
    ]
    assert keys[0] != keys[1]
