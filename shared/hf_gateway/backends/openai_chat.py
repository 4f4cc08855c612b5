"""What the kinds that speak OpenAI's chat form have in common."""

import dataclasses
from collections.abc import Mapping

from hf_gateway.backends.base import Backend
from hf_gateway.chat import ChatRequest, Gathering
from hf_gateway.drive import Effects
from hf_gateway.wire import openai_chat
from hf_gateway.wire.http import HttpRequest


class OpenAIChat(Backend):
    """A backend whose server answers `/v1/chat/completions`."""

    tasks = frozenset({"embedding", "chat"})

    def chat_url(self) -> str:
        """Return the whole URL of the chat route."""
        return openai_chat.chat_url(self.url or "")

    def chat_model(self, model: str | None) -> str | None:
        """Return a model's name as this server knows it."""
        return model

    def chat_headers(self) -> Mapping[str, str]:
        """Return what is sent besides."""
        return {}

    def chat(self, request: ChatRequest, gathering: Gathering) -> Effects:
        """Answer, streamed or whole."""
        label = self.target.label
        yield from self.converse(
            request,
            gathering,
            self._message,
            lambda response: openai_chat.decode_chat(response, target=label),
            lambda headers: openai_chat.ChatStream(headers, label),
        )

    def _message(self, request: ChatRequest) -> HttpRequest:
        message = openai_chat.encode_chat(
            self.chat_url(),
            self.chat_model(request.model),
            request,
            stream_usage=self.target.options.get("stream_usage", True),
        )
        return dataclasses.replace(message, headers={**message.headers, **self.chat_headers()})
