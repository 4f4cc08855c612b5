"""Servers by hand: httpx, aiohttp and the openai SDK. And ours.

All take `url`, a server, and `first`, another that is to be asked before it, or None.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from benchmarks.contenders.calls import Calls
from benchmarks.harness.server import MODEL

BATCH_TEXTS = 32
"""Maximum texts per request of the slow server."""


def messages(prompt: str) -> list[dict[str, str]]:
    """Return one user message."""
    return [{"role": "user", "content": prompt}]


def batches(texts: Sequence[str]) -> list[list[str]]:
    """Cut into lists of at most 32."""
    return [list(texts[start : start + BATCH_TEXTS]) for start in range(0, len(texts), BATCH_TEXTS)]


async def in_batches(
    embed: Callable[[list[str]], Awaitable[list[Any]]], texts: Sequence[str], concurrency: int
) -> list[Any]:
    """Embed in batches, so many at once, in order: what one writes by hand."""
    places = asyncio.Semaphore(concurrency)

    async def one(batch: list[str]) -> list[Any]:
        async with places:
            return await embed(batch)

    return [row for rows in await asyncio.gather(*map(one, batches(texts))) for row in rows]


def httpx(url: str, first: str | None = None, concurrency: int = 8) -> Calls:
    """Kept clients whose pools are large enough; a failover is a second request where the first failed."""
    import httpx

    pool = {"limits": httpx.Limits(max_connections=1024, max_keepalive_connections=1024), "timeout": 60.0}
    client, aclient = httpx.Client(**pool), httpx.AsyncClient(**pool)
    bases = [base for base in (first, f"{url}/v1") if base]

    def post(path: str, body: dict[str, Any]) -> Any:
        for base in bases:
            with suppress(httpx.ConnectError):
                if (response := client.post(f"{base}{path}", json=body)).status_code < 500:
                    return response.json()
        raise RuntimeError("no server answered")

    async def apost(path: str, body: dict[str, Any]) -> Any:
        for base in bases:
            with suppress(httpx.ConnectError):
                if (response := await aclient.post(f"{base}{path}", json=body)).status_code < 500:
                    return response.json()
        raise RuntimeError("no server answered")

    by_hand = _by_hand(apost, concurrency)

    def stream(prompt: str) -> int:
        body = {**_chat(prompt), "stream": True}
        with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            return sum(_is_piece(line) for line in response.iter_lines())

    async def astream(prompt: str) -> int:
        count, body = 0, {**_chat(prompt), "stream": True}
        async with aclient.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                count += _is_piece(line)
        return count

    return Calls(
        query=lambda text: _rows(post("/embeddings", {"model": MODEL, "input": [text]}))[0],
        chat=lambda prompt: post("/chat/completions", _chat(prompt))["choices"][0]["message"]["content"],
        stream=stream,
        astream=astream,
        **by_hand,
    )


def _rows(answer: Any) -> list[Any]:
    return [entry["embedding"] for entry in answer["data"]]


def _chat(prompt: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": messages(prompt)}


def _by_hand(apost: Callable[[str, dict[str, Any]], Awaitable[Any]], concurrency: int) -> dict[str, Any]:
    """Return the async calls that are the same over any client that posts JSON."""

    async def aembed(texts: list[str]) -> list[Any]:
        return _rows(await apost("/embeddings", {"model": MODEL, "input": texts}))

    async def aquery(text: str) -> Any:
        return (await aembed([text]))[0]

    async def adocuments(texts: list[str]) -> list[Any]:
        return await in_batches(aembed, texts, concurrency)

    async def achat(prompt: str) -> Any:
        return (await apost("/chat/completions", _chat(prompt)))["choices"][0]["message"]["content"]

    return {"aquery": aquery, "adocuments": adocuments, "achat": achat}


def _is_piece(line: str) -> bool:
    return line[6:7] == "{" and bool(json.loads(line[6:])["choices"])


def aiohttp(url: str, first: str | None = None, concurrency: int = 8) -> Calls:
    """One kept session without a limit of connections."""
    assert first is None, "there is no failover by hand for aiohttp"
    kept: list[Any] = []

    def session() -> Any:
        if not kept:  # a session is made on the loop that uses it
            import aiohttp

            kept.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        return kept[0]

    async def apost(path: str, body: dict[str, Any]) -> Any:
        async with session().post(f"{url}/v1{path}", json=body) as response:
            return await response.json()

    async def astream(prompt: str) -> int:
        count, body = 0, {**_chat(prompt), "stream": True}
        async with session().post(f"{url}/v1/chat/completions", json=body) as response:
            async for line in response.content:
                count += _is_piece(line.decode())
        return count

    return Calls(astream=astream, **_by_hand(apost, concurrency))


def openai(url: str, first: str | None = None, concurrency: int = 8) -> Calls:
    """The SDK, with its own pools and its own choice of base64."""
    assert first is None, "the SDK has no failover"
    import openai

    client, aclient = [
        made(base_url=f"{url}/v1", api_key="none", max_retries=0) for made in (openai.OpenAI, openai.AsyncOpenAI)
    ]

    async def aembed(texts: list[str]) -> list[Any]:
        return [entry.embedding for entry in (await aclient.embeddings.create(model=MODEL, input=texts)).data]

    async def aquery(text: str) -> Any:
        return (await aembed([text]))[0]

    async def adocuments(texts: list[str]) -> list[Any]:
        return await in_batches(aembed, texts, concurrency)

    async def achat(prompt: str) -> Any:
        answer = await aclient.chat.completions.create(model=MODEL, messages=messages(prompt))
        return answer.choices[0].message.content

    async def astream(prompt: str) -> int:
        pieces = await aclient.chat.completions.create(model=MODEL, messages=messages(prompt), stream=True)
        return sum([1 async for _ in pieces])

    def stream(prompt: str) -> int:
        pieces = client.chat.completions.create(model=MODEL, messages=messages(prompt), stream=True)
        return sum(1 for _ in pieces)

    return Calls(
        query=lambda text: client.embeddings.create(model=MODEL, input=[text]).data[0].embedding,
        aquery=aquery,
        adocuments=adocuments,
        chat=lambda prompt: client.chat.completions.create(model=MODEL, messages=messages(prompt)),
        achat=achat,
        stream=stream,
        astream=astream,
    )


def _targets(url: str, first: str | None, kind: str = "openai") -> list[str]:
    return [f"{kind}:{base}" for base in (first, url) if base]


def _concurrency(chosen: int | None) -> dict[str, int]:
    return {} if chosen is None else {"max_concurrency": chosen}


def gateway(
    url: str,
    first: str | None = None,
    concurrency: int | None = None,
    kind: str = "openai",
    model: str = MODEL,
    check_space: bool = True,
    **options: Any,
) -> Calls:
    """`Gateway` itself. concurrency: `max_concurrency`, None for as it comes; options: of both chains."""
    from hf_gateway import Gateway

    targets = _targets(url, first, kind)
    made = Gateway(model, targets, check_space=check_space, **options, **_concurrency(concurrency))
    chain = Gateway(model, _targets(url, first), task="chat", **options)

    async def aquery(text: str) -> Any:
        return (await made.aembed([text], role="query")).vectors

    async def adocuments(texts: list[str]) -> Any:
        return (await made.aembed(texts)).vectors

    def rows(texts: Iterable[str]) -> Any:
        if not hasattr(made, "embed_stream"):
            raise NotImplementedError("Gateway has no embed_stream")
        return made.embed_stream(texts)

    def stream(prompt: str) -> int:
        with chain.stream(prompt) as pieces:
            return sum(1 for _ in pieces)

    async def astream(prompt: str) -> int:
        async with chain.astream(prompt) as pieces:
            return sum([1 async for _ in pieces])

    return Calls(
        query=lambda text: made.embed([text], role="query").vectors,
        aquery=aquery,
        documents=lambda texts: made.embed(texts).vectors,
        adocuments=adocuments,
        rows=rows,
        **(
            {"chat": chain.chat, "achat": chain.achat, "stream": stream, "astream": astream} if kind == "openai" else {}
        ),
    )


def langchain_gateway(url: str, first: str | None = None, concurrency: int | None = None, **options: Any) -> Calls:
    """Ours for LangChain."""
    from langchain_hf_gateway import ChatHFGateway, HFGatewayEmbeddings

    targets = _targets(url, first)
    made = HFGatewayEmbeddings(model=MODEL, targets=targets, **options, **_concurrency(concurrency))
    model = ChatHFGateway(model=MODEL, targets=targets, **options)

    async def astream(prompt: str) -> int:
        return sum([1 async for _ in model.astream(prompt)])

    return Calls(
        query=made.embed_query,
        aquery=made.aembed_query,
        documents=made.embed_documents,
        adocuments=made.aembed_documents,
        chat=model.invoke,
        achat=model.ainvoke,
        stream=lambda prompt: sum(1 for _ in model.stream(prompt)),
        astream=astream,
    )


def llamaindex_gateway(url: str, first: str | None = None, concurrency: int | None = None, **options: Any) -> Calls:
    """Ours for LlamaIndex."""
    from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM

    targets = _targets(url, first)
    # Its base class takes a number of workers: without it batches go one after the other.
    made = HFGatewayEmbedding(
        model_name=MODEL, targets=targets, num_workers=concurrency, **options, **_concurrency(concurrency)
    )
    model = HFGatewayLLM(model=MODEL, targets=targets, **options)

    async def astream(prompt: str) -> int:
        return sum([1 async for _ in await model.astream_complete(prompt)])

    return Calls(
        query=made.get_query_embedding,
        aquery=made.aget_query_embedding,
        documents=made.get_text_embedding_batch,
        adocuments=made.aget_text_embedding_batch,
        chat=model.complete,
        achat=model.acomplete,
        stream=lambda prompt: sum(1 for _ in model.stream_complete(prompt)),
        astream=astream,
    )


def langchain_nothing(url: str) -> Calls:  # noqa: ARG001 - it calls no server
    """A chat model of LangChain that answers by itself: what the class above it costs, whatever is beneath."""
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.outputs import ChatGeneration, ChatResult

    class Nothing(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "nothing"

        def _generate(self, *_: Any, **__: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage("word"))])

        async def _agenerate(self, *_: Any, **__: Any) -> ChatResult:
            return self._generate()

    model = Nothing()
    return Calls(chat=model.invoke, achat=model.ainvoke)


def langchain_by_hand(url: str) -> Calls:
    """The shortest chat model of LangChain over a `Gateway`: what is above the gateway, in a process that works for it, too.

    A class that calls no server is measured in a loop that fits into the processor's caches.
    """
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGeneration, ChatResult

    from hf_gateway import Gateway

    chain = Gateway(MODEL, _targets(url, None), task="chat")

    class ByHand(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "by-hand"

        def _generate(self, given: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage(chain.chat(given[0].text).text))])

        async def _agenerate(self, given: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
            answer = await chain.achat(given[0].text)
            return ChatResult(generations=[ChatGeneration(message=AIMessage(answer.text))])

    model = ByHand()
    return Calls(chat=model.invoke, achat=model.ainvoke)


def llamaindex_nothing(url: str) -> Calls:  # noqa: ARG001 - it calls no server
    """An LLM of LlamaIndex that answers by itself: what its instrumentation costs."""
    from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
    from llama_index.core.llms.callbacks import llm_completion_callback

    class Nothing(CustomLLM):
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata()

        @llm_completion_callback()
        def complete(self, *_: Any, **__: Any) -> CompletionResponse:
            return CompletionResponse(text="word")

        @llm_completion_callback()
        async def acomplete(self, *_: Any, **__: Any) -> CompletionResponse:
            return CompletionResponse(text="word")

        def stream_complete(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    model = Nothing()
    return Calls(chat=model.complete, achat=model.acomplete)
