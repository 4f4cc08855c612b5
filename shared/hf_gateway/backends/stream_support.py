"""What a server can stream: by its target's option, by what it refused, and by what came whole instead."""

import re
from time import monotonic

from hf_gateway.errors import GatewayError
from hf_gateway.values.chat import ChatRequest
from hf_gateway.wire.sse import EVENT_STARTS

REFUSAL_LIFETIME_S = 600.0
"""Seconds for which it is remembered: the server may be another one by then, and asking costs one refusal."""

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
    """Return whether a body is no stream: by its type, and where that is wrong or says nothing, by its first byte.

    Args:
        content_type: of the response; "" for none.
        start: of the body.
        starts: the bytes of which one is the first of a stream.
    """
    first = start.lstrip()[:1]
    if content_type.startswith(_WHOLE_TYPES):
        return not first or first not in EVENT_STARTS
    return not content_type.startswith(_STREAM_TYPES) and first not in starts


def refuses_stream(failure: GatewayError) -> bool:
    """Return whether a server refused to stream what it may give as a whole.

    llama.cpp (and LM Studio and Ollama's OpenAI form with it) refuses `logprobs` with tools, OpenAI some models, others tools.
    """
    return (
        failure.status in _STATUSES
        and _ABOUT_STREAMS.search(failure.message) is not None
        and _REFUSED.search(failure.message) is not None
    )


class StreamSupport:
    """Remembers what a server did not stream. Safe for threads: what is forgotten is learnt again."""

    def __init__(self, *, able: bool) -> None:
        """Know nothing yet; able: whether it can stream at all."""
        self._able = able
        self._whole_until: dict[tuple[str | None, bool, bool], float] = {}

    def may_stream(self, request: ChatRequest) -> bool:
        """Return whether it may be asked for a stream."""
        return self._able and monotonic() >= self._whole_until.get(_kind(request), 0.0)

    def note_whole_answer(self, request: ChatRequest) -> None:
        """Remember that requests like this one are not streamed."""
        self._whole_until[_kind(request)] = monotonic() + REFUSAL_LIFETIME_S


def _kind(request: ChatRequest) -> tuple[str | None, bool, bool]:
    return request.model, bool(request.tools), bool(request.sampling.logprobs)
