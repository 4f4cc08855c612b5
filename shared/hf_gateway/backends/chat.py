"""Base of all chat abilities: answers are streamed if the server supports it, otherwise read whole."""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, ClassVar, Protocol

from hf_gateway.backends.base import Ability, Server
from hf_gateway.backends.stream_support import StreamSupport, is_whole_answer, refuses_stream
from hf_gateway.chain.effects import Emit
from hf_gateway.errors import AttemptTimedOut, ConnectFailed, GatewayError
from hf_gateway.runtime.effects import Effects, Open, Opened, Read
from hf_gateway.settings.chat import ChatOptions
from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatEvent, ChatRequest
from hf_gateway.values.http import HttpRequest, HttpResponse

USAGE_GRACE_S = 2.0
"""How long to wait for the count of tokens after the finish reason."""
BODY_END_TIMEOUT_S = 0.1
"""How long to wait for the end of the body after a stream's end marker; then its connection can be reused."""


class StreamDecoder(Protocol):
    """The decoder of a streamed answer, from a wire module."""

    starts: ClassVar[bytes]
    """The possible first bytes of such a stream."""
    finished: bool
    """Whether a finish reason has arrived."""

    @property
    def done(self) -> bool:
        """Whether the stream's end marker has arrived: no more events will come."""

    def feed(self, data: bytes) -> Iterable[ChatEvent]:
        """Decode bytes; returns the events in them."""

    def end(self) -> Iterable[ChatEvent]:
        """Return the events that were incomplete at the end of the stream."""


class ChatAbility(Ability):
    """Answers conversations. A kind's class implements `chat` and `probe`, and reports the context it knows."""

    options: ChatOptions

    def __init__(self, server: Server, options: ChatOptions) -> None:
        super().__init__(server, options)
        self.options = options
        self._streams = StreamSupport(able=self.target.options.get("stream", True) is not False)

    def chat(self, request: ChatRequest, builder: AnswerBuilder) -> Effects:
        """Answer: add every `ChatEvent` to `builder` and yield an `Emit` of its result if that has content.

        Args:
            request: the conversation; `request.model` is the model to call.
            builder: collects the answer.

        Raises:
            GatewayError: the server refused, or broke off.
        """
        raise NotImplementedError

    def send_chat(
        self,
        request: ChatRequest,
        builder: AnswerBuilder,
        encode: Callable[[ChatRequest], HttpRequest],
        whole: Callable[[HttpResponse], ChatEvent],
        pieces: Callable[[Mapping[str, str]], StreamDecoder],
    ) -> Effects:
        """Send a chat request and collect its answer; if the server refuses to stream, a whole answer is requested at once.

        Args:
            request: the conversation; `stream` says whether to stream.
            builder: collects the answer.
            encode: makes the HTTP request.
            whole: decodes an answer that arrives whole.
            pieces: makes the decoder of a stream from its headers.
        """
        if request.stream and self._streams.may_stream(request):
            try:
                if (yield from self._stream(encode(request), builder, whole, pieces)):
                    self._streams.note_whole_answer(request)
                return
            except GatewayError as failure:
                if builder.has_content or not refuses_stream(failure):
                    raise
                self._streams.note_whole_answer(request)
        whole_request = dataclasses.replace(request, stream=False) if request.stream else request
        response = yield from self.ask(encode(whole_request))
        yield from emit_content(builder, [whole(response)])
        builder.closed = True

    def _stream(
        self,
        message: HttpRequest,
        builder: AnswerBuilder,
        whole: Callable[[HttpResponse], ChatEvent],
        pieces: Callable[[Mapping[str, str]], StreamDecoder],
    ) -> Effects:
        """Read a stream; returns whether the answer arrived whole, since servers may ignore the request for a stream."""
        opened: Opened = yield Open(message, self.server.credential())
        decoder, answered = pieces(opened.headers), 200 <= opened.status < 300
        data: bytes | None = (yield Read(opened.source)) if answered else b""
        if not answered or is_whole_answer(opened.headers.get("content-type", ""), data or b"", decoder.starts):
            response = yield from self._read_whole(opened, data)
            yield from emit_content(builder, [whole(response)])
            builder.closed = True
            return True
        while True:
            yield from emit_content(builder, decoder.end() if data is None else decoder.feed(data))
            builder.closed = decoder.done
            if data is None:
                return False
            within = BODY_END_TIMEOUT_S if decoder.done else USAGE_GRACE_S if decoder.finished else None
            try:
                data = yield Read(opened.source, within)
            except (AttemptTimedOut, ConnectFailed):
                if decoder.finished or decoder.done:
                    return False
                raise

    def _read_whole(self, opened: Opened, start: bytes | None) -> Generator[Any, Any, HttpResponse]:
        """Read a body to its end. start: the bytes read before, None at its end."""
        body, data = bytearray(), start
        while data is not None:
            body += data
            data = yield Read(opened.source)
        credential = self.server.credential()
        # Some servers quote a key that they refuse.
        kept = bytes(body).replace(credential.secret.reveal().encode(), b"***") if credential else bytes(body)
        return HttpResponse(opened.status, opened.headers, kept)


def emit_content(builder: AnswerBuilder, events: Iterable[ChatEvent]) -> Generator[Emit, None, None]:
    """Collect events, and emit those with content: all at once, also those before an error among them.

    Args:
        builder: collects the answer.
        events: pieces of it that arrived together.

    Raises:
        GatewayError: the one that reading the events raises.
    """
    pieces: list[ChatEvent] = []
    try:
        for event in events:
            piece = builder.add(event)
            if piece.has_content:
                pieces.append(piece)
    except GatewayError:
        if pieces:
            yield Emit(tuple(pieces))
        raise
    if pieces:
        yield Emit(tuple(pieces))
