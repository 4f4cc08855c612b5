"""Whether a server can stream: by its target's option, its refusals, and answers that arrived whole instead."""

import re
from time import monotonic

from hf_gateway.errors import GatewayError
from hf_gateway.values.chat import ChatRequest
from hf_gateway.wire.sse import EVENT_STARTS

REFUSAL_LIFETIME_S = 600.0
"""How long a refusal is remembered: the server may be another one later, and another attempt costs one refusal."""

_STATUSES = (400, 404, 405, 422, 500, 501)
_ABOUT_STREAMS = re.compile(r"\bstream(s|ed|ing)?\b", re.IGNORECASE)
_REFUSED = re.compile(
    r"\bnot (be |yet )*(support|allow|available|enabled|implement|possible)|\bunsupported|\b(can ?not|can't)\b"
    r"|must be (false|verified)|\bdisabled|\bincompatible",
    re.IGNORECASE,
)

_WHOLE_TYPES = ("application/json", "text/html")
_STREAM_TYPES = ("text/event-stream", "application/x-ndjson")


def is_whole_answer(content_type: str, start: bytes, starts: bytes) -> bool:
    """Return whether a body is not a stream: by its type, and if that is wrong or missing, by its first byte.

    Args:
        content_type: of the response; "" if it has none.
        start: the first bytes of the body.
        starts: the possible first bytes of a stream.
    """
    first = start.lstrip()[:1]
    if content_type.startswith(_WHOLE_TYPES):
        return not first or first not in EVENT_STARTS
    return not content_type.startswith(_STREAM_TYPES) and first not in starts


def refuses_stream(failure: GatewayError) -> bool:
    """Return whether a server refused to stream an answer that it may send whole.

    llama.cpp (and LM Studio and Ollama's OpenAI API with it) refuses `logprobs` with tools, OpenAI some models, others tools.
    """
    return (
        failure.status in _STATUSES
        and _ABOUT_STREAMS.search(failure.message) is not None
        and _REFUSED.search(failure.message) is not None
    )


class StreamSupport:
    """Remembers which requests a server did not stream. Safe for threads: a lost entry is found again by the next refusal."""

    def __init__(self, *, able: bool) -> None:
        """able: whether the server can stream at all."""
        self._able = able
        self._whole_until: dict[tuple[str | None, bool, bool], float] = {}

    def may_stream(self, request: ChatRequest) -> bool:
        """Return whether to request a stream."""
        return self._able and monotonic() >= self._whole_until.get(_kind(request), 0.0)

    def note_whole_answer(self, request: ChatRequest) -> None:
        """Record that requests like this one are not streamed."""
        self._whole_until[_kind(request)] = monotonic() + REFUSAL_LIFETIME_S


def _kind(request: ChatRequest) -> tuple[str | None, bool, bool]:
    return request.model, bool(request.tools), bool(request.sampling.logprobs)
