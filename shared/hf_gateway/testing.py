"""Test doubles for programs that use hf-gateway: a clock that does not wait, servers without sockets, and one that chats."""

import base64
import json
import struct
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from hf_gateway.errors import ConnectFailed
from hf_gateway.runtime.driver import Clock
from hf_gateway.runtime.effects import Open, Opened, Send
from hf_gateway.values.http import HttpResponse


class ManualClock(Clock):
    """A clock whose pauses end at once. waited: the pauses so far, in seconds."""

    def __init__(self, start: float = 1000.0) -> None:
        """Start at `start` seconds."""
        self._now = start
        self.waited: list[float] = []

    def now(self) -> float:
        """Return the current time."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the time forward."""
        self._now += seconds

    def sleep(self, seconds: float) -> None:
        """Move the time forward, and record the pause."""
        self.waited.append(seconds)
        self._now += seconds

    async def asleep(self, seconds: float) -> None:
        """Move the time forward, and record the pause."""
        self.sleep(seconds)


class Answering:
    """A transport (`Gateway(..., transport=...)`) of OpenAI-compatible embedding servers, without a network.

    servers: host → a function from n texts to n vectors; an unknown host refuses the connection. requests: the hosts that were
    called, in order.
    """

    def __init__(self, servers: Mapping[str, Callable[[list[str]], Sequence[Sequence[float]]]]) -> None:
        """Use the servers; the mapping may be changed between calls."""
        self.servers = servers
        self.requests: list[str] = []

    def send(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:  # noqa: ARG002
        """Answer at once.

        Args:
            send: the request.
            timeout: not used.
            connect_timeout: not used.
            target: label for errors.
        """
        host = urlsplit(send.request.url).netloc
        self.requests.append(host)
        if host not in self.servers:
            raise ConnectFailed(f"nothing answers at {host}", target=target)
        if send.request.body is None:
            return HttpResponse(404, {}, b"")
        answer = self._answer(self.servers[host], json.loads(send.request.body))
        return HttpResponse(200, {}, json.dumps(answer).encode())

    def _answer(self, server: Any, body: Mapping[str, Any]) -> Any:
        return {"data": self._data(server, body)}

    def _data(self, server: Any, body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return [{"index": place, "embedding": list(vector)} for place, vector in enumerate(server(body["input"]))]

    async def asend(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        """Answer at once.

        Args:
            send: the request.
            timeout: not used.
            connect_timeout: not used.
            target: label for errors.
        """
        return self.send(send, timeout=timeout, connect_timeout=connect_timeout, target=target)

    def open(self, send: Open, **_: Any) -> Opened:
        """Refuse: these servers do not support chat."""
        raise ConnectFailed(f"nothing streams at {send.request.url}")

    async def aopen(self, send: Open, **_: Any) -> Opened:
        """Refuse: these servers do not support chat."""
        return self.open(send)


class Drawing(Answering):
    """A transport (`ImageGateway(..., transport=...)`) of OpenAI-compatible servers for images, without a network.

    servers: host → a function from a prompt to the bytes of an image, such as `one_pixel`; an unknown host refuses the
    connection.
    """

    def __init__(self, servers: Mapping[str, Callable[[str], bytes]]) -> None:
        """Use the servers; the mapping may be changed between calls."""
        super().__init__(servers)  # type: ignore[arg-type] # of other functions

    def _data(self, server: Any, body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        image = base64.b64encode(server(body["prompt"])).decode()
        return [{"b64_json": image}] * int(body.get("n", 1))


class Labelling(Answering):
    """A transport (`ClassifyGateway(..., transport=...)`) of dedicated endpoints that label texts, without a network.

    servers: host → a function from a text and the given labels, which are empty for the model's own, to a score for each
    label; an unknown host refuses the connection.
    """

    def __init__(self, servers: Mapping[str, Callable[[str, Sequence[str]], Mapping[str, float]]]) -> None:
        """Use the servers; the mapping may be changed between calls."""
        super().__init__(servers)  # type: ignore[arg-type] # of other functions

    def _answer(self, server: Any, body: Mapping[str, Any]) -> Any:
        scores = server(body["inputs"], body["parameters"].get("candidate_labels", []))
        return [{"label": label, "score": score} for label, score in scores.items()]


Said = str | Mapping[str, Mapping[str, Any]]
"""What a model says: a text, or the tools that it calls, by name, each with its arguments."""


class TalkingServer:
    """A server of OpenAI's route for chats at a free port of 127.0.0.1, for programs that use a class of a framework.

    answer: a function from the body of a request, in OpenAI's form, to what the model says; called from many threads. url: where
    it is. requests: the bodies so far.
    """

    def __init__(self, answer: Callable[[Mapping[str, Any]], Said]) -> None:
        """Listen; requests are answered within the `with` block."""
        self.requests: list[Mapping[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(answer))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Answer requests from now on."""
        threading.Thread(target=self._server.serve_forever, name="talking-server", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and close the port."""
        self._server.shutdown()
        self._server.server_close()

    def _handler(self, answer: Callable[[Mapping[str, Any]], Said]) -> type[BaseHTTPRequestHandler]:
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            """Answers one connection."""

            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Answer a chat, in one event if it is to be streamed."""
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if not self.path.endswith("/chat/completions"):
                    self.send_error(404)
                    return
                requests.append(body)
                message, reason = _message(answer(body))
                base = {"id": f"chat-{len(requests)}", "created": 0, "model": body.get("model", "")}
                choice = {"index": 0, "finish_reason": reason}
                if not body.get("stream"):
                    whole = {**base, "object": "chat.completion", "choices": [{**choice, "message": message}]}
                    self._send(json.dumps(whole), "application/json")
                    return
                chunk = {**base, "object": "chat.completion.chunk", "choices": [{**choice, "delta": message}]}
                self._send(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n", "text/event-stream")

            def _send(self, text: str, kind: str) -> None:
                data = text.encode()
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        return Handler


def _message(said: Said) -> tuple[Mapping[str, Any], str]:
    """Return a message in OpenAI's form, and why it ends."""
    if isinstance(said, str):
        return {"role": "assistant", "content": said}, "stop"
    calls = [
        {
            "index": place,
            "id": f"call-{place}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for place, (name, arguments) in enumerate(said.items())
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls"


def one_pixel(prompt: str) -> bytes:
    """Return a PNG of one pixel, whose colour depends on the prompt."""
    colour = zlib.crc32(prompt.encode()).to_bytes(4, "big")[:3]
    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" + colour)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
