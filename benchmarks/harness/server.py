"""A loopback server that is never the bottleneck: asyncio's bare protocol, answers made beforehand; in a process of its own.

It speaks `/v1/embeddings` (floats or base64, as asked), `/v1/chat/completions` whole and streamed, `/v1/models`, and TEI's
`/info` and `/embed`; a POST with `inputs` to any other path is answered like `/embed`. A vector depends on its text alone and
has length 1.

A path may begin with `/flaky/<name>`: then two of three POSTs get 503. `/count` says how many POSTs were answered with 200,
and sets the count to 0.
"""

import asyncio
import base64
import json
import math
import multiprocessing
import struct
import zlib
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

MODEL = "bench/model"
"""No real one: vectors of a real one would be measured against it, and refused."""
_FLAKY = '{"error": {"message": "overloaded", "type": "overloaded_error", "code": 503}}'
_OWN = 3
"""Numbers at the start of a vector that differ from text to text: 12 bytes, which are 16 letters of base64 without padding."""
_THIRD = 0.1


@dataclass(frozen=True)
class Served:
    """How the server behaves. service_seconds: per request; batch_limit: texts, 0 for none; pieces: of a streamed answer."""

    service_seconds: float = 0.0
    batch_limit: int = 0
    dim: int = 384
    pieces: int = 8


class Answers:
    """The bodies of all answers."""

    def __init__(self, served: Served) -> None:
        """Make what is the same in every answer."""
        self.served = served
        tail = [math.sin(place + 1) for place in range(served.dim - _OWN)]
        length = math.sqrt(sum(value * value for value in tail) / (0.5 - _THIRD**2))
        tail = [value / length for value in tail]
        self._floats = ",".join(f"{value:.9f}" for value in tail)
        self._base64 = base64.b64encode(struct.pack(f"<{len(tail)}f", *tail)).decode()
        usage: dict[str, Any] = {
            "prompt_tokens": 12,
            "completion_tokens": served.pieces,
            "total_tokens": 12 + served.pieces,
        }
        words = [f"word{number} " for number in range(served.pieces)]
        self.chat = json.dumps(
            _chat("chat.completion", {"message": {"role": "assistant", "content": "".join(words)}}, "stop")
            | {"usage": usage}
        ).encode()
        deltas = [_chat("chat.completion.chunk", {"delta": {"content": word}}, None) for word in words]
        deltas.insert(0, _chat("chat.completion.chunk", {"delta": {"role": "assistant", "content": ""}}, None))
        deltas.append(_chat("chat.completion.chunk", {"delta": {}}, "stop"))
        last = _chat("chat.completion.chunk", {"delta": {}}, None) | {"choices": [], "usage": usage}
        self.stream = _chunked(deltas, [])
        self.stream_with_usage = _chunked(deltas, [last])
        self.models = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()
        limit = served.batch_limit or 4096
        info: dict[str, Any] = {
            "model_id": MODEL,
            "model_type": {"embedding": {"pooling": "mean"}},
            "model_dtype": "float32",
        }
        info |= {"max_client_batch_size": limit, "max_input_length": 512, "version": "1.9.3"}
        self.info = json.dumps(info).encode()

    def _own(self, text: str) -> tuple[float, float, float]:
        angle = zlib.crc32(text.encode()) / 2**32 * math.tau
        return math.sqrt(0.5) * math.cos(angle), math.sqrt(0.5) * math.sin(angle), _THIRD

    def row(self, text: str) -> str:
        """Return a vector as JSON."""
        one, two, three = self._own(text)
        return f"[{one:.9f},{two:.9f},{three},{self._floats}]"

    def row_base64(self, text: str) -> str:
        """Return a vector as a string of little-endian float32 in base64."""
        return f'"{base64.b64encode(struct.pack("<3f", *self._own(text))).decode()}{self._base64}"'

    def embeddings(self, texts: list[str], encoding: str) -> bytes:
        """Return OpenAI's list."""
        row = self.row_base64 if encoding == "base64" else self.row
        data = ",".join(
            f'{{"object":"embedding","index":{place},"embedding":{row(text)}}}' for place, text in enumerate(texts)
        )
        usage = f'{{"prompt_tokens":{len(texts)},"total_tokens":{len(texts)}}}'
        return f'{{"object":"list","data":[{data}],"model":"{MODEL}","usage":{usage}}}'.encode()

    def embed(self, texts: list[str]) -> bytes:
        """Return TEI's rows."""
        return f"[{','.join(map(self.row, texts))}]".encode()

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, bytes, bool]:
        """Return status, body and whether the body is a stream that is chunked already."""
        if path.endswith("/chat/completions"):
            if not body.get("stream"):
                return 200, self.chat, False
            wanted = (body.get("stream_options") or {}).get("include_usage")
            return 200, self.stream_with_usage if wanted else self.stream, True
        given = body.get("input") if path.endswith("/embeddings") else body.get("inputs")
        texts = [given] if isinstance(given, str) else list(given or ())
        limit = self.served.batch_limit
        if limit and len(texts) > limit:
            message = f"batch size {len(texts)} > maximum allowed batch size {limit}"
            return 422, json.dumps({"error": message, "error_type": "Validation"}).encode(), False
        if path.endswith("/embeddings"):
            return 200, self.embeddings(texts, body.get("encoding_format", "float")), False
        return 200, self.embed(texts), False


def _chat(kind: str, content: dict[str, Any], finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, **content, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": MODEL, "choices": [choice]}


def _chunked(events: list[dict[str, Any]], more: list[dict[str, Any]]) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n".encode() for event in [*events, *more]] + [b"data: [DONE]\n\n"]
    return b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines) + b"0\r\n\r\n"


@dataclass
class _State:
    answers: Answers
    count: int = 0
    flaky: dict[str, int] = field(default_factory=dict)


class _Connection(asyncio.Protocol):
    """One request after the other; no pipelining, no chunked requests: no client here sends them."""

    def __init__(self, state: _State) -> None:
        self._state, self._buffer = state, b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        size = 0
        for line in head.split(b"\r\n")[1:]:
            if line[:15].lower() == b"content-length:":
                size = int(line[15:])
        if len(rest) < size:
            return
        self._buffer = rest[size:]
        method, path, _ = head.split(b" ", 2)
        self._serve(method, path.decode(), rest[:size], asyncio.get_running_loop().time())

    def _serve(self, method: bytes, path: str, body: bytes, arrived: float) -> None:
        answers, state = self._state.answers, self._state
        if method == b"GET":
            if path == "/count":
                self._send(200, str(state.count).encode())
                state.count = 0
            else:
                known = {"models": answers.models, "info": answers.info, "health": b"{}"}
                found = known.get(path.rsplit("/", 1)[-1])
                self._send(200 if found else 404, found or b"{}")
            return
        if path.startswith("/flaky/"):
            name = path.split("/")[2]
            state.flaky[name] = state.flaky.get(name, 0) + 1
            if state.flaky[name] % 3:
                self._send(503, _FLAKY.encode())
                return
        status, content, streamed = answers.reply(path, json.loads(body))
        state.count += status == 200
        if seconds := answers.served.service_seconds:
            # From the request's arrival: what it takes to make the answer is within the service time.
            asyncio.get_running_loop().call_at(arrived + seconds, self._send, status, content, streamed)
        else:
            self._send(status, content, streamed)

    def _send(self, status: int, body: bytes, streamed: bool = False) -> None:
        head = f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}\r\ncontent-type: "
        if streamed:
            head += "text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        else:
            head += f"application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        if not self._transport.is_closing():
            self._transport.write(head.encode() + body)


def _run(served: Served, port: Any) -> None:
    async def serve() -> None:
        state = _State(Answers(served))
        server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(state), "127.0.0.1", 0, backlog=2048
        )
        port.send(server.sockets[0].getsockname()[1])
        with suppress(EOFError):
            await asyncio.to_thread(port.recv)  # nothing ever comes: it ends with the parent's end of the pipe

    with suppress(KeyboardInterrupt):
        asyncio.run(serve())


class Server(AbstractContextManager["Server"]):
    """The server in a process of its own, while entered."""

    def __init__(self, served: Served = Served()) -> None:
        """Start nothing yet."""
        self._served = served
        self.url = ""

    def __enter__(self) -> Self:
        """Start it."""
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_run, args=(self._served, there), daemon=True)
        self._process.start()
        there.close()
        self.url = f"http://127.0.0.1:{self._pipe.recv()}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    def count(self) -> int:
        """Return how many requests were served since this was last asked."""
        import urllib.request

        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/count", timeout=10) as answer:
            return int(answer.read())
