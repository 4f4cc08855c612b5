"""Servers on loopback that stand in for the real ones, and the vectors they answer with.

Each fake follows its server's API description, source and recorded traffic; `test_fake_servers.py` holds them to it.
"""

import hashlib
import math
from array import array
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import lru_cache

Embed = Callable[[list[str]], list[list[float]]]
"""What a fake embeds with: n texts → n vectors."""


def normalized(vector: Sequence[float]) -> list[float]:
    """Return `vector` scaled to length 1 and rounded to float32; a vector without a length comes back as it is."""
    length = math.sqrt(sum(value * value for value in vector))
    scale = 1 / length if length else 1.0
    return array("f", [value * scale for value in vector]).tolist()


def float32_base64(vector: Sequence[float]) -> str:
    """Return the vector as OpenAI's base64 form has it: little-endian float32."""
    numbers = array("f", vector)
    if array("H", [1]).tobytes()[0] == 0:
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode()


@lru_cache(maxsize=1 << 16)
def _unit_vector(text: str, dim: int) -> tuple[float, ...]:
    digest = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(2 * dim)
    return tuple(normalized([int.from_bytes(digest[i : i + 2], "little", signed=True) for i in range(0, 2 * dim, 2)]))


def unit_vectors(texts: Sequence[str], dim: int = 384) -> list[list[float]]:
    """Return n vectors of length 1, made from a hash of each text: equal texts, equal vectors, exact in float32."""
    return [list(_unit_vector(text, dim)) for text in texts]


def tokens(text: str) -> list[str]:
    """Return what the fakes count as tokens: the words, between a start and an end mark."""
    return ["[CLS]", *text.split(), "[SEP]"]


def truncated(text: str, limit: int, *, left: bool = False) -> str:
    """Return `text` cut to `limit` tokens, from the right or from the left; a text that fits is not touched."""
    words = text.split()
    if len(words) + 2 <= limit:
        return text
    keep = max(limit - 2, 0)
    return " ".join(words[len(words) - keep :] if left else words[:keep])
