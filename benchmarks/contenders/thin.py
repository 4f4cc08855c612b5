"""The least that a gateway can be: Starlette and aiohttp, a key that is looked up, a model's name that is replaced.

`python -m benchmarks.contenders.thin UPSTREAM KEY` prints its address and serves until it is ended.
"""

import contextlib
import hashlib
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


def app(upstream: str, key: str) -> Starlette:
    """Return the application."""
    known = {hashlib.sha256(key.encode()).digest()}
    kept: list[aiohttp.ClientSession] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as session:
            kept.append(session)
            yield

    async def forward(request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if hashlib.sha256(given.encode()).digest() not in known:
            return JSONResponse({"error": {"message": "no such key"}}, 401)
        body = orjson.loads(await request.body())
        if not isinstance(body, dict) or "model" not in body:
            return JSONResponse({"error": {"message": "no model"}}, 400)
        body["model"] = "bench/model"
        answer = await kept[0].post(f"{upstream}{request.url.path}", json=body)
        if not body.get("stream"):
            async with answer:
                return Response(await answer.read(), answer.status, media_type="application/json")

        async def relay() -> AsyncIterator[bytes]:
            async with answer:
                async for line in answer.content:  # event by event, as a gateway that reads them has to
                    yield line

        return StreamingResponse(relay(), answer.status, media_type="text/event-stream")

    paths = ("/v1/embeddings", "/v1/chat/completions")
    return Starlette(routes=[Route(path, forward, methods=["POST"]) for path in paths], lifespan=lifespan)


def serve(upstream: str, key: str) -> None:
    """Serve on a free port of loopback, and print the address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app(upstream, key), log_level="error", access_log=False)).run([listening])


if __name__ == "__main__":
    serve(*sys.argv[1:])
