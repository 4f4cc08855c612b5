"""LangChain's own OpenAI classes at the server."""

from typing import Any

import httpx
import pytest

from tests.servers.chat import Said, script
from tests.servers.loopback import cut_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import RunningServer, chat_chain, gateway_server
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    from openai import BadRequestError, OpenAIError
    from pydantic import BaseModel

    class City(BaseModel):
        """A city."""

        name: str
        people: int

    @tool
    def weather(city: str) -> str:
        """Return the weather of a city."""
        return f"rain in {city}"


def chat_model(server: RunningServer, **options: Any) -> "ChatOpenAI":
    return ChatOpenAI(
        base_url=f"{server.url}/v1",
        api_key="unused",
        model="owner/model",
        http_client=httpx.Client(trust_env=False),
        http_async_client=httpx.AsyncClient(trust_env=False),
        **options,
    )


def embeddings(server: RunningServer, **options: Any) -> "OpenAIEmbeddings":
    return OpenAIEmbeddings(
        base_url=f"{server.url}/v1",
        api_key="unused",
        model="docs",
        http_client=httpx.Client(trust_env=False),
        http_async_client=httpx.AsyncClient(trust_env=False),
        **options,
    )


def test_embeddings_are_the_gateways(server: RunningServer) -> None:
    from hf_gateway import Gateway

    with Gateway(targets=["hash:64"]) as gateway:
        expected = gateway.embed(["one", "two"]).vectors.tolist()
    found = embeddings(server, check_embedding_ctx_length=False)
    assert found.embed_documents(["one", "two"]) == expected
    assert found.embed_query("one") == expected[0]


async def test_async_embeddings_are_the_same(server: RunningServer) -> None:
    found = embeddings(server, check_embedding_ctx_length=False)
    assert await found.aembed_documents(["one"]) == found.embed_documents(["one"])


def test_token_ids_fail_with_the_words_of_what_to_set(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    # Its vocabularies come from the network; which numbers a text becomes does not matter here.
    made = tiktoken.Encoding(
        "made", pat_str=r".", mergeable_ranks={bytes([n]): n for n in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "get_encoding", lambda _: made)
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda _: made)
    with pytest.raises(BadRequestError, match="check_embedding_ctx_length=False"):
        embeddings(server).embed_documents(["one"])


def test_a_conversation_with_a_tool() -> None:
    said = script(Said(tool_calls=(("weather", {"city": "Bern"}),)), "It rains in Bern.")
    with FakeOpenAI(models=None, brain=said) as fake, gateway_server(chat_chain(fake.url)) as server:
        model = chat_model(server).bind_tools([weather])
        question = HumanMessage("How is the weather in Bern?")
        asked = model.invoke([question])
        assert isinstance(asked, AIMessage)
        (call,) = asked.tool_calls
        answer = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
        final = model.invoke([question, asked, answer])
    assert call["args"] == {"city": "Bern"}
    assert final.content == "It rains in Bern."
    assert asked.usage_metadata is not None
    assert asked.usage_metadata["total_tokens"] > 0


def test_structured_output() -> None:
    said = script('{"name": "Bern", "people": 134000}')
    with FakeOpenAI(models=None, brain=said) as fake, gateway_server(chat_chain(fake.url)) as server:
        found = chat_model(server).with_structured_output(City, method="json_schema").invoke("Which city?")
        (sent,) = fake.requests
    assert found == City(name="Bern", people=134000)
    assert sent.json["response_format"]["type"] == "json_schema"


def test_streams_whole_and_broken() -> None:
    with (
        FakeOpenAI(models=None, brain=script("One two three.")) as fake,
        gateway_server(chat_chain(fake.url)) as server,
    ):
        chunks = list(chat_model(server, stream_usage=True).stream("count"))
        fake.always(cut_stream(2))
        with pytest.raises(OpenAIError):
            list(chat_model(server).stream("count"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk  # type: ignore[assignment]
    assert whole.content == "One two three."
    assert whole.usage_metadata is not None
    assert whole.response_metadata["finish_reason"] == "stop"


async def test_async_streams() -> None:
    with (
        FakeOpenAI(models=None, brain=script("One two three.")) as fake,
        gateway_server(chat_chain(fake.url)) as server,
    ):
        parts = [chunk.content async for chunk in chat_model(server).astream("count")]
    assert "".join(map(str, parts)) == "One two three."
