"""What reading a stream through the gateway costs over the bare HTTP client: `python -m benchmarks.stream_overhead`.

The server sends an answer of 2,000 events as fast as they are taken, from a process of its own. Alternated in one run; the bare
client cuts lines and reads the JSON of each event, and does nothing with it.
"""

import asyncio
import http.server
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx

from hf_gateway import Gateway
from langchain_hf_gateway import ChatHFGateway
from llamaindex_hf_gateway import HFGatewayLLM

ROUNDS, EVENTS = 7, 2000


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


_EVENTS = [_event({"content": f"word{number} "}) for number in range(EVENTS)]
STREAM = [*_EVENTS, _event({}, "stop"), b"data: [DONE]\n\n"]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in STREAM:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        pass


def _serve(port: Any) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    port.send(server.server_port)
    server.serve_forever()


def main() -> None:
    """Print medians an event and the ratio to the bare client of the same round."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{here.recv()}"
    target, body = f"openai:{url}", {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    client, async_client = httpx.Client(), httpx.AsyncClient()
    gateway = Gateway("m", [target], task="chat")
    langchain, llamaindex = ChatHFGateway(model="m", targets=[target]), HFGatewayLLM(model="m", targets=[target])
    loop = asyncio.new_event_loop()

    def bare() -> int:
        with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            return sum("choices" in json.loads(line[6:]) for line in response.iter_lines() if line[6:7] == "{")

    async def abare() -> int:
        count = 0
        async with async_client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if line[6:7] == "{":
                    count += "choices" in json.loads(line[6:])
        return count

    async def astream() -> int:
        count = 0
        async with gateway.astream("hi") as stream:
            async for _ in stream:
                count += 1
        return count

    cases: dict[str, Callable[[], Any]] = {
        "httpx": bare,
        "Gateway.stream": lambda: sum(1 for _ in gateway.stream("hi")),
        "ChatHFGateway.stream": lambda: sum(1 for _ in langchain.stream("hi")),
        "HFGatewayLLM.stream_complete": lambda: sum(1 for _ in llamaindex.stream_complete("hi")),
        "httpx async": lambda: loop.run_until_complete(abare()),
        "Gateway.astream async": lambda: loop.run_until_complete(astream()),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, call in cases.items():
            started = time.perf_counter()
            assert call() >= EVENTS
            times[name].append((time.perf_counter() - started) / EVENTS * 1e6)
    print(f"{f'{EVENTS} events':<32}{'median µs an event':>20}{'x bare':>8}")
    for name, values in times.items():
        base = times["httpx async" if "async" in name else "httpx"]
        ratio = statistics.median(one / other for one, other in zip(values, base, strict=True))
        print(f"{name:<32}{statistics.median(values):>20.1f}{ratio:>8.2f}")
    process.terminate()
    process.join()


if __name__ == "__main__":
    main()
