"""Splits streams: server-sent events, and one JSON object per line.

Source: html.spec.whatwg.org/multipage/server-sent-events.html. Bytes may be split anywhere, also within a character.
"""

from collections.abc import Iterator
from typing import Any

from hf_gateway.errors import BadResponse
from hf_gateway.wire.json import loads_utf8

MAX_EVENT_BYTES = 16 * 2**20
"""Maximum size of a line or an event; a model's answer has kilobytes."""

EVENT_STARTS = b"deir:\xef"
"""Possible first bytes of server-sent events: `data`, `event`, `error`, `id`, `retry`, a comment, a byte order mark."""


class Lines:
    """Splits bytes into lines, which end with CR, LF, or both."""

    def __init__(self, target: str) -> None:
        """Start at the beginning of a stream."""
        self._target = target
        self._rest = bytearray()
        self._after_cr = False

    @property
    def is_within(self) -> bool:
        """Whether a line, or its end, may be incomplete."""
        return self._after_cr or bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes; returns the complete lines, without their ends."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if not data:
            return []
        # A CR at the very end may be half of a CRLF; the LF is dropped when it arrives.
        self._after_cr = data.endswith(b"\r")
        first, *others = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest += first
        if not others:
            self._check()
            return []
        lines = [bytes(self._rest), *others[:-1]]
        self._rest = bytearray(others[-1])
        self._check()
        return lines

    def end(self) -> list[bytes]:
        """Return an incomplete last line at the end of the stream."""
        rest, self._rest = bytes(self._rest), bytearray()
        return [rest] if rest else []

    def _check(self) -> None:
        if len(self._rest) > MAX_EVENT_BYTES:
            raise BadResponse(f"a line of more than {MAX_EVENT_BYTES >> 20} MB in the stream", target=self._target)


class EventStream:
    """Splits bytes into server-sent events, and yields the data of each.

    TGI writes `data:{…}` without a space, llama.cpp `error: {…}` for what others send as `data: {"error": {…}}`, and some servers
    end without the empty line after the last event: its data count nevertheless, or the end of an answer would be lost. An
    unknown field is an error, since a garbled `data` would otherwise be a gap in the answer.
    """

    def __init__(self, target: str) -> None:
        """Start at the beginning of a stream."""
        self._target = target
        self._lines = Lines(target)
        self._data: list[bytes] = []
        self._size = 0
        self._first = True

    @property
    def is_between(self) -> bool:
        """Whether the bytes so far end with an event: the next ones begin another."""
        return not (self._first or self._data or self._lines.is_within)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes; yields the data of complete events. Later events are parsed only when they are requested."""
        return self._events(self._lines.feed(data))

    def end(self) -> Iterator[bytes]:
        """Yield the data of an incomplete last event at the end of the stream."""
        return self._events([*self._lines.end(), b""])

    def _events(self, lines: list[bytes]) -> Iterator[bytes]:
        for line in lines:
            if self._first:
                line = line.removeprefix(b"\xef\xbb\xbf")
                self._first = False
            if line:
                self._take(line)
            elif self._data:
                found = b"\n".join(self._data)
                self._data, self._size = [], 0
                yield found

    def _take(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        if field != b"data":
            if field in (b"", b"event", b"id", b"retry"):  # comments and these contain nothing of an answer
                return
            if field != b"error":
                raise _garbled(line, self._target)
            value = b'{"error":%b}' % value
        self._data.append(value.removeprefix(b" "))
        self._size += len(line)
        if self._size > MAX_EVENT_BYTES:
            raise BadResponse(f"an event of more than {MAX_EVENT_BYTES >> 20} MB in the stream", target=self._target)


def parse_event(data: bytes, target: str) -> dict[str, Any]:
    """Return the JSON object of one event.

    Args:
        data: the data of the event.
        target: label for errors.

    Raises:
        BadResponse: it is anything else.
    """
    try:
        found = loads_utf8(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _garbled(data, target)
    return found


def _garbled(data: bytes, target: str) -> BadResponse:
    return BadResponse(f"a garbled event in the stream: {data[:80].decode('utf-8', 'replace')!r}", target=target)
