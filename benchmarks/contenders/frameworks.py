"""LangChain's and LlamaIndex's own classes for servers. `first`: another server that is to be asked before, or None."""

import os
from typing import Any

from benchmarks.contenders.calls import Calls
from benchmarks.harness.server import MODEL

BATCH_TEXTS = 32


def langchain_openai(url: str, first: str | None = None, concurrency: int = 8) -> Calls:
    """`OpenAIEmbeddings` and `ChatOpenAI`, without retries; with `first`, `ChatOpenAI(...).with_fallbacks`.

    `check_embedding_ctx_length=False` is what its documentation says for servers that are not OpenAI's. `concurrency` has no
    effect: the class sends one batch after the other.
    """
    del concurrency
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    def chat_model(base: str) -> Any:
        return ChatOpenAI(model=MODEL, base_url=base, api_key="none", max_retries=0)

    made = OpenAIEmbeddings(
        model=MODEL,
        base_url=f"{url}/v1",
        api_key="none",
        check_embedding_ctx_length=False,
        chunk_size=BATCH_TEXTS,
        max_retries=0,
    )
    model = chat_model(f"{url}/v1")
    if first:
        model = chat_model(first).with_fallbacks([model])

    async def astream(prompt: str) -> int:
        return sum([1 async for _ in model.astream(prompt)])

    chat = {
        "chat": model.invoke,
        "achat": model.ainvoke,
        "stream": lambda prompt: sum(1 for _ in model.stream(prompt)),
        "astream": astream,
    }
    if first:  # there are no fallbacks for embeddings
        return Calls(**chat)
    return Calls(
        query=made.embed_query,
        aquery=made.aembed_query,
        documents=made.embed_documents,
        adocuments=made.aembed_documents,
        **chat,
    )


def _let_huggingface_hub_out(url: str) -> None:
    """Let its inference clients call the loopback server, which offline they refuse; the Hub itself is that server, too."""
    os.environ |= {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "HF_ENDPOINT": url}


def langchain_huggingface(url: str, concurrency: int = 8) -> Calls:
    """`HuggingFaceEndpointEmbeddings`, and `ChatHuggingFace` over a `HuggingFaceEndpoint`.

    The clients of the first are pointed at the server by hand, since the class refuses a URL.
    """
    del concurrency
    _let_huggingface_hub_out(url)
    from huggingface_hub import AsyncInferenceClient, InferenceClient
    from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint, HuggingFaceEndpointEmbeddings

    made = HuggingFaceEndpointEmbeddings(model=MODEL, huggingfacehub_api_token="none", provider="hf-inference")
    made.client, made.async_client = InferenceClient(model=f"{url}/embed"), AsyncInferenceClient(model=f"{url}/embed")
    endpoint = HuggingFaceEndpoint(
        endpoint_url=f"{url}/v1/chat/completions", huggingfacehub_api_token="none", task="text-generation"
    )
    model = ChatHuggingFace(llm=endpoint, model_id=MODEL)

    async def astream(prompt: str) -> int:
        return sum([1 async for _ in model.astream(prompt)])

    return Calls(
        query=made.embed_query,
        aquery=made.aembed_query,
        documents=made.embed_documents,
        chat=model.invoke,
        achat=model.ainvoke,
        stream=lambda prompt: sum(1 for _ in model.stream(prompt)),
        astream=astream,
    )


def llamaindex_openai(url: str, concurrency: int = 8) -> Calls:
    """`OpenAILikeEmbedding` and `OpenAILike`."""
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding
    from llama_index.llms.openai_like import OpenAILike

    made = OpenAILikeEmbedding(
        model_name=MODEL,
        api_base=f"{url}/v1",
        api_key="none",
        embed_batch_size=BATCH_TEXTS,
        num_workers=concurrency,
        max_retries=0,
    )
    model = OpenAILike(model=MODEL, api_base=f"{url}/v1", api_key="none", is_chat_model=True, max_retries=0)
    return _llamaindex(made, model)


def llamaindex_tei(url: str, concurrency: int = 8) -> Calls:
    """`TextEmbeddingsInference`."""
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    made = TextEmbeddingsInference(model_name=MODEL, base_url=url, embed_batch_size=BATCH_TEXTS)
    made.num_workers = concurrency  # a field of the base class that the constructor does not take
    return _llamaindex(made, None)


def llamaindex_huggingface(url: str, concurrency: int = 8) -> Calls:
    """`HuggingFaceInferenceAPIEmbedding`, one request a text, and `HuggingFaceInferenceAPI`."""
    del concurrency
    _let_huggingface_hub_out(url)
    from llama_index.embeddings.huggingface_api import HuggingFaceInferenceAPIEmbedding
    from llama_index.llms.huggingface_api import HuggingFaceInferenceAPI

    made = HuggingFaceInferenceAPIEmbedding(model_name=f"{url}/embed", embed_batch_size=BATCH_TEXTS)
    model = HuggingFaceInferenceAPI(model_name=f"{url}/v1/chat/completions", is_chat_model=True, task="conversational")
    return _llamaindex(made, model)


def _llamaindex(made: Any, model: Any) -> Calls:
    calls = Calls(
        query=made.get_query_embedding,
        aquery=made.aget_query_embedding,
        documents=made.get_text_embedding_batch,
        adocuments=made.aget_text_embedding_batch,
    )
    if model is not None:
        from llama_index.core.llms import ChatMessage

        async def achat(prompt: str) -> Any:
            return await model.achat([ChatMessage(content=prompt)])

        async def astream(prompt: str) -> int:
            return sum([1 async for _ in await model.astream_chat([ChatMessage(content=prompt)])])

        calls.chat = lambda prompt: model.chat([ChatMessage(content=prompt)])
        calls.achat, calls.astream = achat, astream
        calls.stream = lambda prompt: sum(1 for _ in model.stream_chat([ChatMessage(content=prompt)]))
    return calls
