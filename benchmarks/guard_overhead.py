"""What the guard of vector spaces adds to a call of 32 texts in steady state: `python -m benchmarks.guard_overhead`.

The same loopback server in a process of its own answers three gateways in turns: with check_space, which rides a
canary along every 1,000 requests, without it, and without it once more, which shows how much of a difference is noise. The
check itself, before a target's first vector, is not counted; the canaries that ride along are.
"""

import http.server
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from functools import cache
from typing import Any

TEXTS, DIM = 32, 384
CALLS = 4000
"""Each, so that canaries ride along four times."""
GUARDED, BARE, AGAIN = "check_space=True", "check_space=False", "check_space=False, again"


@cache
def _vector(text: str) -> str:
    row = [math.sin((place + 1) * (1 + sum(map(ord, text)) % 97)) for place in range(DIM)]
    length = math.sqrt(sum(value * value for value in row))
    return json.dumps([value / length for value in row])


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        rows = ",".join(f'{{"index": {place}, "embedding": {_vector(text)}}}' for place, text in enumerate(texts))
        self._reply(200, f'{{"data": [{rows}], "usage": {{"prompt_tokens": {len(texts)}}}}}'.encode())

    def do_GET(self) -> None:
        self._reply(404, b"{}")

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _serve(port: Any) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.RequestHandlerClass.disable_nagle_algorithm = True  # type: ignore[attr-defined]
    port.send(server.server_port)
    server.serve_forever()


def _drained(steps: Any) -> Any:
    try:
        while True:
            next(steps)
    except StopIteration as done:
        return done.value


def _in_process(gateway: Any, answer: Any) -> float:
    """Microseconds a call of what the guard does in steady state: `refusal`, `admit` and `answered`."""
    link = gateway._links[0]
    link.guard.standing(link).vouched = 10**9  # no canary meanwhile
    calls = 20_000
    started = time.perf_counter()
    for _ in range(calls):
        link.guard.refusal(link)
        _drained(link.guard.admit(link))
        _drained(link.guard.answered(link, answer))
    return (time.perf_counter() - started) / calls * 1e6


def main() -> None:
    """Print medians and ratios."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{here.recv()}"
    with tempfile.TemporaryDirectory() as home:
        os.environ["HF_GATEWAY_HOME"] = home
        _measure(url)
    process.terminate()
    process.join()


def _measure(url: str) -> None:
    from hf_gateway import Gateway
    from hf_gateway.embedding import EmbedAnswer

    texts = [f"A sentence of some length, the {number}th of those that are embedded." for number in range(TEXTS)]
    gateways = {
        name: Gateway("bench/model", [f"openai:{url}"], check_space=name == GUARDED) for name in (GUARDED, BARE, AGAIN)
    }
    vectors = gateways[GUARDED].embed(texts).vectors
    times: dict[str, list[float]] = {name: [] for name in gateways}
    names = list(gateways)
    for number in range(CALLS):
        for name in names[number % 3 :] + names[: number % 3]:
            started = time.perf_counter()
            gateways[name].embed(texts)
            times[name].append((time.perf_counter() - started) * 1e6)
    print(f"{TEXTS} texts, {DIM} numbers, {CALLS} calls each")
    print(f"{'':<28}{'median µs':>10}{'mean µs':>10}{'x bare':>9}")
    for name in names:
        ratio = statistics.median(one / other for one, other in zip(times[name], times[BARE], strict=True))
        print(f"{name:<28}{statistics.median(times[name]):>10.0f}{statistics.fmean(times[name]):>10.0f}{ratio:>9.4f}")
    guard = _in_process(gateways[GUARDED], EmbedAnswer(vectors))
    idle = _in_process(gateways[BARE], EmbedAnswer(vectors))
    share = guard / statistics.median(times[BARE])
    print(f"the guard's own work: {guard:.2f} µs a call ({share:.2%} of one), switched off: {idle:.2f} µs")


if __name__ == "__main__":
    main()
