"""LiteLLM: its functions, and its Router with a fallback. Retries are off, in both of its layers, as far as it lets them be."""

from typing import Any

from benchmarks.contenders.calls import Calls
from benchmarks.contenders.remote import in_batches, messages
from benchmarks.harness.server import MODEL


def functions(url: str, concurrency: int = 8) -> Calls:
    """`litellm.embedding`, `litellm.completion` and their async forms."""
    import litellm

    litellm.suppress_debug_info = True
    server = {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "none", "max_retries": 0}

    async def aembed(texts: list[str]) -> list[Any]:
        return [entry["embedding"] for entry in (await litellm.aembedding(input=texts, **server)).data]

    async def aquery(text: str) -> Any:
        return (await aembed([text]))[0]

    async def adocuments(texts: list[str]) -> list[Any]:
        return await in_batches(aembed, texts, concurrency)

    async def achat(prompt: str) -> Any:
        return await litellm.acompletion(messages=messages(prompt), **server)

    async def astream(prompt: str) -> int:
        pieces = await litellm.acompletion(messages=messages(prompt), stream=True, **server)
        return sum([1 async for _ in pieces])

    return Calls(
        query=lambda text: litellm.embedding(input=[text], **server).data[0]["embedding"],
        aquery=aquery,
        adocuments=adocuments,
        chat=lambda prompt: litellm.completion(messages=messages(prompt), **server),
        achat=achat,
        stream=lambda prompt: sum(1 for _ in litellm.completion(messages=messages(prompt), stream=True, **server)),
        astream=astream,
    )


def router(url: str, first: str | None = None, cooldowns: bool = True, concurrency: int = 8) -> Calls:
    """`Router` whose model falls back to another; without `first` both are the same healthy server."""
    import litellm

    litellm.suppress_debug_info = True
    bases = {"first": first or f"{url}/v1", "second": f"{url}/v1"}
    made = litellm.Router(
        model_list=[
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"openai/{MODEL}",
                    "api_base": base,
                    "api_key": "none",
                    "max_retries": 0,
                },
            }
            for name, base in bases.items()
        ],
        fallbacks=[{"first": ["second"]}],
        num_retries=0,
        disable_cooldowns=not cooldowns,
    )

    async def aembed(texts: list[str]) -> list[Any]:
        return [entry["embedding"] for entry in (await made.aembedding(model="first", input=texts)).data]

    async def aquery(text: str) -> Any:
        return (await aembed([text]))[0]

    async def adocuments(texts: list[str]) -> list[Any]:
        return await in_batches(aembed, texts, concurrency)

    async def achat(prompt: str) -> Any:
        return await made.acompletion(model="first", messages=messages(prompt))

    async def astream(prompt: str) -> int:
        pieces = await made.acompletion(model="first", messages=messages(prompt), stream=True)
        return sum([1 async for _ in pieces])

    def stream(prompt: str) -> int:
        return sum(1 for _ in made.completion(model="first", messages=messages(prompt), stream=True))

    return Calls(
        query=lambda text: made.embedding(model="first", input=[text]).data[0]["embedding"],
        aquery=aquery,
        adocuments=adocuments,
        chat=lambda prompt: made.completion(model="first", messages=messages(prompt)),
        achat=achat,
        stream=stream,
        astream=astream,
    )
