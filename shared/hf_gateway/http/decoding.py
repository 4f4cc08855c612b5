"""Compressed answers, unpacked a bounded piece at a time, so that a size is checked before it is in memory."""

import zlib
from collections.abc import Iterator, Mapping

ACCEPTED = "gzip, deflate"
"""What every request says it takes; an answer in anything else is refused unread."""
CHUNK_BYTES = 2**20
"""Bytes that are unpacked at once: a server may have packed a gigabyte into what came with one read."""


class UnknownEncoding(Exception):
    """An encoding that was not asked for, or one within another."""


class Undecodable(Exception):
    """The body is not in the encoding it names."""


class Truncated(Exception):
    """The body ended before its compression did."""


class Decoder:
    """Unpacks one body."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """headers: of the answer, names in lower case. Raises UnknownEncoding."""
        names = [name.strip().lower() for name in headers.get("content-encoding", "").split(",")]
        names = [name for name in names if name not in ("", "identity")]
        self._encoding = names[0].removeprefix("x-") if names else ""
        if len(names) > 1 or self._encoding not in ("", "gzip", "deflate"):
            raise UnknownEncoding(", ".join(names))
        self.is_plain = not self._encoding
        """Whether bytes come as they are, and need not be fed."""
        self._inflating: zlib._Decompress | None = None
        self._more = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes as they came; gives them unpacked, CHUNK_BYTES at most at a time. Raises Undecodable."""
        if self.is_plain:
            if data:
                yield data
            return
        while data or self._more:
            if self._inflating is None:
                self._inflating = zlib.decompressobj(self._window_bits(data[0]))
            try:
                piece = self._inflating.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                raise Undecodable(str(error)) from None
            data = self._inflating.unconsumed_tail
            # All input may have been taken, and what it stands for still be more than one piece.
            self._more = len(piece) == CHUNK_BYTES
            if self._inflating.eof:
                data, self._inflating, self._more = self._inflating.unused_data, None, False
            if piece:
                yield piece

    def end(self) -> None:
        """Raise Truncated where the body ended too early."""
        if self._inflating is not None:
            raise Truncated

    def _window_bits(self, first: int) -> int:
        if self._encoding == "gzip":
            return 16 + zlib.MAX_WBITS
        # "deflate" is zlib's form by the standard, and the bare one by some servers.
        return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS
