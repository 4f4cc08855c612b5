"""LlamaIndex's own classes for OpenAI-like servers, Ollama and text-embeddings-inference, against a real process."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers.chat import script
from tests.servers.loopback import cut_stream, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import START_S, ServerProcess, chat_chain
from tests.support.late import COLLECTED

if COLLECTED:
    import ollama
    import openai
    from llama_index.core.llms import ChatMessage
    from llama_index.embeddings.ollama import OllamaEmbedding
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
    from llama_index.llms.ollama import Ollama

    from hf_gateway import Gateway

DOCS = '[chains.docs]\ntargets = ["hash:64"]\n'
WAITS = "attempt_timeout = 300\nfirst_content_timeout = 300\nstall_timeout = 300"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, _late_imports: None) -> Iterator[tuple[FakeOpenAI, str]]:
    """The target of chat, and the address of a process with a chain for embeddings and one for chat."""
    folder = tmp_path_factory.mktemp("llamaindex")
    with FakeOpenAI(models=None, brain=script("One two three.")) as fake, contextlib.chdir(folder):
        home = {"HF_GATEWAY_HOME": str(folder / "home")}
        with ServerProcess(DOCS + chat_chain(fake.url, more=WAITS), environment=home) as process:
            yield fake, process.url


@pytest.fixture
def fake(served: tuple[FakeOpenAI, str]) -> Iterator[FakeOpenAI]:
    yield served[0]
    served[0].recover()


@pytest.fixture
def url(served: tuple[FakeOpenAI, str], fake: FakeOpenAI) -> str:
    return served[1]


def expected_vectors(texts: list[str]) -> list[list[float]]:
    with Gateway(targets=["hash:64"]) as gateway:
        found: list[list[float]] = gateway.embed(texts).vectors.tolist()
    return found


def openai_like(url: str, model: str = "docs") -> Any:
    return OpenAILikeEmbedding(model_name=model, api_base=f"{url}/v1", api_key="unused", max_retries=0)


def of_ollama(url: str, model: str = "docs") -> Any:
    return OllamaEmbedding(model, base_url=url)


def of_tei(url: str, model: str = "docs") -> Any:
    # A name that the class knows no instructions of.
    options = {"query_instruction": "", "text_instruction": ""}
    return TextEmbeddingsInference("owner/name", base_url=f"{url}/tei/{model}", **options)


KINDS = {"openai-like": openai_like, "ollama": of_ollama, "tei": of_tei}


@pytest.mark.parametrize("kind", KINDS)
async def test_embeddings_are_the_gateways(kind: str, url: str) -> None:
    model = KINDS[kind](url)
    expected = [pytest.approx(row, rel=1e-6) for row in expected_vectors(["one", "two"])]
    assert model.get_text_embedding_batch(["one", "two"]) == expected
    assert model.get_query_embedding("one") == expected[0]
    assert await model.aget_text_embedding_batch(["one", "two"]) == expected
    assert await model.aget_query_embedding("one") == expected[0]


def test_an_unknown_model_is_the_classes_own_error(url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="did you mean 'docs'"):
        openai_like(url, "dogs").get_text_embedding("x")
    with pytest.raises(ollama.ResponseError, match="did you mean 'docs'"):
        of_ollama(url, "dogs").get_text_embedding("x")
    # That class looks at no status: it takes the body of the error for vectors.
    with pytest.raises(KeyError):
        of_tei(url, "dogs").get_text_embedding("x")


def llm(url: str, model: str = "chat") -> Any:
    return Ollama(model, base_url=url, context_window=4096, request_timeout=START_S)


async def test_the_llm_of_ollama_answers_whole_and_streamed(url: str) -> None:
    assert (await llm(url).achat([ChatMessage("count")])).message.content == "One two three."
    streamed = await llm(url).astream_chat([ChatMessage("count")])
    assert "".join([piece.delta or "" async for piece in streamed]) == "One two three."


def test_the_llm_of_ollama_raises_its_own_errors(url: str, fake: FakeOpenAI) -> None:
    with pytest.raises(ollama.ResponseError, match="no model 'walk'"):
        llm(url, "walk").chat([ChatMessage("count")])
    fake.always(cut_stream(2))
    stream = llm(url).stream_chat([ChatMessage("count")])
    assert next(stream).delta == "One"
    with pytest.raises(ollama.ResponseError, match="broke off"):
        list(stream)


def test_who_leaves_the_llm_of_ollama_stops_the_work(url: str, fake: FakeOpenAI) -> None:
    stall = stall_stream(2)
    fake.always(stall)
    stream = llm(url).stream_chat([ChatMessage("count")])
    assert next(stream).delta == "One"
    stream.close()
    assert stall.disconnected.wait(START_S)
