"""What every kind does for chat: an answer that is streamed where the server can, and whole where it cannot."""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, ClassVar, Protocol

from hf_gateway.backends.base import Ability, Server
from hf_gateway.backends.stream_support import StreamSupport, is_whole_answer, refuses_stream
from hf_gateway.chain.effects import Emit
from hf_gateway.errors import AttemptTimedOut, ConnectFailed, GatewayError
from hf_gateway.runtime.effects import Effects, Open, Opened, Read
from hf_gateway.settings.chat import ChatOptions
from hf_gateway.values.chat import AnswerBuilder, ChatEvent, ChatRequest
from hf_gateway.values.http import HttpRequest, HttpResponse

USAGE_GRACE_S = 2.0
"""Seconds after the finish reason for the count of tokens to come."""
BODY_END_TIMEOUT_S = 0.1
"""Seconds after a stream's own last word for the end of its body, with which its connection can be used again."""


class StreamDecoder(Protocol):
    """A wire's reader of streamed answers."""

    starts: ClassVar[bytes]
    """The bytes of which one is the first of such a stream."""
    finished: bool
    """Whether a finish reason was there."""

    @property
    def done(self) -> bool:
        """Whether the stream's own last word was there: nothing more will come."""

    def feed(self, data: bytes) -> Iterable[ChatEvent]:
        """Take bytes, return the events in them."""

    def end(self) -> Iterable[ChatEvent]:
        """Return what was still open when the stream ended."""


class ChatAbility(Ability):
    """Answers conversations. A kind's own class gives `chat` and `probe`, and what it knows of the context."""

    options: ChatOptions

    def __init__(self, server: Server, options: ChatOptions) -> None:
        super().__init__(server, options)
        self.options = options
        self._streams = StreamSupport(able=self.target.options.get("stream", True) is not False)

    def chat(self, request: ChatRequest, builder: AnswerBuilder) -> Effects:
        """Answer: put every `ChatEvent` into `builder` and yield an `Emit` of what it gives back, where that has content.

        Args:
            request: what is asked; `request.model` is the model to ask.
            builder: takes the answer.

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
        """Send a chat request and gather its answer; what a server refuses to stream is asked for at once as a whole.

        Args:
            request: what is asked; `stream` says whether in pieces.
            builder: takes the answer.
            encode: makes the HTTP request.
            whole: reads an answer that comes at once.
            pieces: makes the reader of a stream from its headers.
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
        response = yield from self.ask(encode(dataclasses.replace(request, stream=False)))
        yield from emit_content(builder, [whole(response)])
        builder.closed = True

    def _stream(
        self,
        message: HttpRequest,
        builder: AnswerBuilder,
        whole: Callable[[HttpResponse], ChatEvent],
        pieces: Callable[[Mapping[str, str]], StreamDecoder],
    ) -> Effects:
        """Open a stream and gather its pieces; returns whether the answer came whole, since servers ignore what was asked for."""
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
        """Read a body to its end. start: what was read of it before, None for its end."""
        body, data = bytearray(), start
        while data is not None:
            body += data
            data = yield Read(opened.source)
        credential = self.server.credential()
        # Some servers quote the key they refuse.
        kept = bytes(body).replace(credential.secret.reveal().encode(), b"***") if credential else bytes(body)
        return HttpResponse(opened.status, opened.headers, kept)


def emit_content(builder: AnswerBuilder, events: Iterable[ChatEvent]) -> Generator[Emit, None, None]:
    """Gather events, and hand on what of them a reader would see."""
    for event in events:
        piece = builder.add(event)
        if piece.has_content:
            yield Emit(piece)
