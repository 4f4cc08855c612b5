"""text-embeddings-inference as far as one embedding needs it, as a program: `python toolkit_server.py PORT`."""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INFO = {
    "model_id": "BAAI/bge-small-en-v1.5",
    "model_dtype": "float32",
    "model_type": {"embedding": {"pooling": "cls"}},
    "max_input_length": 512,
    "max_client_batch_size": 32,
    "auto_truncate": False,
    "version": "1.8.0",
}
DIMENSION = 384


def vector(text: str) -> list[float]:
    """Return a normalized vector that depends on the text alone."""
    digest = hashlib.shake_256(text.encode()).digest(DIMENSION)
    numbers = [byte / 128 - 1 for byte in digest]
    length = sum(number * number for number in numbers) ** 0.5
    return [number / length for number in numbers]


class Toolkit(BaseHTTPRequestHandler):
    """Says what it serves, and embeds."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer /info; anything else is healthy."""
        self._send(INFO if self.path == "/info" else {})

    def do_POST(self) -> None:
        """Embed the inputs."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["inputs"]
        self._send([vector(text) for text in ([asked] if isinstance(asked, str) else asked)])

    def _send(self, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Toolkit).serve_forever()
