"""Images as servers make them: valid files of one pixel, and OpenAI's images API around them."""

import base64
import hashlib
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from tests.servers.loopback import Reply

Draw = Callable[[str, int | None], bytes]
"""Makes an image of a prompt and a seed."""


def png(prompt: str, seed: int | None = None) -> bytes:
    """Return a PNG of one pixel, whose colour depends on the prompt and the seed."""
    colour = hashlib.sha256(f"{prompt}|{seed}".encode()).digest()[:3]
    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" + colour)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(40) + b"\xff\xd9"
WEBP = b"RIFF\x1a\x00\x00\x00WEBPVP8L" + bytes(14)


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def image_list(*images: bytes, **more: Any) -> dict[str, Any]:
    """Return the answer of OpenAI's images API."""
    return {"created": 1700000000, "data": [{"b64_json": base64_of(data)} for data in images], **more}


def images_answer(body: Mapping[str, Any], draw: Draw = png) -> Reply:
    """Return the answer of `/v1/images/generations` to a valid request."""
    first = body.get("seed")
    count = body.get("n", 1)
    return Reply(
        200, image_list(*(draw(body["prompt"], None if first is None else first + place) for place in range(count)))
    )
