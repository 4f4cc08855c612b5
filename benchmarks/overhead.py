"""What the gateway adds to one small request over the bare HTTP client, alternated in one run: `python -m benchmarks.overhead`.

The server answers on loopback from a process of its own, with one constant vector.
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

ROUNDS, CALLS = 7, 200
BODY = json.dumps({"data": [{"index": 0, "embedding": [0.0519] * 384}], "usage": {"prompt_tokens": 3}}).encode()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: Any) -> None:
        pass


def _serve(port: Any) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.RequestHandlerClass.disable_nagle_algorithm = True  # type: ignore[attr-defined]
    port.send(server.server_port)
    server.serve_forever()


def _microseconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) / CALLS * 1e6


def main() -> None:
    """Print medians and the ratio to the bare client of the same round."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{here.recv()}"
    client, gateway = httpx.Client(), Gateway("m", [f"openai:{url}"])
    failing_over = Gateway("m", ["hf", f"openai:{url}"])
    loop = asyncio.new_event_loop()
    async_client = httpx.AsyncClient()

    def bare() -> Any:
        return client.post(f"{url}/v1/embeddings", json={"input": ["text"], "model": "m"}).json()

    async def abare() -> Any:
        return (await async_client.post(f"{url}/v1/embeddings", json={"input": ["text"], "model": "m"})).json()

    cases: dict[str, Callable[[], Any]] = {
        "httpx": bare,
        "gateway": lambda: gateway.embed(["text"]),
        "gateway, first target without its key": lambda: failing_over.embed(["text"]),
        "httpx async": lambda: loop.run_until_complete(abare()),
        "gateway async": lambda: loop.run_until_complete(gateway.aembed(["text"])),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, call in cases.items():
            times[name].append(_microseconds(call))
    print(f"{'one text, 384 numbers':<42}{'median µs':>10}{'x bare':>8}")
    for name, values in times.items():
        base = times["httpx async" if "async" in name else "httpx"]
        ratio = statistics.median(one / other for one, other in zip(values, base, strict=True))
        print(f"{name:<42}{statistics.median(values):>10.0f}{ratio:>8.2f}")
    process.terminate()
    process.join()


if __name__ == "__main__":
    main()
