"""What the pods need beside them, started for the test: PostgreSQL, Redis, and a server of models with one answer to chats."""

import contextlib
import hashlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

START_S = 60.0


def free_port() -> int:
    """Return a port at which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Start a PostgreSQL of the machine's package in a folder of its own; yield the URL of an empty database."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if not folders:
        pytest.skip("no PostgreSQL is installed: the chart's pods are not run")
    owner = pwd.getpwnam("postgres")
    place, port = Path(tempfile.mkdtemp(prefix="pg-", dir="/var/tmp")), free_port()
    os.chown(place, owner.pw_uid, owner.pw_gid)
    common = {"user": owner.pw_uid, "group": owner.pw_gid, "cwd": "/", "stdout": subprocess.DEVNULL}
    options = ["--auth=trust", "--username=gateway", "--no-sync", "--encoding=UTF8", "--pgdata", str(place / "data")]
    subprocess.run([str(folders[0] / "initdb"), *options], check=True, timeout=START_S, **common)  # type: ignore[call-overload]
    where = ["-D", str(place / "data"), "-p", str(port), "-k", str(place), "-h", "127.0.0.1", "-F"]
    process = subprocess.Popen([str(folders[0] / "postgres"), *where], stderr=subprocess.DEVNULL, **common)  # type: ignore[call-overload]
    url = f"postgresql://gateway@127.0.0.1:{port}/postgres"
    try:
        for _ in _moments():
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=2):
                break
        yield url
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(place)


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Start a Redis that keeps nothing; yield its URL."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server is installed: the chart's pods are not run")
    port = free_port()
    process = subprocess.Popen(
        [program, "--port", str(port), "--save", "", "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL, cwd="/tmp"
    )
    try:
        for _ in _moments():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(30)


def _moments() -> Iterator[None]:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        yield
        time.sleep(0.1)
    raise AssertionError(f"not started within {START_S} s")


EMBEDDING_MODEL, CHAT_MODEL = "owner/embed-small", "owner/talker"
"""What the server of models lists."""
DIMENSION = 32


class _Model(BaseHTTPRequestHandler):
    """Answers chats and embeds texts as OpenAI's API does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """List the models."""
        if self.path != "/v1/models":
            self.send_error(404)
            return
        listed = [{"id": name, "object": "model"} for name in (EMBEDDING_MODEL, CHAT_MODEL)]
        self._send(json.dumps({"object": "list", "data": listed}).encode(), "application/json")

    def do_POST(self) -> None:
        """Answer; a chat in pieces if that is wanted."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/v1/embeddings":
            texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
            data = [{"object": "embedding", "index": at, "embedding": _vector(text)} for at, text in enumerate(texts)]
            told = {
                "object": "list",
                "model": asked["model"],
                "data": data,
                "usage": {"prompt_tokens": 1, "total_tokens": 1},
            }
            self._send(json.dumps(told).encode(), "application/json")
            return
        base: dict[str, Any] = {"id": "1", "created": 1, "model": asked.get("model", "m")}
        if asked.get("stream"):
            deltas: list[dict[str, Any]] = [
                {"role": "assistant", "content": ""},
                *({"content": word} for word in ("Hello", " there")),
            ]
            choices: list[list[dict[str, Any]]] = [
                [{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas
            ]
            choices.append([{"index": 0, "delta": {}, "finish_reason": "stop"}])
            events = [{**base, "object": "chat.completion.chunk", "choices": each} for each in choices]
            body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
            self._send(body.encode(), "text/event-stream")
            return
        message = {"role": "assistant", "content": "Hello there"}
        answer: dict[str, Any] = {
            **base,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        self._send(
            json.dumps({**answer, "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}).encode(),
            "application/json",
        )

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def _vector(text: str) -> list[float]:
    """Return numbers that depend on the text alone, and are others for another text."""
    digest = hashlib.sha256(text.encode()).digest()
    numbers = [byte / 128 - 1 for byte in digest[:DIMENSION]]
    length = sum(number * number for number in numbers) ** 0.5
    return [number / length for number in numbers]


@contextlib.contextmanager
def model_server() -> Iterator[str]:
    """Serve chats and embeddings at a free port; yield the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
