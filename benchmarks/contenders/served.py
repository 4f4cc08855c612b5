"""Callers of a server with OpenAI's API: bodies are made beforehand and answers read to their end, but not parsed."""

import json
from typing import Any

from benchmarks.contenders.calls import PROMPT, Calls
from benchmarks.harness.server import MODEL


def caller(url: str, key: str, model: str = MODEL, chat: str = MODEL, encoding: str = "float") -> Calls:
    """One aiohttp session without a limit of connections. model, chat: names of the embedding and the chat model."""
    kept: list[Any] = []
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    asked: dict[str, Any] = {"model": chat, "messages": [{"role": "user", "content": PROMPT}]}
    whole, streamed = json.dumps(asked).encode(), json.dumps({**asked, "stream": True}).encode()

    def session() -> Any:
        if not kept:  # a session is made on the loop that uses it
            import aiohttp

            # Shorter than a server keeps a connection, so that none is used that it just closes.
            kept.append(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0), headers=headers)
            )
        return kept[0]

    async def post(path: str, body: bytes) -> bytes:
        async with session().post(f"{url}/v1{path}", data=body) as response:
            found: bytes = await response.read()
            if response.status != 200:
                raise RuntimeError(f"{response.status}: {found[:200].decode(errors='replace')}")
            return found

    async def aquery(text: str) -> Any:
        return await post(
            "/embeddings", json.dumps({"model": model, "input": [text], "encoding_format": encoding}).encode()
        )

    async def achat(prompt: str) -> Any:  # noqa: ARG001 - one prompt for all
        return await post("/chat/completions", whole)

    async def astream(prompt: str) -> int:  # noqa: ARG001 - one prompt for all
        found = await post("/chat/completions", streamed)
        if not found.rstrip().endswith(b"data: [DONE]"):
            raise RuntimeError(f"a stream without its end: {found[-200:].decode(errors='replace')}")
        return found.count(b"data: {")

    return Calls(aquery=aquery, achat=achat, astream=astream)
