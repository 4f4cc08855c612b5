"""What LangChain's and LlamaIndex's own instruments count is what the ledger counts, and each leaves the other alone."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import PrivateAttr

from hf_gateway.observing.observer import tagged
from tests.servers.chat import Said
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED
from tests.support.ledgers import kept, rows, sqlite

if COLLECTED:
    from langchain_core.callbacks import UsageMetadataCallbackHandler
    from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler
    from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent
    from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
    from llama_index.core.llms import ChatMessage

    from langchain_hf_gateway import ChatHFGateway, HFGatewayEmbeddings
    from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM


__all__ = ["sqlite"]  # fixture

MODEL = "test/model"


def counted(body: dict[str, Any]) -> Said:
    """Answer with numbers of which each is another one."""
    words = len(body["messages"][-1]["content"].split())
    return Said("an answer", prompt_tokens=100 + words, completion_tokens=7, cached_tokens=30, reasoning_tokens=3)


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None, brain=counted) as made:
        yield made


def sums(url: str, *names: str) -> list[int]:
    return [sum(row[name] or 0 for row in rows(url, kind="attempt")) for name in names]


def chat_with_langchain(model: "ChatHFGateway", config: Any) -> list[Any]:
    answers: list[Any] = [model.invoke("one two three", config)]
    answers.append(asyncio.run(model.ainvoke("one two", config)))
    streamed = list(model.stream("one", config))
    whole = streamed[0]
    for piece in streamed[1:]:
        whole += piece
    return [*answers, whole]


def test_langchains_usage_is_the_ledgers(sqlite: str, server: FakeOpenAI) -> None:
    server.fail(Reply(500, "broken"))
    heard = UsageMetadataCallbackHandler()
    with kept(sqlite) as book:
        model = ChatHFGateway(model=MODEL, targets=[f"openai:{server.url}"])
        with tagged(tenant="acme"):
            answers = chat_with_langchain(model, {"callbacks": [heard]})
        assert book.flush()
    (usage,) = heard.usage_metadata.values()
    counts = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
    assert sums(sqlite, *counts) == [
        usage["input_tokens"],
        usage["output_tokens"],
        usage["input_token_details"]["cache_read"],
        usage["output_token_details"]["reasoning"],
    ]
    assert sums(sqlite, *counts) == [306, 21, 90, 9]
    assert sum(answer.usage_metadata["total_tokens"] for answer in answers) == 327
    requests = rows(sqlite, kind="request")
    assert [(row["tenant"], row["streamed"]) for row in requests] == [("acme", False), ("acme", False), ("acme", True)]
    assert len(rows(sqlite, kind="attempt", status="ok")) == 3
    # What LangChain shows of an answer, and what the ledger has of it, are found by each other.
    told = [answer.response_metadata["hf_gateway"]["served_by"] for answer in answers]
    assert told == [row["target"] for row in requests]


def test_langchains_embeddings_are_in_the_ledger(sqlite: str, server: FakeOpenAI) -> None:
    with kept(sqlite) as book:
        embeddings = HFGatewayEmbeddings(model=MODEL, targets=[f"openai:{server.url}"])
        embeddings.embed_documents(["one", "two words", "one"])
        asyncio.run(embeddings.aembed_query("a query"))
        assert book.flush()
    assert [row["texts"] for row in rows(sqlite, kind="request")] == [3, 1]
    # The words of each text, and two marks around it; a text that comes twice is sent once.
    assert [row["input_tokens"] for row in rows(sqlite, kind="request")] == [3 + 4, 4]
    assert sums(sqlite, "input_tokens") == [11]


if COLLECTED:

    class Heard(BaseEventHandler):
        """Hears LlamaIndex's events."""

        _events: list[Any] = PrivateAttr(default_factory=list)

        @classmethod
        def class_name(cls) -> str:
            return "Heard"

        def handle(self, event: Any, **_: Any) -> None:
            self._events.append(event)


@pytest.fixture
def heard() -> "Iterator[Heard]":
    handler = Heard()
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers.remove(handler)


def test_llamaindexs_token_counter_is_the_ledgers(sqlite: str, server: FakeOpenAI, heard: "Heard") -> None:
    counter = TokenCountingHandler(tokenizer=lambda _: [0] * 100_000)
    with kept(sqlite) as book:
        llm = HFGatewayLLM(model=MODEL, targets=[f"openai:{server.url}"], callback_manager=CallbackManager([counter]))
        llm.chat([ChatMessage(content="one two three")])
        asyncio.run(llm.achat([ChatMessage(content="one two")]))
        for _ in llm.stream_chat([ChatMessage(content="one")]):
            pass
        assert book.flush()
    assert sums(sqlite, "input_tokens", "output_tokens") == [306, 21]
    assert [counter.prompt_llm_token_count, counter.completion_llm_token_count] == [306, 21]
    ends = [event for event in heard._events if isinstance(event, LLMChatEndEvent)]
    assert [event.response.raw["usage"]["prompt_tokens"] for event in ends if event.response] == [103, 102, 101]


def test_llamaindexs_embeddings_are_in_the_ledger(sqlite: str, server: FakeOpenAI, heard: "Heard") -> None:
    with kept(sqlite) as book:
        embedding = HFGatewayEmbedding(model=MODEL, targets=[f"openai:{server.url}"])
        embedding.get_text_embedding_batch(["one", "two words"])
        embedding.get_query_embedding("a query")
        assert book.flush()
    ends = [event for event in heard._events if isinstance(event, EmbeddingEndEvent)]
    assert sum(row["texts"] for row in rows(sqlite, kind="request")) == sum(len(end.chunks) for end in ends) == 3
    assert sums(sqlite, "input_tokens") == [3 + 4 + 4]
