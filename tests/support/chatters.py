"""All forms of a chat call behind one name, so that each behaviour is tested in every one of them with the same lines."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hf_gateway import ChatResult, Gateway
from hf_gateway.testing import ManualClock
from tests.support.timed import shortest, within

MODEL = "test/chat-model"
FORMS = ("whole", "awhole", "streamed", "astreamed")
"""Blocking and async; the answer at once, or piece by piece."""


class Chatter:
    """A chat chain, called in one of FORMS. clock: stands still until somebody waits; pieces: the texts that came so far."""

    def __init__(self, form: str, targets: Sequence[Any], **settings: Any) -> None:
        """Build a Gateway over the targets."""
        self.form = form
        self.limit = shortest(settings)
        self.clock = ManualClock()
        self.pieces: list[str] = []
        self.gateway = Gateway(targets=list(targets), task="chat", clock=self.clock, **{"model": MODEL, **settings})

    @property
    def streamed(self) -> bool:
        """Whether the pieces reach the caller."""
        return self.form.endswith("streamed")

    def ask(self, messages: Any = "Tell me a story", **call: Any) -> ChatResult:
        """Ask, and read the answer to its end; a limit of less than a second that was set has to hold."""
        with within(self.limit):
            return self._ask(messages, call)

    def _ask(self, messages: Any, call: dict[str, Any]) -> ChatResult:
        self.pieces = []
        if self.form == "whole":
            return self.gateway.chat(messages, **call)
        if self.form == "awhole":
            return asyncio.run(self.gateway.achat(messages, **call))
        if self.form == "astreamed":
            return asyncio.run(self._astream(messages, call))
        with self.gateway.stream(messages, **call) as stream:
            for event in stream:
                self.pieces.append(event.text)
        return stream.result

    async def _astream(self, messages: Any, call: dict[str, Any]) -> ChatResult:
        async with self.gateway.astream(messages, **call) as stream:
            async for event in stream:
                self.pieces.append(event.text)
        return stream.result
