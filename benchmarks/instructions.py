"""How many processor instructions a call takes: `python -m benchmarks.instructions [--tree FOLDER] [--http]`.

Times of a busy machine differ by more than a change does; valgrind (which must be installed) counts the same number each time.
Each kind of call is run by a process of its own, with two numbers of calls, so that the start cancels out. The answers come from
a transport in the same process, with `--http` from a loopback server; then the framework's classes, those that do nothing and
httpx by hand can be counted, too (`--kinds`). `--tree` counts another checkout of this repository by its own `.venv`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KINDS = ("embed", "aembed", "chat", "achat")
OVER_HTTP = {
    "httpx": "httpx",
    "LangChain": "langchain_gateway",
    "LangChain-nothing": "langchain_nothing",
    "LlamaIndex": "llamaindex_gateway",
    "LlamaIndex-nothing": "llamaindex_nothing",
}
"""Contenders for a chat, blocking or (with a "-async" behind their name) async."""
WATCHERS: dict[str, dict[str, str]] = {
    "no watcher": {},
    "Prometheus": {"HF_GATEWAY_PROMETHEUS": "1"},
    "OpenTelemetry": {"HF_GATEWAY_OTEL": "1"},
}
FEW, MANY = 100, 300
"""Calls of the two processes whose difference is taken."""


class Servers:
    """A transport that answers like a server of OpenAI's protocol, at once and in this process."""

    def __init__(self) -> None:
        """Make the answers that do not depend on the request."""
        from benchmarks.harness.server import Answers, Served

        self._answers = Answers(Served())

    def send(self, send: Any, **_: Any) -> Any:
        """Answer a request."""
        from hf_gateway.values.http import HttpResponse

        body = json.loads(send.request.body)
        return HttpResponse(200, {"content-type": "application/json"}, self._answers.reply(send.request.url, body)[1])

    async def asend(self, send: Any, **_: Any) -> Any:
        """Answer a request."""
        return self.send(send)

    def open(self, send: Any, **_: Any) -> Any:
        """Answer a request for a stream."""
        from hf_gateway.runtime.effects import Opened

        chunked = self._answers.reply(send.request.url, {"stream": True, "stream_options": {"include_usage": True}})[1]
        events = b"".join(re.findall(rb"data: .*\n\n", chunked))
        return Opened(200, {"content-type": "text/event-stream"}, _Body([events]))

    async def aopen(self, send: Any, **_: Any) -> Any:
        """Answer a request for a stream."""
        return self.open(send)


class _Body:
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def read(self, timeout: float) -> bytes | None:  # noqa: ARG002 - a body's interface
        return self._pieces.pop(0) if self._pieces else None

    async def aread(self, timeout: float) -> bytes | None:
        return self.read(timeout)

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


def call(kind: str, count: int) -> None:
    """Make calls of one kind, one after the other."""
    from benchmarks.harness.server import MODEL
    from hf_gateway import Gateway

    name = kind.removesuffix("-async")
    if name in OVER_HTTP:
        from benchmarks.contenders import remote
        from benchmarks.contenders.calls import Timed

        made = getattr(remote, OVER_HTTP[name])(os.environ["BENCH_URL"])
        Timed(made).carry_out("one", call="achat" if kind.endswith("-async") else "chat", n=count)
        return
    if os.environ.get("HF_GATEWAY_OTEL"):
        from benchmarks.contenders import observed

        observed._set_up()
    task = "chat" if "chat" in kind else "embedding"
    url = os.environ.get("BENCH_URL")
    gateway: Any = Gateway(
        MODEL, f"openai:{url or 'http://in-process'}", task=task, transport=None if url else Servers()
    )
    inputs: list[Any] = ["Why?"] * count if task == "chat" else [[f"text {number}"] for number in range(count)]
    function = getattr(gateway, kind)
    if kind.startswith("a"):

        async def all_of_them() -> None:
            for value in inputs:
                await function(value)

        asyncio.run(all_of_them())
    else:
        for value in inputs:
            function(value)


def instructions(tree: Path, kind: str, count: int, variables: dict[str, str]) -> int:
    """Count the instructions of a process that makes so many calls."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, **variables, "HF_GATEWAY_HOME": home, "PYTHONHASHSEED": "0"}
        counted = subprocess.run(
            [
                *("valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={home}/out"),
                *(str(tree / ".venv" / "bin" / "python"), "-P", __file__, "--call", kind, str(count)),
            ],
            cwd=tree,
            env={**environment, "PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            check=True,
        )
    found = re.search(r"I\s+refs:\s+([\d,]+)", counted.stderr)
    assert found, counted.stderr
    return int(found[1].replace(",", ""))


def main() -> None:
    """Print the thousands of instructions of each kind of call."""
    known = [*KINDS, *OVER_HTTP, *(f"{name}-async" for name in OVER_HTTP)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to count")
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=known)
    parser.add_argument("--watchers", nargs="*", default=list(WATCHERS), choices=list(WATCHERS))
    parser.add_argument("--http", action="store_true", help="over loopback instead of a transport in the process")
    parser.add_argument("--call", nargs=2, metavar=("KIND", "COUNT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.call:
        return call(chosen.call[0], int(chosen.call[1]))
    with contextlib.ExitStack() as ends:
        url = ends.enter_context(_server()) if chosen.http else ""
        for watcher in chosen.watchers:
            variables = WATCHERS[watcher] | {"BENCH_URL": url}
            for kind in chosen.kinds:
                few, many = (instructions(chosen.tree, kind, count, variables) for count in (FEW, MANY))
                print(f"{watcher:<16}{kind:<26}{(many - few) / (MANY - FEW) / 1000:>10,.1f} k", flush=True)
    return None


@contextlib.contextmanager
def _server() -> Iterator[str]:
    from benchmarks.harness.server import Server

    with Server() as server:
        yield server.url


if __name__ == "__main__":
    sys.exit(main())
