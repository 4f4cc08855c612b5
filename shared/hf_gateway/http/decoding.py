"""Decompresses answers in pieces of limited size, so that a size is checked before the data is in memory."""

import zlib
from collections.abc import Iterator, Mapping

ACCEPTED = "gzip, deflate"
"""The encodings that every request accepts; an answer in any other is refused unread."""
CHUNK_BYTES = 2**20
"""Maximum size of a decompressed piece: a few received bytes may contain a gigabyte."""


class UnknownEncoding(Exception):
    """An encoding that was not accepted, or one within another."""


class Undecodable(Exception):
    """The body is not in the encoding it names."""


class Truncated(Exception):
    """The body ended before its compression did."""


class Decoder:
    """Decompresses one body."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """headers: of the answer, names in lower case. Raises UnknownEncoding."""
        names = [name.strip().lower() for name in headers.get("content-encoding", "").split(",")]
        names = [name for name in names if name not in ("", "identity")]
        self._encoding = names[0].removeprefix("x-") if names else ""
        if len(names) > 1 or self._encoding not in ("", "gzip", "deflate"):
            raise UnknownEncoding(", ".join(names))
        self.is_plain = not self._encoding
        """Whether the body is not compressed, so that its bytes need not be fed."""
        self._inflating: zlib._Decompress | None = None
        self._more = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress received bytes; yields pieces of at most CHUNK_BYTES. Raises Undecodable."""
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
            # All input may have been consumed while more output than one piece is still pending.
            self._more = len(piece) == CHUNK_BYTES
            if self._inflating.eof:
                data, self._inflating, self._more = self._inflating.unused_data, None, False
            if piece:
                yield piece

    def end(self) -> None:
        """Raise Truncated if the body ended too early."""
        if self._inflating is not None:
            raise Truncated

    def _window_bits(self, first: int) -> int:
        if self._encoding == "gzip":
            return 16 + zlib.MAX_WBITS
        # By the standard "deflate" is zlib's format; some servers send the raw one.
        return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS
