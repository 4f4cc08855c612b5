"""Async calls where no event loop of asyncio runs, as under trio: an error that says what to do, not one of the interpreter's."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, errors
from hf_gateway.hub import HubConnector


async def _first_of(stream: Any) -> None:
    await anext(aiter(stream))


async def _opened(gateway: Gateway) -> None:
    async with gateway.astream("hi") as stream:
        await anext(stream)


CALLS: dict[str, Callable[[Gateway, Gateway, HubConnector], Coroutine[Any, Any, Any]]] = {
    "aembed": lambda embeds, _, __: embeds.aembed(["a"]),
    "aembed_stream": lambda embeds, _, __: _first_of(embeds.aembed_stream(["a"])),
    "aclose": lambda embeds, _, __: embeds.aclose(),
    "achat": lambda _, chats, __: chats.achat("hi"),
    "astream": lambda _, chats, __: _opened(chats),
    "the Hub": lambda _, __, hub: hub.aget_model_metadata("org/model"),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_async_call_without_asyncio_says_what_it_needs(name: str, tmp_path: Path) -> None:
    target = "openai:http://127.0.0.1:9"
    embeds, chats = Gateway("m", [target]), Gateway("m", [target], task="chat")
    coroutine = CALLS[name](embeds, chats, HubConnector(endpoint="http://127.0.0.1:9", cache=tmp_path))
    with pytest.raises(errors.ConfigError, match="event loop of asyncio"):
        coroutine.send(None)  # what trio does with it
