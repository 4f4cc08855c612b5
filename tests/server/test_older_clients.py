"""Clients that require older libraries than the tests have, against a real process: `make hub1` has them, others skip this.

LangChain's class for endpoints of Hugging Face requires huggingface_hub 1, and takes no URL since its version 1.2.2; LlamaIndex's
class for servers like OpenAI's requires openai 2.
"""

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from tests.servers.chat import Said, script
from tests.servers.loopback import cut_stream, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import START_S, ServerProcess, chat_chain
from tests.support.late import COLLECTED

MISSING = find_spec("langchain_huggingface") is None
pytestmark = pytest.mark.skipif(MISSING, reason="their libraries are in the environment of `make hub1`")

if COLLECTED:
    if not MISSING:
        import openai
        from huggingface_hub.errors import HfHubHTTPError
        from langchain_huggingface import HuggingFaceEndpointEmbeddings  # type: ignore[import-not-found]
        from llama_index.core.llms import ChatMessage
        from llama_index.core.tools import FunctionTool
        from llama_index.llms.openai_like import OpenAILike

    from hf_gateway import Gateway

DOCS = '[chains.docs]\ntargets = ["hash:64"]\n'
WAITS = "attempt_timeout = 300\nfirst_content_timeout = 300\nstall_timeout = 300"
ASK = "count"


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"sun in {city}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, _late_imports: None) -> Iterator[tuple[FakeOpenAI, str]]:
    """The target of chat, and the address of a process with a chain for embeddings and one for chat."""
    folder = tmp_path_factory.mktemp("older")
    with FakeOpenAI(models=None, brain=script("One two three.")) as fake, contextlib.chdir(folder):
        home = {"HF_GATEWAY_HOME": str(folder / "home")}
        with ServerProcess(DOCS + chat_chain(fake.url, more=WAITS), environment=home) as process:
            yield fake, process.url


@pytest.fixture
def fake(served: tuple[FakeOpenAI, str]) -> Iterator[FakeOpenAI]:
    yield served[0]
    served[0].recover()
    served[0].brain = script("One two three.")


@pytest.fixture
def url(served: tuple[FakeOpenAI, str], fake: FakeOpenAI) -> str:
    return served[1]


@pytest.mark.parametrize("path", ["", "/tei/docs", "/models/docs"])
async def test_langchains_class_for_endpoints_embeds(path: str, url: str) -> None:
    with Gateway(targets=["hash:64"]) as gateway:
        expected = gateway.embed(["one", "two"]).vectors.tolist()
    model = HuggingFaceEndpointEmbeddings(model=f"{url}{path}")
    assert model.embed_documents(["one", "two"]) == expected
    assert model.embed_query("one") == expected[0]
    assert await model.aembed_query("one") == expected[0]


def test_langchains_class_for_endpoints_raises_the_librarys_error(url: str) -> None:
    with pytest.raises(HfHubHTTPError, match="did you mean 'docs'") as unknown:
        HuggingFaceEndpointEmbeddings(model=f"{url}/models/dogs").embed_query("x")
    assert unknown.value.response.status_code == 404


def llm(url: str, model: str = "chat", **options: Any) -> Any:
    given = {"is_chat_model": True, "context_window": 4096, "max_retries": 0, "timeout": START_S, **options}
    return OpenAILike(model, api_base=f"{url}/v1", api_key="unused", **given)


async def test_llamaindexs_openai_like_llm_answers_whole_and_streamed(url: str) -> None:
    for model in (llm(url), llm(url, is_chat_model=False)):
        assert model.complete(ASK).text == "One two three."
        assert "".join(piece.delta or "" for piece in model.stream_complete(ASK)) == "One two three."
    assert llm(url).chat([ChatMessage(ASK)]).message.content == "One two three."
    streamed = await llm(url).astream_chat([ChatMessage(ASK)])
    assert "".join([piece.delta or "" async for piece in streamed]) == "One two three."


def test_llamaindexs_openai_like_llm_calls_tools(url: str, fake: FakeOpenAI) -> None:
    fake.brain = script(Said(tool_calls=(("weather", {"city": "Paris"}),)))
    model = llm(url, is_function_calling_model=True)
    answer = model.chat_with_tools([FunctionTool.from_defaults(weather)], user_msg="How is the weather in Paris?")
    (call,) = model.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Paris"})


def test_llamaindexs_openai_like_llm_raises_the_librarys_errors(url: str, fake: FakeOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'walk'"):
        llm(url, "walk").chat([ChatMessage(ASK)])
    fake.always(cut_stream(2))
    stream = llm(url).stream_chat([ChatMessage(ASK)])
    assert next(stream).delta == "One"
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)


def test_who_leaves_llamaindexs_openai_like_llm_stops_the_work(url: str, fake: FakeOpenAI) -> None:
    stall = stall_stream(2)
    fake.always(stall)
    client = openai.DefaultHttpxClient()
    stream = llm(url, http_client=client).stream_chat([ChatMessage(ASK)])
    assert next(stream).delta == "One"
    stream.close()
    client.close()
    assert stall.disconnected.wait(START_S)
