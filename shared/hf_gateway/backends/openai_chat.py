"""Base of the kinds with OpenAI's chat API."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

from hf_gateway.backends.base import Server
from hf_gateway.backends.chat import ChatAbility
from hf_gateway.backends.thoughts import MAX_REFUSALS, ServerDialect, ThinkTags
from hf_gateway.errors import GatewayError
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.chat import ChatOptions
from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatEvent, ChatRequest
from hf_gateway.values.http import HttpRequest
from hf_gateway.wire import openai_chat
from hf_gateway.wire.openai_chat import Dialect


class OpenAIFormChat(ChatAbility):
    """Chat with a server that answers `/v1/chat/completions`."""

    strict: ClassVar[bool] = False
    """Whether the server refuses unknown fields."""

    def __init__(self, server: Server, options: ChatOptions) -> None:
        super().__init__(server, options)
        self._tags = ThinkTags(self.target)
        self._dialect = ServerDialect(self.target, strict=self.strict)

    def chat_url(self) -> str:
        """Return the URL of the chat route."""
        return openai_chat.chat_url(self.server.url or "")

    def chat_model(self, model: str | None) -> str | None:
        """Return a model's name on this server."""
        return model

    def chat_headers(self) -> Mapping[str, str]:
        """Return additional headers."""
        return {}

    def chat(self, request: ChatRequest, builder: AnswerBuilder) -> Effects:
        """Answer, streamed or whole. Fields beyond OpenAI's API that the server refuses are left out, now and later.

        Args:
            request: the conversation.
            builder: collects the answer.
        """
        for _ in range(MAX_REFUSALS):
            sent = self._dialect.current()
            try:
                yield from self._chat_as(sent, request, builder)
                return
            except GatewayError as refusal:
                if builder.has_content or not self._dialect.adapt(refusal, request, sent):
                    raise
        yield from self._chat_as(self._dialect.current(), request, builder)

    def _chat_as(self, dialect: Dialect, request: ChatRequest, builder: AnswerBuilder) -> Effects:
        label, thoughts = self.target.label, self._tags.reader(request)

        def read(event: ChatEvent) -> ChatEvent:
            self._dialect.learn(event)
            return thoughts.read(event) if thoughts else event

        yield from self.send_chat(
            request,
            builder,
            functools.partial(self._message, dialect),
            lambda response: read(openai_chat.decode_chat(response, target=label)),
            lambda headers: openai_chat.OpenAIStreamDecoder(headers, label, read, joins=not request.in_pieces),
        )
        yield from self._tags.finish(request, thoughts, builder)

    def _message(self, dialect: Dialect, request: ChatRequest) -> HttpRequest:
        message = openai_chat.encode_chat(
            self.chat_url(),
            self.chat_model(request.model),
            request,
            stream_usage=self.target.options.get("stream_usage", True),
            dialect=dialect,
        )
        more = self.chat_headers()
        return dataclasses.replace(message, headers={**message.headers, **more}) if more else message
