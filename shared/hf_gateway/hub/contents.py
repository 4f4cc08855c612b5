"""Inspects files before they are published: tensors, pickles under other names, keys and local paths.

Files are only read: nothing is loaded, run or changed. The safetensors format: github.com/huggingface/safetensors,
README, "Format".
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

MAX_HEADER_BYTES = 25_000_000
"""Maximum size of a header in bytes; the Hub reads no longer header."""

_NAMES_BY_BITS = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
    16: "I16 U16 F16 BF16",
    32: "I32 U32 F32",
    64: "I64 U64 F64 C64",
}
_BITS = {name: bits for bits, names in _NAMES_BY_BITS.items() for name in names.split()}

# Separate patterns, since each can then search for its own literal prefix, which is fast.
_SECRETS = {
    re.compile(pattern): kind
    for pattern, kind in (
        (r"hf_(?:oauth_)?[A-Za-z0-9]{20,}", "a Hugging Face token"),
        (r"api_org_[A-Za-z0-9]{20,}", "a Hugging Face token"),
        (r"(?<![A-Za-z0-9])sk-(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{20,}", "an API key"),
        (r"AKIA[A-Z0-9]{16}", "an AWS key"),
        (r"ASIA[A-Z0-9]{16}", "an AWS key"),
        (r"gh[pousr]_[A-Za-z0-9]{30,}", "a GitHub token"),
        (r"github_pat_\w{30,}", "a GitHub token"),
        (r"AIza[A-Za-z0-9_-]{35}", "a Google key"),
        (r"xox[abeoprs]-[A-Za-z0-9-]{10,}", "a Slack token"),
        (r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}", "a signed token"),
        (r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----", "a private key"),
        (r"://[^\s/:@\"'<>]+:(?!\d+/)[^\s@\"'<>]+@", "a password in a URL"),
    )
} | {
    re.compile(
        r"(?:api[_-]?key|secret|passwo?r?d|(?:access|auth|private|refresh)[_-]?token)[\"']?\s*[:=]\s*[\"']?[\w+/=.-]{16,}",
        re.IGNORECASE,
    ): "a key by its name"
}

# URLs are skipped, up to a second `//`: after that, the cards of trainers contain the model's path.
_URL = r"https?://(?:(?!//)[^\s\"'`<>|,;()\[\]{}])*"
# After a letter or a digit it is a relative path; except in `-I/home/ada` and after an escaped newline in JSON.
_BEFORE_A_PATH = r"(?:(?<![\w~%])|(?<=[\s\"'=]-[A-Za-z])|(?<=\\[nrt]))"
_REST_OF_A_PATH = r"[^\s\"'`<>|,;()\[\]{}]*"
# Chat templates call the folder of a code interpreter `/mnt/data`.
_ROOTS = (
    r"/(?:home|Users|root|tmp|var/folders|[A-Za-z]/Users)/[\w.]|/mnt/(?!data(?![\w/-]|\.\w))[\w.]"
    r"|/(?:Volumes|content/drive|gpfs|kaggle|lustre|nfs|private/(?:tmp|var)|scratch)/[\w.]"
    r"|file:/|(?i:[A-Z]:[\\/]+Users[\\/]+\w|[A-Z]:\\{1,2}[\w.-]+\\)"
)
# Below other roots a path is distinguished from `/v1/models` by its existence here; folders of every machine are skipped.
_ANY_PATH = r"/(?!(?:usr|bin|sbin|lib\w*|etc|dev|proc|sys)/|mnt/data(?![\w/-]|\.\w))[\w.@+-]+/[\w.@+-]"
_ANY_ROOT = re.compile(r"~?/[\w.@+ -]+/|[A-Za-z]:[\\/]|\\\\\w|file:")


class LocalPaths:
    """Finds local paths in texts: below the usual roots, the user's home, and the parents of one folder.

    Hub ids and URLs are not local paths.
    """

    def __init__(self, folder: Path) -> None:
        """Compile the patterns for a folder; no file is read."""
        own = {path for start in (folder.absolute(), folder.resolve()) for path in (start, *start.parents)}
        with suppress(RuntimeError):  # an account without a home
            own.add(Path.home())
        # A path of one part, such as /data, would match texts that have nothing to do with this machine.
        named = sorted((str(path) for path in own if len(path.parts) > 2), key=len, reverse=True)
        known = "".join(rf"|{re.escape(name)}(?![\w-])" for name in named)
        named_roots = f"({_BEFORE_A_PATH}(?:{_ROOTS}{known}){_REST_OF_A_PATH})"
        self._anywhere = re.compile(f"{_URL}|{named_roots}|({_BEFORE_A_PATH}{_ANY_PATH}{_REST_OF_A_PATH})")

    def within(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield line number and path of each local path in a text."""
        line, at = 1, 0
        for found in self._anywhere.finditer(text):
            path = (found[1] or found[2] or "").rstrip(".:!?*")
            if found[1] or (path and _is_here(path)):
                line, at = line + text.count("\n", at, found.start()), found.start()
                yield line, path

    def first(self, text: str) -> str | None:
        """Return the first local path in a setting's value: anywhere below a known root, or at its start below any root."""
        if _ANY_ROOT.match(text):
            return text
        return next((path for _, path in self.within(text)), None)


@lru_cache(4096)
def _is_here(path: str) -> bool:
    """Return whether a path exists here, or a parent of it that has at least two names."""
    whole = Path(path)
    try:
        return any(each.exists() for each in (whole, *whole.parents) if len(each.parts) > 2)
    except (OSError, ValueError):
        return False


class Malformed(ValueError):
    """The content of a file does not match its name; the message says why."""


@dataclass(frozen=True)
class Tensors:
    """The header of a safetensors file."""

    names: tuple[str, ...]
    """Names of the tensors."""
    parameters: int
    """Number of values in all tensors."""
    dtypes: Mapping[str, int]
    """Number of values by data type."""
    metadata: Mapping[str, str]
    """The header's `__metadata__`."""


def tensors_in(path: Path) -> Tensors:
    """Read and validate a safetensors header; the tensors themselves are not read. Raises Malformed, OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header, data = _header(file, size)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Malformed("its metadata are not a mapping of names to strings")
    spans, dtypes, total = [], dict[str, int](), 0
    for name, entry in header.items():
        dtype, numbers, begin, end = _entry(name, entry, data)
        spans.append((begin, end, name))
        dtypes[dtype] = dtypes.get(dtype, 0) + numbers
        total += numbers
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            # The format allows neither gaps nor overlaps, in which other data could be hidden.
            raise Malformed(f"the data of {name!r} do not begin where the previous tensor ends (byte {at})")
        at = end
    if at != data:
        raise Malformed(f"its tensors take {at:,} bytes, but {data:,} bytes follow the header")
    return Tensors(tuple(header), total, dtypes, metadata)


def _header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """Return the header, and the number of bytes that follow it."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise Malformed("its header would be longer than the file; the file is truncated or not safetensors")
    if length > MAX_HEADER_BYTES:
        raise Malformed(f"its header has {length:,} bytes; the Hub reads at most {MAX_HEADER_BYTES:,}")
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise Malformed(
            f"its header is not valid JSON ({error if isinstance(error, Malformed) else type(error).__name__})"
        ) from None
    if not isinstance(header, dict):
        raise Malformed("its header is not an object")
    return header, size - 8 - length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Malformed("duplicate name")
    return found


def _entry(name: str, entry: Any, data: int) -> tuple[str, int, int, int]:
    """Return a tensor's type, its number of values, and the start and end of its bytes."""
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise Malformed(f"{name!r} has an unknown type: {dtype!r}")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise Malformed(f"{name!r} has an invalid shape or offsets")
    begin, end = offsets
    numbers = math.prod(shape)
    if not begin <= end <= data:
        raise Malformed(f"{name!r} ends after the end of the file")
    if (end - begin) * 8 != numbers * _BITS[dtype]:
        raise Malformed(f"{name!r} has {end - begin:,} bytes, which do not match its shape and type")
    return dtype, numbers, begin, end


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)


def pickle_or_archive(head: bytes) -> str | None:
    """Return what kind of file that may run code begins with these bytes; None for any other file."""
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "a zip archive, as torch.save and numpy write them"
    if head.startswith(b"\x89HDF\r\n"):
        return "an HDF5 file"
    if head.startswith((b"\x7fELF", b"MZ\x90")):
        return "a program"
    return None


def secrets_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and kind of each apparent key, token or password in a text, never its value."""
    for pattern, kind in _SECRETS.items():
        for found in pattern.finditer(text):
            yield text.count("\n", 0, found.start()) + 1, kind
